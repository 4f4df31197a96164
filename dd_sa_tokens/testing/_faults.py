"""The faults that a test scripts, and which request meets which."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from itertools import repeat
from typing import cast

import attrs

from ._checks import canonical_id, check, is_seconds, is_whole
from ._routes import OPERATIONS, Route

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
_HEADER_VALUE = re.compile("[^\0\r\n\ud800-\udfff]*")  # what can be sent


@attrs.frozen
class Fault:
    """What happens to a request or to its answer; see `FakeDatadog.fail_next`."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes | None
    drop: bool
    truncate: bool
    stall: float | None
    operation: str | None = None
    token_id: str | None = None

    def matches(self, route: Route) -> bool:
        """Return whether the fault is meant for a request."""
        if self.operation not in {None, route.operation.name}:
            return False
        return self.token_id is None or canonical_id(self.token_id) == canonical_id(route.token_id or "")


class FaultQueue:
    """The faults that are still pending, in the order in which they were scripted."""

    def __init__(self) -> None:
        self._faults: deque[Fault] = deque()

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, fault: Fault, count: int) -> None:
        """Script a fault for several requests."""
        self._faults.extend(repeat(fault, count))

    def clear(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def next(self, route: Route) -> Fault | None:
        """Return the first fault that is meant for a request, and leave it in the queue."""
        return next((fault for fault in self._faults if fault.matches(route)), None)

    def take(self, route: Route) -> Fault | None:
        """Return the first fault that is meant for a request, and remove it."""
        for place, fault in enumerate(self._faults):
            if fault.matches(route):
                del self._faults[place]
                return fault
        return None


def _fits(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def check_fault(fault: Fault) -> None:
    """Refuse a fault that is invalid.

    Raises:
        InvalidArgumentError: Not exactly one kind is given, or a value is out of range.
    """
    kinds = (fault.status is not None, fault.drop, fault.truncate, fault.stall is not None)
    check("fail_next's status, drop, truncate and stall", sum(map(bool, kinds)) == 1, "given one at a time", kinds)
    valid = fault.status is None or (is_whole(fault.status, 200) and fault.status <= 599)
    check("status", valid, "a whole number from 200 to 599", fault.status)
    valid = fault.stall is None or is_seconds(fault.stall)
    check("stall", valid, "seconds, at least 0", fault.stall)
    bare = not fault.headers and fault.body is None
    check("headers", isinstance(cast("object", fault.headers), Mapping), "a mapping", fault.headers)
    for name, value in fault.headers.items():
        valid = _fits(_HEADER_NAME, name) and _fits(_HEADER_VALUE, value)
        check("headers", valid, 'a mapping such as {"Retry-After": "3"}, of strs without line breaks', {name: value})
    check("body", isinstance(cast("object", fault.body), bytes | None), "bytes", fault.body)
    check("headers and body", bare or fault.status is not None, "given with a status only", fault)
    names = [operation.name for operation in OPERATIONS]
    check("operation", fault.operation in {None, *names}, f"one of {', '.join(names)}", fault.operation)
    check("token_id", isinstance(cast("object", fault.token_id), str | None), "a str", fault.token_id)
