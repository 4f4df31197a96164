"""What an answer means: the operation's value, or a failure and whether another try makes sense. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import TypeVar

import attrs

from dd_sa_tokens.errors import (
    APIError,
    InvalidResponseError,
    TransportError,
    api_error_class,
    short_repr,
)

from .documents import decode_errors
from .headers import LONGEST_NAME, Redact, parse_retry_after, within_a_day
from .operations import Request
from .responses import Failure, Response, Retry

T = TypeVar("T")

_MOST_ERRORS = 10
_LONGEST_ERROR = 1_000


def interpret(request: Request[T], response: Response, redact: Redact, *, repeated: bool = False) -> T | Failure:
    """Turn an answer into the operation's value, or into the failure that it means.

    Args:
        request: What was sent.
        response: What came back.
        redact: Masks the keys in a text.
        repeated: Whether an earlier sending of the request may have been carried out.
    """
    status = response.status
    gone = status == 404 and repeated and request.operation.not_found_means_done
    if 200 <= status < 300 or gone:
        try:
            return request.operation.decode(request, attrs.evolve(response, body=b"") if gone else response)
        except InvalidResponseError as error:
            # A copy has no traceback: its frames would hold the body, which may hold a secret.
            copied = error.with_context(token_id=error.token_id and redact(error.token_id))
        return Failure(copied, Retry.NEVER, sent=True, maybe_applied=True)
    if status < 400:
        msg = f"the server answered {status}, and redirects are not followed: they would carry the keys along"
        return Failure(TransportError(msg), Retry.NEVER, sent=True, maybe_applied=True)
    retry, maybe_applied = _judge(status)
    return Failure(_api_error(response, redact), retry, sent=True, maybe_applied=maybe_applied)


def _judge(status: int) -> tuple[Retry, bool]:
    """Return how an HTTP error may be retried, and whether the request may have been carried out."""
    if status == 429:
        return Retry.THROTTLED, False
    if status in {501, 505}:
        return Retry.NEVER, True
    if status == 408 or status >= 500:
        return Retry.BACKOFF, True
    return Retry.NEVER, False


def _api_error(response: Response, redact: Redact) -> APIError:
    # Masked before they are cut: half a key is no longer found.
    errors = tuple(redact(text)[:_LONGEST_ERROR] for text in decode_errors(response.body)[:_MOST_ERRORS])
    request_id = response.headers.get("X-Request-Id")
    retry_after = parse_retry_after(response.headers, response.received)
    if response.status == 429:
        reset = None if response.rate_limit is None else response.rate_limit.reset
        retry_after = reset if reset is not None else within_a_day(retry_after)
    return api_error_class(response.status)(
        _describe(response.status, errors),
        status=response.status,
        errors=errors,
        rate_limit=response.rate_limit,
        retry_after=retry_after,
        request_id=redact(request_id)[:LONGEST_NAME] if request_id else None,
    )


def _describe(status: int, errors: tuple[str, ...]) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"the API answered {status}{phrase}" + (f": {'; '.join(map(short_repr, errors))}" if errors else "")
