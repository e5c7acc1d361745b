"""What the storm's clients do. Each deed leaves the client outside a transaction and its model equal to what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.cluster import raw
from tests.cluster.stormers import (
    ABORTED,
    CANCELED,
    CHOICES,
    DIVISION,
    FOLLOWED,
    REPORTED,
    ROLES,
    SCHEMAS,
    Expected,
    Stormer,
)


def setting(name: str, value: str) -> str:
    """SQL that sets it; search_path's value is a list, not a string."""
    return f"set {name} to {value}" if name == "search_path" else f"set {name} to '{value}'"


class Statements(Stormer):
    """Answers are its own, whatever the protocol and whatever fails."""

    def asks_simply(self) -> None:
        token = self.token()
        self.ok(f"select '{token}'", (token,))

    def asks_several(self) -> None:
        one, two = self.token(), self.token()
        found = self.ok(f"select '{one}'; select '{two}', 1 / 1; select", (one,), (two, "1"), ())
        assert len(found.commands) == 3

    def asks_with_parameters(self) -> None:
        token = self.token()
        found = self.extended("select $1::text, $2::int + 1", token, "41")
        assert found.rows == [(token, "42")], found

    def prepares(self) -> None:
        """Texts that others prepare as well, and one of its own."""
        name, own = f"p{len(self.prepared) % 4}", self.token()
        texts = (f"select '{own}'", "select name from whose", "select current_setting('application_name')")
        sql = self.random.choice(texts)
        old = raw.close(name) if name in self.prepared else b""
        self.client.send(old + raw.parse(name, sql) + raw.describe(name, b"S") + raw.SYNC)
        found = self.client.answer()
        assert not found.errors, found.errors
        self.prepared[name] = sql

    def executes(self) -> None:
        """One of what it has prepared, on whatever link it gets now."""
        if not self.prepared:
            return
        name = self.random.choice(sorted(self.prepared))
        self.client.send(raw.bind(name) + raw.execute() + raw.SYNC)
        found = self.client.answer()
        row = self.state.row("")
        told = {"select name from whose": row[7], "select current_setting('application_name')": row[10]}
        sql = self.prepared[name]
        assert found.rows == [(told.get(sql, sql[8:-1]),)], (sql, found)

    def executes_what_others_prepared(self) -> None:
        self.client.send(raw.bind("never prepared by this one") + raw.execute() + raw.SYNC)
        assert self.client.answer().sqlstate == "26000"

    def pipelines(self) -> None:
        tokens = [self.token() for _ in range(self.random.randint(2, 6))]
        units = [raw.parse("", f"select '{t}'") + raw.bind("") + raw.execute() + raw.SYNC for t in tokens]
        self.client.send(b"".join(units))
        assert [self.client.answer().rows for _ in units] == [[(token,)] for token in tokens]

    def fails_in_a_pipeline(self) -> None:
        token = self.token()
        one = raw.parse("", f"select '{token}'") + raw.bind("") + raw.execute()
        bad = raw.parse("", "select 1 / $1::int") + raw.bind("", "0") + raw.execute()
        self.client.send(one + bad + one + raw.SYNC + raw.query(f"select '{token}'"))
        found = self.client.answer()
        assert (found.rows, found.sqlstate) == ([(token,)], DIVISION), found
        assert self.client.answer().rows == [(token,)]

    def divides_by_zero(self) -> None:
        self.fails("select 1 / 0", DIVISION)

    def says_nonsense(self) -> None:
        found = self.client.query(f"selekt {self.token()}")
        assert found.sqlstate == "42601"

    def copies_out(self) -> None:
        token = self.token()
        found = self.client.query(f"copy (select '{token}', n from generate_series(1, 50) n) to stdout")
        assert bytes(found.copied).decode() == "".join(f"{token}\t{n}\n" for n in range(1, 51))

    def is_cancelled(self) -> None:
        """In time, or, where the request overtook the statement, not."""
        token = self.token()
        self.client.send(raw.query(f"select '{token}' from pg_sleep(0.5)"))
        self.client.cancel()
        found = self.client.answer()
        assert found.sqlstate == CANCELED or found.rows == [(token,)], found


class Transactions(Statements):
    """What is committed is there, what is rolled back is not, settings included (L8)."""

    def counts(self) -> None:
        self.ok(f"select count(*) from rows where owner = {self.number}", (str(self.committed),))

    def commits(self) -> None:
        self.ok("begin")
        for _ in range(self.random.randint(1, 3)):
            self.ok(f"insert into rows values ({self.number}, '{self.token()}')")
            self.committed += 1
        self.counts()
        self.ok("commit")

    def rolls_back(self) -> None:
        self.ok("begin")
        self.ok(f"insert into rows values ({self.number}, 'never')")
        name, value, _ = self._chosen()
        self.ok(setting(name, value))
        self.ok(f"set local application_name to 'not {self.number}'")
        self.ok("rollback")
        self.counts()

    def rolls_back_to_a_savepoint(self) -> None:
        self.ok("begin")
        self.ok("savepoint here")
        name, value, _ = self._chosen()
        self.ok(setting(name, value))
        self.ok(f"insert into rows values ({self.number}, 'never')")
        self.ok("rollback to here")
        self.ok(f"show {name}", (self.state.settings[name],))
        self.ok("commit")
        self.counts()

    def fails_in_a_transaction(self) -> None:
        self.ok("begin")
        self.ok(f"insert into rows values ({self.number}, 'never')")
        self.fails("select 1 / 0", DIVISION)
        self.fails("select 'refused'", ABORTED)
        assert self.ok("commit").commands == ["ROLLBACK"]
        self.counts()

    def fetches_in_portions(self) -> None:
        token = self.token()
        self.ok("begin")
        asked = raw.parse("", f"select '{token}' from generate_series(1, 5)") + raw.bind("", portal="c")
        self.client.send(asked + raw.execute("c", 2) + raw.execute("c", 2) + raw.SYNC)
        assert self.client.answer().tags == b"12DDsDDsZ"
        self.client.send(raw.execute("c") + raw.SYNC)
        assert self.client.answer().rows == [(token,)]
        self.ok("commit")

    def locks_for_a_transaction(self) -> None:
        self.ok("begin")
        self.ok(f"select 1 from pg_advisory_xact_lock({1_000_000 + self.number})", ("1",))
        self.ok("rollback" if self.random.random() < 0.5 else "commit")

    def copies_in(self) -> None:
        self.client.send(raw.query("copy rows from stdin"))
        self.client.answer(b"G")
        lines = self.random.randint(1, 20)
        self.client.send(b"".join(raw.copy_data(f"{self.number}\t{n}\n".encode()) for n in range(lines)))
        if self.random.random() < 0.3:
            self.client.send(raw.tagged(b"f", raw.text("changed its mind")))
            assert self.client.answer().sqlstate == CANCELED
        else:
            self.client.send(raw.COPY_DONE)
            assert self.client.answer().commands == [f"COPY {lines}"]
            self.committed += lines
        self.counts()

    def _chosen(self) -> tuple[str, str, Expected]:
        name = self.random.choice(FOLLOWED)
        value = self.random.choice(CHOICES[name])
        return name, value, self.state.with_setting(name, value)


class Possessions(Transactions):
    """What lives in its session, until it is discarded."""

    def sets(self) -> None:
        name, value, self.state = self._chosen()
        self.ok(setting(name, value))
        assert name not in REPORTED or self.client.parameters[name] == value

    def sets_by_function(self) -> None:
        name, value, self.state = self._chosen()
        found = self.extended("select set_config($1, $2, false)", name, value)
        assert found.rows == [(value,)], found

    def resets(self) -> None:
        name = self.random.choice(FOLLOWED)
        self.ok(f"reset {name}")
        self.state = self.state.with_setting(name, self.fresh.settings[name])

    def sets_what_is_followed(self) -> None:
        value = self.token()
        self.ok(f"set storm.followed to '{value}'")
        self.state = replace(self.state, followed=value)

    def sets_in_a_transaction(self) -> None:
        self.ok("begin")
        name, value, self.state = self._chosen()
        self.ok(setting(name, value))
        self.ok("commit")

    def names_itself(self) -> None:
        name = f"storm {self.number} {self.token()}"
        self.ok(f"set application_name to '{name}'")
        self.state = replace(self.state, name=name)

    def takes_a_role(self) -> None:
        role = f"storm_role_{self.random.randrange(ROLES)}" if self.random.random() < 0.7 else self.around.user
        self.ok(f"set role {role}" if role != self.around.user else "reset role")
        self.state = replace(self.state, role=role)

    def sets_its_own(self) -> None:
        if self.pin():
            value = self.token()
            self.ok(f"set storm.own to '{value}'")
            self.state = replace(self.state, custom=value)

    def makes_a_temporary_table(self) -> None:
        if self.pin():
            token = self.token()
            if not self.state.temporary:
                self.ok("create temp table own (value text); grant all on own to public")
            self.state = replace(self.state, temporary="own")
            self.ok(f"insert into own values ('{token}')")
            self.temporary_rows.append(token)
            self.ok("select value from own", *((value,) for value in self.temporary_rows))

    def listens(self) -> None:
        if self.pin():
            channel = f"storm_{self.number}"
            self.ok(f"listen {channel}")
            self.state = replace(self.state, channels=frozenset((channel,)))
            token = self.token()
            self.ok(f"notify {channel}, '{token}'")
            self.ok("select 1", ("1",))
            assert token in [payload for _, _, payload in self.client.notifications], self.client.notifications
            assert {name for _, name, _ in self.client.notifications} == {channel}
            self.client.notifications.clear()

    def notifies_others(self) -> None:
        for _ in range(3):
            self.ok(f"notify storm_{self.random.randrange(100)}, '{self.token()}'")

    def locks(self) -> None:
        if self.pin():
            number = self.number * 1000 + self.random.randrange(3)
            self.ok(f"select 1 from pg_advisory_lock({number})", ("1",))
            self.state = replace(self.state, locks=self.state.locks | {number})

    def prepares_by_sql(self) -> None:
        """Under names that others use as well."""
        name, token = f"s{self.random.randrange(3)}", self.token()
        if name in self.by_sql:
            self.fails(f"prepare {name}(text) as select '{token}', $1", "42P05")
        else:
            self.ok(f"prepare {name}(text) as select '{token}', $1")
            self.by_sql[name] = token

    def executes_by_sql(self) -> None:
        name, value = f"s{self.random.randrange(3)}", self.token()
        if name in self.by_sql:
            self.ok(f"execute {name}('{value}')", (self.by_sql[name], value))
        else:
            self.fails(f"execute {name}('{value}')", "26000")

    def deallocates(self) -> None:
        if self.by_sql:
            name = self.random.choice(sorted(self.by_sql))
            del self.by_sql[name]
            self.ok(f"deallocate {name}")
            self.fails(f"execute {name}('x')", "26000")

    def declares_a_cursor(self) -> None:
        if self.pin() and not self.state.cursors:
            token = self.token()
            self.ok(f"declare kept cursor with hold for select '{token}' from generate_series(1, 3)")
            self.state = replace(self.state, cursors=frozenset(("kept",)))
            self.ok("fetch 2 from kept", (token,), (token,))

    def counts_up(self) -> None:
        if self.pin():
            self.ok("begin")
            number = self.client.value("select nextval('numbers')")
            self.ok("select currval('numbers'), lastval()", (number, number))
            self.ok("commit")
            self.ok("select currval('numbers'), lastval()", (number, number))
            self.fails(f"select currval('storm_{self.random.randrange(SCHEMAS)}.nothing')", "42P01")

    def discards(self) -> None:
        self.ok("discard all")
        self.client.notifications.clear()
        self.prepared.clear()
        self.by_sql.clear()
        self.temporary_rows.clear()
        self.state = self.fresh
        self.unpin()


class Leaving(Possessions):
    """Gone without a word, in the middle of anything; who comes back is somebody new."""

    def leaves(self) -> None:
        self.client.close()
        self._come_back()

    def vanishes(self) -> None:
        self.client.reset()
        self._come_back()

    def vanishes_in_a_transaction(self) -> None:
        self.ok("begin")
        self.ok(f"insert into rows values ({self.number}, 'never')")
        self.client.reset()
        self._come_back()

    def vanishes_in_a_statement(self) -> None:
        self.client.send(raw.query("select pg_sleep(0.2)"))
        self.client.reset()
        self._come_back()

    def vanishes_in_a_copy(self) -> None:
        self.client.send(raw.query("copy rows from stdin"))
        self.client.answer(b"G")
        self.client.send(raw.copy_data(f"{self.number}\tnever\n".encode()))
        self.client.reset()
        self._come_back()

    def vanishes_in_a_result(self) -> None:
        self.client.send(raw.query("select repeat('x', 1000) from generate_series(1, 5000)"))
        self.client.answer(b"D")
        self.client.reset()
        self._come_back()

    def vanishes_in_a_message(self) -> None:
        self.client.send(raw.query(f"insert into rows values ({self.number}, 'never')")[: self.random.randint(1, 20)])
        self.client.reset()
        self._come_back()

    def vanishes_in_a_pipeline(self) -> None:
        insert = raw.parse("", f"insert into rows values ({self.number}, 'never')") + raw.bind("") + raw.execute()
        self.client.send(insert + (raw.FLUSH if self.random.random() < 0.5 else b""))
        self.client.reset()
        self._come_back()

    def _come_back(self) -> None:
        self.connect()
        self.unpin()
        self.counts()


class Anybody(Leaving):
    """Does all of it."""

    def all_deeds(self) -> list[Callable[[], object]]:
        often = [
            self.asks_simply, self.asks_several, self.asks_with_parameters, self.prepares, self.executes,
            self.pipelines, self.commits, self.rolls_back, self.sets, self.counts, self.executes,
        ]  # fmt: skip
        now_and_then = [
            self.executes_what_others_prepared, self.fails_in_a_pipeline, self.divides_by_zero, self.says_nonsense,
            self.copies_out, self.copies_in, self.rolls_back_to_a_savepoint, self.fails_in_a_transaction,
            self.fetches_in_portions, self.locks_for_a_transaction, self.sets_in_a_transaction, self.names_itself,
            self.notifies_others, self.takes_a_role, self.sets_its_own, self.sets_by_function, self.resets,
            self.sets_what_is_followed, self.makes_a_temporary_table, self.listens, self.locks, self.prepares_by_sql,
            self.executes_by_sql, self.executes_by_sql, self.deallocates, self.declares_a_cursor, self.counts_up,
            self.discards,
        ]  # fmt: skip
        seldom = [
            self.is_cancelled, self.leaves, self.vanishes, self.vanishes_in_a_transaction,
            self.vanishes_in_a_statement, self.vanishes_in_a_copy, self.vanishes_in_a_result,
            self.vanishes_in_a_message, self.vanishes_in_a_pipeline,
        ]  # fmt: skip
        return often * 4 + now_and_then * 2 + seldom
