"""The documents are true as far as a program can tell: rules, links, commands, settings, files that are named."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from heliosproxy.config.reference import SECTIONS

ROOT = Path(__file__).parents[1]
OURS = ("core", "plugin-sdk", "plugins", "benchmarks", "examples", "tests", "docs")
NUMBER = re.compile(r"(?<![A-Za-z0-9])([SRLOCPFH][1-9])(?![A-Za-z0-9])")
STATES = ("held", "in part", "not yet needed")
INLINE_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def documents() -> list[Path]:
    """Every page of the repository, but not those of packages installed into it."""
    return sorted([*ROOT.glob("*.md"), *(page for name in OURS for page in (ROOT / name).rglob("*.md"))])


def sources() -> Iterator[Path]:
    """Files in which a rule may be cited."""
    for name in OURS:
        for pattern in ("*.py", "*.wit", "*.md"):
            yield from (ROOT / name).rglob(pattern)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- safety rules ----------------------------------------------------------------------------------------------------


@cache
def rules() -> dict[str, str]:
    """The rules of docs/safety.md by number, with the state of each."""
    text = (ROOT / "docs" / "safety.md").read_text()
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        number = section.partition(":")[0]
        state = re.findall(r"^State: (.+)$", section, re.MULTILINE)
        assert len(state) == 1, f"{number} has {len(state)} states"
        found[number] = state[0]
    return found


@cache
def named_by_tests() -> dict[str, list[str]]:
    """Tests whose names carry a number, by number."""
    found: dict[str, list[str]] = {}
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                for number in NUMBER.findall(node.name.replace("_", " ")):
                    found.setdefault(number, []).append(f"{shown(file)}::{node.name}")
    return found


def test_every_rule_has_a_state_that_is_one() -> None:
    assert all(re.match(rf"({'|'.join(STATES)})( \(.+\))?$", state) for state in rules().values()), rules()


def test_a_state_other_than_held_says_what_is_missing() -> None:
    assert [number for number, state in rules().items() if state.split(" (")[0] != "held" and "(" not in state] == []


def test_every_rule_that_is_cited_exists() -> None:
    missing = {
        f"{shown(file)}: {number}"
        for file in sources()
        for number in NUMBER.findall(file.read_text().replace("_", " "))
        if number not in rules()
    }
    assert missing == set()


@pytest.mark.parametrize("number", [number for number, state in rules().items() if not state.startswith("not")])
def test_a_rule_that_is_held_has_a_test_that_carries_its_number(number: str) -> None:
    assert named_by_tests().get(number), f"docs/safety.md says {number} is held, and no test's name carries {number}"


def test_a_rule_that_is_tested_is_not_said_to_be_unneeded() -> None:
    assert [number for number in named_by_tests() if rules()[number].startswith("not")] == []


# --- commands --------------------------------------------------------------------------------------------------------


def command(name: str) -> str:
    """The one line of the README's block that is marked with this name."""
    text = (ROOT / "README.md").read_text()
    found = re.findall(rf"<!-- command: {name} -->\n```sh\n(.+)\n```\n", text)
    assert len(found) == 1, f"the README has {len(found)} commands marked {name}, of one line each"
    return str(found[0])


def test_ci_runs_the_readmes_test_command_word_for_word() -> None:
    assert command("test") in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_readmes_commands_ask_for_extras_that_exist(name: str) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.findall(r"'\.\[(\w+)\]'", command(name))
    assert extras
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


@pytest.mark.parametrize("page", documents(), ids=shown)
def test_every_helios_command_that_is_shown_exists(page: Path) -> None:
    from typer.main import get_command

    from heliosproxy.cli.main import app

    top = get_command(app)
    for words in _commands(page.read_text()):
        group = top
        for word in words:
            inner = getattr(group, "commands", None)
            if not inner:
                break
            assert word in inner, f"helios {' '.join(words)}"
            group = inner[word]


def _commands(text: str) -> Iterator[list[str]]:
    """The words after `helios` in code that begins with it."""
    lines = [line.removeprefix("$ ") for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
             for line in block.splitlines()]  # fmt: skip
    for code in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
        found = re.match(r"(?:\S*/)?helios((?: [a-z]+)+)", code)
        if found:
            yield found[1].split()


# --- settings, links, files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_setting_is_in_the_manual(section: type[object]) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    missing = [field.name for field in fields(section) if f"| `{field.name}` |" not in text]  # type: ignore[arg-type]
    assert missing == []


@pytest.mark.parametrize("page", documents(), ids=shown)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in INLINE_LINK.findall(_without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", _without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_folder_that_contributing_names_exists_and_every_layer_is_named() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"^\| `([\w/-]+)` \|", text, re.MULTILINE)
    assert [name for name in named if not (ROOT / name).is_dir()] == []
    layers = {f"core/heliosproxy/{path.parent.name}" for path in (ROOT / "core/heliosproxy").glob("*/__init__.py")}
    assert layers <= set(named)


def test_every_module_that_the_life_of_a_query_names_exists() -> None:
    text = (ROOT / "docs" / "life-of-a-query.md").read_text()
    modules = set(re.findall(r"\b[a-z]+/[a-z_]+\.py\b", text))
    assert len(modules) > 15
    assert [name for name in sorted(modules) if not (ROOT / "core" / "heliosproxy" / name).is_file()] == []


def test_the_built_component_is_not_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "*.wasm"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (listed.returncode, listed.stdout) == (0, "")
