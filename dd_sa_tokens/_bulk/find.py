"""Finding tokens by their IDs alone, in the organization's list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import cast

from dd_sa_tokens._protocol.organization import OtherRow
from dd_sa_tokens._validation import canonical_id, check_id
from dd_sa_tokens.errors import DatadogError, InvalidArgumentError, NotFoundError
from dd_sa_tokens.models import AccessToken
from dd_sa_tokens.results import BulkResult, SourceError, TokenResult

from .engine import Unique, read_once
from .ids import PAUSE, Source

Rows = AsyncGenerator[AccessToken | OtherRow, None]
"""The rows of the organization's list."""

_OPERATION = "find_tokens"


async def find(token_ids: Source, list_rows: Callable[[], Rows]) -> BulkResult:
    """Look IDs up in a list, which is read until all are found or it ends.

    Args:
        token_ids: The IDs.
        list_rows: Reads the list.

    Raises:
        SourceError: The iterable raised; the error carries what was found.
    """
    items, source_error = await _take_all(token_ids)
    unique = Unique(items, _OPERATION)
    found: dict[str, TokenResult] = {}
    wanted: dict[str, str] = {}
    for token_id in cast("Iterable[str]", unique.ids):
        if token_id is PAUSE:
            await asyncio.sleep(0)
            continue
        try:
            wanted[canonical_id(token_id)] = check_id("token_id", token_id, _OPERATION)
        except InvalidArgumentError as error:
            found[canonical_id(token_id)] = TokenResult(token_id, error=error.with_traceback(None))
    reason: DatadogError = NotFoundError("not in the list that these keys may see", status=404)
    try:
        if wanted:
            await _read_until_found(list_rows(), wanted, found)
    except DatadogError as error:
        reason = error.with_traceback(None)  # the list could not be read to its end: what was found stays
    for key, token_id in wanted.items():
        context = {"operation": _OPERATION, "token_id": token_id, "service_account_id": None}
        found.setdefault(key, TokenResult(token_id, error=reason.with_context(**context)))
    results = await unique.arrange(found)
    if source_error is not None:
        msg = f"token_ids raised {type(source_error).__name__} after {len(results)} IDs; partial holds their results"
        raise SourceError(msg, operation=_OPERATION, partial=results) from source_error
    return results


async def _read_until_found(rows: Rows, wanted: dict[str, str], found: dict[str, TokenResult]) -> None:
    missing = set(wanted)
    async with aclosing(rows):
        async for row in rows:
            key = canonical_id(row.id)
            if key not in missing:
                continue
            missing.discard(key)
            token_id = wanted[key]
            if isinstance(row, AccessToken):
                found[key] = TokenResult(token_id, row)
            else:
                message = "a personal access token, not a service access token"
                error = NotFoundError(message, status=404, operation=_OPERATION, token_id=token_id)
                found[key] = TokenResult(token_id, error=error)
            if not missing:
                return


async def _take_all(source: Source) -> tuple[list[str], BaseException | None]:
    """Read all IDs; return what the source gave, and what it raised."""
    if not isinstance(source, AsyncIterable):
        return read_once(cast("Iterable[str]", source))
    items: list[str] = []
    try:
        async for item in cast("AsyncIterable[str]", source):
            items.append(item)  # noqa: PERF401 - what came before an exception is kept
    except Exception as error:  # noqa: BLE001 - the source may raise anything
        return items, error
    return items, None
