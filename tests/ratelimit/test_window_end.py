"""When a window ends, by what answers say: an interval on its own, without a window."""

from __future__ import annotations

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
