"""What is tried again, how often and after which wait: tenacity with sleeps that are only written down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dd_sa_tokens import (
    APIError,
    DatadogError,
    NotFoundError,
    RateLimit,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TransportError,
)
from dd_sa_tokens._execution.budget import RetryBudget
from dd_sa_tokens._execution.retry import CallState, backoff, next_delay, repeat_with, throttle_pause
from dd_sa_tokens._protocol.headers import knows_reset
from dd_sa_tokens._protocol.operations import Operation, get_token
from dd_sa_tokens._protocol.responses import Failure, Retry

GET = get_token("sa", "t1").operation
CREATE = attrs.evolve(GET, name="create_token", method="POST", idempotent=False)
POLICY = RetryPolicy(max_attempts=4, initial_backoff=1.0, max_backoff=8.0)
KNOWN = RateLimit(100, 10.0, 0, 7.0)


def rejected(rate_limit: RateLimit | None = KNOWN, retry_after: float | None = None) -> Failure:
    reset = None if rate_limit is None else rate_limit.reset
    error = RateLimitError(
        "429", status=429, rate_limit=rate_limit, retry_after=retry_after if reset is None else reset
    )
    return Failure(error, Retry.THROTTLED, sent=True, maybe_applied=False)


def failed(retry: Retry = Retry.BACKOFF, retry_after: float | None = None) -> Failure:
    error = ServerError("503", status=503, retry_after=retry_after)
    return Failure(error, retry, sent=True, maybe_applied=True)


def half(longest: float) -> float:
    """Wait half as long as it may be."""
    return longest / 2


def longest(seconds: float) -> float:
    """Wait as long as it may be."""
    return seconds


BARE = rejected(None)
CUT = Failure(TransportError("disconnected"), Retry.BACKOFF, sent=True, maybe_applied=True)
UNSENT = Failure(TransportError("no connection"), Retry.BACKOFF, sent=False, maybe_applied=False)
GONE = Failure(NotFoundError("404", status=404), Retry.NEVER, sent=True, maybe_applied=False)


class Trial:
    """Makes attempts with the given outcomes, the last one again and again, and records what was decided.

    The decision and tenacity's loop are the real ones; every wait is as long as it may be, and none is waited for.
    """

    def __init__(
        self,
        outcomes: Iterable[object],
        policy: RetryPolicy = POLICY,
        operation: Operation[Any] = GET,
        budget: RetryBudget | None = None,
        max_wait: float | None = None,
    ) -> None:
        self._outcomes = list(outcomes)
        self._policy = attrs.evolve(policy, max_rate_limit_wait=max_wait)
        self._operation = operation
        self._call = CallState()
        self.tries = 0
        self.slept: list[float] = []
        self.told: list[Failure] = []
        self.budget = budget or RetryBudget(lambda: 0.0)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def _attempt(self) -> object:
        self.tries += 1
        outcome = self._outcomes[min(self.tries, len(self._outcomes)) - 1]
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, Failure):
            self._decide(outcome)
        return outcome

    def _decide(self, failure: Failure) -> None:
        call, idempotent = self._call, self._operation.idempotent
        call.record(failure)
        call.delay = next_delay(failure, call, self._policy, idempotent=idempotent, jitter=longest)
        if failure.retry is not Retry.THROTTLED and call.delay is not None and not self.budget.take():
            call.delay = None

    async def run(self) -> object:
        return await repeat_with(self._call, self._sleep, self.told.append)(self._attempt)


# Backoff


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (64, 8.0), (100_000, 8.0)]
)
def test_backoff_doubles_up_to_its_maximum(attempt: int, seconds: float) -> None:
    """The longest wait doubles with each try, and never exceeds max_backoff, however many tries there were."""
    assert backoff(POLICY, attempt, longest) == seconds


@given(
    st.floats(0, 1e6, allow_subnormal=False),
    st.floats(0, 1e6, allow_subnormal=False),
    st.integers(1, 10_000),
)
def test_backoff_is_within_its_bounds(initial: float, most: float, attempt: int) -> None:
    """For any policy the wait is neither negative nor longer than it allows."""
    wait = backoff(RetryPolicy(initial_backoff=initial, max_backoff=most), attempt, longest)
    assert 0 <= wait <= most
    assert wait <= initial * 2.0 ** min(attempt - 1, 64)


def test_backoff_has_full_jitter() -> None:
    """The whole wait is left to chance, so that clients do not come back at once."""
    assert backoff(POLICY, 4, half) == 4.0
    assert backoff(POLICY, 4, lambda _: 0.0) == 0.0


# The budget


def test_budget_holds_a_hundred_retries() -> None:
    """An outage costs a client a hundred retries, not a multiple of its requests."""
    budget = RetryBudget(lambda: 0.0)
    assert [budget.take() for _ in range(102)] == [True] * 100 + [False] * 2


def test_budget_comes_back_with_time_and_success() -> None:
    """Each second gives one back, and so do five successes."""
    now = 0.0
    budget = RetryBudget(lambda: now)
    while budget.take():
        pass
    now = 0.9
    assert not budget.take()
    now = 1.0
    assert budget.take()
    assert not budget.take()
    for _ in range(4):
        budget.record_success()
    assert not budget.take()
    budget.record_success()
    budget.record_success()
    assert budget.take()
    assert not budget.take()


def test_budget_never_holds_more_than_its_capacity() -> None:
    """A quiet week does not save up for a storm of retries."""
    now = 0.0
    budget = RetryBudget(lambda: now)
    for _ in range(1_000):
        budget.record_success()
    now = 1e6
    assert sum(budget.take() for _ in range(200)) == 100


# What a 429 says


@pytest.mark.parametrize(
    ("rate", "known"),
    [
        (None, False),
        (RateLimit(), False),
        (RateLimit(limit=100, period=10.0, remaining=0), False),
        (RateLimit(reset=7.0), True),
        (RateLimit(reset=0.25), True),
        (RateLimit(reset=0.0), False),
        (RateLimit(reset=0.0, period=10.0), True),
        (KNOWN, True),
    ],
)
def test_reset_is_known_from_the_headers(rate: RateLimit | None, known: bool) -> None:
    """A positive reset says when; zero does only where the other headers make it the end of a window."""
    assert knows_reset(rate) is known
    assert counted(rejected(rate)) is not known


def counted(failure: Failure) -> bool:
    """Return whether a failure counts toward `max_attempts`."""
    call = CallState()
    call.record(failure)
    return call.counted == 1


def test_the_reset_is_known_from_retry_after_too() -> None:
    """A 429 with nothing but `Retry-After` says when to come back, so it does not count; other failures do."""
    assert not counted(rejected(None, retry_after=3.0))
    assert counted(rejected(None))
    assert counted(failed(retry_after=3.0))
    assert counted(CUT)


@pytest.mark.parametrize(
    ("failure", "in_a_row", "pause"),
    [
        (rejected(None, retry_after=3.0), 1, 3.0),
        (rejected(None, retry_after=3.0), 5, 3.0),
        (rejected(None), 1, 1.0),
        (rejected(None), 3, 4.0),
        (rejected(None), 9, 8.0),
        (rejected(RateLimit(reset=0.0)), 1, 1.0),
        (rejected(RateLimit(limit=100)), 2, 2.0),
    ],
)
def test_a_429_that_the_window_cannot_use_pauses_all_calls(failure: Failure, in_a_row: int, pause: float) -> None:
    """`Retry-After`, else a growing backoff."""
    assert throttle_pause(failure, CallState(throttled=in_a_row), POLICY, longest) == pause


# Tries


async def test_a_value_is_returned_at_once() -> None:
    """A success is neither repeated nor waited for."""
    trial = Trial(["token"])
    assert await trial.run() == "token"
    assert (trial.tries, trial.slept, trial.told) == (1, [], [])


@pytest.mark.parametrize(
    "failure", [failed(), CUT, UNSENT, rejected(), BARE], ids=["5xx", "cut", "unsent", "429", "bare"]
)
async def test_a_passing_failure_is_mended_by_a_retry(failure: Failure) -> None:
    """What may succeed later is tried again, and the value counts."""
    trial = Trial([failure, "token"])
    assert await trial.run() == "token"
    assert trial.tries == 2


@pytest.mark.parametrize(
    ("failure", "operation", "tries"),
    [
        (failed(), GET, 4),
        (CUT, GET, 4),
        (UNSENT, GET, 4),
        (BARE, GET, 4),
        (rejected(RateLimit(reset=0.0)), GET, 4),
        (rejected(), GET, 10),
        (rejected(None, retry_after=3.0), GET, 10),
        (GONE, GET, 1),
        (failed(Retry.NEVER), GET, 1),
        (failed(), CREATE, 1),
        (CUT, CREATE, 1),
        (UNSENT, CREATE, 4),
        (BARE, CREATE, 4),
        (rejected(), CREATE, 10),
        (GONE, CREATE, 1),
    ],
)
async def test_how_often_a_lasting_failure_is_tried(failure: Failure, operation: Operation[Any], tries: int) -> None:
    """max_attempts for failures, ten for 429s that say when, once for what must not be repeated; then that failure."""
    trial = Trial([failure], operation=operation)
    assert await trial.run() is failure
    assert trial.tries == tries
    assert len(trial.slept) == len(trial.told) == tries - 1


@pytest.mark.parametrize(
    ("failure", "tries"),
    [(failed(), 1), (UNSENT, 1), (BARE, 1), (rejected(), 10)],
    ids=["5xx", "unsent", "bare", "429"],
)
async def test_one_attempt_means_no_retry_except_after_a_429(failure: Failure, tries: int) -> None:
    """With max_attempts=1 only a 429 that says when the rate limit returns is tried again: it was not processed."""
    trial = Trial([failure], policy=attrs.evolve(POLICY, max_attempts=1))
    assert await trial.run() is failure
    assert trial.tries == tries


def test_only_the_last_429_explains_a_wait() -> None:
    """An error about the rate limit quotes the last answer if that was a 429, never another failure."""
    call, rejection = CallState(), rejected()
    call.record(rejection)
    assert call.rejection is rejection.error
    call.record(failed())
    assert call.rejection is None


async def test_rejections_in_between_do_not_count() -> None:
    """429s that say when take nothing from max_attempts, and ten in a row means in a row."""
    trial = Trial([*[rejected()] * 9, failed(), *[rejected()] * 9, failed(), *[rejected()] * 9, failed(), "token"])
    assert await trial.run() == "token"
    assert trial.tries == 31
    trial = Trial([failed(), rejected(), failed(), rejected(), failed(), rejected(), failed(), "token"])
    assert isinstance(await trial.run(), Failure)
    assert trial.tries == 7


async def test_waits_double_and_are_told() -> None:
    """Each wait is reported with its failure before it begins, and grows exponentially."""
    trial = Trial([failed(), CUT, UNSENT, failed()])
    await trial.run()
    assert trial.slept == [1.0, 2.0, 4.0]
    assert [failure.error for failure in trial.told][1:] == [CUT.error, UNSENT.error]


async def test_retry_after_is_the_wait() -> None:
    """What the server asks for is waited, up to max_backoff."""
    trial = Trial([failed(retry_after=3.0), failed(retry_after=8.0), failed(), "token"])
    assert await trial.run() == "token"
    assert trial.slept == [3.0, 8.0, 4.0]


@pytest.mark.parametrize(("most", "retry_after"), [(8.0, 8.1), (1.0, 6.0), (0.5, 300.0), (0.0, 0.1)])
async def test_too_long_a_retry_after_fails_at_once(most: float, retry_after: float) -> None:
    """More than max_backoff is not waited for: the failure, with its `retry_after`, comes back at once."""
    failure = failed(retry_after=retry_after)
    trial = Trial([failure, "token"], policy=RetryPolicy(max_backoff=most))
    assert await trial.run() is failure
    assert isinstance(failure.error, APIError)
    assert failure.error.retry_after == retry_after
    assert trial.slept == []


@given(st.lists(st.sampled_from([failed(), CUT, UNSENT, rejected(), BARE, failed(retry_after=7.0)]), max_size=30))
def test_no_wait_is_longer_than_max_backoff(failures: list[Failure]) -> None:
    """With any answers, a call never sleeps for longer than `max_backoff` between two attempts."""
    trial = Trial([*failures, "token"])
    asyncio.run(trial.run())
    assert max(trial.slept, default=0.0) <= POLICY.max_backoff


async def test_a_call_whose_caller_leaves_makes_no_further_attempt() -> None:
    """Once the caller wants no further attempt, each failure is the last."""
    for failure in (failed(), CUT, UNSENT, rejected(), BARE):
        call = CallState(last_attempt=True)
        call.record(failure)
        assert next_delay(failure, call, POLICY, idempotent=True, jitter=longest) is None


async def test_time_spent_waiting_counts_toward_max_rate_limit_wait() -> None:
    """A call that has waited for the rate limit before has less left for a further 429."""
    call = CallState(throttled=1, waited=1.5)
    call.record(rejected())
    policy = attrs.evolve(POLICY, max_rate_limit_wait=2.0)
    assert next_delay(rejected(), call, policy, idempotent=True, jitter=longest) is None
    call.waited = 1.0
    assert next_delay(rejected(), call, policy, idempotent=True, jitter=longest) == 1.0


async def test_the_first_429_waits_for_the_limiter_only_and_further_ones_back_off() -> None:
    """The rate limiter waits for the reset; a request that is rejected again and again backs off as well."""
    trial = Trial([*[rejected()] * 6, failed(), rejected(), rejected(), "token"])
    assert await trial.run() == "token"
    assert trial.slept == [0.0, 1.0, 2.0, 4.0, 8.0, 8.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(("max_wait", "tries"), [(0.0, 2), (0.99, 2), (1.0, 3), (3.99, 4), (4.0, 5)])
async def test_a_429_is_not_waited_for_beyond_max_rate_limit_wait(max_wait: float, tries: int) -> None:
    """A pause of 0 s or of exactly max_rate_limit_wait is waited for, and a longer one ends the call."""
    trial = Trial([rejected()], max_wait=max_wait)
    assert isinstance(await trial.run(), Failure)
    assert trial.tries == tries


async def test_an_empty_budget_stops_retries_but_not_429s() -> None:
    """During an outage the client stops repeating; rejections are exempt, since they cost the server nothing."""
    budget = RetryBudget(lambda: 0.0)
    while budget.take():
        pass
    for failure, tries in ((failed(), 1), (CUT, 1), (UNSENT, 1), (rejected(), 10), (BARE, 4)):
        trial = Trial([failure], budget=budget)
        assert await trial.run() is failure
        assert trial.tries == tries


async def test_retries_spend_the_shared_budget() -> None:
    """Many failing calls together make no more retries than the budget holds, and the last try of each costs none."""
    budget = RetryBudget(lambda: 0.0)
    trials = [Trial([failed()], budget=budget) for _ in range(50)]
    for trial in trials:
        await trial.run()
    assert sum(len(trial.slept) for trial in trials) == 100
    assert sum(trial.tries for trial in trials) == 150


async def test_calls_share_nothing_but_the_budget() -> None:
    """Interleaved calls count their own tries."""
    trials = [Trial([failed()] * n + ["token"]) for n in (0, 1, 2, 3)]
    assert await asyncio.gather(*(trial.run() for trial in trials)) == ["token"] * 4
    assert [trial.tries for trial in trials] == [1, 2, 3, 4]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), DatadogError("a bug"), KeyError("a bug"), TimeoutError()])
async def test_exceptions_pass_untouched(error: BaseException) -> None:
    """Cancellation and bugs are no outcomes to retry: they come out as they are, after one try."""
    trial = Trial([error, "token"])
    with pytest.raises(type(error)) as caught:
        await trial.run()
    assert caught.value is error
    assert trial.tries == 1
    assert trial.slept == []


async def test_cancelling_the_sleep_ends_the_call() -> None:
    """A call that waits for its retry ends when it is cancelled."""
    slept = asyncio.Event()

    async def attempt() -> Failure:
        return failed()

    async def sleep(_: float) -> None:
        slept.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(repeat_with(CallState(delay=1.0), sleep, lambda _: None)(attempt))
    await slept.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
