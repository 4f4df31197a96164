"""Rotations under anyio's cancel scopes, which cancel a task in each pass of the event loop until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest
from support.cancelling import check_nothing_left
from support.internals import LoopPasses, undo_within
from support.rotations import QUICK, SomeError, Vault, connect, warnings
from support.scripted import ScriptedDatadog
from support.waiting import until

from dd_sa_tokens import CreatedToken, TokensClient

pytestmark = pytest.mark.usefixtures("loop_errors")

STALL = 0.5
AFTER = 0.15  # seconds after which the scope cancels
MOST_PASSES = 400  # of the loop in one rotation; one that spins makes tens of thousands in half a second

Rotate = Callable[[], Awaitable[object]]


async def in_move_on_after(rotate: Rotate) -> None:
    with anyio.move_on_after(AFTER) as scope:
        await rotate()
    assert scope.cancelled_caught


async def in_fail_after(rotate: Rotate) -> None:
    with pytest.raises(TimeoutError):
        with anyio.fail_after(AFTER):
            await rotate()


async def in_nested_scopes(rotate: Rotate) -> None:
    with anyio.move_on_after(AFTER) as outer:
        with anyio.CancelScope():
            with anyio.move_on_after(10):
                await rotate()
    assert outer.cancelled_caught


async def in_a_scope_that_is_cancelled(rotate: Rotate) -> None:
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_later(AFTER, scope.cancel)
        await rotate()
    assert scope.cancelled_caught


async def in_a_task_group(rotate: Rotate) -> None:
    async def run() -> None:
        await rotate()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await asyncio.sleep(AFTER)
        group.cancel_scope.cancel()


SCOPES = [in_move_on_after, in_fail_after, in_nested_scopes, in_a_scope_that_is_cancelled, in_a_task_group]


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.__name__)
async def test_the_revoke_of_the_old_one_stalls(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, scope: Callable[[Rotate], Awaitable[None]]
) -> None:
    """The revoke is waited for, without spinning: the old token is revoked, and the new one is stored."""
    datadog.fail("DELETE", stall=STALL)
    passes = LoopPasses()
    await scope(lambda: vault.rotate(client))
    assert passes.count < MOST_PASSES
    vault.check_replaced()
    check_nothing_left(client)


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.__name__)
async def test_the_create_stalls(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, scope: Callable[[Rotate], Awaitable[None]]
) -> None:
    """The create is waited for, and what it made is revoked again: the old token is the only one."""
    datadog.fail("POST", stall=STALL)
    passes = LoopPasses()
    await scope(lambda: vault.rotate(client))
    assert passes.count < MOST_PASSES
    assert datadog.asked == ["GET", "POST", "DELETE"]
    vault.check_unchanged()
    check_nothing_left(client)


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.__name__)
async def test_the_store_stalls(
    datadog: ScriptedDatadog,
    client: TokensClient,
    vault: Vault,
    log: pytest.LogCaptureFixture,
    scope: Callable[[Rotate], Awaitable[None]],
) -> None:
    """Perhaps it was stored, so both tokens stay, and the log says so."""

    async def store(created: CreatedToken) -> None:
        vault.handed.append(created)
        await asyncio.sleep(30)

    passes = LoopPasses()
    await scope(lambda: vault.rotate(client, store=store))
    assert passes.count < MOST_PASSES
    assert vault.live == {vault.old.id, vault.new_id}
    assert "revoke the one that is not in use" in warnings(log)
    check_nothing_left(client)


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.__name__)
async def test_the_read_stalls(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, scope: Callable[[Rotate], Awaitable[None]]
) -> None:
    """Nothing was changed, so the call ends at once."""
    datadog.fail("GET", stall=30.0)
    passes = LoopPasses()
    await scope(lambda: vault.rotate(client))
    assert passes.count < MOST_PASSES
    assert datadog.asked == ["GET"]
    vault.check_unchanged()
    check_nothing_left(client)


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.__name__)
async def test_the_undoing_stalls(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, scope: Callable[[Rotate], Awaitable[None]]
) -> None:
    """A store that failed is undone, although the scope cancels while the new token is being revoked."""
    vault.error = SomeError()
    datadog.fail("DELETE", stall=STALL)
    passes = LoopPasses()
    await scope(lambda: vault.rotate(client))
    assert passes.count < MOST_PASSES
    vault.check_unchanged()
    check_nothing_left(client)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_what_is_never_answered_ends_with_its_timeout(
    datadog: ScriptedDatadog, vault: Vault, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A create or revoke without an answer is waited for until the client's timeout, without spinning, and told."""
    undo_within(monkeypatch, 0.2)
    datadog.fail(method, count=20, stall=30.0)
    async with connect(datadog, timeout=STALL, retry=QUICK) as client:
        passes = LoopPasses()
        await in_move_on_after(lambda: vault.rotate(client))
        assert passes.count < MOST_PASSES
        check_nothing_left(client)
    assert (
        "outcome unknown" in warnings(log)
        or "still to be revoked" in warnings(log)
        or "secret is lost" in warnings(log)
    )


async def test_a_rate_limit_that_is_waited_for_ends_at_once(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault
) -> None:
    """A create that waits for the rate limit has not been sent, so the call ends."""
    datadog.fail("POST", status=429, headers={"X-RateLimit-Reset": "3000"})
    passes = LoopPasses()
    await in_move_on_after(lambda: vault.rotate(client))
    assert passes.count < MOST_PASSES
    vault.check_unchanged()


@pytest.mark.parametrize("after", [0.0, 0.01, 0.05])
async def test_cancelled_at_any_time(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, after: float
) -> None:
    """Whenever the scope cancels, a working token is stored, and no other one is left unless it was handed over."""
    with anyio.move_on_after(after):
        await vault.rotate(client)
    assert any(datadog.works(token_id) and vault.kept.get(token_id) for token_id in vault.live)
    assert vault.live <= {vault.old.id, *(created.token.id for created in vault.handed)}


async def test_other_calls_go_on_meanwhile(datadog: ScriptedDatadog, client: TokensClient, vault: Vault) -> None:
    """While a cancelled rotation waits for its revoke, the client's other calls have their answers."""
    datadog.fail("DELETE", stall=STALL)
    task = asyncio.ensure_future(in_move_on_after(lambda: vault.rotate(client)))
    await until(lambda: "DELETE" in datadog.asked)
    await asyncio.sleep(AFTER)
    for token_id in datadog.token_ids[:3]:
        assert (await client.get_token(datadog.service_account_id, token_id)).id == token_id
    assert not task.done()
    await task
    vault.check_replaced()
