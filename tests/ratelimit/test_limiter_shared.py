"""Operations that have the same limit share one window."""

from __future__ import annotations

import asyncio

import pytest
from support.internals import waiting_at
from support.virtual_time import GET, LIST, enter, make, opened, turns, virtual

from dd_sa_tokens import RateLimit

# Operations with the same limit


def named(name: str | None, remaining: int, limit: int = 1000) -> RateLimit:
    return RateLimit(limit, 10.0, remaining, 9, name)


@virtual
async def test_operations_of_the_same_limit_share_a_ledger() -> None:
    """Once both have given the limit's name, what one has spent the other one cannot."""
    gate = make()
    await opened(gate, GET, named("tokens", 1))
    assert gate.try_enter(LIST) is not None  # its limit is not known yet
    gate = make()
    await opened(gate, GET, named("tokens", 2))
    await opened(gate, LIST, named("tokens", 1))
    ticket = gate.try_enter(LIST)
    assert ticket is not None
    assert gate.try_enter(GET) is None
    assert gate.try_enter(LIST) is None
    gate.forget(LIST, ticket)
    assert gate.try_enter(GET) is not None


@virtual
async def test_operations_of_different_limits_do_not_share() -> None:
    """Another name, or none, is another account."""
    gate = make()
    await opened(gate, GET, named("tokens", 0))
    await opened(gate, LIST, named("lists", 500))
    await opened(gate, "other", named(None, 500))
    assert gate.try_enter(GET) is None
    assert gate.try_enter(LIST) is not None
    assert gate.try_enter("other") is not None


@virtual
async def test_those_who_wait_move_to_the_shared_ledger_in_order() -> None:
    """Requests that wait when their operation joins another's ledger are served with the others, oldest first."""
    gate = make(places=10)
    await opened(gate, GET, named("tokens", 0))
    order: list[str] = []

    async def call(operation: str) -> None:
        ticket = await enter(gate, operation)
        order.append(operation)
        gate.answered(operation, ticket, named("tokens", 500), 200)

    first = gate.try_enter(LIST)  # alone, so that the others of its kind wait
    assert first is not None
    tasks = [asyncio.create_task(call(operation)) for operation in (LIST, GET, LIST, GET)]
    await turns()
    gate.answered(LIST, first, named("tokens", 0), 200)
    await turns()
    assert order == []
    tasks[2].cancel()
    await asyncio.sleep(11)
    assert order == [LIST, GET, GET]
    assert waiting_at(gate) == 0
    assert gate.in_flight == 0


@virtual
async def test_what_is_in_flight_counts_on_the_shared_ledger() -> None:
    """When an operation joins another's ledger, the other's requests without an answer yet are not forgotten."""
    gate = make()
    await opened(gate, GET, named("tokens", 10))
    assert all(gate.try_enter(GET) for _ in range(2))
    await opened(gate, LIST, named("tokens", 3))
    assert gate.try_enter(LIST) is not None
    assert gate.try_enter(GET) is None
    assert gate.try_enter(LIST) is None


@pytest.mark.parametrize("patience", [(12.0, None), (None, 12.0), (12.0, 12.0), (None, None)], ids=str)
@virtual
async def test_those_who_moved_to_the_shared_ledger_keep_their_patience(
    patience: tuple[float | None, float | None],
) -> None:
    """When the shared quota is put off, the impatient of both operations are told, and nobody else."""
    gate = make()
    await opened(gate, GET, named("tokens", 0))
    first = gate.try_enter(LIST)
    assert first is not None
    calls = [
        asyncio.create_task(enter(gate, operation, seconds))
        for operation, seconds in zip((GET, LIST), patience, strict=True)
    ]
    await turns()
    gate.answered(LIST, first, named("tokens", 0), 200)
    gate.close(LIST, 60.0)
    await turns()
    assert [task.done() for task in calls] == [seconds is not None for seconds in patience]
    for task in calls:
        task.cancel()
    await asyncio.wait(calls)
    assert waiting_at(gate) == 0


@pytest.mark.parametrize(("between", "remaining"), [(None, 400), ("other", 7)])
@virtual
async def test_the_rate_limit_is_that_of_the_operation_used_last(between: str | None, remaining: int) -> None:
    """An operation that joins another's ledger is shown with that, unless one with another limit was used meanwhile."""
    gate = make()
    await opened(gate, GET, named("tokens", 500))
    ticket = gate.try_enter(LIST)
    assert ticket is not None
    if between is not None:
        await opened(gate, between, named("others", 7))
    gate.answered(LIST, ticket, named("tokens", 400), 200)
    assert gate.rate_limit is not None
    assert gate.rate_limit.remaining == remaining
