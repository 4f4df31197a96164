"""The faults that can be scripted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs

from ._checks import check, is_seconds, is_whole


@attrs.frozen
class Fault:
    """What a request meets instead of its answer, or does to it; see `FakeDatadog.fail_next`."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes | None
    drop: bool
    truncate: bool
    stall: float | None


def check_fault(fault: Fault) -> None:
    kinds = (fault.status is not None, fault.drop, fault.truncate, fault.stall is not None)
    check("fail_next's status, drop, truncate and stall", sum(map(bool, kinds)) == 1, "given one at a time", kinds)
    fits = fault.status is None or (is_whole(fault.status, 200) and fault.status <= 599)
    check("status", fits, "a whole number from 200 to 599", fault.status)
    fits = fault.stall is None or is_seconds(fault.stall)
    check("stall", fits, "seconds, at least 0", fault.stall)
    bare = not fault.headers and fault.body is None
    check("headers", isinstance(cast("object", fault.headers), Mapping), "a mapping", fault.headers)
    check("body", isinstance(cast("object", fault.body), bytes | None), "bytes", fault.body)
    check("headers and body", bare or fault.status is not None, "given with a status only", fault)
