"""The users file."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliosproxy.config.users import parse_users

FILE = Path("userlist.txt")
KEY = "A" * 43 + "="
SCRAM = f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}"


def problems(text: str) -> list[str]:
    return [str(error) for error in parse_users(FILE, text)[1]]


def test_names_passwords_secrets_comments_and_doubled_quotes_are_read() -> None:
    text = f'; comment\n# too\n\n"alice" "pa""ss"\r\n  "bob"\t"{SCRAM}"  \n"md5ish" "md5"\n'
    listed, errors = parse_users(FILE, text)
    assert errors == []
    assert [(each.user.name, each.user.password, each.user.secret, each.line) for each in listed] == [
        ("alice", 'pa"ss', None, 4),
        ("bob", None, SCRAM, 5),
        ("md5ish", "md5", None, 6),
    ]


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("alice x", 1, "the user's name must be in double quotes"),
        ('"alice', 1, "the user's name has no closing quote"),
        ('  "alice"', 10, "the password must be in double quotes"),
        ('"alice" "x', 9, "the password has no closing quote"),
        ('"alice" "x" y', 13, "nothing may follow the password"),
        ('"" "x"', 1, "the user's name is empty"),
        ('"alice" ""', 9, "the password is empty"),
        ('"alice" "SCRAM-SHA-256$1:x$y:z"', 9, "not a SCRAM secret"),
    ],
)
def test_a_bad_line_is_reported_with_its_column(line: str, column: int, message: str) -> None:
    (problem,) = problems(f"# first\n{line}\n")
    assert problem.startswith(f"userlist.txt:2:{column}: {message}")


def test_every_bad_line_is_reported_and_no_secret_shown() -> None:
    found = problems('"a" "hunter2" x\nb\n"c" "1"\n"c" "2"\n')
    assert [problem.split(":")[1] for problem in found] == ["1", "2", "4"]
    assert "hunter2" not in "".join(found)
