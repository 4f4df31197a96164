"""One request's way: gate, transport, wire, and retry where it failed."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import attrs

from ._gate import Gate
from ._ledger import Ticket
from ._retry import Retries, RetryBudget, rejection_pause
from ._transport import Transport
from ._wire import Failure, Fate, Reply, Request, interpret, parse_rate_limit
from .config import Credentials, RetryPolicy
from .errors import APIError, ClientClosedError, DatadogError, TransportError
from .models import ClientStats

T = TypeVar("T")

_logger = logging.getLogger("dd_sa_tokens")


@attrs.define(eq=False)
class _Call:
    """What one call has used up so far."""

    attempts: int = 0
    rejections: int = 0  # 429s in a row
    rejection: APIError | None = None  # the last of them
    waited: float = 0.0  # seconds at the gate
    begun: float = 0.0  # when the first attempt was made, in seconds since the epoch
    unsure: bool = False  # whether an attempt may have been carried out although it failed

    def note(self, failure: Failure) -> None:
        """Take in how an attempt failed."""
        rejected = failure.fate is Fate.NOT_PROCESSED
        self.rejections = self.rejections + 1 if rejected else 0
        self.rejection = cast("APIError", failure.error) if rejected else None
        self.unsure = self.unsure or failure.fate in {Fate.UNKNOWN, Fate.FINAL}


@attrs.frozen
class Settled(Generic[T]):
    """How a request ended that was seen through although its caller may have been cancelled.

    Attributes:
        value: What it gave, if it succeeded.
        error: Why it failed, if it did.
        cancelled: The last cancellation that came meanwhile and is still to be raised, if one came.
    """

    value: T | None
    error: DatadogError | None
    cancelled: asyncio.CancelledError | None


class Pipeline:
    """Sends the requests of one client.

    Args:
        transport: Makes the attempts.
        gate: Lets them through.
        policy: How patiently calls are repeated.
        credentials: What must not show in errors.
    """

    def __init__(self, transport: Transport, gate: Gate, policy: RetryPolicy, credentials: Credentials) -> None:
        self._transport = transport
        self._gate = gate
        self._policy = policy
        self._redact = credentials.redact
        self._redact_name = lru_cache(maxsize=16)(credentials.redact)  # a quota's, the same in each answer
        self._budget = RetryBudget(time.monotonic)
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
            quota_wait_seconds=self._gate.waited,
        )

    async def send(self, request: Request[T], call: _Call | None = None) -> T:
        """Carry out one operation.

        Args:
            request: The operation.
            call: Where to keep the account of it, for who wants to read that.

        Raises:
            DatadogError: It failed; with the operation, the IDs and the number of attempts.
        """
        call = call or _Call()
        if not self.closed:
            self._transport.open()
        outcome = await self._attempt(request, call)
        if isinstance(outcome, Failure):
            outcome = await self._repeat(request, call, outcome)
        if not isinstance(outcome, Failure):
            return outcome
        raise _in_context(outcome.error, request, call)

    async def settle(self, request: Request[T], seconds: float | None = None) -> Settled[T]:
        """Carry out one operation and see it through, although the caller is cancelled.

        Then, or when the time is up, a request that is under way is waited for. What only waits, for quota or for its
        next try, is given up.
        """
        call = _Call()
        task = asyncio.ensure_future(self.send(request, call))
        cancelled: asyncio.CancelledError | None = None
        hurry = False
        while not task.done():
            try:
                if not hurry:
                    await asyncio.wait([task], timeout=seconds)
                else:
                    await self._transport.landing(task)
                    task.cancel()
                    await asyncio.wait([task])
            except asyncio.CancelledError as asked:
                cancelled = asked
            hurry = True
        try:
            return Settled(task.result(), None, cancelled)
        except DatadogError as error:
            failure = error
        except asyncio.CancelledError:
            failure = _in_context(TransportError("given up before it was answered"), request, call)
        return Settled(None, failure, cancelled)

    async def close(self) -> None:
        """End all calls with `ClientClosedError`, and close the session if it is not borrowed."""
        self.closed = True
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)
        self._gate.shut()
        await self._transport.close()

    async def _attempt(self, request: Request[T], call: _Call) -> T | Failure:
        operation = request.operation.name
        if self.closed:
            return Failure(ClientClosedError("the client is closed"), Fate.REFUSED)
        ticket = self._gate.try_enter(operation) or await self._gate.enter(operation, self._patience(call))
        if not isinstance(ticket, Ticket):
            said = call.rejection
            return Failure(
                ticket.with_context(errors=said.errors, request_id=said.request_id) if said else ticket, Fate.REFUSED
            )
        if self.closed:
            self._gate.forget(operation, ticket)
            return Failure(ClientClosedError("the client is closed"), Fate.REFUSED)
        call.waited += ticket.waited
        call.begun = call.begun or time.time()
        self._requests += 1
        self._retries += call.attempts > 0
        call.attempts += 1
        try:
            reply = await self._transport.send(request)
        except BaseException:  # cancelled
            self._gate.lost(operation, ticket)
            call.unsure = True
            if not request.operation.safe:
                what = f"{request.operation.method} {request.path}"
                _logger.warning("%s was cancelled while it was under way; %s", what, _how_to_look(request, call))
            raise
        if _logger.isEnabledFor(logging.DEBUG):
            _log_request(request, call, ticket, reply)
        if isinstance(reply, Failure):
            leave = self._gate.forget if reply.fate is Fate.NOT_SENT else self._gate.lost
            leave(operation, ticket)
            call.note(reply)
            return reply
        return self._take_in(request, call, ticket, reply)

    def _take_in(self, request: Request[T], call: _Call, ticket: Ticket, reply: Reply) -> T | Failure:
        operation = request.operation.name
        outcome = interpret(request, reply, self._redact, repeated=call.unsure)
        if not isinstance(outcome, Failure):
            self._budget.succeeded()
        else:
            call.note(outcome)
            self._rate_limited += call.rejection is not None
            pause = rejection_pause(outcome, self._policy, call.rejections)
            if pause:  # before the place is free, or the next one in the queue would slip through
                self._gate.close(operation, pause)
        self._gate.answered(operation, ticket, parse_rate_limit(reply, self._redact_name), reply.status)
        return outcome

    def _patience(self, call: _Call) -> float | None:
        longest = self._policy.max_rate_limit_wait
        return None if longest is None else longest - call.waited

    async def _repeat(self, request: Request[T], call: _Call, first: Failure) -> T | Failure:
        pending = [first]

        async def attempt() -> T | Failure:
            if pending:
                return pending.pop()
            return await self._attempt(request, call)

        def on_retry(failure: Failure, seconds: float) -> None:
            when = f"in {seconds:.2f} s"
            if failure.fate is Fate.NOT_PROCESSED:
                call.waited += seconds
                when = "when there is quota"
            what = f"{request.operation.method} {request.path}"
            _logger.warning("%s: %s; try %d %s", what, failure.error, call.attempts + 1, when)

        def patience() -> float:
            left = self._patience(call)
            return math.inf if left is None else left

        retries = Retries(self._policy, request.operation, self._budget, on_retry, self._sleep, patience)
        return cast("T | Failure", await retries.run(attempt))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless the client is closed meanwhile."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
        if seconds > 0:
            await asyncio.wait([self._closing], timeout=seconds)


def _in_context(error: DatadogError, request: Request[Any], call: _Call) -> DatadogError:
    """Say what a failed call was about, and how to find out whether it was carried out where that is not known."""
    message, unsure = error.message, call.unsure and not request.operation.safe
    if unsure:
        message += f"; {_how_to_look(request, call)}"
    return error.with_context(
        message=message,
        operation=request.operation.name,
        service_account_id=request.service_account_id,
        token_id=request.token_id or error.token_id,
        attempts=call.attempts,
        outcome_unknown=unsure,
    )


def _how_to_look(request: Request[Any], call: _Call) -> str:
    since = datetime.fromtimestamp(call.begun, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return request.trace.replace("{since}", since, 1)


def _log_request(request: Request[Any], call: _Call, ticket: Ticket, reply: Reply | Failure) -> None:
    result = type(reply.error).__name__ if isinstance(reply, Failure) else str(reply.status)
    what = f"{request.operation.method} {request.path}"
    _logger.debug("%s: %s, try %d, %.3f s", what, result, call.attempts, time.monotonic() - ticket.sent)
