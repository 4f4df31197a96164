"""One exchange with the server: a request in flight, and its answer to come."""

from __future__ import annotations

import aiohttp
import attrs

from dd_sa_tokens._cancellation import Cancellation

_LONGEST_GRACE = 1.0  # seconds
_SHORTEST_GRACE = 0.002  # seconds: the few passes of the loop in which an answer in the socket reaches its task


@attrs.define(eq=False)
class Exchange(Cancellation):
    """A request in flight, and the way to cut it short.

    Attributes:
        timeout: Seconds that it may take.
        deadline: When it must have ended, on the loop's clock.
        tracked: Whether it was seen on its way to a connection. A mock, or a session that replaces aiohttp's own code,
            shows nothing.
        was_sent: Whether it was seen leaving over a connection.
        proxy: Host and port of the proxy that it goes through; empty for none.
    """

    timeout: float = 0.0
    deadline: float = 0.0
    tracked: bool = attrs.field(default=False, init=False)
    was_sent: bool = attrs.field(default=False, init=False)
    proxy: str = attrs.field(default="", init=False)
    _grace: float = attrs.field(default=-1.0, init=False)

    def refuse_repetition(self) -> None:
        """Keep a request that left from leaving again, as aiohttp would send it over a lost connection.

        Neither the rate limiter nor the retry budget would know of that second request. And a second revoke would be
        told that there is no such token, since the first one revoked it.

        Raises:
            ServerDisconnectedError: It was sent before.
        """
        if self.was_sent:
            raise aiohttp.ServerDisconnectedError

    def mark_sent(self) -> None:
        """Record that the request is sent.

        Raises:
            ServerDisconnectedError: It was sent before.
        """
        self.refuse_repetition()
        self.tracked = self.was_sent = True

    def extend_deadline(self, now: float, late: float) -> bool:
        """Give the exchange more time when its timer fires; return whether it got some.

        If the loop was blocked for d seconds, the timer fires late, and the response may be in the socket already. So
        the exchange gets min(d, 1 s) more, at least 2 ms, and again only if the timer is later than before.
        """
        if late <= self._grace:
            return False
        self._grace = max(late, _SHORTEST_GRACE)
        self.deadline = now + min(self._grace, _LONGEST_GRACE)
        return True

    @property
    def sent(self) -> bool | None:
        """Whether the request left; `None` where that cannot be known."""
        return self.was_sent if self.tracked else None
