"""Keys that functions give: when they are asked, once for all calls, and what happens when they give none."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from support.calls import CALLS, ONCE, Connect
from support.internals import look_at_lists_within
from support.keys import ACCESS_TOKEN, ACCOUNT, API_KEY, APP_KEY, leaks, remains
from support.replies import ReceivedRequest, any_answer, later, reply
from support.servers import RawServer

from dd_sa_tokens import (
    ClientClosedError,
    ConfigurationError,
    CreatedToken,
    CredentialsError,
    DeadlineExceededError,
    NotFoundError,
    Secret,
    TokensClient,
    UnauthorizedError,
)
from dd_sa_tokens.testing import FakeDatadog

pytestmark = pytest.mark.usefixtures("nothing_left")

NEW_KEY = "ddsat_canary4newer9aB7cD5eF3gH1iJ8kL6mN4"


class Store:
    """Where a service reads its key from.

    Attributes:
        keys: What it gives, one after the other; the last one for good. An exception is raised.
        asked: How often it was asked.
        gate: What it waits for before it gives anything.
    """

    def __init__(self, *keys: Any) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0

    def read(self) -> Any:
        key = self.keys[min(self.asked, len(self.keys) - 1)]
        self.asked += 1
        if isinstance(key, BaseException):
            raise key
        return key

    async def fetch(self) -> Any:
        key = self.read()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return key


def accept(server: RawServer, *keys: str) -> None:
    """Let a server answer requests that are signed with one of these tokens; others get a 401."""
    answer, refuse = any_answer(), reply(401)

    async def act(request: ReceivedRequest) -> None:
        await (answer if request.headers.get("authorization") in {f"Bearer {key}" for key in keys} else refuse)(request)

    server.script(otherwise=act)


def bearer(connect: Connect, key: Callable[[], Any], **options: Any) -> TokensClient:
    return connect(**{"api_key": None, "app_key": None, "access_token": key} | options)


class _CallableObject:
    async def __call__(self) -> str:
        return ACCESS_TOKEN


async def _async_key() -> Secret:
    return Secret(ACCESS_TOKEN)


def _named(key: str) -> str:
    return key


@pytest.mark.parametrize(
    "function",
    [
        lambda: ACCESS_TOKEN,
        lambda: Secret(ACCESS_TOKEN),
        _async_key,
        functools.partial(_named, ACCESS_TOKEN),
        _CallableObject(),
    ],
    ids=["sync", "Secret", "async", "partial", "object"],
)
async def test_any_function_can_give_the_key(server: RawServer, connect: Connect, function: Callable[[], Any]) -> None:
    """A sync or async function, a partial or a callable object gives the key, as `str` or `Secret`."""
    client = bearer(connect, function)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert server.requests[0].headers["authorization"] == f"Bearer {ACCESS_TOKEN}"


async def test_a_function_can_give_either_key_of_a_pair(server: RawServer, connect: Connect) -> None:
    """Of a key pair, one key may be fixed while a function gives the other; a token may stand for the pair."""
    await connect(api_key=API_KEY, app_key=lambda: APP_KEY).get_token(ACCOUNT, "t1")
    await connect(api_key=None, app_key=lambda: ACCESS_TOKEN).get_token(ACCOUNT, "t1")
    pair, alone = (request.headers for request in server.requests)
    assert (pair["dd-api-key"], pair["dd-application-key"]) == (API_KEY, APP_KEY)
    assert ("dd-api-key" in alone, alone["dd-application-key"]) == (False, ACCESS_TOKEN)


async def test_calls_share_one_asking_before_the_first_request(server: RawServer, connect: Connect) -> None:
    """Calls that begin together ask once, and later calls do not ask again."""
    store = Store(ACCESS_TOKEN)
    client = bearer(connect, store.fetch)
    await asyncio.gather(*(client.get_token(ACCOUNT, f"t{number}") for number in range(20)))
    await client.get_tokens(ACCOUNT, ["a", "b"])
    assert (store.asked, len(server.requests)) == (1, 22)


@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize("call", CALLS)
async def test_a_refused_key_is_asked_for_again(server: RawServer, connect: Connect, call: str, borrowed: bool) -> None:
    """After a 401 each call, a create too, gets its answer with the new key, though it may make one attempt only."""
    accept(server, NEW_KEY)
    store = Store(ACCESS_TOKEN, NEW_KEY)
    async with aiohttp.ClientSession() as session:
        client = bearer(connect, store.read, retry=ONCE, session=session if borrowed else None)
        await CALLS[call](client, ACCOUNT, "t1")
        await client.close()
    assert store.asked == 2
    assert [request.headers["authorization"] for request in server.requests[:2]] == [
        f"Bearer {ACCESS_TOKEN}",
        f"Bearer {NEW_KEY}",
    ]
    assert client.stats.retries == 1


async def test_all_refused_calls_share_one_asking(server: RawServer, connect: Connect) -> None:
    """A bulk fetch whose key ends in the middle asks once more, and every ID is fetched."""
    accept(server, ACCESS_TOKEN)
    store = Store(ACCESS_TOKEN, NEW_KEY)
    client = bearer(connect, store.fetch, concurrency=10)
    await client.get_token(ACCOUNT, "t0")
    accept(server, NEW_KEY)
    result = await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(50)], strategy="get")
    assert (len(result.tokens), store.asked) == (50, 2)
    assert len(server.requests) <= 1 + 50 + 10  # at most those in flight were sent twice


async def test_the_list_is_read_although_the_key_has_ended() -> None:
    """A bulk fetch that finds its key refused still takes the cheaper way: the look at the list is signed anew, too."""
    async with FakeDatadog(tokens=60) as datadog:
        store = Store("ddsat_0123456789", datadog.access_token)
        async with datadog.client(access_token=store.read) as client:
            result = await client.get_tokens(datadog.service_account_id, datadog.token_ids)
        assert (len(result.tokens), store.asked) == (60, 2)
        assert [(each.operation, each.status) for each in datadog.received] == [
            ("list_tokens", 401),
            ("list_tokens", 200),
        ]


async def test_a_401_to_an_older_key_is_sent_again_without_asking(server: RawServer, connect: Connect) -> None:
    """A 401 that comes when there is a newer key already is no reason to ask for keys."""
    store = Store(ACCESS_TOKEN, NEW_KEY)
    client = bearer(connect, store.read)
    await client.get_token(ACCOUNT, "t0")
    released = asyncio.Event()
    server.script(later(released, reply(401)), reply(401))
    late = asyncio.create_task(client.get_token(ACCOUNT, "late"))
    await server.arrival(2)
    await client.get_token(ACCOUNT, "t1")
    released.set()
    assert (await late).id == "late"
    assert store.asked == 2


@pytest.mark.parametrize("others", [[ACCESS_TOKEN], [NEW_KEY]], ids=["same key", "new key refused"])
async def test_a_second_refusal_is_final(server: RawServer, connect: Connect, others: list[str]) -> None:
    """The same key again is not sent again, and a new key that is refused is not replaced; the next call asks anew."""
    accept(server)
    store = Store(ACCESS_TOKEN, *others, "ddsat_0123456789")
    client = bearer(connect, store.read)
    with pytest.raises(UnauthorizedError) as caught:
        await client.get_token(ACCOUNT, "t1")
    assert store.asked == 2
    assert caught.value.attempts == len(server.requests) == (1 if others == [ACCESS_TOKEN] else 2)
    accept(server, "ddsat_0123456789")
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert store.asked == 3


@pytest.mark.parametrize("keys", [[ACCESS_TOKEN], [ACCESS_TOKEN, NEW_KEY]], ids=["same key", "new key refused"])
async def test_a_second_refusal_stops_a_bulk_fetch(server: RawServer, connect: Connect, keys: list[str]) -> None:
    """The second request, with the new key or the same one, confirms the 401: then each other ID gets it."""
    accept(server)
    store = Store(*keys)
    result = await bearer(connect, store.read, concurrency=1).get_tokens(ACCOUNT, ["a", "b", "c"])
    assert [type(item.error) for item in result] == [UnauthorizedError] * 3
    assert (store.asked, len(server.requests)) == (2, 2)


@pytest.mark.parametrize("count", [1, 2, 99])
async def test_refused_calls_do_not_ask_one_after_the_other(count: int) -> None:
    """All calls of a wide bulk fetch share one asking, also if each asking would give another key that is refused."""
    async with FakeDatadog(tokens=200, latency=0.005) as datadog:
        store = Store(*(f"ddsat_refused_{number}" for number in range(count)))
        async with datadog.client(access_token=store.fetch) as client:
            result = await client.get_tokens(datadog.service_account_id, datadog.token_ids, strategy="get")
        assert {type(error) for error in result.errors.values()} == {UnauthorizedError}
        assert len(result.errors) == 200
        assert store.asked == 2
        assert datadog.requests <= 50 + 4


async def test_a_call_that_waited_asks_if_the_key_had_been_accepted(server: RawServer, connect: Connect) -> None:
    """A call that has waited while its key changed, was accepted and ended once more asks for the next one."""
    released = asyncio.Event()
    refuse, answer = reply(401), any_answer()
    server.script(answer, later(released, refuse), refuse, answer, refuse, otherwise=answer)
    store = Store(ACCESS_TOKEN, NEW_KEY, "ddsat_0123456789")
    client = bearer(connect, store.read, concurrency=1)
    await client.get_token(ACCOUNT, "t0")
    tasks = [asyncio.create_task(client.get_token(ACCOUNT, f"t{number}")) for number in (1, 2, 3, 4)]
    await server.arrival(2)
    released.set()
    assert [token.id for token in await asyncio.gather(*tasks)] == ["t1", "t2", "t3", "t4"]
    assert store.asked == 3
    assert server.requests[-1].headers["authorization"] == "Bearer ddsat_0123456789"


async def test_a_single_401_stops_no_bulk_fetch(server: RawServer, connect: Connect) -> None:
    """If the function gives the same key again, one request confirms the 401; if that succeeds, all IDs are fetched."""
    server.script(any_answer(), reply(401), otherwise=any_answer())
    store = Store(ACCESS_TOKEN)
    result = await bearer(connect, store.read, concurrency=1).get_tokens(ACCOUNT, ["a", "b", "c"])
    assert (len(result.tokens), store.asked, len(server.requests)) == (3, 2, 4)


async def test_a_client_survives_the_rotation_of_its_own_token() -> None:
    """A client whose function reads the store goes on working after it has rotated the token that it signs with."""
    async with FakeDatadog(tokens=1) as datadog, datadog.client() as admin:
        account, soon = datadog.service_account_id, datetime.now(UTC) + timedelta(days=30)
        own = await admin.create_token(account, name="own", scopes=["logs_read_data"], expires_at=soon)
        vault = {"key": own.key.reveal()}

        async def store(created: CreatedToken) -> None:
            vault["key"] = created.key.reveal()

        async with datadog.client(access_token=lambda: vault["key"]) as client:
            new = await client.rotate_token(account, own.token.id, store=store, expires_at=soon)
            assert await client.get_token(account, new.id) == new
            newer = await client.rotate_token(account, new.id, store=store, expires_at=soon)
            assert await client.get_token(account, newer.id) == newer
            with pytest.raises(NotFoundError):
                await client.get_token(account, own.token.id)


# A function that gives no key


def _raise_with_key() -> str:
    local = APP_KEY
    message = f"cannot use {local}"
    raise LookupError(message)


async def _give_up() -> str:
    raise asyncio.CancelledError(ACCESS_TOKEN)


async def _nothing() -> None: ...


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"access_token": _raise_with_key},
            r"as access_token raised LookupError at .*test_key_functions\.py:\d+",
        ),
        ({"access_token": _give_up}, "given as access_token raised CancelledError"),
        ({"access_token": lambda: None}, "returned an invalid key: access_token must be a non-empty str"),
        ({"access_token": _nothing}, "returned an invalid key: access_token must be a non-empty str"),
        ({"access_token": ACCESS_TOKEN.encode}, "access_token must be a non-empty str"),
        ({"access_token": lambda: lambda: ACCESS_TOKEN}, "access_token must be a non-empty str"),
        ({"access_token": lambda: f"{ACCESS_TOKEN}\n"}, "access_token must be printable ASCII without whitespace"),
        ({"app_key": lambda: APP_KEY}, "given as app_key .* app_key stands alone only where it is a ddsat_"),
        ({"api_key": API_KEY, "app_key": _raise_with_key}, "given as app_key raised LookupError"),
        ({"api_key": lambda: f"{API_KEY}\n", "app_key": lambda: APP_KEY}, "given as api_key returned an invalid key"),
        ({"api_key": lambda: API_KEY, "app_key": lambda: ""}, "given as app_key returned an invalid key: app_key must"),
    ],
)
async def test_what_gives_no_key_is_an_error_that_shows_none(
    server: RawServer, connect: Connect, keys: dict[str, Any], words: str
) -> None:
    """It names the argument and what is wrong, shows neither the value nor the exception, and nothing is sent."""
    client = connect(**{"api_key": None, "app_key": None} | keys)
    with pytest.raises(CredentialsError, match=words) as caught:
        await client.get_token(ACCOUNT, "t1")
    for where, text in remains(caught.value):
        assert leaks(text) == [], where
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert (caught.value.operation, caught.value.token_id, caught.value.attempts) == ("get_token", "t1", 0)
    assert server.requests == []


async def test_a_function_that_hangs_ends_with_the_timeout(server: RawServer, connect: Connect) -> None:
    """Each call that waits gets an error of its own, the function is cancelled, and the next call asks it again."""
    store = Store(ACCESS_TOKEN)
    store.gate.clear()
    client = bearer(connect, store.fetch, timeout=0.05)
    results = await asyncio.gather(
        *(client.get_token(ACCOUNT, f"t{number}") for number in range(3)), return_exceptions=True
    )
    assert [type(error) for error in results] == [CredentialsError] * 3
    assert len({id(error) for error in results}) == 3
    assert "given as access_token took longer than 0.05 s" in str(results[0])
    assert (store.asked, store.cancelled) == (1, 1)
    store.gate.set()
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert store.asked == 2


async def test_the_look_at_a_list_does_not_shorten_the_asking(
    server: RawServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that takes longer than the time for the look at a list is asked once all the same."""
    look_at_lists_within(monkeypatch, 0.02)
    store = Store(ACCESS_TOKEN)
    store.gate.clear()
    client = bearer(connect, store.fetch, timeout=5)
    task = asyncio.create_task(client.get_tokens(ACCOUNT, [f"t{number}" for number in range(20)]))
    await asyncio.sleep(0.05)
    store.gate.set()
    assert len((await task).errors) == 0
    assert (store.asked, store.cancelled) == (1, 0)


@pytest.mark.parametrize("failure", [ZeroDivisionError(), f"{NEW_KEY} "], ids=["raises", "no key"])
async def test_a_bulk_fetch_keeps_what_has_come(server: RawServer, connect: Connect, failure: Any) -> None:
    """If the function fails when it is asked again, the fetched IDs stay, and each other ID gets that error."""
    server.script(*[any_answer()] * 5, otherwise=reply(401))
    store = Store(ACCESS_TOKEN, failure)
    client = bearer(connect, store.read, concurrency=1)
    result = await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(9)])
    assert [item.ok for item in result] == [True] * 5 + [False] * 4
    assert {type(error) for error in result.errors.values()} == {CredentialsError}
    assert {error.token_id for error in result.errors.values()} == {"t5", "t6", "t7", "t8"}
    assert len(server.requests) == 6


async def test_a_stream_ends_with_the_error(server: RawServer, connect: Connect) -> None:
    """A stream answers the positions that it has taken, and then raises the error."""
    server.script(any_answer(), otherwise=reply(401))
    client = bearer(connect, Store(ACCESS_TOKEN, ZeroDivisionError()).read, concurrency=1)
    async with aclosing(client.stream_tokens(ACCOUNT, iter(["t1", "t2", "t3"]))) as items:
        assert (await anext(items)).unwrap().id == "t1"
        assert isinstance((await anext(items)).error, CredentialsError)
        with pytest.raises(CredentialsError):
            await anext(items)


# The end of the waiting


async def test_a_cancelled_call_leaves_the_others_waiting(server: RawServer, connect: Connect) -> None:
    """The call that made the client ask may be cancelled: the function goes on, and the other calls get its key."""
    store = Store(ACCESS_TOKEN)
    store.gate.clear()
    client = bearer(connect, store.fetch)
    first, second = (asyncio.create_task(client.get_token(ACCOUNT, token_id)) for token_id in ("t1", "t2"))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait([first])
    store.gate.set()
    assert (await second).id == "t2"
    assert first.cancelled()
    assert (store.asked, store.cancelled) == (1, 0)


@pytest.mark.parametrize("close", [False, True])
async def test_nothing_goes_on_when_no_call_waits(server: RawServer, connect: Connect, close: bool) -> None:
    """When all calls were cancelled, or the client was closed, the function is cancelled and no task is left."""
    store = Store(ACCESS_TOKEN)
    store.gate.clear()
    client = bearer(connect, store.fetch)
    tasks = [asyncio.create_task(client.get_token(ACCOUNT, f"t{number}")) for number in range(3)]
    await asyncio.sleep(0.01)
    if close:
        await client.close()
    else:
        for task in tasks:
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {ClientClosedError if close else asyncio.CancelledError}
    assert (store.asked, store.cancelled) == (1, 1)
    assert server.requests == []


async def test_a_deadline_ends_the_waiting(server: RawServer, connect: Connect) -> None:
    """A bulk fetch whose deadline passes while it waits for its key cancels the function, and sends nothing."""
    store = Store(ACCESS_TOKEN)
    store.gate.clear()
    ids = [f"t{number}" for number in range(25)]
    result = await bearer(connect, store.fetch).get_tokens(ACCOUNT, ids, deadline=0.02)
    assert [type(item.error) for item in result] == [DeadlineExceededError] * 25
    assert (store.asked, store.cancelled) == (1, 1)
    assert server.requests == []


# Secrets


async def test_old_and_new_keys_are_masked(
    server: RawServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that quotes the key before, or the one in use, shows neither in the error, its frames or the log."""
    caplog.set_level("DEBUG")
    quote = reply(404, {"errors": [f"no {ACCESS_TOKEN} or {NEW_KEY}"]}, {"X-Request-Id": ACCESS_TOKEN})
    server.script(reply(401, {"errors": [ACCESS_TOKEN]}), otherwise=quote)
    client = bearer(connect, functools.partial(Store(ACCESS_TOKEN, NEW_KEY).read))
    with pytest.raises(NotFoundError) as caught:
        await client.get_token(ACCOUNT, "t1")
    assert caught.value.errors == ("no ********** or **********",)
    texts = dict(remains(caught.value)) | {"log": caplog.text, "client": f"{client!r} {vars(client)}"}
    for where, text in texts.items():
        assert leaks(text, NEW_KEY) == [], where


async def test_the_last_eight_keys_are_masked(server: RawServer, connect: Connect) -> None:
    """After many changes the last eight keys are still masked, and the ones before that are forgotten."""
    keys = [f"ddsat_key_number_{number}" for number in range(10)]
    accept(server)
    client = bearer(connect, Store(*keys).read)
    for _ in range(9):
        with pytest.raises(UnauthorizedError):
            await client.get_token(ACCOUNT, "t1")
    server.script(otherwise=reply(404, {"errors": [" ".join(keys)]}))
    with pytest.raises(NotFoundError) as caught:
        await client.get_token(ACCOUNT, "t1")
    assert caught.value.errors == (" ".join([*keys[:2], *["**********"] * 8]),)


async def test_the_client_s_repr_says_that_a_function_gives_the_key(connect: Connect) -> None:
    """The repr has the kind of the credentials, and neither the function nor a key."""
    client = bearer(connect, functools.partial(_named, ACCESS_TOKEN))
    assert "access token from a function" in repr(client)
    assert leaks(repr(client)) == []


# Refused at once


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"access_token": lambda _: ACCESS_TOKEN}, "the function given as access_token must take no arguments"),
        ({"access_token": lambda: "a", "api_key": API_KEY}, "give either access_token, or api_key with app_key"),
        ({"api_key": lambda: API_KEY}, "app_key is missing"),
        ({"api_key": lambda: API_KEY, "app_key": f"{APP_KEY}\n"}, "app_key must be printable ASCII"),
        ({"access_token": 5}, "access_token must be a non-empty str, or a function that gives one"),
    ],
)
def test_bad_functions_are_refused(keys: dict[str, Any], words: str) -> None:
    """A function that takes arguments, half a pair, or both forms are refused when the client is made."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        TokensClient(**keys)
    assert leaks(str(caught.value)) == []
