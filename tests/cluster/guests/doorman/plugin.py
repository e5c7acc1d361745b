"""A plugin that looks at how clients come in."""

from __future__ import annotations

from helios_sdk import Client, Directive, Notice, Plugin, Reject, hook


class Doorman(Plugin):
    """Tells clients what it knows of them, and sends those away that ask for a host of the name barred.test."""

    name = "doorman"
    version = "1.0"
    stage = "rules"

    @hook(reads=("user", "authentication", "server-name"))
    def on_connect(self, client: Client) -> Directive:
        """Say so."""
        if client.server_name == "barred.test":
            return Directive(Reject("28000", "nobody is served here"), "barred")
        seen = f"{client.user} by {client.authentication} at [{client.server_name}]"
        return Directive(Notice("notice", "00000", seen), "greeting")
