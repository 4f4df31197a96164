"""The rate limiter against servers that count windows, and as a state machine, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.internals import could_pass, waiting_at
from support.virtual_time import GET, LIST, START, CountingServer, enter, make, virtual, wall
from support.waiting import turns

from benchmarks.virtual_loop import EPOCH, VirtualLoop
from dd_sa_tokens import RateLimit
from dd_sa_tokens._clock import Clock
from dd_sa_tokens._ratelimit import Permit, RateLimiter
from dd_sa_tokens.config import ConcurrencyBound


async def run(limiter: RateLimiter, server: CountingServer, count: int, reserve: float = 0.0) -> None:
    """Make so many requests as a client would."""
    todo, latency = deque(range(count)), 0.05

    async def worker() -> None:
        while todo:
            todo.popleft()
            status = 429
            while status == 429:
                permit = await enter(limiter, reserve=reserve)
                await asyncio.sleep(latency / 2)
                answer, status = server.spend()
                await asyncio.sleep(latency / 2)
                limiter.record_response(permit, answer, status)

    await asyncio.gather(*(worker() for _ in range(50)))


@pytest.mark.parametrize("start", [0.0, 0.02, 3.7, 9.99])
@pytest.mark.parametrize(
    ("rounding", "offset", "rejected"),
    [(math.ceil, 0.0, 0), (round, 0.0, 1), (math.floor, 0.0, 1), (math.ceil, 3.37, 1), (math.ceil, -0.4, 1)],
    ids=["rounds up", "rounds", "rounds down", "clock ahead", "clock behind"],
)
@virtual
async def test_a_client_alone_spends_each_window_and_meets_no_429(
    rounding: Callable[[float], float], offset: float, rejected: int, start: float
) -> None:
    """A client alone meets no 429, or one with a server that rounds or dates otherwise, and spends whole windows."""
    await asyncio.sleep(start)
    server = CountingServer(100, 10.0, rounding, offset)
    await run(make(), server, 450)
    assert server.rejected <= rejected
    full = list(server.spent.values())[bool((start + offset) % 10) : -1]  # a window that has begun is not whole
    assert sum(server.spent.values()) == 450
    assert all(spent >= 99 for spent in full)
    end = (list(server.spent)[-1]) * 10.0
    assert wall() + offset - end < 0.5 + 1.0 * (rejected > 0)


@virtual
async def test_a_reserve_is_left_to_the_others() -> None:
    """With a reserve of a quarter, a quarter of each window stays unspent."""
    server = CountingServer(100)
    await run(make(), server, 200, reserve=0.25)
    assert server.rejected == 0
    assert list(server.spent.values()) == [75, 75, 50]


@pytest.mark.parametrize("clients", [2, 3, 4])
@virtual
async def test_clients_that_share_a_limit_seldom_meet_a_429(clients: int) -> None:
    """Two to four clients that do not know of each other meet 429s in under 3% of their requests."""
    server = CountingServer(100)
    await asyncio.gather(*(run(make(), server, 500) for _ in range(clients)))
    total = sum(server.spent.values()) + server.rejected
    assert server.rejected < 0.03 * total


# Anything at all


@attrs.frozen
class Caller:
    """What a call is for, and what its view may do."""

    operation: str
    reserve: float = 0.0
    is_bound: bool = False

    def passes_before(self, later: Caller) -> bool:
        """Return whether this call must pass before one that came later."""
        return (
            self.operation == later.operation
            and self.reserve <= later.reserve
            and (not self.is_bound or later.is_bound)
        )


@attrs.define(eq=False)
class Sent:
    """A request that passed, as the server knows it."""

    caller: Caller
    permit: Permit
    at: float
    answer: tuple[RateLimit, int] | None = None


class LimiterMachine(RuleBasedStateMachine):
    """Calls come, are answered in any order, lost, cancelled, or wait: the server never has to refuse one."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop(START)

    @initialize(concurrency=st.integers(1, 6), limit=st.integers(1, 8), most=st.integers(1, 3))
    def begin(self, concurrency: int, limit: int, most: int) -> None:
        self.concurrency = concurrency
        self.servers = {GET: CountingServer(limit, 5.0), LIST: CountingServer(limit + 3, 10.0)}
        self.limiter = RateLimiter(concurrency, clock=Clock(self.loop.time, lambda: EPOCH - START + self.loop.time()))
        self.bound = ConcurrencyBound(most)
        self.calls: dict[int, asyncio.Task[Any]] = {}
        self.callers: dict[int, Caller] = {}
        self.numbers = itertools.count()
        self.sent: list[Sent] = []
        for operation in self.servers:  # what comes before the limits are known is tested above
            self.come(Caller(operation))
            self.do(functools.partial(self._finish, self.sent.pop()))

    def do(self, action: Callable[[], Any] | None = None, seconds: float = 0.0) -> None:
        async def step() -> None:
            if action is not None:
                result = action()
                if isinstance(result, Awaitable):
                    await result
            await asyncio.sleep(seconds)
            await turns(3)

        self.loop.run_until_complete(step())

    @rule(
        caller=st.builds(
            Caller, st.sampled_from([GET, GET, LIST]), st.sampled_from([0.0, 0.3, 0.6]), is_bound=st.booleans()
        )
    )
    def come(self, caller: Caller) -> None:
        number = next(self.numbers)
        self.callers[number] = caller

        async def call() -> None:
            bound = self.bound if caller.is_bound else None
            permit = await enter(self.limiter, caller.operation, reserve=caller.reserve, bound=bound)
            assert isinstance(permit, Permit)
            del self.calls[number]
            for earlier in (self.callers[other] for other in self.calls if other < number):
                assert not earlier.passes_before(caller), f"{caller} overtakes {earlier}"
            self.sent.append(Sent(caller, permit, self.loop.time()))

        def create() -> None:
            self.calls[number] = self.loop.create_task(call())

        self.do(create)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def reach_the_server(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.sent))
        if request.answer is None:
            self.do(lambda: self._count(request))

    def _count(self, request: Sent) -> None:
        request.answer = self.servers[request.caller.operation].spend()

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.sent))
        self.sent.remove(request)

        def act() -> None:
            if request.answer is None:
                self._count(request)
            assert request.answer is not None
            self.limiter.record_response(request.permit, *request.answer)

        self.do(act)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.sent))
        # A request of an earlier window is no longer taken for spent when it is lost.
        windows = {(EPOCH - 1000 + at) // 5 for at in (request.at, self.loop.time())}
        if request.answer is None or len(windows) == 1:
            self.sent.remove(request)
            leave = self.limiter.cancel if request.answer is None else self.limiter.abandon
            self.do(lambda: leave(request.permit))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.calls)))
        task = self.calls.pop(number)
        self.do(lambda: (task.cancel(), asyncio.wait([task]))[1])
        assert task.cancelled()

    @rule(seconds=st.sampled_from([0.001, 0.1, 0.7, 1.0, 2.5, 5.0, 11.0]))
    def wait(self, seconds: float) -> None:
        # An answer that takes as long as a window says too little about where the window ends: none takes 4 s.
        while seconds > 0:
            self.do(seconds=min(seconds, 1.0))
            seconds -= 1.0
            for request in [request for request in self.sent if self.loop.time() - request.at > 2.5]:
                self.sent.remove(request)
                self.do(functools.partial(self._finish, request))

    @invariant()
    def all_is_well(self) -> None:
        if not hasattr(self, "limiter"):
            return
        assert self.limiter.in_flight == len(self.sent) <= self.concurrency
        assert waiting_at(self.limiter) == len(self.calls)
        assert self.bound.in_flight == sum(request.caller.is_bound for request in self.sent) <= self.bound.most
        assert not could_pass(self.limiter), "a call waits although it may go"
        assert self.loop.timers <= 1
        assert [server.rejected for server in self.servers.values()] == [0, 0]

    def teardown(self) -> None:
        if hasattr(self, "limiter"):
            for _ in range(1000):
                if not self.calls and not self.sent:
                    break
                for request in list(self.sent):
                    self.sent.remove(request)
                    self.do(functools.partial(self._finish, request))
                self.do(seconds=1.0)
            assert not self.calls, "somebody waits for ever"
            self.all_is_well()
        self.loop.close()

    def _finish(self, request: Sent) -> None:
        if request.answer is None:
            self._count(request)
        assert request.answer is not None
        self.limiter.record_response(request.permit, *request.answer)


TestLimiterMachine = LimiterMachine.TestCase
TestLimiterMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, derandomize=True)
