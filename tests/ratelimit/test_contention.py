"""Others who spend the same limit: when they are noticed, and how many requests are held back."""

from __future__ import annotations

import math
import random

import pytest
from support.windows import LIMIT, PERIOD, SOON, answer, passing, rate

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
