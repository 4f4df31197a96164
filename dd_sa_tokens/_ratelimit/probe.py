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
        permit: The permit of the probe in flight; `None` if none is.
    """

    permit: object | None = None
    _since: float = -math.inf

    def send(self, permit: object, now: float, *, after_silence: bool) -> None:
        """Take the request as the probe if none is in flight.

        Args:
            permit: The request's.
            now: When it is sent.
            after_silence: Whether nothing is in flight and nothing was sent for `PROBE_TIMEOUT`.
        """
        if self.permit is None:
            self.permit = permit
            if self._since == -math.inf or after_silence:
                self._since = now

    def end(self) -> None:
        """Note that the probe has ended: another one may go."""
        self.permit = None

    def reset(self) -> None:
        """Begin anew: the window that it asked about is over."""
        self.permit = None
        self._since = -math.inf

    def delay(self, now: float) -> float:
        """Return for how many more seconds the others are held back; 0 or less once that is over."""
        return self._since + PROBE_TIMEOUT - now
