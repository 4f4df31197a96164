"""One rate-limit window in virtual time: how it opens, what it counts, when it ends, what a 429 does."""

from __future__ import annotations

import attrs
import pytest
from support.internals import probe_of
from support.windows import ALIGNED, LIMIT, PERIOD, SOON, answer, left, opened, passing, rate

from dd_sa_tokens import RateLimit
from dd_sa_tokens._ratelimit.probe import PROBE_TIMEOUT
from dd_sa_tokens._ratelimit.store import WindowView
from dd_sa_tokens._ratelimit.window import RateLimitWindow

ASTRAY = 5.0  # so that the wall clock's boundaries are never where the answers put them


# The first request


def test_first_request_goes_alone_for_a_second_at_most() -> None:
    """Nothing is known yet: one goes, the rest wait for its headers, but no longer than a second."""
    window = RateLimitWindow()
    assert window.delay_until_admitted(5.0) == 0
    window.acquire(5.0)
    assert window.delay_until_admitted(5.0) == pytest.approx(PROBE_TIMEOUT) == 1.0
    assert window.delay_until_admitted(5.4) == pytest.approx(0.6)
    assert window.delay_until_admitted(5.999) > 0
    assert len(passing(window, 6.0)) == 1000


def test_first_answer_opens_the_window() -> None:
    """The headers of the first answer say how many more may go."""
    window = opened(remaining=7)
    assert len(passing(window, 3.2)) == 7
    assert window.delay_until_admitted(3.3) > 0


def test_after_an_error_page_the_next_goes_alone_at_once() -> None:
    """A first answer without headers teaches nothing: the next one goes alone, for what is left of the second."""
    window = RateLimitWindow()
    answer(window, 0.0, 0.5, None, status=502)
    assert len(passing(window, 0.5)) == 1
    assert window.delay_until_admitted(0.6) == pytest.approx(0.4)


@pytest.mark.parametrize("said", [rate(50, None, period=None), RateLimit(reset=7), RateLimit(limit=100)])
def test_a_success_whose_headers_do_not_tell_enough_opens(said: RateLimit) -> None:
    """How many are left is of no use without until when, and the other way round."""
    window = RateLimitWindow()
    answer(window, 0.0, 0.1, said)
    assert len(passing(window, 0.1)) == 1000


def test_without_a_count_it_keeps_one_of_its_own() -> None:
    """Where answers name the limit and the reset but not what remains, no more than the limit is sent in a window."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.1, rate(None, 7))
    permits = passing(window, 3.1)
    assert len(permits) == LIMIT - 1
    for permit in permits:
        window.record_response(permit, 3.2, 3.2, rate(None, 7), 200)
    assert window.delay_until_admitted(3.2) > 6


def test_error_pages_do_not_hold_the_others_one_after_the_other() -> None:
    """The second counts from the first request: after it all go, however many answers said nothing."""
    window = RateLimitWindow()
    for at in (0.0, 0.3, 0.6, 0.9):
        assert len(passing(window, at)) == 1
        probe = probe_of(window)
        assert probe is not None
        window.abandon(probe)
    assert len(passing(window, 1.0)) == 1000


def test_after_a_silence_one_goes_alone_again() -> None:
    """A client that learnt nothing and then had nothing to do does not begin with a rush."""
    window = RateLimitWindow()
    answer(window, 0.0, 0.5, None, status=502)
    assert len(passing(window, 60.0)) == 1


@pytest.mark.parametrize("end", ["abandon", "cancel"])
def test_a_first_request_without_an_answer_gives_way(end: str) -> None:
    """When the first request is lost or never left, the next takes its turn alone."""
    window = RateLimitWindow()
    getattr(window, end)(window.acquire(0.0))
    assert len(passing(window, 0.2)) == 1


def test_a_stalled_probe_holds_the_others_once() -> None:
    """Once the second is over the others flow, and go on flowing when the stalled one is lost at last."""
    window = RateLimitWindow()
    stalled = window.acquire(0.0)
    assert len(passing(window, 1.0, most=5)) == 5
    window.abandon(stalled)
    assert len(passing(window, 1.1, most=5)) == 5


def test_a_probe_that_is_lost_late_does_not_hold_the_others_again() -> None:
    """While requests are in flight there is no silence: they flow, however long the first one has stalled."""
    window = RateLimitWindow()
    stalled = window.acquire(0.0)
    assert len(passing(window, 1.0, most=5)) == 5
    window.abandon(stalled)
    assert len(passing(window, 5.0, most=5)) == 5


def test_after_a_silence_one_goes_alone_however_much_is_left() -> None:
    """A window that no answer has confirmed is not taken for one with plenty left, even if its others once flowed."""
    window = RateLimitWindow(concurrency=1)
    answer(window, 3.0, 3.1, rate(900, 7, limit=1_000))
    window.pause(3.5)
    stalled = [window.acquire(3.5)]
    assert not window.can_send(3.6)
    assert window.can_send(4.6)
    stalled.append(window.acquire(4.6))
    for permit in stalled:
        window.abandon(permit)
    assert window.can_send(6.5)
    window.acquire(6.5)
    assert not window.can_send(6.6)


def test_headerless_success_opens_fully_while_no_limit_is_known() -> None:
    """A server without rate limits is not slowed down."""
    window = RateLimitWindow()
    answer(window, 0.0, 0.1, None)
    assert len(passing(window, 0.1)) == 1000
    assert window.view(0.1) is None


# Room


def test_what_may_be_sent_is_remaining_less_in_flight() -> None:
    """Requests in flight are counted as spent, in any order of the answers."""
    window = opened(remaining=10)
    permits = passing(window, 4.0)
    assert len(permits) == 10
    for permit, remaining in zip(permits, [0, 9, 3, 7, 1, 8, 2, 6, 4, 5], strict=True):
        assert window.delay_until_admitted(4.2) > 0
        window.record_response(permit, 4.3, 4.3, rate(remaining, 6), 200)
    assert window.in_flight == 0
    assert window.delay_until_admitted(4.5) == pytest.approx(5.5, abs=SOON)


@pytest.mark.parametrize("period", [PERIOD, None])
def test_lowest_remaining_counts(period: float | None) -> None:
    """An answer that was overtaken does not raise what a later one has lowered."""
    window = RateLimitWindow()
    answer(window, 9.1, 9.2, rate(50, 1, period=period))
    first, second = window.acquire(9.3), window.acquire(9.3)
    window.record_response(second, 9.4, 9.4, rate(20, 1, period=period), 200)
    window.record_response(first, 9.5, 9.5, rate(49, 1, period=period), 200)
    assert left(window, 9.5) == 20


def test_spent_by_others_counts() -> None:
    """When others have spent the window, the headers say so and the rate limiter closes."""
    window = opened(remaining=50)
    answer(window, 4.0, 4.1, rate(0, 6))
    assert window.delay_until_admitted(4.1) == pytest.approx(5.9, abs=SOON)


@pytest.mark.parametrize(
    ("end", "after"), [("cancel", 10), ("abandon", 9)], ids=["never left: not counted", "lost: may have been counted"]
)
def test_a_request_without_an_answer(end: str, after: int) -> None:
    """A request that got lost may have been counted and takes one; one that never left takes none."""
    window = opened(remaining=10)
    permit = window.acquire(4.0)
    assert left(window, 4.0) == 9
    getattr(window, end)(permit)
    assert left(window, 4.0) == after
    assert window.exhausted_for(4.0, after - 1) == 0  # it was taken off once at most
    assert window.exhausted_for(4.0, after) > 0
    assert window.in_flight == 0


def test_lost_requests_never_take_more_than_there_is() -> None:
    """The count stays at zero, so that later windows are not short."""
    window = opened(remaining=1)
    permits = [window.acquire(4.0) for _ in range(3)]
    for permit in permits:
        window.abandon(permit)
    assert left(window, 4.0) == 0
    assert left(window, 10.5) == LIMIT


def test_headerless_success_takes_one_once_a_limit_is_known() -> None:
    """An answer without headers was counted by the server all the same."""
    window = opened(remaining=10)
    answer(window, 4.0, 4.1, None)
    assert left(window, 4.1) == 9


@pytest.mark.parametrize("said", [None, RateLimit(), RateLimit(limit=1, period=1.0, reset=0.0), RateLimit(reset=2.0)])
@pytest.mark.parametrize("status", [300, 302, 403, 404, 500, 502])
def test_an_error_page_changes_nothing(status: int, said: RateLimit | None) -> None:
    """A proxy's error page without a count says nothing about the rate limit."""
    window = opened(remaining=10)
    before = window.view(4.1)
    answer(window, 4.0, 4.1, said, status=status)
    assert window.view(4.1) == before


def test_an_error_with_headers_counts() -> None:
    """A 404 by the API itself was counted, and its headers are as good as any."""
    window = opened(remaining=10)
    answer(window, 4.0, 4.1, rate(4, 6), status=404)
    assert left(window, 4.1) == 4


def test_an_answer_keeps_what_it_does_not_say() -> None:
    """An answer without limit, period and name leaves those that an earlier answer gave."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, RateLimit(100, 10.0, 50, 7.0, "tokens"))
    answer(window, 4.0, 4.1, RateLimit(remaining=40, reset=6.0))
    view = window.view(4.1)
    assert view == RateLimit(100, 10.0, 40, view.reset, "tokens")


def test_a_count_of_its_own_ends_at_zero() -> None:
    """More successes than the limit in a window leave nothing, not less than nothing."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.1, rate(None, 7, limit=2))
    for permit in [window.acquire(3.2) for _ in range(4)]:
        window.record_response(permit, 3.3, 3.3, rate(None, 7, limit=2), 200)
    assert window.remaining == 0
    assert window.exhausted_for(4.0, 1) == pytest.approx(6.0, abs=SOON)


@pytest.mark.parametrize("end", ["cancel", "abandon"])
def test_a_request_of_another_window_without_an_answer_makes_no_room(end: str) -> None:
    """Only a request of this window that no count has shown yet leaves room for another one."""
    window = opened(remaining=50)
    late = [window.acquire(9.5) for _ in range(5)]
    for permit in late[:4]:
        window.cancel(permit)
    answer(window, 10.1, 10.2, rate(10, 10))
    getattr(window, end)(late[4])
    least = window.remaining
    assert least == (10 if end == "cancel" else 9)
    assert window.exhausted_for(10.3, least - 1) == 0
    assert window.exhausted_for(10.3, least) > 0


@pytest.mark.parametrize("end", ["cancel", "abandon"])
def test_a_request_from_elsewhere_without_an_answer_makes_no_room(end: str) -> None:
    """A request of a window that has joined this one was never among those that this one expects in the count."""
    elsewhere, window = opened(remaining=50), opened(remaining=50)
    late = [elsewhere.acquire(4.0) for _ in range(5)][4]
    window.in_flight += 1
    getattr(window, end)(late)
    least = window.remaining
    assert least == (50 if end == "cancel" else 49)
    assert window.exhausted_for(4.1, least - 1) == 0
    assert window.exhausted_for(4.1, least) > 0


@pytest.mark.parametrize("end", ["cancel", "abandon"])
def test_a_request_that_a_count_may_show_makes_no_room(end: str) -> None:
    """Where a later answer may count a request in already, it makes no more room when it ends without an answer."""
    window = opened(remaining=50)
    earlier = window.acquire(4.0)
    answer(window, 4.0, 4.1, rate(30, 6))
    getattr(window, end)(earlier)
    least = window.remaining
    assert least == (30 if end == "cancel" else 29)
    assert window.exhausted_for(4.2, least - 1) == 0
    assert window.exhausted_for(4.2, least) > 0


# 429


def test_a_429_closes_for_everyone_until_the_reset() -> None:
    """After a 429 nothing is sent before the window ends, even if the header says that more is left."""
    window = opened(remaining=50)
    others = [window.acquire(4.0) for _ in range(3)]
    answer(window, 4.0, 4.1, rate(50, 6), status=429)
    assert window.delay_until_admitted(4.1) == pytest.approx(5.9, abs=SOON)
    window.record_response(others[0], 4.2, 4.2, rate(30, 6), 200)
    assert window.delay_until_admitted(9.9) > 0
    assert window.delay_until_admitted(10.0 + SOON) == 0


def test_a_429_as_the_first_answer_closes() -> None:
    """A client that starts into a spent window waits for its end, and lets one go alone then."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, rate(0, 7), status=429)
    assert window.delay_until_admitted(3.2) == pytest.approx(6.8, abs=SOON)
    assert len(passing(window, 10.1)) == 1


def test_a_429_with_a_reset_only_closes() -> None:
    """A reset without limit, period and remaining is enough to know for how long nothing goes."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, RateLimit(reset=7.0), status=429)
    assert window.delay_until_admitted(3.2) == pytest.approx(7.0, abs=SOON)
    assert len(passing(window, 10.3)) == 1


def test_a_429_teaches_limit_and_period_without_a_count() -> None:
    """Of what is left a 429 need not speak: what its other headers say holds for the windows that follow."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, rate(None, 7), status=429)
    view = window.view(23.2)
    assert view is not None
    assert view == RateLimit(LIMIT, PERIOD, LIMIT, view.reset, None)
    assert view.reset == pytest.approx(6.8, abs=SOON)


@pytest.mark.parametrize("said", [None, rate(0, None), RateLimit(limit=5)])
def test_a_429_without_a_reset_leaves_the_closing_to_the_caller(said: RateLimit | None) -> None:
    """The window does not know when the window ends; `close` says how long to wait, and the longest counts."""
    window = RateLimitWindow()
    answer(window, 0.0, 0.1, said, status=429)
    assert window.delay_until_admitted(0.1) == 0
    window.pause(2.0)
    window.pause(1.0)
    assert window.delay_until_admitted(0.5) == pytest.approx(1.5)
    assert window.delay_until_admitted(1.99) > 0
    assert len(passing(window, 2.0)) == 1


def test_after_a_closing_the_first_goes_alone() -> None:
    """Whether the rate limit is back shows on one request, not on fifty."""
    window = opened(remaining=50)
    window.pause(6.0)
    assert passing(window, 5.9) == []
    assert len(passing(window, 6.0)) == 1
    assert window.delay_until_admitted(6.1) == pytest.approx(0.9)


# The next window


@pytest.mark.parametrize("skew", [ALIGNED, ASTRAY])
def test_the_next_window_is_the_limit_s_worth_and_begins_with_one(skew: float) -> None:
    """A moment after the window's end one request goes alone to confirm the next; its answer opens the rest."""
    window = opened(remaining=0, skew=skew)
    end = 3.2 + window.delay_until_admitted(3.2)
    assert (10.0 if skew == ALIGNED else 10.2) < end <= 10.2 + SOON
    assert window.delay_until_admitted(end - 0.001) > 0
    (probe,) = passing(window, end)
    assert left(window, end) == LIMIT - 1
    assert 0 < window.delay_until_admitted(end) <= PROBE_TIMEOUT
    window.record_response(probe, end + 0.1, end + 0.1 + skew, rate(LIMIT - 1, 10), 200)
    assert len(passing(window, end + 0.1)) == LIMIT - 1


@pytest.mark.parametrize(("limit", "most"), [(3, 0), (4, 1)])
def test_what_is_still_in_flight_may_be_counted_in_the_next_window(limit: int, most: int) -> None:
    """Even the first request of a window waits where those without an answer yet may use all of it."""
    window = RateLimitWindow()
    answer(window, 9.0, 9.1, rate(3, 1, limit))
    assert len(passing(window, 9.9)) == 3
    assert len(passing(window, 10.1)) == most


def test_unused_windows_pass() -> None:
    """After an idle hour the end of the window that was learnt still holds, to the phase."""
    window = opened(remaining=0)
    view = window.view(3606.0)
    assert view is not None
    assert view.remaining == LIMIT
    assert view.reset == pytest.approx(4.0, abs=SOON)
    assert len(passing(window, 3606.0)) == 1


def test_the_wall_clock_gives_the_end_within_the_answers_interval() -> None:
    """The reset has whole seconds; if a calendar-aligned end fits it, no call waits a second too long."""
    for skew, end in ((ALIGNED, 10.0), (ASTRAY, 10.9)):
        window = RateLimitWindow()
        answer(window, 3.4, 3.9, rate(0, 7), skew=skew)  # it ends in (9.4, 10.9]
        assert 3.9 + window.delay_until_admitted(3.9) == pytest.approx(end, abs=SOON)


def test_a_request_that_was_early_leaves_the_end_as_well_known() -> None:
    """If the wall clock's estimate was wrong, the window lasts until the end of the interval that its answers gave,
    however slow the answer was that showed it.
    """
    window = RateLimitWindow()
    answer(window, 2.5, 2.55, rate(50, 8))  # it ends in (9.5, 10.55]
    answer(window, 9.45, 9.47, rate(0, 1))  # in (8.45, 10.47]
    assert window.delay_until_admitted(9.5) == pytest.approx(0.5, abs=SOON)
    answer(window, 10.02, 10.4, rate(0, 1), status=429)  # in (9.02, 11.4], and after 10.02
    assert window.delay_until_admitted(10.4) == pytest.approx(0.07, abs=SOON / 2)


def test_answers_narrow_the_end_of_the_window() -> None:
    """Where the wall clock is of no use, each answer narrows the interval, and its end is waited for."""
    window = opened(remaining=50, skew=ASTRAY)
    assert window.view(4.0).reset == pytest.approx(6.2, abs=SOON)
    answer(window, 5.00, 5.05, rate(0, 5), skew=ASTRAY)
    assert window.delay_until_admitted(6.0) == pytest.approx(4.05, abs=SOON)
    answer(window, 6.9, 7.3, rate(0, 3), skew=ASTRAY)
    assert window.delay_until_admitted(8.0) == pytest.approx(2.05, abs=SOON)


@pytest.mark.parametrize(("remaining", "status"), [(90, 200), (0, 200), (0, 429)])
def test_stale_answers_change_nothing(remaining: int, status: int) -> None:
    """An answer of the window before, come late, neither raises nor closes the current one."""
    window = opened(remaining=50)
    late = window.acquire(9.5)
    answer(window, 10.1, 10.2, rate(30, 10))
    before = window.view(10.3)
    window.record_response(late, 10.3, 10.3, rate(remaining, 1), status)
    assert window.view(10.3) == attrs.evolve(before, remaining=30)


@pytest.mark.parametrize("remaining", [0, 40])
def test_a_stale_answer_does_not_confirm_the_new_window(remaining: int) -> None:
    """Before the first answer of the new window, an answer of the old one lets no call pass."""
    window = opened(remaining=50)
    late = window.acquire(9.5)
    (probe,) = passing(window, 10.1)
    window.record_response(late, 10.2, 10.2, rate(remaining, 1), 200)
    assert window.delay_until_admitted(10.2) == pytest.approx(0.9)
    window.record_response(probe, 10.3, 10.3, rate(99, 10), 200)
    assert len(passing(window, 10.3)) == 99


def test_a_lost_request_of_the_window_before_may_have_been_counted_in_this_one() -> None:
    """Sent just before a window's end it may have arrived after it; a window later it was counted there, if at all."""
    window = opened(remaining=50)
    late, later = window.acquire(9.5), window.acquire(9.5)
    answer(window, 10.1, 10.2, rate(99, 10))
    window.abandon(late)
    assert left(window, 10.3) == 97  # one lost, one still in flight
    answer(window, 20.1, 20.2, rate(99, 10))
    window.abandon(later)
    assert left(window, 20.3) == 99
    window.abandon(window.acquire(20.3))
    assert left(window, 20.4) == 98


def test_an_answer_of_the_old_window_to_a_request_of_the_confirmed_new_one_changes_nothing() -> None:
    """Where several servers turn their windows at different moments, the one that is behind does not bring the old
    window back.
    """
    window = opened(remaining=50)
    answer(window, 10.1, 10.2, rate(30, 10))
    before = window.view(10.4)
    answer(window, 10.3, 10.4, rate(0, 0))
    assert window.view(10.4) == before


def test_an_answer_of_a_later_window_keeps_what_was_known_of_the_end() -> None:
    """A slow answer that opens the next window leaves its end as well known as that of the window before."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.6, rate(90, 7), skew=ASTRAY)  # it ends in (9.0, 10.6]
    answer(window, 5.55, 5.6, rate(80, 4), skew=ASTRAY)  # in (8.55, 9.6]
    answer(window, 9.3, 9.9, rate(99, 10), skew=ASTRAY)  # the next one in (18.3, 19.9]
    view = window.view(10.0)
    assert view is not None
    assert view.remaining == 99
    assert view.reset == pytest.approx(9.6, abs=SOON)


def test_without_a_count_a_window_that_a_late_answer_opens_is_not_overspent() -> None:
    """What was sent before a window's begin and counted after it is a part of its limit, in our own count, too."""
    window = RateLimitWindow()
    answer(window, 9.0, 9.01, rate(None, 1))
    permits, sent = [window.acquire(9.99) for _ in range(5)], 0
    while permits:
        sent += len(permits)
        for permit in permits:
            window.record_response(permit, 10.02, 10.02, rate(None, 10), 200)
        permits = passing(window, 10.02)
    assert sent == LIMIT


def test_an_answer_of_a_later_window_opens_it() -> None:
    """A request that was sent before the end of the window and counted after it shows that the next window is there."""
    window = opened(remaining=1, skew=ASTRAY)
    late = window.acquire(9.2)
    assert window.delay_until_admitted(9.4) > 0
    window.record_response(late, 9.5, 9.5 + ASTRAY, rate(98, 10), 200)
    assert len(passing(window, 9.5)) == 98


def test_an_answer_counted_in_the_new_window_is_no_stale_one() -> None:
    """A request sent in the old window and counted in the new one spends from the new one."""
    window = opened(remaining=50)
    late = window.acquire(9.9)
    answer(window, 10.1, 10.2, rate(99, 10))
    window.record_response(late, 10.3, 10.3, rate(60, 10), 200)
    assert left(window, 10.3) == 60


def test_limit_and_period_follow_the_headers() -> None:
    """When an organization's limit is raised, the next window has the new one's worth."""
    window = opened(remaining=50)
    answer(window, 5.0, 5.1, rate(450, 5, limit=500))
    assert left(window, 10.5) == 500
    assert window.view(10.5).limit == 500


def test_an_answer_that_is_too_early_for_a_later_window_opens_none() -> None:
    """A reset in a later window, while this one cannot be over yet, means that a clock was set: the count stays."""
    window = opened(remaining=50)
    answer(window, 4.0, 4.1, rate(90, 16))
    view = window.view(4.1)
    assert view is not None
    assert view.remaining == 50
    assert view.reset == pytest.approx(15.9, abs=SOON)


def test_a_stale_answer_from_elsewhere_does_not_confirm_the_new_window() -> None:
    """An old answer to a request of a window that has joined this one lets no call pass."""
    late = opened(remaining=50).acquire(9.5)
    window = opened(remaining=50)
    assert len(passing(window, 10.1)) == 1
    window.in_flight += 1
    window.record_response(late, 10.2, 10.2, rate(40, 1), 200)
    assert window.delay_until_admitted(10.2) == pytest.approx(0.9)
    assert left(window, 10.2) == LIMIT - 1


def test_an_answer_from_elsewhere_tells_nothing_of_others() -> None:
    """The number of a request of a window that has joined this one is not a number of this one."""
    late = opened(remaining=50).acquire(4.0)
    window = opened(remaining=50)
    window.in_flight += 1
    window.record_response(late, 4.1, 4.1, rate(40, 6), 200)
    assert len(passing(window, 4.2)) == 40


# Headers that are not there


def test_without_a_reset_the_window_ends_within_a_period() -> None:
    """The calendar's end of the window where there is one in reach, and a whole period at the most."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, rate(0, None))
    assert window.delay_until_admitted(3.2) == pytest.approx(6.8, abs=SOON)
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, rate(5, None))
    assert len(passing(window, 3.2)) == 5
    assert 0 < window.delay_until_admitted(3.2) <= PERIOD + SOON


@pytest.mark.parametrize(("limit", "period"), [(LIMIT, None), (None, PERIOD), (None, None)])
def test_without_limit_or_period_nothing_is_known_after_the_reset(limit: int | None, period: float | None) -> None:
    """The current window is respected; after it one request goes alone to ask again."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, rate(2, 7, limit, period))
    assert len(passing(window, 3.2)) == 2
    end = 3.2 + window.delay_until_admitted(3.2)
    assert 10.0 <= end <= 10.2 + SOON
    assert window.view(end) == (None if limit is None else RateLimit(limit=limit))
    assert len(passing(window, end)) == 1
    assert window.delay_until_admitted(end) == pytest.approx(1.0)


@pytest.mark.parametrize("limit", [LIMIT, None])
def test_a_headerless_success_after_such_a_window_opens_again(limit: int | None) -> None:
    """What was known is over, so an answer that says nothing lets all through, as at the start."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, rate(2, 7, limit, None))
    answer(window, 10.5, 10.6, None)
    assert len(passing(window, 10.6)) == 1000


# What is left to others


@pytest.mark.parametrize(
    ("reserve", "limit", "remaining", "may_go"),
    [
        (0.0, 100, 100, 100),
        (0.2, 100, 100, 80),
        (0.2, 100, 20, 0),
        (0.2, 100, 21, 1),
        (0.29, 10, 10, 8),
        (0.99, 1, 1, 1),
    ],
)
def test_the_reserve_is_left_to_others(reserve: float, limit: int, remaining: int, may_go: int) -> None:
    """A share of each window is not touched, rounded down to whole requests; one at least may always go."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, rate(remaining, 7, limit=limit))
    assert len(passing(window, 3.2, reserve=reserve)) == may_go


def test_the_reserve_holds_while_plenty_is_left_without_it() -> None:
    """So much may be left that nothing holds a request back, and yet it is all reserved."""
    window = RateLimitWindow(concurrency=50)
    answer(window, 3.0, 3.2, rate(9_000, 7, 10_000))
    assert window.can_send(3.3)
    assert not window.can_send(3.3, 0.95)
    assert window.can_send(3.3, 0.5)


def test_no_reserve_is_known_before_the_limit() -> None:
    """A share of a limit that no answer has named yet holds nothing back."""
    window = RateLimitWindow()
    assert window.can_send(3.0, 0.2)
    answer(window, 3.0, 3.2, rate(5, 7, limit=None))
    assert window.exhausted_for(3.2, 4, 0.2) == 0
    assert len(passing(window, 3.2, reserve=0.2)) == 5


def test_the_reserve_holds_in_later_windows() -> None:
    """The next window, too, is spent down to the reserve only."""
    window = opened(remaining=20)
    assert window.delay_until_admitted(3.2, 0.2) > 0
    answer(window, 10.1, 10.2, rate(99, 10))
    assert len(passing(window, 10.2, reserve=0.2)) == 79


# shortage and view


@pytest.mark.parametrize(
    ("remaining", "in_flight", "reserve", "ahead", "windows"),
    [
        (5, 0, 0.0, 0, 0),
        (5, 0, 0.0, 4, 0),
        (5, 0, 0.0, 5, 1),
        (5, 3, 0.0, 1, 0),
        (5, 3, 0.0, 2, 1),
        (0, 0, 0.0, 0, 1),
        (0, 0, 0.0, 99, 1),
        (0, 0, 0.0, 100, 2),
        (0, 0, 0.0, 199, 2),
        (0, 0, 0.0, 200, 3),
        (20, 0, 0.2, 0, 1),
        (20, 0, 0.2, 79, 1),
        (20, 0, 0.2, 80, 2),
        (0, 0, 0.2, 0, 1),
        (0, 0, 0.2, 79, 1),
        (0, 0, 0.2, 80, 2),
        (5, 9, 0.0, 99, 1),
    ],
)
def test_shortage_counts_the_windows_until_a_position_s_turn(
    remaining: int, in_flight: int, reserve: float, ahead: int, windows: int
) -> None:
    """A request learns at once how long the limit is exhausted for it, given its position in the queue."""
    window = opened(remaining=remaining)
    for _ in range(in_flight):
        window.acquire(3.5)
    expected = 0.0 if windows == 0 else 6.0 + (windows - 1) * PERIOD
    assert window.exhausted_for(4.0, ahead, reserve) == pytest.approx(expected, abs=SOON)


def test_shortage_counts_from_the_last_answer_of_a_spent_window() -> None:
    """A request that was rejected was not counted, so it does not put the next windows off."""
    window = opened(remaining=0)
    answer(window, 4.0, 4.1, rate(0, 6), status=429)
    assert window.exhausted_for(4.1, LIMIT - 1) == pytest.approx(5.9, abs=SOON)


def test_shortage_in_a_new_window_is_counted_from_its_limit() -> None:
    """What was sent in the window before takes nothing from the next one, and adds nothing to it."""
    window = opened(remaining=50)
    for number in range(4):
        answer(window, 4.0, 4.1, rate(49 - number, 6))
    assert window.exhausted_for(10.1, LIMIT - 1) == 0
    assert window.exhausted_for(10.1, LIMIT) > 0


def test_shortage_is_none_while_nothing_is_known() -> None:
    """The wait for the first answer is not time in which the limit was exhausted."""
    window = RateLimitWindow()
    window.acquire(0.0)
    assert window.exhausted_for(0.1, 1_000) == 0


@pytest.mark.parametrize(("until", "shortage"), [(5.0, 6.0), (30.0, 26.0)])
def test_shortage_includes_a_closing(until: float, shortage: float) -> None:
    """After a 429 that closed the rate limiter, the longer of that and the spent window counts."""
    window = opened(remaining=0)
    window.pause(until)
    assert window.exhausted_for(4.0, 0) == pytest.approx(shortage, abs=SOON)
    unknown = RateLimitWindow()
    unknown.pause(until)
    assert unknown.exhausted_for(4.0, 10) == pytest.approx(until - 4.0)


@pytest.mark.parametrize(("limit", "period"), [(LIMIT, None), (None, PERIOD)])
def test_shortage_without_limit_or_period_is_that_of_this_window(limit: int | None, period: float | None) -> None:
    """Without a limit or a period, no position has to wait for more than this window."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.0, rate(5, 7, limit, period))
    assert window.exhausted_for(4.0, 4) == 0
    assert window.exhausted_for(4.0, 1_000) == pytest.approx(6.0, abs=SOON)


def test_shortage_ends_with_the_window() -> None:
    """In the next window requests may be sent again."""
    window = opened(remaining=0)
    assert window.exhausted_for(9.5, 0) == pytest.approx(0.5, abs=SOON)
    assert window.exhausted_for(10.0 + SOON, 50) == 0


def test_view_is_none_while_nothing_is_known() -> None:
    """Before the first answer with headers there is no rate limit to describe."""
    window = RateLimitWindow()
    assert window.view(0.0) is None
    window.acquire(0.0)
    assert window.view(0.1) is None


def test_view_describes_the_window_with_what_is_in_flight() -> None:
    """Limit, period and name as given; what is left after those in flight; the time until the end, counted down."""
    window = RateLimitWindow()
    answer(window, 3.0, 3.2, RateLimit(100, 10.0, 50, 7.0, "tokens"))
    for _ in range(8):
        window.acquire(4.0)
    view = window.view(4.0)
    assert view == RateLimit(100, 10.0, 42, view.reset, "tokens")
    assert view.reset == pytest.approx(6.0, abs=SOON)
    assert window.view(9.5).reset == pytest.approx(0.5, abs=SOON)


def test_view_never_shows_less_than_nothing() -> None:
    """More in flight than is left, which others have spent, is none left."""
    window = opened(remaining=5)
    permits = [window.acquire(4.0) for _ in range(5)]
    window.record_response(permits[0], 4.1, 4.1, rate(0, 6), 200)
    assert left(window, 4.1) == 0


def test_view_of_the_next_window_is_fresh() -> None:
    """Once the window is over, the view is the next one's, without a request having been sent."""
    view = opened(remaining=0).view(10.0 + SOON)
    assert view == RateLimit(LIMIT, PERIOD, LIMIT, view.reset, None)
    assert view.reset == pytest.approx(PERIOD, abs=2 * SOON)


# A store that shares the limit


def test_the_store_is_told_what_the_answers_show() -> None:
    """Limit, period and lowest count; the expected end of the window, and how far apart the answers let it be."""
    window = opened(remaining=50)
    window.acquire(4.0)
    view = window.describe(4.0)
    assert view is not None
    assert view == WindowView(
        limit=LIMIT, period=PERIOD, remaining=50, ends_in=view.ends_in, uncertainty=view.uncertainty
    )
    assert view.ends_in == pytest.approx(6.0, abs=SOON)
    assert view.uncertainty == pytest.approx(1.2)  # in (9.0, 10.2]


def test_the_store_is_told_nothing_that_no_answer_has_shown() -> None:
    """Neither a window that no answer has confirmed, nor one of which a part is unknown, is told."""
    assert RateLimitWindow().describe(0.0) is None
    assert opened().describe(10.1) is None
    paused = opened()
    paused.pause(3.5)
    assert paused.describe(4.0) is None
    for said in (rate(50, 7, limit=None), rate(50, 7, period=None), RateLimit(limit=100), None):
        window = RateLimitWindow()
        answer(window, 3.0, 3.2, said)
        assert window.describe(4.0) is None


@pytest.mark.parametrize(("available", "remaining"), [(None, 50), (12, 12), (80, 50), (0, 0)])
def test_after_a_store_is_gone_the_next_request_goes_alone(available: int | None, remaining: int) -> None:
    """What the other clients have spent since is unknown, and the lower of the two counts is taken."""
    window = opened(remaining=50)
    window.take_over(3, available)
    assert left(window, 4.0) == remaining
    assert len(passing(window, 4.0)) == min(remaining, 1)
    if remaining:
        assert window.delay_until_admitted(4.1) == pytest.approx(0.9)
        assert left(window, 4.1) == remaining - 1


def test_after_a_store_is_gone_its_clients_are_still_there() -> None:
    """All of them have a part of half of what is left, until two windows show that they have gone."""
    window = opened(remaining=50)
    window.take_over(3, None)
    answer(window, 4.0, 4.1, rate(48, 6))
    assert len(passing(window, 4.1)) == 48 // 2 // 3


def test_a_store_s_count_says_nothing_of_a_window_without_answers() -> None:
    """Without an answer of its own a client knows no window that the store's count could be of."""
    window = RateLimitWindow()
    window.take_over(3, 30)
    assert window.view(0.0) is None
    assert len(passing(window, 0.0)) == 1
