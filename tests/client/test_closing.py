"""The client's own life: timeouts around its calls, closing amid them, one loop after another, dropping it open."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from support.calls import CALLS, FAST, Connect
from support.cancelling import check_nothing_left, no_abandoned_generator
from support.internals import point_at
from support.keys import ACCOUNT, KEYS, leaks
from support.payloads import rate_limit_headers
from support.replies import Responder, any_answer, head, reply, stall
from support.servers import RawServer
from support.waiting import HANG, turns

from dd_sa_tokens import ClientClosedError, ConfigurationError, DatadogError, RetryPolicy, TokensClient

Call = Callable[[TokensClient, str, str], Coroutine[Any, Any, Any]]

EACH_CALL = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)

# Where a call can be stuck.
PATIENT = RetryPolicy(max_backoff=100.0)
STUCK: dict[str, Responder] = {
    "answer": stall(),
    "headers": stall(b"HTTP/1.1 200 OK\r\nX-Half: "),
    "body": stall(head(200, {"Content-Length": "99"}) + b"{"),
    "rate limit": reply(429, headers=rate_limit_headers(5, 0, 3000, 3600)),
    "retry": reply(503, Retry_After="60"),
}
# A create is not sent again after a 503, so it never waits for that.
STUCK_CALLS = pytest.mark.parametrize(
    ("call", "moment"),
    [
        pytest.param(call, moment, id=f"{name}-{moment}")
        for name, call in CALLS.items()
        for moment in STUCK
        if (name, moment) != ("create", "retry")
    ],
)


async def stuck(server: RawServer, client: TokensClient, call: Call, moment: str) -> asyncio.Task[Any]:
    """Begin a call, and wait until it is stuck."""
    server.script(STUCK[moment])
    task = asyncio.create_task(call(client, ACCOUNT, "t1"))
    await server.arrival()
    await asyncio.sleep(0.01)
    assert not task.done()
    return task


async def run_out(server: RawServer, call: Coroutine[Any, Any, Any]) -> None:
    """Make a call under a timeout that runs out soon after the request has come."""

    async def set_timer() -> None:
        await server.arrival()
        scope.reschedule(asyncio.get_running_loop().time() + 0.01)

    async with asyncio.timeout(None) as scope, asyncio.TaskGroup() as group:
        group.create_task(set_timer())
        await call


@STUCK_CALLS
@pytest.mark.usefixtures("loop_errors")
async def test_a_timeout_around_any_call(server: RawServer, connect: Connect, call: Call, moment: str) -> None:
    """`asyncio.timeout` ends each call at any moment, as a plain `TimeoutError`; no task or generator is left."""
    client = connect(retry=PATIENT)
    server.script(STUCK[moment], otherwise=any_answer())
    with no_abandoned_generator(), pytest.raises(TimeoutError) as caught:
        await run_out(server, call(client, ACCOUNT, "t1"))
    assert not isinstance(caught.value, DatadogError)
    assert asyncio.current_task().cancelling() == 0
    check_nothing_left(client)
    if moment != "rate limit":
        async with asyncio.timeout(HANG):
            await call(client, ACCOUNT, "t1")
        check_nothing_left(client)


@STUCK_CALLS
@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.usefixtures("loop_errors")
async def test_closing_ends_any_call(server: RawServer, call: Call, moment: str, borrowed: bool) -> None:
    """Closing the client ends each call at any moment with `ClientClosedError`; no task or generator is left."""
    async with aiohttp.ClientSession() as session:
        client = TokensClient(base_url=server.url, session=session if borrowed else None, retry=PATIENT, **KEYS)
        with no_abandoned_generator():
            task = await stuck(server, client, call, moment)
            await client.close()
            with pytest.raises(ClientClosedError) as caught:
                await asyncio.wait_for(task, HANG)
        assert caught.value.__context__ is None
        assert task.cancelling() == 0
        check_nothing_left(client)
        assert not session.closed
        with pytest.raises(ClientClosedError):
            await call(client, ACCOUNT, "t1")
    await server.emptied()
    assert len(server.requests) == 1


async def test_closing_ends_many_calls_of_all_kinds(server: RawServer, loop_errors: list[Any]) -> None:
    """With calls of all kinds in flight and waiting, two closes at once end them all; no more is sent."""
    client = TokensClient(base_url=server.url, retry=FAST, concurrency=3, **KEYS)
    await client.get_token(ACCOUNT, "t1")
    server.script(otherwise=stall())
    tasks = [asyncio.create_task(call(client, ACCOUNT, f"t{n}")) for n in range(3) for call in CALLS.values()]
    await server.arrival(4)
    await asyncio.gather(client.close(), client.close())
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), HANG)
    assert {type(outcome) for outcome in outcomes} == {ClientClosedError}
    check_nothing_left(client)
    await server.emptied()
    assert len(server.requests) == 4


# Loops


def use_once(client: TokensClient, server: RawServer, *, close: bool = False) -> None:
    """Use a client under a loop of its own, which is gone afterwards."""

    async def use() -> None:
        await server.start(port=server.port)
        point_at(client, server.url)
        await client.get_token(ACCOUNT, "t1")
        if close:
            await client.close()
        await server.stop()

    asyncio.run(use())


@pytest.fixture
def once() -> TokensClient:
    """A client that was used under a loop that is closed now."""
    client = TokensClient(base_url="http://127.0.0.1:1", retry=FAST, **KEYS)
    use_once(client, RawServer())
    return client


@EACH_CALL
def test_no_call_works_under_a_second_loop(once: TokensClient, call: Call) -> None:
    """Under a second loop each call says what is wrong, nothing stays behind, and the client can still be closed."""

    async def use() -> None:
        with pytest.raises(ConfigurationError, match="another event loop"):
            await call(once, ACCOUNT, "t1")
        check_nothing_left(once)
        await once.close()
        with pytest.raises(ClientClosedError):
            await call(once, ACCOUNT, "t1")

    asyncio.run(use())


def test_find_tokens_under_a_second_loop(once: TokensClient) -> None:
    """`find_tokens`, too, says what is wrong instead of giving it to each ID."""

    async def use() -> None:
        with pytest.raises(ConfigurationError, match="another event loop"):
            await once.find_tokens(["t1", "t2"])
        await once.close()

    asyncio.run(use())


@EACH_CALL
def test_a_client_that_was_closed_says_so_under_any_loop(call: Call) -> None:
    """Closed under the first loop, a client says under a second one that it is closed, not that the loop is wrong."""
    client = TokensClient(base_url="http://127.0.0.1:1", retry=FAST, **KEYS)
    use_once(client, RawServer(), close=True)

    async def use() -> None:
        with pytest.raises(ClientClosedError) as caught:
            await call(client, ACCOUNT, "t1")
        assert caught.value.operation is not None
        await client.close()

    asyncio.run(use())


# Dropped


def complaints_of(drop: Callable[[], None]) -> list[str]:
    """Drop something, and return the warnings and the loop's error reports, in their order."""
    gc.collect()
    said: list[str] = []

    def warned(message: Warning | str, category: type[Warning], *_: object) -> None:
        said.append(f"{category.__name__}: {message}")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: said.append(f"{context['message']}: {context}"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = warned  # a list of warnings would keep what they are about
        drop()
        gc.collect()
    loop.set_exception_handler(None)
    return said


def kinds(said: list[str]) -> list[str]:
    """Return the beginnings of loop_errors, in which no address stands."""
    return [text.split(" <")[0].split(": {")[0] for text in said]


async def test_a_client_that_is_dropped_open(server: RawServer, capfd: pytest.CaptureFixture[str]) -> None:
    """aiohttp warns about the client's session at once, as about any open one: nothing else is printed, and no key."""
    plain = [aiohttp.ClientSession()]
    async with plain[0].get(server.url):
        pass
    clients = [TokensClient(base_url=server.url, retry=FAST, **KEYS)]
    await CALLS["get"](clients[0], ACCOUNT, "t1")
    await CALLS["get_many"](clients[0], ACCOUNT, "t1")

    expected, said = complaints_of(plain.clear), complaints_of(clients.clear)

    assert kinds(said) == kinds(expected)
    assert kinds(said)[0] == "ResourceWarning: Unclosed client session"
    assert leaks("".join(said)) == []
    assert capfd.readouterr() == ("", "")
    await server.emptied()


async def test_a_client_that_was_never_used_is_dropped_silently(capfd: pytest.CaptureFixture[str]) -> None:
    """A client without a session causes no warning, closed or not, even if calls were begun and not awaited."""
    client = [TokensClient(**KEYS)]
    client[0].stream_tokens(ACCOUNT, ["t1"])
    client[0].list_tokens(ACCOUNT)
    closed = [TokensClient(**KEYS)]
    await closed[0].close()
    assert complaints_of(client.clear) == complaints_of(closed.clear) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["stream", "list"])
async def test_breaking_out_and_dropping(
    server: RawServer, connect: Connect, loop_errors: list[Any], kind: str
) -> None:
    """A stream or a list that is left early and dropped cancels what it had under way, and the client works on."""
    client = connect(concurrency=4)
    tokens = [{"id": f"t{number}", "type": "x", "attributes": {}} for number in range(2)]
    page = reply(200, {"data": tokens, "meta": {"page": {"total_filtered_count": 40}}})
    server.script(page if kind == "list" else reply(), otherwise=stall())
    if kind == "list":
        async for token in client.list_tokens(ACCOUNT, page_size=2):
            assert token.id in {"t0", "t1"}
            if token.id == "t1":
                break
    else:
        async for item in client.stream_tokens(ACCOUNT, [f"t{number}" for number in range(40)], strategy="get"):
            assert item.ok
            break
    gc.collect()
    await turns(10)
    check_nothing_left(client)
    server.script(otherwise=any_answer())
    async with asyncio.timeout(HANG):
        await client.get_token(ACCOUNT, "t1")
    check_nothing_left(client)
