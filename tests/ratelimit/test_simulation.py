"""Many clients and windows in virtual time: the real window and limiter, and a server known by headers only."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.internals import FixedWindow
from benchmarks.simulation import ALL_WAIT, EACH_WAITS, Client, Server, run_all


def play(server: Server, *clients: dict[str, Any], start: float = 0.9) -> list[Client]:
    """Run clients to their end and return them."""
    made = [Client(server, **client) for client in clients]
    run_all(made, start)
    return made


def server_of(limit: int = 100, period: float = 3.0, rounding: Any = "up", seed: int = 0, **options: Any) -> Server:
    return Server(FixedWindow(limit, period, rounding, options.pop("used", 0)), random=random.Random(seed), **options)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("rounding", "offset", "most"),
    [("up", 0.0, 0), ("down", 0.0, 1), ("nearest", 0.0, 1), ("up", 0.43, 1), ("up", -0.43, 1), ("down", -0.43, 2)],
)
def test_a_client_alone(rounding: str, offset: float, most: int, seed: int) -> None:
    """It meets no 429, or one or two where the server rounds otherwise or its clock is off, and wastes no window."""
    server = server_of(rounding=rounding, offset=offset, seed=seed)
    (client,) = play(server, {"count": 450}, start=0.9 + 0.31 * seed)
    assert server.rejected <= most
    assert client.rejected == server.rejected
    assert min(server.full_windows) >= 99
    assert sum(server.accepted.values()) == 450


@pytest.mark.parametrize("period", [1.0, 2.0, 10.0, 60.0, 3600.0])
def test_windows_of_any_length(period: float) -> None:
    """Periods from a second to an hour are used up to the last request, without a 429."""
    server = server_of(limit=40, period=period)
    play(server, {"count": 200}, start=0.3 * period)
    assert server.rejected == 0
    assert [used for _, used in sorted(server.accepted.items())] == [40] * 5


def test_three_hundred_in_flight() -> None:
    """More in flight than a window allows is no reason for a 429."""
    server = server_of()
    play(server, {"count": 390, "concurrency": 300})
    assert server.rejected == 0


def test_little_left_when_we_come() -> None:
    """Others have used nearly all of the window: what is left is used, and no more."""
    server = server_of(limit=50, used=47)
    play(server, {"count": 120})
    assert server.rejected == 0
    assert [used for _, used in sorted(server.accepted.items())] == [3, 50, 50, 17]


def test_the_first_request_of_a_window_leaves_soon_after_it_begins() -> None:
    """With clocks that agree, within a tenth of a second of the server's end of the window, once there has been one."""
    server = server_of()
    play(server, {"count": 700})
    late = [at % 3.0 for window, at in server.first.items() if window != min(server.first)]
    assert max(late[1:]) < 0.1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("latency", [0.02, 0.1])
@pytest.mark.parametrize("clients", [2, 3, 4, 8])
def test_clients_that_share_seldom_meet_a_429(clients: int, latency: float, seed: int) -> None:
    """Clients that only see headers meet 429s in under 3% of their requests, and waste little of a window."""
    server = server_of(seed=seed, latency=latency)
    play(server, *[{"count": 448 // clients}] * clients)
    sent = sum(server.requests.values())
    assert server.rejected <= 0.03 * sent
    assert min(server.full_windows) >= 80
    assert len(server.accepted) <= 6


@pytest.mark.parametrize(("clients", "most"), [(16, 0.05), (32, 0.09), (64, 0.15)])
def test_a_crowd_meets_few_429s(clients: int, most: float) -> None:
    """Many clients that start at once find their number, and then few requests are rejected or left unused."""
    random.seed(1)
    server = server_of(period=10.0)
    play(server, *[{"count": 1200 // clients}] * clients, start=3.0)
    assert server.rejected / server.requests.total() <= most
    assert sum(server.full_windows[:9]) / 9 >= 92
    late = [server.requests[number] - server.accepted[number] for number in sorted(server.requests)[6:]]
    assert sum(late) / server.requests.total() <= 0.04


@pytest.mark.parametrize("seed", range(4))
def test_one_that_comes_late_with_half_the_work(seed: int) -> None:
    """Unequal demand and staggered starts stay under 3%; the late one gets its share, the other its speed back."""
    server = server_of(seed=seed)
    first, second = play(server, {"count": 1100}, {"count": 150, "start": 1.3})
    assert server.rejected <= 0.03 * sum(server.requests.values())
    assert second.done < first.done - 2 * 3.0
    assert sorted(server.accepted.items())[-2][1] == 100


def test_clients_that_share_get_like_shares() -> None:
    """No client is starved: equal ones finish at about the same time."""
    server = server_of()
    done = [client.done for client in play(server, *[{"count": 200}] * 3)]
    assert max(done) - min(done) <= 2 * 3.0


def test_the_reserve_is_left_to_others() -> None:
    """A client with a reserve of a fifth leaves a fifth of each window alone."""
    server = server_of()
    play(server, {"count": 250, "reserve": 0.2})
    assert [used for _, used in sorted(server.accepted.items())] == [80, 80, 80, 10]


def test_simpler_limiters_do_worse() -> None:
    """Without a window, or with a limiter that only pauses after a 429, a fifth of the requests is lost."""
    for limiter in (EACH_WAITS, ALL_WAIT):
        server = server_of(period=10.0)
        play(server, {"count": 500, "limiter": limiter})
        assert server.rejected > 0.2 * sum(server.requests.values())


@pytest.mark.parametrize("before", [0.03, 0.05, 0.07])
@pytest.mark.parametrize("limit", [10, 40, 100])
def test_a_start_just_before_the_end_of_a_window(limit: int, before: float) -> None:
    """Requests in flight across the end of a window are not counted as another client's: later windows are full."""
    server = server_of(limit)
    play(server, {"count": limit * 5}, start=3.0 - before)
    assert server.rejected == 0
    assert set(server.full_windows) == {limit}


@given(
    limit=st.integers(1, 60),
    period=st.sampled_from([2.0, 3.0, 10.0]),
    todo=st.integers(1, 150),
    concurrency=st.integers(1, 80),
    latency=st.floats(0.001, 0.3),
    start=st.floats(0.0, 10.0),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_client_alone_never_overspends(
    limit: int, period: float, todo: int, concurrency: int, latency: float, start: float, seed: int
) -> None:
    """For any limit, latency and start: no window gets more requests than its limit, and the run ends."""
    server = server_of(limit, period, seed=seed, latency=latency)
    (client,) = play(server, {"count": todo, "concurrency": concurrency}, start=start)
    assert server.rejected == 0
    assert max(server.requests.values()) <= limit
    assert sum(server.accepted.values()) == todo
    assert client.done < start + period * (todo / limit + 3) + todo * latency * 2
