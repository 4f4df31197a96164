"""The error tree.

DatadogError
├── InvalidArgumentError (also ValueError)      a bad ID, name, scope, page size ...; raised before anything is sent
│   └── ConfigurationError                      bad keys, site, URL or option of the client
├── ClientClosedError                           a call after close(), or cut short by it
├── CredentialsError                            the key function raised, timed out or returned an invalid key
├── DeadlineExceededError (also TimeoutError)   the call's deadline passed before this ID had its answer
├── TransportError                              no usable answer: connection, TLS, disconnected, truncated, a redirect
│   └── RequestTimeoutError (also TimeoutError)
├── InvalidResponseError                        a 2xx whose body is not what the API documents
├── RotationError                               a rotation that stopped halfway
├── SourceError                                 the caller's own token IDs stopped with an error (see results.py)
└── APIError                                    the API answered with an error; itself for any 4xx not named below
    ├── BadRequestError 400
    ├── UnauthorizedError 401
    ├── ForbiddenError 403
    ├── NotFoundError 404
    ├── ConflictError 409
    ├── RateLimitError 429
    └── ServerError 5xx

Errors end up in logs that others can read, so they hold no key, and no exception of the HTTP library, whose
attributes hold the request's headers.
"""

from __future__ import annotations

import copy
from typing import Any, Self

from .models import RateLimit

_LONGEST_REPR = 80


def short_repr(value: object) -> str:
    """Return a short, printable form of something that may be long or hostile."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the user's object may raise anything
        text = f"<{type(value).__name__} without a repr>"
    return text if len(text) <= _LONGEST_REPR else f"{text[:_LONGEST_REPR]}... ({len(text)} characters)"


class DatadogError(Exception):
    """The base of every error of this package.

    Attributes:
        message: What went wrong, without the context below.
        operation: The method that failed, such as `get_token`.
        service_account_id: The service account that it was about.
        token_id: The token that it was about.
        attempts: Requests sent for this call; 0 if none was.
        outcome_unknown: Whether the operation may have been carried out although it failed.
    """

    def __init__(
        self,
        message: str = "",
        *,
        operation: str | None = None,
        service_account_id: str | None = None,
        token_id: str | None = None,
        attempts: int = 0,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.service_account_id = service_account_id
        self.token_id = token_id
        self.attempts = attempts
        self.outcome_unknown = outcome_unknown

    def __str__(self) -> str:
        context = self._context()
        return f"{self.message} ({', '.join(context)})" if context else self.message

    def _context(self) -> list[str]:
        parts: list[str] = []
        if self.operation is not None:
            parts.append(self.operation)
        if self.service_account_id is not None:
            parts.append(f"service account {short_repr(self.service_account_id)}")
        if self.token_id is not None:
            parts.append(f"token {short_repr(self.token_id)}")
        if self.attempts:
            parts.append(f"{self.attempts} attempt{'s' if self.attempts > 1 else ''}")
        if self.outcome_unknown:
            parts.append("outcome unknown: it may have been done")
        return parts

    def with_context(self, **context: Any) -> Self:
        """Return a copy of this error with other attributes; a result must not share its exception with another.

        Args:
            **context: The attributes to replace, by their names.

        Returns:
            The copy.
        """
        copied = copy.copy(self)
        for name, value in context.items():
            setattr(copied, name, value)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls the class with args, which fails for keyword-only ones; the state carries it all.
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(cls: type[DatadogError], args: tuple[Any, ...]) -> DatadogError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


class InvalidArgumentError(DatadogError, ValueError):
    """An argument is invalid. Raised before anything is sent; the text names the argument and what would be right."""


class ConfigurationError(InvalidArgumentError):
    """The client's own settings are invalid: keys, site, URL or an option.

    Or the client or its store is used under another event loop, or the store is not open.
    """


class ClientClosedError(DatadogError):
    """The client was closed before or during the call."""


class CredentialsError(DatadogError):
    """The key function raised, took longer than `timeout`, or returned an invalid key.

    The text names the argument and the exception's class, and shows neither the exception's text nor the value: they
    may hold a key. The next call asks the function again.
    """


class DeadlineExceededError(DatadogError, TimeoutError):
    """The `deadline` of a bulk fetch passed before this ID had its answer.

    A request for it may have been sent, and was cut short then; `attempts` does not count it.

    Attributes:
        deadline: How long the deadline was, in seconds.
    """

    def __init__(self, message: str = "", *, deadline: float = 0.0, **context: Any) -> None:
        super().__init__(message or f"no answer within the deadline of {deadline:g} s", **context)
        self.deadline = deadline


class TransportError(DatadogError):
    """No usable answer came: no connection, TLS refused, disconnected, cut short, a redirect, or too large a body."""


class RequestTimeoutError(TransportError, TimeoutError):
    """An attempt took longer than the client's `timeout`."""


class InvalidResponseError(DatadogError):
    """A 2xx answer whose body is not what the API documents.

    Attributes:
        path: Where in the body, as a JSON path such as `$.data.attributes.created_at`.
        reason: What is wrong there, without quoting what was found.
    """

    def __init__(self, message: str = "", *, path: str = "$", reason: str = "", **context: Any) -> None:
        super().__init__(message or f"the answer is not what the API documents: {path}: {reason}", **context)
        self.path = path
        self.reason = reason


class RotationError(DatadogError):
    """A rotation that stopped halfway. The text says why, what holds now, and what is left to do.

    What a rotation raises, and what holds then:

    | what went wrong | what is raised | old token | new token |
    |---|---|---|---|
    | the old one could not be read, or the new one not be made | that error | works | none |
    | its name, scopes or lifetime cannot be copied | `RotationError` | works | none |
    | no answer to the create | `RotationError`, `outcome_unknown` | works | perhaps one, its secret lost |
    | `store` raised | `RotationError`, `__cause__` unless that holds the secret | works | revoked |
    | `store` raised, and revoking the new one failed | the same | works | works, or may |
    | revoking the old one failed | `RotationError` | works, or may | works, stored |
    | cancelled before the create was answered | `CancelledError` | works | none, or revoked if it can be |
    | cancelled in `store` | `CancelledError` | works | works, perhaps stored |
    | cancelled after `store` raised | `CancelledError` | works | revoked if it can be |
    | cancelled while the old one was being revoked | `CancelledError` | revoked, works, or may | works, stored |

    Attributes:
        old_id: The token that was to be replaced.
        new_id: The token that was made to replace it; `None` if none was, or it is not known which.
        old_works: Whether the old token works; `None` where that is not known.
        new_works: Whether the new token works; `None` where that is not known.
    """

    def __init__(
        self,
        message: str = "",
        *,
        old_id: str | None = None,
        new_id: str | None = None,
        old_works: bool | None = None,
        new_works: bool | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.old_id = old_id
        self.new_id = new_id
        self.old_works = old_works
        self.new_works = new_works

    def _context(self) -> list[str]:
        parts = super()._context()
        if self.new_id is not None:
            parts.append(f"new token {short_repr(self.new_id)}")
        return parts


class APIError(DatadogError):
    """The API answered with an error.

    Attributes:
        status: The HTTP status.
        errors: The API's own words, from `{"errors": [...]}`; empty where it had none.
        rate_limit: What the answer's rate-limit headers said, if anything.
        retry_after: Seconds after which another attempt makes sense, if known.
        request_id: The answer's request ID, if it had one.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        errors: tuple[str, ...] = (),
        rate_limit: RateLimit | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.status = status
        self.errors = errors
        self.rate_limit = rate_limit
        self.retry_after = retry_after
        self.request_id = request_id

    def _context(self) -> list[str]:
        parts = super()._context()
        if self.request_id is not None:
            parts.append(f"request {short_repr(self.request_id)}")
        return parts


class BadRequestError(APIError):
    """400: the request was not understood."""


class UnauthorizedError(APIError):
    """401: the keys are wrong, or of another site."""


class ForbiddenError(APIError):
    """403: the keys lack a permission; the text names it."""


class NotFoundError(APIError):
    """404: there is no such token or service account."""


class ConflictError(APIError):
    """409: the request conflicts with the current state."""


class RateLimitError(APIError):
    """429 too often in a row, or a wait for the rate limit longer than `max_rate_limit_wait`.

    `retry_after` says after how many seconds another attempt makes sense.
    """


class ServerError(APIError):
    """5xx: the API failed."""


_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitError,
}


def api_error_class(status: int) -> type[APIError]:
    """Return the class for an HTTP error status."""
    return ServerError if status >= 500 else _BY_STATUS.get(status, APIError)
