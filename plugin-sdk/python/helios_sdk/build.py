"""Build Python plugins into one component: `helios plugins build DIR`, and the package's own build hook.

Each directory holds a `plugin.py` with one or more subclasses of `Plugin`; it may import its own modules relatively.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_SDK = Path(__file__).resolve().parent
_GUEST_MODULES = ("__init__.py", "capabilities.py", "contract.py", "lower.py", "plugin.py", "runtime.py")
_IGNORED = shutil.ignore_patterns("__pycache__", "tests", "test_*", "*.wasm", ".*")
_APP = "helios_app"
_TIMEOUT = 300.0

_PROBE = """
import importlib, sys
from helios_sdk.plugin import Plugin
for module_name in sys.argv[1:]:
    module = importlib.import_module(module_name)
    found = [value for value in vars(module).values()
             if isinstance(value, type) and issubclass(value, Plugin) and value.name
             and value.__module__ == module_name]
    for cls in found:
        cls.manifest()
        print(module_name, cls.__qualname__, cls.name)
"""


class BuildError(Exception):
    """A plugin cannot be built; the message says where and why."""


def build(plugin_dirs: Sequence[Path], output: Path) -> None:
    """Build the plugins of these directories into the component `output`; it is replaced at once or not at all.

    Raises BuildError: no plugin.py, a plugin that cannot be imported (with file and line), no plugin class, two
    plugins of one name, componentize-py missing or failing.
    """
    if importlib.util.find_spec("componentize_py") is None:
        raise BuildError("componentize-py is not installed: pip install 'heliosproxy[sdk]'")
    directories = [_checked(Path(directory)) for directory in plugin_dirs]
    if not directories:
        raise BuildError("no plugin directory was given")
    with tempfile.TemporaryDirectory(prefix="helios-build-") as temporary:
        stage = Path(temporary)
        modules = {_stage_plugin(stage, directory): directory for directory in directories}
        if len(modules) != len(directories):
            raise BuildError("two plugin directories have the same name")
        _stage_sdk(stage)
        _write_app(stage, _plugin_classes(stage, modules))
        _componentize(stage, modules)
        _move(stage / "plugins.wasm", output)


def contract_dir() -> Path:
    """The directory of helios.wit: package data of an installed SDK, `plugin-sdk/wit` in the repository."""
    for candidate in (_SDK / "wit", _SDK.parent.parent / "wit"):
        if (candidate / "helios.wit").is_file():
            return candidate
    raise BuildError(f"helios.wit was not found beside {_SDK}")


def _checked(directory: Path) -> Path:
    if not (directory / "plugin.py").is_file():
        raise BuildError(f"{directory / 'plugin.py'}: no such file")
    name = _package(directory)
    if not name.isidentifier():
        raise BuildError(f"{directory}: a plugin's directory is named like a Python module, not {name!r}")
    return directory.resolve()


def _package(directory: Path) -> str:
    return directory.resolve().name.replace("-", "_")


def _stage_plugin(stage: Path, directory: Path) -> str:
    """Copy a plugin to `plugins/<name>`, where it is a namespace package as it is in this repository."""
    name = _package(directory)
    shutil.copytree(directory, stage / "plugins" / name, ignore=_IGNORED, dirs_exist_ok=True)
    return f"plugins.{name}.plugin"


def _stage_sdk(stage: Path) -> None:
    (stage / "helios_sdk").mkdir()
    for module in _GUEST_MODULES:
        shutil.copy(_SDK / module, stage / "helios_sdk" / module)


def _plugin_classes(stage: Path, modules: dict[str, Path]) -> list[tuple[str, str]]:
    """(module, class) of every plugin. They are imported natively first, where a mistake has a readable traceback."""
    done = _run([sys.executable, "-I", "-B", "-c", f"import sys; sys.path[:0] = [{str(stage)!r}]\n{_PROBE}", *modules])
    if done.returncode:
        raise BuildError(_in_source(_where(done.stderr, stage), stage, modules))
    found = [tuple(line.split()) for line in done.stdout.splitlines()]
    names = [line[2] for line in found]
    for module, directory in modules.items():
        if not any(line[0] == module for line in found):
            raise BuildError(f"{directory / 'plugin.py'}: no subclass of helios_sdk.Plugin with a name")
    for name in names:
        if names.count(name) > 1:
            raise BuildError(f"two plugins are named {name!r}")
    return [(line[0], line[1]) for line in found]


def _where(stderr: str, stage: Path) -> str:
    """`file:line: what` of a traceback: the last frame that is the author's."""
    lines = stderr.strip().splitlines() or ["it ended without a message"]
    frames = [line.strip() for line in lines if line.strip().startswith(f'File "{stage}/plugins')]
    if not frames:
        return lines[-1]
    path, line = frames[-1].removeprefix('File "').split('", line ')
    return f"{path}:{line.partition(',')[0]}: {lines[-1]}"


def _in_source(text: str, stage: Path, modules: dict[str, Path]) -> str:
    """Name the author's files instead of their copies."""
    for module, directory in modules.items():
        text = text.replace(str(stage / "plugins" / module.split(".")[1]), str(directory))
    return text


def _write_app(stage: Path, classes: Sequence[tuple[str, str]]) -> None:
    """The application module, made with `ast` rather than by pasting names into source."""
    statements: list[ast.stmt] = [
        ast.ImportFrom(module="helios_sdk.runtime", names=[ast.alias(name="App")], level=0),
        ast.Assign(targets=[ast.Name("app", ast.Store())], value=ast.Call(ast.Name("App", ast.Load()), [], [])),
    ]
    for index, (module, name) in enumerate(classes):
        alias = ast.alias(name=name, asname=f"plugin_{index}")
        statements.append(ast.ImportFrom(module=module, names=[alias], level=0))
    plugins: list[ast.expr] = [ast.Name(f"plugin_{index}", ast.Load()) for index in range(len(classes))]
    world = ast.Call(
        ast.Attribute(ast.Name("app", ast.Load()), "world", ast.Load()), [ast.Tuple(plugins, ast.Load())], []
    )
    statements.append(ast.Assign(targets=[ast.Name("WitWorld", ast.Store())], value=world))
    module_tree = ast.fix_missing_locations(ast.Module(body=statements, type_ignores=[]))
    (stage / f"{_APP}.py").write_text(ast.unparse(module_tree) + "\n")


def _componentize(stage: Path, modules: dict[str, Path]) -> None:
    arguments = ["-q", "-d", str(contract_dir()), "-w", "plugin", "componentize", "--stub-wasi"]
    arguments += ["-p", str(stage), "-o", str(stage / "plugins.wasm"), _APP]
    script = "import sys, componentize_py; sys.argv[0] = 'componentize-py'; sys.exit(componentize_py.script())"
    done = _run([sys.executable, "-c", script, *arguments], cwd=stage)
    if done.returncode:
        message = _in_source(f"{done.stdout}\n{done.stderr}".replace(" /0/", f" {stage}/"), stage, modules).strip()
        raise BuildError(f"componentize-py failed:\n{_without_backtrace(message)}")


def _without_backtrace(text: str) -> str:
    return text.partition("Stack backtrace:")[0].strip()


def _run(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"the build took longer than {_TIMEOUT:.0f} s") from None


def _move(built: Path, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    shutil.copyfile(built, partial)
    partial.replace(output)
