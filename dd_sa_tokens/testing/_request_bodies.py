"""Reading the bodies of requests, and refusing those that are invalid."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from dd_sa_tokens.models import TOKEN_TYPE

from ._answers import RefusedError

_MIN_LIFETIME = timedelta(hours=24)


def read_create(body: bytes, now: datetime) -> dict[str, Any]:
    """Read the attributes of a token to create: its `name`, `scopes` and `expires_at`.

    Raises:
        RefusedError: The body is not what the API documents.
    """
    attributes = _object(_data(body).get("attributes"), "data.attributes")
    return {
        "name": _name(attributes.get("name")),
        "scopes": _scopes(attributes.get("scopes")),
        "expires_at": _expiry(attributes.get("expires_at"), now),
    }


def read_update(body: bytes, token_id: str) -> dict[str, Any]:
    """Read the attributes to change: `name`, `scopes`, or both.

    Raises:
        RefusedError: The body is not what the API documents.
    """
    data = _data(body)
    _require(data.get("id") == token_id, "data.id must be the token's ID, as in the path")
    attributes = _object(data.get("attributes"), "data.attributes")
    readers: dict[str, Callable[[object], object]] = {"name": _name, "scopes": _scopes}
    changes = {name: read(attributes[name]) for name, read in readers.items() if name in attributes}
    _require(changes, "data.attributes must have a name, scopes, or both")
    return changes


def _require(valid: object, text: str) -> None:
    if not valid:
        raise RefusedError(400, text)


def _data(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    data = _object(_object(document, "the body").get("data"), "data")
    _require(data.get("type") == TOKEN_TYPE, f"data.type must be {TOKEN_TYPE}")
    return data


def _object(value: object, where: str) -> dict[str, Any]:
    _require(isinstance(value, dict), f"{where} must be a JSON object")
    return cast("dict[str, Any]", value)


def _is_text(value: object) -> bool:
    """Return whether a value is a string that is not empty and has a UTF-8 form: half of a surrogate pair has none."""
    return isinstance(value, str) and value != "" and not any("\ud800" <= character <= "\udfff" for character in value)


def _name(value: object) -> str:
    _require(_is_text(value), "data.attributes.name must be a string that is not empty")
    return cast("str", value)


def _scopes(value: object) -> tuple[str, ...]:
    scopes = cast("list[object]", value) if isinstance(value, list) else []
    _require(scopes and all(map(_is_text, scopes)), "data.attributes.scopes must be an array of strings, none empty")
    return tuple(cast("list[str]", scopes))


def _expiry(value: object, now: datetime) -> datetime | None:
    if value is None:
        return None
    moment = None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            # In UTC, as the API returns it. Near the years 1 and 9999 there may be no such moment.
            moment = None if moment.utcoffset() is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
    if moment is None:
        raise RefusedError(400, "data.attributes.expires_at must be an ISO 8601 date and time with an offset, or null")
    _require(moment - now >= _MIN_LIFETIME, "data.attributes.expires_at must be at least 24 hours in the future")
    return moment
