"""What is sent again and for how long to wait before; the budget that keeps an outage from being made worse."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from ._wire import Failure, Fate, Operation
from .config import RetryPolicy
from .errors import APIError, RateLimitError
from .models import RateLimit

MOST_REJECTIONS = 10
"""429s in a row on one request, after which it fails."""

_PATIENCE = 10.0  # a Retry-After of more than this many times max_backoff is not waited for


class RetryBudget:
    """What all calls of a client together may spend on retries: during an outage they must not multiply the load.

    A full budget holds 100 retries. Five successes give one back, and so does each second.
    """

    capacity = 100.0
    per_success = 0.2
    per_second = 1.0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = self.capacity
        self._counted_at = clock()

    def take(self) -> bool:
        """Spend one retry, if there is one."""
        now = self._clock()
        self._left = min(self._left + (now - self._counted_at) * self.per_second, self.capacity)
        self._counted_at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def succeeded(self) -> None:
        """Earn back a part of a retry."""
        self._left = min(self._left + self.per_success, self.capacity)


def backoff(policy: RetryPolicy, attempt: int) -> float:
    """Return a random wait after try number `attempt`: exponential, with full jitter.

    Spreading the waits over the whole range is what keeps many clients from coming back at once:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    longest = min(policy.initial_backoff * 2.0 ** min(attempt - 1, 64), policy.max_backoff)
    return random.uniform(0.0, longest)  # noqa: S311 - no secret is made of it


def reset_known(rate: RateLimit | None) -> bool:
    """Tell whether headers say when the quota returns. A bare `0` does not: only with a period is it a boundary."""
    return rate is not None and rate.reset is not None and (rate.reset > 0 or rate.period is not None)


def quota_known(failure: Failure) -> bool:
    """Tell whether a failure is a 429 that says when the quota returns."""
    error = failure.error
    return isinstance(error, RateLimitError) and (reset_known(error.rate_limit) or bool(error.retry_after))


def rejection_pause(failure: Failure, policy: RetryPolicy, rejections: int) -> float:
    """Return for how long a 429 closes the gate: 0 where the ledger knows it from the headers.

    Args:
        failure: The 429.
        policy: The client's.
        rejections: 429s in a row on this request, this one included.
    """
    error = failure.error
    if not isinstance(error, RateLimitError) or reset_known(error.rate_limit):
        return 0.0
    return error.retry_after or backoff(policy, rejections)


@attrs.define(eq=False)
class Retries:
    """The tries of one call, told to tenacity as its strategies.

    Attributes:
        policy: How patient to be.
        operation: What is tried.
        budget: Shared by all calls of the client.
        on_retry: Called before each wait with the failure and the seconds.
        sleep: Waits.
        patience: Tells for how many more seconds the call may wait for quota.
        counted: Tries that count toward `max_attempts`.
        rejections: 429s in a row.
    """

    policy: RetryPolicy
    operation: Operation[Any]
    budget: RetryBudget
    on_retry: Callable[[Failure, float], None]
    sleep: Callable[[float], Awaitable[None]]
    patience: Callable[[], float] = lambda: math.inf
    counted: int = 0
    rejections: int = 0

    async def run(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """Try until there is a value or a failure to stop at, and return that."""
        retrying = AsyncRetrying(
            retry=retry_if_result(self._again),
            stop=self._stop,
            wait=self._wait,
            before_sleep=self._before_sleep,
            sleep=self.sleep,
            retry_error_callback=_last_outcome,
        )
        return await retrying(attempt)

    def _again(self, outcome: object) -> bool:
        """Tell whether an outcome may be tried again at all; the tally is kept here, where each one passes once."""
        if not isinstance(outcome, Failure):
            return False
        self.rejections = self.rejections + 1 if outcome.fate is Fate.NOT_PROCESSED else 0
        self.counted += not quota_known(outcome)
        return outcome.fate in {Fate.NOT_SENT, Fate.NOT_PROCESSED} or (
            outcome.fate is Fate.UNKNOWN and self.operation.repeatable
        )

    def _stop(self, state: RetryCallState) -> bool:
        failure = _failure(state)
        if failure.fate is Fate.NOT_PROCESSED:
            impatient = state.upcoming_sleep > self.patience()
            return impatient or self.rejections >= MOST_REJECTIONS or self.counted >= self.policy.max_attempts
        too_late = _retry_after(failure) > _PATIENCE * self.policy.max_backoff
        return too_late or self.counted >= self.policy.max_attempts or not self.budget.take()

    def _wait(self, state: RetryCallState) -> float:
        failure = _failure(state)
        if failure.fate is Fate.NOT_PROCESSED:
            # The gate waits for the quota; beside that, only a request that is rejected again and again slows down.
            return backoff(self.policy, self.rejections - 1) if self.rejections > 1 else 0.0
        return _retry_after(failure) or backoff(self.policy, self.counted)

    def _before_sleep(self, state: RetryCallState) -> None:
        assert state.next_action is not None
        self.on_retry(_failure(state), state.next_action.sleep)


def _retry_after(failure: Failure) -> float:
    return (failure.error.retry_after or 0.0) if isinstance(failure.error, APIError) else 0.0


def _last_outcome(state: RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _failure(state: RetryCallState) -> Failure:
    outcome = _last_outcome(state)
    assert isinstance(outcome, Failure)
    return outcome
