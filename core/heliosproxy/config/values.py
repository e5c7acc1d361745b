"""Text of the file to values: variables, durations, sizes, addresses, choices. Pure; a mistake is a BadValue."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Mapping, Sequence

from heliosproxy.config.errors import did_you_mean
from heliosproxy.config.kinds import Address, Json

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|[kKMGT]i?B)")
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62})")


class BadValue(ValueError):
    """A value that its key cannot take; `hint` says what it can."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def kind(value: object) -> str:
    """What a TOML value is, in words. Never the value itself, which may be a secret."""
    for python_type, words in (
        (bool, "a true or false"), (int, "a number"), (float, "a number"), (str, "text"), (list, "a list"),
        (dict, "a table"),
    ):  # fmt: skip
        if isinstance(value, python_type):
            return words
    return "a date"


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`${NAME}` and `${NAME:-default}` replaced; `$${` stands for `${`; any other `$` is itself.

    As in a shell, the default serves for a variable that is unset or empty. What a variable holds is not expanded.
    Raises BadValue naming a variable that is not set.
    """

    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if match[0] == "$${":
            return "${"
        if name is None:
            hint = "write ${NAME} or ${NAME:-default}; $${ for the two characters"
            raise BadValue("${ does not begin a variable", hint)
        if default is not None:
            return environ.get(name) or default
        if name not in environ:
            raise BadValue(f"the environment variable {name} is not set", f"set it, or write ${{{name}:-default}}")
        return environ[name]

    return _VARIABLE.sub(replace, text)


def uses_variables(text: str) -> bool:
    """Whether `expand` would put a variable's text into it."""
    return any(match[1] for match in _VARIABLE.finditer(text))


def duration(value: object) -> float:
    """Seconds of "500ms", "10s", "5min", "1h" (PostgreSQL's units); more than nothing."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise BadValue("a duration needs a unit", f'give a unit, as in "{value}s" or "{value}ms"')
    match = _DURATION.fullmatch(_text(value, "a duration").strip())
    if match is None:
        raise BadValue(f"{_quoted(value)} is not a duration", 'write a number and us, ms, s, min, h or d, as in "10s"')
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds < math.inf:
        raise BadValue(f"{_quoted(value)} is no time at all", "give a duration above zero")
    return seconds


def size(value: object) -> int:
    """Bytes of "64MB", "64MiB", "1GB". As in PostgreSQL a unit is 1024 of the next smaller, with or without the i."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise BadValue("a size needs a unit", 'give a unit, as in "64MB"')
    match = _SIZE.fullmatch(_text(value, "a size").strip())
    if match is None:
        raise BadValue(f"{_quoted(value)} is not a size", 'write a whole number and B, kB, MB, GB or TB, as in "64MB"')
    count = int(match[1]) * _BYTES[match[2].rstrip("B").rstrip("i").lower()]
    if count == 0:
        raise BadValue(f"{_quoted(value)} is no space at all", "give a size above zero")
    return count


def address(value: object) -> Address:
    """Host and port of "host:port", "[::1]:5432" or "/directory:5432"."""
    text = _text(value, "an address")
    if "@" in text:  # and perhaps a password before it, which is not to be shown
        raise BadValue("an address has no user", "write host:port; users are in [auth], [health] and [pool]")
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if text.startswith("[") and "]" not in text:
        raise BadValue(f"{_quoted(text)} has an open bracket", 'as in "[::1]:5432"')
    if not colon or not host or (text.startswith("[") and not bracketed):
        raise BadValue(f"{_quoted(text)} has no port", f'write host:port, as in "{text or "localhost"}:5432"')
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise BadValue(f"{_quoted(port)} is not a port", "a port is a number up to 65535")
    return Address(_host(host[1:-1] if bracketed else host, bracketed), int(port))


def choice(value: object, choices: Sequence[str]) -> str:
    """One of the choices, exactly as they are written."""
    text = _text(value, "text")
    if text not in choices:
        listed = ", ".join(map(_quoted, choices))
        raise BadValue(f"{_quoted(text)} is not one of {listed}", did_you_mean(text, choices))
    return text


def whole_number(value: object) -> int:
    """A number without a fraction; also as text, since that is what a variable gives."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue(f"must be a whole number, not {kind(value)}")
    return value


def boolean(value: object) -> bool:
    """true or false; also as text, since that is what a variable gives."""
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise BadValue(f"must be true or false, not {kind(value)}", "write true or false, without quotes")
    return value


def text(value: object) -> str:
    """Text that a C string can hold."""
    result = _text(value, "text")
    if "\0" in result:
        raise BadValue("must not hold a NUL character")
    return result


def name(value: object) -> str:
    """A name that hints and metrics can carry."""
    result = _text(value, "a name")
    if not _NAME.fullmatch(result):
        hint = "letters, digits, dots, _ and -, a letter or digit first; 63 at most"
        raise BadValue(f"{_quoted(result)} is not a name", hint)
    return result


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach a listener there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def json_value(value: object) -> Json:
    """A TOML value as JSON knows it. Raises BadValue for dates, nan and inf."""
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise BadValue("must be a finite number")
    if isinstance(value, (str, bool, int, float)):
        return value
    raise BadValue("dates are not used here", "put it in quotes")


def _host(host: str, bracketed: bool) -> str:
    if host.startswith("/"):
        return host
    if ":" in host or bracketed:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise BadValue(f"{_quoted(host)} is not an IPv6 address") from None
        if not bracketed:
            raise BadValue("an IPv6 address needs brackets", f'as in "[{host}]:5432"')
        return host
    if not _HOST.fullmatch(host):
        raise BadValue(f"{_quoted(host)} is not a host name or address")
    return host


def _text(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise BadValue(f"must be {wanted} in quotes, not {kind(value)}")
    return value


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
