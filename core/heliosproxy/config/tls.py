"""`[client_tls]` and `[server_tls]` as what Python's ssl works with.

Ciphers, curves and the rest are OpenSSL's defaults. No sessions are resumed and nothing is renegotiated, as in
PostgreSQL. Reads the files that the sections name, so that calling it again is how certificates are renewed.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

from heliosproxy.auth.certificates import leaf_of, server_end_point
from heliosproxy.config.access import ClientTls, ServerTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.secrets import require_private
from heliosproxy.config.values import BadValue

ALPN = "postgresql"
"""What a connection is for, as TLS names it; PostgreSQL 17 and later ask for it, and direct negotiation needs it."""
_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


class BadTls(BadValue):
    """A file that cannot be used; `key` is the key that names it."""

    def __init__(self, key: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.key = key


def for_clients(tls: ClientTls) -> ssl.SSLContext | None:
    """What clients are offered; None if they are offered nothing. Raises BadTls.

    Where there is a `ca_file` clients are asked for a certificate; one that they show must be good.
    """
    if tls.sslmode == "disable" or tls.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_protocol_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols([ALPN])
    _identify(context, tls.cert_file, tls.key_file)
    if tls.ca_file is not None:
        _trust(context, tls.ca_file, tls.crl_file)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def for_nodes(tls: ServerTls, kind: type[ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext | None:
    """What the proxy says to nodes, as a context of this kind; None if it says nothing. Raises BadTls.

    As in libpq a certificate is looked at with `verify-ca`, `verify-full`, and with `require` where there is a
    `ca_file`.
    """
    if tls.sslmode == "disable":
        return None
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[tls.min_protocol_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    context.check_hostname = tls.sslmode == "verify-full"
    verifies = tls.sslmode in ("verify-ca", "verify-full") or (tls.sslmode == "require" and tls.ca_file is not None)
    context.verify_mode = ssl.CERT_REQUIRED if verifies else ssl.CERT_NONE
    if tls.ca_file is not None:
        _trust(context, tls.ca_file, tls.crl_file)
    elif verifies:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.cert_file is not None:
        _identify(context, tls.cert_file, tls.key_file)
    return context


def end_point(tls: ClientTls) -> bytes | None:
    """What SCRAM binds to on the proxy's side, the digest of its certificate; None if it has none. Raises BadTls."""
    if tls.sslmode == "disable" or tls.cert_file is None:
        return None
    try:
        return server_end_point(leaf_of(tls.cert_file.read_bytes()))
    except OSError as error:
        raise BadTls("cert_file", f"cannot read {tls.cert_file}: {error.strerror}") from None
    except ValueError:
        hint = "it must begin with -----BEGIN CERTIFICATE-----"
        raise BadTls("cert_file", f"{tls.cert_file} holds no certificate", hint) from None


def digest(tls: ClientTls) -> bytes:
    """Of what the files say that are named. One that cannot be read counts as empty."""
    found = hashlib.sha256()
    for file in (tls.cert_file, tls.key_file, tls.ca_file, tls.crl_file):
        content = b""
        if file is not None:
            with contextlib.suppress(OSError):
                content = file.read_bytes()
        found.update(len(content).to_bytes(8, "big") + content)
    return found.digest()


def ways(tls: ServerTls, address: Address) -> tuple[bool, ...]:
    """How to connect to a node, best first: through TLS (True) or in the clear. One is tried after the other.

    As in libpq nothing but the Unix socket of `address` goes before what `sslmode` says: TLS is of no use there.
    """
    if address.host.startswith("/") or tls.sslmode == "disable":
        return (False,)
    if tls.sslmode == "allow":
        return False, True
    return (True, False) if tls.sslmode == "prefer" else (True,)


class NamedContext(ssl.SSLContext):
    """A context for one server, whatever the address that is connected to: what it is asked for and verified by is
    `server_name`. For libraries that take the address for that."""

    server_name: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.server_name, session)


class Contexts:
    """What the proxy says to nodes, built once for all connections: building reads files.

    One for whoever connects. After certificates were renewed a fresh one is filled, which finds every mistake before
    anything changes, and then `replace`s what is in use.
    """

    def __init__(self) -> None:
        self._built: dict[ServerTls, ssl.SSLContext | None] = {}
        self._named: dict[tuple[ServerTls, str], ssl.SSLContext] = {}

    def of(self, tls: ServerTls) -> ssl.SSLContext | None:
        """As `for_nodes`; the same object each time. Raises BadTls if it is yet to be built and cannot be."""
        if tls not in self._built:
            self._built[tls] = for_nodes(tls)
        return self._built[tls]

    def named(self, tls: ServerTls, host: str) -> ssl.SSLContext:
        """The same as a NamedContext of the server with this name or address. Not for `disable`."""
        if (tls, host) not in self._named:
            context = for_nodes(tls, NamedContext)
            assert isinstance(context, NamedContext)
            context.server_name = server_name(host)
            self._named[tls, host] = context
        return self._named[tls, host]

    def replace(self, fresh: Contexts) -> None:
        """From now on give what `fresh` gives."""
        self._built, self._named = fresh._built, fresh._named


def server_name(host: str) -> str:
    """What a certificate must name: the host, without the interface of an IPv6 address."""
    return host.partition("%")[0]


def _trust(context: ssl.SSLContext, ca_file: Path, crl_file: Path | None) -> None:
    _load("ca_file", ca_file, lambda: context.load_verify_locations(ca_file))
    if crl_file is not None:
        _load("crl_file", crl_file, lambda: context.load_verify_locations(crl_file))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _identify(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    key, file = ("key_file", key_file) if key_file is not None else ("cert_file", cert_file)
    try:
        require_private(file)
    except BadValue as bad:
        raise BadTls(key, bad.message, bad.hint) from None

    def refuse() -> str:
        raise BadTls(key, f"{file} is encrypted, and nobody is there to give the passphrase", "decrypt it")

    _load(key, file, lambda: context.load_cert_chain(cert_file, key_file, refuse), cert_file)


def _load(key: str, file: Path, load: Callable[[], None], *others: Path) -> None:
    for each in (file, *others):
        try:
            if not each.is_file():  # nor a pipe, which would be waited for
                raise OSError(0, "not a file" if each.exists() else "No such file or directory")
            each.read_bytes()
        except OSError as error:
            name = key if each == file else "cert_file"
            raise BadTls(name, f"cannot read {each}: {error.strerror}") from None
    try:
        load()
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadTls(key, f"{file} is not the key of the certificate") from None
        raise BadTls(key, f"{file} holds nothing that can be used here ({error.reason or error})") from None
