"""Rotations that are cancelled at each step: what holds then, and what the caller learns."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import aiohttp
import pytest
from support.calls import Connect
from support.cancelling import Ending, cancelled_at, check_nothing_left, how_it_ended
from support.internals import set_latency, undo_within
from support.keys import ACCOUNT
from support.payloads import resource
from support.replies import later, reply
from support.rotations import (
    LONG_AFTER,
    NAME,
    QUICK,
    SCENARIOS,
    Vault,
    cancelled,
    check_no_secret,
    connect,
    notes,
    warnings,
)
from support.scripted import ScriptedDatadog
from support.servers import RawServer
from support.waiting import HANG, turns, until

from dd_sa_tokens import (
    CreatedToken,
    DatadogError,
    RetryPolicy,
    RotationError,
    TokensClient,
)

pytestmark = pytest.mark.usefixtures("loop_errors")


def check_what_holds(vault: Vault, ending: Ending, log: pytest.LogCaptureFixture) -> None:
    """See that a working token is stored, and that each other living token is reported."""
    live, error = vault.live, ending.error
    assert any(vault.datadog.works(token_id) and vault.kept.get(token_id) for token_id in live)
    if error is None:
        assert live == {ending.value.id}
        vault.check_replaced()
        return
    if not isinstance(error, RotationError | asyncio.CancelledError):
        assert isinstance(error, DatadogError)
        vault.check_unchanged()
        return
    said = [str(error)] if isinstance(error, RotationError) else [notes(error), warnings(log)]
    known = [*live] if vault.old.id in live else []
    if len(live) > 1:
        for text in said:
            lost = [token_id for token_id in known if token_id not in text]
            # A token of a lost answer has no ID that we could know: its name and age identify it.
            assert not lost or (lost == [*live - {vault.old.id}] and f"or later and named {NAME!r}" in text)
    elif live != {vault.old.id}:
        assert next(iter(live)) in said[0]
    elif isinstance(error, asyncio.CancelledError):
        assert bool(notes(error)) == bool(warnings(log))


async def cancel_everywhere(
    log: pytest.LogCaptureFixture, scenario: dict[str, Any], again: tuple[int, ...] = ()
) -> int:
    """Cancel a rotation at each of its suspensions in turn, and look at what is left; return how many there are."""
    for at in itertools.count(1):
        async with ScriptedDatadog(tokens=3, latency=scenario.get("latency", 0.0)) as datadog:
            async with connect(datadog) as setup:
                vault = await Vault.with_a_token(datadog, setup)
            vault.error, vault.pauses = scenario.get("error"), scenario.get("pauses", 0)
            for method in ("GET", "POST", "DELETE"):
                for fault in scenario.get(method, ()):
                    datadog.fail(method, **fault)
            log.clear()
            async with connect(datadog, retry=scenario.get("retry", QUICK)) as client:
                ending = await cancelled_at(vault.rotate(client), at, *(at + more for more in again))
                check_nothing_left(client)
                check_what_holds(vault, ending, log)
                check_no_secret(ending.error, log, client, datadog)
                datadog.calm_down()
                token_id = datadog.token_ids[0]
                assert (await client.get_token(datadog.service_account_id, token_id)).id == token_id
                check_nothing_left(client)
        if ending.suspended < at:
            assert not isinstance(ending.error, asyncio.CancelledError)
            return at
    raise AssertionError


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_it_can_be_cancelled_wherever_it_is_suspended(log: pytest.LogCaptureFixture, scenario: str) -> None:
    """With each fault, and cancelled at each suspension point, a working token is stored and nothing is
    left unreported, no task, connection or place stays taken, and no secret shows.
    """
    assert await cancel_everywhere(log, SCENARIOS[scenario]) > 5


@pytest.mark.parametrize("again", [(1,), (2, 4), (1, 2, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("scenario", ["plain", "429s", "503s", "create lost", "store raises", "undo fails"])
async def test_it_can_be_cancelled_again_while_it_undoes(
    log: pytest.LogCaptureFixture, scenario: str, again: tuple[int, ...]
) -> None:
    """The same holds where the cancellation is repeated while the first one is still being dealt with."""
    assert await cancel_everywhere(log, SCENARIOS[scenario], again) > 5


async def test_it_can_be_cancelled_at_any_turn_of_the_loop(log: pytest.LogCaptureFixture) -> None:
    """The same holds between suspensions: cancelled after each number of turns of the loop until it is done."""
    after = 0
    while True:
        async with ScriptedDatadog(tokens=3) as datadog, connect(datadog) as client:
            vault = await Vault.with_a_token(datadog, client)
            log.clear()
            task = asyncio.ensure_future(vault.rotate(client))
            await turns(after)
            finished = task.done()
            task.cancel()
            value, error = await how_it_ended(task)
            assert finished != isinstance(error, asyncio.CancelledError)
            check_nothing_left(client)
            check_what_holds(vault, Ending(value, error, 0), log)
        if finished:
            break
        after += 1
    assert after > 15


async def test_a_create_in_flight_is_waited_for_and_undone(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """A cancelled rotation waits for the answer to its create, and revokes the token that it brings."""
    datadog.fail("POST", stall=0.1)
    task = asyncio.ensure_future(vault.rotate(client))
    await until(lambda: len(vault.live) == 2)
    error = await cancelled(task)
    assert datadog.asked == ["GET", "POST", "DELETE"]
    assert notes(error).startswith("the rotation was rolled back: it was cancelled. Now the new token is revoked, ")
    assert warnings(log) == notes(error)
    assert vault.handed == []
    vault.check_unchanged()


async def test_a_create_in_flight_is_waited_for_until_its_timeout(
    datadog: ScriptedDatadog, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """It waits no longer than one attempt may take, and says then how to look for the new token."""
    datadog.fail("POST", stall=60.0)
    async with connect(datadog, timeout=0.1) as client:
        task = asyncio.ensure_future(vault.rotate(client))
        await until(lambda: len(vault.live) == 2)
        error = await cancelled(task)
    assert "there may be a new one whose secret is lost" in notes(error)
    assert f"or later and named {NAME!r}" in notes(error)
    assert warnings(log) == notes(error)
    assert datadog.works(vault.old.id)


async def test_a_create_that_waits_for_the_rate_limit_ends_at_once(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """A create that waits for the next window, an hour long, was not carried out: there is nothing to wait for."""
    datadog.fail("POST", **LONG_AFTER)
    task = asyncio.ensure_future(vault.rotate(client))
    await until(lambda: datadog.rejected)
    await asyncio.sleep(0.01)
    begun = asyncio.get_running_loop().time()
    error = await cancelled(task)
    assert asyncio.get_running_loop().time() - begun < 5
    assert datadog.asked == ["GET", "POST"]
    assert (notes(error), warnings(log)) == ("", "")
    check_nothing_left(client)
    vault.check_unchanged()


class Unreachable(aiohttp.TCPConnector):
    """Makes no connection for a create."""

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> Any:
        if req.method == "POST":
            raise aiohttp.ClientConnectorError(req.connection_key, OSError("no route to host"))
        return await super().connect(req, *args, **options)


async def test_a_create_between_two_tries_ends_at_once(
    datadog: ScriptedDatadog, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """A create that no connection could be made for, and that waits for its next try, was not carried out either."""
    async with aiohttp.ClientSession(connector=Unreachable()) as session:
        retry = RetryPolicy(initial_backoff=1e6, max_backoff=1e6)
        async with connect(datadog, session=session, retry=retry) as client:
            task = asyncio.ensure_future(vault.rotate(client))
            await until(lambda: "; attempt 2 in" in log.text)
            error = await cancelled(task)
            check_nothing_left(client)
    assert datadog.asked == ["GET"]
    assert (notes(error), warnings(log)) == ("", "")
    vault.check_unchanged()


@pytest.mark.parametrize("again", [False, True])
async def test_undoing_does_not_take_for_ever(
    monkeypatch: pytest.MonkeyPatch,
    datadog: ScriptedDatadog,
    client: TokensClient,
    vault: Vault,
    log: pytest.LogCaptureFixture,
    again: bool,
) -> None:
    """Undoing that would wait for the rate limit is given up after a while, or at a second cancellation; the
    token that lives then is named.
    """
    undo_within(monkeypatch, 60.0 if again else 0.05)
    datadog.fail("POST", stall=0.05)
    datadog.fail("DELETE", **LONG_AFTER)
    task = asyncio.ensure_future(vault.rotate(client))
    await until(lambda: len(vault.live) == 2)
    task.cancel()
    await until(lambda: datadog.rejected)
    if again:
        task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        async with asyncio.timeout(HANG):
            await task
    check_nothing_left(client)
    (new_id,) = vault.live - {vault.old.id}
    assert "the new one works, and is still to be revoked" in notes(caught.value)
    assert new_id in notes(caught.value)
    assert vault.old.id in notes(caught.value)
    assert warnings(log) == notes(caught.value)


async def test_undoing_may_wait_for_the_limiter(datadog: ScriptedDatadog, client: TokensClient, vault: Vault) -> None:
    """A cancelled rotation waits for a rate limit that ends soon, and revokes the token that it had made."""
    datadog.fail("POST", stall=0.05)
    datadog.fail("DELETE", status=429, headers={"Retry-After": "0.2"})
    task = asyncio.ensure_future(vault.rotate(client))
    await until(lambda: len(vault.live) == 2)
    assert "the new token is revoked" in notes(await cancelled(task))
    vault.check_unchanged()


async def test_undoing_that_is_under_way_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, datadog: ScriptedDatadog, client: TokensClient, vault: Vault
) -> None:
    """When the time for undoing is up, a revoke that is in flight still gets its answer."""
    undo_within(monkeypatch, 0.02)
    datadog.fail("POST", stall=0.05)
    datadog.fail("DELETE", stall=0.1)
    task = asyncio.ensure_future(vault.rotate(client))
    await until(lambda: len(vault.live) == 2)
    assert "the new token is revoked" in notes(await cancelled(task))
    vault.check_unchanged()


UNREADABLE = reply(201, {"data": resource("new")})  # without its key


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_cancelled_where_the_secret_cannot_be_read(server: RawServer, connect: Connect, method: str) -> None:
    """Whether it is cancelled while the new token is made or while that is undone, it ends as cancelled, and undone."""
    answer = asyncio.Event()
    acts = {"GET": reply(), "POST": UNREADABLE, "DELETE": reply(204)}
    server.script(*(acts | {method: later(answer, acts[method])}).values())
    task = asyncio.ensure_future(connect().rotate_token(ACCOUNT, "old", store=lambda _: asyncio.sleep(0)))
    await server.arrival(list(acts).index(method) + 1)
    asyncio.get_running_loop().call_later(0.01, answer.set)
    assert "Now the new token is revoked, and the old one works" in notes(await cancelled(task))
    assert [request.line.split(" ")[0] for request in server.requests] == list(acts)


@pytest.mark.parametrize("cancel", [False, True])
async def test_only_a_cancelled_rotation_is_in_a_hurry_to_undo(
    monkeypatch: pytest.MonkeyPatch, server: RawServer, connect: Connect, cancel: bool
) -> None:
    """A new token whose secret cannot be read is revoked once the rate limit allows it, unless the call is cancelled:
    then it waits no longer than a while, and the token is named.
    """
    undo_within(monkeypatch, 0.02)
    answer = asyncio.Event()
    pause = reply(429, Retry_After="30" if cancel else "0.2")
    server.script(reply(), later(answer, UNREADABLE), pause, reply(204))
    task = asyncio.ensure_future(connect().rotate_token(ACCOUNT, "old", store=lambda _: asyncio.sleep(0)))
    await server.arrival(2)
    asyncio.get_running_loop().call_later(0.01, answer.set)
    if cancel:
        assert "the new one works, and is still to be revoked" in notes(await cancelled(task))
    else:
        _, error = await how_it_ended(task)
        assert isinstance(error, RotationError)
        assert error.new_works is False


async def test_cancelled_in_store(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """Where `store` itself is cancelled, the secret may be stored: both tokens stay, and both are named."""
    reached = asyncio.Event()

    async def store(created: CreatedToken) -> None:
        await vault.store(created)
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(vault.rotate(client, store=store))
    await reached.wait()
    error = await cancelled(task)
    assert "while the new token was being stored. Now the old token works, and the new one works:" in notes(error)
    assert "outcome unknown" not in notes(error)
    assert vault.new_id in notes(error)
    assert vault.old.id in notes(error)
    assert warnings(log) == notes(error)
    assert datadog.asked == ["GET", "POST"]
    assert vault.live == {vault.old.id, vault.new_id}


async def test_store_waits_for_something_that_is_cancelled(
    client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """What `store` waited for was cancelled, and not the rotation: then `store` has failed like in any other way."""

    async def store(created: CreatedToken) -> None:
        vault.handed.append(created)
        forever = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(forever.cancel)
        await forever

    with pytest.raises(RotationError, match=r"store raised CancelledError\. Now the new token is revoked") as caught:
        await vault.rotate(client, store=store)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert warnings(log) == ""
    assert vault.live == {vault.old.id}


@pytest.mark.parametrize("fault", [LONG_AFTER, {"status": 503, "headers": {"Retry-After": "9"}}], ids=str)
async def test_the_last_step_is_cancelled_while_it_waits(
    datadog: ScriptedDatadog, vault: Vault, log: pytest.LogCaptureFixture, fault: dict[str, Any]
) -> None:
    """A revoke that waits for the rate limit or a retry is given up at once; the note has the old token."""
    datadog.fail("DELETE", **fault)
    async with connect(datadog, retry=RetryPolicy()) as client:
        task = asyncio.ensure_future(vault.rotate(client))
        await until(lambda: "attempt 2" in log.text)
        begun = asyncio.get_running_loop().time()
        error = await cancelled(task)
        assert asyncio.get_running_loop().time() - begun < 5
        check_nothing_left(client)
    old = "works" if fault is LONG_AFTER else "may work"
    assert f"the new token works and is stored; the old one {old}, and is still to be revoked" in notes(error)
    assert ("get_token shows" in notes(error)) == (fault is not LONG_AFTER)
    assert vault.new_id in notes(error)
    assert warnings(log) == notes(error)
    assert vault.live == {vault.old.id, vault.new_id} == vault.kept.keys()


async def test_it_is_cancelled_when_store_is_just_done(client: TokensClient, vault: Vault) -> None:
    """A cancellation that `store` itself asked for before it returned comes too late for that step: the last one is
    seen through.
    """

    async def store(created: CreatedToken) -> None:
        await vault.store(created)
        asyncio.current_task().cancel()

    _, error = await how_it_ended(asyncio.ensure_future(vault.rotate(client, store=store)))
    assert isinstance(error, asyncio.CancelledError)
    assert "the rotation was complete" in notes(error)
    vault.check_replaced()


@pytest.mark.parametrize("fault", [{}, {"status": 503}, {"drop": True}], ids=str)
async def test_the_last_step_is_cancelled_in_flight(
    datadog: ScriptedDatadog, vault: Vault, log: pytest.LogCaptureFixture, fault: dict[str, Any]
) -> None:
    """A revoke in flight is waited for. If it succeeds, the note says that the rotation is complete, and nothing is
    logged. If it fails, it is not repeated, and the note and the log say what is still to be done.
    """
    datadog.fail("DELETE", **fault)
    async with connect(datadog, retry=RetryPolicy(initial_backoff=0.0)) as client:
        await client.get_token(datadog.service_account_id, vault.old.id)
        set_latency(datadog, 0.02)
        datadog.asked.clear()
        task = asyncio.ensure_future(vault.rotate(client))
        await until(lambda: "DELETE" in datadog.asked)
        error = await cancelled(task)
        check_nothing_left(client)
    assert datadog.asked.count("DELETE") == 1
    if fault:
        assert "still to be revoked" in notes(error)
        assert "still to be revoked" in warnings(log)
        assert vault.kept[vault.new_id]
        return
    assert f"the rotation was complete: {vault.new_id} has replaced {vault.old.id}" in notes(error)
    assert warnings(log) == ""
    vault.check_replaced()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_timeout_around_it(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture, method: str
) -> None:
    """`asyncio.timeout` ends a rotation as a `TimeoutError`, whose cause has the note; nothing stays pending."""
    datadog.fail(method, stall=0.2)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.1):
            await vault.rotate(client)
    assert not isinstance(caught.value, DatadogError)
    assert asyncio.current_task().cancelling() == 0
    said = {"GET": "", "POST": "the new token is revoked", "DELETE": "the rotation was complete"}[method]
    assert said in notes(caught.value.__cause__)
    assert bool(notes(caught.value.__cause__)) == (method != "GET")
    check_nothing_left(client)
    check_what_holds(vault, Ending(None, caught.value.__cause__, 0), log)


async def test_a_failing_sibling_ends_it(datadog: ScriptedDatadog, client: TokensClient, vault: Vault) -> None:
    """In a task group, another task's failure cancels a rotation, which undoes before the group ends."""
    datadog.fail("POST", stall=0.05)

    async def fail() -> None:
        await until(lambda: len(vault.live) == 2)
        raise LookupError

    async def run() -> None:
        async with asyncio.timeout(HANG), asyncio.TaskGroup() as group:
            group.create_task(fail())
            await vault.rotate(client)

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    vault.check_unchanged()


class Elsewhere:
    """A fake that runs in a thread, on a loop that outlives the client's."""

    def __init__(self) -> None:
        self.datadog = ScriptedDatadog(tokens=3)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> ScriptedDatadog:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.datadog.__aenter__(), self._loop).result(HANG)
        return self.datadog

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.datadog.__aexit__(), self._loop).result(HANG)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(HANG)
        self._loop.close()


@pytest.mark.parametrize("moment", ["POST", "store", "DELETE"])
def test_the_loop_ends_under_it(log: pytest.LogCaptureFixture, moment: str) -> None:
    """Where `asyncio.run` cancels all tasks, those of the rotation included, what is left is in the log."""
    with Elsewhere() as datadog:

        async def rotate(vault: Vault) -> None:
            async with connect(datadog) as client:
                await vault.rotate(client)

        async def main() -> tuple[Vault, asyncio.Task[None]]:
            async with connect(datadog) as client:
                vault = await Vault.with_a_token(datadog, client)
            log.clear()
            if moment == "store":
                vault.pauses = 1_000_000
            else:
                datadog.fail(moment, stall=60.0)
            task = asyncio.create_task(rotate(vault))
            await until(
                lambda: len(vault.live) == (1 if moment == "DELETE" else 2) and moment in [*datadog.asked, "store"]
            )
            await until(lambda: moment != "store" or vault.handed)
            return vault, task

        vault, task = asyncio.run(main())
        assert task.cancelled()
        said = warnings(log)
        assert vault.old.id in said
        assert "there may be a new one" in said if moment == "POST" else vault.new_id in said
        assert f"or later and named {NAME!r}" in said or moment != "POST"
        assert any(datadog.works(token_id) for token_id in vault.kept)
