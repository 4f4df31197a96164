"""The fast path has the same effect as the general path."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.windows import answer, rate

from dd_sa_tokens import RateLimit
from dd_sa_tokens._ratelimit import Permit
from dd_sa_tokens._ratelimit.window import RateLimitWindow

# The light way


class Heavy(RateLimitWindow):
    """A window that goes the long way for every question and answer."""

    def _has_headroom(self, now: float, taken: int) -> bool:
        return False

    def _record_on_fast_path(self, permit: Permit, now: float, rate: RateLimit) -> bool:
        return False


def state(window: RateLimitWindow, now: float) -> tuple[Any, ...]:
    """Return all that a window says, and what it will say it from."""
    shortages = [window.exhausted_for(now, ahead) for ahead in (0, 2, 60, 2_000)]
    return shortages, window.view(now), window.delay_until_admitted(now), window.end, window.contention


def with_plenty(kind: type[RateLimitWindow], at: float = 3.0) -> RateLimitWindow:
    """Return a window of a window with so much left that answers may go the short way."""
    window = kind(concurrency=1)
    answer(window, at, at + 0.1, rate(900, 10 - at % 10, limit=1_000))
    assert window.can_send(at + 0.1)
    return window


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize(
    "said",
    [
        rate(890, 7, limit=1_000),
        rate(890, 7, limit=900),
        rate(890, 7, limit=None),
        rate(890, 7, limit=1_000, period=60.0),
        rate(890, 7, limit=1_000, period=None),
        rate(None, 7, limit=1_000),
        rate(890, 6, limit=1_000),
        rate(890, None, limit=1_000),
        rate(3, 7, limit=1_000),
    ],
    ids=str,
)
def test_an_answer_that_tells_something_new_is_taken_in(said: RateLimit, status: int) -> None:
    """Anything new or missing in an answer is recorded, even if much of the limit is left."""
    light, heavy = with_plenty(RateLimitWindow), with_plenty(Heavy)
    for window in (light, heavy):
        window.record_response(window.acquire(3.2), 3.3, 3.3, said, status)
    assert state(light, 3.4) == state(heavy, 3.4)
    assert light.can_send(3.4) == heavy.can_send(3.4)


def test_after_plenty_too_a_window_begins_with_one_request() -> None:
    """That there was plenty in a window says nothing about the next one, whose first request goes alone."""
    window = with_plenty(RateLimitWindow)
    answer(window, 4.0, 4.1, rate(890, 6, limit=1_000))
    assert window.can_send(10.1)
    window.acquire(10.1)
    assert not window.can_send(10.1)


def test_a_rounding_is_found_out_where_there_is_plenty() -> None:
    """With plenty left, too, an answer that no rounding to nearest could give shows that the server rounds down."""
    light, heavy = RateLimitWindow(concurrency=1), Heavy(concurrency=1)
    for at, remaining, reset, shift in (
        (3.6, 900, 6, 0.0),
        (9.75, 890, 0, 0.5),
        (10.1, 999, 10, 0.5),
        (10.3, 990, 10, 0.5),
        (10.55, 980, 10, 1.0),
    ):
        for window in (light, heavy):
            answer(window, at, at + 0.05, rate(remaining, reset, limit=1_000))
            assert window.end is not None
            assert window.end.rounding_offset == shift
        assert state(light, at + 0.05) == state(heavy, at + 0.05)


@pytest.mark.parametrize("foreign", [False, True])
def test_an_answer_to_a_request_from_elsewhere_is_none_of_this_windows_own(foreign: bool) -> None:
    """A request of the window before, or of a window that has joined this one, says nothing about who else is here."""
    pair: list[RateLimitWindow] = []
    for kind in (RateLimitWindow, Heavy):
        before = with_plenty(kind, 3.0)
        late = before.acquire(9.95)
        window = with_plenty(kind, 10.0) if foreign else before
        window.in_flight += foreign
        answer(window, 10.1, 10.15, rate(880, 10, limit=1_000))
        assert window.can_send(10.15)
        late.window_number = window.number if foreign else late.window_number
        window.record_response(late, 10.2, 10.2, rate(850, 10, limit=1_000), 200)
        pair.append(window)
    light, heavy = pair
    assert state(light, 10.2) == state(heavy, 10.2)


@settings(max_examples=300, deadline=None)
@example(  # the first answer of a window shows a crowd, while the window before had plenty
    script=[
        (0.0, 1, 0, 0, False),
        (0.5, 0, 1, 6, False),
        (0.0, 1, 1, 3, False),
        (0.0, 2, 0, 0, False),
        (0.0, 0, 1, 0, False),
        (0.0, 1, 0, 0, False),
    ],
    limit=80,
    concurrency=3,
    phase=0.0,
    offset=-0.43,
    rounded=math.ceil,
)
@given(
    script=st.lists(
        st.tuples(
            st.floats(0.0, 0.6),  # seconds that pass
            st.integers(0, 3),  # requests sent then, where they may be
            st.integers(0, 3),  # answers that come then
            st.integers(0, 6),  # how many the others send meanwhile
            st.booleans(),  # the oldest answers first, or the newest
        ),
        min_size=5,
        max_size=60,
    ),
    limit=st.sampled_from([40, 80, 1_000]),
    concurrency=st.sampled_from([1, 3]),
    phase=st.floats(0.0, 10.0),
    offset=st.sampled_from([0.0, 0.43, -0.43]),
    rounded=st.sampled_from([math.ceil, round, math.floor]),
)
def test_an_answer_that_tells_nothing_new_is_taken_in_as_if_it_did(
    script: list[tuple[float, int, int, int, bool]],
    limit: int,
    concurrency: int,
    phase: float,
    offset: float,
    rounded: Any,
) -> None:
    """The short way of an answer leaves a window that says the same at every moment as one that knows no short way."""
    pair = RateLimitWindow(concurrency=concurrency), Heavy(concurrency=concurrency)
    now, used, current = 1_000.0 + phase, 0, 0
    in_flight: list[tuple[Permit, Permit, RateLimit]] = []
    for seconds, sends, answers, others, oldest in script:
        now += seconds
        if (now + offset) // 10 != current:
            current, used = (now + offset) // 10, 0
        used = min(used + others, limit)
        for _ in range(min(sends, concurrency - len(in_flight))):
            light, heavy = (window.can_send(now) for window in pair)
            assert light == heavy
            if light and used < limit:
                used += 1
                rate = RateLimit(limit, 10.0, limit - used, float(rounded(10 - (now + offset) % 10)), "name")
                in_flight.append((pair[0].acquire(now), pair[1].acquire(now), rate))
        for _ in range(min(answers, len(in_flight))):
            *permits, rate = in_flight.pop(0 if oldest else -1)
            for window, permit in zip(pair, permits, strict=True):
                window.record_response(permit, now, now, rate, 200)
        light_state, heavy_state = (state(window, now) for window in pair)
        assert light_state == heavy_state
