"""Whether a failed attempt is repeated, and after how long: one decision, made once, when the attempt ends. Pure.

| what failed | repeated | after |
|---|---|---|
| 429 that says when the limit returns | up to 10 in a row; not counted in `max_attempts` | 0 s; the limiter waits for the limit |
| 429 that does not say it | up to `max_attempts` | 0 s; the limiter pauses all calls of that limit |
| a second 429 in a row, and each further one | as above | exponential backoff, beside the limiter's own wait |
| 408, 5xx (not 501, 505), no answer | up to `max_attempts`; not a create that may have been carried out | `Retry-After` (more than `max_backoff`: stop), else exponential backoff |
| nothing was sent | up to `max_attempts` | exponential backoff |
| anything else | never | |

Backoff has full jitter. A 429's wait, beyond what `max_rate_limit_wait` leaves, also stops.
"""  # noqa: E501 - a table has long lines

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from dd_sa_tokens._protocol.headers import knows_reset
from dd_sa_tokens._protocol.responses import Failure, Retry
from dd_sa_tokens.config import RetryPolicy
from dd_sa_tokens.errors import APIError
from dd_sa_tokens.models import Attempt

MOST_THROTTLED = 10
"""429s in a row on one request, after which it fails."""

Jitter = Callable[[float], float]
"""Returns a random number of seconds between 0 and the given one."""


@attrs.define(eq=False)
class CallState:
    """What one call has used up so far, and what was decided after its last attempt.

    Attributes:
        attempts: Requests sent.
        counted: Failures that count toward `max_attempts`.
        throttled: 429s in a row.
        rejection: The error of the last 429, if the last answer was one.
        waited: Seconds spent waiting for the rate limit.
        begun: When the first request was sent, in seconds since the epoch; 0 before.
        maybe_applied: Whether an attempt may have been carried out although it failed.
        in_flight: Whether an attempt is in flight.
        asked: How often functions had given keys when the call began.
        signed_with: The version of the keys that the last attempt was signed with.
        signed_anew: Whether a 401 made it ask for other keys, which is done once.
        last_attempt: Whether no further attempt is wanted: the caller is leaving.
        delay: Seconds until the next attempt; `None` for no further one.
        over_budget: Whether there is no further attempt because the client's retry budget is spent.
        last: The last attempt that failed, or that the user was told of.
    """

    attempts: int = 0
    counted: int = 0
    throttled: int = 0
    rejection: APIError | None = None
    waited: float = 0.0
    begun: float = 0.0
    maybe_applied: bool = False
    in_flight: bool = False
    asked: int = 0
    signed_with: int = 0
    signed_anew: bool = False
    last_attempt: bool = False
    delay: float | None = None
    over_budget: bool = False
    last: Attempt | None = None

    def record(self, failure: Failure) -> None:
        """Count an attempt that failed."""
        error = failure.error
        is_throttled = failure.retry is Retry.THROTTLED
        self.throttled = self.throttled + 1 if is_throttled else 0
        self.rejection = error if is_throttled and isinstance(error, APIError) else None
        self.counted += not (is_throttled and _knows_wait(self.rejection))
        self.maybe_applied = self.maybe_applied or failure.maybe_applied


def next_delay(
    failure: Failure, call: CallState, policy: RetryPolicy, *, idempotent: bool, jitter: Jitter
) -> float | None:
    """Decide whether a failed attempt is repeated. The table above says how.

    Args:
        failure: How the attempt failed.
        call: The state of its call, with this failure recorded.
        policy: The limits.
        idempotent: Whether the operation may be sent again although it may have been carried out.
        jitter: Makes a random wait.

    Returns:
        Seconds until the next attempt; `None` for no further one.
    """
    if failure.retry is Retry.NEVER or call.last_attempt or call.counted >= policy.max_attempts:
        return None
    if failure.retry is Retry.THROTTLED:
        seconds = backoff(policy, call.throttled - 1, jitter) if call.throttled > 1 else 0.0
        longest = policy.max_rate_limit_wait
        too_long = longest is not None and seconds > longest - call.waited
        return None if too_long or call.throttled >= MOST_THROTTLED else seconds
    if failure.maybe_applied and not idempotent:
        return None
    retry_after = _retry_after(failure)
    if retry_after > policy.max_backoff:
        return None
    return retry_after or backoff(policy, call.counted, jitter)


def throttle_pause(failure: Failure, call: CallState, policy: RetryPolicy, jitter: Jitter) -> float:
    """Return for how many seconds a 429 pauses its limit, if its headers do not say when the window ends."""
    return _retry_after(failure) or backoff(policy, call.throttled, jitter)


def backoff(policy: RetryPolicy, attempt: int, jitter: Jitter) -> float:
    """Return a random wait after attempt number `attempt`: exponential, with full jitter.

    Spreading the waits over the whole range keeps many clients from coming back at once:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return jitter(min(policy.initial_backoff * 2.0 ** min(attempt - 1, 64), policy.max_backoff))


def repeat_with(
    call: CallState, sleep: Callable[[float], Awaitable[None]], before_sleep: Callable[[Failure], None]
) -> AsyncRetrying:
    """Return tenacity's loop. Its callbacks only read what was decided when the attempt ended.

    Args:
        call: Where the decision stands.
        sleep: Waits for a number of seconds.
        before_sleep: Is told each failure that is repeated.
    """
    return AsyncRetrying(
        retry=retry_if_result(lambda outcome: isinstance(outcome, Failure)),
        stop=lambda _: call.delay is None,
        wait=lambda _: call.delay or 0.0,
        before_sleep=lambda state: before_sleep(_last_outcome(state)),
        sleep=sleep,
        retry_error_callback=_last_outcome,
    )


def _last_outcome(state: RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _retry_after(failure: Failure) -> float:
    return (failure.error.retry_after or 0.0) if isinstance(failure.error, APIError) else 0.0


def _knows_wait(error: APIError | None) -> bool:
    """Return whether a 429 says when the limit returns."""
    return error is not None and (knows_reset(error.rate_limit) or bool(error.retry_after))
