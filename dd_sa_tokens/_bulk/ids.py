"""The IDs of a bulk fetch: which values are IDs, which of them are the same, and what may be read twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, MappingView, Sequence, Sized
from collections.abc import Set as AbstractSet
from typing import Any, Final
from uuid import UUID

from dd_sa_tokens._cancellation import Cancellation
from dd_sa_tokens.errors import InvalidArgumentError, short_repr
from dd_sa_tokens.results import TokenResult

Source = Iterable[str | UUID] | AsyncIterable[str | UUID]
"""What a bulk fetch takes its IDs from."""

PAUSE: Final = object()
"""Yielded by a source between IDs; the worker then lets the event loop run."""

SLICE = 1_000
"""Positions that are handled between two passes of the event loop: less than 10 ms."""


def check_source(token_ids: object) -> None:
    """Refuse a value that does not give IDs.

    Raises:
        InvalidArgumentError: It is a single `str` or `bytes`, or cannot be iterated over.
    """
    if isinstance(token_ids, str | bytes) or not isinstance(token_ids, Iterable | AsyncIterable):
        kind = type(token_ids).__name__
        msg = f"token_ids must be an iterable or async iterable of IDs, not a single {kind}"
        raise InvalidArgumentError(msg)


def is_rereadable(source: object) -> bool:
    """Return whether a source may be read twice.

    A length does not show it: a progress bar or a cursor has one, and is empty when it is read again.
    """
    return isinstance(source, Sequence | AbstractSet | MappingView)


def has_length(source: object) -> bool:
    """Return whether a source is sized and sync, and so ends."""
    if not isinstance(source, Sized) or not isinstance(source, Iterable):
        return False
    if not isinstance(source, AsyncIterable):
        return True
    try:
        len(source)
    except Exception:  # noqa: BLE001 - of a progress bar around an async iterable only the class has a length
        return False
    return True


async def read_once(source: Iterable[Any]) -> tuple[list[Any], BaseException | None]:
    """Read a source that may be read once only; return what it gave, and what it raised."""
    caller = Cancellation.of_current_task()
    items: list[Any] = []
    try:
        for item in source:  # `list` would ask for the length, which may be wrong or raise
            items.append(item)
            if len(items) % SLICE == 0:
                await asyncio.sleep(0)
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and caller.is_external():
            raise
        return items, error  # the source may raise anything
    return items, None


def as_text(value: Any, operation: str = "get_token") -> str | TokenResult:
    """Return an ID as text; for a value that is no ID, which may not even be hashable, its result."""
    if type(value) is str:
        return value
    try:
        # A subclass may compare, hash and show itself as it likes.
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, UUID):
            return UUID.__str__(value)
    except Exception:  # noqa: BLE001, S110 - a proxy of a dead object (weakref.proxy) raises even here, so it is no ID
        pass
    kind = type(value).__name__
    error = InvalidArgumentError(f"token_id must be a str or a uuid.UUID, not {kind}", operation=operation)
    return TokenResult(f"<{kind} {short_repr(value)}>", error=error)  # no ID looks like that
