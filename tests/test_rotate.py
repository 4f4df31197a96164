"""Rotations over real sockets: the order of the steps, and what holds wherever one of them fails or is cancelled."""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
import attrs
import pytest
from support.calls import Connect
from support.cancelling import HANG, Ending, cancelled_at, check_nothing_left, how_it_ended, turns, until
from support.internals import is_open, parts, set_latency, undo_within
from support.keys import ACCOUNT, leaks, remains
from support.payloads import resource
from support.replies import later, reply
from support.scripted import ScriptedDatadog
from support.servers import RawServer

from dd_sa_tokens import (
    AccessToken,
    APIError,
    BadRequestError,
    ClientClosedError,
    ConflictError,
    CreatedToken,
    DatadogError,
    ForbiddenError,
    InvalidArgumentError,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    RotationError,
    ServerError,
    TokensClient,
    UnauthorizedError,
)
from dd_sa_tokens._rotate import successor_expiry

pytestmark = pytest.mark.usefixtures("complaints")

QUICK = RetryPolicy(max_attempts=3, initial_backoff=0.004, max_backoff=0.004)
NAME, SCOPES = "ci deploys", ("dashboards_read", "logs_read_data")
DAY = timedelta(days=1)
LIFE = 90 * DAY
SOON = timedelta(seconds=10)
LATER = {"status": 429, "headers": {"Retry-After": "0.01"}}
LONG_AFTER = {"status": 429, "headers": {"X-RateLimit-Reset": "3000"}}


@pytest.fixture
async def datadog() -> AsyncIterator[ScriptedDatadog]:
    """A Datadog with three tokens that nobody touches."""
    async with ScriptedDatadog(tokens=3) as datadog:
        yield datadog


@pytest.fixture
async def client(datadog: ScriptedDatadog) -> AsyncIterator[TokensClient]:
    """A client with keys of its own, that leaves nothing behind."""
    async with connect(datadog) as client:
        yield client
        if is_open(client):
            check_nothing_left(client)


@pytest.fixture
async def vault(datadog: ScriptedDatadog, client: TokensClient) -> Vault:
    """Where the old token is kept."""
    return await Vault.with_a_token(datadog, client)


def connect(datadog: ScriptedDatadog, **options: Any) -> TokensClient:
    """Make a client of the fake."""
    keys = {"base_url": datadog.url, "api_key": datadog.api_key, "app_key": datadog.app_key}
    return TokensClient(**({"retry": QUICK} | keys | options))


@attrs.define(eq=False)
class Vault:
    """Where secrets are kept.

    Attributes:
        datadog: Whose.
        old: The token that is to be rotated.
        kept: The secrets of the tokens that were stored, by ID.
        handed: What `store` was given.
        error: What `store` raises, if it is to fail.
        pauses: How often `store` is suspended on its way.
    """

    datadog: ScriptedDatadog
    old: AccessToken
    kept: dict[str, str] = attrs.field(repr=False)
    handed: list[CreatedToken] = attrs.field(factory=list[CreatedToken])
    error: Exception | None = None
    pauses: int = 0

    @classmethod
    async def with_a_token(
        cls, datadog: ScriptedDatadog, client: TokensClient, life: timedelta | None = LIFE, name: str = NAME
    ) -> Vault:
        """Make the old token; the requests up to here do not count."""
        ends = datetime.now(UTC) + life if life else None
        made = await client.create_token(datadog.service_account_id, name=name, scopes=SCOPES, expires_at=ends)
        datadog.asked.clear()
        return cls(datadog, made.token, {made.token.id: made.key.reveal()})

    async def store(self, created: CreatedToken) -> None:
        """Keep a secret, a little at a time."""
        self.handed.append(created)
        for _ in range(self.pauses):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.kept[created.token.id] = created.key.reveal()

    def rotate(self, client: TokensClient, **options: Any) -> Awaitable[AccessToken]:
        """Rotate the old token."""
        return client.rotate_token(self.datadog.service_account_id, self.old.id, **({"store": self.store} | options))

    async def fail(self, client: TokensClient, kind: type[DatadogError] = RotationError, **options: Any) -> Any:
        """Rotate the old token and return the error that this has to raise."""
        with pytest.raises(kind) as caught:
            await self.rotate(client, **options)
        assert type(caught.value) is kind
        error = caught.value
        assert (error.operation, error.service_account_id) == ("rotate_token", self.datadog.service_account_id)
        assert error.token_id == self.old.id
        return error

    @property
    def live(self) -> set[str]:
        """Return the IDs of the old token and of those that were made to replace it, as far as they live."""
        return {token.id for token in self.datadog.tokens if token.name == self.old.name}

    @property
    def new_id(self) -> str:
        """Return the ID of the one token that `store` was given."""
        (created,) = self.handed
        return created.token.id

    def check_unchanged(self) -> None:
        """See that the old token works and that there is no other."""
        assert self.live == {self.old.id}
        assert self.datadog.works(self.old.id)

    def check_replaced(self) -> None:
        """See that the new token works, is kept, and stands alone."""
        (new_id,) = self.live
        assert new_id != self.old.id
        assert self.datadog.works(new_id)
        assert self.kept[new_id] == self.datadog.keys[new_id]


def state(error: RotationError) -> tuple[Any, ...]:
    """Return what a RotationError says of the two tokens."""
    return error.old_works, error.new_id, error.new_works, error.outcome_unknown


# When all goes well


async def test_the_order_of_the_steps(datadog: ScriptedDatadog, client: TokensClient, vault: Vault) -> None:
    """The old one is read, the new one made and stored, both working then; only after that the old one is revoked."""

    async def store(created: CreatedToken) -> None:
        assert datadog.asked == ["GET", "POST"]
        assert vault.live == {vault.old.id, created.token.id}
        assert datadog.works(vault.old.id)
        assert datadog.works(created.token.id)
        await asyncio.sleep(0.01)
        assert datadog.asked == ["GET", "POST"]
        await vault.store(created)

    new = await vault.rotate(client, store=store)

    assert datadog.asked == ["GET", "POST", "DELETE"]
    assert new == vault.handed[0].token
    assert new.id != vault.old.id
    assert (new.name, new.scopes, new.service_account_id) == (NAME, SCOPES, datadog.service_account_id)
    assert await client.get_token(datadog.service_account_id, new.id) == new
    vault.check_replaced()


async def test_the_new_key_works_and_the_old_one_does_not(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault
) -> None:
    """After a rotation the stored key signs requests, and the old key meets a 401."""
    new = await vault.rotate(client)
    async with TokensClient(base_url=datadog.url, access_token=vault.kept[new.id]) as switched:
        assert (await switched.get_token(datadog.service_account_id, new.id)).id == new.id
    async with datadog.signed_with(vault.old.id, retry=QUICK) as late:
        with pytest.raises(UnauthorizedError):
            await late.get_token(datadog.service_account_id, new.id)


@pytest.mark.parametrize("kind", ["plain", "future", "object", "none"])
async def test_what_can_store(datadog: ScriptedDatadog, client: TokensClient, vault: Vault, kind: str) -> None:
    """A plain function that has returned has stored the secret, whatever it returns; what is awaitable is awaited."""
    seen: list[CreatedToken] = []

    class Store:
        async def __call__(self, created: CreatedToken) -> None:
            await asyncio.sleep(0)
            seen.append(created)

    def future(created: CreatedToken) -> asyncio.Future[None]:
        return asyncio.ensure_future(Store()(created))

    def plain(created: CreatedToken) -> bool:
        seen.append(created)
        return False

    stores: dict[str, Any] = {"plain": plain, "future": future, "object": Store(), "none": seen.append}
    new = await vault.rotate(client, store=stores[kind])
    assert [created.token for created in seen] == [new]
    assert vault.live == {new.id}
    assert datadog.works(new.id)


async def test_store_may_use_the_client(datadog: ScriptedDatadog, vault: Vault) -> None:
    """While `store` runs, the rotation holds no place and no quota: the client's other calls go on."""
    async with connect(datadog, concurrency=1) as narrow:

        async def store(created: CreatedToken) -> None:
            await vault.store(created)
            await narrow.get_token(datadog.service_account_id, created.token.id)

        async with asyncio.timeout(HANG):
            await vault.rotate(narrow, store=store)
    vault.check_replaced()


async def test_two_rotations_at_the_same_time(client: TokensClient, vault: Vault) -> None:
    """Two rotations of one token both succeed: for the slower one the old token is gone already."""
    async with asyncio.timeout(HANG):
        both = await asyncio.gather(vault.rotate(client), vault.rotate(client))
    assert vault.live == {token.id for token in both} == vault.kept.keys() - {vault.old.id}
    assert len(vault.live) == 2


# How long the new one lives

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("created", "ends", "expected"),
    [
        (NOW - DAY, None, None),
        (None, None, None),
        (NOW - DAY, NOW + 6 * DAY, NOW + 7 * DAY),
        (NOW - 9 * DAY, NOW - 2 * DAY, NOW + 7 * DAY),
        (NOW, NOW + DAY + timedelta(minutes=5), NOW + DAY + timedelta(minutes=5)),
        (NOW, NOW + timedelta(hours=1), NOW + timedelta(hours=1)),
        (NOW - DAY, END, END),
    ],
    ids=["never", "never, age unknown", "a week", "a week, over", "a little over a day", "an hour", "end of time"],
)
def test_the_successor_lives_as_long(
    created: datetime | None, ends: datetime | None, expected: datetime | None
) -> None:
    """The new token lives as long from now as the old one did from its creation, and without end only if that did."""
    assert successor_expiry(AccessToken(id="t", created_at=created, expires_at=ends), NOW) == expected


@pytest.mark.parametrize("seconds", [-59.0, -0.3, 0.0, 5.0])
def test_the_shortest_life_is_still_long_enough_when_the_request_arrives(seconds: float) -> None:
    """A token made for the API's shortest life, a day give or take a moment, gets a minute more: the way takes time."""
    old = AccessToken(id="t", created_at=NOW - DAY, expires_at=NOW + timedelta(seconds=seconds))
    assert successor_expiry(old, NOW) == NOW + DAY + timedelta(minutes=1)


@pytest.mark.parametrize("created", [None, NOW, NOW + DAY], ids=["unknown", "no life at all", "backwards"])
def test_a_life_that_is_not_known_has_no_successor(created: datetime | None) -> None:
    """Of a token that ends, and nobody knows after how long, the successor's end cannot be told."""
    with pytest.raises(ValueError, match=r"^expires_at must be given"):
        successor_expiry(AccessToken(id="t", created_at=created, expires_at=NOW), NOW)


@pytest.mark.parametrize("life", [LIFE, DAY + SOON, None])
async def test_a_lifetime_is_carried_over(
    datadog: ScriptedDatadog, client: TokensClient, life: timedelta | None
) -> None:
    """The successor of a 90-day, a one-day and an endless token is the same on the server."""
    vault = await Vault.with_a_token(datadog, client, life)
    new = await vault.rotate(client)
    if life is None:
        assert new.expires_at is None
    else:
        assert new.expires_at is not None
        assert abs(new.expires_at - datetime.now(UTC) - life) < timedelta(minutes=1, seconds=10)
    assert new.expires_at == (await client.get_token(datadog.service_account_id, new.id)).expires_at


async def test_one_day_tokens_can_be_rotated_for_ever() -> None:
    """A token made with the API's shortest life, and each of its successors, can be rotated."""
    day_old = AccessToken(
        id="old", name=NAME, scopes=SCOPES, created_at=datetime.now(UTC) - DAY, expires_at=datetime.now(UTC)
    )
    async with ScriptedDatadog([day_old]) as datadog, connect(datadog) as client:
        token = day_old
        for _ in range(4):
            token = await client.rotate_token(datadog.service_account_id, token.id, store=lambda _: asyncio.sleep(0))
            assert token.created_at is not None
            assert token.expires_at is not None
            assert DAY <= token.expires_at - token.created_at <= DAY + timedelta(minutes=1)
        assert datadog.token_ids == [token.id]


@pytest.mark.parametrize("life", [LIFE, None])
async def test_an_end_that_is_given_wins(
    datadog: ScriptedDatadog, client: TokensClient, life: timedelta | None
) -> None:
    """`expires_at` is the new token's end, whether or not the old one had one."""
    vault = await Vault.with_a_token(datadog, client, life)
    ends = datetime.now(UTC).replace(microsecond=0) + 3 * DAY
    assert (await vault.rotate(client, expires_at=ends)).expires_at == ends
    vault.check_replaced()


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ({"created_at": None}, "expires_at must be given"),
        ({"created_at": NOW + 9000 * DAY}, "expires_at must be given"),
        ({"name": None}, "name must be"),
        ({"scopes": ()}, "scopes must"),
        ({"scopes": ("a", "")}, "scopes must"),
    ],
    ids=str,
)
async def test_what_cannot_be_copied_is_not_rotated(flaw: dict[str, Any], words: str) -> None:
    """A token whose name, scopes or lifetime nobody knows is left alone, and the error says what is missing."""
    good = {"name": NAME, "scopes": SCOPES, "created_at": NOW - DAY, "expires_at": NOW + 9000 * DAY}
    async with ScriptedDatadog([AccessToken(id="old", **(good | flaw))]) as datadog, connect(datadog) as client:
        with pytest.raises(RotationError, match=words) as caught:
            await client.rotate_token(datadog.service_account_id, "old", store=lambda _: asyncio.sleep(0))
        assert state(caught.value) == (True, None, False, False)
        assert "Nothing was changed" in str(caught.value)
        assert datadog.asked == ["GET"]


async def test_a_life_that_is_not_known_can_be_given() -> None:
    """Where the old token does not tell how long the new one is to live, `expires_at` does."""
    ends = datetime.now(UTC).replace(microsecond=0) + 3 * DAY
    old = AccessToken(id="old", name=NAME, scopes=SCOPES, expires_at=ends)
    async with ScriptedDatadog([old]) as datadog, connect(datadog) as client:
        new = await client.rotate_token(
            datadog.service_account_id, "old", store=lambda _: asyncio.sleep(0), expires_at=ends
        )
        assert (new.expires_at, datadog.token_ids) == (ends, [new.id])


# What is refused


@pytest.mark.parametrize(
    "wrong",
    [
        {"service_account_id": ""},
        {"service_account_id": 5},
        {"token_id": ".."},
        {"token_id": "a\nb"},
        {"store": None},
        {"store": "vault"},
        {"expires_at": datetime(2099, 1, 1)},
        {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"expires_at": "2099-01-01"},
    ],
    ids=str,
)
async def test_an_argument_that_cannot_be_right(client: TokensClient, vault: Vault, wrong: dict[str, Any]) -> None:
    """Bad arguments are refused before anything is sent, by name."""
    good = {
        "service_account_id": vault.datadog.service_account_id,
        "token_id": vault.old.id,
        "store": vault.store,
        "expires_at": None,
    }
    with pytest.raises(InvalidArgumentError, match=next(iter(wrong))) as caught:
        await client.rotate_token(**(good | wrong))
    assert caught.value.operation == "rotate_token"
    assert vault.datadog.asked == []
    assert vault.handed == []


# Before anything was changed


@pytest.mark.parametrize(
    ("fault", "kind", "tries"),
    [
        ({"status": 404}, NotFoundError, 1),
        ({"status": 403}, ForbiddenError, 1),
        ({"status": 503}, ServerError, 3),
        ({"status": 429, "headers": {"Retry-After": "3000"}}, RateLimitError, 1),
    ],
    ids=str,
)
async def test_the_old_one_cannot_be_read(
    vault: Vault, datadog: ScriptedDatadog, fault: dict[str, Any], kind: type[APIError], tries: int
) -> None:
    """Where reading fails, that is the error, and nothing was made."""
    datadog.fail("GET", 3, **fault)
    retry = attrs.evolve(QUICK, max_rate_limit_wait=1.0)
    async with connect(datadog, retry=retry) as client:
        error = await vault.fail(client, kind)
    assert (error.status, error.attempts, error.outcome_unknown) == (fault["status"], tries, False)
    assert re.match("reading the old token: .*Nothing was changed", str(error))
    assert datadog.asked == ["GET"] * tries
    datadog.calm_down()
    vault.check_unchanged()


async def test_there_is_no_old_one(client: TokensClient, vault: Vault) -> None:
    """A token that does not exist, or no more, is a NotFoundError."""
    await client.revoke_token(vault.datadog.service_account_id, vault.old.id)
    await vault.fail(client, NotFoundError)
    assert vault.live == set()


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequestError), (401, UnauthorizedError), (403, ForbiddenError), (409, ConflictError)]
)
async def test_the_create_is_refused(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, status: int, kind: type[APIError]
) -> None:
    """Where the API refuses to make the new token, that is the error, and the old one works on, alone."""
    datadog.fail("POST", status=status)
    error = await vault.fail(client, kind)
    assert (error.status, error.outcome_unknown) == (status, False)
    assert re.match("creating the new token: .*Nothing was changed", str(error))
    assert datadog.asked == ["GET", "POST"]
    assert vault.handed == []
    vault.check_unchanged()


async def test_a_429_to_the_create_is_waited_for(datadog: ScriptedDatadog, client: TokensClient, vault: Vault) -> None:
    """A create that was refused at the door is sent again; it makes one token."""
    datadog.fail("POST", 2, **LATER)
    await vault.rotate(client)
    assert datadog.asked == ["GET", "POST", "POST", "POST", "DELETE"]
    vault.check_replaced()


# Nobody knows whether there is a new one


@pytest.mark.parametrize(
    "fault",
    [
        {"drop": True},
        {"truncate": True},
        {"stall": 60.0},
        {"status": 503},
        {"status": 408},
        {"status": 501},
        {"status": 201, "body": b'{"data": {"id": 5}}'},
    ],
    ids=str,
)
async def test_the_create_is_not_answered(datadog: ScriptedDatadog, vault: Vault, fault: dict[str, Any]) -> None:
    """A create without a usable answer is not repeated: the error says that there may be a token, and how to look."""
    datadog.fail("POST", **fault)
    before = datetime.now(UTC).replace(microsecond=0)
    async with connect(datadog, timeout=0.1) as client:
        error = await vault.fail(client)
    assert state(error) == (True, None, None, True)
    assert error.old_id == vault.old.id
    assert datadog.asked == ["GET", "POST"]
    assert vault.handed == []
    text = str(error)
    assert re.match("creating the new token: .*Now the old token works, and there may be a new one", text)
    assert "look for a token created at" in text
    assert f"named {NAME!r}" in text
    (since,) = re.findall(r"created at (\S+) or later", text)
    assert before <= datetime.fromisoformat(since) <= datetime.now(UTC)
    assert datadog.works(vault.old.id)
    made = [token for token in datadog.tokens if token.name == NAME and token.id != vault.old.id]
    assert len(made) == (0 if "status" in fault else 1)
    # Whoever looks finds it as told.
    async with connect(datadog) as client:
        found = [token async for token in client.list_tokens(datadog.service_account_id, sort="-created_at")]
    assert [token for token in found if token.name == NAME and token.id != vault.old.id] == made
    assert all(token.created_at is not None and token.created_at >= datetime.fromisoformat(since) for token in made)


@pytest.mark.parametrize("attributes", [{}, {"key": "k" * 40, "created_at": "today"}], ids=["no key", "bad date"])
async def test_a_create_whose_secret_cannot_be_read_is_undone(
    server: RawServer, connect: Connect, attributes: dict[str, Any]
) -> None:
    """An answer with the new token's ID but no usable secret: that token is revoked, and the old one stays."""
    server.script(reply(), reply(201, {"data": resource("new", **attributes)}), reply(204))
    handed: list[CreatedToken] = []

    async def store(created: CreatedToken) -> None:
        handed.append(created)

    with pytest.raises(RotationError) as caught:
        await connect().rotate_token(ACCOUNT, "old", store=store)
    error = caught.value
    assert re.match(r"creating the new token: .*\$\..*Now the new token is revoked, and the old one works", str(error))
    assert (error.old_id, error.old_works, error.new_id, error.new_works) == ("old", True, "new", False)
    assert not error.outcome_unknown
    assert [request.line.split(" ")[0] for request in server.requests] == ["GET", "POST", "DELETE"]
    assert server.requests[-1].token_id == "new"
    assert handed == []


# The secret was not stored


class SomeError(Exception):
    """Anything that the caller's code may raise."""


@pytest.mark.parametrize(
    "raised",
    [
        SomeError("the vault is sealed"),
        OSError(28, "No space left"),
        TimeoutError(),
        ExceptionGroup("both", [SomeError("one"), SomeError("two")]),
        NotFoundError("of some other call", status=404),
        RotationError("of another rotation"),
    ],
    ids=repr,
)
async def test_store_raises(datadog: ScriptedDatadog, client: TokensClient, vault: Vault, raised: Exception) -> None:
    """Where `store` raises, the new token is revoked and the old one works on; the caller's exception is the cause."""
    vault.error, vault.pauses = raised, 2
    error = await vault.fail(client)
    assert error.__cause__ is raised
    assert state(error) == (True, vault.new_id, False, False)
    assert error.old_id == vault.old.id
    assert f"store raised {type(raised).__name__}. Now the new token is revoked, and the old one works" in str(error)
    assert vault.new_id in str(error)
    assert datadog.asked == ["GET", "POST", "DELETE"]
    vault.check_unchanged()


async def test_a_plain_store_raises(client: TokensClient, vault: Vault) -> None:
    """A plain function that raises has not stored the secret either; nor has one that cannot be called like this."""

    def store(_created: CreatedToken) -> None:
        raise SomeError

    assert isinstance((await vault.fail(client, store=store)).__cause__, SomeError)
    vault.check_unchanged()
    assert isinstance((await vault.fail(client, store=lambda: None)).__cause__, TypeError)
    vault.check_unchanged()


@pytest.mark.parametrize(
    ("faults", "works", "tries"),
    [
        ([{"status": 403}], True, 1),
        ([{"status": 503}], False, 2),
        ([{"drop": True}], False, 2),
        ([{"status": 503}] * 3, None, 3),
        ([{"status": 404}], False, 1),
        ([LONG_AFTER], True, 1),
    ],
    ids=["403", "503 once", "a lost answer", "503 to the end", "404", "no quota"],
)
async def test_the_new_one_cannot_be_revoked(
    datadog: ScriptedDatadog, vault: Vault, faults: list[dict[str, Any]], works: bool | None, tries: int
) -> None:
    """Where the new token, which was not stored, cannot be revoked either, the error says so, and which one it is."""
    vault.error = SomeError()
    for fault in faults:
        datadog.fail("DELETE", **fault)
    async with connect(datadog, retry=attrs.evolve(QUICK, max_rate_limit_wait=1.0)) as client:
        error = await vault.fail(client)
    assert datadog.asked == ["GET", "POST", *["DELETE"] * tries]
    assert state(error) == (True, vault.new_id, works, works is None)
    assert error.__cause__ is vault.error
    said = {
        True: "Now the old token works; the new one works, and is still to be revoked",
        False: "Now the new token is revoked, and the old one works",
        None: "Now the old token works; the new one may work, and is still to be revoked",
    }
    assert said[works] in str(error)
    assert vault.new_id in str(error)
    assert datadog.works(vault.old.id)
    if faults != [{"status": 404}]:
        assert datadog.works(vault.new_id) is (works is not False)


# The old one stays


@pytest.mark.parametrize(
    ("faults", "works", "tries"),
    [([{"status": 403}], True, 1), ([{"status": 503}] * 3, None, 3), ([LONG_AFTER], True, 1)],
    ids=["403", "503 to the end", "no quota"],
)
async def test_the_old_one_cannot_be_revoked(
    datadog: ScriptedDatadog, vault: Vault, faults: list[dict[str, Any]], works: bool | None, tries: int
) -> None:
    """Where the old token cannot be revoked, the new one stays, and the error says what is left to do."""
    for fault in faults:
        datadog.fail("DELETE", **fault)
    async with connect(datadog, retry=attrs.evolve(QUICK, max_rate_limit_wait=1.0)) as client:
        error = await vault.fail(client)
    assert datadog.asked == ["GET", "POST", *["DELETE"] * tries]
    assert (error.old_id, error.new_id) == (vault.old.id, vault.new_id)
    assert state(error) == (works, vault.new_id, True, works is None)
    old = "works" if works else "may work"
    assert f"Now the new token works and is stored; the old one {old}, and is still to be revoked" in str(error)
    assert vault.live == {vault.old.id, vault.new_id}
    assert vault.kept.keys() == vault.live


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 503}, {"status": 404}, LATER], ids=str)
async def test_the_old_one_goes_in_the_end(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, fault: dict[str, Any]
) -> None:
    """A revoke whose answer is lost is tried again; a token that is gone then, or was before, is what was wanted."""
    datadog.fail("DELETE", **fault)
    new = await vault.rotate(client)
    assert new.id == vault.new_id
    assert datadog.works(new.id)
    assert datadog.asked == ["GET", "POST", "DELETE"] + ["DELETE"] * (fault != {"status": 404})


async def test_somebody_else_revoked_the_old_one(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """Whoever revoked the old token meanwhile did the last step; since it may have been another rotation, a warning
    names the token.
    """

    async def store(created: CreatedToken) -> None:
        await vault.store(created)
        await client.revoke_token(datadog.service_account_id, vault.old.id)

    await vault.rotate(client, store=store)
    vault.check_replaced()
    assert warnings(log).startswith(f"the old token {vault.old.id} was gone already: somebody else has revoked")


# The old one had expired


async def test_an_expired_token_can_be_rotated_too() -> None:
    """Its successor lives as long as it did; and where that fails nobody says that the old one works."""
    now = datetime.now(UTC)
    old = AccessToken(id="old", name=NAME, scopes=SCOPES, created_at=now - 9 * DAY, expires_at=now - 2 * DAY)
    async with ScriptedDatadog([old]) as datadog, connect(datadog) as client:
        vault = Vault(datadog, old, {})
        cannot = SomeError()

        datadog.fail("POST", drop=True)
        error = await vault.fail(client)
        assert state(error) == (False, None, None, True)
        assert "the old token has expired" in str(error)
        await client.revoke_token(datadog.service_account_id, datadog.token_ids[-1])

        vault.error = cannot
        error = await vault.fail(client)
        assert state(error) == (False, vault.new_id, False, False)
        assert "Now the new token is revoked, and the old one has expired" in str(error)

        vault.error, vault.handed = None, []
        datadog.fail("DELETE", status=403)
        error = await vault.fail(client)
        assert state(error) == (False, vault.new_id, True, False)
        assert "the old one has expired, and is still to be revoked" in str(error)
        await client.revoke_token(datadog.service_account_id, vault.new_id)

        vault.handed = []
        new = await vault.rotate(client)
        assert new.expires_at is not None
        assert abs(new.expires_at - now - 7 * DAY) < SOON
        vault.check_replaced()


# The token that the client signs with


async def test_a_client_rotates_the_token_that_it_signs_with(datadog: ScriptedDatadog, vault: Vault) -> None:
    """It works; afterwards this client meets a 401, and one with the new key works."""
    async with datadog.signed_with(vault.old.id, retry=QUICK) as itself:
        new = await vault.rotate(itself)
        vault.check_replaced()
        with pytest.raises(UnauthorizedError):
            await itself.get_token(datadog.service_account_id, new.id)
    async with datadog.signed_with(new.id) as switched:
        assert (await switched.get_token(datadog.service_account_id, new.id)).id == new.id


async def test_a_client_fails_to_rotate_the_token_that_it_signs_with(datadog: ScriptedDatadog, vault: Vault) -> None:
    """Undoing is signed with the old token, which works on, and so does the client."""
    vault.error = SomeError()
    async with datadog.signed_with(vault.old.id, retry=QUICK) as itself:
        assert (await vault.fail(itself)).new_works is False
        vault.check_unchanged()
        assert (await itself.get_token(datadog.service_account_id, vault.old.id)).id == vault.old.id


async def test_a_client_loses_the_last_answer_to_the_token_that_it_signs_with(
    datadog: ScriptedDatadog, vault: Vault
) -> None:
    """Where the answer to the last revoke is lost, the next try is signed with nothing: the old one may work."""
    datadog.fail("DELETE", drop=True)
    async with datadog.signed_with(vault.old.id, retry=QUICK) as itself:
        error = await vault.fail(itself)
    assert "401" in str(error)
    assert state(error) == (None, vault.new_id, True, True)
    vault.check_replaced()


# The client is closed meanwhile


@pytest.mark.parametrize("method", ["GET", "POST", "store", "DELETE", "undo"])
async def test_the_client_is_closed_in_the_middle(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, method: str
) -> None:
    """A rotation whose client is closed ends at once and says what holds."""
    vault.error = SomeError() if method == "undo" else None
    method = "DELETE" if method == "undo" else method
    closed = asyncio.Event()

    async def store(created: CreatedToken) -> None:
        if method == "store":
            datadog.asked.append("store")
            await closed.wait()
        await vault.store(created)

    datadog.fail(method, stall=60.0)
    task = asyncio.ensure_future(vault.rotate(client, store=store))
    await until(lambda: method in datadog.asked)
    await client.close()
    closed.set()
    _, error = await how_it_ended(task)
    check_nothing_left(client)
    assert datadog.works(vault.old.id) or method == "DELETE"
    if method == "GET":
        assert isinstance(error, ClientClosedError)
        assert not error.outcome_unknown
        return
    assert isinstance(error, RotationError)
    assert (
        state(error)
        == {
            "POST": (True, None, None, True),
            "store": (True, vault.handed and vault.new_id, True, False),
            "DELETE": (
                True if vault.error else None,
                vault.handed and vault.new_id,
                None if vault.error else True,
                True,
            ),
        }[method]
    )
    assert any(secret in vault.live for secret in vault.kept)


async def test_a_closed_client_rotates_nothing(datadog: ScriptedDatadog, client: TokensClient, vault: Vault) -> None:
    """After `close()` a rotation is refused like any call."""
    await client.close()
    await vault.fail(client, ClientClosedError)
    assert datadog.asked == []


# Cancelled


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Every logger's DEBUG, asyncio's and aiohttp's too."""
    caplog.set_level(logging.DEBUG)
    return caplog


def warnings(log: pytest.LogCaptureFixture) -> str:
    """Return what our logger has said at WARNING since the log was cleared, retries aside."""
    records = [record for record in log.records if record.name == "dd_sa_tokens" and record.levelno == logging.WARNING]
    return "\n".join(text for text in (record.getMessage() for record in records) if "; try " not in text)


def notes(error: BaseException | None) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def check_no_secret(
    error: BaseException | None, log: pytest.LogCaptureFixture, client: TokensClient, datadog: ScriptedDatadog
) -> None:
    """Look for the created keys in all that is left of a call."""
    secrets = datadog.secrets()
    assert secrets
    for where, text in remains(error) if error is not None else ():
        assert leaks(text, *secrets) == [], where
    for record in log.records:
        assert leaks(record.getMessage() + repr(record.args) + repr(record.exc_info), *secrets) == []
    assert leaks(repr(vars(client)) + repr([vars(part) for part in parts(client)]), *secrets) == []


def check_what_holds(vault: Vault, ending: Ending, log: pytest.LogCaptureFixture) -> None:
    """See that a working token is stored, and that whatever lives beside it is reported."""
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
            # A token of a lost answer has no ID that we could know: it is told by its name and age.
            assert not lost or (lost == [*live - {vault.old.id}] and f"or later and named {NAME!r}" in text)
    elif live != {vault.old.id}:
        assert next(iter(live)) in said[0]
    elif isinstance(error, asyncio.CancelledError):
        assert bool(notes(error)) == bool(warnings(log))


SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {},
    "latency": {"latency": 0.002},
    "429s": {"GET": [LATER], "POST": [LATER], "DELETE": [LATER]},
    "503s": {"GET": [{"status": 503}], "DELETE": [{"status": 503}]},
    "503s, no pause": {"latency": 0.002, "DELETE": [{"status": 503}] * 2, "retry": RetryPolicy(initial_backoff=0.0)},
    "lost answers": {"GET": [{"drop": True}], "DELETE": [{"drop": True}]},
    "create lost": {"POST": [{"drop": True}]},
    "create refused": {"POST": [{"status": 409}]},
    "slow store": {"pauses": 3},
    "store raises": {"pauses": 1, "error": SomeError()},
    "undo fails": {"error": SomeError(), "DELETE": [{"status": 503}] * 3},
    "undo refused": {"error": SomeError(), "DELETE": [{"status": 403}]},
    "old one stays": {"DELETE": [{"status": 403}]},
}


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
    """Whatever happens to a rotation, and wherever it is cancelled then, a working token is stored and nothing is
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


async def cancelled(task: asyncio.Future[Any]) -> asyncio.CancelledError:
    """Cancel a rotation; return the cancellation with which it has to end."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        async with asyncio.timeout(HANG):
            await task
    assert asyncio.current_task().cancelling() == 0
    return caught.value


async def test_a_create_in_flight_is_waited_for_and_undone(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """A cancelled rotation waits for the answer to its create, and revokes the token that it brings."""
    datadog.fail("POST", stall=0.1)
    task = asyncio.ensure_future(vault.rotate(client))
    await until(lambda: len(vault.live) == 2)
    error = await cancelled(task)
    assert datadog.asked == ["GET", "POST", "DELETE"]
    assert notes(error).startswith("the rotation was cancelled. Now the new token is revoked, and the old one works")
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
    assert "there may be a new one whose secret nobody knows" in notes(error)
    assert f"or later and named {NAME!r}" in notes(error)
    assert warnings(log) == notes(error)
    assert datadog.works(vault.old.id)


async def test_a_create_that_waits_for_quota_ends_at_once(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """A create that waits for the next window, an hour long, was not carried out: there is nothing to wait for."""
    datadog.fail("POST", **LONG_AFTER)
    task = asyncio.ensure_future(vault.rotate(client))
    await until(lambda: datadog.rejected)
    await asyncio.sleep(0.01)
    begun = asyncio.get_running_loop().time()
    error = await cancelled(task)
    assert asyncio.get_running_loop().time() - begun < 0.5
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
            await until(lambda: "; try 2 in" in log.text)
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
    """Undoing that would have to wait for quota is given up after a while, or when the cancellation is repeated; the
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


async def test_undoing_may_wait_for_quota(datadog: ScriptedDatadog, client: TokensClient, vault: Vault) -> None:
    """A cancelled rotation has the time to wait for a quota that is back soon, and to revoke what it had made."""
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
    """A new token whose secret cannot be read is revoked as soon as the quota lets it, unless the call is cancelled:
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
    """A revoke that waits for quota or for its next try is given up at once; the old token is named, with how it is."""
    datadog.fail("DELETE", **fault)
    async with connect(datadog, retry=RetryPolicy()) as client:
        task = asyncio.ensure_future(vault.rotate(client))
        await until(lambda: "try 2" in log.text)
        begun = asyncio.get_running_loop().time()
        error = await cancelled(task)
        assert asyncio.get_running_loop().time() - begun < 0.5
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
    """A revoke in flight is waited for, and so is its next try if that has begun; when it was the last step, the note
    says that the rotation is complete, and there is nothing to warn of.
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


# Secrets


class QuietError(SomeError):
    """Does not say what it holds."""

    def __str__(self) -> str:
        return "no"

    __repr__ = __str__


class MuteError(SomeError):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError(self.args)

    __repr__ = __str__


def with_attribute(secret: str) -> Exception:
    error = SomeError("no")
    error.sent = {"headers": [("x-value", secret)]}
    return error


def with_note(secret: str) -> Exception:
    error = SomeError("no")
    error.add_note(f"sent: {secret}")
    return error


def behind(secret: str, *, cause: bool = False, hidden: bool = False) -> Exception:
    """Put one exception behind another one, as `raise` does it in an `except` block."""
    error, inner = SomeError("no"), LookupError(secret)
    error.__context__ = inner
    error.__cause__ = inner if cause else None
    error.__suppress_context__ = cause or hidden
    return error


def grouped(secret: str, depth: int) -> Exception:
    """Put an exception so deep down, and so far back, that a traceback does not show it."""
    error: Exception = SomeError(secret)
    for _ in range(depth):
        error = ExceptionGroup("no", [*[SomeError("no")] * 30, error])
    return error


HIDING: dict[str, Callable[[str], Exception]] = {
    "text": lambda secret: SomeError(f"403 for PUT value={secret}"),
    "bytes": lambda secret: SomeError(b"value=" + secret.encode()),
    "args": QuietError,
    "mute": MuteError,
    "attribute": with_attribute,
    "note": with_note,
    "cause": partial(behind, cause=True),
    "context": behind,
    "hidden context": partial(behind, hidden=True),
    "cause in a group": lambda secret: ExceptionGroup("no", [SomeError(), behind(secret, cause=True)]),
    "cause at the head of a group": lambda secret: ExceptionGroup("no", [behind(secret, cause=True), SomeError()]),
    "wide group": partial(grouped, depth=1),
    "deep group": partial(grouped, depth=20),
}


@pytest.mark.parametrize("by", ["coroutine", "future"])
@pytest.mark.parametrize("undo_fails", [False, True])
@pytest.mark.parametrize("how", HIDING)
async def test_what_store_raises_does_not_carry_the_secret_along(
    datadog: ScriptedDatadog,
    client: TokensClient,
    vault: Vault,
    log: pytest.LogCaptureFixture,
    how: str,
    undo_fails: bool,
    by: str,
) -> None:
    """An exception that holds the new secret, wherever it hides, is named but not chained, and stays in no frame."""

    async def store(created: CreatedToken) -> None:
        await vault.store(created)
        raise HIDING[how](created.key.reveal())

    def future(created: CreatedToken) -> asyncio.Future[None]:
        return asyncio.ensure_future(store(created))

    if undo_fails:
        datadog.fail("DELETE", status=403)
    error = await vault.fail(client, store=store if by == "coroutine" else future)
    assert (error.__cause__, error.__context__) == (None, None)
    named = type(HIDING[how]("")).__name__
    assert str(error).startswith(f"store raised {named} (not shown: it holds the secret)")
    assert error.new_works is undo_fails
    check_no_secret(error, log, client, datadog)


@pytest.mark.parametrize("how", ["text", "cause", "deep group"])
async def test_nor_where_undoing_is_cancelled(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture, how: str
) -> None:
    """Nor does a cancellation that comes while the new token is being revoked."""

    async def store(created: CreatedToken) -> None:
        await vault.store(created)
        raise HIDING[how](created.key.reveal())

    datadog.fail("DELETE", stall=0.05)
    task = asyncio.ensure_future(vault.rotate(client, store=store))
    await until(lambda: "DELETE" in datadog.asked)
    error = await cancelled(task)
    assert "the new token is revoked" in notes(error)
    check_no_secret(error, log, client, datadog)


async def test_what_store_raises_may_hold_the_created_token(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """A `CreatedToken`, whose secret is masked, and a cycle of causes are no reason to hide the caller's exception."""

    async def store(created: CreatedToken) -> None:
        error = SomeError("could not store", created, created.token.public_portion)
        error.__context__ = ValueError("of old")
        error.__context__.__context__ = error
        raise error

    error = await vault.fail(client, store=store)
    assert isinstance(error.__cause__, SomeError)
    check_no_secret(error, log, client, datadog)


FAILURES: dict[str, dict[str, Any]] = {
    **{name: SCENARIOS[name] for name in ("create refused", "undo fails", "undo refused", "old one stays")},
    "create lost": {"POST": [{"drop": True}]},
    "create cut short": {"POST": [{"truncate": True}]},
    "store raises": {"error": SomeError("no")},
    "old one may stay": {"DELETE": [{"status": 503}] * 3},
    "none": {},
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_no_failure_shows_the_secret(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture, failure: str
) -> None:
    """However a rotation ends, no log record, text, note, frame of ours or pickle holds the new secret."""
    vault.error = FAILURES[failure].get("error")
    for method in ("GET", "POST", "DELETE"):
        for fault in FAILURES[failure].get(method, ()):
            datadog.fail(method, **fault)
    (outcome,) = await asyncio.gather(vault.rotate(client), return_exceptions=True)
    assert isinstance(outcome, DatadogError) == (failure != "none")
    check_no_secret(outcome if isinstance(outcome, Exception) else None, log, client, datadog)
    assert [record for record in log.records if record.name == "dd_sa_tokens"]


async def test_the_error_can_be_pickled(client: TokensClient, vault: Vault) -> None:
    """A RotationError is the same after a round trip through pickle."""
    vault.error = SomeError("no")
    error = await vault.fail(client)
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), vars(twin)) == (str(error), vars(error))
    assert type(twin) is RotationError
