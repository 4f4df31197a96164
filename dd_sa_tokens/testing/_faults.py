"""The faults that a test scripts, and which request meets which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import attrs

from ._checks import canonical_id, check, is_seconds, is_whole
from ._routes import OPERATIONS, Route

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
# What can be sent: of the control characters, a tab only.
_HEADER_VALUE = re.compile("[^\0-\x08\n-\x1f\x7f\ud800-\udfff]*")
_LENGTH = re.compile("[0-9]+")


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
        self._faults: list[_Scripted] = []

    @property
    def pending(self) -> int:
        """How many requests will meet a fault."""
        return sum(scripted.left for scripted in self._faults)

    def add(self, fault: Fault, count: int) -> None:
        """Script a fault for several requests."""
        self._faults.append(_Scripted(fault, count))

    def clear(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def next(self, route: Route) -> Fault | None:
        """Return the first fault that is meant for a request, and leave it in the queue."""
        return next((scripted.fault for scripted in self._faults if scripted.fault.matches(route)), None)

    def take(self, route: Route) -> Fault | None:
        """Return the first fault that is meant for a request, and count it down."""
        for place, scripted in enumerate(self._faults):
            if scripted.fault.matches(route):
                scripted.left -= 1
                if not scripted.left:
                    del self._faults[place]
                return scripted.fault
        return None


@attrs.define
class _Scripted:
    """A fault, and how many requests it has left to meet."""

    fault: Fault
    left: int


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
        what = 'a mapping such as {"Retry-After": "3"}, of strs without control characters'
        check("headers", valid, what, {name: value})
        valid = name.lower() != "content-length" or _fits(_LENGTH, value)  # a wrong length can be sent, a word cannot
        check("headers", valid, "a mapping whose Content-Length has digits only", {name: value})
    check("body", isinstance(cast("object", fault.body), bytes | None), "bytes", fault.body)
    check("headers and body", bare or fault.status is not None, "given with a status only", fault)
    names = [operation.name for operation in OPERATIONS]
    check("operation", fault.operation in [None, *names], f"one of {', '.join(names)}", fault.operation)
    check("token_id", isinstance(cast("object", fault.token_id), str | None), "a str", fault.token_id)
