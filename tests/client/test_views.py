"""Views of a client: the same client, with other options."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.calls import ONCE, Connect
from support.in_memory import ROUND_TRIP, MemoryTransport, client_of
from support.internals import bound_of, in_flight, session_of
from support.keys import ACCOUNT, KEYS
from support.replies import reply, stall
from support.servers import RawServer
from support.virtual_time import CountingServer, now, virtual
from support.waiting import turns

from dd_sa_tokens import (
    ClientClosedError,
    ConfigurationError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Site,
    TokensClient,
)

pytestmark = pytest.mark.usefixtures("nothing_left")
NAN = float("nan")


def in_memory(limit: int = 1000, **options: Any) -> tuple[TokensClient, MemoryTransport]:
    transport = MemoryTransport(CountingServer(limit))
    return client_of(transport, **options), transport


# What is shared, and what is not


async def test_a_view_shares_the_connections_and_the_counters(server: RawServer, connect: Connect) -> None:
    """Calls of a client, a view and a view of that go over one connection, and are counted together."""
    client = connect()
    view = client.with_options(timeout=5)
    for user in (client, view, view.with_options(concurrency=1)):
        assert (await user.get_token(ACCOUNT, "t1")).id == "t1"
        assert session_of(user) is session_of(client)
    assert server.connections == 1
    assert client.stats.requests == view.stats.requests == 3


async def test_each_given_option_replaces_and_the_rest_stay(server: RawServer, connect: Connect) -> None:
    """A view of a view keeps what it is not given; the client's own calls go on with its own options."""
    client = connect(retry=ONCE)
    patient = client.with_options(retry=RetryPolicy(max_attempts=3, initial_backoff=0))
    hasty = patient.with_options(timeout=0.05)
    server.script(reply(503), reply(503))
    assert (await hasty.with_options().get_token(ACCOUNT, "t1")).id == "t1"
    server.script(stall(), stall(), stall())
    with pytest.raises(RequestTimeoutError, match=r"within 0\.05 s.*3 attempts"):
        await hasty.get_token(ACCOUNT, "t1")
    server.script(reply(503))
    with pytest.raises(ServerError, match="1 attempt"):
        await client.get_token(ACCOUNT, "t1")


async def test_timeouts_end_in_another_order_than_they_began(server: RawServer, connect: Connect) -> None:
    """The attempt that began last, with the shortest timeout, ends first, and each at its own time."""
    server.script(reply(), otherwise=stall())
    client = connect(retry=ONCE)
    await client.get_token(ACCOUNT, "t1")
    loop, ended = asyncio.get_running_loop(), []

    async def call(seconds: float) -> None:
        begun = loop.time()
        with pytest.raises(RequestTimeoutError, match=f"within {seconds:g} s"):
            await client.with_options(timeout=seconds).get_token(ACCOUNT, "t2")
        ended.append((seconds, loop.time() - begun >= seconds))

    # Far enough from each other, as an attempt gets more time if the loop is late.
    await asyncio.gather(call(0.3), call(0.05))
    assert ended == [(0.05, True), (0.3, True)]


@virtual
async def test_the_longest_wait_for_the_rate_limit_is_the_views_own() -> None:
    """An impatient view is refused at once, where its client waits for the next window."""
    client, _ = in_memory(limit=2)
    hasty = client.with_options(retry=RetryPolicy(max_rate_limit_wait=1))
    await client.get_tokens(ACCOUNT, ["a", "b"])
    begun = now()
    with pytest.raises(RateLimitError):
        await hasty.get_token(ACCOUNT, "c")
    assert now() == begun
    await client.get_token(ACCOUNT, "c")
    assert now() > begun + 5


@virtual
async def test_a_view_spends_no_more_than_its_share_of_a_window() -> None:
    """With a reserve of 0.8 two of ten requests go, and the third waits for the next window."""
    client, transport = in_memory(limit=10)
    view = client.with_options(rate_limit_reserve=0.8)
    await view.get_tokens(ACCOUNT, ["a", "b"], strategy="get")
    job = asyncio.create_task(view.get_token(ACCOUNT, "c"))
    await asyncio.sleep(5)
    assert transport.server.spent.total() == 2
    assert (await job).id == "c"


async def test_the_look_at_the_list_ends_with_the_views_timeout(server: RawServer, connect: Connect) -> None:
    """A view with a short timeout gives up the look at a list that does not answer, and gets each token."""
    server.script(stall(), otherwise=reply())
    view = connect().with_options(timeout=0.05)
    async with asyncio.timeout(0.8):  # the client's own timeout would let it take a second
        result = await view.get_tokens(ACCOUNT, [f"t{n}" for n in range(30)])
    assert len(result.tokens) == 30
    assert "page" in server.requests[0].target


# Concurrency


@pytest.mark.parametrize(("given", "most"), [(2, 2), (6, 6), (50, 6)])
@virtual
async def test_a_view_has_no_more_in_flight_than_its_concurrency(given: int, most: int) -> None:
    """All calls of a view together stay within its concurrency, which is no larger than the client's."""
    client, transport = in_memory(concurrency=6)
    view = client.with_options(concurrency=given)
    calls = [view.get_tokens(ACCOUNT, [f"{call}-{n}" for n in range(9)], strategy="get") for call in "ab"]
    results = await asyncio.gather(*calls, *(view.get_token(ACCOUNT, str(n)) for n in range(9)))
    assert len(results[0].tokens) == len(results[1].tokens) == 9  # type: ignore[union-attr] # the bulk results come first
    assert transport.most_in_flight == most


@virtual
async def test_all_views_together_stay_within_the_clients_concurrency() -> None:
    """Three views that may have three in flight each share a client that may have four."""
    client, transport = in_memory(concurrency=4)
    views = [client.with_options(concurrency=3) for _ in range(3)]
    await asyncio.gather(*(view.get_token(ACCOUNT, str(n)) for view in views for n in range(9)))
    assert transport.most_in_flight == 4
    assert [bound_of(view) for view in views] == [0, 0, 0]


@virtual
async def test_a_view_at_its_concurrency_does_not_hold_up_the_client() -> None:
    """While a view's calls wait for each other, a call of the client takes a round trip."""
    client, _ = in_memory(concurrency=4)
    await client.get_token(ACCOUNT, "t1")
    view = client.with_options(concurrency=1)
    job = asyncio.gather(*(view.get_token(ACCOUNT, str(n)) for n in range(9)))
    await turns(3)
    begun = now()
    await client.get_token(ACCOUNT, "web")
    assert now() - begun == pytest.approx(ROUND_TRIP)
    await job
    assert now() - begun == pytest.approx(9 * ROUND_TRIP)


@virtual
async def test_a_view_of_a_view_counts_with_it_unless_it_has_a_concurrency_of_its_own() -> None:
    """Without a `concurrency` a view shares that of the view it comes from; with one, it replaces it."""
    client, transport = in_memory(concurrency=10)
    await client.get_token(ACCOUNT, "t1")
    job = client.with_options(concurrency=2)
    await asyncio.gather(
        *(view.get_token(ACCOUNT, str(n)) for view in (job, job.with_options(timeout=5)) for n in range(9))
    )
    assert transport.most_in_flight == 2
    wide = job.with_options(concurrency=5)
    await asyncio.gather(*(view.get_token(ACCOUNT, str(n)) for view in (job, wide) for n in range(9)))
    assert transport.most_in_flight == 7


# Closing


async def test_closing_a_view_closes_nothing(server: RawServer, connect: Connect) -> None:
    """After `close()` of a view, and after `async with`, the client and the view go on."""
    client = connect()
    view = client.with_options(timeout=5)
    await view.close()
    async with view as entered:
        assert entered is view
        await view.get_token(ACCOUNT, "t1")
    assert (client.closed, view.closed) == (False, False)
    await asyncio.gather(client.get_token(ACCOUNT, "t1"), view.get_token(ACCOUNT, "t1"))
    assert len(server.requests) == 3


async def test_closing_the_client_ends_the_calls_of_its_views(server: RawServer, connect: Connect) -> None:
    """Calls of views under way, waiting or to come raise `ClientClosedError`, also where a view is left afterwards."""
    server.script(otherwise=stall())
    client = connect()
    view = client.with_options(concurrency=1)
    calls = [asyncio.create_task(user.get_token(ACCOUNT, "t1")) for user in (view, view.with_options(timeout=9), view)]
    await server.arrival()
    async with view:
        await client.close()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, ClientClosedError)
    assert (client.closed, view.closed, in_flight(client)) == (True, True, 0)
    with pytest.raises(ClientClosedError):
        await client.with_options().get_token(ACCOUNT, "t1")
    with pytest.raises(ClientClosedError):
        async with view:
            pass


# Bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("timeout", bad) for bad in (0, NAN, None, "5", True)],
        *[("retry", bad) for bad in (None, 3, RetryPolicy)],
        *[("rate_limit_reserve", bad) for bad in (1, -0.1, None, False)],
        *[("concurrency", bad) for bad in (0, 1.5, None, True)],
    ],
)
async def test_an_option_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    """A view takes what the constructor takes, and `None` is not the same as not given."""
    async with TokensClient(**KEYS) as client:
        with pytest.raises(ConfigurationError, match=f"^{name} must be"):
            client.with_options(**{name: value})
        with pytest.raises(TypeError):
            client.with_options(5)  # type: ignore[misc]  # pyright: ignore[reportCallIssue]


# What is shown


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (KEYS, "API and application key"),
        ({"access_token": "ddsat_1234567890"}, "access token"),
        ({"app_key": "ddsat_1234567890"}, "application key"),
    ],
)
async def test_the_repr_says_where_to_with_what_and_whether_it_is_open(keys: dict[str, str], kind: str) -> None:
    """Host, kind of credentials, state, and what a view changes: no key, and no path, which may be a secret."""
    client = TokensClient(**keys, site=Site.EU1)  # type: ignore[arg-type] # all keys are str
    view = client.with_options(timeout=5).with_options(concurrency=2)
    assert repr(client) == f"<TokensClient api.datadoghq.eu, {kind}, open>"
    assert repr(view) == f"<TokensClient api.datadoghq.eu, {kind}, open, view, timeout=5, concurrency=2>"
    await client.close()
    assert repr(client.with_options()) == f"<TokensClient api.datadoghq.eu, {kind}, closed, view>"
    proxied = TokensClient(**keys, base_url="https://proxy.example.com:8443/s3cret")  # type: ignore[arg-type] # all keys are str
    assert repr(proxied) == f"<TokensClient proxy.example.com:8443, {kind}, open>"


def test_a_client_whose_options_were_refused_has_a_repr() -> None:
    """A traceback that shows local variables shows the client, too, before it is made."""
    client = TokensClient.__new__(TokensClient)
    with pytest.raises(ConfigurationError):
        client.__init__(**KEYS, timeout=0)  # type: ignore[misc] # as a subclass might
    assert repr(client) == "<TokensClient>"
