"""What an answer means: the operation's value, or a failure and whether another try makes sense. Pure."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, TypeVar

import attrs

from dd_sa_tokens.errors import (
    APIError,
    InvalidResponseError,
    NotFoundError,
    TransportError,
    api_error_class,
    short_repr,
)

from .documents import decode_errors
from .headers import LONGEST_NAME, Redact, knows_reset, parse_retry_after, within_a_day
from .operations import Operation, Request
from .responses import Failure, Response, Retry

T = TypeVar("T")

_MOST_ERRORS = 10
_LONGEST_ERROR = 1_000
_MEDIA_TYPE = re.compile(r"[a-z]{1,20}/[a-z0-9.+-]{1,60}", re.IGNORECASE)


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
        except (InvalidResponseError, NotFoundError) as error:
            # A copy has no traceback: its frames would hold the body, which may hold a secret.
            copied = error.with_context(token_id=error.token_id and redact(error.token_id))
            if isinstance(copied, InvalidResponseError) and copied.path == "$":  # not even the document is as expected
                copied = copied.with_context(message=copied.message + redact(_content_type(response)))
        return Failure(copied, Retry.NEVER, sent=True, maybe_applied=True)
    if status < 400:
        msg = f"the server answered {status}, which is neither a success nor an error"
        if status >= 300:
            msg = f"the server answered {status}, and redirects are not followed: they would carry the keys along"
        return Failure(TransportError(msg), Retry.NEVER, sent=True, maybe_applied=True)
    retry, maybe_applied = _judge(status)
    return Failure(_api_error(request, response, redact), retry, sent=True, maybe_applied=maybe_applied)


def _judge(status: int) -> tuple[Retry, bool]:
    """Return how an HTTP error may be retried, and whether the request may have been carried out."""
    if status == 429:
        return Retry.THROTTLED, False
    if status in {501, 505}:
        return Retry.NEVER, True
    if status == 408 or status >= 500:
        return Retry.BACKOFF, True
    return Retry.NEVER, False


def _api_error(request: Request[Any], response: Response, redact: Redact) -> APIError:
    # Masked before they are cut: half a key is no longer found.
    errors = tuple(redact(text)[:_LONGEST_ERROR] for text in decode_errors(response.body)[:_MOST_ERRORS])
    request_id = response.headers.get("X-Request-Id")
    retry_after = parse_retry_after(response.headers, response.received)
    if response.status == 429:
        rate, retry_after = response.rate_limit, within_a_day(retry_after)
        if rate is not None and rate.reset is not None and (retry_after is None or knows_reset(rate)):
            retry_after = rate.reset
    return api_error_class(response.status)(
        _describe(request.operation, response.status, errors),
        status=response.status,
        errors=errors,
        rate_limit=response.rate_limit,
        retry_after=retry_after,
        request_id=redact(request_id)[:LONGEST_NAME] if request_id else None,
    )


def _describe(operation: Operation[Any], status: int, errors: tuple[str, ...]) -> str:
    """Return what an error's status means for this operation, and the API's own words where they say more."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    said = [short_repr(text) for text in errors if text.strip(" .!").lower() not in {phrase.lower(), str(status)}]
    if status == 404 and operation.not_found:
        what = f"the API answered 404, no such {operation.not_found}"
    else:
        what = f"the API answered {status} {phrase}".rstrip()
    text = f"{what}: {'; '.join(said)}" if said else what
    return f"{text}; it needs the permission {operation.permissions}" if status == 403 else text


def _content_type(response: Response) -> str:
    """Return the content type in words, if it is one, and not the expected one."""
    kind = _MEDIA_TYPE.match(response.headers.get("Content-Type", ""))
    return f" (the content type is {kind[0]})" if kind and "json" not in kind[0] else ""
