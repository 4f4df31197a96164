"""The server: credentials, quota and faults around what the accounts answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from itertools import repeat
from typing import Any, Self, get_args

from aiohttp import web

from dd_sa_tokens.models import AccessToken

from ._accounts import Accounts
from ._answers import Answer, error
from ._checks import MOST_SECONDS, check, check_tokens, is_limit, is_seconds, is_whole
from ._faults import Fault, check_fault
from ._fixed_window import FixedWindow, Rounding
from ._routes import carry_out
from ._sample_tokens import sample_key, sample_tokens, uuid

_ROUNDINGS = get_args(Rounding)
_SHUTDOWN_TIMEOUT = 0.01  # not 0, which aiohttp takes for "as long as it takes"


class FakeDatadog:
    """A Datadog that holds service access tokens in memory, and serves them over HTTP while its context is open.

    It answers get, list, create, update and revoke. Every request is counted, waits for `latency`, needs good
    credentials (else 401), meets the next scripted fault if there is one, spends quota (else 429), and is carried out.
    The key of a token that was created is good like `access_token`, until the token is revoked or expires; no key
    lacks permissions, and using one leaves `last_used_at` as it is.

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
        seed: The same seed gives the same keys, and on the same day the same tokens. Creates in the same order are
            given the same IDs and keys.
        reset_rounding: How `X-RateLimit-Reset` becomes whole: `"up"` like the real API's, `"nearest"` or `"down"`.
        clock_offset: Seconds by which its clock is ahead of ours. It moves the windows, the `Date` header, and the
            dates of tokens that are created or updated.
        rate_limit_used: Requests that others have spent of the window that is current at the start.

    Attributes:
        api_key: Good together with `app_key`.
        app_key: Good together with `api_key`.
        access_token: Good as a Bearer token, or alone in `DD-APPLICATION-KEY`. It is the key of none of the `tokens`.
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
        rate_limit_used: int = 0,
    ) -> None:
        a_limit = "None, or requests (at least 1) and seconds (at least 0.001)"
        check("rate_limit", is_limit(rate_limit), a_limit, rate_limit)
        check("reset_rounding", reset_rounding in _ROUNDINGS, f"one of {', '.join(_ROUNDINGS)}", reset_rounding)
        check("rate_limit_used", is_whole(rate_limit_used), "a whole number of at least 0", rate_limit_used)
        check("latency", is_seconds(latency), "seconds, at least 0", latency)
        check("seed", is_whole(seed), "a whole number of at least 0", seed)
        check("clock_offset", is_seconds(clock_offset, -MOST_SECONDS), "seconds, at most 1e9", clock_offset)
        rng = random.Random(seed)  # noqa: S311 - made-up data
        made_up_account = uuid(rng)
        self.api_key = f"{rng.getrandbits(128):032x}"
        self.app_key = f"{rng.getrandbits(160):040x}"
        self.access_token = sample_key(rng)
        held = check_tokens(tokens) if not isinstance(tokens, int) else sample_tokens(tokens, rng)
        self.service_account_id = (held[0].service_account_id if held else None) or made_up_account
        self.requests = 0
        self.rejected = 0
        self._latency = latency
        self._clock_offset = clock_offset
        self._window = None if rate_limit is None else FixedWindow(*rate_limit, reset_rounding, rate_limit_used)
        self._faults: deque[Fault] = deque()
        self._pausing: set[asyncio.Task[Any]] = set()
        self._runner: web.ServerRunner | None = None
        self._accounts = Accounts(self.service_account_id, rng)
        for token in held:
            self._accounts.hold(token)

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
        """The tokens that it holds now, of all service accounts, in the order in which they were given or made."""
        return self._accounts.tokens()

    @property
    def token_ids(self) -> list[str]:
        """The IDs of the tokens that `service_account_id` has now, in the same order."""
        return self._accounts.token_ids()

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
            truncate: Send the headers with the whole length, but half of the body, and close the connection. An answer
                without a body (a revoke's) is dropped.
            stall: Seconds to wait before the answer.

        Raises:
            InvalidArgumentError: Not exactly one kind is given, or a value is out of range.
        """
        check("count", is_whole(count, 1), "a whole number of at least 1", count)
        fault = Fault(status, headers or {}, body, drop, truncate, stall)
        check_fault(fault)
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
        if self._window is not None:
            self._window.advance(self._now())
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
        if not self._knows(request.headers, now):
            return _respond(error(401), headers)
        if self._faults and self._faults[0].status is not None:
            return self._replace(self._faults.popleft(), headers)
        if self._window is not None:
            admitted, limits = self._window.spend(now)
            headers |= limits
            if not admitted:
                self.rejected += 1
                return _respond(error(429), headers)
        # The fault is this request's from here on: others may come while its body is read.
        fault = self._faults.popleft() if self._faults else None
        answer = await carry_out(self._accounts, request, now)
        return _respond(answer, headers) if fault is None else await self._apply_fault(fault, request, answer, headers)

    def _knows(self, headers: Mapping[str, str], now: float) -> bool:
        bearer = headers.get("Authorization")
        if bearer is not None:
            return bearer.startswith("Bearer ") and self._admits(bearer.removeprefix("Bearer "), now)
        app_key = headers.get("DD-APPLICATION-KEY", "")
        if app_key == self.app_key:
            return headers.get("DD-API-KEY") == self.api_key
        # A service access token stands alone: the API key beside it is not looked at.
        return self._admits(app_key, now)

    def _admits(self, key: str, now: float) -> bool:
        return key == self.access_token or self._accounts.admits(key, now)

    def _replace(self, fault: Fault, headers: dict[str, str]) -> web.Response:
        """Answer as a proxy in front would, which neither counts requests nor speaks of limits."""
        assert fault.status is not None
        self.rejected += fault.status == 429
        if fault.body is None:
            response = _respond(error(fault.status), headers)
        else:
            response = _respond((fault.status, fault.body), headers | {"Content-Type": "text/html"})
        response.headers.update(fault.headers)
        return response

    async def _apply_fault(
        self, fault: Fault, request: web.BaseRequest, answer: Answer, headers: dict[str, str]
    ) -> web.Response:
        """Keep the answer back, or send less of it."""
        status, body = answer
        if fault.stall is not None:
            await self._pause(fault.stall)
        if (fault.drop or (fault.truncate and not body)) and request.transport is not None:
            request.transport.close()  # what is returned goes nowhere
        if not fault.truncate:
            return _respond(answer, headers)
        response = _respond((status, body[: len(body) // 2]), headers | {"Content-Length": str(len(body))})
        response.force_close()
        return response


def _respond(answer: Answer, headers: Mapping[str, str]) -> web.Response:
    response = web.Response(status=answer[0], body=answer[1], headers=headers)
    if answer[0] == 204:
        del response.headers["Content-Type"]
    return response


@lru_cache(maxsize=8)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
