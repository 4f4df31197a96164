"""When a window ends, by what answers say: an interval on its own, without a ledger."""

from __future__ import annotations

import pytest

from dd_sa_tokens._boundary import Boundary


def test_a_boundary_moves_as_a_whole() -> None:
    """Turned to the next window, all that is known of the end lies a period later."""
    boundary = Boundary(lo=107.0, hi=107.5, after=100.25, period=10.0)
    boundary.move(10.0)
    assert (boundary.lo, boundary.hi, boundary.after) == (117.0, 117.5, 110.25)


@pytest.mark.parametrize(("sent", "guessing"), [(107.25, False), (107.5, True), (108.0, True)])
def test_only_a_request_before_the_interval_s_end_was_early(sent: float, guessing: bool) -> None:
    """The wall clock is no longer asked once a request went by it before the end, and still is after one behind it."""
    boundary = Boundary(lo=107.0, hi=107.5, period=10.0)
    boundary.was_early(sent)
    assert boundary.guessing is guessing


def test_a_rounding_that_is_found_out_shifts_the_interval() -> None:
    """A window that is still there after its end ends half a second later, or a whole one."""
    boundary = Boundary(period=10.0, skew=2.0)  # the wall clock's boundary is at 108, 118, ...
    boundary.observe(100.0, 100.25, 8.0)
    assert (boundary.lo, boundary.hi, boundary.shift) == (107.0, 108.25, 0.0)
    boundary.observe(108.25, 108.25, None)
    assert boundary.shift == 1.0
    assert (boundary.lo, boundary.hi) == (109.25, 109.25)
    assert boundary.seen(110.0, 110.25, 8.0) == (118.0, 119.25)


def test_intervals_that_touch_meet() -> None:
    """An end that two answers agree upon to the moment is not thrown away."""
    boundary = Boundary(lo=107.0, hi=107.5)
    assert boundary.meets(107.5, 108.0)
    assert boundary.meets(106.0, 107.0)
    assert not boundary.meets(107.75, 108.0)
