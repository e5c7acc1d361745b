"""Who may come in by number."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from heliosproxy.config.access import ClientLimits
from heliosproxy.switch.admission import LOCAL, Admission, LimitError, Reason, Ticket


class Door:
    """An admission, and who was ended by it."""

    def __init__(self, **limits: int) -> None:
        self.admission = Admission(ClientLimits(**limits))
        self.ended: list[int] = []
        self._number = 0

    def arrives(self, address: str = "192.0.2.1") -> Ticket:
        """A connection; those that arrive are numbered from 0."""
        number, self._number = self._number, self._number + 1
        return self.admission.arrived(address, partial(self.ended.append, number))

    def logs_in(self, address: str = "192.0.2.1", user: str = "alice", database: str = "db") -> Ticket:
        """A connection that goes all the way."""
        ticket = self.arrives(address)
        self.admission.begins(ticket)
        self.admission.admitted(ticket, user, database)
        return ticket

    @property
    def refused(self) -> dict[Reason, int]:
        """The counters that are not 0."""
        return dict(self.admission.statistics().refused)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("max_client_connections", "sorry, too many clients already"),
        ("max_user_client_connections", 'too many connections for role "alice"'),
        ("max_database_client_connections", 'too many connections for database "db"'),
        ("max_address_client_connections", 'too many connections from address "192.0.2.1"'),
    ],
)
def test_the_client_beyond_a_limit_gets_53300_with_the_key_and_room_is_made_by_leaving(key: str, message: str) -> None:
    door = Door(**{key: 2})
    first, _ = door.logs_in(), door.logs_in()
    with pytest.raises(LimitError) as caught:
        door.logs_in()
    assert caught.value.sqlstate == "53300"
    assert caught.value.message == message
    assert caught.value.detail == f"{key} is 2."
    assert key in (caught.value.hint or "")
    assert door.refused == {key: 1}
    door.admission.left(first)
    refused = 1
    for _ in range(2):  # the one that was refused has not left: of an address it counts as well
        try:
            door.logs_in()
            break
        except LimitError:
            refused += 1
    assert door.admission.statistics().clients == (1 if key.startswith("max_address") else 2)
    assert door.refused == {key: refused}


def test_users_and_databases_are_counted_apart() -> None:
    door = Door(max_user_client_connections=1, max_database_client_connections=2)
    door.logs_in(user="alice", database="db")
    door.logs_in(user="bob", database="db")
    with pytest.raises(LimitError, match='role "alice"'):
        door.logs_in(user="alice", database="other")
    with pytest.raises(LimitError, match='database "db"'):
        door.logs_in(user="carol", database="db")
    assert door.admission.clients_of(user="alice") == 1
    assert door.admission.clients_of(database="db") == 2
    assert door.admission.clients_of(user="carol") == 0


def test_whoever_was_refused_counts_until_it_has_left_and_only_once() -> None:
    door = Door(max_client_connections=1)
    client = door.logs_in()
    ticket = door.arrives()
    with pytest.raises(LimitError):
        door.admission.begins(ticket)
    assert door.admission.statistics().logins == 1
    for _ in range(2):
        door.admission.left(ticket)
        door.admission.left(client)
    statistics = door.admission.statistics()
    assert (statistics.logins, statistics.clients, statistics.addresses) == (0, 0, 0)


def test_the_last_place_goes_to_one_of_two_that_began_together() -> None:
    door = Door(max_client_connections=1)
    one, other = door.arrives(), door.arrives()
    door.admission.begins(one)
    door.admission.begins(other)
    door.admission.admitted(other, "alice", "db")
    with pytest.raises(LimitError, match="too many clients"):
        door.admission.admitted(one, "alice", "db")


def test_one_login_too_many_ends_the_oldest_of_the_address_that_has_the_most() -> None:
    door = Door(max_logins=4)
    door.arrives("198.51.100.1")
    attackers = [door.arrives("203.0.113.9") for _ in range(3)]
    assert door.ended == []
    door.arrives("198.51.100.2")
    assert door.ended == [1]
    assert attackers[0].refused is not None
    assert attackers[0].refused.sqlstate == "53300"
    assert attackers[0].refused.key == "max_logins"
    assert door.refused == {"max_logins": 1}
    assert door.admission.statistics().logins == 4


def test_an_attacker_ends_only_his_own_logins() -> None:
    door = Door(max_logins=10)
    honest = [door.arrives(f"198.51.100.{at}") for at in range(5)]
    for _ in range(1000):
        door.arrives("203.0.113.9")
    assert set(door.ended).isdisjoint(range(5))
    for ticket in honest:
        door.admission.begins(ticket)
        door.admission.admitted(ticket, "alice", "db")


def test_a_client_that_has_logged_in_is_never_ended_for_another() -> None:
    door = Door(max_logins=1)
    door.logs_in()
    for _ in range(3):
        door.arrives()
    assert door.ended == [1, 2]
    assert door.admission.statistics().clients == 1


def test_a_login_that_was_ended_gets_no_further() -> None:
    door = Door(max_logins=1)
    ended = door.arrives()
    door.arrives()
    for step in (door.admission.begins, lambda ticket: door.admission.admitted(ticket, "alice", "db")):
        with pytest.raises(LimitError, match="too many logins"):
            step(ended)
    assert door.refused == {"max_logins": 1}
    door.admission.left(ended)
    assert door.admission.statistics().logins == 1


def test_a_cancel_request_comes_through_although_everything_is_full() -> None:
    door = Door(max_client_connections=1, max_address_client_connections=1, max_logins=1)
    door.logs_in()
    ticket = door.arrives()  # says what it wants: a cancel request, and so never `begins`
    door.admission.left(ticket)
    assert door.ended == []
    assert door.refused == {}


def test_of_an_address_that_is_full_silent_connections_make_room_for_new_ones() -> None:
    door = Door(max_address_client_connections=2)
    for _ in range(5):
        door.arrives()
    assert door.ended == [0, 1, 2]
    assert door.refused == {"max_address_client_connections": 3}
    door.arrives("192.0.2.2")
    assert door.ended == [0, 1, 2]


def test_logins_under_way_count_for_their_address() -> None:
    door = Door(max_address_client_connections=2)
    for _ in range(2):
        door.admission.begins(door.arrives())
    third = door.arrives()
    assert door.ended == []
    with pytest.raises(LimitError, match='from address "192'):
        door.admission.begins(third)


def test_the_unix_socket_has_no_limit_by_address() -> None:
    door = Door(max_address_client_connections=1)
    for _ in range(5):
        door.logs_in(LOCAL)
    assert door.admission.statistics().clients == 5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(one: str, other: str, *, same: bool) -> None:
    door = Door(max_address_client_connections=1)
    door.logs_in(one)
    if same:
        with pytest.raises(LimitError, match="from address"):
            door.logs_in(other)
    else:
        door.logs_in(other)


def test_limits_can_be_replaced_and_whoever_is_in_stays_in() -> None:
    door = Door(max_client_connections=3)
    for _ in range(3):
        door.logs_in()
    door.admission.limits = ClientLimits(max_client_connections=1)
    assert door.admission.statistics().clients == 3
    with pytest.raises(LimitError, match="too many clients"):
        door.logs_in()


def test_reasons_are_words_of_snake_case_and_counted_by_whoever_refuses() -> None:
    reasons: tuple[Reason, ...] = get_args(Reason)
    assert all(reason.isascii() and reason.replace("_", "").islower() for reason in reasons)
    admission = Admission(ClientLimits())
    for reason in reasons:
        admission.count(reason)
    assert admission.statistics().refused == dict.fromkeys(reasons, 1)
    with pytest.raises(TypeError):
        admission.statistics().refused["max_logins"] = 0  # type: ignore[index]


class Doors(RuleBasedStateMachine):
    """Admission against a list of everybody."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.limits = ClientLimits(
            max_client_connections=5, max_user_client_connections=3, max_database_client_connections=4,
            max_address_client_connections=4, max_logins=6,
        )  # fmt: skip
        self.admission = Admission(self.limits)
        self.logins: list[Ticket] = []
        self.clients: list[Ticket] = []
        self.told: list[Ticket] = []
        self.refusals: Counter[str] = Counter()

    @rule(target=tickets, address=st.sampled_from(["a", "b", "c", LOCAL]))
    def arrive(self, address: str) -> Ticket:
        made: list[Ticket] = []
        before, told = self.logins[:], len(self.told)
        ticket = self.admission.arrived(address, lambda: self.told.append(made[0]))
        made.append(ticket)
        ended = [one for one in before if one.refused is not None]
        self.logins = [one for one in (*before, ticket) if one.refused is None]
        assert ticket.refused is None
        assert len(ended) <= 1
        assert ended == self.told[told:]
        for one in ended:
            assert one.refused is not None
            self.refusals[one.refused.key] += 1
            if one.refused.key == "max_logins":
                self._had_the_most(one, before, address)
            else:
                assert one.address == address
        return ticket

    def _had_the_most(self, ended: Ticket, before: list[Ticket], newcomer: str) -> None:
        counts = Counter([*(one.address for one in before), newcomer])
        assert counts[ended.address] == max(counts.values())
        assert next(one for one in before if one.address == ended.address) is ended

    @rule(ticket=tickets)
    def begin(self, ticket: Ticket) -> None:
        if ticket in self.logins or ticket.refused is not None:
            self._try(partial(self.admission.begins, ticket), ticket)

    @rule(ticket=tickets, user=st.sampled_from(["x", "y"]), database=st.sampled_from(["d", "e"]))
    def admit(self, ticket: Ticket, user: str, database: str) -> None:
        if ticket not in self.logins:
            return
        users = Counter(one.user for one in self.clients)
        databases = Counter(one.database for one in self.clients)
        full = len(self.clients) >= 5 or users[user] >= 3 or databases[database] >= 4
        refused = self._try(partial(self.admission.admitted, ticket, user, database), ticket)
        assert refused == full
        if not refused:
            self.logins.remove(ticket)
            self.clients.append(ticket)

    def _try(self, step: partial[None], ticket: Ticket) -> bool:
        try:
            step()
        except LimitError as error:
            if ticket.refused is None:
                self.refusals[error.key] += 1
            return True
        return False

    @rule(ticket=consumes(tickets))
    def leave(self, ticket: Ticket) -> None:
        for everybody in (self.logins, self.clients):
            if ticket in everybody:
                everybody.remove(ticket)
        self.admission.left(ticket)
        self.admission.left(ticket)

    @invariant()
    def counts_are_those_of_the_list(self) -> None:
        statistics = self.admission.statistics()
        assert statistics.logins == len(self.logins) <= self.limits.max_logins
        assert statistics.clients == len(self.clients) <= self.limits.max_client_connections
        assert statistics.addresses == len({one.address for one in (*self.logins, *self.clients)})
        assert dict(statistics.refused) == dict(self.refusals)

    @invariant()
    def an_address_has_one_connection_too_many_at_most(self) -> None:
        counts = Counter(one.address for one in (*self.logins, *self.clients) if one.address != LOCAL)
        begun = [one for one in self.logins if one._begun]
        assert all(count <= 4 + 1 + len(begun) for count in counts.values())

    @precondition(lambda self: not self.logins and not self.clients)
    @invariant()
    def nothing_is_kept_of_those_who_have_left(self) -> None:
        kept = self.admission
        assert [len(each) for each in (kept._origins, kept._ranks, kept._users, kept._databases)] == [0] * 4
        assert kept._most == 0


TestDoors = Doors.TestCase
TestDoors.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
