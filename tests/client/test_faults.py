"""Faults against operations, over real sockets: what comes out, how often it was asked, what is left behind.

A fault lasts, so that every request meets it, or passes, so that only the first one does. What each cell has to be
follows from a few facts about the fault (`Kind`) and about the operation; it stands in the test's name.
"""

from __future__ import annotations

import copy
import gc
import gzip
import itertools
import json
import logging
import pickle
import time
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from email.utils import formatdate
from enum import Enum
from typing import Any

import attrs
import pytest
from support.cancelling import check_nothing_left, our_tasks
from support.internals import (
    connections_kept,
    decode_with,
    json_loads_strictly,
    look_at_lists_for,
    parts,
    replace_retry_sleep,
    session_of,
    windows,
)
from support.keys import ACCESS_TOKEN, ACCOUNT, API_KEY, APP_KEY, CREATED_KEY, KEYS, leaks, remains
from support.payloads import rate_limit_headers, resource
from support.replies import ReceivedRequest, Responder, bomb, drip, endless, hang_up, head, raw, reply, reset, stall
from support.servers import RawServer, StartServer
from support.waiting import until

from dd_sa_tokens import (
    AccessToken,
    APIError,
    CreatedToken,
    DatadogError,
    InvalidResponseError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    RotationError,
    ServerError,
    TokensClient,
    TransportError,
    converter,
)
from dd_sa_tokens._http import LARGEST_BODY

IDS = ["t1", "t2", "t3"]
TRIES = 2
REJECTIONS = 10
POLICY = RetryPolicy(max_attempts=TRIES, initial_backoff=0.001, max_backoff=0.005)
CREDENTIALS: dict[str, dict[str, str]] = {"pair": KEYS, "bearer": {"access_token": ACCESS_TOKEN}}


# What the server does


def good(request: ReceivedRequest) -> tuple[int, bytes]:
    """Return the status and the body that the API documents; a created token's holds its key."""
    method = request.line.split(" ")[0]
    if method == "POST":
        return 201, json.dumps({"data": resource("new", key=CREATED_KEY)}).encode()
    if method == "DELETE":
        return 200, b'{"meta": "what a proxy wrote into an answer that should be empty"}'
    if "?" in request.target:
        page = {"data": [resource(token_id) for token_id in IDS], "meta": {"page": {"total_filtered_count": len(IDS)}}}
        return 200, json.dumps(page).encode()
    return 200, json.dumps({"data": resource(request.token_id)}).encode()


def keys_of(request: ReceivedRequest) -> str:
    """Return the keys that a request brought, as a server that echoes them would."""
    names = ("dd-api-key", "dd-application-key", "authorization")
    return " ".join(request.headers[name] for name in names if name in request.headers)


def spoilt(
    spoil: Callable[[bytes, bytes], Responder], encode: Callable[[bytes], bytes] = bytes, **headers: str
) -> Responder:
    """Do something to the head and the body of a good answer."""

    async def act(request: ReceivedRequest) -> None:
        status, body = good(request)
        body = encode(body)
        told = {"Content-Length": str(len(body)), "X-Echo": keys_of(request)} | headers
        await spoil(head(status, told), body)(request)

    return act


def instead(body: Callable[[dict[str, Any]], object]) -> Responder:
    """Answer with another document, made from the good one."""

    async def act(request: ReceivedRequest) -> None:
        status, document = good(request)
        await reply(status, body(json.loads(document)), {"X-Echo": keys_of(request)})(request)

    return act


def said(status: int, headers: dict[str, str] | None = None, body: bytes | None = None) -> Responder:
    """Answer an error that echoes the request with its keys in all that an error may show."""

    async def act(request: ReceivedRequest) -> None:
        keys = keys_of(request)
        told = {"X-Request-Id": keys, "X-RateLimit-Name": keys} if headers else {"X-Request-Id": keys}
        words = {"errors": [keys, request.head.decode()]} if body is None else body + keys.encode()
        await reply(status, words, told | (headers or {}))(request)

    return act


def epoch(request: ReceivedRequest) -> Awaitable[None]:
    """Answer a 429 whose reset is a Unix time, seven seconds after the answer's own date."""
    sent = int(time.time())
    headers = {"Date": formatdate(sent, usegmt=True), "X-RateLimit-Reset": str(sent + 7)}
    return said(429, headers)(request)


def retry_at(seconds: float) -> Responder:
    """Answer a 503 whose `Retry-After` is a date so many seconds after the answer's own."""

    async def act(request: ReceivedRequest) -> None:
        dates = {"Date": formatdate(1e9, usegmt=True), "Retry-After": formatdate(1e9 + seconds, usegmt=True)}
        await said(503, dates)(request)

    return act


def elsewhere(status: int) -> Responder:
    """Answer a redirect to a host that must get no request; its port is the first segment of the path."""

    async def act(request: ReceivedRequest) -> None:
        location = f"http://127.0.0.1:{request.target.split('/')[1]}/?key={keys_of(request)}"
        await reply(status, b"", {"Location": location})(request)

    return act


def with_leaf(value: object) -> Callable[[dict[str, Any]], object]:
    """Put a value where the API has a date."""

    def change(document: dict[str, Any]) -> object:
        data = document.get("data") or {"attributes": {}}
        for item in data if isinstance(data, list) else [data]:
            item["attributes"]["created_at"] = value
        return document

    return change


def with_id(rename: Callable[[str], str]) -> Callable[[dict[str, Any]], object]:
    """Give the tokens other IDs."""

    def change(document: dict[str, Any]) -> object:
        data = document.get("data") or {"id": ""}
        for item in data if isinstance(data, list) else [data]:
            item["id"] = rename(item["id"])
        return document

    return change


DEEP = b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


# What has to come of it


class Kind(Enum):
    """What a fault means for the request that meets it."""

    NONE = "no fault for the client"
    MAYBE = "it may have been carried out, and another try may succeed"
    MAYBE_FINAL = "it may have been carried out, and another try would not help"
    UNREADABLE = "the body of a success makes no sense, to those who read it"
    OTHER_TOKEN = "the answer is about another token than the one asked for"
    NOT_SENT = "it never left"
    NO_RESET = "a 429 that does not say when to come back"
    RESET_SOON = "a 429 that says to come back soon"
    # Its period is a day: where a window ends before the deadline, the call would wait for it.
    RESET_ZERO = "a 429 with a reset of 0: a second one can mean a second, the unit of that header"
    RESET_LATE = "a 429 that says to come back later than the caller can wait"


@attrs.frozen
class Fault:
    """What the server does, and what follows from it.

    Attributes:
        kind: What it means.
        error: What is raised where it cannot be mended.
        act: What the server does.
        timeout: The client's; short where the server stalls.
        max_wait: The client's `max_rate_limit_wait`.
        retry_after: What the error says of it.
        by_json: Decode with the standard library, although orjson is there.
    """

    kind: Kind
    error: type[DatadogError]
    act: Responder
    timeout: float = 10.0
    max_wait: float = 5.0
    retry_after: float | None = None
    by_json: bool = False


def whole(head: bytes, body: bytes) -> Responder:
    """Write a whole answer and keep the connection."""

    async def act(request: ReceivedRequest) -> None:
        request.writer.write(head + body)
        await request.writer.drain()

    return act


STALL = 0.1
FAULTS: dict[str, Fault] = {
    "refused": Fault(Kind.NOT_SENT, TransportError, hang_up()),
    "closed before the answer": Fault(Kind.MAYBE, TransportError, hang_up()),
    "reset before the answer": Fault(Kind.MAYBE, TransportError, reset()),
    "reset in the headers": Fault(Kind.MAYBE, TransportError, spoilt(lambda head, _: reset(head[:-9]))),
    "reset in the body": Fault(Kind.MAYBE, TransportError, spoilt(lambda head, body: reset(head + body[:-9]))),
    "truncated": Fault(Kind.MAYBE, TransportError, spoilt(lambda head, body: raw(head + body[:-9]))),
    "stalled before the headers": Fault(Kind.MAYBE, RequestTimeoutError, stall(), STALL),
    "stalled in the headers": Fault(Kind.MAYBE, RequestTimeoutError, spoilt(lambda head, _: stall(head[:-9])), STALL),
    "stalled in the body": Fault(
        Kind.MAYBE, RequestTimeoutError, spoilt(lambda head, body: stall(head + body[:-9])), STALL
    ),
    "slow drip": Fault(Kind.MAYBE, RequestTimeoutError, spoilt(lambda head, body: drip(head + body, 0.01)), STALL),
    "408": Fault(Kind.MAYBE, APIError, said(408)),
    "429, reset 0": Fault(
        Kind.RESET_ZERO, RateLimitError, said(429, rate_limit_headers(5, 0, 0, 86_400)), max_wait=0.3
    ),
    "429, reset 0 alone": Fault(Kind.NO_RESET, RateLimitError, said(429, {"X-RateLimit-Reset": "0"})),
    "429, reset twice": Fault(Kind.RESET_LATE, RateLimitError, said(429, {"X-RateLimit-Reset": "7, 7"}), retry_after=7),
    "429, reset twice, soon": Fault(Kind.RESET_SOON, RateLimitError, said(429, {"X-RateLimit-Reset": "0.001, 0.001"})),
    "429, reset as a Unix time": Fault(Kind.RESET_LATE, RateLimitError, epoch, retry_after=7),
    "429, reset a fraction": Fault(Kind.RESET_SOON, RateLimitError, said(429, {"X-RateLimit-Reset": "0.001"})),
    "429, reset junk": Fault(Kind.NO_RESET, RateLimitError, said(429, {"X-RateLimit-Reset": "soon"})),
    "429, reset negative": Fault(Kind.NO_RESET, RateLimitError, said(429, {"X-RateLimit-Reset": "-7"})),
    "429, no headers": Fault(Kind.NO_RESET, RateLimitError, said(429)),
    "429, HTML": Fault(Kind.NO_RESET, RateLimitError, said(429, {"Content-Type": "text/html"}, b"<html>slow down")),
    "429, Retry-After": Fault(Kind.RESET_SOON, RateLimitError, said(429, {"Retry-After": "0.001"})),
    "429, for an hour": Fault(
        Kind.RESET_LATE, RateLimitError, said(429, rate_limit_headers(5, 0, 3000, 3600)), retry_after=3000
    ),
    "500": Fault(Kind.MAYBE, ServerError, said(500)),
    "501": Fault(Kind.MAYBE_FINAL, ServerError, said(501)),
    "502": Fault(Kind.MAYBE, ServerError, said(502, {"Content-Type": "text/html"}, b"<html>bad gateway")),
    "503, Retry-After in seconds": Fault(
        Kind.MAYBE, ServerError, said(503, {"Retry-After": "0.001"}), retry_after=0.001
    ),
    "503, Retry-After a date": Fault(Kind.MAYBE_FINAL, ServerError, retry_at(120), retry_after=120),
    "503, Retry-After in the past": Fault(Kind.MAYBE, ServerError, retry_at(-60)),
    "503, Retry-After absurd": Fault(
        Kind.MAYBE_FINAL, ServerError, said(503, {"Retry-After": "9" * 15}), retry_after=1e15
    ),
    "504": Fault(Kind.MAYBE, ServerError, said(504)),
    "512": Fault(Kind.MAYBE, ServerError, said(512)),
    **{
        f"{status} to another host": Fault(Kind.MAYBE_FINAL, TransportError, elsewhere(status))
        for status in (301, 302, 307)
    },
    "wrong content type": Fault(Kind.NONE, DatadogError, spoilt(whole, Content_Type="text/html; charset=utf-16")),
    "gzip": Fault(Kind.NONE, DatadogError, spoilt(whole, gzip.compress, Content_Encoding="gzip")),
    "deflate": Fault(Kind.NONE, DatadogError, spoilt(whole, zlib.compress, Content_Encoding="deflate")),
    "gzip cut short": Fault(
        Kind.UNREADABLE,  # for aiohttp it is complete
        InvalidResponseError,
        spoilt(whole, lambda body: gzip.compress(body)[:-20], Content_Encoding="gzip"),
    ),
    "deflate cut short": Fault(
        Kind.MAYBE,
        TransportError,
        spoilt(whole, lambda body: zlib.compress(body)[:-20], Content_Encoding="deflate"),
    ),
    "no gzip": Fault(Kind.MAYBE, TransportError, spoilt(whole, Content_Encoding="gzip")),
    "slow, but in time": Fault(Kind.NONE, DatadogError, spoilt(lambda head, body: drip(head + body, 0.001, 99))),
    "gzip bomb": Fault(Kind.MAYBE_FINAL, TransportError, spoilt(whole, lambda _: bomb(), Content_Encoding="gzip")),
    "endless body": Fault(
        Kind.MAYBE_FINAL,
        TransportError,
        endless(head(200, {"Connection": "close"}), (API_KEY + ACCESS_TOKEN).encode() * 900),
    ),
    "endless header": Fault(
        Kind.MAYBE_FINAL,
        TransportError,
        endless(b"HTTP/1.1 200 OK\r\nX-Echo: ", (APP_KEY + ACCESS_TOKEN).encode() * 90),
    ),
    "invalid JSON": Fault(Kind.UNREADABLE, InvalidResponseError, spoilt(whole, lambda body: body[:-1] + b" ")),
    "empty body": Fault(Kind.UNREADABLE, InvalidResponseError, spoilt(whole, lambda _: b"")),
    "JSON 100,000 deep": Fault(Kind.UNREADABLE, InvalidResponseError, spoilt(whole, lambda _: DEEP)),
    "JSON 100,000 deep, without orjson": Fault(
        Kind.UNREADABLE, InvalidResponseError, spoilt(whole, lambda _: DEEP), by_json=True
    ),
    "wrong shape: an array": Fault(Kind.UNREADABLE, InvalidResponseError, instead(lambda document: [document])),
    "wrong shape: a number": Fault(Kind.UNREADABLE, InvalidResponseError, instead(lambda _: {"data": 7})),
    "wrong shape: a leaf": Fault(Kind.UNREADABLE, InvalidResponseError, instead(with_leaf(CREATED_KEY))),
    "another token's ID": Fault(
        Kind.OTHER_TOKEN, InvalidResponseError, instead(with_id(lambda token_id: f"not-{token_id}"))
    ),
    "the ID in capitals": Fault(Kind.NONE, DatadogError, instead(with_id(str.upper))),
}
NOTHING_WRONG_FOR_A_REVOKE = {"empty body", "wrong shape: a number", "wrong shape: a leaf"}  # nothing, or an object
LARGE = {"gzip bomb", "endless body"}
"""Those that would not fit into memory, did anybody read them to their end."""


async def _attempt(call: Awaitable[object]) -> list[object]:
    try:
        return [await call]
    except DatadogError as error:
        return [error]


async def get(client: TokensClient) -> list[object]:
    return await _attempt(client.get_token(ACCOUNT, "t1"))


async def get_tokens(client: TokensClient) -> list[object]:
    return [item.token or item.error for item in await client.get_tokens(ACCOUNT, IDS, strategy="get")]


async def listed(client: TokensClient) -> list[object]:
    return [item.token or item.error for item in await client.get_tokens(ACCOUNT, IDS, strategy="list")]


async def auto(client: TokensClient) -> list[object]:
    return [item.token or item.error for item in await client.get_tokens(ACCOUNT, IDS, strategy="auto")]


async def stream(client: TokensClient) -> list[object]:
    async with aclosing(client.stream_tokens(ACCOUNT, iter(IDS))) as results:
        items = [item async for item in results]
    return [item.token or item.error for item in sorted(items, key=lambda item: item.token_id)]


async def list_(client: TokensClient) -> list[object]:
    async def read() -> list[AccessToken]:
        async with aclosing(client.list_tokens(ACCOUNT)) as tokens:
            return [token async for token in tokens]

    return await _attempt(read())


async def create(client: TokensClient) -> list[object]:
    return await _attempt(client.create_token(ACCOUNT, name="deploy", scopes=["dashboards_read"]))


async def update(client: TokensClient) -> list[object]:
    return await _attempt(client.update_token(ACCOUNT, "t1", name="new"))


async def revoke(client: TokensClient) -> list[object]:
    return await _attempt(client.revoke_token(ACCOUNT, "t1"))


async def rotate(client: TokensClient) -> list[object]:
    async def store(created: CreatedToken) -> None:
        assert created.key.reveal() == CREATED_KEY

    return await _attempt(client.rotate_token(ACCOUNT, "t1", store=store))


OPERATIONS: dict[str, Callable[[TokensClient], Awaitable[list[object]]]] = {
    "get": get,
    "get_tokens": get_tokens,
    "by list": listed,
    "by auto": auto,
    "stream": stream,
    "list": list_,
    "create": create,
    "update": update,
    "revoke": revoke,
    "rotate": rotate,
}
LISTED = {"by list", "by auto"}
"""`get_tokens` with a strategy that reads the list first: the first request is for a page, and so meets the fault."""
GOOD_FIRST = {"rotate": 1}
"""Requests of an operation before the first change, which is the one that meets the fault."""
CHANGES = {"create", "update", "revoke", "rotate"}
BULK = {"get_tokens", "stream"} | LISTED
ASKED_BY_ID = {"get", "stream", "update", "get_tokens"} | LISTED
NAMES = {"get": "get_token", "list": "list_tokens"} | dict.fromkeys(BULK, "get_token")
"""What errors call them; the others are `<operation>_token`."""


@attrs.frozen
class Cell:
    """What has to come of a fault and an operation.

    Attributes:
        fault: The fault's name.
        operation: The operation's.
        lasting: Whether every request meets the fault, or only the first.
        failed: Results that are errors; of three in bulk, else of one.
        tries: Times that each of those was tried.
        unknown: Whether those may have been carried out.
        requests: What the server saw.
    """

    fault: str
    operation: str
    lasting: bool
    failed: int
    tries: int
    unknown: bool
    requests: int

    @property
    def error(self) -> type[DatadogError]:
        """What is raised. A rotation says in an error of its own what holds, if anything may have been changed."""
        halfway = self.operation == "rotate" and (self.unknown or self.fault == UNDONE)
        return RotationError if halfway else FAULTS[self.fault].error

    @property
    def outcome(self) -> str:
        """It in words."""
        error = self.error.__name__
        what = f"{self.failed} {error}" if self.failed and self.operation in BULK else error if self.failed else "value"
        return f"{what}{', unknown' if self.unknown else ''}, {self.requests} sent"

    @property
    def credentials(self) -> dict[str, str]:
        """The key pair or the access token: they alternate, so each fault and each operation meets both."""
        position = list(FAULTS).index(self.fault) + list(OPERATIONS).index(self.operation) + self.lasting
        return list(CREDENTIALS.values())[position % 2]

    @property
    def short(self) -> str:
        """It in a few signs."""
        return f"{'E' if self.failed else 'V'}{self.requests}{'?' if self.unknown else ''}"

    def __str__(self) -> str:
        return f"{self.fault}, {self.operation}, {'lasting' if self.lasting else 'passing'} - {self.outcome}"


UNDONE = "wrong shape: a leaf"
"""After this answer to a create the new token's ID is known, and its secret is not: a rotation revokes it again."""


def expected(name: str, operation: str, *, lasting: bool) -> Cell:
    """Work out what has to come of a fault and an operation."""
    if operation in LISTED:
        return expected_by_list(name, operation, lasting=lasting)
    if operation == "rotate":
        return expected_of_rotation(name, lasting=lasting)
    kind = FAULTS[name].kind
    if (name in NOTHING_WRONG_FOR_A_REVOKE and operation == "revoke") or (
        kind is Kind.OTHER_TOKEN and operation not in ASKED_BY_ID
    ):
        kind = Kind.NONE  # nothing of it is read there
    calls = len(IDS) if operation in BULK else 1
    tries = {Kind.MAYBE: 1 if operation == "create" else TRIES, Kind.NOT_SENT: TRIES, Kind.NO_RESET: TRIES}
    tries |= {Kind.RESET_SOON: REJECTIONS, Kind.RESET_ZERO: 2}
    most = tries.get(kind, 1)
    if kind is Kind.NONE:
        failed, requests = 0, calls
    elif kind is Kind.RESET_LATE:  # the first one pauses all of them
        failed, requests = calls, 1
    elif lasting:
        failed, requests = calls, most if kind is Kind.RESET_ZERO else calls * most
    else:
        failed, requests = (0, calls + 1) if most > 1 else (1, calls)
    if kind is Kind.NOT_SENT:
        requests -= calls * TRIES if lasting else 1
    doubtful = kind in {Kind.MAYBE, Kind.MAYBE_FINAL, Kind.UNREADABLE, Kind.OTHER_TOKEN}
    unknown = doubtful and operation in CHANGES and failed > 0
    return Cell(name, operation, lasting, failed, most, unknown, requests)


def expected_by_list(name: str, operation: str, *, lasting: bool) -> Cell:
    """Work it out for a fetch that reads the list: what that does not give is got by itself, as by `get_tokens`."""
    kind, gets = FAULTS[name].kind, expected(name, "get_tokens", lasting=lasting)
    page = expected(name, "list", lasting=lasting)
    passing = [Kind.MAYBE, Kind.NO_RESET, Kind.RESET_SOON, Kind.RESET_ZERO, Kind.NOT_SENT]
    if kind is Kind.NONE and name != "the ID in capitals":
        return attrs.evolve(gets, operation=operation, requests=1)
    if kind is Kind.NOT_SENT and not lasting:
        return attrs.evolve(gets, operation=operation, requests=1 if operation == "by list" else len(IDS))
    if lasting:
        tries = page.requests if operation == "by list" else min(page.requests, 1)
        # The first get is told that it spends the limit of which the pages have shown that it is exhausted.
        more = 1 if kind is Kind.RESET_ZERO else gets.requests
        return attrs.evolve(gets, operation=operation, requests=tries + more)
    if operation == "by list" and kind in passing:  # the second try gives the page
        return attrs.evolve(gets, operation=operation, failed=0, requests=2)
    return attrs.evolve(gets, operation=operation, failed=0, requests=1 + len(IDS))


def expected_of_rotation(name: str, *, lasting: bool) -> Cell:
    """Work it out for a rotation. A passing fault meets its create, a lasting one also what follows.

    The old token is read before, and revoked after a create that has succeeded.
    """
    create = expected(name, "create", lasting=lasting)
    if FAULTS[name].kind is Kind.NOT_SENT:  # nothing is sent at all, or the first try is not
        return attrs.evolve(create, operation="rotate", requests=0 if lasting else 3)
    if name == UNDONE:
        return attrs.evolve(create, operation="rotate", unknown=False, requests=3)
    revoke = 0 if create.failed else 1
    return attrs.evolve(create, operation="rotate", requests=1 + create.requests + revoke)


IN_FULL = {"get", "list", "create"}
"""Operations that meet every fault: one that is repeated, one that is read to its end, one that is sent once."""
ONE_OF_EACH_KIND = {
    "refused",
    "closed before the answer",
    "stalled in the body",
    "500",
    "503, Retry-After a date",
    "301 to another host",
    "429, no headers",
    "429, reset a fraction",
    "429, reset 0",
    "429, for an hour",
    "wrong content type",
    "gzip bomb",
    "invalid JSON",
    *NOTHING_WRONG_FOR_A_REVOKE,
    "another token's ID",
    "the ID in capitals",
}
"""Faults that meet every operation. The others differ from one of these only below the operations: in how an answer
becomes an error or a value."""
CELLS = [
    expected(name, operation, lasting=lasting)
    for name, operation, lasting in itertools.product(FAULTS, OPERATIONS, (True, False))
    if operation in IN_FULL or name in ONE_OF_EACH_KIND
]


# The test of a cell


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Every logger's DEBUG, asyncio's and aiohttp's too."""
    caplog.set_level(logging.DEBUG)
    return caplog


def forms(value: Any) -> Iterator[str]:
    """Yield all that a value or an error shows of itself."""
    if isinstance(value, list):
        yield from itertools.chain.from_iterable(map(forms, value))
        return
    for duplicate in (value, copy.copy(value), copy.deepcopy(value)):
        yield from (repr(duplicate), str(duplicate), format(duplicate), f"{[duplicate]}", repr({"value": duplicate}))
    if attrs.has(type(value)):
        yield from (repr(attrs.asdict(value)), repr(attrs.astuple(value)), repr(converter.unstructure(value)))
        yield json.dumps(attrs.asdict(value), default=str)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        if isinstance(value, CreatedToken):
            with pytest.raises(TypeError, match="pickle") as caught:
                pickle.dumps(value, protocol)
            yield str(caught.value)
        else:
            yield pickle.dumps(value, protocol).decode("latin-1")


def check_secrets(results: list[object], client: TokensClient, log: pytest.LogCaptureFixture) -> None:
    """Look for the keys in the results, the logs and the client."""
    errors = [result for result in results if isinstance(result, DatadogError)]
    for error in [*errors, ExceptionGroup("all", errors)] if errors else []:
        for where, text in remains(error):
            assert leaks(text) == [], where
    texts = itertools.chain.from_iterable(forms(result) for result in results if result is not None)
    for text in itertools.chain(texts, (repr(results), repr(client), repr(vars(client)), log.text)):
        assert leaks(text) == []
    for part in [*parts(client), *windows(client)]:
        assert leaks(repr(part)) == []
    for part in parts(client):
        assert leaks(repr(vars(part))) == []
    for record in log.records:
        assert leaks(f"{record.getMessage()} {record.args!r} {record.exc_info!r} {record.exc_text!r}") == []
    log.clear()


def check_results(cell: Cell, results: list[object]) -> None:
    """See that the right values came out, and errors of the right kind, each with what it has to say."""
    fault = FAULTS[cell.fault]
    errors = [result for result in results if isinstance(result, BaseException)]
    assert len(results) == (len(IDS) if cell.operation in BULK else 1)
    assert [type(error) for error in errors] == [cell.error] * cell.failed
    assert len({id(error) for error in errors}) == len(errors)
    for error in errors:
        assert isinstance(error, DatadogError)
        assert error.operation == NAMES.get(cell.operation, f"{cell.operation}_token")
        assert error.service_account_id == ACCOUNT
        assert error.outcome_unknown == cell.unknown
        turned_away = fault.kind in {Kind.RESET_ZERO, Kind.RESET_LATE}  # perhaps before they were sent
        # A rotation counts all its requests: the reading of the old token, and what was done and undone.
        tries = (cell.requests if cell.operation == "rotate" else 0) or cell.tries
        assert error.attempts <= tries if turned_away else error.attempts == tries
        assert (error.__cause__, error.__context__) == (None, None)
        assert getattr(error, "retry_after", None) == pytest.approx(fault.retry_after, abs=1) or (
            cell.error is RotationError  # it has none
            or fault.kind in {Kind.NO_RESET, Kind.RESET_SOON, Kind.RESET_ZERO}  # up to the rate limiter
        )
    for place, value in enumerate(results):
        if not isinstance(value, BaseException):
            check_value(cell, place, value)


def check_value(cell: Cell, place: int, value: object) -> None:
    """See that a value is what was asked for."""
    if cell.operation == "revoke":
        assert value is None
    elif cell.operation == "create":
        assert isinstance(value, CreatedToken)
        assert value.key.reveal() == CREATED_KEY
    elif cell.operation == "list":
        assert isinstance(value, list)
        assert [token.name for token in value] == [f"name of {token_id}" for token_id in IDS]
    elif cell.operation == "rotate":
        assert isinstance(value, AccessToken)
        assert value.name == "name of new"
    else:
        assert isinstance(value, AccessToken)
        assert value.id.lower() == IDS[place]
        assert value.service_account_id == ACCOUNT


async def check_left(server: RawServer, client: TokensClient) -> None:
    """See that a call left no task, no permit, and no connection but those in the pool."""
    session = session_of(client)
    assert session is not None
    await until(lambda: len(server.open) <= connections_kept(session))
    await until(lambda: not our_tasks())
    check_nothing_left(client)


async def play(cell: Cell, server: RawServer, client: TokensClient) -> list[object]:
    """Let the client meet the fault; see that it works afterwards, unless the rate limit still pauses it."""
    fault, call = FAULTS[cell.fault], OPERATIONS[cell.operation]
    good_acts = spoilt(whole)
    server.script(otherwise=good_acts)
    if fault.kind is not Kind.NOT_SENT and not cell.lasting and cell.operation not in BULK:
        await client.get_token(ACCOUNT, "t0")  # so that there is a connection to be lost that was good before
    before = len(server.requests)
    good_first = [good_acts] * GOOD_FIRST.get(cell.operation, 0)
    if cell.lasting:
        server.script(*good_first, otherwise=fault.act)
    elif fault.kind is not Kind.NOT_SENT:
        server.script(*good_first, fault.act)
    with little_memory() if cell.fault in LARGE else nullcontext():
        results = await call(client)
    assert len(server.requests) - before == cell.requests
    await check_left(server, client)
    if fault.kind not in {Kind.RESET_ZERO, Kind.RESET_LATE, Kind.NOT_SENT}:
        server.script(otherwise=good_acts)
        assert (await client.get_token(ACCOUNT, "t9")).id == "t9"
    return results


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.usefixtures("loop_errors")
async def test_every_fault_against_every_operation(
    start_server: StartServer, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, cell: Cell
) -> None:
    """A fault ends in the stated outcome after the stated requests, leaves nothing behind, and shows no key."""
    fault = FAULTS[cell.fault]
    elsewhere_server = await start_server()
    if fault.by_json:
        decode_with(monkeypatch, json_loads_strictly)
    look_at_lists_for(monkeypatch, len(IDS))
    retry = attrs.evolve(POLICY, max_rate_limit_wait=fault.max_wait)
    server = await start_server()
    if fault.kind is Kind.NOT_SENT:
        await server.stop()
        replace_retry_sleep(monkeypatch, pause_until_it_listens(server, listens=not cell.lasting))
    url = f"{server.url}/{elsewhere_server.port}"
    async with TokensClient(base_url=url, retry=retry, timeout=fault.timeout, **cell.credentials) as client:
        results = await play(cell, server, client)
        check_results(cell, results)
        check_secrets(results, client, log)
    await server.emptied()
    assert elsewhere_server.connections == 0


@contextmanager
def little_memory() -> Iterator[None]:
    """See that not much more is allocated than a body may have."""
    bomb()  # is made before, and kept
    gc.collect()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * LARGEST_BODY


def pause_until_it_listens(server: RawServer, *, listens: bool) -> Callable[[float], Awaitable[None]]:
    """Return a replacement for a retry's sleep, in which the server comes back, or does not."""

    async def pause(_seconds: float) -> None:
        if listens and server not in awake:
            awake.append(server)
            await server.start(port=server.port)

    awake: list[RawServer] = []
    return pause


def test_the_matrix_has_every_cell(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Every fault meets three operations, and some of each kind meet all, each under one form of the keys.

    `-v` prints it all.
    """
    pairs = len(FAULTS) * len(IN_FULL) + len(ONE_OF_EACH_KIND) * (len(OPERATIONS) - len(IN_FULL))
    assert len({(cell.fault, cell.operation, cell.lasting) for cell in CELLS}) == pairs * 2 == len(CELLS)
    assert {FAULTS[name].kind for name in ONE_OF_EACH_KIND} == set(Kind)
    assert len({str(cell) for cell in CELLS}) == len(CELLS)
    for about in (lambda cell: (cell.fault, cell.operation), lambda cell: (cell.operation, cell.lasting)):
        met = {(about(cell), *cell.credentials) for cell in CELLS}
        assert len(met) == len({about(cell) for cell in CELLS}) * len(CREDENTIALS)
    if request.config.get_verbosity() > 0:
        with capsys.disabled():
            print(f"\n\n{table()}\n")  # noqa: T201 - what it is for


def table() -> str:
    """Write the matrix down."""
    lines = [
        f"{len(CELLS)} cells: what comes of a fault that lasts, and of one that only the first request meets.",
        "V: the value (in bulk, all three of them); E: the error; the number of requests that the server saw;",
        "a question mark where the error says that the operation may have been carried out.",
        "",
        "".join([f"{'fault':36}{'error':22}", *(f"{operation:12}" for operation in OPERATIONS)]),
    ]
    for name, cells in itertools.groupby(CELLS, lambda cell: cell.fault):
        error = FAULTS[name].error.__name__ if FAULTS[name].kind is not Kind.NONE else "-"
        pairs = {a.operation: f"{a.short} {b.short}" for a, b in zip(*[iter(cells)] * 2, strict=True)}
        lines.append(f"{name:36}{error:22}" + "".join(f"{pairs.get(operation, ''):12}" for operation in OPERATIONS))
    return "\n".join(lines)
