"""The command `helios`: every command's arguments in one place. What a command needs is imported when it is called.

Exit codes: 0 ok, 1 failure, 2 usage, 3 configuration, 4 unreachable. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="helios",
    help="HeliosProxy: a PostgreSQL proxy whose features are sandboxed plugins.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
plugins_app = typer.Typer(help="What plugins there are and do.", no_args_is_help=True)
app.add_typer(plugins_app, name="plugins")

File = Annotated[
    Path, typer.Option("--config", envvar="HELIOS_CONFIG", metavar="FILE", help="The configuration to use.")
]
SomeFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="HELIOS_CONFIG",
        metavar="FILE",
        help="The configuration of the proxy to ask; without it ./heliosproxy.toml, else the demo that is running.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]

DEFAULT = Path("heliosproxy.toml")


def _version(wanted: bool) -> None:
    if wanted:
        from heliosproxy import __version__

        print(f"HeliosProxy {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def run(config: File = DEFAULT) -> None:
    """Run the proxy until SIGTERM or SIGINT; a second signal ends it at once."""
    from heliosproxy.cli.run import run_proxy

    raise typer.Exit(run_proxy(config))


@app.command()
def check(
    config: File = DEFAULT,
    connect: Annotated[bool, typer.Option("--connect", help="Also try each node.")] = False,
    json: Json = False,
) -> None:
    """Check a configuration: every mistake at once, each with line and column."""
    from heliosproxy.cli.check import check as command

    command(config, connect, json)


@app.command()
def init(
    url: Annotated[str, typer.Argument(help="postgres://user:password@host:port/database; or PGPASSWORD.")],
    output: Annotated[Path, typer.Option("--output", help="The file to write.")] = DEFAULT,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it if it is there.")] = False,
    standby: Annotated[list[str] | None, typer.Option("--standby", help="host:port of a standby; repeatable.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for each server.")] = 5.0,
    json: Json = False,
) -> None:
    """Write a heliosproxy.toml for a running server and its standbys."""
    from heliosproxy.cli.init import init as command

    command(url, output, force, standby, timeout, json)


@app.command()
def demo(
    headless: Annotated[bool, typer.Option("--headless", help="Print nothing but the log.")] = False,
    ready_file: Annotated[
        Path | None,
        typer.Option("--ready-file", metavar="FILE", help="Write access data here once everything answers."),
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--duration", metavar="TIME", help='End after this time, as "10s" or "5min".')
    ] = None,
    listen: Annotated[
        int | None, typer.Option("--listen", min=0, max=65535, metavar="PORT", help="Default: 6432, or a free one.")
    ] = None,
) -> None:
    """Start a PostgreSQL cluster with the proxy in front of it, to try things out."""
    seconds = _seconds(duration) if duration is not None else None

    from heliosproxy.cli.demo import Options, run_demo

    raise typer.Exit(run_demo(Options(headless, ready_file, seconds, listen)))


def _seconds(text: str) -> float:
    from heliosproxy.config.values import BadValue, duration

    try:
        return duration(text)
    except BadValue as bad:
        raise typer.BadParameter(f"{bad.message} ({bad.hint})", param_hint="--duration") from None


@app.command()
def status(config: SomeFile = None, json: Json = False) -> None:
    """Show the nodes, pools, plugins and flows of the running proxy."""
    from heliosproxy.cli.status import run_status

    raise typer.Exit(run_status(config, json=json))


@app.command()
def reload(config: SomeFile = None, json: Json = False) -> None:
    """Have the running proxy read its file again: users, rules, certificates, limits. SIGHUP does the same."""
    from heliosproxy.cli.reload import run_reload

    raise typer.Exit(run_reload(config, json=json))


@app.command()
def route(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="The statement.")],
    config: SomeFile = None,
    user: Annotated[str, typer.Option("--user", help="Who would send it; the first configured user.")] = "",
    database: Annotated[str, typer.Option("--database", help="Where; the database of [health].")] = "",
    application_name: Annotated[str, typer.Option("--application-name", help="What the client calls itself.")] = "",
    hints: Annotated[str, typer.Option("--hints", help="Hints of the session, as route=async,lag=10s.")] = "",
    json: Json = False,
) -> None:
    """Explain step by step what the running proxy would do with a statement. Nothing is executed."""
    from heliosproxy.cli.route import run_route

    who = {"user": user, "database": database, "application_name": application_name, "hints": hints}
    raise typer.Exit(run_route(sql, config, who, json=json))


@plugins_app.command("list")
def plugins_list(config: SomeFile = None, json: Json = False) -> None:
    """List the plugins of the running proxy with what they do; without one, those installed."""
    from heliosproxy.cli.plugins import run_list

    raise typer.Exit(run_list(config, json=json))


@plugins_app.command("inspect")
def plugins_inspect(name: str, config: SomeFile = None, json: Json = False) -> None:
    """Show all that is known of an installed plugin: its manifest, origin, size and configuration schema."""
    from heliosproxy.cli.plugins import run_inspect

    raise typer.Exit(run_inspect(name, config, json=json))


@plugins_app.command("build")
def plugins_build(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Each holds a plugin.py.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Default: <the first directory's name>.wasm.")
    ] = None,
) -> None:
    """Build plugins written in Python into one component."""
    from heliosproxy.cli.plugins import run_build

    raise typer.Exit(run_build(directories, output))


if __name__ == "__main__":
    app(prog_name="helios")
