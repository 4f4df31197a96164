"""What the headers of an answer say: rate limits, waiting times and dates. Pure.

Source: https://docs.datadoghq.com/api/latest/rate-limits/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache

from dd_sa_tokens.models import RateLimit

Redact = Callable[[str], str]
"""Masks the keys in a text: a server may echo them."""

LONGEST_NAME = 100
"""Characters of a name or ID in a header that are kept."""

_DAY = 86_400.0
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,20})?")
_RATE_LIMIT = (
    "X-RateLimit-Limit",
    "X-RateLimit-Period",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-RateLimit-Name",
)


def parse_rate_limit(headers: Mapping[str, str], received: float, redact: Redact) -> RateLimit | None:
    """Read the five rate-limit headers.

    Junk and negative values count as no header. A header that was sent twice and joined (`7, 7`) counts once; where the
    two differ, the more careful one counts. A reset too large to be a delay is a Unix time.

    Args:
        headers: The answer's, case-insensitive.
        received: When the answer came, in seconds since the epoch; used where it has no `Date`.
        redact: Masks the keys in the limit's name.

    Returns:
        What they say; `None` if none of them says anything.
    """
    raw_limit, raw_period, raw_remaining, raw_reset, name = map(headers.get, _RATE_LIMIT)
    remaining = _count(raw_remaining)
    limit, period, reset = _steady(raw_limit, raw_period, raw_reset)
    if reset is not None and reset > _DAY:
        reset = within_a_day(reset - parse_date(headers, received))
    if limit is None and period is None and remaining is None and reset is None and not name:
        return None
    return RateLimit(limit, period, remaining, reset, redact(name)[:LONGEST_NAME] if name else None)


def knows_reset(rate: RateLimit | None) -> bool:
    """Return whether headers say when the window ends. A bare `0` does not: only with a period is it a window's end."""
    return rate is not None and rate.reset is not None and (rate.reset > 0 or rate.period is not None)


def parse_retry_after(headers: Mapping[str, str], received: float) -> float | None:
    """Read `Retry-After`, seconds or an HTTP date, as seconds; `None` for junk and for a time that is over."""
    raw = headers.get("Retry-After")
    if not raw:
        return None
    seconds = _seconds(raw)
    if seconds is None:
        moment = _http_date(raw)
        seconds = None if moment is None else moment - parse_date(headers, received)
    return seconds if seconds is not None and seconds > 0 else None


def parse_date(headers: Mapping[str, str], received: float) -> float:
    """Return the answer's own time in seconds since the epoch: its other times are read against its server's clock."""
    sent_at = _http_date(headers.get("Date", ""))
    return received if sent_at is None else sent_at


def within_a_day(seconds: float | None) -> float | None:
    """Return a delay of 0 s to a day; `None` for any other."""
    return seconds if seconds is not None and 0 <= seconds <= _DAY else None


@lru_cache(maxsize=64)
def _steady(limit: str | None, period: str | None, reset: str | None) -> tuple[int | None, float | None, float | None]:
    """Read the three headers that are mostly the same as in the answer before; so they are looked up at once."""
    seconds = _seconds(period)
    return _count(limit) or None, seconds if seconds is None or 0 < seconds <= _DAY else None, _seconds(reset)


@lru_cache(maxsize=1024)
def _seconds(raw: str | None) -> float | None:
    values = _numbers(raw)
    return max(values) if values else None


@lru_cache(maxsize=1024)
def _count(raw: str | None) -> int | None:
    values = _numbers(raw)
    return int(min(values)) if values else None


def _numbers(raw: str | None) -> list[float]:
    parts = [part.strip() for part in raw.split(",")] if raw and len(raw) <= 200 else []
    return [float(part) for part in parts] if all(_NUMBER.fullmatch(part) for part in parts) else []


@lru_cache(maxsize=64)
def _http_date(raw: str) -> float | None:
    try:
        moment = parsedate_to_datetime(raw)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
