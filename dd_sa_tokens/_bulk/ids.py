"""The IDs of a bulk fetch: which values are IDs, which of them are the same, and what may be read twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, MappingView, Sequence, Sized
from collections.abc import Set as AbstractSet
from typing import Any, Final, cast
from uuid import UUID

from dd_sa_tokens._cancellation import error_of
from dd_sa_tokens.errors import InvalidArgumentError, short_repr
from dd_sa_tokens.results import TokenResult

Source = Iterable[str | UUID] | AsyncIterable[str | UUID]
"""What a bulk fetch takes its IDs from."""

PAUSE: Final = object()
"""Yielded by a source between IDs; the worker then lets the event loop run."""

SLICE = 1_000
"""Positions that are handled between two passes of the event loop: less than 10 ms."""


def check_source(token_ids: object, **context: Any) -> None:
    """Refuse a value that does not give IDs.

    Raises:
        InvalidArgumentError: It is a single `str`, or bytes, or cannot be iterated over.
    """
    kind, is_iterable = type(token_ids).__name__, isinstance(token_ids, Iterable | AsyncIterable)
    if not is_iterable or isinstance(token_ids, str | bytes | bytearray | memoryview):
        msg = f"token_ids must be an iterable or async iterable of IDs, not a single {kind}"
        raise InvalidArgumentError(msg, **context)


def is_rereadable(source: object) -> bool:
    """Return whether a source may be read twice.

    A length does not show it: a progress bar or a cursor has one, and is empty when it is read again.
    """
    return isinstance(source, Sequence | AbstractSet | MappingView)


def _has_length(source: object) -> bool:
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


async def read_once(source: Source, *, is_async: bool) -> tuple[list[Any], BaseException | None]:
    """Read a source that may be read once only; return what it gave, and what it raised.

    Args:
        source: The source.
        is_async: Whether to read it asynchronously; some sources can be read in both ways.
    """
    items: list[Any] = []
    return items, await error_of(_read(source, items, is_async=is_async))


async def _read(source: Source, items: list[Any], *, is_async: bool) -> None:
    if is_async:
        async for item in cast("AsyncIterable[Any]", source):
            items.append(item)
            if len(items) % SLICE == 0:
                await asyncio.sleep(0)
    else:
        for item in cast("Iterable[Any]", source):  # `list` would ask for the length, which may be wrong or raise
            items.append(item)
            if len(items) % SLICE == 0:
                await asyncio.sleep(0)


async def list_if_sized(source: Source) -> tuple[Source, BaseException | None]:
    """Make a list of a source that ends but may be read once only, so that its IDs can be known before.

    Returns:
        The list, and what the source raised; the source itself where that is no way to read it.
    """
    if is_rereadable(source) or not _has_length(source):
        return source, None
    items, error = await read_once(source, is_async=False)
    if error is not None and not items and isinstance(source, AsyncIterable):
        return source, None  # only an async loop can read it, such as a progress bar around an async iterable
    return items, error


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
