"""Checks of arguments, with one form of words for all that is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dd_sa_tokens.errors import InvalidArgumentError, short_repr
from dd_sa_tokens.models import AccessToken

MOST_SECONDS = 1e9
"""The longest time, and the largest offset: with more of one the Date header would be no date."""


def check(name: str, fits: object, what: str, value: object) -> None:
    if not fits:
        msg = f"{name} must be {what}, not {short_repr(value)}"
        raise InvalidArgumentError(msg)


def is_whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_seconds(value: Any, least: float = 0.0) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= MOST_SECONDS


def is_limit(value: Any) -> bool:
    match value:
        case [limit, period]:
            return is_whole(limit, 1) and is_seconds(period, 0.001)
        case _:
            return value is None


def check_tokens(tokens: Any) -> list[AccessToken]:
    check("tokens", isinstance(tokens, Iterable), "a whole number of at least 0, or AccessTokens", tokens)
    held: list[Any] = list(tokens)
    for token in held:
        check("tokens", isinstance(token, AccessToken) and token.id, "AccessTokens with IDs", token)
    return held
