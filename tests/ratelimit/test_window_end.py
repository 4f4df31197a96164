"""When a window ends, by what answers say: an interval on its own, without a window."""

from __future__ import annotations

import math

import pytest

from dd_sa_tokens._ratelimit.window_end import WindowEnd


def test_a_window_end_moves_as_a_whole() -> None:
    """Turned to the next window, all that is known of the end lies a period later."""
    end = WindowEnd(lo=107.0, hi=107.5, after=100.25, period=10.0)
    end.move(1)
    assert (end.lo, end.hi, end.after) == (117.0, 117.5, 110.25)


def test_a_rounding_that_is_found_out_shifts_the_interval() -> None:
    """A window that is still there after its end ends half a second later, or a whole one."""
    end = WindowEnd(period=10.0, skew=2.0)  # the wall clock's end of the window is at 108, 118, ...
    end.observe(100.0, 100.25, 8.0)
    assert (end.lo, end.hi, end.rounding_offset) == (107.0, 108.25, 0.0)
    end.observe(108.25, 108.25, None)
    assert end.rounding_offset == 1.0
    assert (end.lo, end.hi) == (109.25, 109.25)
    assert end.interval_of(110.0, 110.25, 8.0) == (118.0, 119.25)


def test_intervals_that_touch_meet() -> None:
    """An end that two answers agree upon to the moment is not thrown away."""
    end = WindowEnd(lo=107.0, hi=107.5)
    assert end.overlaps(107.5, 108.0)
    assert end.overlaps(106.0, 107.0)
    assert not end.overlaps(107.75, 108.0)


def test_without_a_reset_the_end_is_at_most_a_period_away() -> None:
    """An answer that names no reset was given in the window: it ends after the request was sent."""
    assert WindowEnd(period=10.0).interval_of(3.0, 3.25, None) == (3.0, 13.25)
    assert WindowEnd().interval_of(3.0, 3.25, None) == (3.0, 3.25)


@pytest.mark.parametrize(("offset", "interval"), [(0.0, (9.0, 10.25)), (0.5, (9.5, 10.75)), (1.0, (10.0, 11.25))])
def test_the_rounding_decides_where_a_reset_puts_the_end(offset: float, interval: tuple[float, float]) -> None:
    """A reset that is rounded down, or to the nearest second, stands for a later end."""
    assert WindowEnd(rounding_offset=offset).interval_of(3.0, 3.25, 7.0) == interval


@pytest.mark.parametrize(
    ("reset", "expected", "windows"),
    [
        (7.0, None, 0),
        (7.0, 0, 0),
        (17.0, None, 1),
        (27.0, None, 2),
        (-3.0, None, -1),
        (-13.0, -1, -2),
        (11.5, 0, 0),
        (11.5, 1, 0),
        (12.5, 1, 1),
        (8.0, 0, 0),
        (16.2, 0, 1),
        (16.2, 1, 1),
        (16.2, 2, 1),
    ],
)
def test_an_answer_is_of_the_window_that_its_reset_names(reset: float, expected: int | None, windows: int) -> None:
    """The window that it was meant for where the answer allows it, else the one whose end is nearest."""
    end = WindowEnd(lo=9.0, hi=10.0, period=10.0)
    assert end.windows_from_here(3.0, 3.25, reset, expected) == windows


def test_nothing_is_told_apart_while_the_end_or_the_period_is_unknown() -> None:
    """An answer then is of the current window, whatever its reset."""
    assert WindowEnd(lo=9.0, hi=10.0).windows_from_here(3.0, 3.25, 57.0, None) == 0
    assert WindowEnd(period=10.0).windows_from_here(3.0, 3.25, 57.0, 3) == 0


@pytest.mark.parametrize(
    ("lo", "hi", "after", "skew", "expected"),
    [
        (9.0, 10.25, 0.0, 0.0, 10.0),
        (9.0, 10.25, 0.0, 0.5, 9.5),
        (9.0, 10.25, 0.0, 1.5, 10.25),  # 8.5 is too early
        (9.0, 10.25, 10.125, 0.0, 10.25),  # a request sent later was of this window
        (9.0, 9.75, 0.0, 0.0, 9.75),
        (9.0, 31.0, 0.0, 0.0, 30.0),  # the last of several
    ],
)
def test_the_wall_clock_names_the_end_within_the_interval(
    lo: float, hi: float, after: float, skew: float, expected: float
) -> None:
    """The last multiple of the period that fits is expected; where none does, the end of the interval."""
    end = WindowEnd(lo=lo, hi=hi, after=after, period=10.0, skew=skew)
    assert expected < end.expected() < expected + 0.05
    assert end.is_known == (expected != hi)


def test_a_narrow_interval_is_known_without_the_wall_clock() -> None:
    """Answers may put the end as well as a wall clock does."""
    assert WindowEnd(lo=9.5, hi=9.59, period=10.0).is_known
    assert not WindowEnd(lo=9.5, hi=9.65, period=10.0).is_known
    assert not WindowEnd(lo=9.5, hi=9.65).is_known


def test_an_answer_that_contradicts_the_others_starts_over() -> None:
    """A clock was set: the last answer is believed, and not the ones before."""
    end = WindowEnd(period=10.0, skew=2.0)
    end.observe(3.0, 3.25, 8.0)
    end.observe(4.0, 4.25, 2.0)
    assert (end.lo, end.hi, end.after) == (5.0, 6.25, 4.0)
    end.observe(3.5, 4.5, 2.0)  # sent earlier, so nothing new
    assert (end.lo, end.hi, end.after) == (5.0, 6.25, 4.0)


def test_rounding_to_nearest_is_assumed_while_the_wall_clock_agrees() -> None:
    """A request from after the end shows that resets are not rounded up; the wall clock tells which way they are."""
    nearest = WindowEnd(lo=8.5, hi=9.75, period=10.0, skew=0.0)
    nearest.observe(9.75, 9.8, 0.0)
    assert (nearest.rounding_offset, nearest.lo, nearest.hi) == (0.5, 9.25, 10.25)
    assert nearest.wall_clock_estimate() == 10.0
    nearest.observe(10.25, 10.3, 0.0)
    assert (nearest.rounding_offset, nearest.hi) == (1.0, 10.75)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_fast_path_narrows_the_interval_like_the_general_one(offset: float) -> None:
    """A later answer with the same reset raises the earliest end."""
    fast, general = (WindowEnd(9.0, 10.25, 3.0, 10.0, 0.0, offset) for _ in range(2))
    for sent, reset in ((3.5, 7.0 - offset), (3.25, 7.0 - offset)):
        assert fast.narrow_from_below(sent, reset)
        general.observe(sent, math.nextafter(10.25, math.inf) - 7.0, reset)
        assert (fast.lo, fast.hi, fast.after) == (9.5, 10.25, 3.5) == (general.lo, general.hi, general.after)


def test_the_fast_path_leaves_what_shows_a_rounding_to_the_general_one() -> None:
    """While rounding to nearest is assumed, or where the answer leaves no interval, other rules are needed."""
    end = WindowEnd(9.0, 10.25, 3.0, 10.0, 0.0, 0.5)
    assert not end.narrow_from_below(3.5, 6.0)
    end = WindowEnd(9.0, 10.25, 3.0, 10.0)
    assert not end.narrow_from_below(4.25, 7.0)
    assert not end.narrow_from_below(10.25, 0.0)
    assert (end.lo, end.hi, end.after) == (9.0, 10.25, 3.0)
