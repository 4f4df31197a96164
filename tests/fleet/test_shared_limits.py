"""Clients that share a limit through a store: the real limiter and the real script, in virtual time."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
import redis
from support.internals import by_headers, unspent
from support.leasing import Fleet, sharing, virtual_store
from support.virtual_time import GET, CountingServer, enter, make, now, rate, virtual
from support.waiting import turns

from benchmarks.virtual_store import VirtualStore
from dd_sa_tokens import RateLimitError
from dd_sa_tokens.fleet import Lease, LeaseRequest


@pytest.mark.parametrize(
    ("clients", "limit", "period", "each"),
    [(1, 100, 4.0, 450), (8, 100, 4.0, 50), (64, 100, 4.0, 5), (24, 20, 4.0, 4)],
)
@virtual
async def test_a_fleet_spends_each_window_without_a_429(
    connection: redis.Redis, clients: int, limit: int, period: float, each: int
) -> None:
    """Clients that share a store spend all but 3% of each full window, meet next to no 429, and end when they can."""
    fleet = Fleet(CountingServer(limit, period))
    store = virtual_store(connection)
    begun = now() + 0.3 * period
    await asyncio.sleep(0.3 * period)
    await asyncio.gather(*(fleet.fetch(sharing(store), each) for _ in range(clients)))
    windows = math.ceil(clients * each / limit) - 1
    least = (begun // period + windows) * period
    assert max(fleet.received) - least < 0.5
    assert fleet.server.rejected <= 0.01 * clients * each
    assert min(fleet.full_windows()) >= 0.97 * limit


@virtual
async def test_a_lone_client_asks_once_for_many_requests(connection: redis.Redis) -> None:
    """While the limit is far, one round trip to the store serves ten requests or more."""
    fleet = Fleet(CountingServer(100_000, 60.0))
    store = virtual_store(connection)
    limiter = sharing(store)

    async def work() -> None:
        for _ in range(40):
            await fleet.send(limiter)

    await asyncio.gather(*(work() for _ in range(50)))
    assert len(store.requests) <= 2000 / 10


@virtual
async def test_strangers_are_left_their_share(connection: redis.Redis) -> None:
    """Eight clients with a store and one without it share a limit with at most 3% of 429s."""
    fleet = Fleet(CountingServer(100, 4.0))
    store = virtual_store(connection)
    await asyncio.sleep(1.0)
    limiters = [*(sharing(store) for _ in range(8)), make()]
    await asyncio.gather(*(fleet.fetch(limiter, 50) for limiter in limiters))
    assert fleet.server.rejected <= 0.03 * 450


@pytest.mark.parametrize("before_the_end", [0.1, 0.2, 0.3])
@virtual
async def test_requests_that_cross_a_windows_end_are_not_forgotten(
    connection: redis.Redis, before_the_end: float
) -> None:
    """What is under way when a window ends may count in the next one, so it is held back there for a moment."""
    fleet = Fleet(CountingServer(100, 4.0), latency=0.06)
    store = virtual_store(connection)
    await asyncio.sleep(4.0 - before_the_end)
    await asyncio.gather(*(fleet.fetch(sharing(store), 25) for _ in range(8)))
    assert fleet.server.rejected <= 1


@pytest.mark.parametrize("offset", [0.43, -0.43])
@virtual
async def test_the_clients_learn_together_that_a_clock_is_off(connection: redis.Redis, offset: float) -> None:
    """Where the server's clock is off, a window that was thought over too early costs the fleet one or two 429s."""
    fleet = Fleet(CountingServer(100, 4.0, clock_offset=offset))
    store = virtual_store(connection)
    await asyncio.sleep(1.0)
    await asyncio.gather(*(fleet.fetch(sharing(store), 60) for _ in range(6)))
    assert fleet.server.rejected <= 2


@virtual
async def test_the_first_request_of_a_window_is_one_clients(connection: redis.Redis) -> None:
    """One client asks what the limit is; the others wait for its answer, though each has its own limiter."""
    fleet = Fleet(CountingServer(100), latency=0.2)
    store = virtual_store(connection)
    sending = [asyncio.ensure_future(fleet.send(sharing(store))) for _ in range(8)]
    await asyncio.sleep(0.15)
    assert fleet.server.spent.total() == 1
    await asyncio.gather(*sending)
    assert now() < 1000.0 + 2.0


@virtual
async def test_a_probe_without_an_answer_holds_the_others_for_a_second(connection: redis.Redis) -> None:
    """When the client that sends the first request dies, the others go on after a second."""
    store = virtual_store(connection)
    dead, alive = sharing(store), sharing(store)
    await enter(dead)
    begun = now()
    await enter(alive)
    assert 0.9 < now() - begun < 1.2


@virtual
async def test_a_client_that_dies_takes_its_last_batch_only(connection: redis.Redis) -> None:
    """What a client had leased when it died is lost for that window, and no more; in the next one all is there."""
    fleet = Fleet(CountingServer(400))
    store = virtual_store(connection)
    dead, alive = sharing(store), sharing(store)
    for _ in range(3):
        await fleet.send(dead)
    lost = unspent(dead)
    dead.close()  # without giving anything back, as if it were killed
    await fleet.fetch(alive, 2 * 400 - 3 - lost)
    assert 0 < lost <= 400 // 8
    assert now() < 1012.0
    assert fleet.server.rejected == 0


@virtual
async def test_unspent_permits_are_given_back(connection: redis.Redis) -> None:
    """What a client has leased and does not use is another's soon, and at once when the client is closed."""
    fleet = Fleet(CountingServer(1000))
    store = virtual_store(connection)
    first, second = sharing(store), sharing(store)
    for _ in range(3):
        await fleet.send(first)
    assert unspent(first)
    await asyncio.sleep(2.0)
    assert not unspent(first)
    await fleet.send(second)
    assert second.rate_limit is not None
    assert second.rate_limit.remaining == 1000 - 4
    second.close()
    await second.return_leases()
    await fleet.send(first)
    assert first.rate_limit is not None
    assert first.rate_limit.remaining == 1000 - 5


@virtual
async def test_calls_with_pauses_between_them_do_not_wait(connection: redis.Redis) -> None:
    """A client that reports to the store while none of its callers waits gets its next permit at once."""
    fleet = Fleet(CountingServer(100))
    limiter = sharing(virtual_store(connection))
    for pause in [0.0, 0.01, 0.1, 0.3, 0.6, 1.2] * 4:
        begun = now()
        await fleet.send(limiter)
        assert now() - begun < 0.05
        await asyncio.sleep(pause)


@pytest.mark.parametrize("end", ["idle", "closed", "dead"])
@virtual
async def test_a_client_that_has_ended_its_requests_holds_no_other_back(connection: redis.Redis, end: str) -> None:
    """Clients that do nothing more cost those after them 2 s at most, also where others spend the limit."""
    fleet = Fleet(CountingServer(1000, 100.0))
    store = virtual_store(connection)
    outsider = make()
    for _ in range(13):
        limiter = sharing(VirtualStore(store.script))
        begun = now()
        await fleet.fetch(limiter, 30)
        assert now() - begun < 2.1
        if end != "idle":
            limiter.close()
        if end == "closed":
            await limiter.return_leases()
        await fleet.fetch(outsider, 30)
        await asyncio.sleep(0.3)
    assert fleet.server.rejected == 0


@pytest.mark.parametrize("how", ["answered", "lost"])
@virtual
async def test_each_request_that_has_ended_is_reported(connection: redis.Redis, how: str) -> None:
    """A client that does nothing more reports soon, whether it has permits to give back or not."""
    fleet = Fleet(CountingServer(1000, 100.0))
    script = virtual_store(connection).script
    await fleet.fetch(sharing(VirtualStore(script)), 1)  # now the store knows the limit
    unspent_before: set[bool] = set()
    for count in range(1, 30):
        store = VirtualStore(script)
        limiter = sharing(store)
        for _ in range(count):
            if how == "answered":
                await fleet.send(limiter)
            else:
                limiter.abandon(await enter(limiter))
        unspent_before.add(unspent(limiter) > 0)
        await asyncio.sleep(1.2)
        assert sum(request.finished for request in store.requests) == count
        assert unspent(limiter) == 0
    assert unspent_before == {True, False}


@pytest.mark.parametrize("fault", ["raises", "is cancelled", "is junk"])
@virtual
async def test_a_store_of_the_users_fails_no_call(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """If the `lease` of another store fails or gives junk, its clients go on, and the log says why."""

    class FaultyStore:
        def check(self) -> None:
            """Be usable always."""

        async def lease(self, _request: LeaseRequest) -> Any:
            if fault == "raises":
                raise OSError
            if fault == "is cancelled":
                raise asyncio.CancelledError
            return {"granted": 1}

    await asyncio.wait_for(Fleet(CountingServer(100)).fetch(sharing(FaultyStore()), 30), 3)
    told = {"raises": "raised OSError", "is cancelled": "raised CancelledError", "is junk": "gave no Lease but dict"}
    assert told[fault] in caplog.text


@virtual
async def test_a_cancelled_request_leaves_its_permit_to_the_next(connection: redis.Redis) -> None:
    """A request that was never sent costs nothing of the shared window."""
    fleet = Fleet(CountingServer(20))
    store = virtual_store(connection)
    limiter = sharing(store)
    await fleet.send(limiter)
    for _ in range(100):
        limiter.cancel(await enter(limiter))
    await fleet.fetch(limiter, 19)
    assert now() < 1002.0  # all of the first window


@virtual
async def test_a_longest_wait_is_kept(connection: redis.Redis) -> None:
    """With the shared window spent by another client, a call with a longest wait is rejected, and told for how long."""
    fleet = Fleet(CountingServer(20))
    store = virtual_store(connection)
    await fleet.fetch(sharing(store), 20)
    limiter = sharing(store)
    begun = now()
    outcome = await enter(limiter, GET, 2.0)
    assert isinstance(outcome, RateLimitError)
    assert outcome.retry_after == pytest.approx(1010.0 - now(), abs=0.1)
    assert now() - begun < 0.1
    with_a_reserve = sharing(store)
    outcome = await with_a_reserve.acquire(GET, 2.0, reserve=0.5)
    assert isinstance(outcome, RateLimitError)
    assert outcome.retry_after == pytest.approx(1010.0 - now(), abs=0.1)  # the next window has room for it
    assert await enter(limiter, GET, 12.0)


@virtual
async def test_a_reserve_is_left_to_the_others(connection: redis.Redis) -> None:
    """Requests with a reserve spend only their part of the shared window, those without it find the rest."""
    fleet = Fleet(CountingServer(20))
    store = virtual_store(connection)
    job, web = sharing(store), sharing(store)
    sending = [asyncio.ensure_future(fleet.send(job, 0.5)) for _ in range(30)]
    await asyncio.sleep(5.0)
    assert fleet.server.spent.total() == 10
    for limiter in (web, job):
        begun = now()
        await fleet.send(limiter)
        assert now() - begun < 0.2
    await asyncio.gather(*sending)
    assert fleet.server.rejected == 0
    assert job.waited > 0


@virtual
async def test_without_a_limit_each_goes_by_itself(connection: redis.Redis) -> None:
    """Answers without rate-limit headers open all limiters; the store is asked once a second."""
    store = virtual_store(connection)
    limiter = sharing(store)
    for _ in range(300):
        permit = await enter(limiter)
        await asyncio.sleep(0.01)
        limiter.record_response(permit, None, 200)
    assert by_headers(limiter)
    assert len(store.requests) < 10


@virtual
async def test_the_rate_limit_shows_what_strangers_have_spent(connection: redis.Redis) -> None:
    """`rate_limit` is the lower count of the store's and the last answer's: the store learns of strangers later."""
    fleet = Fleet(CountingServer(100, 10.0))
    limiter = sharing(virtual_store(connection))
    await fleet.fetch(limiter, 1)
    for _ in range(50):
        fleet.server.spend()
    await fleet.fetch(limiter, 1)
    assert limiter.rate_limit is not None
    assert limiter.rate_limit.remaining == 48


@virtual
async def test_the_headers_are_enough_while_the_store_is_away(connection: redis.Redis) -> None:
    """A store that goes and comes back costs no wait: what was seen in answers is known, and handed to it again."""
    fleet = Fleet(CountingServer(100, 4.0))
    store = virtual_store(connection)
    limiters = [sharing(store) for _ in range(4)]
    sending = asyncio.gather(*(fleet.fetch(limiter, 1000) for limiter in limiters))
    await asyncio.sleep(3.0)
    store.away = True
    await asyncio.sleep(5.0)
    assert all(by_headers(limiter) for limiter in limiters)
    store.away = False
    await asyncio.sleep(4.5)
    assert not any(by_headers(limiter) for limiter in limiters)
    sending.cancel()
    assert fleet.server.rejected <= 8


@pytest.mark.parametrize("part", [0.25, 7 / 12, 11 / 12])
@pytest.mark.parametrize(
    ("clients", "limit", "period", "each"), [(2, 100, 10.0, 300), (3, 40, 2.0, 100), (16, 100, 4.0, 40)]
)
@virtual
async def test_when_the_store_goes_away_no_client_takes_itself_for_alone(
    connection: redis.Redis, clients: int, limit: int, period: float, each: int, part: float
) -> None:
    """In whatever part of a window the store goes away, each client gets at most one 429."""
    fleet = Fleet(CountingServer(limit, period))
    store = virtual_store(connection)
    asyncio.get_running_loop().call_later((1.5 + part) * period, setattr, store, "away", True)
    await asyncio.sleep(0.3 * period)
    await asyncio.gather(*(fleet.fetch(sharing(store), each) for _ in range(clients)))
    assert fleet.server.rejected <= clients


@virtual
async def test_a_pause_holds_all_clients(connection: redis.Redis) -> None:
    """A 429 that does not say when the window ends stops the clients of the other processes, too."""
    fleet = Fleet(CountingServer(1000))
    store = virtual_store(connection)
    first, second = sharing(store), sharing(store)
    await fleet.send(first)
    await fleet.send(second)
    first.record_response(await enter(first), None, 429, pause=1.5)
    await asyncio.sleep(2.0 - 1.5)
    begun = now()
    await fleet.send(sharing(store))
    assert now() - begun > 0.9


@virtual
async def test_a_429_ends_the_use_of_leased_permits(connection: redis.Redis) -> None:
    """When others have spent the window, one 429 is enough: what was leased of it is not sent any more."""
    fleet = Fleet(CountingServer(1000))
    limiter = sharing(virtual_store(connection))
    await fleet.fetch(limiter, 5)
    assert unspent(limiter) > 1
    while fleet.server.spend()[1] != 429:
        pass
    rejected = fleet.server.rejected
    assert await fleet.send(limiter) == 429
    more = [asyncio.ensure_future(fleet.send(limiter)) for _ in range(5)]
    await asyncio.sleep(5.0)
    assert fleet.server.rejected == rejected + 1
    await asyncio.gather(*more)


@virtual
async def test_a_pause_holds_permits_that_were_leased() -> None:
    """What a store grants during a pause is used after it. Any object with the two methods is a store."""

    class PausedStore:
        def check(self) -> None:
            """Be usable always."""

        async def lease(self, request: LeaseRequest) -> Lease:
            window: dict[str, Any] = {"window": 1, "limit": 10, "period": 10.0, "ends_in": 10.0, "left": 9}
            paused_for = max(begun + 2.0 - now(), 0.0)
            return Lease(record=request.record, granted=min(request.wanted, 1), paused_for=paused_for, **window)

    begun = now()
    await enter(sharing(PausedStore()))
    assert 2.0 <= now() - begun < 2.1


@virtual
async def test_no_timer_and_no_task_is_left(connection: redis.Redis) -> None:
    """A closed limiter leaves nothing on the loop."""
    fleet = Fleet(CountingServer(1000))

    limiter = sharing(virtual_store(connection))
    await fleet.send(limiter)
    await fleet.send(limiter)
    limiter.close()
    await limiter.return_leases()
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert asyncio.get_running_loop().timers == 0  # type: ignore[attr-defined] # the virtual loop's own


@virtual
async def test_an_operation_without_a_name_yet_finds_the_others(connection: redis.Redis) -> None:
    """A client that has seen no name spends the window of those that have, once the store knows the name."""
    store = virtual_store(connection)
    first, second = sharing(store), sharing(store)
    named = rate(100, 60, 7)
    named = type(named)(named.limit, named.period, named.remaining, named.reset, "tokens")
    first.record_response(await enter(first), named, 200)
    await asyncio.sleep(0.1)
    permit = await enter(second)
    assert second.rate_limit is not None
    assert (second.rate_limit.limit, second.rate_limit.period) == (100, 10.0)
    second.cancel(permit)
