"""The API on a loopback port, for test suites: a real server, so that what is tested is what runs.

@pytest.fixture
async def datadog():  # with pytest-asyncio in its auto mode
    async with FakeDatadog(tokens=20, rate_limit=(100, 10.0)) as fake:
        yield fake

async def test_survives_an_outage(datadog):
    datadog.fail_next(3, status=503)
    async with TokensClient(base_url=datadog.url, api_key=datadog.api_key, app_key=datadog.app_key) as client:
        result = await client.get_tokens(datadog.service_account_id, datadog.token_ids)
    assert tuple(result.tokens.values()) == datadog.tokens
    assert (datadog.requests, datadog.rejected) == (23, 0)
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import string
import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus
from itertools import count as counter
from itertools import repeat
from typing import Any, Literal, Self, cast, get_args
from urllib.parse import unquote
from uuid import UUID

import attrs
from aiohttp import web

from ._codec import converter
from .errors import InvalidArgumentError, shown
from .models import AccessToken

__all__ = ["FakeDatadog", "Quota"]

Rounding = Literal["up", "nearest", "down"]
_Answer = tuple[int, bytes]

_ROUNDINGS = get_args(Rounding)
_LARGEST_PAGE = 100
_SORTS = ("name", "created_at", "expires_at", "last_used_at")
_MOST_SECONDS = 1e9  # with more of an offset the Date header would be no date
_SHUTDOWN_TIMEOUT = 0.01  # not 0, which aiohttp takes for "as long as it takes"
_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {429: "Too many requests"}


class FakeDatadog:
    """A Datadog that holds service access tokens in memory, and serves them over HTTP while its context is open.

    It answers get and list. Every request is counted, waits for `latency`, needs good credentials (else 401), meets
    the next scripted fault if there is one, spends quota (else 429), and is carried out.

    Made-up tokens are as varied as those of real accounts: some have expired, are about to, or never will; some are
    never used or were not for long; a few share a name, have administrators' scopes, or names that are long or not
    ASCII. Their dates are relative to today's midnight (UTC) and at least a day off multiples of 5 and 7 days, the
    usual thresholds, so that an audit of the same seed finds the same things on any day, at any hour.

    Args:
        tokens: How many to make up, or the tokens to hold. Those without a `service_account_id` belong to the default
            service account.
        rate_limit: Requests allowed in a period, and its length in seconds; by default more than most tests need.
            `None` means no limit and no headers.
        latency: Seconds before each answer.
        seed: The same seed gives the same keys, and on the same day the same tokens.
        reset_rounding: How `X-RateLimit-Reset` becomes whole: `"up"` like the real API's, `"nearest"` or `"down"`.
        clock_offset: Seconds by which its clock is ahead of ours. It moves the windows and the `Date` header.
        quota_used: Requests that others have spent of the window that is current at the start.

    Attributes:
        api_key: Good together with `app_key`.
        app_key: Good together with `api_key`.
        access_token: Good as a Bearer token, or alone in `DD-APPLICATION-KEY`.
        service_account_id: The default service account: the first given token's, else a made-up one.
        requests: Requests received, every one.
        rejected: 429s given, scripted ones included.

    Raises:
        InvalidArgumentError: An argument is out of range, or an account would have two tokens of the same ID.
    """

    def __init__(
        self,
        tokens: int | Iterable[AccessToken] = 100,
        *,
        rate_limit: tuple[int, float] | None = (100_000, 10.0),
        latency: float = 0.0,
        seed: int = 0,
        reset_rounding: Rounding = "up",
        clock_offset: float = 0.0,
        quota_used: int = 0,
    ) -> None:
        a_limit = "None, or requests (at least 1) and seconds (at least 0.001)"
        _check("rate_limit", _is_limit(rate_limit), a_limit, rate_limit)
        _check("reset_rounding", reset_rounding in _ROUNDINGS, f"one of {', '.join(_ROUNDINGS)}", reset_rounding)
        _check("quota_used", _is_whole(quota_used), "a whole number of at least 0", quota_used)
        _check("latency", _is_seconds(latency), "seconds, at least 0", latency)
        _check("seed", _is_whole(seed), "a whole number of at least 0", seed)
        _check("clock_offset", _is_seconds(clock_offset, -_MOST_SECONDS), "seconds, at most 1e9", clock_offset)
        rng = random.Random(seed)  # noqa: S311 - made-up data
        made_up_account = _uuid(rng)
        self.api_key = f"{rng.getrandbits(128):032x}"
        self.app_key = f"{rng.getrandbits(160):040x}"
        self.access_token = f"{_public_portion(rng)}_{_word(rng, 36)}"
        held = _check_tokens(tokens) if not isinstance(tokens, int) else _make_up(tokens, rng)
        self.service_account_id = (held[0].service_account_id if held else None) or made_up_account
        self.requests = 0
        self.rejected = 0
        self._latency = latency
        self._clock_offset = clock_offset
        self._quota = None if rate_limit is None else Quota(*rate_limit, reset_rounding, quota_used)
        self._faults: deque[_Fault] = deque()
        self._pausing: set[asyncio.Task[Any]] = set()
        self._runner: web.ServerRunner | None = None
        self._places = counter()
        self._accounts: dict[str, dict[str, _Held]] = {self.service_account_id: {}}
        for token in held:
            self._hold(token)

    @property
    def url(self) -> str:
        """Where it is, without a trailing slash, such as `http://127.0.0.1:43210`.

        Raises:
            RuntimeError: It is not running.
        """
        if self._runner is None:
            msg = "FakeDatadog has a URL only while it runs: use it with `async with`"
            raise RuntimeError(msg)
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def tokens(self) -> tuple[AccessToken, ...]:
        """The tokens of all service accounts, in the order in which they were given or made."""
        held = [held for account in self._accounts.values() for held in account.values()]
        return tuple(held.token for held in sorted(held, key=lambda held: held.place))

    @property
    def token_ids(self) -> list[str]:
        """The IDs of the tokens of `service_account_id`, in the same order."""
        return list(self._accounts[self.service_account_id])

    def fail_next(
        self,
        count: int = 1,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        drop: bool = False,
        truncate: bool = False,
        stall: float | None = None,
    ) -> None:
        """Script a fault for the next requests, after the faults that are scripted already. Exactly one kind is given.

        It meets requests with good credentials.

        Args:
            count: How many requests.
            status: Answer this (200 to 599) as a proxy in front would: without rate-limit headers, without spending
                quota, and without carrying the request out. With the other kinds quota is spent and the request is
                carried out, and only its answer suffers.
            headers: To go with `status`, such as `Retry-After`.
            body: To go with `status` instead of `{"errors": [...]}`; `text/html` unless `headers` say otherwise.
            drop: Close the connection without an answer.
            truncate: Send the headers with the whole length, but half of the body, and close the connection.
            stall: Seconds to wait before the answer.

        Raises:
            InvalidArgumentError: Not exactly one kind is given, or a value is out of range.
        """
        _check("count", _is_whole(count, 1), "a whole number of at least 1", count)
        fault = _Fault(status, headers or {}, body, drop, truncate, stall)
        _check_fault(fault)
        self._faults.extend(repeat(fault, count))

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            msg = "this FakeDatadog is running already"
            raise RuntimeError(msg)
        # No router: aiohttp's does not find IDs with braces in them, and takes its time.
        runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=_SHUTDOWN_TIMEOUT)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        self._runner = runner
        if self._quota is not None:
            self._quota.advance(self._now())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        runner, self._runner = self._runner, None
        pausing = set(self._pausing)
        for task in pausing:
            task.cancel()
        if pausing:
            await asyncio.wait(pausing)
        assert runner is not None
        await runner.cleanup()

    def _hold(self, token: AccessToken) -> None:
        owner = token.service_account_id or self.service_account_id
        account = self._accounts.setdefault(owner, {})
        _check("tokens", token.id not in account, "of different IDs within a service account", token.id)
        token = attrs.evolve(token, service_account_id=owner)
        resource = json.dumps(converter.unstructure(token), ensure_ascii=False, separators=(",", ":"))
        account[token.id] = _Held(token, resource.encode(), next(self._places))

    def _now(self) -> float:
        return time.time() + self._clock_offset

    async def _pause(self, seconds: float) -> None:
        """Sleep; the end of the server ends it, too."""
        task = asyncio.current_task()
        assert task is not None
        self._pausing.add(task)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._pausing.discard(task)

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        self.requests += 1
        if self._latency:
            await self._pause(self._latency)
        now = self._now()
        headers = {"Content-Type": "application/vnd.api+json", "Date": _http_date(int(now))}
        if not self._knows(request.headers):
            return _respond(_error(401), headers)
        if self._faults and self._faults[0].status is not None:
            return self._replace(self._faults.popleft(), headers)
        limits: dict[str, str] = {}
        if self._quota is not None:
            admitted, limits = self._quota.spend(now)
            if not admitted:
                self.rejected += 1
                return _respond(_error(429), headers | limits)
        if not self._faults:
            return _respond(self._operate(request), headers | limits)
        return await self._spoil(self._faults.popleft(), request, headers | limits)

    def _knows(self, headers: Mapping[str, str]) -> bool:
        bearer = headers.get("Authorization")
        if bearer is not None:
            return bearer == f"Bearer {self.access_token}"
        app_key = headers.get("DD-APPLICATION-KEY")
        # A service access token stands alone: the API key beside it is not looked at.
        return app_key == self.access_token or (app_key == self.app_key and headers.get("DD-API-KEY") == self.api_key)

    def _replace(self, fault: _Fault, headers: dict[str, str]) -> web.Response:
        """Answer as a proxy in front would, which neither counts requests nor speaks of limits."""
        assert fault.status is not None
        self.rejected += fault.status == 429
        if fault.body is None:
            response = _respond(_error(fault.status), headers)
        else:
            response = _respond((fault.status, fault.body), headers | {"Content-Type": "text/html"})
        response.headers.update(fault.headers)
        return response

    async def _spoil(self, fault: _Fault, request: web.BaseRequest, headers: dict[str, str]) -> web.Response:
        """Carry the request out, and spoil its answer."""
        status, body = self._operate(request)
        if fault.stall is not None:
            await self._pause(fault.stall)
        if fault.drop and request.transport is not None:
            request.transport.close()  # what is returned goes nowhere
        if not fault.truncate:
            return _respond((status, body), headers)
        response = _respond((status, body[: len(body) // 2]), headers | {"Content-Length": str(len(body))})
        response.force_close()
        return response

    def _operate(self, request: web.BaseRequest) -> _Answer:
        # The path as it came: an ID is one segment of it, whatever it becomes once decoded.
        match request.method, request.rel_url.raw_path.split("/"):
            case "GET", ["", "api", "v2", "service_accounts", account_id, "access_tokens", token_id]:
                return self._get(unquote(account_id), unquote(token_id))
            case "GET", ["", "api", "v2", "service_accounts", account_id, "access_tokens"]:
                return self._list(unquote(account_id), request.query)
            case _:
                return _error(404)

    def _get(self, account_id: str, token_id: str) -> _Answer:
        held = self._accounts.get(account_id, {}).get(token_id)
        return _error(404) if held is None else (200, b'{"data":%b}' % held.resource)

    def _list(self, account_id: str, query: Mapping[str, str]) -> _Answer:
        account = self._accounts.get(account_id)
        if account is None:
            return _error(404)
        size, number = _whole(query.get("page[size]", "10")), _whole(query.get("page[number]", "0"))
        sort = query.get("sort")
        if size is None or not 1 <= size <= _LARGEST_PAGE:
            return _error(400, f"page[size] must be a whole number from 1 to {_LARGEST_PAGE}")
        if number is None:
            return _error(400, "page[number] must be a whole number of at least 0")
        if sort is not None and sort.removeprefix("-") not in _SORTS:
            return _error(400, f"sort must be {', '.join(_SORTS)}, or one of them after a -")
        found = _filtered(account.values(), query.get("filter", ""))
        page = _sorted(found, sort)[number * size : (number + 1) * size]
        resources = b",".join([held.resource for held in page])
        return 200, b'{"data":[%b],"meta":{"page":{"total_filtered_count":%d}}}' % (resources, len(found))


class Quota:
    """A calendar-aligned rate limit. It has no clock: the server's time comes in as seconds since the epoch.

    Windows begin at whole multiples of the period. Its time never runs backwards, though clocks do.
    Source: https://docs.datadoghq.com/api/latest/rate-limits/

    Args:
        limit: Requests allowed in a period.
        period: Its length in seconds.
        rounding: How the seconds to the next window become whole: `"up"` is never 0, the others may be.
        used: Requests spent already of the first window that it comes to know.
    """

    def __init__(self, limit: int, period: float, rounding: Rounding = "up", used: int = 0) -> None:
        self.limit = limit
        self.period = period
        self.rounding = rounding
        self._used = used
        self._now = -math.inf
        self._window: float | None = None

    def advance(self, now: float) -> None:
        """Let time pass until `now`."""
        self._now = max(now, self._now)
        window = self._now // self.period
        if self._window is not None and window != self._window:
            self._used = 0
        self._window = window

    def spend(self, now: float) -> tuple[bool, dict[str, str]]:
        """Count a request at `now` unless the window is used up.

        Returns:
            Whether it is admitted, and the rate-limit headers of its answer.
        """
        self.advance(now)
        admitted = self._used < self.limit
        self._used += admitted
        return admitted, {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Period": f"{self.period:f}".rstrip("0").rstrip("."),
            "X-RateLimit-Remaining": str(max(0, self.limit - self._used)),
            "X-RateLimit-Reset": str(self._reset()),
            "X-RateLimit-Name": "service_account_access_tokens",
        }

    def _reset(self) -> int:
        left = self.period - self._now % self.period
        if self.rounding == "up":
            return math.ceil(left)
        return math.floor(left + 0.5 if self.rounding == "nearest" else left)


@attrs.frozen
class _Held:
    """A token, its resource object ready to be sent, and its place among all tokens."""

    token: AccessToken
    resource: bytes
    place: int


@attrs.frozen
class _Fault:
    status: int | None
    headers: Mapping[str, str]
    body: bytes | None
    drop: bool
    truncate: bool
    stall: float | None


def _respond(answer: _Answer, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=answer[0], body=answer[1], headers=headers)


@cache
def _error(status: int, text: str = "") -> _Answer:
    return status, json.dumps({"errors": [text or _PHRASES.get(status, f"Error {status}")]}).encode()


@lru_cache(maxsize=8)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _filtered(account: Iterable[_Held], text: str) -> list[_Held]:
    wanted = text.casefold()
    return [held for held in account if not wanted or wanted in (held.token.name or "").casefold()]


def _sorted(account: list[_Held], sort: str | None) -> list[_Held]:
    """Sort by an attribute, downwards after a `-`; tokens without it come last either way."""
    if sort is None:
        return account
    name = sort.removeprefix("-")
    known = [held for held in account if getattr(held.token, name) is not None]
    known.sort(key=lambda held: getattr(held.token, name), reverse=name != sort)
    return known + [held for held in account if getattr(held.token, name) is None]


def _check(name: str, fits: object, what: str, value: object) -> None:
    if not fits:
        msg = f"{name} must be {what}, not {shown(value)}"
        raise InvalidArgumentError(msg)


def _is_whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_seconds(value: Any, least: float = 0.0) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= _MOST_SECONDS


def _is_limit(value: Any) -> bool:
    match value:
        case [limit, period]:
            return _is_whole(limit, 1) and _is_seconds(period, 0.001)
        case _:
            return value is None


def _check_tokens(tokens: Any) -> list[AccessToken]:
    _check("tokens", isinstance(tokens, Iterable), "a whole number of at least 0, or AccessTokens", tokens)
    held: list[Any] = list(tokens)
    for token in held:
        _check("tokens", isinstance(token, AccessToken) and token.id, "AccessTokens with IDs", token)
    return held


def _check_fault(fault: _Fault) -> None:
    kinds = (fault.status is not None, fault.drop, fault.truncate, fault.stall is not None)
    _check("fail_next's status, drop, truncate and stall", sum(map(bool, kinds)) == 1, "given one at a time", kinds)
    fits = fault.status is None or (_is_whole(fault.status, 200) and fault.status <= 599)
    _check("status", fits, "a whole number from 200 to 599", fault.status)
    fits = fault.stall is None or _is_seconds(fault.stall)
    _check("stall", fits, "seconds, at least 0", fault.stall)
    bare = not fault.headers and fault.body is None
    _check("headers", isinstance(cast("object", fault.headers), Mapping), "a mapping", fault.headers)
    _check("body", isinstance(cast("object", fault.body), bytes | None), "bytes", fault.body)
    _check("headers and body", bare or fault.status is not None, "given with a status only", fault)


_BASE62 = string.digits + string.ascii_letters
_SCOPES: tuple[str, ...] = (
    "apm_read", "cases_read", "ci_visibility_read", "dashboards_read", "dashboards_write", "events_read", "hosts_read",
    "incident_read", "incident_write", "logs_read_data", "logs_read_index_data", "logs_write_pipelines", "metrics_read",
    "monitors_downtime", "monitors_read", "monitors_write", "notebooks_read", "rum_apps_read",
    "security_monitoring_signals_read", "slos_read", "slos_write", "synthetics_read", "synthetics_write", "teams_read",
    "timeseries_query", "usage_read", "user_access_read", "workflows_run",
)  # fmt: skip
_ADMIN_SCOPES: tuple[str, ...] = (
    "billing_edit",
    "org_management",
    "service_account_write",
    "user_access_invite",
    "user_access_manage",
)
_USES = ("backup", "ci", "cost-report", "deploy", "grafana", "on-call", "slo-export", "status-page", "terraform")
_UNUSUAL_NAMES = ("Überwachung", "made by hand, please keep; " * 8, "監視の同期", "дежурный бот", "déploiement 🚀")
# Days from now, or before the token's end, to choose from. Lengths without a common divisor: all pairs occur.
_EXPIRIES = (None, (31, 364), (2, 29), None, (-90, -2), (31, 364), (31, 364), (366, 700), None, (2, 13))
_LAST_USES = ((2, 6), None, (2, 6), (95, 400), (2, 27), None, (2, 13))


def _uuid(rng: random.Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))


def _word(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(_BASE62, k=length))


def _public_portion(rng: random.Random) -> str:
    return f"ddsat_{_word(rng, 22)}"


def _make_up(number: int, rng: random.Random) -> list[AccessToken]:
    _check("tokens", _is_whole(number), "a whole number of at least 0, or AccessTokens", number)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    tokens = [_make_up_one(place, rng, midnight) for place in range(number)]
    for place in range(18, number, 20):
        tokens[place] = attrs.evolve(tokens[place], name=tokens[place - 7].name)
    return tokens


def _make_up_one(place: int, rng: random.Random, midnight: datetime) -> AccessToken:
    def moment(days: int) -> datetime:
        return midnight + timedelta(days=days, microseconds=rng.randrange(86_400_000_000))

    def ago(least: int, most: int) -> int:
        return _days(rng, ended + least, ended + most)

    expiry, last_use = _EXPIRIES[place % len(_EXPIRIES)], _LAST_USES[place % len(_LAST_USES)]
    expires = None if expiry is None else _days(rng, *expiry)
    ended = max(0, -(expires or 0))
    used = None if last_use is None else ago(*last_use)
    created = _days(rng, (used or ended) + 10, (used or ended) + 500)
    modified = _days(rng, 2, created - 1) if rng.random() < 0.3 else None
    scopes = rng.sample(_SCOPES, rng.choice((1, 1, 2, 3, 5, 8, 12)))
    if place % 9 == 4:
        scopes[:2] = rng.sample(_ADMIN_SCOPES, min(2, len(scopes)))
    name = f"{rng.choice(_USES)}-{rng.choice(('prod', 'staging', 'dev'))}-{place:03d}"
    return AccessToken(
        id=_uuid(rng),
        name=_UNUSUAL_NAMES[place // 13 % len(_UNUSUAL_NAMES)] if place % 13 == 6 else name,
        public_portion=_public_portion(rng),
        scopes=tuple(scopes),
        created_at=moment(-created),
        modified_at=None if modified is None else moment(-modified),
        last_used_at=None if used is None else moment(-used),
        expires_at=None if expires is None else moment(expires).replace(microsecond=0),
    )


def _days(rng: random.Random, least: int, most: int) -> int:
    """Choose a number of days that no usual threshold comes close to."""
    while True:
        days = rng.randint(least, most)
        if days % 5 and days % 7:
            return days
