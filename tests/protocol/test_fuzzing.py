"""Real answers, damaged at random: a value or an `InvalidResponseError` comes out, with orjson and without.

Each test says how many examples it tries; each example goes through all decoders, by both JSON libraries.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from support.internals import decode_with, json_loads_strictly
from support.samples import SAMPLES

from dd_sa_tokens import AccessToken, CreatedToken, InvalidResponseError
from dd_sa_tokens._protocol import operations
from dd_sa_tokens._protocol.codec import decode_created, decode_token, decode_tokens
from dd_sa_tokens._protocol.documents import Page, decode_errors
from dd_sa_tokens._protocol.headers import parse_rate_limit, parse_retry_after
from dd_sa_tokens._protocol.interpret import interpret
from dd_sa_tokens._protocol.responses import Failure, Response

EXECUTIONS = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DAY = 86_400.0

BODIES = [path.read_bytes() for path in sorted(SAMPLES.glob("*/[0-9]*.json"))]
DECODERS: dict[Callable[[bytes], Any], type] = {
    decode_token: AccessToken,
    partial(decode_tokens, date=0.0): Page,
    decode_created: CreatedToken,
    decode_errors: tuple,
}
REQUESTS: list[operations.Request[Any]] = [
    operations.get_token("a", "t"),
    operations.list_tokens("a", operations.ListOptions(), 0),
    operations.create_token("a", name="n", scopes=["s"], expires_at=None),
    operations.update_token("a", "t", name="n", scopes=None),
    operations.revoke_token("a", "t"),
]

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
dates = st.sampled_from(["2026-05-28T14:36:47.296135174Z", "2026-05-28", "2026-05-28T14:36:47+00:00", "0001-01-01T00Z"])
values = st.recursive(
    leaves | dates, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def places(document: object) -> Iterator[tuple[Any, Any]]:
    """Yield where each value of a document is: what holds it, and under which name or number."""
    items: Any = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in list(items):
        yield document, name
        if isinstance(value, dict | list):
            yield from places(value)


@st.composite
def damaged_documents(draw: st.DrawFn) -> bytes:
    """A real answer in which some values are others, missing, twice, or in another's place."""
    box = {"": json.loads(draw(st.sampled_from(BODIES)))}
    for _ in range(draw(st.integers(1, 4))):
        holder, name = draw(st.sampled_from(list(places(box))))
        what = draw(st.sampled_from(["replace", "remove", "wrap", "swap", "rename"]))
        if what == "replace":
            holder[name] = draw(values)
        elif what == "wrap":
            holder[name] = [holder[name]]
        elif what == "swap":
            other, place = draw(st.sampled_from(list(places(box))))
            holder[name] = copy.deepcopy(other[place])
        elif holder is not box:
            value = holder.pop(name)
            if what == "rename" and isinstance(holder, dict):
                holder[draw(st.text())] = value
    return json.dumps(box[""], ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")


@st.composite
def damaged_bytes(draw: st.DrawFn) -> bytes:
    """A real answer's bytes, cut, overwritten or with others put in."""
    body = draw(st.sampled_from(BODIES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(start + 9, len(body))) | st.just(len(body)))
        new = draw(
            st.binary(max_size=9) | st.sampled_from([b"\\ud800", b"NaN", b"-1e999", b"[" * 999, b"\xff", b"9" * 99])
        )
        body = body[:start] + new + body[end:]
    return body


def outcomes(body: bytes) -> Iterator[object]:
    """Yield what each decoder makes of a body: a value, or where and why there is none."""
    for decode, kind in DECODERS.items():
        try:
            value = decode(body)
        except InvalidResponseError as error:
            found = error.path, error.reason
            assert found[0].startswith("$")
            assert found[1]
            assert decode is not decode_errors
            yield found
        else:
            assert type(value) is kind
            repr(value)
            yield value


def check_decoders(body: bytes) -> None:
    """See that all decoders do the same with both JSON libraries, and nothing else than they may."""
    found: list[list[object]] = []
    with pytest.MonkeyPatch.context() as patch:
        for loads in (pytest.importorskip("orjson").loads, json_loads_strictly):
            decode_with(patch, loads)
            found.append(list(outcomes(body)))
    assert found[0] == found[1]


@given(damaged_documents())
@EXECUTIONS
def test_damaged_documents_are_values_or_one_error(body: bytes) -> None:
    """400 documents that are real ones but for some values: each decoder gives its value or says what is wrong."""
    check_decoders(body)


@given(damaged_bytes() | st.binary(max_size=99))
@EXECUTIONS
def test_damaged_bytes_are_values_or_one_error(body: bytes) -> None:
    """400 bodies with bytes cut, overwritten or put in: the same."""
    check_decoders(body)


NAMES = [
    *(f"X-RateLimit-{part}" for part in ("Limit", "Period", "Remaining", "Reset", "Name")),
    "Retry-After",
    "Date",
    "X-Request-Id",
]
REAL = ["100", "10", "7", "7, 7", "0", "1764000000", "Wed, 25 Nov 2026 01:00:00 GMT", "service_account_access_tokens"]


@st.composite
def damaged_headers(draw: st.DrawFn) -> CIMultiDict[str]:
    """Headers with real values, some of them damaged, some sent twice."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=len(NAMES))):
        value = draw(st.sampled_from(REAL) | st.integers().map(str) | st.floats().map(str) | st.text(max_size=9))
        if draw(st.booleans()):
            place = draw(st.integers(0, len(value)))
            value = value[:place] + draw(st.text(alphabet="0123456789.,-+:eE GMT\u0663\0", max_size=4)) + value[place:]
        headers.add(name, value)
    return headers


@given(damaged_headers(), st.integers(100, 599), st.sampled_from(BODIES), st.floats(0, 1e11), st.booleans())
@settings(EXECUTIONS, max_examples=200)
def test_damaged_headers_are_values_in_range(
    headers: CIMultiDict[str], status: int, body: bytes, received: float, repeated: bool
) -> None:
    """200 answers with damaged headers: nothing raises, and what is read of them is finite and in its range."""
    rate = parse_rate_limit(headers, received, str)
    reply = Response(status, headers, body, rate, received)
    if rate is not None:
        assert rate.limit is None or rate.limit >= 1
        assert rate.remaining is None or rate.remaining >= 0
        assert rate.period is None or 0 < rate.period <= DAY
        assert rate.reset is None or 0 <= rate.reset <= DAY
        assert attrs.astuple(rate) != (None,) * 5
    wait = parse_retry_after(reply.headers, reply.received)
    assert wait is None or (wait > 0 and math.isfinite(wait))
    for request in REQUESTS:
        outcome = interpret(request, reply, str, repeated=repeated)
        assert not isinstance(outcome, Failure) or str(outcome.error)
