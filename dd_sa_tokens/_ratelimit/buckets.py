"""Buckets: which operations spend the same limit, and the callers that wait for it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from .leased_window import Window
from .queues import Queues

Key = tuple[str, int | None, float | None]
"""What tells one limit from another: its name, limit and period."""


@attrs.define(eq=False)
class Bucket:
    """The window of one limit and the callers that wait for it."""

    window: Window
    key: Key | None = None
    queues: Queues = attrs.field(factory=Queues)


@attrs.define(eq=False)
class Route:
    """Which bucket an operation spends, and how many of its requests are in flight."""

    bucket: Bucket
    in_flight: int = 0


class Buckets:
    """The buckets of one client.

    Args:
        new_bucket: Makes the bucket of an operation of whose limit nothing is known yet.

    Attributes:
        routes: The routes, by operation.
        all: The buckets: a set that keeps its order.
    """

    def __init__(self, new_bucket: Callable[[str], Bucket]) -> None:
        self._make_bucket = new_bucket
        self.routes: dict[str, Route] = {}
        self.all: dict[Bucket, None] = {}
        self._by_key: dict[Key, Bucket] = {}

    def add_route(self, operation: str) -> Route:
        """Return the route of a new operation. It begins with a bucket of its own."""
        route = self.routes[operation] = Route(self._new_bucket(operation))
        return route

    def _new_bucket(self, operation: str) -> Bucket:
        bucket = self._make_bucket(operation)
        self.all[bucket] = None
        return bucket

    def assign(self, operation: str, route: Route, key: Key) -> None:
        """Put an operation into the bucket of the limit that its answer names.

        An operation that is alone in its bucket, and names a limit that is not known yet, keeps its window: its limit
        was nameless before, or has changed in the middle of a window.
        """
        bucket, known = route.bucket, self._by_key.get(key)
        is_shared = any(other.bucket is bucket for other in self.routes.values() if other is not route)
        if known is None and not is_shared:
            self._forget_key(bucket)
            bucket.key, self._by_key[key] = key, bucket
            return
        if known is None:
            known = self._new_bucket(operation)
            known.key, self._by_key[key] = key, known
        route.bucket = known
        bucket.window.in_flight -= route.in_flight
        known.window.in_flight += route.in_flight
        bucket.queues.move(operation, known.queues)
        if not is_shared:
            del self.all[bucket]
            self._forget_key(bucket)

    def _forget_key(self, bucket: Bucket) -> None:
        if bucket.key is not None:
            del self._by_key[bucket.key]
