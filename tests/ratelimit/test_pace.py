"""How one client of a crowd sends its share of the last requests of a window: a pace on its own."""

from __future__ import annotations

import math

import pytest

from dd_sa_tokens._ratelimit.pace import Pace, kept_back


@pytest.mark.parametrize(("factor", "limit", "requests"), [(16.0, 1_000, 6.0), (100.0, 1_000, 15.0), (16.0, 100, 5.0)])
def test_a_few_requests_are_kept_back(factor: float, limit: int, requests: float) -> None:
    """More clients leave more unused, but a twentieth of the limit at most."""
    assert kept_back(factor, limit) == pytest.approx(requests)


def test_a_share_is_sent_one_by_one() -> None:
    """16 clients share the 26 that are left, less 5 that are kept back, over the seven seconds that are left."""
    pace = Pace(0.5)
    each = 7.0 / ((26 - 5) / 16)  # seconds for a request
    assert pace.advance(26, 16.0, 100, 3.0, 10.0) == pytest.approx(each / 2)
    assert pace.advance(26, 16.0, 100, 4.0, 10.0) == pytest.approx(each / 2 - 1)
    now = 3.001 + each / 2
    assert pace.advance(26, 16.0, 100, now, 10.0) == 0
    pace.record_send()
    assert pace.advance(26, 16.0, 100, now, 10.0) == pytest.approx(each, abs=0.01)
    assert pace.advance(26, 16.0, 100, now - 1.0, 10.0) == pytest.approx(each, abs=0.01)  # time does not run back


def test_a_new_count_sets_the_rate_anew() -> None:
    """What others have sent since leaves less for this client, and time that passed was not lost."""
    pace = Pace(0.0)
    assert pace.advance(85, 16.0, 100, 2.0, 10.0) == pytest.approx(8.0 / ((84 - 5) / 16))
    assert pace.advance(45, 16.0, 100, 3.0, 10.0) == pytest.approx((1.0 - 79 / 16 / 8.0) / ((45 - 5) / 16 / 7.0))


def test_what_is_not_sent_is_saved_up_for_one_request_and_a_half() -> None:
    """A client that had nothing to send does not send a burst later."""
    pace = Pace(0.0)
    pace.advance(90, 16.0, 100, 0.0, 10.0)
    assert pace.advance(90, 16.0, 100, 9.0, 10.0) == 0
    pace.record_send()
    assert pace.credit == pytest.approx(0.5)
    assert pace.advance(90, 16.0, 100, 9.0, 10.0) > 0


@pytest.mark.parametrize("left", [0, 3, 5])
def test_what_is_kept_back_is_not_sent(left: int) -> None:
    """With nothing left to share, no request is sent before a new count."""
    pace = Pace(0.75)
    assert pace.advance(left, 16.0, 100, 3.0, 10.0) == math.inf
    assert pace.advance(left, 16.0, 100, 9.0, 10.0) == math.inf


@pytest.mark.parametrize("end", [5.0, 5.01, 4.0])
def test_no_rush_at_the_end_of_a_window(end: float) -> None:
    """Where no time is left to spread the requests over, they are sent as if a fiftieth of a second were."""
    pace = Pace(0.5)
    assert pace.advance(21, 16.0, 100, 5.0, end) == pytest.approx(0.01)


def test_a_wait_is_a_millisecond_at_least() -> None:
    """What is missing of a request by rounding does not keep a client awake."""
    pace = Pace(1.0 - 1e-9)
    assert pace.advance(21, 16.0, 100, 5.0, 6.0) == pytest.approx(0.001)
