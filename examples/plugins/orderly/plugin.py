"""Refuses DELETE on the ledger: a whole plugin."""

from helios_sdk import Directive, Plugin, Reject, Statement, hook


class Orderly(Plugin):
    """Refuses DELETE on the ledger."""

    name = "orderly"
    version = "1.0.0"
    stage = "guard"

    @hook(reads=("tables",), only_with=("tables",), on_failure="closed")
    def on_parse(self, statement: Statement) -> Directive | None:
        if statement.kind == "delete" and "ledger" in statement.tables:
            return Directive(Reject("42501", "nothing is ever deleted from ledger"), "the ledger is for ever")
        return None
