"""Built-in functions whose declared volatility does not tell what the proof needs to know.

Compiled from pg_proc of PostgreSQL 16.14 and 18.4. The names count only for objects that came with initdb.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_RUNS_SQL = "runs SQL over whatever it is pointed at, views with volatile functions included"
_CONVERTS = "runs the input function of a type named by a value, a domain's constraints included"
_ASSIGNS = "assigns a transaction id, which a standby cannot"

NOT_HARMLESS: Mapping[str, str] = MappingProxyType({
    # declared stable
    "txid_current": _ASSIGNS,
    "pg_current_xact_id": _ASSIGNS,
    **dict.fromkeys(
        (
            "table_to_xml", "table_to_xmlschema", "table_to_xml_and_xmlschema",
            "schema_to_xml", "schema_to_xmlschema", "schema_to_xml_and_xmlschema",
            "database_to_xml", "database_to_xmlschema", "database_to_xml_and_xmlschema",
        ),
        _RUNS_SQL,
    ),
    **dict.fromkeys(
        (
            "pg_input_is_valid", "pg_input_error_info", "array_in", "array_recv", "record_in", "record_recv",
            "domain_in", "domain_recv", "range_in", "range_recv", "multirange_in", "multirange_recv",
        ),
        _CONVERTS,
    ),
    # declared immutable
    "satisfies_hash_partition": "runs the hash functions of a table named by a value",
    # volatile today, but not in every version that is around
    **dict.fromkeys(
        (
            "query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "cursor_to_xml",
            "cursor_to_xmlschema", "ts_stat", "ts_rewrite",
        ),
        _RUNS_SQL,
    ),
    "currtid": "reads a table named by a value",
    "currtid2": "reads a table named by a value",
    "pg_export_snapshot": "exports a snapshot",
    "set_config": "changes a setting",
})  # fmt: skip
"""Declared stable or immutable, and yet not to be proven; with the reason."""

OBSERVES = frozenset((
    "pg_is_in_recovery", "pg_last_wal_receive_lsn", "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp",
    "pg_is_wal_replay_paused", "pg_get_wal_replay_pause_state",
    "pg_database_size", "pg_tablespace_size", "pg_table_size", "pg_indexes_size", "pg_relation_size",
    "pg_total_relation_size", "pg_partition_tree", "pg_partition_ancestors",
))  # fmt: skip
"""Declared volatile because the answer changes by itself; they do nothing and work on a standby. What uses chance or
the clock is not among them: an application that calls random() may rely on anything."""

LEAVES_NOTHING = OBSERVES | frozenset((
    "txid_current", "pg_current_xact_id", "random", "random_normal", "array_sample", "array_shuffle",
    "gen_random_uuid", "uuidv4", "uuidv7", "clock_timestamp", "timeofday", "pg_sleep", "pg_sleep_for",
    "pg_sleep_until", "pg_notify", "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared",
    "pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared", "currval", "lastval",
    "pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all",
    "pg_current_wal_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_flush_lsn", "pg_lock_status",
    "pg_blocking_pids", "pg_cancel_backend", "pg_terminate_backend", "current_query",
    "RI_FKey_check_ins", "RI_FKey_check_upd", "RI_FKey_cascade_del", "RI_FKey_cascade_upd",
    "RI_FKey_restrict_del", "RI_FKey_restrict_upd", "RI_FKey_setnull_del", "RI_FKey_setnull_upd",
    "RI_FKey_setdefault_del", "RI_FKey_setdefault_upd", "RI_FKey_noaction_del", "RI_FKey_noaction_upd",
    "unique_key_recheck", "suppress_redundant_updates_trigger", "tsvector_update_trigger",
    "tsvector_update_trigger_column",
))  # fmt: skip
"""Volatile, but they leave nothing in the session that outlives the transaction. (What foreign keys cascade to is
proven apart.)"""

LEAVES_SEQUENCES = frozenset(("nextval", "setval"))
"""Volatile; they leave what currval and lastval read."""

SAMPLERS = frozenset(("system", "bernoulli"))
"""TABLESAMPLE methods. Their handlers are declared volatile and do nothing."""

TAKES_ROWS = frozenset(("record", "any", "anyelement", "anynonarray", "anycompatible", "anycompatiblenonarray"))
"""Pseudo-types that a row can be passed as."""
