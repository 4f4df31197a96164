"""An answer as it came, and a request that failed. Pure: a response brings along the time at which it came."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

import attrs

from dd_sa_tokens.errors import DatadogError
from dd_sa_tokens.models import RateLimit

from .headers import parse_date


@attrs.define
class Response:
    """An answer as it came.

    Attributes:
        status: The HTTP status.
        headers: Case-insensitive. Not in the repr: a server may echo a key.
        body: Whole, and decompressed. Not in the repr: it may hold a secret.
        rate_limit: What the rate-limit headers say; `None` if there are none.
        received: When it came, in seconds since the epoch on the local clock.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    rate_limit: RateLimit | None
    received: float

    @property
    def date(self) -> float:
        """When the server answered, by its own clock if it says so, in seconds since the epoch."""
        return parse_date(self.headers, self.received)


class Retry(Enum):
    """How a failed request may be sent again."""

    NEVER = auto()
    """Another try would fail the same."""
    BACKOFF = auto()
    """After a wait that grows: no answer came, or the server failed."""
    THROTTLED = auto()
    """When the rate limit allows it: a 429."""


@attrs.frozen
class Failure:
    """A request that gave no value.

    Attributes:
        error: What to raise if it is not sent again.
        retry: How it may be sent again.
        sent: Whether it left. Then the server may have counted it against the rate limit.
        maybe_applied: Whether the server may have carried it out.
    """

    error: DatadogError
    retry: Retry
    sent: bool
    maybe_applied: bool
