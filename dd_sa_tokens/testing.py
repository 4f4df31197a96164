"""A Datadog for tests: the service-access-token API as a real HTTP server on a loopback port.

What you test is then what runs: sockets, headers, quota and faults included.

    async def test_it():
        async with FakeDatadog(tokens=20, rate_limit=(100, 10.0)) as datadog:
            datadog.fail_next(3, status=503)
            async with TokensClient(
                base_url=datadog.url, api_key=datadog.api_key, app_key=datadog.app_key
            ) as client:
                result = await client.get_tokens(datadog.service_account_id, datadog.token_ids)
        assert len(result.tokens) == 20
        assert datadog.requests == 23
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import string
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import unquote

import attrs
from aiohttp import web

from ._codec import converter
from .errors import InvalidArgumentError, shown
from .models import AccessToken

__all__ = ["FakeDatadog", "Quota"]

Rounding = Literal["up", "nearest", "down"]

_ROUND: Mapping[str, Callable[[float], int]] = {"up": math.ceil, "nearest": round, "down": math.floor}
_NAME = "service_account_access_tokens"
_CONTENT_TYPE = "application/vnd.api+json"
_LARGEST_PAGE = 100
_BASE62 = string.digits + string.ascii_letters
_SORTS = ("name", "created_at", "expires_at", "last_used_at")

_SCOPES = (
    "dashboards_read", "dashboards_write", "monitors_read", "monitors_write", "logs_read_data", "logs_read_index_data",
    "metrics_read", "events_read", "incident_read", "incident_write", "synthetics_read", "synthetics_write",
    "user_access_read", "user_access_manage", "org_management", "service_account_write", "timeseries_query",
)  # fmt: skip
_NAMES = (
    "deploy pipeline", "terraform", "on-call bot", "grafana bridge", "nightly export", "cost report", "ci runner",
    "incident timeline", "status page", "backup of dashboards", "Überwachung", "監視", "load test, please keep",
)  # fmt: skip


@attrs.define
class Quota:
    """A rate limit as Datadog keeps it: so many requests in each calendar-aligned window.

    Source: https://docs.datadoghq.com/api/latest/rate-limits/

    Attributes:
        limit: Requests in a window.
        period: Length of a window in seconds; windows begin at its multiples since the epoch.
        rounding: How the seconds to the next window are made whole. The real API rounds up.
        used: Requests already spent in the window of the first request.
    """

    limit: int
    period: float
    rounding: Rounding = "up"
    used: int = 0
    _window: float | None = None

    def spend(self, now: float) -> tuple[bool, dict[str, str]]:
        """Ask for one request.

        Args:
            now: The server's time, in seconds since the epoch.

        Returns:
            Whether it is allowed, and the five rate-limit headers.
        """
        window = now // self.period
        if window != self._window:
            self.used = self.used if self._window is None else 0
            self._window = window
        allowed = self.used < self.limit
        self.used += allowed
        return allowed, {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Period": f"{self.period:.10g}",
            "X-RateLimit-Remaining": str(max(self.limit - self.used, 0)),
            "X-RateLimit-Reset": str(_ROUND[self.rounding]((window + 1) * self.period - now)),
            "X-RateLimit-Name": _NAME,
        }


@attrs.frozen
class _Fault:
    """What happens to a request instead of, or before, its answer."""

    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | None = None
    drop: bool = False
    truncate: bool = False
    stall: float = 0.0


@attrs.frozen
class _Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = attrs.Factory(dict[str, str])


def _refusal(status: int, text: str) -> _Answer:
    return _Answer(status, json.dumps({"errors": [text]}).encode())


class FakeDatadog:
    """A Datadog that holds one or more service accounts and their tokens in memory.

    It serves get and list in the documented shapes, checks the keys, keeps a quota, counts requests, and fails on
    demand. Nothing is reachable from other machines. Use it with `async with`.

    Args:
        tokens: How many tokens to make up, or the tokens to hold. Made-up ones are the same for the same seed: their
            dates are relative to the beginning of today (UTC), so that they always have the same age. Tokens without
            a `service_account_id` go to the account of `service_account_id`.
        rate_limit: Requests allowed, and the seconds in which they are; `None` for no limit and no headers of it.
        latency: Seconds before each answer.
        seed: What made-up IDs, names and dates come from.
        reset_rounding: How `X-RateLimit-Reset` is made whole: "up" as the real API does, "nearest" or "down".
        clock_offset: Seconds by which this server's clock is ahead of the machine's.
        quota_used: Requests that others have spent of the first window.

    Attributes:
        api_key: With `app_key`, one way in.
        app_key: See `api_key`.
        access_token: The other way in: as a Bearer token, or as the application key.
        service_account_id: The account that holds the tokens (of the first one, where several do).
        requests: Requests received so far.
        rejected: 429s given so far.

    Raises:
        InvalidArgumentError: An argument cannot be right.
    """

    def __init__(
        self,
        *,
        tokens: int | Iterable[AccessToken] = 100,
        rate_limit: tuple[int, float] | None = None,
        latency: float = 0.0,
        seed: int = 0,
        reset_rounding: Rounding = "up",
        clock_offset: float = 0.0,
        quota_used: int = 0,
    ) -> None:
        self._check(rate_limit, latency, reset_rounding, quota_used)
        source = random.Random(seed)  # noqa: S311 - made-up data
        self.api_key = "".join(source.choices("0123456789abcdef", k=32))
        self.app_key = "".join(source.choices("0123456789abcdef", k=40))
        self.access_token = f"ddsat_{_word(source, 22)}_{_word(source, 36)}"
        self.requests = 0
        self.rejected = 0
        self._default_account = _uuid(source)
        held = _made_up(source, tokens, self._default_account) if isinstance(tokens, int) else list(tokens)
        self._accounts: dict[str, dict[str, AccessToken]] = {}
        for token in held:
            owner = token.service_account_id or self._default_account
            self._accounts.setdefault(owner, {})[token.id] = attrs.evolve(token, service_account_id=owner)
        self.service_account_id = next(iter(self._accounts), self._default_account)
        self._accounts.setdefault(self.service_account_id, {})
        self._bodies: dict[str, bytes] = {}
        self._quota = None if rate_limit is None else Quota(*rate_limit, reset_rounding, quota_used)
        self._latency = latency
        self._clock_offset = clock_offset
        self._faults: deque[_Fault] = deque()
        self._runner: web.ServerRunner | None = None
        self._url = ""

    @staticmethod
    def _check(rate_limit: Any, latency: Any, reset_rounding: Any, quota_used: Any) -> None:
        if rate_limit is not None and not (len(rate_limit) == 2 and rate_limit[0] >= 1 and rate_limit[1] > 0):
            msg = f"rate_limit must be (requests >= 1, seconds > 0) or None, not {shown(rate_limit)}"
            raise InvalidArgumentError(msg)
        if latency < 0:
            msg = f"latency must be seconds >= 0, not {shown(latency)}"
            raise InvalidArgumentError(msg)
        if reset_rounding not in _ROUND:
            msg = f'reset_rounding must be "up", "nearest" or "down", not {shown(reset_rounding)}'
            raise InvalidArgumentError(msg)
        if quota_used < 0:
            msg = f"quota_used must be a count >= 0, not {shown(quota_used)}"
            raise InvalidArgumentError(msg)

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it listens, for `TokensClient(base_url=...)`."""
        return self._url

    @property
    def tokens(self) -> tuple[AccessToken, ...]:
        """All tokens that it holds."""
        return tuple(token for account in self._accounts.values() for token in account.values())

    @property
    def token_ids(self) -> list[str]:
        """The IDs of the tokens of `service_account_id`."""
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
        stall: float = 0.0,
    ) -> None:
        """Let the next requests that have passed keys and quota fail, in one of four ways. Calls queue up.

        Args:
            count: How many.
            status: Answer this, without rate-limit headers, as a proxy in front of the API would.
            headers: To go with `status`.
            body: To go with `status`, instead of `{"errors": [...]}`.
            drop: Close the connection without an answer.
            truncate: Close it in the middle of the body.
            stall: Answer as usual, but only after so many seconds.

        Raises:
            InvalidArgumentError: Not exactly one way was chosen, or `count` is not at least 1.
        """
        if (status is not None) + drop + truncate + (stall > 0) != 1:
            msg = "fail_next takes exactly one of status, drop, truncate and stall"
            raise InvalidArgumentError(msg)
        if count < 1:
            msg = f"count must be at least 1, not {shown(count)}"
            raise InvalidArgumentError(msg)
        self._faults.extend([_Fault(status, headers, body, drop, truncate, stall)] * count)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests += 1
        if self._latency:
            await asyncio.sleep(self._latency)
        if not self._authenticated(request):
            return self._respond(_refusal(401, "Unauthorized"), {})
        limits: dict[str, str] = {}
        if self._quota is not None:
            allowed, limits = self._quota.spend(self._now())
            if not allowed:
                self.rejected += 1
                return self._respond(_refusal(429, "Too many requests"), limits)
        if self._faults:
            return await self._fail(request, self._faults.popleft(), limits)
        return self._respond(self._answer(request), limits)

    def _now(self) -> float:
        return time.time() + self._clock_offset

    def _authenticated(self, request: web.BaseRequest) -> bool:
        get = request.headers.get
        if "Authorization" in request.headers:
            return get("Authorization") == f"Bearer {self.access_token}"
        app_key = get("DD-APPLICATION-KEY")
        return app_key == self.access_token or (app_key == self.app_key and get("DD-API-KEY") == self.api_key)

    def _respond(self, answer: _Answer, limits: Mapping[str, str]) -> web.Response:
        headers = {**limits, **answer.headers, "Date": formatdate(self._now(), usegmt=True)}
        headers.setdefault("Content-Type", _CONTENT_TYPE)
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def _fail(self, request: web.BaseRequest, fault: _Fault, limits: Mapping[str, str]) -> web.StreamResponse:
        if fault.status is not None:
            self.rejected += fault.status == 429
            body = fault.body if fault.body is not None else _refusal(fault.status, "It was told to fail").body
            return self._respond(_Answer(fault.status, body, fault.headers or {}), {})
        if fault.stall:
            await asyncio.sleep(fault.stall)
            return self._respond(self._answer(request), limits)
        whole = self._respond(self._answer(request), limits)
        if fault.truncate:
            assert isinstance(whole.body, bytes)
            response = web.StreamResponse(status=whole.status, headers=whole.headers)
            response.content_length = len(whole.body)
            await response.prepare(request)
            await response.write(whole.body[: len(whole.body) // 2])
        if request.transport is not None:
            request.transport.close()
        return whole

    def _answer(self, request: web.BaseRequest) -> _Answer:
        """Carry out the operation that method and path ask for."""
        path = request.raw_path.partition("?")[0]
        parts = [unquote(part) for part in path.split("/")]
        if (
            parts[:4] != ["", "api", "v2", "service_accounts"]
            or len(parts) not in {6, 7}
            or parts[5] != "access_tokens"
        ):
            return _refusal(404, "Not Found")
        account = self._accounts.get(parts[4])
        if account is None:
            return _refusal(404, "Not Found")
        if request.method != "GET":
            return _refusal(405, "Method Not Allowed")
        if len(parts) == 6:
            return _list(account, request.query)
        return self._get(account, parts[6])

    def _get(self, account: Mapping[str, AccessToken], token_id: str) -> _Answer:
        token = account.get(token_id)
        if token is None:
            return _refusal(404, "Not Found")
        body = self._bodies.get(token_id)
        if body is None:
            body = self._bodies[token_id] = json.dumps({"data": converter.unstructure(token)}).encode()
        return _Answer(200, body)


def _list(account: Mapping[str, AccessToken], query: Mapping[str, str]) -> _Answer:
    try:
        size, number = int(query.get("page[size]", "10")), int(query.get("page[number]", "0"))
    except ValueError:
        return _refusal(400, "page[size] and page[number] must be whole numbers")
    sort = query.get("sort", "created_at")
    field = sort.removeprefix("-")
    if not 1 <= size <= _LARGEST_PAGE or number < 0 or field not in _SORTS:
        return _refusal(400, "page[size] must be 1 to 100, page[number] at least 0, and sort a known field")
    wanted = query.get("filter", "").lower()
    found = [token for token in account.values() if wanted in (token.name or "").lower()]
    known = [token for token in found if getattr(token, field) is not None]
    unknown = [token for token in found if getattr(token, field) is None]
    known.sort(key=lambda token: getattr(token, field), reverse=sort.startswith("-"))
    page = [*known, *unknown][number * size : (number + 1) * size]
    document = {"data": converter.unstructure(page), "meta": {"page": {"total_filtered_count": len(found)}}}
    return _Answer(200, json.dumps(document).encode())


def _uuid(source: random.Random) -> str:
    return str(uuid.UUID(int=source.getrandbits(128), version=4))


def _word(source: random.Random, length: int) -> str:
    return "".join(source.choices(_BASE62, k=length))


def _made_up(source: random.Random, count: int, owner: str) -> list[AccessToken]:
    """Make tokens with the variety that a real account has."""
    if count < 0:
        msg = f"tokens must be a count >= 0 or AccessTokens, not {shown(count)}"
        raise InvalidArgumentError(msg)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [_made_up_token(source, today, owner) for _ in range(count)]


def _made_up_token(source: random.Random, today: datetime, owner: str) -> AccessToken:
    def ago(days: float) -> datetime:
        return today - timedelta(days=days)

    age = source.uniform(1, 900)
    lifetime = source.choice((None, None, 365, 365, 365, 90, 1_000))
    used = source.choice(
        (None, source.uniform(0, min(age, 3)), source.uniform(0, min(age, 40)), source.uniform(0, age))
    )
    return AccessToken(
        id=_uuid(source),
        name=source.choice((f"{source.choice(_NAMES)} {source.randrange(100)}", source.choice(_NAMES))),
        public_portion=f"ddsat_{_word(source, 22)}",
        scopes=tuple(sorted(source.sample(_SCOPES, source.choice((1, 1, 2, 3, 5, 12))))),
        created_at=ago(age),
        modified_at=None if source.random() < 0.7 else ago(source.uniform(0, age)),
        last_used_at=None if used is None else ago(used),
        expires_at=None if lifetime is None else ago(age) + timedelta(days=lifetime),
        service_account_id=owner,
    )
