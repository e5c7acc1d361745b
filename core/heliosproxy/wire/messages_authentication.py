"""The conversation that proves who a client is: AuthenticationX from the server, tag `R`; the answers, tag `p`.

Source: protocol chapter, "Start-up" and "SASL Authentication".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Self, TypeAlias

from heliosproxy.wire import buffer
from heliosproxy.wire.buffer import Body, Message, OpaqueMessage, Reader

_TAG_REQUEST = ord("R")
_TAG_ANSWER = ord("p")


@dataclass(frozen=True, slots=True)
class _Request(Message):
    """An AuthenticationX message: a code that tells which, and what belongs to it."""

    tag: ClassVar[int] = _TAG_REQUEST
    code: ClassVar[int]

    def body(self) -> bytes:
        return buffer.int32(self.code) + self.payload()

    def payload(self) -> bytes:
        """What follows the code."""
        return b""

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, cls.__name__)
        if reader.int32() != cls.code:
            raise reader.fail(f"its code is not {cls.code}")
        message = cls.read(reader)
        reader.end()
        return message

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """The message from what follows the code."""
        return cls()


@dataclass(frozen=True, slots=True)
class AuthenticationOk(_Request):
    """The client is who it says."""

    code: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class AuthenticationCleartextPassword(_Request):
    """Asks for a PasswordMessage with the password itself."""

    code: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class AuthenticationMD5Password(_Request):
    """Asks for a PasswordMessage with the password's MD5, salted with these four bytes."""

    code: ClassVar[int] = 5
    salt: bytes

    def payload(self) -> bytes:
        return self.salt

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.take(4))


@dataclass(frozen=True, slots=True)
class AuthenticationSASL(_Request):
    """Asks for a SASLInitialResponse with one of these mechanisms, the server's favourite first."""

    code: ClassVar[int] = 10
    mechanisms: tuple[str, ...]

    def payload(self) -> bytes:
        return b"".join(map(buffer.text, self.mechanisms)) + b"\0"

    @classmethod
    def read(cls, reader: Reader) -> Self:
        mechanisms: list[str] = []
        while mechanism := reader.text():
            mechanisms.append(mechanism)
        return cls(tuple(mechanisms))


@dataclass(frozen=True, slots=True)
class AuthenticationSASLContinue(_Request):
    """The mechanism's next challenge; asks for a SASLResponse."""

    code: ClassVar[int] = 11
    data: bytes

    def payload(self) -> bytes:
        return self.data

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.rest())


@dataclass(frozen=True, slots=True)
class AuthenticationSASLFinal(_Request):
    """The mechanism's last word; AuthenticationOk follows."""

    code: ClassVar[int] = 12
    data: bytes

    def payload(self) -> bytes:
        return self.data

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.rest())


@dataclass(frozen=True, slots=True)
class AuthenticationUnsupported(Message):
    """A request that the protocol knows and this proxy cannot answer: Kerberos V5, SCM credentials, GSSAPI, SSPI."""

    tag: ClassVar[int] = _TAG_REQUEST
    names: ClassVar[Mapping[int, str]] = MappingProxyType(
        {2: "Kerberos V5", 6: "SCM credential", 7: "GSSAPI", 8: "GSSAPI or SSPI continuation", 9: "SSPI"}
    )
    code: int
    data: bytes = b""

    @property
    def name(self) -> str:
        """What the server asked for, in words."""
        return self.names[self.code]

    def body(self) -> bytes:
        return buffer.int32(self.code) + self.data

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "Authentication")
        code = reader.int32()
        if code not in cls.names:
            raise reader.fail(f"unknown authentication request {code}")
        return cls(code, reader.rest())


Authentication: TypeAlias = (
    AuthenticationOk
    | AuthenticationCleartextPassword
    | AuthenticationMD5Password
    | AuthenticationSASL
    | AuthenticationSASLContinue
    | AuthenticationSASLFinal
    | AuthenticationUnsupported
)

_DECODERS: Mapping[int, Callable[[Body], Authentication]] = MappingProxyType(
    {
        AuthenticationOk.code: AuthenticationOk.decode,
        AuthenticationCleartextPassword.code: AuthenticationCleartextPassword.decode,
        AuthenticationMD5Password.code: AuthenticationMD5Password.decode,
        AuthenticationSASL.code: AuthenticationSASL.decode,
        AuthenticationSASLContinue.code: AuthenticationSASLContinue.decode,
        AuthenticationSASLFinal.code: AuthenticationSASLFinal.decode,
    }
)


def decode_authentication(body: Body) -> Authentication:
    """The request in the body of a message with tag `R`. Raises ProtocolError, and nothing else."""
    code = Reader(body, "Authentication").int32()
    return _DECODERS.get(code, AuthenticationUnsupported.decode)(body)


@dataclass(frozen=True, slots=True)
class AuthenticationResponse(OpaqueMessage):
    """Any answer to a request for authentication; give `data` to the class that the conversation calls for."""

    tag: ClassVar[int] = _TAG_ANSWER


@dataclass(frozen=True, slots=True)
class PasswordMessage(Message):
    """The password, or its salted MD5 as `md5` and 32 hexadecimal digits."""

    tag: ClassVar[int] = _TAG_ANSWER
    password: bytes = field(repr=False)

    def body(self) -> bytes:
        return buffer.cstring(self.password)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "PasswordMessage")
        message = cls(reader.cstring())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class SASLInitialResponse(Message):
    """The mechanism chosen and its first message; None where the mechanism lets the server speak first."""

    tag: ClassVar[int] = _TAG_ANSWER
    mechanism: str
    data: bytes | None

    def body(self) -> bytes:
        return buffer.text(self.mechanism) + buffer.value(self.data)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "SASLInitialResponse")
        message = cls(reader.text(), reader.value())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class SASLResponse(OpaqueMessage):
    """The mechanism's next message."""

    tag: ClassVar[int] = _TAG_ANSWER


@dataclass(frozen=True, slots=True)
class GSSResponse(OpaqueMessage):
    """A GSSAPI or SSPI token."""

    tag: ClassVar[int] = _TAG_ANSWER
