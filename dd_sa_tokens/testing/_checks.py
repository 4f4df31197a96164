"""Checks of arguments. Every refusal has the same form: name, what it must be, what it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, cast

from dd_sa_tokens.errors import InvalidArgumentError, short_repr
from dd_sa_tokens.models import AccessToken

MAX_SECONDS = 1e9
"""The longest time and the largest clock offset. With more, the Date header would have no valid year."""


def check(name: str, valid: object, what: str, value: object) -> None:
    """Refuse an argument that is invalid.

    Args:
        name: The name of the argument.
        valid: Whether the argument is valid.
        what: What the argument must be.
        value: The argument.

    Raises:
        InvalidArgumentError: The argument is invalid.
    """
    if not valid:
        msg = f"{name} must be {what}, not {short_repr(value)}"
        raise InvalidArgumentError(msg)


def is_whole(value: Any, minimum: int = 0) -> bool:
    """Return whether a value is a whole number of at least the minimum."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def is_seconds(value: Any, minimum: float = 0.0) -> bool:
    """Return whether a value is a number of seconds of at least the minimum."""
    return isinstance(value, int | float) and not isinstance(value, bool) and minimum <= value <= MAX_SECONDS


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


def check_names(name: str, values: object, known: Iterable[str]) -> None:
    """Refuse names that are unknown.

    Raises:
        InvalidArgumentError: The argument is no collection of names, or one of them is unknown.
    """
    what = f"a collection of {', '.join(known)}"
    check(name, _is_collection(values), what, values)
    for value in cast("Collection[object]", values):
        check(name, value in {*known}, what, value)


def _is_collection(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes)
