"""Moments and spans of time as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_span(text: str) -> timedelta:
    """Read a span such as `90d`.

    Raises:
        BadParameter: It is none.
    """
    match = re.fullmatch(r"(\d{1,6})([hdw])", text, re.ASCII)
    if match is None or not int(match[1]):
        raise typer.BadParameter(f"{text!r} is no span of time: give a number of hours, days or weeks, such as 90d")
    return int(match[1]) * _UNITS[match[2]]


def parse_moment(text: str) -> datetime:
    """Read a moment in ISO 8601, in UTC where it does not say otherwise.

    Raises:
        BadParameter: It is none.
    """
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        moment.astimezone(UTC)  # in the first hours of year 1 and the last of 9999 it need not exist
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no moment in ISO 8601, such as 2027-01-31T12:00:00Z") from None
    return moment


def choose_expiry(expires_at: datetime | None, expires_in: timedelta | None) -> datetime | None:
    """Return when a new token ends; `None` if neither is given.

    Raises:
        BadParameter: Both are given, or it is after the last year that there is.
    """
    if expires_in is None:
        return expires_at
    if expires_at is not None:
        raise typer.BadParameter("give either --expires-at or --expires-in, not both")
    try:
        return datetime.now(UTC) + expires_in
    except OverflowError:
        raise typer.BadParameter("it is too far in the future", param_hint="--expires-in") from None
