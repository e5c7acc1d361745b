"""What must hold between the keys of `[auth]`, `[client_tls]`, `[server_tls]` and those of nodes and pools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from heliosproxy.auth.expressions import Expression, ExpressionError
from heliosproxy.auth.rules import network_of
from heliosproxy.config.access import Auth, ClientTls, Rule, ServerTls
from heliosproxy.config.errors import ConfigError, KeyPath, did_you_mean
from heliosproxy.config.model import Config
from heliosproxy.config.sections import Reader
from heliosproxy.config.tls import BadTls, end_point, for_clients, for_nodes

UNPROVEN = frozenset(("trust", "cert", "peer", "reject"))
"""Methods that need no password or secret of the user's."""
_FILES = ("files of names are not read", 'list the names; "/^@" begins the expression for a name that begins so')
_GROUPS = ("groups are not looked up", 'list the users; "/^[+]" begins the expression for a name that begins so')
_ROLES = ("groups are not looked up", "take sameuser, or a rule for each user and its databases")
_REPLICATION = (
    "no connection for replication goes through the proxy",
    'leave it out; a database of that name is "/^replication$"',
)
_OTHERWISE: Mapping[tuple[str, str], Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        ("rules", "database"): {"samerole": _ROLES, "samegroup": _ROLES, "replication": _REPLICATION, "@": _FILES},
        ("rules", "user"): {"+": _GROUPS, "@": _FILES},
        ("maps", "system_user"): {"@": _FILES},
        ("maps", "database_user"): {
            "+": ("groups are not looked up", "add an entry for each user"),
            "@": ("files of names are not read", "add an entry for each user"),
            "/": ("a regular expression is for system_user only", "add an entry for each user, or write all"),
        },
    }
)
"""Names, or their first characters, that mean something in PostgreSQL's files and not here. Taken as names they would
mean nobody, and whom a rule is to reject the next one would let in."""
_VERIFIES = ("verify-ca", "verify-full")


def only_listed(auth: Auth) -> bool:
    """Whether nobody can log in but the users of the configuration."""
    return auth.auth_query is None and not any(rule.method in UNPROVEN for rule in auth.rules or (Rule(auth.method),))


def check_access(reader: Reader, config: Config) -> Iterator[ConfigError]:
    """The mistakes."""
    yield from _client_tls(reader, config.client_tls)
    yield from _server_tls(reader, ("server_tls",), config.server_tls)
    paths = [path[:2] for path in reader.found if path[0] == "nodes" and path[2:] == ("name",)]
    for path, node in zip(paths, config.nodes, strict=False):
        if any(there[:3] == (*path, "tls") for there in reader.found):
            yield from _server_tls(reader, (*path, "tls"), node.tls)
    yield from _auth(reader, config)
    yield from _server_users(reader)


def _client_tls(reader: Reader, tls: ClientTls) -> Iterator[ConfigError]:
    here: KeyPath = ("client_tls",)
    if tls.cert_file is None and tls.sslmode in ("require", *_VERIFIES):
        message = f"sslmode is {tls.sslmode} and there is no certificate: nobody could connect"
        yield reader.positions.error((*here, "sslmode"), message, "add cert_file and key_file")
    if tls.ca_file is None and tls.sslmode in _VERIFIES:
        message = f"sslmode is {tls.sslmode}, and nothing says who may have issued clients' certificates"
        yield reader.positions.error((*here, "sslmode"), message, "add ca_file")
    yield from _files(reader, here, tls)
    try:
        for_clients(tls)
        end_point(tls)
    except BadTls as bad:
        yield reader.positions.error((*here, bad.key), bad.message, bad.hint)


def _server_tls(reader: Reader, here: KeyPath, tls: ServerTls) -> Iterator[ConfigError]:
    if tls.sslmode == "verify-ca" and tls.ca_file is None:
        message = "with the issuers that the system trusts anybody's certificate would do"
        yield reader.positions.error((*here, "sslmode"), message, "add ca_file, or take verify-full")
    if tls.sslnegotiation == "direct" and tls.sslmode in ("disable", "allow", "prefer"):
        message = f"without asking there is no going back to no TLS, as sslmode {tls.sslmode} would have it"
        yield reader.positions.error((*here, "sslnegotiation"), message, "take sslmode require or stricter")
    if tls.channel_binding == "require" and tls.sslmode in ("disable", "allow", "prefer"):
        message = f"there may be no TLS to bind to with sslmode {tls.sslmode}"
        yield reader.positions.error((*here, "channel_binding"), message, "take sslmode require or stricter")
    yield from _files(reader, here, tls)
    try:
        for_nodes(tls)
    except BadTls as bad:
        yield reader.positions.error((*here, bad.key), bad.message, bad.hint)


def _files(reader: Reader, here: KeyPath, tls: ClientTls | ServerTls) -> Iterator[ConfigError]:
    if tls.key_file is not None and tls.cert_file is None:
        yield reader.positions.error((*here, "key_file"), "a key, and no certificate", "add cert_file")
    if tls.crl_file is not None and tls.ca_file is None:
        message = "revoked certificates are looked for among those of ca_file, which is not given"
        yield reader.positions.error((*here, "crl_file"), message)


def _auth(reader: Reader, config: Config) -> Iterator[ConfigError]:
    auth = config.auth
    if auth.rules and ("auth", "method") in reader.found:
        message = "the rules say how everyone comes in, so that this is never looked at"
        yield reader.positions.error(("auth", "method"), message, "leave it out, or add a last rule for the rest")
    if not auth.rules:
        yield from _needs(reader, ("auth", "method"), Rule(auth.method), config)
    methods = [path[:3] for path in reader.found if path[:2] == ("auth", "rules") and path[3:] == ("method",)]
    for path, rule in zip(methods, auth.rules, strict=False):
        yield from _rule(reader, path, rule, config)
    yield from _names(reader)
    if auth.auth_query is not None and "$1" not in auth.auth_query:
        message = "it does not say where the user's name goes"
        yield reader.positions.error(("auth", "auth_query"), message, "write $1 for it")
    for key in ("auth_user", "auth_password", "auth_dbname"):
        if ("auth", key) in reader.found and auth.auth_query is None:
            yield reader.positions.error(("auth", key), "there is no auth_query that it would be for", at_key=True)


def _rule(reader: Reader, path: KeyPath, rule: Rule, config: Config) -> Iterator[ConfigError]:
    yield from _needs(reader, (*path, "method"), rule, config)
    if rule.type == "local" and rule.address:
        message = "a connection through the Unix socket has no address"
        yield reader.positions.error((*path, "address"), message, "leave it out")
    if rule.type == "local" and config.proxy.unix_socket_directory is None:
        message = "there is no Unix socket"
        yield reader.positions.error((*path, "type"), message, "add unix_socket_directory to [proxy]")
    if rule.type == "hostssl" and config.client_tls.cert_file is None:
        yield reader.positions.error((*path, "type"), "clients are not offered TLS", "add [client_tls]")
    for key in ("database", "user", "address"):
        if reader.found.get((*path, key)) == ():
            hint = "leave the rule out, or the key if everybody is meant"
            yield reader.positions.error((*path, key), "the list is empty, so that nobody is meant", hint)
    for at, address in enumerate(rule.address):
        if not _is_address(address):
            hint = 'as in "10.0.0.0/8", "192.0.2.1", "::1/128"; or all, samehost, samenet'
            if address.lower().startswith("::ffff:"):
                hint = 'clients that come by IPv4 are known by their IPv4 addresses: as in "10.0.0.0/8"'
            elif "%" in address:
                hint = "which interface a client comes by is not looked at: leave out what begins with %"
            yield reader.positions.error((*path, "address", at), f"{address} is no address or network", hint)
    if rule.map is not None:
        yield from _map(reader, path, rule, config)


def _map(reader: Reader, path: KeyPath, rule: Rule, config: Config) -> Iterator[ConfigError]:
    here = (*path, "map")
    names = [each.map for each in config.auth.maps]
    if rule.method not in ("cert", "peer") and rule.clientcert != "verify-full":
        yield reader.positions.error(here, f"a map is for cert, peer and verify-full, not for {rule.method}")
    elif rule.map not in names:
        yield reader.positions.error(here, f'there is no map "{rule.map}"', did_you_mean(rule.map or "", names))


def _needs(reader: Reader, path: KeyPath, rule: Rule, config: Config) -> Iterator[ConfigError]:
    """What a method cannot do without."""
    tls = config.client_tls
    certificate = rule.method == "cert" or rule.clientcert is not None
    if (certificate or rule.method == "scram-sha-256-plus") and (rule.type == "local" or tls.cert_file is None):
        what = rule.method if rule.clientcert is None else "clientcert"
        yield reader.positions.error(path, f"{what} needs TLS", "add cert_file and key_file to [client_tls]")
    elif certificate and tls.ca_file is None:
        message = "nothing says who may have issued clients' certificates"
        yield reader.positions.error(path, message, "add ca_file to [client_tls]")
    in_the_clear = rule.type in ("host", "hostnossl") and tls.sslmode in ("disable", "allow", "prefer")
    if rule.method == "password" and in_the_clear:
        message = "a password in the clear goes through TLS or a Unix socket only"
        yield reader.positions.error(path, message, 'give the rule the type "hostssl"')
    if rule.method == "peer" and rule.type != "local":
        message = "only a process on this machine has a user, at the other end of the Unix socket"
        yield reader.positions.error(path, message, 'give the rule the type "local"')


def _names(reader: Reader) -> Iterator[ConfigError]:
    for path, value in reader.found.items():
        here = (str(path[1]), str(path[3])) if path[0] == "auth" and len(path) > 3 else ("", "")
        if here not in _OTHERWISE or not isinstance(value, str):
            continue
        if value.startswith("/") and here[1] != "database_user":
            yield from _expression(reader, path, value[1:])
        elif (otherwise := _otherwise(here, value)) is not None:
            yield reader.positions.error(path, *otherwise)
        elif here[0] == "rules" and "," in value:
            hint = 'write "a", "b" for two; "/^a,b$" for one with a comma'
            yield reader.positions.error(path, "a comma in a name", hint)


def _expression(reader: Reader, path: KeyPath, text: str) -> Iterator[ConfigError]:
    try:
        Expression(text)
    except ExpressionError as error:
        hint = "as in PostgreSQL, but without back references, lookahead and collating elements"
        yield reader.positions.error(path, f"not a regular expression that is taken: {error}", hint)


def _otherwise(here: tuple[str, str], value: str) -> tuple[str, str] | None:
    """What is to be said of a name that means something else in PostgreSQL's files."""
    return _OTHERWISE[here].get(value) or _OTHERWISE[here].get(value[:1])


def _is_address(text: str) -> bool:
    if text in ("all", "samehost", "samenet"):
        return True
    try:
        network_of(text)
    except ValueError:
        return False
    return True


def _server_users(reader: Reader) -> Iterator[ConfigError]:
    for path in reader.found:
        of_a_pool = path[0] in ("pool", "pools") and path[-1] == "server_password"
        if of_a_pool and (*path[:-1], "server_user") not in reader.found:
            yield reader.positions.error(path, "a password, and no server_user that it is of", at_key=True)
