"""Checks of the fake's own arguments; the general ones are the client's."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, cast

from dd_sa_tokens._validation import LONGEST_TIME as MAX_SECONDS
from dd_sa_tokens._validation import canonical_id, check, is_seconds, is_whole, read_collection
from dd_sa_tokens.models import AccessToken

__all__ = [
    "MAX_SECONDS",
    "canonical_id",
    "check",
    "check_names",
    "check_tokens",
    "is_rate_limit",
    "is_seconds",
    "is_whole",
]


def is_rate_limit(value: Any) -> bool:
    """Return whether a value is a rate limit (requests, seconds), or `None`."""
    match value:
        case [limit, period]:
            return is_whole(limit, 1) and is_seconds(period, 0.001)
        case _:
            return value is None


def check_tokens(tokens: Any) -> list[AccessToken]:
    """Return the given tokens as a list.

    Raises:
        InvalidArgumentError: An item is no `AccessToken`, or its ID is empty.
    """
    check("tokens", isinstance(tokens, Iterable), "a whole number of at least 0, or AccessTokens", tokens)
    given: list[Any] = list(tokens)
    for token in given:
        check("tokens", isinstance(token, AccessToken) and token.id, "AccessTokens with IDs", token)
    return given


def check_names(name: str, values: object, known: Collection[str]) -> frozenset[str]:
    """Return given names.

    Raises:
        InvalidArgumentError: The argument is no collection of names, or one of them is unknown.
    """
    what = f"a collection of {', '.join(known)}"
    given = read_collection(values)
    check(name, given is not None, what, values)
    for value in given or ():
        check(name, isinstance(value, str) and value in known, what, value)
    return frozenset(cast("list[str]", given))
