"""The script against a model: clients do anything and die at any time, and no window is leased beyond its limit."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.leasing import seen

from benchmarks.redis_server import RedisServer
from benchmarks.virtual_store import Script
from dd_sa_tokens.fleet import LeaseRequest

LIMIT, PERIOD = 20, 10.0
CLIENTS = st.integers(0, 3)


@attrs.define
class Holder:
    """A client: what it holds of the store's window."""

    window: int = 0
    unspent: int = 0
    in_flight: int = 0
    is_prober: bool = False

    def forget(self) -> None:
        self.window = self.unspent = self.in_flight = 0
        self.is_prober = False


class Leasing(RuleBasedStateMachine):
    """Clients that lease, spend, give back and die; a server that counts, and strangers that spend beside them."""

    redis: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.connection = self.redis.connect()
        self.script = Script(self.connection, lambda: self.now)
        self.holders = [Holder() for _ in range(4)]
        self.leased: Counter[int] = Counter()  # by the store's window
        self.spent: Counter[int] = Counter()  # by the server's window
        self.probes: Counter[int] = Counter()
        self.probed_at: dict[int, float] = {}
        self.answered: set[int] = set()

    def teardown(self) -> None:
        self.connection.close()

    def exchange(self, client: int, *, answered: bool | None = None, finished: int = 0, needed: int = 0) -> None:
        """Report for a client, and take what it is given."""
        holder = self.holders[client]
        view = None
        number = int(self.now // PERIOD)
        if answered:
            left = max(LIMIT - self.spent[number], 0)
            view = seen(left, (number + 1) * PERIOD - self.now, LIMIT, PERIOD)
        returned = 0 if needed else holder.unspent
        holder.unspent -= returned
        lease = self.script.lease(
            LeaseRequest(
                scope="s",
                record="r",
                operation="r",
                window=holder.window,
                finished=finished,
                returned=returned,
                needed=needed,
                wanted=2 * needed,
                probe_answered=answered if holder.is_prober else None,
                view=view,
            )
        )
        if holder.is_prober and answered is not None:
            self.answered.add(holder.window)
            holder.is_prober = False
        self.leased[holder.window] -= returned
        if lease.window != holder.window:
            holder.forget()
        holder.window = lease.window
        holder.unspent += lease.granted
        self.leased[lease.window] += lease.granted
        if lease.is_probe:
            holder.is_prober = True
            assert self.now >= self.probed_at.get(lease.window, -1.0) + 1.0 or lease.window in self.answered
            self.probed_at.setdefault(lease.window, self.now)
            self.answered.discard(lease.window)
        assert lease.granted <= 2 * needed
        assert lease.left is None or lease.left >= 0

    @rule(client=CLIENTS, needed=st.integers(1, 10))
    def lease(self, client: int, needed: int) -> None:
        self.exchange(client, needed=needed)

    @rule(client=CLIENTS, count=st.integers(1, 5))
    def send(self, client: int, count: int) -> None:
        holder = self.holders[client]
        sent = min(count, holder.unspent)
        holder.unspent -= sent
        holder.in_flight += sent
        self.spent[int(self.now // PERIOD)] += sent

    @precondition(lambda self: any(holder.in_flight for holder in self.holders))
    @rule(client=CLIENTS, answered=st.booleans())
    def finish(self, client: int, answered: bool) -> None:
        holder = self.holders[client]
        if holder.in_flight:
            holder.in_flight -= 1
            self.exchange(client, answered=answered, finished=1, needed=1)

    @rule(client=CLIENTS)
    def give_back(self, client: int) -> None:
        self.exchange(client)

    @rule(client=CLIENTS)
    def die(self, client: int) -> None:
        """Lose all that a client knew: it is killed, and another one starts in its place."""
        self.holders[client] = Holder()

    @rule(count=st.integers(1, 8))
    def strangers_spend(self, count: int) -> None:
        self.spent[int(self.now // PERIOD)] += count

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.1, 4.0, 10.0, 35.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_window_is_leased_beyond_its_limit(self) -> None:
        assert max(self.leased.values(), default=0) <= LIMIT


def test_no_window_is_leased_beyond_its_limit(shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any actions of clients and strangers, one probe is under way at a time, and no lease exceeds the limit."""
    monkeypatch.setattr(Leasing, "redis", shared_redis, raising=False)
    case = Leasing.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
    case().runTest()
