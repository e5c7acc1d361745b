from __future__ import annotations

import pytest

from heliosproxy.switch.settings import Settings, change, from_parameters, quote, startup_options


def test_nothing_to_do_is_no_statement() -> None:
    settings = from_parameters({"TimeZone": "UTC"})
    assert change(settings, settings) == ""


def test_only_what_differs_is_set() -> None:
    have = from_parameters({"TimeZone": "UTC", "DateStyle": "ISO, MDY", "server_version": "16"})
    want = from_parameters({"TimeZone": "Europe/Berlin", "DateStyle": "ISO, MDY", "server_version": "17"})
    assert change(have, want) == "SELECT pg_catalog.set_config('TimeZone', 'Europe/Berlin', false)"


def test_what_the_client_did_not_ask_for_is_reset() -> None:
    assert change(Settings(extra=(("my.thing", "1"),)), Settings()) == 'RESET "my"."thing";'


@pytest.mark.parametrize(
    ("text", "quoted"), [("a", "'a'"), ("it's", "'it''s'"), ("a\\b", "E'a\\\\b'"), ("'\\", "E'''\\\\'")]
)
def test_literals_read_the_same_whatever_standard_conforming_strings_is(text: str, quoted: str) -> None:
    assert quote(text) == quoted


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", []),
        ("-c a=1", [("a", "1")]),
        ("-ca=1 -c b=two\\ words", [("a", "1"), ("b", "two words")]),
        ("--statement-timeout=5s", [("statement_timeout", "5s")]),
        ("-c search_path=a,b\\\\c", [("search_path", "a,b\\c")]),
        ("-c helios.route=async", [("helios.route", "async")]),
    ],
)
def test_start_up_options(options: str, expected: list[tuple[str, str]]) -> None:
    assert startup_options(options) == expected


@pytest.mark.parametrize("options", ["-c", "-c a", "-d 5", "nonsense", "--=1"])
def test_start_up_options_that_are_none(options: str) -> None:
    with pytest.raises(ValueError, match=r"invalid command-line argument|requires a value"):
        startup_options(options)
