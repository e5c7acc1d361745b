"""A PostgreSQL with TLS, as Debian has it, with a role for each way in which it may ask who somebody is.

PyPI's PostgreSQL, which the other tests use, is built without OpenSSL.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from heliosproxy.demo.binaries import Account, unprivileged
from heliosproxy.demo.local import LocalCluster, LocalNode
from heliosproxy.demo.processes import temporary_directory
from tests.certificates import Issued, Issuer
from tests.cluster.proxies import wait_for

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "s_scram": "host all s_scram all scram-sha-256",
        "s_ssl": "hostssl all s_ssl all scram-sha-256",
        "s_plain": "hostnossl all s_plain all scram-sha-256",
        "s_md5": "host all s_md5 all md5",
        "s_password": "host all s_password all password",
        "s_cert": "hostssl all s_cert all cert map=links",
        "s_both": "hostssl all s_both all scram-sha-256 clientcert=verify-ca",
        "s_trust": "host all s_trust all trust",
    }
)
"""Roles, each with its line of pg_hba.conf, which is the only one for it."""
LINK_NAME = "proxy"
"""The common name of the certificate that may log in as s_cert."""
_ALWAYS = "local all postgres scram-sha-256\nhost all postgres 127.0.0.1/32 scram-sha-256\n"
_OTHERS = "local all +others md5\nhost all +others 127.0.0.1/32 md5\n"  # which is SCRAM for whoever has a secret for it


@functools.cache
def programs() -> Path | None:
    """Where Debian's server is; the newest, if there are several; None if there is none that knows TLS."""
    found = [file.parent for file in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    for directory in sorted(found, key=lambda path: int(path.parent.name), reverse=True):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run([directory / "pg_config", "--configure"], capture_output=True, timeout=10, check=True)
            if b"--with-openssl" in told.stdout or b"--with-ssl" in told.stdout:
                return directory
    return None


class SecureServer:
    """The running server. A context manager: leaving it stops the server and deletes what was made.

    It listens on 127.0.0.1 with a certificate for localhost and 127.0.0.1.
    """

    def __init__(self, bin_directory: Path, certificates: Path) -> None:
        """`certificates`: where they are written, but for the server's own copies."""
        account = unprivileged()
        directory = Path(tempfile.mkdtemp(prefix="helios-tls-", dir=temporary_directory(account)))
        account.own(directory)
        self._account = account
        self.cluster = LocalCluster(directory, temporary=True, account=account, programs=bin_directory)
        """It as the other tests know theirs: one node, `psql`, stopping and starting."""
        self.issuer = Issuer(certificates / "good")
        """Whom the server trusts, and who has issued its certificate."""
        self.stranger = Issuer(certificates / "stranger")
        """An issuer that nobody trusts."""
        self.passwords = {role: secrets.token_urlsafe(18) for role in ROLES}
        """Of the roles, and of those that `role` makes."""

    def __enter__(self) -> SecureServer:
        try:
            self._start()
        except BaseException:
            self.cluster.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()

    def _start(self) -> None:
        self.cluster.add_primary()
        _give(self._account, self.issuer.file, self._data / "ca.crt")
        self.certificate = self.issuer.issue("localhost", "127.0.0.1")
        """The one that the server has."""
        self._show(self.certificate)
        roles = "".join(self._role("create", role, md5=role == "s_md5") for role in ROLES)
        self.cluster.psql(f"{roles}; create role others; grant others to {self.cluster.user}")
        self._write("pg_ident.conf", f"links {LINK_NAME} s_cert\n")
        self._write("pg_hba.conf", _ALWAYS + "\n".join(ROLES.values()) + "\n" + _OTHERS)
        settings = {"ssl_ca_file": "ca.crt", "ssl": "on", "log_connections": "on"}
        # A line each, since several in one string would be a transaction, in which this must not be.
        self.cluster.psql("".join(f"alter system set {name} = '{value}';\n" for name, value in settings.items()))
        self.reload()

    # --- what there is ----------------------------------------------------------------------------------------------

    @property
    def node(self) -> LocalNode:
        """Its address, data directory and log."""
        return self.cluster.node("primary")

    @property
    def _data(self) -> Path:
        return self.node.data

    def secret(self, role: str) -> str:
        """What the server keeps of a role's password."""
        return self.secrets(role)[role]

    def secrets(self, *roles: str) -> dict[str, str]:
        """The same of several; those without a password are left out."""
        names = ", ".join(map(_literal, roles))
        sql = f"select rolname || ' ' || rolpassword from pg_authid where rolname in ({names})"
        found = self.cluster.psql(f"{sql} and rolpassword is not null")
        return dict(line.rsplit(" ", 1) for line in found.splitlines())

    # --- changing it ------------------------------------------------------------------------------------------------

    def role(self, name: str, password: str | None = None, *, md5: bool = False) -> str:
        """Make a role, or give it another password, and return the password; a random one if none is given.

        It is asked as its secret is, with TLS or without: scram-sha-256, or md5.
        """
        self.passwords[name] = password or secrets.token_urlsafe(18)
        verb = "alter" if self.cluster.psql(f"select 1 from pg_roles where rolname = {_literal(name)}") else "create"
        self.cluster.psql(self._role(verb, name, md5=md5))
        return self.passwords[name]

    def roles(self, *names: str, md5: bool = False) -> None:
        """Make all these, as `role` does."""
        self.passwords.update({name: secrets.token_urlsafe(18) for name in names})
        self.cluster.psql("".join(self._role("create", name, md5=md5) for name in names))

    def _role(self, verb: str, name: str, *, md5: bool = False) -> str:
        how = "md5" if md5 else "scram-sha-256"
        password = _literal(self.passwords[name])
        more = "" if name in ROLES else f"grant others to {_name(name)};"
        return f"set password_encryption = '{how}'; {verb} role {_name(name)} login password {password};{more}\n"

    @contextmanager
    def certified(self, certificate: Issued) -> Iterator[None]:
        """The server shows another certificate."""
        self._show(certificate)
        self.reload()
        try:
            yield
        finally:
            self._show(self.certificate)
            self.reload()

    @contextmanager
    def without_tls(self) -> Iterator[None]:
        """The server offers no TLS to those who come meanwhile."""
        self.cluster.psql("alter system set ssl = off")
        self.reload()
        try:
            yield
        finally:
            self.cluster.psql("alter system set ssl = on")
            self.reload()

    def reload(self) -> None:
        """Have the server read its files; it has done so for all later connections when this returns.

        AssertionError if it has not after a while.
        """
        before = self.cluster.psql("select pg_conf_load_time()")
        self.cluster.psql("select pg_reload_conf()")
        later = f"select pg_conf_load_time() > '{before}'"
        wait_for(lambda: self.cluster.psql(later) == "t", "the server to read its files")

    def _show(self, certificate: Issued) -> None:
        _give(self._account, certificate.certificate, self._data / "server.crt")
        _give(self._account, certificate.key, self._data / "server.key")

    def _write(self, name: str, text: str) -> None:
        path = self._data / name
        path.write_text(text)
        path.chmod(0o600)
        self._account.own(path)


def _name(text: str) -> str:
    quoted = text.replace('"', '""')
    return f'"{quoted}"'


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


def _give(account: Account, source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    target.touch(0o600)
    target.write_bytes(source.read_bytes())
    account.own(target)
