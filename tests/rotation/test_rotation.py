"""Rotations over real sockets: the order of the steps, and what holds wherever one of them fails."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from support.calls import Connect
from support.cancelling import check_nothing_left, how_it_ended
from support.keys import ACCOUNT
from support.payloads import resource
from support.replies import reply
from support.rotations import (
    DAY,
    LATER,
    LONG_AFTER,
    NAME,
    QUICK,
    SCOPES,
    SOON,
    SomeError,
    Vault,
    connect,
    state,
    warnings,
)
from support.scripted import ScriptedDatadog
from support.servers import RawServer
from support.waiting import HANG, until

from dd_sa_tokens import (
    AccessToken,
    APIError,
    BadRequestError,
    ClientClosedError,
    ConflictError,
    CreatedToken,
    ForbiddenError,
    InvalidArgumentError,
    NotFoundError,
    RateLimitError,
    RotationError,
    ServerError,
    TokensClient,
    UnauthorizedError,
)

pytestmark = pytest.mark.usefixtures("loop_errors")

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
    """A plain function stores the secret by returning `None`; an awaitable is awaited."""
    seen: list[CreatedToken] = []

    class Store:
        async def __call__(self, created: CreatedToken) -> None:
            await asyncio.sleep(0)
            seen.append(created)

    def future(created: CreatedToken) -> asyncio.Future[None]:
        return asyncio.ensure_future(Store()(created))

    def plain(created: CreatedToken) -> None:
        seen.append(created)

    stores: dict[str, Any] = {"plain": plain, "future": future, "object": Store(), "none": seen.append}
    new = await vault.rotate(client, store=stores[kind])
    assert [created.token for created in seen] == [new]
    assert vault.live == {new.id}
    assert datadog.works(new.id)


async def test_store_may_use_the_client(datadog: ScriptedDatadog, vault: Vault) -> None:
    """While `store` runs, the rotation holds no permit: the client's other calls go on."""
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
    """A create that met a 429 is sent again; it makes one token."""
    datadog.fail("POST", 2, **LATER)
    await vault.rotate(client)
    assert datadog.asked == ["GET", "POST", "POST", "POST", "DELETE"]
    vault.check_replaced()


# It is unknown whether there is a new token


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
    # A look at the server finds what the error says.
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
    assert re.search(r"rolled back: creating the new token: .*\$\..*Now the new token is revoked, ", str(error))
    assert "look for a token" not in str(error)  # it is revoked
    assert error.attempts == 3
    assert (error.old_id, error.old_works, error.new_id, error.new_works) == ("old", True, "new", False)
    assert not error.outcome_unknown
    assert [request.line.split(" ")[0] for request in server.requests] == ["GET", "POST", "DELETE"]
    assert server.requests[-1].token_id == "new"
    assert handed == []


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
    ids=["403", "503 once", "a lost answer", "503 to the end", "404", "429"],
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
    ids=["403", "503 to the end", "429"],
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


async def test_the_old_one_was_revoked_by_another_client(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """If the old token was revoked meanwhile, the last step is done; another rotation may have done it, so a warning
    names the token.
    """

    async def store(created: CreatedToken) -> None:
        await vault.store(created)
        await client.revoke_token(datadog.service_account_id, vault.old.id)

    await vault.rotate(client, store=store)
    vault.check_replaced()
    assert warnings(log).startswith(f"the old token {vault.old.id} was gone already: another client has revoked")


# The old one had expired


async def test_an_expired_token_can_be_rotated_too() -> None:
    """Its successor lives as long as it did; a failure does not claim that the old one works."""
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
        assert abs(new.expires_at - now - 7 * DAY) < timedelta(minutes=1) + SOON
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
