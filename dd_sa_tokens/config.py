"""The client's settings: the site, the retry policy, and the options of each request."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Any, Final, Literal, Self, cast

import attrs

from ._validation import check_count, check_number
from .errors import ConfigurationError


class Site(StrEnum):
    """The Datadog sites, by the host name that follows `api.`.

    Source: https://docs.datadoghq.com/getting_started/site/ and the official client's list of servers.
    """

    US1 = "datadoghq.com"
    US3 = "us3.datadoghq.com"
    US5 = "us5.datadoghq.com"
    EU1 = "datadoghq.eu"
    AP1 = "ap1.datadoghq.com"
    AP2 = "ap2.datadoghq.com"
    UK1 = "uk1.datadoghq.com"
    US1_FED = "ddog-gov.com"
    US2_FED = "us2.ddog-gov.com"


@attrs.frozen
class RetryPolicy:
    """When a failed call is repeated. All times are seconds.

    - 429: up to ten in a row, when the limit returns; all calls that spend the same limit wait for it. A 429 counts in
      `max_attempts` only if it does not say when the limit returns.
    - 408 and 5xx (not 501, 505), a lost connection, an answer cut short, a timeout: up to `max_attempts`, but never a
      create, which may have been carried out.
    - No connection: up to `max_attempts`, a create, too.
    - Nothing else.

    Before attempt number n + 1 a call waits a random time between 0 and `initial_backoff * 2 ** (n - 1)`, at most
    `max_backoff` ("full jitter"), unless the answer says for how long. All calls of a client share a budget of 100
    retries, which 429s do not spend; each second and each five successes return one.

    Raises:
        ConfigurationError: A value is out of range.
    """

    max_attempts: int = 5
    """Most requests for one call, the first included; 1 means no retry. 429s whose headers say when the limit returns
    are not counted: those requests were not processed.
    """

    initial_backoff: float = 0.5
    """Longest wait before the second attempt."""

    max_backoff: float = 30.0
    """Longest wait before any attempt, a wait for the rate limit aside. A call whose `Retry-After` is longer fails."""

    max_rate_limit_wait: float | None = None
    """Longest time one call may wait for the rate limit, its place in the queue included. A call that would wait longer
    raises `RateLimitError` at once. `None` means as long as it takes: with a limit per hour, an hour for each window
    that the calls ahead of it fill.
    """

    def __attrs_post_init__(self) -> None:
        check_count("max_attempts", self.max_attempts)
        check_number("initial_backoff", self.initial_backoff)
        check_number("max_backoff", self.max_backoff)
        if self.max_rate_limit_wait is not None:
            check_number("max_rate_limit_wait", self.max_rate_limit_wait)


class _NotGiven(Enum):
    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return self.value


NotGiven = Literal[_NotGiven.NOT_GIVEN]
"""The type of `NOT_GIVEN`."""

NOT_GIVEN: Final = _NotGiven.NOT_GIVEN
"""The default of an option that stays as it is. It is not `None`, which may be a mistake or a value."""


@attrs.define(eq=False)
class ConcurrencyBound:
    """Counts the requests in flight of a view that has a `concurrency` of its own.

    Attributes:
        most: Most requests in flight.
        in_flight: Requests in flight.
    """

    most: int
    in_flight: int = 0

    @property
    def is_full(self) -> bool:
        """Whether no further request may be sent."""
        return self.in_flight >= self.most


@attrs.frozen(kw_only=True)
class Options:
    """What goes along with each request of a client.

    Raises:
        ConfigurationError: A value is out of range; the text names it.
    """

    timeout: float = 30.0
    """Seconds for one attempt."""

    retry: RetryPolicy = RetryPolicy()
    """When failed attempts are repeated."""

    rate_limit_reserve: float = 0.0
    """Share (0 <= r < 1) of each rate-limit window that is left to others."""

    concurrency: int = 50
    """Most requests in flight."""

    bound: ConcurrencyBound | None = None
    """Counts the requests of a view that has a smaller `concurrency` than its client; `None` for all others."""

    def __attrs_post_init__(self) -> None:
        check_count("concurrency", self.concurrency)
        check_number("timeout", self.timeout, above=True)
        check_number("rate_limit_reserve", self.rate_limit_reserve, below=1.0)
        if not isinstance(cast("object", self.retry), RetryPolicy):
            msg = f"retry must be a RetryPolicy, not {type(self.retry).__name__}"
            raise ConfigurationError(msg)

    def replace(self, changes: Mapping[str, Any], most: int) -> Self:
        """Return the options of a view.

        Args:
            changes: The options that are other ones. With a `concurrency` the view's requests in flight are counted by
                themselves. Without, they count with those of the client or view that it comes from.
            most: The client's own `concurrency`.

        Raises:
            ConfigurationError: A value is out of range; the text names it.
        """
        options = attrs.evolve(self, **changes)
        if "concurrency" not in changes:
            return options
        bound = ConcurrencyBound(options.concurrency) if options.concurrency < most else None
        return attrs.evolve(options, concurrency=min(options.concurrency, most), bound=bound)
