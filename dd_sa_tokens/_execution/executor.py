"""The executor: sends the requests of one client, each through limiter, transport and interpretation, and again."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any, TypeVar, cast

import attrs

from dd_sa_tokens._clock import Clock
from dd_sa_tokens._credentials import Credentials
from dd_sa_tokens._http import Transport
from dd_sa_tokens._protocol.interpret import interpret
from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens._protocol.responses import Failure, Response, Retry
from dd_sa_tokens._ratelimit import Permit, RateLimiter
from dd_sa_tokens.config import Options
from dd_sa_tokens.errors import ClientClosedError, DatadogError, UnauthorizedError
from dd_sa_tokens.models import ClientStats

from .budget import RetryBudget
from .context import how_to_verify, in_context
from .key_source import KeySource
from .observer import Observer, OnAttempt, facts_of
from .retry import CallState, next_delay, repeat_with, throttle_pause

T = TypeVar("T")

_QUICK = 1.0  # seconds that an attempt may take which only saves requests

_logger = logging.getLogger("dd_sa_tokens")


def _jitter(longest: float) -> float:
    return random.uniform(0.0, longest)  # noqa: S311 - no secret is made of it


class Executor:
    """Sends the requests of one client.

    Args:
        transport: Makes the attempts.
        limiter: Lets them through.
        credentials: What must not show in errors. If functions give them, they are asked for when they are needed.
        clock: Where the time comes from.
        on_attempt: Called after each attempt.
    """

    def __init__(
        self,
        transport: Transport,
        limiter: RateLimiter,
        credentials: Credentials,
        clock: Clock = Clock(),
        on_attempt: OnAttempt | None = None,
    ) -> None:
        self._transport = transport
        self._limiter = limiter
        self._redact = credentials.redact
        self._keys = KeySource(credentials) if credentials.functions else None
        self._on_attempt = on_attempt
        self._observer = Observer(on_attempt, self._redact, clock)
        self._clock = clock
        self._budget = RetryBudget(clock.monotonic)
        self._closing: asyncio.Future[None] | None = None
        self.closed = False
        self._requests = 0
        self._retries = 0
        self._rate_limited = 0

    @property
    def stats(self) -> ClientStats:
        """A snapshot of the counters."""
        return ClientStats(
            requests=self._requests,
            retries=self._retries,
            rate_limited=self._rate_limited,
            rate_limit_wait_seconds=self._limiter.waited,
        )

    @property
    def asked_for_keys(self) -> int | None:
        """How often functions have given the keys, or 1 before the first request; `None` if no function gives them."""
        return None if self._keys is None else max(self._keys.asked, 1)

    async def send(self, request: Request[T], options: Options, call: CallState | None = None) -> T:
        """Carry out one operation.

        Args:
            request: The operation.
            options: The limits for this request.
            call: Where to keep what the call uses up, for a caller that reads it.

        Returns:
            The operation's value.

        Raises:
            DatadogError: It failed; with the operation, the IDs and the number of attempts.
        """
        call = call or CallState()
        if not self.closed:
            self._transport.open()
            if self._keys is not None:
                await self._get_keys(self._keys, request, options, call)
        outcome = await self._attempt(request, options, call)
        # tenacity's loop costs a fifth of a successful request's CPU time, so it is entered only after a first failure.
        if isinstance(outcome, Failure) and call.delay is not None:
            outcome = await self._repeat(request, options, call, outcome)
        if not isinstance(outcome, Failure):
            return outcome
        raise in_context(outcome.error, request, call)

    async def try_once(self, request: Request[T], options: Options, *, instead_of: str) -> T:
        """Make one quick attempt at a request that may save requests of another operation.

        It takes 1 s at most, and does not wait for a rate limit that the other operation does not share.

        Args:
            request: The operation.
            options: The limits for this request.
            instead_of: The name of the other operation.

        Returns:
            The operation's value.

        Raises:
            DatadogError: It failed, or would have had to wait.
        """
        retry = options.retry
        if not self._limiter.share_a_limit(request.operation.name, instead_of):
            retry = attrs.evolve(retry, max_rate_limit_wait=0.0)
        call = CallState(last_attempt=True)
        if self._keys is not None and not self.closed:
            await self._get_keys(self._keys, request, options, call)  # the other operation needs them, too
        options = attrs.evolve(options, timeout=min(options.timeout, _QUICK), retry=retry)
        return await self.send(request, options, call)

    async def close(self) -> None:
        """End all calls with `ClientClosedError`, and close the session if it is not borrowed."""
        self.closed = True
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)
        self._limiter.close()
        if self._keys is not None:
            self._keys.close()
        await self._transport.close()
        await self._limiter.return_leases()

    async def _get_keys(self, keys: KeySource, request: Request[Any], options: Options, call: CallState) -> None:
        error = await keys.get_ready(options.timeout)
        call.asked = call.asked or keys.asked
        if error is not None:
            raise in_context(error, request, call)

    async def _repeat(self, request: Request[T], options: Options, call: CallState, first: Failure) -> T | Failure:
        pending = [first]

        async def attempt() -> T | Failure:
            if pending:
                return pending.pop()
            return await self._attempt(request, options, call)

        def before_sleep(failure: Failure) -> None:
            when = "when the rate limit allows it"
            if failure.retry is not Retry.THROTTLED:
                when = f"in {call.delay or 0.0:.2f} s"
            what = f"{request.operation.method} {request.path}"
            extra = facts_of(call.last, delay=call.delay)
            _logger.warning("%s: %s; attempt %d %s", what, failure.error, call.attempts + 1, when, extra=extra)

        return cast("T | Failure", await repeat_with(call, self._sleep, before_sleep)(attempt))

    async def _attempt(self, request: Request[T], options: Options, call: CallState) -> T | Failure:
        call.delay = None
        permit = (
            None
            if self.closed
            else self._limiter.try_acquire(request.operation.name, options.rate_limit_reserve, options.bound)
        )
        if permit is None:
            outcome = await self._wait_for_permit(request, options, call)
            if isinstance(outcome, Failure):
                return outcome
            permit = outcome
        call.waited += permit.waited
        call.begun = call.begun or self._clock.wall()
        self._requests += 1
        self._retries += call.attempts > 0
        call.attempts += 1
        call.in_flight = True
        call.signed_with = 0 if self._keys is None else self._keys.version
        try:
            response = await self._transport.send(request, options.timeout)
        except BaseException as error:  # cancelled
            self._limiter.abandon(permit)
            call.maybe_applied = True
            if not request.operation.safe:
                what = f"{request.operation.method} {request.path}"
                _logger.warning("%s was cancelled while it was in flight; %s", what, how_to_verify(request, call))
            self._observer.notify(request, call, permit, None, error)
            raise
        finally:
            call.in_flight = False
        if isinstance(response, Failure):
            leave = self._limiter.abandon if response.sent else self._limiter.cancel
            leave(permit)
            self._record_failure(request, options, call, response)
            self._observer.notify(request, call, permit, None, response.error)
            return response
        result = self._receive(request, options, call, permit, response)
        if isinstance(result, Failure):
            self._observer.notify(request, call, permit, response, result.error)
        elif self._on_attempt is not None or _logger.isEnabledFor(logging.DEBUG):
            self._observer.notify(request, call, permit, response)
        if self._keys is not None and isinstance(result, Failure) and isinstance(result.error, UnauthorizedError):
            return await self._sign_anew(self._keys, request, options, call, result)
        return result

    async def _sign_anew(
        self, keys: KeySource, request: Request[T], options: Options, call: CallState, failure: Failure
    ) -> T | Failure:
        """After a 401, send once more if the functions give other keys: a 401 was not carried out, not even a create.

        A second 401 of one call is final. A change is not tried again for a cancelled caller.
        """
        is_unwanted = call.last_attempt and not request.operation.safe
        if call.signed_anew or is_unwanted:
            return failure
        call.signed_anew = True
        renewed = await keys.renew(call.signed_with, call.asked, options.timeout)
        if isinstance(renewed, DatadogError):
            return _not_sent(renewed)
        if not renewed:
            return failure
        call.counted -= 1
        what = f"{request.operation.method} {request.path}"
        _logger.warning("%s: %s; sent again with the new key", what, failure.error, extra=facts_of(call.last))
        return await self._attempt(request, options, call)

    async def _wait_for_permit(self, request: Request[Any], options: Options, call: CallState) -> Permit | Failure:
        """Wait for a permit; or return why there is none."""
        if self.closed:
            return _not_sent(ClientClosedError("the client is closed"))
        longest = options.retry.max_rate_limit_wait
        max_wait = None if longest is None else longest - call.waited
        permit = await self._limiter.acquire(
            request.operation.name, max_wait, reserve=options.rate_limit_reserve, bound=options.bound
        )
        if not isinstance(permit, Permit):
            said = call.rejection
            return _not_sent(permit.with_context(errors=said.errors, request_id=said.request_id) if said else permit)
        if self.closed:
            self._limiter.cancel(permit)
            return _not_sent(ClientClosedError("the client is closed"))
        return permit

    def _receive(
        self, request: Request[T], options: Options, call: CallState, permit: Permit, response: Response
    ) -> T | Failure:
        """Interpret an answer, and let the limiter and the budget learn from it."""
        outcome = interpret(request, response, self._redact, repeated=call.maybe_applied)
        pause = 0.0
        if not isinstance(outcome, Failure):
            self._budget.record_success()
            if self._keys is not None:
                self._keys.record_accepted(call.signed_with)
        else:
            self._record_failure(request, options, call, outcome)
            if outcome.retry is Retry.THROTTLED:
                self._rate_limited += 1
                pause = throttle_pause(outcome, call, options.retry, _jitter)
        self._limiter.record_response(permit, response.rate_limit, response.status, pause=pause)
        return outcome

    def _record_failure(self, request: Request[Any], options: Options, call: CallState, failure: Failure) -> None:
        """Decide, once, whether the attempt is repeated."""
        call.record(failure)
        call.delay = next_delay(failure, call, options.retry, idempotent=request.operation.idempotent, jitter=_jitter)
        if failure.retry is Retry.THROTTLED:
            call.waited += call.delay or 0.0
        elif call.delay is not None and not self._budget.take():
            call.delay, call.over_budget = None, True

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless the client is closed meanwhile."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
        if seconds > 0:
            await asyncio.wait([self._closing], timeout=seconds)


def _not_sent(error: DatadogError) -> Failure:
    return Failure(error, Retry.NEVER, sent=False, maybe_applied=False)
