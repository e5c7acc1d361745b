"""From a statement to its flow: the slow path, in which plugins are asked, and the table that remembers.

`Planner.flow` is one dictionary access for a remembered flow. Otherwise the statement's facts are found, the
catalogue proves what it can, the plugins are asked in their order, and their verdict is installed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from helios_sdk.contract import (
    Action,
    Client,
    Directive,
    Hint,
    HookSpec,
    Limit,
    Mask,
    Pair,
    Reject,
    Rewrite,
    Settings,
    Statement,
)
from helios_sdk.contract import Answer as HookAnswer

from heliosproxy.cluster.balance import Balancer
from heliosproxy.cluster.proof import Proof, prove, prove_types
from heliosproxy.cluster.select import Qualified, qualify
from heliosproxy.flow.merge import Contradiction, Merge
from heliosproxy.flow.table import FlowTable, Share
from heliosproxy.flow.verdict import NOTHING_DECIDED, Applied, Verdict
from heliosproxy.sandbox.faults import PluginFault
from heliosproxy.sql.comments import blank_hints, hints, sqlcommenter
from heliosproxy.sql.facts import Facts, FactsTable
from heliosproxy.sql.session import SETS_BY_CALL, set_by_call
from heliosproxy.sql.shape import maskable_encoding, printable, query_hash, shape
from heliosproxy.switch.flows import Decision, Flow, FlowKey
from heliosproxy.switch.settings import fingerprint

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node
    from heliosproxy.cluster.registry import Cluster
    from heliosproxy.sandbox.plugin import Plugin
    from heliosproxy.switch.session import Session

log = logging.getLogger("heliosproxy.flows")

Hooked: TypeAlias = "tuple[Plugin, HookSpec]"
Parameters: TypeAlias = tuple[str | None, ...]
MAX_CLASSES = 100_000
"""Session classes whose numbers are remembered; least recently met out. One that comes again gets another number."""
CLASSES_OF_A_SESSION = 100
"""Of them those that one session has brought, since it changes its settings: its own least recently met out."""
LONGEST_KEY = 256
"""Bytes of a text that is kept as it is where plugins read texts; of longer ones a digest is."""

HINT_MARK = b"/*helios:"
_NOT_EXECUTABLE: tuple[type[Action], ...] = (Limit, Mask, Settings)
"""Actions whose mechanism this version lacks, and whose silent loss would be a hole."""

_UNPROVEN = Proof(False, "anything", "text that must not be parsed")
_UNREAD = Facts("unknown", pins=("settings that the proxy cannot follow",), transaction_control=True, ddl=True)
"""Facts of a text in an encoding, or with a setting, under which it must not be parsed (S3)."""


class Asked(NamedTuple):
    """A hook that was asked, for the explanation: how long it took, or why it was not called."""

    plugin: str
    hook: str
    microseconds: float
    skipped: str


class Planner:
    """Facts, proof, plugins, table."""

    def __init__(self, cluster: Cluster, plugins: Sequence[Plugin], *, flows: int, balancer: Balancer) -> None:
        self.cluster = cluster
        self.balancer = balancer
        self.table: FlowTable[FlowKey, Flow] = FlowTable(flows)
        self.decisions: deque[Decision] = deque(maxlen=1000)
        self._facts = FactsTable(flows)
        self.function_call = Flow(b"", Facts("unknown"), _UNPROVEN, NOTHING_DECIDED, ())
        """The flow of FunctionCall messages, whose functions are not looked at."""
        self._classes: FlowTable[tuple[object, ...], int] = FlowTable(MAX_CLASSES)
        self._numbers = count()
        self._oldest_class = 0
        """Classes with smaller numbers are found anew."""
        self._catalogue_version = -1
        self._cluster_version = -1
        self._nodes = cluster.facts()
        self.use(plugins)

    def use(self, plugins: Sequence[Plugin]) -> None:
        """Take these plugins from now on; everything remembered is forgotten."""
        self.plugins = tuple(plugins)
        specs = [(plugin, spec) for plugin in plugins for spec in plugin.hooks.values()]
        self._reads = frozenset(fact for _, spec in specs for fact in spec.reads)
        self._deciders = [one for hook in ("on-parse", "on-route") for one in specs if one[1].hook == hook]
        self.observers = [(plugin, spec) for plugin, spec in specs if spec.hook == "on-result"]
        self.tickers = [(plugin, spec) for plugin, spec in specs if spec.hook == "on-tick"]
        self.greeters = [(plugin, spec) for plugin, spec in specs if spec.hook == "on-connect"]
        self._by_text = "text" in self._reads
        self.reads_parameters = "parameters" in self._reads
        """Whether a plugin wants to be asked with each statement's bound values."""
        self._comment_keys = frozenset(fact[8:] for fact in self._reads if fact.startswith("comment:"))
        self._forget_classes()

    def _forget_classes(self) -> None:
        self._classes.flush()
        self._oldest_class = next(self._numbers)
        self.table.flush()

    # --- the fast path ------------------------------------------------------------------------------------------

    def shape(self, session: Session, text: bytes) -> bytes | None:
        """The statement's shape; None where this session's text must not be read that way (S3)."""
        if session.maskable is None:
            settings = session.settings
            plain_strings = settings.value("standard_conforming_strings") != "off"
            session.maskable = plain_strings and maskable_encoding(settings.value("client_encoding"))
        return shape(text) if session.maskable else None

    def flow(
        self,
        session: Session,
        text: bytes,
        shaped: bytes | None,
        types: tuple[int, ...] = (),
        parameters: Parameters = (),
    ) -> Flow:
        """The flow of a statement whose shape is known.

        `types` are those of its parameters that are not PostgreSQL's own, `parameters` its bound values, which are
        given only where `reads_parameters`.
        """
        cluster = self.cluster
        if cluster.catalogue_version != self._catalogue_version or cluster.version != self._cluster_version:
            self._cluster_changed()
        if shaped is None:
            return self.decide(session.client, session.hints, text, None)
        key = self._key(session, text, shaped, types)
        flow = self.table.get(key)
        if flow is not None and (flow.expires is None or time.monotonic() < flow.expires):
            return flow
        flow = self.decide(session.client, session.hints, text, shaped, types, parameters)
        flow.sets = set_by_call(text)
        if self._remembered(flow):
            session.flows = session.flows or Share(session.limits.max_session_flows)
            self.table.put(key, flow, session.flows)
        return flow

    def _key(self, session: Session, text: bytes, shaped: bytes, types: tuple[int, ...]) -> FlowKey:
        if session.flow_class < self._oldest_class:
            session.flow_class = self._class(session)
        extra: object = (text if len(text) <= LONGEST_KEY else _digest(text)) if self._by_text else None
        if types:
            extra = (extra, types)
        if SETS_BY_CALL in text:
            extra = (extra, set_by_call(text))
        if self._comment_keys and b"/*" in text:
            extra = (extra, tuple(pair for pair in sqlcommenter(text) if pair.key in self._comment_keys))
        return shaped, session.flow_class, extra

    def _class(self, session: Session) -> int:
        """The number of the session's class: what always changes a statement's meaning (S4), and what plugins read."""
        reads, client = self._reads, session.client
        facts = (
            client.database,
            client.user,
            session.settings.fingerprint,
            session.salt,
            fingerprint(tuple(session.hints.items())) if "hints" in reads else (),
            client.application_name if "application-name" in reads else "",
            client.address if "address" in reads else "",
            client.tenant if "tenant" in reads else "",
            client.authentication if "authentication" in reads else "",
            client.server_name if "server-name" in reads else "",
        )
        number = self._classes.get(facts)
        if number is None:
            number = next(self._numbers)
            session.classes = session.classes or Share(CLASSES_OF_A_SESSION)
            self._classes.put(facts, number, session.classes)
        return number

    def refresh(self) -> None:
        """Take note of changes of the cluster, as each statement does; what they make doubtful is forgotten."""
        if (self.cluster.catalogue_version, self.cluster.version) != (self._catalogue_version, self._cluster_version):
            self._cluster_changed()

    def _cluster_changed(self) -> None:
        cluster = self.cluster
        nodes = cluster.facts()
        if cluster.catalogue_version != self._catalogue_version or nodes is not self._nodes:
            self.table.flush()
        self._nodes = nodes
        self._catalogue_version = cluster.catalogue_version
        self._cluster_version = cluster.version

    def candidates(self, flow: Flow) -> Qualified:
        """The nodes that the flow may run on now."""
        if flow.qualified is None or flow.qualified_version != self.cluster.version:
            flow.qualified = qualify(self.cluster, flow.routes)
            flow.qualified_version = self.cluster.version
            if flow.qualified.relaxed:
                log.warning("%s: %s", query_hash(flow.shape), flow.qualified.relaxed)
        return flow.qualified

    def choose(self, flow: Flow, but: Node | None = None) -> Node | None:
        """The node for the flow's next statement, not `but`; None where none qualifies."""
        nodes = self.candidates(flow).nodes
        if but is not None:
            nodes = tuple(node for node in nodes if node is not but)
        if len(nodes) == 1:
            return nodes[0]
        return self.balancer.choose(nodes, flow.verdict.sticky) if nodes else None

    def sent_text(self, flow: Flow, text: bytes) -> bytes:
        """What a node is given instead of the client's text: hints blanked (S7), or rewritten."""
        if flow.verdict.rewrite is not None:
            return flow.verdict.rewrite.encode()
        return blank_hints(text) if HINT_MARK in text else text

    # --- the slow path ------------------------------------------------------------------------------------------

    def _remembered(self, flow: Flow) -> bool:
        if flow.verdict.ttl_ms is not None:
            flow.expires = time.monotonic() + flow.verdict.ttl_ms / 1e3
        return not self.reads_parameters and flow.verdict.rewrite is None and flow.verdict.ttl_ms != 0

    def greet(self, client: Client) -> Verdict:
        """What the plugins say of a client that has logged in."""
        if not self.greeters:
            return Verdict()
        return self._ask(self.greeters, Statement("empty", client=client), None)

    def decide(
        self,
        client: Client,
        session_hints: dict[str, str],
        text: bytes,
        shaped: bytes | None,
        types: tuple[int, ...] = (),
        parameters: Parameters = (),
        asked: list[Asked] | None = None,
    ) -> Flow:
        """Find the facts, prove what can be proven, ask the plugins.

        Without a shape the text is not looked into (S3). `asked` collects which hooks were called, for an explanation.
        """
        decoded = text.decode("utf-8", "replace")
        found: tuple[Hint, ...] = ()
        if shaped is None:
            facts, proof = _UNREAD, _UNPROVEN
        else:
            facts = self._facts.of(shaped, decoded)
            proof = self._prove(facts, client.database, types)
            found = hints(text) + tuple(Hint(key, value) for key, value in session_hints.items())
        if not proof.read_only and _begins_reading(facts):
            proof = replace(proof, read_only=True)
        statement = Statement(
            facts.kind,
            proof.read_only,
            decoded if self._by_text else "",
            printable(shaped or b"") if "shape" in self._reads else "",
            found,
            facts.tables,
            facts.functions,
            (),
            sqlcommenter(text) if self._comment_keys else (),
            parameters,
            client,
        )
        return Flow(shaped or b"", facts, proof, self._ask(self._deciders, statement, asked), found)

    def _prove(self, facts: Facts, database: str, types: tuple[int, ...]) -> Proof:
        catalogue = self.cluster.catalogue(database)
        if catalogue is None and facts.references is not None and not facts.references.relations:
            catalogue = self.cluster.catalogue_of_functions(database)
        proof = prove(facts, catalogue)
        if types:
            reading = prove_types(types, catalogue)
            if not reading.read_only or reading.leaves == "anything":
                return replace(reading, read_only=proof.read_only and reading.read_only)
        return proof

    def _ask(self, hooks: Sequence[Hooked], statement: Statement, asked: list[Asked] | None) -> Verdict:
        """Call the hooks in their order, until one rejects; what they say, merged."""
        merge = Merge()
        try:
            for plugin, spec in hooks:
                statement = self._ask_one(merge, plugin, spec, statement, asked)
                if merge.finished:
                    break
        except Contradiction as error:
            return _refusal(str(error), "kernel", "merge")
        except _Closed as error:
            return error.verdict
        return merge.result()

    def _ask_one(
        self, merge: Merge, plugin: Plugin, spec: HookSpec, statement: Statement, asked: list[Asked] | None
    ) -> Statement:
        """One hook of one plugin; returns the statement as the next one sees it."""
        name = plugin.manifest.name
        skipped = _skipped(plugin, spec, statement)
        if skipped:
            if asked is not None:
                asked.append(Asked(name, spec.hook, 0.0, skipped))
            return statement
        started = time.perf_counter()
        try:
            answer = self._call(plugin, spec, statement)
            _check_executable(name, spec, answer)
        except PluginFault as fault:
            if spec.on_failure == "closed":
                message = f"plugin {name} failed in {spec.hook}: {fault.message}"
                raise _Closed(_refusal(message, name, spec.hook)) from None
            answer = HookAnswer((), 0)
        if asked is not None:
            asked.append(Asked(name, spec.hook, (time.perf_counter() - started) * 1e6, ""))
        before = len(merge.verdict.tags)
        merge.add(name, spec.hook, answer)
        return _seen_by_the_next(statement, merge, before)

    def _call(self, plugin: Plugin, spec: HookSpec, statement: Statement) -> HookAnswer:
        if spec.hook == "on-connect":
            return plugin.on_connect(statement.client)
        if spec.hook == "on-parse":
            return plugin.on_parse(statement)
        return plugin.on_route(statement, self._nodes)

    # --- what happened -------------------------------------------------------------------------------------------

    def ddl_happened(self, database: str, *, of_relations: bool = False) -> None:
        """The catalogue may have changed: nothing is proven until it was read again, but, where only relations have
        changed, of statements that name none."""
        self.cluster.ddl_happened(database, of_relations=of_relations)
        self.table.flush()

    def flush(self, relation: str | None) -> int:
        """Forget the flows that name a relation, or all; return how many."""
        if relation is None:
            return self.table.flush()
        return self.table.flush(lambda flow: relation in flow.facts.tables)


class _Closed(Exception):
    """A hook that fails closed has failed."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


def _begins_reading(facts: Facts) -> bool:
    """Whether it begins a transaction that can only read, and that a standby does not refuse (R2)."""
    transaction = facts.transaction
    if facts.kind != "begin" or transaction is None:
        return False
    return transaction.read_only is True and not transaction.serializable


def _skipped(plugin: Plugin, spec: HookSpec, statement: Statement) -> str:
    """Why the hook need not be called; empty if it must.

    One that fails closed is called although its plugin is disabled, and fails: whoever can make a guard fail often
    enough must not be rid of it (P4).
    """
    if plugin.state != "enabled" and spec.on_failure == "open":
        return f"disabled: {plugin.reason}"
    if spec.only_with and not any(_present(fact, statement) for fact in spec.only_with):
        return f"nothing of {', '.join(spec.only_with)} in the statement"
    return ""


def _present(fact: str, statement: Statement) -> bool:
    family, _, key = fact.partition(":")
    if family == "tag":
        return any(pair.key == key for pair in statement.tags)
    if family == "comment":
        return any(pair.key == key for pair in statement.comments)
    return bool(getattr(statement, family, ()))


def _seen_by_the_next(statement: Statement, merge: Merge, tags_before: int) -> Statement:
    """Tags and rewrites of a plugin are facts for those after it."""
    if len(merge.verdict.tags) == tags_before:
        return statement
    tags = tuple(Pair(tag.key, tag.value) for tag in merge.verdict.tags)
    return replace(statement, tags=tags)


def _check_executable(plugin: str, spec: HookSpec, answer: HookAnswer) -> None:
    for directive in answer.directives:
        if isinstance(directive.action, _NOT_EXECUTABLE):
            action = type(directive.action).__name__.lower()
            raise PluginFault(plugin, spec.hook, f"this version cannot execute the directive {action!r}", "")
        if isinstance(directive.action, Rewrite) and "text" not in spec.reads:
            raise PluginFault(plugin, spec.hook, "a plugin that rewrites must read the text", "")


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest()


def _refusal(message: str, plugin: str, hook: str) -> Verdict:
    """The verdict where deciding has failed: refused, and not remembered."""
    reject = Reject("58000", message)
    return Verdict((Applied(plugin, hook, Directive(reject, message)),), reject=reject, ttl_ms=0)
