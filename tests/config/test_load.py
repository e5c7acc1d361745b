"""A file read whole: every mistake at once, in the order of the file, each where it stands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.kinds import Address
from heliosproxy.config.load import Loaded, load
from heliosproxy.config.model import Config, NodeConfig, Plugins, Pool, Proxy

KEY = "A" * 43 + "="
SCRAM = f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}"
NODE = '[[nodes]]\nname = "a"\naddress = "db1:5432"\n'
USER = '[[auth.users]]\nname = "u"\npassword = "${PW}"\n'
ENVIRON = {"PW": "secret"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "heliosproxy.toml"


def read(file: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> Loaded:
    file.write_bytes(text.encode())
    file.chmod(0o600)
    return load(file, environ)


def mistakes(file: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> list[str]:
    """The mistakes without the file's name."""
    with pytest.raises(ConfigErrors) as caught:
        read(file, text, environ)
    return [str(error).removeprefix(f"{file}:") for error in caught.value.errors]


def test_the_least_configuration_has_every_default(file: Path) -> None:
    config = read(file, NODE + USER).config
    assert config.nodes == (NodeConfig("a", Address("db1", 5432)),)
    assert (config.proxy, config.pool, config.plugins) == (Proxy(), Pool(), Plugins())
    assert (config.auth.users[0].name, config.auth.users[0].password) == ("u", "secret")
    assert config.tables == {}


def test_every_kind_of_value_is_read(file: Path) -> None:
    (file.parent / "wasm").mkdir()
    text = f"""\
[proxy]
listen = "[::1]:1"
login_timeout = "250ms"
max_message = "1MB"
[pool]
mode = "session"
size = 7
[[nodes]]
name = "a"
address = "/run/pg:5432"
role = "standby"
labels = {{ "x.y" = "${{PW}}" }}
weight = 0
[plugins]
enabled = []
path = ["wasm"]
[plugins.mine]
a = [1, {{ b = "${{PW}}" }}]
[routing.hints]
enabled = true
{USER}"""
    config = read(file, text).config
    assert config.proxy == Proxy(listen=Address("::1", 1), login_timeout=0.25, max_message=1 << 20)
    assert config.pool == Pool(mode="session", size=7)
    assert config.nodes == (
        NodeConfig("a", Address("/run/pg", 5432), role="standby", labels={"x.y": "secret"}, weight=0),
    )
    assert config.plugins == Plugins(enabled=(), path=(file.parent / "wasm",))
    assert config.tables == {"plugins.mine": {"a": [1, {"b": "secret"}]}, "routing": {"hints": {"enabled": True}}}


def test_five_mistakes_are_five_reports_in_the_order_of_the_file(file: Path) -> None:
    text = f"""\
[proxy]
listen = "localhost"
[pool]
size = "many"
wait_timeout = 30
[[nodes]]
name = "a"
adress = "db1:5432"
{USER}"""
    assert mistakes(file, text) == [
        '2:10: "localhost" has no port (write host:port, as in "localhost:5432")',
        "4:8: must be a whole number, not text (leave out the quotes)",
        '5:16: a duration needs a unit (give a unit, as in "30s" or "30ms")',
        '6:3: "address" is missing',
        '8:1: unknown key "adress" in [[nodes]] (did you mean "address"?)',
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "1:1: no node is configured"),
        ("nodes = []\n", "1:1: no node is configured"),
        ('[nodes]\nname = "a"\n', "1:2: must be a list of tables, not a table (write [[nodes]])"),
        (NODE + NODE.replace('"a"', '"b"'), '6:11: address "db1:5432" is already taken by the node on line 3'),
        (NODE + NODE.replace("db1", "db2"), '5:8: name "a" is already taken by the node on line 2'),
        (NODE.replace('"a"', '"a b"'), '2:8: "a b" is not a name'),
        (NODE.replace("5432", "0"), "3:11: 0 is too small (the port must be at least 1)"),
        (NODE + "weight = -1\n", "4:10: -1 is too small (it must be at least 0)"),
        (NODE + 'role = "Primary"\n', '4:8: "Primary" is not one of "auto", "primary", "standby" (did you mean "prim'),
        (NODE + "labels = { a = 1 }\n", "4:16: must be text in quotes, not a number"),
        (NODE + '[proxy]\nadmin = "10.0.0.1:9090"\n', "5:9: 10.0.0.1 is not a loopback address"),
        (NODE + '[proxy]\nadmin = "127.0.0.1:6"\nlisten = "127.0.0.1:6"\n', "5:9: the same address as listen"),
        (NODE + "[[proxy]]\n", "4:3: must be one [section], not a list (write [proxy])"),
        (NODE + "[pool]\nsize = 0\n", "5:8: 0 is too small (it must be at least 1)"),
        (NODE + "[pool]\nsize = true\n", "5:8: must be a whole number, not a true or false"),
        (NODE + '[plugins]\nenabled = "hints"\n', "5:11: must be a list, not text"),
        (NODE + '[plugins]\nenabled = ["hints", 1]\n', "5:21: must be text in quotes, not a number"),
        (NODE + '[plugins]\nenabled = ["hints", "hints"]\n', '5:21: plugin "hints" is named twice'),
        (NODE + '[plugins]\nenable = ["hints"]\n', '5:1: unknown key "enable" in [plugins] (did you mean "enabled"?)'),
        (NODE + "[routing]\na = 1979-05-27\n", "5:5: dates are not used here"),
        (NODE + "[routing]\na = nan\n", "5:5: must be a finite number"),
        (NODE + '[routing]\na = ["${NONE}"]\n', "5:6: the environment variable NONE is not set"),
        (NODE + '[health]\npassword = ""\n', "5:12: must not be empty"),
        ("max_message = 1\n" + NODE, '1:1: unknown key "max_message" outside of any section'),
    ],
)
def test_a_mistake_is_reported_where_it_stands(file: Path, text: str, mistake: str) -> None:
    (found,) = mistakes(file, text + USER)
    assert found.startswith(mistake)


@pytest.mark.parametrize(
    ("users", "mistake"),
    [
        ("", "1:1: nobody can log in"),
        ("[auth]\n", "4:2: nobody can log in"),
        ('[[auth.users]]\nname = "u"\n', "4:8: the user has neither password nor secret"),
        (USER + f'secret = "{SCRAM}"\n', '7:1: "password" and "secret" exclude each other'),
        (USER + USER, '8:8: user "u" is already on line 5'),
        (USER.replace('"u"', '""'), "5:8: a user's name must not be empty"),
        (USER.replace("${PW}", SCRAM), "6:12: this is a secret as PostgreSQL stores it, not a password"),
        ('[[auth.users]]\nname = "u"\nsecret = "x"\n', "6:10: neither a SCRAM secret nor an MD5 one"),
        ('[[auth.users]]\nname = "u"\nsecret = "md5x"\n', "6:10: neither a SCRAM secret nor an MD5 one"),
        ('[auth]\nmethod = "md4"\n' + USER, '5:10: "md4" is not one of "scram-sha-256", "scram-sha-256-plus", "cert"'),
    ],
)
def test_a_mistake_about_users_is_reported(file: Path, users: str, mistake: str) -> None:
    assert mistakes(file, NODE + users)[0].startswith(mistake)


def test_trust_needs_no_users_and_users_need_no_password(file: Path) -> None:
    text = '[auth]\nmethod = "trust"\n[[auth.users]]\nname = "u"\nserver_user = "v"\n'
    assert read(file, NODE + text).config.auth.users[0].server_user == "v"


def test_numbers_and_truths_may_come_from_variables_only(file: Path) -> None:
    text = NODE + USER + '[pool]\nsize = "${SIZE:-5}"\n'
    assert read(file, text).config.pool.size == 5
    assert mistakes(file, text, {"PW": "x", "SIZE": "five"}) == ["8:8: must be a whole number, not text"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[proxy\n", "1:7: not valid TOML"),
        ('[proxy]\nlisten = "a\n', "2:12: not valid TOML"),
        ("a = 1\na = 2\n", "2:6: not valid TOML: Cannot overwrite a value"),
        ("a = [1,", "1:8: not valid TOML"),
        ("a = " + "9" * 5000, "not valid TOML"),
        ("a = " + "[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_not_toml_is_one_mistake(file: Path, text: str, mistake: str) -> None:
    (found,) = mistakes(file, text)
    assert mistake in found


@pytest.mark.parametrize(("opening", "inmost", "closing"), [("[", "", "]"), ("{ a = ", "1", "}")])
def test_a_document_of_any_depth_is_read_or_refused(file: Path, opening: str, inmost: str, closing: str) -> None:
    def outcome(depth: int) -> str:
        try:
            read(file, f"{NODE}{USER}[routing]\na = {opening * depth}{inmost}{closing * depth}\n")
        except ConfigErrors as errors:
            return str(errors)
        return "read"

    assert {outcome(depth) for depth in range(50, 520, 10)} == {"read", f"{file}: nested too deeply"}


def test_bytes_that_are_no_text_are_located(file: Path) -> None:
    file.write_bytes(b'[proxy]\nregion = "\xc3\xa9\xff"\n')
    with pytest.raises(ConfigErrors) as caught:
        load(file, {})
    assert str(caught.value) == f"{file}:2:12: this is not UTF-8 text"


def test_a_missing_file_is_one_clear_line(file: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(file, {})
    assert str(caught.value) == f"{file}: cannot read it: No such file or directory"


def test_a_byte_order_mark_and_carriage_returns_change_nothing(file: Path) -> None:
    plain = NODE + USER + "[pool]\nsize = 0\n"
    assert mistakes(file, "\ufeff" + plain.replace("\n", "\r\n")) == mistakes(file, plain)


def test_the_caret_stands_under_the_column_and_secrets_are_starred(file: Path) -> None:
    text = NODE + '[auth]\nusers = [{ name = "u", password = "hunter2", secrets = 1 }]\n[health]\npasword = "hunter3"\n'
    with pytest.raises(ConfigErrors) as caught:
        read(file, text)
    rendered = caught.value.render().splitlines()
    assert rendered[1].index("secrets") == rendered[2].index("^")
    assert "hunter" not in caught.value.render()


@pytest.mark.parametrize(
    "line",
    [
        'password = "a\\"hunter2" x',
        "password = '''hunter2''' x",
        'password: "hunter2"',
        'pwd = "hunter2"',
        'passphrase = "hunter2"',
        "password = hunter2",
        'users = [["u", "hunter2"]]',
        'user = { name = "u", password = "hunter2", more = 1 }',
        'server_password = "hunter2',
        '"hunter2"',
        "hunter2'''",
        'address = "u:hunter2@h:1"',
    ],
)
@pytest.mark.parametrize("section", ["auth", "[auth.users]", "health", "pool", "[nodes]"])
def test_no_mistake_shows_a_secret_wherever_it_is_written(file: Path, section: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(file, f"[{section}]\n{line}\n")
    assert "hunter2" not in caught.value.render() + str(caught.value)


def test_what_is_no_secret_is_shown(file: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(file, NODE + USER + '[pool]\nmode = "sesion"\n')
    assert '    mode = "sesion"' in caught.value.render().splitlines()


def test_a_variables_name_is_no_secret(file: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(file, NODE + USER, {})
    assert caught.value.render().splitlines()[1] == '    password = "${PW}"'


# --- secrets ---------------------------------------------------------------------------------------------------------


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_secret_is_read_from_a_file_beside_the_configuration(file: Path) -> None:
    private(file.parent / "db.pw", "hunter2\r\n")
    config = read(file, NODE + USER + '[health]\npassword_file = "db.pw"\n').config
    assert config.health.password == "hunter2"


@pytest.mark.parametrize(
    ("mode", "content", "text", "mistake"),
    [
        (0o644, "x", 'password_file = "pw"', "everyone on this machine can read"),
        (0o600, "\n", 'password_file = "pw"', "must not be empty"),
        (0o600, "x" * 70_000, 'password_file = "pw"', "longer than 64 kB"),
        (0o600, "x", 'password_file = "other"', "No such file"),
        (0o600, "x", 'password_file = "."', "is not a file"),
        (0o600, "x", 'password = "${PW}"\npassword_file = "pw"', '"password" and "password_file" exclude each other'),
        (0o600, "x", 'pasword_file = "pw"', 'did you mean "password_file"?'),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_a_mistake(
    file: Path, mode: int, content: str, text: str, mistake: str
) -> None:
    private(file.parent / "pw", content, mode)
    (found,) = mistakes(file, NODE + USER + f"[health]\n{text}\n")
    assert mistake in found


def test_a_readable_secret_file_is_told_to_chmod(file: Path) -> None:
    secret = private(file.parent / "pw", "x", 0o644)
    (found,) = mistakes(file, NODE + USER + '[health]\npassword_file = "pw"\n')
    assert f"(chmod 600 {secret})" in found


def test_users_of_a_file_come_after_the_others(file: Path) -> None:
    private(file.parent / "list.txt", '"bob" "x"\n')
    config = read(file, NODE + '[auth]\nusers_file = "list.txt"\n' + USER).config
    assert [user.name for user in config.auth.users] == ["u", "bob"]


def test_mistakes_in_the_users_file_come_last_with_its_own_lines(file: Path) -> None:
    listed = private(file.parent / "list.txt", '\n"bob"\n"u" "x"\n')
    found = mistakes(file, NODE + '[auth]\nusers_file = "list.txt"\n' + USER + "[pool]\nsize = 0\n")
    assert found[0] == '5:14: user "u" is in the users file too (line 3) (name each user once)'
    assert found[1].startswith("10:8: 0 is too small")
    assert found[2].startswith(f"{listed}:2:6: the password must be in double quotes")


def test_a_plain_password_in_a_readable_file_is_a_warning(file: Path) -> None:
    text = NODE + USER.replace("${PW}", "hunter2") + '[health]\npassword = "${PW}"\n'
    assert read(file, text).warnings == ()
    file.chmod(0o644)
    (warning,) = load(file, ENVIRON).warnings
    assert str(warning).startswith(f"{file}:6:12: a password in plain text")
    assert "hunter2" not in warning.render()


def test_passwords_are_not_in_the_configurations_text(file: Path) -> None:
    assert "secret" not in repr(read(file, NODE + USER).config.auth.users)


def test_what_could_be_read_comes_with_the_mistakes(file: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(file, NODE + USER + '[pool]\nsize = 0\nmode = "session"\n')
    assert caught.value.loaded is not None
    assert isinstance(caught.value.loaded.config, Config)
    assert caught.value.loaded.config.pool == Pool(mode="session")


def test_the_process_environment_serves(file: Path) -> None:
    file.write_text(NODE + USER.replace("${PW}", "${PATH}"))
    assert load(file, os.environ).config.auth.users[0].password == os.environ["PATH"]


def test_the_home_of_nobody_is_a_mistake(file: Path) -> None:
    text = NODE + '[auth]\nusers_file = "~nobody-of-this-name/users"\n'
    assert mistakes(file, text) == ["5:14: there is no such user's home"]
