"""Moments and spans of time in options."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_span(text: str) -> timedelta:
    """Return a span such as `90d`.

    Raises:
        BadParameter: It is not a number of hours, days or weeks.
    """
    match = re.fullmatch(r"(\d{1,6})([hdw])", text, re.ASCII)
    if match is None or not int(match[1]):
        raise typer.BadParameter(f"{text!r} is not a number of hours, days or weeks, such as 90d")
    return int(match[1]) * _UNITS[match[2]]


def parse_moment(text: str) -> datetime:
    """Return a moment in ISO 8601; in UTC if it has no offset.

    Raises:
        BadParameter: It is not ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        moment.astimezone(UTC)  # may not exist in the first hours of year 1 and the last of 9999
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a moment in ISO 8601, such as 2027-01-31T12:00:00Z") from None
    return moment


ExpiresAt = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_moment, metavar="ISO", help="When it expires; UTC without an offset.", show_default=False
    ),
]
ExpiresIn = Annotated[
    timedelta | None,
    typer.Option(parser=parse_span, metavar="SPAN", help="The same, from now: 90d, 12w, 36h.", show_default=False),
]


def choose_expiry(expires_at: datetime | None, expires_in: timedelta | None) -> datetime | None:
    """Return when a new token expires; `None` if neither option was given.

    Raises:
        BadParameter: Both were given, or the moment is after the year 9999.
    """
    if expires_in is None:
        return expires_at
    if expires_at is not None:
        raise typer.BadParameter("give --expires-at or --expires-in, not both")
    try:
        return datetime.now(UTC) + expires_in
    except OverflowError:
        raise typer.BadParameter("it is too far in the future", param_hint="--expires-in") from None
