"""Answers to the requests of one rate-limit window."""

from __future__ import annotations

from dd_sa_tokens import RateLimit
from dd_sa_tokens._ratelimit import Permit
from dd_sa_tokens._ratelimit.window import RateLimitWindow

SOON = 0.05  # seconds for clocks and timers after the end of a window


LIMIT, PERIOD = 100, 10.0
ALIGNED = 0.0  # wall clock less loop clock, so that windows end at 10, 20, ... on both


def rate(
    remaining: int | None, reset: float | None, limit: int | None = LIMIT, period: float | None = PERIOD
) -> RateLimit:
    return RateLimit(limit, period, remaining, reset)


def answer(
    window: RateLimitWindow,
    sent: float,
    received: float,
    said: RateLimit | None,
    status: int = 200,
    skew: float = ALIGNED,
) -> None:
    """Send a request, having asked whether it may go, and record its answer."""
    window.delay_until_admitted(sent)
    window.record_response(window.acquire(sent), received, received + skew, said, status)


def opened(remaining: int = 50, reset: float = 7.0, skew: float = ALIGNED) -> RateLimitWindow:
    """Return a window that knows its window, which ends at 10, after an answer to a request sent at 3.0."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, rate(remaining, reset), skew=skew)
    return window


def left(window: RateLimitWindow, now: float) -> int | None:
    view = window.view(now)
    return None if view is None else view.remaining


def passing(window: RateLimitWindow, now: float, most: int = 1000, reserve: float = 0.0) -> list[Permit]:
    """Send what may go now."""
    permits: list[Permit] = []
    while len(permits) < most and window.delay_until_admitted(now, reserve) <= 0:
        permits.append(window.acquire(now))
    return permits
