"""Every way in which a client may come in, beside every way in which the server may ask, in one configuration.

The user `scram_s_md5` comes in by the rule for `scram` and is on the server the role `s_md5`, which is asked for an MD5
password. Those whose names end in `_stored` are configured with what the server keeps of their password and nothing
else: the proxy logs in as they have logged in.
"""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.certificates import Issued
from tests.cluster.secure.proxies import entry, section
from tests.cluster.secure.server import ROLES, SecureServer


@dataclass(frozen=True, slots=True)
class Way:
    """A rule, and what a client of it needs."""

    rule: Mapping[str, object]
    local: bool = False
    certificate: bool = False
    password: bool = True

    @property
    def stored(self) -> bool:
        """Whether the client gives away what a login by a stored SCRAM secret needs."""
        return self.password and self.rule["method"] != "md5"


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        "trust": Way({"method": "trust"}, password=False),
        "scram": Way({"method": "scram-sha-256"}),
        "plus": Way({"method": "scram-sha-256-plus", "type": "hostssl"}),
        "cert": Way({"method": "cert", "type": "hostssl"}, certificate=True, password=False),
        "both": Way({"method": "scram-sha-256", "type": "hostssl", "clientcert": "verify-full"}, certificate=True),
        "password": Way({"method": "password", "type": "hostssl"}),
        "md5": Way({"method": "md5"}),
        "peer": Way({"method": "peer", "type": "local", "map": "processes"}, local=True, password=False),
        "local": Way({"method": "scram-sha-256", "type": "local"}, local=True),
    }
)
SERVED = tuple(role for role in ROLES if role != "s_plain")
"""Roles that can log in through TLS."""
UNASKED = ("s_trust", "s_cert")
"""Roles that need no password."""
CELLS = (
    *((way, role) for way in WAYS for role in SERVED),
    *((name, "stored") for name, way in WAYS.items() if way.stored),
    ("md5", "stored_md5"), ("password", "stored_md5"),
)  # fmt: skip


@dataclass(slots=True)
class Users:
    """The users of a configuration, what they know and what they show."""

    server: SecureServer
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    _certificates: dict[str, Issued] = field(default_factory=dict)

    def certificate(self, name: str) -> Issued:
        """The user's own; made when it is first asked for."""
        if name not in self._certificates:
            self._certificates[name] = self.server.issuer.issue(name=name)
        return self._certificates[name]

    def add(self, name: str, role: str | None = None, **keys: object) -> str:
        """A user as in the configuration, with a password of his own towards the proxy, and that of his role on it."""
        self.passwords[name] = secrets.token_urlsafe(18)
        if role is not None:
            keys["server_user"] = role
        if role is not None and role not in UNASKED:
            keys["server_password"] = self.server.passwords[role]
        return entry("auth.users", name=name, password=self.passwords[name], **keys)

    def add_stored(self, *names: str, md5: bool = False) -> str:
        """Users as in the configuration that have the names and secrets of their roles and nothing else."""
        self.server.roles(*names, md5=md5)
        self.passwords.update({name: self.server.passwords[name] for name in names})
        secrets = self.server.secrets(*names).items()
        return "".join(entry("auth.users", name=name, secret=secret) for name, secret in secrets)


def everything(users: Users) -> str:
    """`[[auth.rules]]`, `[[auth.maps]]` and `[[auth.users]]` for all cells."""
    rules = "".join(entry("auth.rules", **way.rule, user=[f"/^{name}_"]) for name, way in WAYS.items())
    peers = "".join(
        entry("auth.maps", map="processes", system_user=getpass.getuser(), database_user=f"{way}_{role}")
        for way, role in CELLS
        if way == "peer"
    )
    return rules + peers + "".join(_users(users))


def _users(users: Users) -> Iterator[str]:
    for md5, stored in ((False, "stored"), (True, "stored_md5")):
        yield users.add_stored(*(f"{way}_{role}" for way, role in CELLS if role == stored), md5=md5)
    for way, role in CELLS:
        if not role.startswith("stored"):
            yield users.add(f"{way}_{role}", role)


def both_sides(server: SecureServer, link: Issued, own: Issued, sslmode: str = "prefer", ca: Path | None = None) -> str:
    """`[client_tls]` and `[server_tls]`: the proxy shows `own` to clients and `link` to the server."""
    clients = section("client_tls", sslmode=sslmode, own=own, ca_file=ca or server.issuer.file)
    return clients + section("server_tls", sslmode="verify-full", link=link, ca_file=server.issuer.file)
