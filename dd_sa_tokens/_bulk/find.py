"""Finding tokens by their IDs alone, in the organization's list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import cast

from dd_sa_tokens._protocol.organization import OtherRow
from dd_sa_tokens._validation import canonical_id, check_id
from dd_sa_tokens.errors import ConfigurationError, DatadogError, InvalidArgumentError, NotFoundError
from dd_sa_tokens.models import AccessToken
from dd_sa_tokens.results import BulkResult, TokenResult

from .engine import Unique, make_source_error
from .ids import PAUSE, SLICE, Source, list_if_sized, read_once

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
        ConfigurationError: The client cannot be used as it is.
    """
    source, source_error = await list_if_sized(token_ids)
    items, later_error = await read_once(source, is_async=isinstance(source, AsyncIterable))
    source_error = source_error or later_error
    unique = Unique(items, _OPERATION)
    found: dict[str, TokenResult] = {}
    missing = await _check_all(unique, found)
    reason: DatadogError = NotFoundError("not in the list that these keys may see", status=404)
    try:
        if missing:
            await _read_until_found(list_rows(), missing, found)
    except ConfigurationError:
        raise  # the client is set up wrong, not an ID
    except DatadogError as error:
        reason = error.with_traceback(None)  # the list could not be read to its end: what was found stays
    for number, (key, token_id) in enumerate(missing.items(), 1):
        context = {"operation": _OPERATION, "token_id": token_id, "service_account_id": None}
        found[key] = TokenResult(token_id, error=reason.with_context(**context))
        if number % SLICE == 0:
            await asyncio.sleep(0)
    results = await unique.arrange(found)
    if source_error is not None:
        raise make_source_error(_OPERATION, source_error, results) from source_error
    return results


async def _check_all(unique: Unique, found: dict[str, TokenResult]) -> dict[str, str]:
    """Return the different IDs, by their canonical form; the result of one that is invalid goes to `found`."""
    valid: dict[str, str] = {}
    for number, token_id in enumerate(cast("Iterable[str]", unique.ids), 1):
        if token_id is not PAUSE:
            try:
                valid[canonical_id(token_id)] = check_id("token_id", token_id, _OPERATION)
            except InvalidArgumentError as error:
                found[canonical_id(token_id)] = TokenResult(token_id, error=error.with_traceback(None))
        if token_id is PAUSE or number % SLICE == 0:
            await asyncio.sleep(0)
    return valid


async def _read_until_found(rows: Rows, missing: dict[str, str], found: dict[str, TokenResult]) -> None:
    """Move the IDs of the rows from `missing` to `found`, until none is missing or the list ends."""
    async with aclosing(rows):
        async for row in rows:
            key = canonical_id(row.id)
            token_id = missing.pop(key, None)
            if token_id is None:
                continue
            if isinstance(row, AccessToken):
                found[key] = TokenResult(token_id, row)
            else:
                message = "a personal access token, not a service access token"
                error = NotFoundError(message, status=404, operation=_OPERATION, token_id=token_id)
                found[key] = TokenResult(token_id, error=error)
            if not missing:
                return
