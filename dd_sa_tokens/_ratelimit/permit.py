"""The permission to send one request."""

from __future__ import annotations

import attrs

from dd_sa_tokens.config import ConcurrencyBound


@attrs.define(eq=False)
class Permit:
    """The permission to send one request, and the request's place in its window.

    Attributes:
        window: The window that counts it.
        operation: The operation that it is for.
        sent: When it was given, on the loop's clock.
        window_number: The number of the window that it was meant for.
        number: Its place among the requests of this window, counted from 1.
        waited: Seconds that it waited because the rate limit was exhausted.
        bound: The view's own bound on requests in flight, which counts it, too; `None` without one.
    """

    window: object
    operation: str
    sent: float
    window_number: int
    number: int
    waited: float = 0.0
    bound: ConcurrencyBound | None = None
