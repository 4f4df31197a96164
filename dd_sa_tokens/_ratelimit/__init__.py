"""The rate limiter: how a client spends every request that a limit allows, and gets no 429.

It stands before every request. It counts what each limit has left, including what is in flight, and lets a request
through only if the window has room for it. So it does not need a 429 to find out.

| part | knows | file |
|---|---|---|
| `RateLimiter` | who waits, in what order, for how long; the event loop | `limiter.py` |
| `Buckets` | which operations spend the same limit | `buckets.py` |
| `Queues` | who waits for one limit, and who of these passes first | `queues.py` |
| `RateLimitWindow` | what is left of one limit's window, and whether a request may be sent | `window.py` |
| `WindowEnd` | when the window ends, as an interval | `window_end.py` |
| `Probe` | the first request of a window, which goes alone | `probe.py` |
| `Contention` | who else spends the limit, and how much may be in flight beside them | `contention.py` |
| `Pace` | how the last requests of a crowded window are spread over its rest | `pace.py` |
| `Permit` | that one request may be sent, and its place in its window | `permit.py` |
| `LeasedWindow` | the same of a shared window; its task asks the store | `leased_window.py` |
| `Leases` | what was leased from the store, and when to ask for more | `leases.py` |
| `RateLimitStore` | what a store must do: a protocol | `store.py` |

The window and what it is made of, and the leases, are pure: times come in as numbers, so tests run hours in
milliseconds.

What is a window?
-----------------
A stretch of the server's time in which `limit` requests are allowed. Windows follow one another at whole multiples of
`period` on the server's clock, such as every 10 s. Each answer tells in its headers the limit, the period, what is left
of the window (`remaining`), and in how many whole seconds it ends (`reset`).
Source: https://docs.datadoghq.com/api/latest/rate-limits/

    requests left   100 |1#                  |1#                  |1#
                        | ##                 | ##                 | ##
                        |  ##                |  ##                |  ##
                      0 |   #................|   #................|   #....
                        +--------------------+--------------------+------> time
                        one alone, then all    wait     one alone, then all

Which requests share a limit?
-----------------------------
Headers name the limit in about a quarter of the answers. Operations whose answers give the same name, limit and period
share one window: Datadog gives one name to several limits. An operation whose limit has no name has a window of
its own. A limit that changes in the middle is the same window with another limit.

What is left?
-------------
The lowest `remaining` seen in this window. Answers come out of order, and the lowest one is the latest. `min` makes the
order harmless. An answer of a past window is ignored; one of a later window opens that.

What is in flight?
------------------
A request that was sent and has no answer yet. It may or may not be in `remaining` already. To be safe it is taken off:
a request may be sent while `remaining - in flight > 0`. But a call is rejected only if there cannot be room: then only
what was sent after the last count is taken off. A request that was lost (a timeout, a dropped connection, a
cancellation) may have been counted by the server, so it is deducted. One that never left was not, so it is not.

How is the end of a window known?
---------------------------------
`reset` is in whole seconds, rounded up. An answer sent at t1 and received at t2 with `reset` r puts the end in the
interval (t1 + r - 1, t2 + r]. Intersecting the intervals of several answers narrows it, to a few milliseconds once two
responses lie on both sides of a step of `reset`. Within the interval the wall clock decides, since windows end at whole
multiples of the period. It may be wrong. If it once makes a request leave too early, it is not consulted again.
A server that rounds down, or to the nearest second, puts the end a second or half a second later. That shows when it
still answers from the old window after the interval's end. From then on the interval is shifted.

When does the next window begin?
--------------------------------
The expected end, and 10 ms more, since clocks and timers are not exact. Then `limit` requests are there again. The
first one goes alone to confirm that the window has begun: if it has not, one 429 is the whole damage, not fifty. The
others wait for its answer, but for one second at most.
The very first request of a client also goes alone, since nothing is known yet. An answer without rate-limit headers
opens the limiter fully: there is no limit.

Who else spends it?
-------------------
Limits are per organization. Other processes and people spend them, too, and show only in `remaining`. Alone, the n-th
request of a window leaves `limit - n`. If the sums over a window show more spent than this client has sent, others are
there: `Contention.current` is how many times faster the limit falls than we spend it.
Then the part of what is left that may be in flight shrinks as the window empties, so that the last requests of several
clients do not collide, and the last few stay unused. Two windows without others make them forgotten. A new client
begins its first window slowly, until it knows.
In a crowd (a factor over 14) the sums say little, since a client has few requests in each window. Its position tells
more: if all clients begin a window together, and r requests were counted before this client's first one, there are
about 2r clients. And a part of what is left is less than one request, so each client paces itself: it sends its share
one by one, from a random moment on. Measured in simulation, with clients that start together, 20 ms, 100 requests per
10 s, twelve windows: 2 to 8 clients get no 429; 16, 32 and 64 clients get 2, 6 and 11 % (before these two rules 16, 42
and 60 %), half of them while they find one another, and use 96 % of a window or more. More clients than requests need
one count for all.
`reserve` is a share of each window that is left to others even where none is seen. It belongs to each request: see
below.

How do many processes share a limit?
------------------------------------
By the headers alone a few do well; dozens cannot. With a `rate_limit_store` all clients of the fleet share one window.
One of them sends the first request; the others wait up to a second for its response. Clients outside the fleet have
spent `limit - remaining - leased`, and that figure never falls within a window. While they are present, only a part of
what is left is leased. Requests in flight when a window begins may count in it, so as many permits are held back for
0.5 s.

A client leases permits in batches and asks for the next one before the last is used up, so few requests wait for the
store. It gets at most a fair share of what is left: half of it, divided by the clients that have asked lately; and
permits for callers to come only while plenty is left. What it does not use for 0.1 s (1 s while plenty is left) it
gives back, and when it is closed. Of a client that dies, the last batch is lost for that window.

Every client keeps its own window by the headers up to date, too. If the store is unavailable, the client uses that
window only, and assumes the number of clients that the store has counted. When the store is available again, the client
hands over what it knows, in case the store has lost it.

What happens at a 429?
----------------------
It pauses all requests that spend that limit, not only the one that got it. With a `reset` it says when the window
ends, and nothing is left until then. Without one, the pause lasts for `Retry-After`, or else for a random time that
grows with each 429 in a row. The next request is a probe again. Whether the request that got the 429 is sent again is
not decided here, but in `_execution.retry`.

Who passes first?
-----------------
Of the calls that may go, the one that came first. A client's views may have a reserve each: a call with the reserve 0.5
may go while more than half of the window is left. A job spends the first half, and web calls find room in the second.
A view may also have a bound of its own on its requests in flight.

    left of a window of 100   100 ........ 50 ............ 0
    a call with reserve 0.5   may go       | waits for the next window
    a call without one        may go .................... | waits

What holds a call back holds back all later ones with the same reserve and bound, but no others. So each such kind has a
queue of its own, and only the first of each queue is looked at. What one waiter costs does not grow with the queues'
length, and one timer serves all of them.

How long does a call wait?
--------------------------
As long as it takes, in that order; with a limit per hour that can be hours. A call with a longest wait is
rejected as soon as it is known that its turn comes later than that: on arrival, when the window is put off, or at the
latest when its time is up. A cancelled call gives its place in the queue back.
"""

from .leased_window import share_limits
from .limiter import RateLimiter
from .permit import Permit
from .store import RateLimitStore

__all__ = ["Permit", "RateLimitStore", "RateLimiter", "share_limits"]
