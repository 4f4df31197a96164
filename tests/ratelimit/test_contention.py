"""Others who spend the same limit: when they are noticed, and how many requests are held back."""

from __future__ import annotations

import math
import random

import pytest
from support.windows import LIMIT, PERIOD, SOON, answer, passing, rate

from dd_sa_tokens._ratelimit.contention import Contention
from dd_sa_tokens._ratelimit.pace import kept_back
from dd_sa_tokens._ratelimit.window import RateLimitWindow

# Clients that share the limit


def contended(others: int = 1, count: int = 20, concurrency: int = 0) -> RateLimitWindow:
    """Return a window of a fresh window of 100, in which others sent so many requests for each of its own."""
    window = RateLimitWindow(concurrency=concurrency)
    for number in range(1, count + 1):
        answer(window, 1.0, 1.1, rate(LIMIT - number * (1 + others), 9))
    return window


def test_alone_nothing_is_held_back() -> None:
    """A client that finds each of its requests, and no others, in the count may use all that is left at once."""
    assert len(passing(contended(others=0), 1.1)) == LIMIT - 20


def test_alone_with_answers_out_of_order_nothing_is_held_back() -> None:
    """The server may serve what is in flight together in any order; that is no sign of others."""
    shuffled = random.Random(7)
    window = RateLimitWindow()
    answer(window, 1.0, 1.1, rate(99, 9))
    while window.remaining:
        permits = passing(window, 1.2, most=25)
        left_over = LIMIT - window.contention.sent + len(permits)
        counts = list(range(left_over - len(permits), left_over))
        shuffled.shuffle(permits)
        for permit in permits:
            window.record_response(permit, 1.3, 1.3, rate(counts.pop(), 9), 200)
            assert window.contention.current == 1.0


@pytest.mark.parametrize(("others", "most"), [(1, 15), (3, 2)])
def test_the_more_others_there_are_the_fewer_are_in_flight(others: int, most: int) -> None:
    """What is in flight, ours and theirs, must fit in half of what is left: 60 / 2 / 2, and 20 / 2 / 4."""
    assert len(passing(contended(others), 1.1)) == most


@pytest.mark.parametrize(("others", "count"), [(1, 3), (3, 2)])
def test_others_are_noticed_soon(others: int, count: int) -> None:
    """Two or three answers show that other clients spend as much as this one, or more."""
    assert len(passing(contended(others, count), 1.1)) < (LIMIT - count * (1 + others)) / 3


def test_others_who_come_after_our_first_answer_are_noticed_with_the_second() -> None:
    """Clients that start after our first answer are noticed with the second one."""
    window = RateLimitWindow()
    answer(window, 1.0, 1.1, rate(99, 9))
    answer(window, 1.1, 1.2, rate(96, 9))
    assert len(passing(window, 1.2)) == 96 // 4


@pytest.mark.parametrize(("others", "ours", "share"), [(1, 10, 1), (2, 100, 1), (10, 100, 4)])
def test_a_client_with_few_requests_holds_no_other_back(others: int, ours: int, share: int) -> None:
    """One request of others beside ten of ours, or two beside a hundred, hold nothing back; ten do."""
    window = RateLimitWindow()
    answer(window, 1.0, 1.1, rate(999, 9, limit=1_000))
    for number in range(2, ours + 1):
        answer(window, 1.0, 1.1, rate(1_000 - number - others, 9, limit=1_000))
    assert len(passing(window, 1.1)) == (1_000 - ours - others) // share


def test_however_many_others_there_are_something_may_go() -> None:
    """Not even twenty times as many requests of others as of ours let us have less than a sixteenth of what is left."""
    assert len(passing(contended(others=19, count=4), 1.1)) == 20 // 16


def test_the_last_few_are_left_where_others_may_take_them() -> None:
    """When less is left than everybody may have in flight, a contended client waits for the next window."""
    window = contended(others=1)
    answer(window, 1.2, 1.3, rate(3, 9))
    assert window.delay_until_admitted(1.3) > 8
    assert window.exhausted_for(1.3, 0) > 8


def next_windows(window: RateLimitWindow, first: int, last: int, others: int = 0) -> None:
    """Let windows pass in which half of the rate limit is used."""
    for at_window in range(first, last + 1):
        for number in range(1, 51 // (1 + others)):
            at = at_window * PERIOD + 1
            answer(window, at, at + 0.1, rate(LIMIT - number * (1 + others), 9))


def test_full_speed_returns_after_two_clean_windows() -> None:
    """One window without others may be chance; after two it is believed that they have gone."""
    window = contended(others=1)
    for number in (1, 2):
        next_windows(window, number, number)
        held = passing(window, number * PERIOD + 1.2)
        assert len(held) == (LIMIT - 50) // 4  # half of what is left, for each of two
        for permit in held:
            window.cancel(permit)
    next_windows(window, 3, 3)
    assert window.contention.past == (1.0, 1.0)
    assert len(passing(window, 31.2)) == 50


def test_a_request_that_opens_a_window_is_one_of_its_own() -> None:
    """A request sent before a window's begin and counted after it is not taken for another client's."""
    window = RateLimitWindow()
    answer(window, 9.0, 9.01, rate(99, 1))
    permits = [window.acquire(9.99) for _ in range(5)]
    for number, permit in enumerate(permits, start=1):
        window.record_response(permit, 10.02, 10.02, rate(LIMIT - number, 10), 200)
    for number in range(6, 30):
        answer(window, 10.03, 10.04, rate(LIMIT - number, 10))
    assert window.contention.current == 1.0


def test_what_was_used_before_the_first_answer_says_nothing_about_others() -> None:
    """Others' use from before the first answer says nothing about how fast they go on, but makes a start careful."""
    window = RateLimitWindow(concurrency=50)
    for number in range(1, 11):
        answer(window, 1.0, 1.1, rate(40 - number, 9))
    assert window.contention.current == 1.0
    assert len(passing(window, 1.1)) == 10  # as many as were answered
    assert len(passing(window, 2.0 + SOON)) == 20  # after a second, all


def test_the_first_window_begins_slowly() -> None:
    """Nothing being known of others, three go at first, then twice as many as were answered."""
    window = RateLimitWindow(concurrency=50)
    answer(window, 1.0, 1.1, rate(99, 9))
    first = passing(window, 1.1)
    assert len(first) == 3
    assert window.delay_until_admitted(1.2) == pytest.approx(0.8)
    for number, permit in enumerate(first, start=2):
        window.record_response(permit, 1.2, 1.2, rate(LIMIT - number, 9), 200)
    assert len(passing(window, 1.2)) == 8
    assert len(passing(window, 2.0 + SOON)) == LIMIT - 4 - 8  # no longer than a second


@pytest.mark.parametrize(
    ("remaining", "limit", "at_once"),
    [(200, 205, 50), (199, 205, 3), (200, 1000, 1), (3199, 4000, 1), (3200, 4000, 50)],
)
def test_with_plenty_left_the_first_window_begins_at_full_speed(remaining: int, limit: int, at_once: int) -> None:
    """Four times as many as the client can have in flight leave room for others; where others were, 64 times."""
    window = RateLimitWindow(concurrency=50)
    answer(window, 1.0, 1.1, rate(remaining, 9, limit=limit))
    assert len(passing(window, 1.1, most=50)) == at_once


@pytest.mark.parametrize(("count", "most"), [(60, 99), (25, 99), (24, 3)])
def test_a_limit_known_to_be_unshared_begins_at_full_speed(count: int, most: int) -> None:
    """After a window that was ours alone, and of which we used a quarter at least, the next one is not begun slowly,
    except for its first request.
    """
    window = contended(others=0, count=count, concurrency=50)
    (probe,) = passing(window, 10.1)
    window.record_response(probe, 10.2, 10.2, rate(99, 10), 200)
    assert len(passing(window, 10.2)) == most


@pytest.mark.parametrize("begin", [20.0, 90.0])
def test_after_a_silence_nothing_is_known_of_others(begin: float) -> None:
    """After a window without requests, what was known of other clients is dropped: new ones may have come."""
    window = contended(others=0, count=60, concurrency=50)
    answer(window, begin + 5.0, begin + 5.1, rate(99, 5))
    assert len(passing(window, begin + 5.1)) == 3


def crowded(clients: int, answers: int) -> RateLimitWindow:
    """Return a window of a client that found others in two windows, and had some answers in the third one."""
    window = RateLimitWindow(concurrency=50)
    for start, count in ((1.0, 4), (PERIOD + 1.0, 4), (2 * PERIOD + SOON, answers)):
        for number in range(1, count + 1):
            when = start + number / 1000
            used = round((number - 0.5) * clients)
            answer(window, when, when + 0.001, rate(max(LIMIT - used, 0), math.ceil(PERIOD - start % PERIOD)))
    return window


def paced(window: RateLimitWindow, *reserves: float) -> list[float]:
    """Send what may be sent until the window ends, for callers with these reserves; return when."""
    now, sent = 2 * PERIOD + 2 * SOON, []
    while now < 3 * PERIOD - SOON:
        delay = min(window.delay_until_admitted(now, reserve) for reserve in reserves)
        if delay:
            now += min(delay, 1.0)  # callers come and go
        else:
            window.cancel(window.acquire(now))
            sent.append(now)
    return sent


@pytest.mark.parametrize("reserves", [(0.0,), (0.0, 0.1), (0.1, 0.0), (0.0, 0.35)])
def test_a_crowd_paces_its_last_requests(reserves: tuple[float, ...]) -> None:
    """Where a client's part of what is left is less than one, it sends its share one by one until the window ends.

    Callers with different reserves, each asking as often as it likes, share that, and do not hold each other back.
    """
    sent = paced(crowded(clients=24, answers=3), *reserves)  # 60 are used, so each of 24 has 1.5 more
    assert len(sent) == 1
    assert 2 * PERIOD + 2 < sent[0] < 3 * PERIOD - 2


def test_few_clients_do_not_pace_themselves() -> None:
    """Up to seven others, the last few requests of a window stay unused."""
    window = crowded(clients=6, answers=16)
    assert window.delay_until_admitted(2 * PERIOD + 2 * SOON) > PERIOD - 3 * SOON


def test_a_place_behind_many_tells_of_a_crowd() -> None:
    """The first answer of a window that was begun in time counts the clients that came before this one."""
    window = crowded(clients=40, answers=1)
    assert window.contention.current == pytest.approx((20 - 0.5) / 0.5)


@pytest.mark.parametrize(("begin", "skew"), [(2 * PERIOD + 1.0, 0.0), (2 * PERIOD + 0.12, 5.0)])
def test_a_place_tells_nothing_where_the_window_is_begun_late(begin: float, skew: float) -> None:
    """The others began without this client, or it does not know when: they may have sent any number by then."""
    window = RateLimitWindow(concurrency=50)
    for start in (1.0, PERIOD + 1.5):  # with a wall clock of no use, the second window ends in (19.5, 20.1]
        for number in range(1, 5):
            answer(window, start, start + 0.1, rate(max(LIMIT - number * 40 + 20, 0), 9), skew=skew)
    assert window.number == 1
    answer(window, begin, begin + 0.1, rate(80, math.ceil(3 * PERIOD - begin)), skew=skew)
    assert window.number == 2
    assert window.contention.past[0] > 14
    assert window.contention.current == 1.0


def test_a_place_tells_nothing_where_an_answer_opens_the_window() -> None:
    """A request that was sent before the window's begin was not sent with those of the others."""
    window = crowded(clients=40, answers=0)
    late = window.acquire(2 * PERIOD - 0.02)
    window.record_response(late, 2 * PERIOD - 0.001, 2 * PERIOD - 0.001, rate(80, 10), 200)
    answer(window, 2 * PERIOD + 0.02, 2 * PERIOD + 0.04, rate(79, 10))
    assert window.number == 2
    assert window.contention.past[0] > 14
    assert window.contention.current == 1.0


def test_a_place_tells_of_a_crowd_after_a_window_without_requests() -> None:
    """A window that was left out changes nothing: the next one, too, is begun with the others."""
    window = crowded(clients=40, answers=0)
    start = 3 * PERIOD + SOON / 2
    answer(window, start, start + 0.001, rate(80, 10))
    assert window.contention.current == pytest.approx((20 - 0.5) / 0.5)


def test_a_429_tells_a_new_client_of_others_and_no_other() -> None:
    """Once others are known, a 429 would make them look like more than they are."""
    window = RateLimitWindow()
    answer(window, 1.0, 1.1, rate(99, 9))
    answer(window, 1.2, 1.3, rate(0, 9), status=429)
    assert window.contention.current == pytest.approx(101 / 3)  # after the first and the second of ours, 1 and 100
    window = contended(others=1)
    answer(window, 11.0, 11.1, rate(98, 9))
    answer(window, 11.1, 11.2, rate(96, 9))
    before = window.contention.current
    answer(window, 11.2, 11.3, rate(0, 9), status=429)
    assert window.contention.current == before


def test_a_window_that_no_answer_has_shown_is_not_taken_for_spent() -> None:
    """A limit so low that others may take all of it is not exhausted before its window's first answer."""
    window = RateLimitWindow()
    answer(window, 1.0, 1.1, rate(3, 9, limit=6))
    window.take_over(3, 6)
    assert window.exhausted_for(1.2, 0) == 0
    answer(window, 1.2, 1.3, rate(2, 9, limit=6))
    assert window.exhausted_for(1.3, 0) > 8


# The factor


def counted(*answers: tuple[int, int], prompt: bool = False, past: tuple[float, ...] = ()) -> Contention:
    """Return the contention in a window with these answers: the request's number, and how many were used."""
    contention = Contention(prompt=prompt, past=past)
    for number, used in answers:
        contention.record_answer(number, used)
    return contention


@pytest.mark.parametrize(
    ("answers", "factor"),
    [
        ([], 1.0),
        ([(1, 1)], 1.0),
        ([(1, 31)], 1.0),  # from before the first answer
        ([(1, 1), (2, 3)], 1.0),  # one beside two of ours
        ([(1, 1), (2, 4)], 2.0),
        ([(1, 1), (2, 8)], 3.0),
        ([(1, 31), (2, 38)], 3.0),
        ([(2, 1), (1, 8)], 3.0),  # out of order
        ([(1, 1), (2, 41)], 14.0 - 6.0),
        ([(1, 1), (2, 44)], 15.0),
    ],
)
def test_the_factor_is_what_all_spend_for_each_of_ours(answers: list[tuple[int, int]], factor: float) -> None:
    """Two at least where there are others at all; up to 14 it is noisy, and taken for eight at most."""
    assert counted(*answers).current == pytest.approx(factor)


def test_in_a_crowd_the_place_among_the_others_counts() -> None:
    """Where the window was begun with the others, what they sent before our first request counts as well."""
    answers = (1, 21), (2, 61)  # 20 before the first
    assert counted(*answers).current == 8.0  # 42 / 3 is no crowd yet
    assert counted(*answers, past=(40.0,)).current == 14.0
    assert counted(*answers, past=(40.0,), prompt=True).current == pytest.approx((42 + 2 * 19.5) / (3 - 1))
    assert counted(past=(40.0,), prompt=True).current == 1.0
    assert counted((1, 1), past=(40.0,), prompt=True).current == 2.0


@pytest.mark.parametrize(
    ("past", "factor"),
    [((), 1.0), ((1.0, 1.0), 1.0), ((1.0, 3.0), 3.0), ((4.0, 3.0), 4.0), ((2.0, 30.0), 2.0), ((30.0, 2.0), 30.0)],
)
def test_the_last_contended_window_counts(past: tuple[float, ...], factor: float) -> None:
    """One window without others does not make them forgotten, two do."""
    assert counted(past=past).factor == factor


def test_a_crowd_in_this_window_counts_more_than_the_past() -> None:
    """A crowd that shows itself now is acted on, as is one of the past while this window shows fewer."""
    assert counted((1, 1), (2, 44), past=(60.0,)).factor == pytest.approx(15.0)
    assert counted((1, 1), (2, 8), past=(6.0,)).factor == 6.0
    assert counted((1, 1), (2, 8), past=(2.0,)).factor == 3.0


@pytest.mark.parametrize(("answered", "past"), [(24, ()), (25, (1.0,))])
def test_a_window_of_which_we_used_a_quarter_shows_that_we_are_alone(answered: int, past: tuple[float, ...]) -> None:
    """Fewer answers say nothing about others, and leave what is known as it is."""
    contention = counted(*((number, number) for number in range(1, answered + 1)))
    contention.roll_over(1, LIMIT, 3, prompt=True)
    assert contention.past == past
    assert contention.prompt == bool(past)
    assert (contention.sent, contention.answered) == (3, 0)
    assert contention.record_send() == 4


@pytest.mark.parametrize(("windows", "past"), [(1, (3.0, 5.0)), (2, (3.0, 5.0)), (3, (3.0, 5.0)), (4, ())])
def test_what_is_known_of_others_lasts_for_as_many_windows(windows: int, past: tuple[float, ...]) -> None:
    """After more windows without requests than are known, others may have come or gone."""
    contention = counted((1, 1), (2, 8), past=(5.0, 7.0))
    contention.roll_over(windows, LIMIT, 0, prompt=False)
    assert contention.past == past


def test_a_new_window_forgets_what_was_used_before_its_first_answer() -> None:
    """Neither that nor the sums of the old window count in the new one."""
    contention = counted((1, 31), (2, 38), past=(1.0, 1.0))
    contention.roll_over(4, LIMIT, 0, prompt=False)
    assert contention.current == 1.0
    assert contention.headroom(10) == 160
    contention.record_answer(1, 5)
    contention.record_answer(2, 6)
    assert contention.current == 1.0


@pytest.mark.parametrize(
    ("before", "past", "most"),
    [(8, (), 160), (9, (), 640), (9, (1.0,), 160), (0, (14.0,), 160), (0, (15.0,), math.inf)],
)
def test_headroom(before: int, past: tuple[float, ...], most: float) -> None:
    """More must be left where others were there before, and in a crowd there is never enough."""
    assert counted((1, 1 + before), past=past).headroom(10) == most


@pytest.mark.parametrize(
    ("past", "left", "is_over"),
    [((), 0, False), ((2.0,), 4, False), ((2.0,), 3, True), ((16.0,), 6, False), ((16.0,), 5, True)],
)
def test_the_last_few_requests_of_a_contended_window_are_not_sent(
    past: tuple[float, ...], left: int, is_over: bool
) -> None:
    """With few others they leave what all may have in flight; in a crowd, what its clients keep back."""
    assert counted(past=past).is_over(left, LIMIT) == is_over
    assert kept_back(16.0, LIMIT) == 5.0


def test_each_window_of_a_crowd_begins_with_a_draw_of_its_own() -> None:
    """A client that draws a high number sends first in one window, and later in others."""
    draws = iter([0.75, 0.25])
    contention = Contention(past=(16.0, 16.0), draw=lambda: next(draws))

    def delay() -> float:
        return contention.delay(21, 0, reserved=0, concurrency=50, limit=LIMIT, now=0.0, end=8.0)

    assert delay() == pytest.approx(2.0)
    contention.roll_over(1, LIMIT, 0, prompt=True)
    assert delay() == pytest.approx(6.0)
    contention.record_send()
    assert delay() == pytest.approx(14.0)


def test_clients_of_a_store_are_expected_for_two_windows() -> None:
    """After two windows of our own alone they have gone."""
    contention = Contention()
    contention.expect(3)
    for factor in (3.0, 3.0, 1.0):
        assert contention.factor == factor
        for number in range(1, 51):
            contention.record_answer(number, number)
        contention.roll_over(1, LIMIT, 0, prompt=True)


def test_others_are_remembered_where_the_period_is_unknown() -> None:
    """Without a period the next window, too, is begun as one that others spend."""
    window = RateLimitWindow()
    for number in range(1, 21):
        answer(window, 1.0, 1.1, rate(LIMIT - 2 * number, 9, period=None))
    answer(window, 11.0, 11.1, rate(96, 9, period=None))
    assert len(passing(window, 11.1)) == 96 // 4
