"""MD5 passwords, with what PostgreSQL 16 itself made of them."""

from __future__ import annotations

import pytest

from heliosproxy.auth.md5 import check_md5, is_md5, md5_response, md5_secret


def test_a_secret_is_the_one_that_postgresql_makes() -> None:
    # create role bob password 'pencil' with password_encryption = md5
    assert md5_secret("bob", "pencil") == "md5e4f70fb0b8f2745aa7a69557c80cbd0c"


def test_a_response_is_checked_against_its_salt_and_secret() -> None:
    secret = md5_secret("bob", "pencil")
    response = md5_response(secret, b"salt")
    assert len(response) == 35
    assert check_md5(secret, b"salt", response)
    assert not check_md5(secret, b"tlas", response)
    assert not check_md5(md5_secret("bob", "pen"), b"salt", response)
    assert not check_md5(secret, b"salt", b"")
    assert not check_md5(secret, b"salt", secret.encode()), "the stored secret itself is no response"


def test_bytes_that_are_not_utf8_are_taken_as_they_came() -> None:
    assert md5_secret("\udcff", "\udcfe") == md5_secret("\udcff", b"\xfe")


@pytest.mark.parametrize("text", ["", "md5", "md5" + "0" * 31, "md5" + "0" * 33, "md5" + "G" * 32, "MD5" + "0" * 32])
def test_what_is_no_secret_is_known_as_none(text: str) -> None:
    assert is_md5(md5_secret("bob", "pencil"))
    assert not is_md5(text)
