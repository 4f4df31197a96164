"""A circuit breaker for refused keys: all IDs are fetched with the same keys, so one refusal can speak for all."""

from __future__ import annotations

from collections.abc import Callable

from dd_sa_tokens.errors import ClientClosedError, CredentialsError, DatadogError, ForbiddenError, InvalidArgumentError
from dd_sa_tokens.results import TokenResult

MANY_FORBIDDEN = 10
"""403s, while nothing else has come back, from which it follows that no other ID can succeed."""


class CredentialBreaker:
    """Opens when no further request can succeed.

    It opens after a 401 that a second attempt confirmed (the caller makes that), after `MANY_FORBIDDEN` 403s with no
    other answer, when a function gives no key, when the client is closed, and when the call's deadline passes. It is
    half open when it has the 403s, but requests in flight may still show that not everything is forbidden.

    Args:
        on_change: Called when `half_open` or `open_reason` changes.

    Attributes:
        open_reason: Why no other ID can succeed; `None` while one may.
    """

    def __init__(self, on_change: Callable[[], object]) -> None:
        self._on_change = on_change
        self._forbidden = 0
        self._refusal: ForbiddenError | None = None
        self._seen_other_status = False
        self.open_reason: DatadogError | None = None

    @property
    def half_open(self) -> bool:
        """Whether everything seems to be forbidden, which the requests in flight have to show first."""
        return self._forbidden >= MANY_FORBIDDEN and not self._seen_other_status and self.open_reason is None

    def record(self, result: TokenResult) -> None:
        """Learn from an answer what it says about all other IDs."""
        if result.error is None and self._seen_other_status:
            return  # the usual case
        if isinstance(result.error, ClientClosedError | CredentialsError):
            self.open(result.error)
        elif isinstance(result.error, ForbiddenError):
            self._forbidden, self._refusal = self._forbidden + 1, result.error
        elif not self._seen_other_status and not isinstance(result.error, InvalidArgumentError):
            was_half_open, self._seen_other_status = self.half_open, True
            if was_half_open:
                self._on_change()

    def open_if_all_forbidden(self) -> None:
        """Open if it is half open, now that no request is in flight that could show otherwise."""
        if self.half_open and self._refusal is not None:
            self.open(self._refusal)

    def open(self, error: DatadogError) -> None:
        """Open for this reason, unless it is open already."""
        if self.open_reason is None:
            self.open_reason = error.with_context(token_id=None)
            self._on_change()
