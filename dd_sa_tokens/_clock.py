"""The two clocks of a client, injected once so that tests can run hours in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs


@attrs.frozen
class Clock:
    """Where a client takes the time from.

    Attributes:
        monotonic: Seconds that never jump, on the same clock as the event loop's.
        wall: Seconds since the epoch.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
