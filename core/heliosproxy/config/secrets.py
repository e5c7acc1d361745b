"""Secrets: those in files, and the forms in which PostgreSQL stores passwords. No message here ever holds one."""

from __future__ import annotations

import stat
from pathlib import Path

from heliosproxy.auth.md5 import is_md5
from heliosproxy.auth.secrets import ScramSecret
from heliosproxy.config.values import BadValue

_HINT = "as in pg_authid.rolpassword: SCRAM-SHA-256$4096:salt$StoredKey:ServerKey"
_LONGEST = 64 * 1024


def stored_secret(text: str) -> str:
    """The secret itself, if it is one as PostgreSQL stores it: SCRAM (RFC 5803), or MD5."""
    if is_md5(text):
        return text
    if not looks_stored(text):
        raise BadValue("neither a SCRAM secret nor an MD5 one", _HINT)
    try:
        ScramSecret.parse(text)
    except ValueError as error:
        raise BadValue(str(error), _HINT) from None
    return text


def looks_stored(text: str) -> bool:
    """Whether text given as a password is a secret as PostgreSQL stores it."""
    return text.startswith("SCRAM-SHA-256$") or is_md5(text)


def read_secret_file(file: Path) -> str:
    """A file's text. Raises BadValue if it cannot be read, everyone can read it, or it is no text.

    Ends of line at its end do not belong to the secret.
    """
    require_private(file)
    return read_text(file).rstrip("\r\n")


def require_private(file: Path) -> None:
    """Raises BadValue if the file is missing or everyone can read it."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise BadValue(f"cannot read {file}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise BadValue(f"{file} is not a file")
    if mode & stat.S_IROTH:
        raise BadValue(f"everyone on this machine can read {file}", f"chmod 600 {file}")


def read_text(file: Path, most: int = _LONGEST) -> str:
    """A file's text. Raises BadValue if it cannot be read, is no UTF-8 or longer than `most` bytes."""
    try:
        with file.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise BadValue(f"cannot read {file}: {error.strerror}") from None
    if len(content) > most:
        raise BadValue(f"{file} is longer than {most // 1024:,} kB")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadValue(f"{file} is not UTF-8 text") from None

