"""The first request of a window that no answer has confirmed yet. It goes alone: its answer tells what is left."""

from __future__ import annotations

import math

import attrs

PROBE_TIMEOUT = 1.0
"""Most seconds for which a probe holds other requests back."""


@attrs.define(eq=False)
class Probe:
    """The request that goes alone, and for how long the others wait for its answer.

    A probe that fails is followed by another one at once, but both together hold the others back for `PROBE_TIMEOUT`:
    a server that never answers must not serialise the client.

    Attributes:
        permit: The permit of the probe that is under way; `None` if none is.
    """

    permit: object | None = None
    _since: float = -math.inf
    _last_send: float = -math.inf

    def send(self, permit: object, now: float, *, is_idle: bool) -> None:
        """Take the request as the probe if none is under way. `is_idle`: nothing else is in flight."""
        if self.permit is None:
            self.permit = permit
            if self._since == -math.inf or (is_idle and now - self._last_send > PROBE_TIMEOUT):
                self._since = now

    def record_send(self, now: float) -> None:
        """Note when a request was sent, probe or not."""
        self._last_send = now

    def end(self, permit: object) -> None:
        """Note that a request has ended; if it is the probe, another one may go."""
        if self.permit is permit:
            self.permit = None

    def reset(self) -> None:
        """Begin anew: the window that it asked about is over."""
        self.permit = None
        self._since = -math.inf

    def delay(self, now: float) -> float:
        """Return for how many more seconds the others are held back; 0 or less once that is over."""
        return self._since + PROBE_TIMEOUT - now
