"""What the user sees of each attempt: the call of `on_attempt`, and the log record with the same facts."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import attrs

from dd_sa_tokens._clock import Clock
from dd_sa_tokens._http.errors import origin_of, safe_str
from dd_sa_tokens._protocol.headers import Redact
from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens._protocol.responses import Response
from dd_sa_tokens._ratelimit import Permit
from dd_sa_tokens._validation import underlying_function
from dd_sa_tokens.errors import ConfigurationError, short_repr
from dd_sa_tokens.models import Attempt

from .retry import CallState

OnAttempt = Callable[[Attempt], object]
"""Is called after each attempt."""

_logger = logging.getLogger("dd_sa_tokens")


def check_on_attempt(on_attempt: object) -> None:
    """Refuse an `on_attempt` that does nothing when it is called.

    Raises:
        ConfigurationError: It is not callable, or is an `async def` or a generator, whose code would not run.
    """
    if on_attempt is None:
        return
    if not callable(on_attempt):
        msg = f"on_attempt must be a function that takes an Attempt, not {type(on_attempt).__name__}"
        raise ConfigurationError(msg)
    functions = (on_attempt, underlying_function(on_attempt))  # an `AsyncMock` is async, although its `__call__` is not
    for is_kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction):
        if any(map(is_kind, functions)):
            msg = "on_attempt must be a plain function, not an async def or a generator: nothing would run its code"
            raise ConfigurationError(msg)


class Observer:
    """Tells the user of attempts.

    Args:
        on_attempt: Called after each attempt; an exception out of it is logged once.
        redact: Masks the keys in a text.
        clock: Where the time comes from.
    """

    def __init__(self, on_attempt: OnAttempt | None, redact: Redact, clock: Clock) -> None:
        check_on_attempt(on_attempt)
        self._on_attempt = on_attempt
        self._redact = redact
        self._now = clock.monotonic
        self._has_complained = False

    def notify(
        self,
        request: Request[Any],
        call: CallState,
        permit: Permit,
        answer: Response | None,
        error: BaseException | None = None,
    ) -> None:
        """Keep the facts of an attempt that has ended, log them, and hand them to the user's function.

        Args:
            request: What was sent.
            call: The state of its call, which keeps the facts.
            permit: The request's.
            answer: What came back, if anything did.
            error: Why the attempt failed; `None` for a success.
        """
        attempt = call.last = Attempt(
            operation=request.operation.name,
            service_account_id=request.service_account_id,
            token_id=request.token_id,
            number=call.attempts,
            status=None if answer is None else answer.status,
            error=None if error is None else type(error).__name__,
            seconds=self._now() - permit.sent,
            waited=permit.waited,
            rate_limit=None if answer is None else answer.rate_limit,
        )
        if _logger.isEnabledFor(logging.DEBUG):
            what = f"{request.operation.method} {request.path}"
            came, extra = attempt.status or attempt.error, facts_of(attempt)
            _logger.debug("%s: %s, attempt %d, %.3f s", what, came, attempt.number, attempt.seconds, extra=extra)
        if self._on_attempt is None:
            return
        try:
            result = self._on_attempt(attempt)
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - it must not fail the call
            said = short_repr(self._redact(safe_str(raised)))  # masked before it is cut and escaped
            self._complain(f"raised {type(raised).__name__}({said}){origin_of(raised)}")
        else:
            if inspect.iscoroutine(result):
                result.close()
                self._complain("returned a coroutine, which is not awaited")

    def _complain(self, what: str) -> None:
        if not self._has_complained:
            self._has_complained = True
            _logger.error("on_attempt %s; this is logged once", what)


def facts_of(attempt: Attempt | None, **more: object) -> dict[str, object]:
    """Return an attempt as `extra` of a log record."""
    return (attrs.asdict(attempt, recurse=False) if attempt is not None else {}) | more
