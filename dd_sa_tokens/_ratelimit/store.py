"""What the limiter asks of a store that many processes share. Pure: the stores themselves are elsewhere."""

from __future__ import annotations

from typing import Protocol

import attrs


@attrs.frozen(kw_only=True)
class WindowView:
    """A window as the headers of one client's answers describe it. Times are seconds from now."""

    limit: int
    """Requests allowed in the window."""

    period: float
    """Its length."""

    remaining: int
    """The lowest count that an answer gave in this window."""

    ends_in: float
    """When it is expected to end."""

    uncertainty: float
    """The length of the interval in which the answers put the end."""


@attrs.frozen(kw_only=True)
class LeaseRequest:
    """What one client reports to a store, and asks of it."""

    scope: str
    """Where the requests go: the base URL. Limits of different scopes have nothing to do with one another."""

    record: str
    """The limit, by name, limit and period; or the operation, while its limit has no name."""

    operation: str
    """The operation that the client asks for."""

    window: int = 0
    """The number of the store's window that `finished` and `returned` belong to; 0 for none."""

    finished: int = 0
    """Leased permits whose requests have ended since the last report."""

    returned: int = 0
    """Leased permits that are given back: no request was sent with them."""

    needed: int = 0
    """Permits for which callers wait now."""

    wanted: int = 0
    """Permits in all, with those for callers to come."""

    reserve: float = 0.0
    """Share (0 <= r < 1) of the window that is left to others."""

    probe_answered: bool | None = None
    """Whether the probe that was leased to this client had an answer; `None` if none has ended."""

    pause: float = 0.0
    """Seconds for which all clients wait, because a 429 did not say when the window ends."""

    view: WindowView | None = None
    """What the headers say of the current window; `None` if none was seen in it."""


@attrs.frozen(kw_only=True)
class Lease:
    """What a store answers."""

    record: str
    """The limit, by the name that is known now. If it is not the one asked for, ask again with this one."""

    window: int = 0
    """The number of the store's window."""

    granted: int = 0
    """Permits that are leased to the client until the window ends."""

    left: int | None = None
    """Permits that no client has; `None` if no limit is known, and each client uses its own headers only."""

    ends_in: float = 0.0
    """Seconds until the window ends."""

    limit: int | None = None
    """Requests allowed in the window; `None` while unknown."""

    period: float | None = None
    """Seconds from window to window; `None` while unknown."""

    is_probe: bool = False
    """Whether the permit is for the first request of the window: the other clients wait for its answer."""

    is_probing: bool = False
    """Whether nothing was granted because another client's probe is in flight."""

    paused_for: float = 0.0
    """Seconds for which no client may send."""

    is_far: bool = False
    """Whether so much is left that it does no harm to hold permits for callers to come."""

    is_tight: bool = False
    """Whether others who do not use the store leave so little that each finished request counts."""

    clients: int = 1
    """Clients that have asked in this window or the one before: the more, the less often each one should ask."""


class RateLimitStore(Protocol):
    """Where many clients keep one rate-limit window in common. Provisional: its methods may change.

    `dd_sa_tokens.fleet.RedisStore` is one. A store never makes a call fail: while it cannot be reached, `lease` returns
    `None`, and each client uses the headers of its own answers only.
    """

    def check(self) -> None:
        """See that the store can be used under the running event loop.

        Raises:
            ConfigurationError: It is not open, is closed, or is of another loop.
        """
        ...

    async def lease(self, request: LeaseRequest) -> Lease | None:
        """Record a client's report, and lease permits to it. One round trip.

        Args:
            request: The report and the demand.

        Returns:
            The lease; `None` while the store cannot be reached. No exception is raised for that. Callers wait for the
            reply: `RedisStore` takes at most about 0.2 s if Redis is silent, and 1.2 s if it is busy.
        """
        ...
