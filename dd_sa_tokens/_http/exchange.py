"""One exchange with the server that is under way: a request, and its answer to come."""

from __future__ import annotations

import aiohttp
import attrs

from dd_sa_tokens._cancellation import Cancellation


@attrs.define(eq=False)
class Exchange(Cancellation):
    """A request that is under way, and the way to cut it short.

    Attributes:
        deadline: When it must have ended, on the loop's clock.
        seen: Whether it was seen on its way to a connection. A mock, or a session that replaces aiohttp's own code,
            shows nothing.
        was_sent: Whether it was seen leaving over a connection.
    """

    deadline: float = 0.0
    seen: bool = attrs.field(default=False, init=False)
    was_sent: bool = attrs.field(default=False, init=False)

    def mark_sent(self) -> None:
        """Note that the request leaves. It must not leave again, as aiohttp would send it over a lost connection.

        Neither the rate limiter nor the retry budget would know of that second request. And a second revoke would be
        told that there is no such token, since the first one revoked it.

        Raises:
            ServerDisconnectedError: It left before.
        """
        if self.was_sent:
            raise aiohttp.ServerDisconnectedError
        self.seen = self.was_sent = True

    @property
    def sent(self) -> bool | None:
        """Whether the request left; `None` where that cannot be known."""
        return self.was_sent if self.seen else None
