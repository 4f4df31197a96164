"""Answers to the requests of one rate-limit window."""

from __future__ import annotations

from dd_sa_tokens import RateLimit
from dd_sa_tokens._ledger import Ledger, Ticket

SOON = 0.05  # seconds for clocks and timers after a boundary


LIMIT, PERIOD = 100, 10.0
ALIGNED = 0.0  # wall clock less loop clock, so that windows end at 10, 20, ... on both


def rate(
    remaining: int | None, reset: float | None, limit: int | None = LIMIT, period: float | None = PERIOD
) -> RateLimit:
    return RateLimit(limit, period, remaining, reset)


def answer(
    ledger: Ledger, sent: float, received: float, said: RateLimit | None, status: int = 200, skew: float = ALIGNED
) -> None:
    """Send a request, having asked whether it may go, and take in its answer."""
    ledger.wait(sent)
    ledger.answered(ledger.send(sent), received, received + skew, said, status)


def opened(remaining: int = 50, reset: float = 7.0, skew: float = ALIGNED, reserve: float = 0.0) -> Ledger:
    """Return a ledger that knows its window, which ends at 10, after an answer to a request sent at 3.0."""
    ledger = Ledger(reserve=reserve)
    answer(ledger, 3.0, 3.2, rate(remaining, reset), skew=skew)
    return ledger


def left(ledger: Ledger, now: float) -> int | None:
    view = ledger.view(now)
    return None if view is None else view.remaining


def passing(ledger: Ledger, now: float, most: int = 1000) -> list[Ticket]:
    """Send what may go now."""
    tickets: list[Ticket] = []
    while len(tickets) < most and ledger.wait(now) <= 0:
        tickets.append(ledger.send(now))
    return tickets
