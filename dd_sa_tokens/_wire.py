"""The protocol, pure: operations as requests, replies as values or errors, and what the headers say.

No I/O and no clock: a reply brings along the time at which it came.
Sources: https://docs.datadoghq.com/api/latest/service-accounts/ and https://docs.datadoghq.com/api/latest/rate-limits/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import attrs

from ._arguments import PLAIN_ID, check_id, check_list_options, check_name, check_scopes
from ._codec import Page, decode_created, decode_errors, decode_nothing, decode_page, decode_token, encode_token
from .errors import (
    APIError,
    DatadogError,
    InvalidArgumentError,
    InvalidResponseError,
    TransportError,
    api_error_class,
    shown,
)
from .models import AccessToken, CreatedToken, RateLimit

T = TypeVar("T")

_DAY = 86_400.0
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,20})?")
_RATE_LIMIT = (
    "X-RateLimit-Limit",
    "X-RateLimit-Period",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-RateLimit-Name",
)
_MOST_ERRORS = 10
_LONGEST_ERROR = 1_000
_LONGEST_NAME = 100


@attrs.frozen
class Operation(Generic[T]):
    """One thing that the API can do.

    Attributes:
        name: The client's method, which errors, logs and the quota's ledgers know it by.
        method: The HTTP method.
        repeatable: Whether it can be sent again although it may have been carried out.
        decode: Makes the value of a 2xx answer's body; raises `InvalidResponseError`.
        undoes: Whether it is done when what it is about is gone: a 404 to a repetition then is a success.
    """

    name: str
    method: str
    repeatable: bool
    decode: Callable[[Request[T], bytes], T]
    undoes: bool = False

    @property
    def safe(self) -> bool:
        """Whether it changes nothing, so that nobody need ask what became of it."""
        return self.method == "GET"


@attrs.define
class Request(Generic[T]):
    """An operation on something: all that has to be sent, except the host and the keys.

    Attributes:
        operation: What to do.
        path: The URL's path and query, percent-encoded, as they go on the wire.
        service_account_id: The account that it is about.
        token_id: The token that it is about, if it is about one.
        body: JSON to send; `None` for none.
        trace: How to find out what became of it where no answer tells; `{since}` stands for when it was sent.
    """

    operation: Operation[T]
    path: str
    service_account_id: str
    token_id: str | None = None
    body: bytes | None = None
    trace: str = ""


@attrs.define
class Reply:
    """An answer as it came.

    Attributes:
        status: The HTTP status.
        headers: Case-insensitive.
        body: Whole, and decompressed. Not in the repr: it may hold a secret.
        received: When it came, in seconds since the epoch on the local clock.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)
    received: float


class Fate(Enum):
    """What became of a request that failed, which decides whether it may be sent again."""

    NOT_SENT = auto()
    """The connection failed before it left."""
    NOT_PROCESSED = auto()
    """A 429: it was refused at the door."""
    REFUSED = auto()
    """It was not carried out, and another try would not be either."""
    UNKNOWN = auto()
    """It may have been carried out: no answer came, or the server failed."""
    FINAL = auto()
    """It may have been carried out, and another try would fail the same."""


@attrs.frozen
class Failure:
    """A request that gave no value.

    Attributes:
        error: What to raise if it is not sent again.
        fate: Whether it can be sent again.
    """

    error: DatadogError
    fate: Fate


def get_token(service_account_id: str, token_id: str) -> Request[AccessToken]:
    """Ask for one token.

    Raises:
        InvalidArgumentError: An ID cannot be one.
    """
    return _get(service_account_id, _all(_GET_TOKEN, service_account_id), token_id)


def token_getter(service_account_id: str) -> Callable[[str], Request[AccessToken]]:
    """Return `get_token` for many tokens of one service account, whose part of the path is made once.

    Raises:
        InvalidArgumentError: The ID cannot be one.
    """
    return partial(_get, service_account_id, _all(_GET_TOKEN, service_account_id))


def _get(service_account_id: str, collection: str, token_id: str) -> Request[AccessToken]:
    path = _one(_GET_TOKEN, service_account_id, token_id, collection)
    return Request(_GET_TOKEN, path, service_account_id, token_id)


def list_tokens(
    service_account_id: str, *, filter_: str | None, sort: str | None, size: int, number: int
) -> Request[Page]:
    """Ask for a page of a service account's tokens; pages count from 0.

    Raises:
        InvalidArgumentError: The ID, or an option, cannot be one.
    """
    path = _all(_LIST_TOKENS, service_account_id)
    check_list_options(filter_, sort, size, operation="list_tokens", service_account_id=service_account_id)
    query: dict[str, str | int] = {"page[size]": size, "page[number]": number}
    query |= {name: value for name, value in (("sort", sort), ("filter", filter_)) if value is not None}
    return Request(_LIST_TOKENS, f"{path}?{urlencode(query, quote_via=quote)}", service_account_id)


def create_token(
    service_account_id: str, *, name: str, scopes: Collection[str], expires_at: datetime | None
) -> Request[CreatedToken]:
    """Ask for a new token.

    Raises:
        InvalidArgumentError: The ID, the name or the scopes cannot be right.
    """
    path = _all(_CREATE_TOKEN, service_account_id)
    check_name(name, operation="create_token", service_account_id=service_account_id)
    check_scopes(scopes, operation="create_token", service_account_id=service_account_id)
    body = encode_token(name=name, scopes=scopes, expires_at=expires_at)
    trace = f"look for a token created at {{since}} or later and named {shown(name)} (list_tokens, sort='-created_at')"
    return Request(_CREATE_TOKEN, path, service_account_id, body=body, trace=trace)


def update_token(
    service_account_id: str, token_id: str, *, name: str | None, scopes: Collection[str] | None
) -> Request[AccessToken]:
    """Ask for a change of a token's name, scopes or both.

    Raises:
        InvalidArgumentError: An ID, the name or the scopes cannot be right, or there is nothing to change.
    """
    path = _one(_UPDATE_TOKEN, service_account_id, token_id)
    context: dict[str, Any] = {
        "operation": "update_token",
        "service_account_id": service_account_id,
        "token_id": token_id,
    }
    if name is None and scopes is None:
        msg = "give name, scopes or both: there is nothing to update"
        raise InvalidArgumentError(msg, **context)
    if name is not None:
        check_name(name, **context)
    if scopes is not None:
        check_scopes(scopes, **context)
    body = encode_token(token_id=token_id, name=name, scopes=scopes)
    trace = "get_token shows whether it was done: by a modified_at of {since} or later"
    return Request(_UPDATE_TOKEN, path, service_account_id, token_id, body, trace)


def revoke_token(service_account_id: str, token_id: str) -> Request[None]:
    """Ask for the end of a token.

    Raises:
        InvalidArgumentError: An ID cannot be one.
    """
    path = _one(_REVOKE_TOKEN, service_account_id, token_id)
    trace = "get_token shows whether it was done: it finds no revoked token"
    return Request(_REVOKE_TOKEN, path, service_account_id, token_id, trace=trace)


def _all(operation: Operation[Any], service_account_id: str) -> str:
    account = _segment("service_account_id", service_account_id, operation)
    return f"/api/v2/service_accounts/{account}/access_tokens"


def _one(operation: Operation[Any], service_account_id: str, token_id: str, collection: str = "") -> str:
    collection = collection or _all(operation, service_account_id)
    return f"{collection}/{_segment('token_id', token_id, operation, service_account_id)}"


def _segment(name: str, value: str, operation: Operation[Any], service_account_id: str | None = None) -> str:
    """Return an ID, once it has been found to be one, as a segment of a path."""
    if type(value) is str and PLAIN_ID.fullmatch(value):
        return value
    return quote(check_id(name, value, operation.name, service_account_id), safe="")


def _decode_asked_token(request: Request[AccessToken], body: bytes) -> AccessToken:
    token = decode_token(body)
    if token.id != request.token_id and token.id.lower() != (request.token_id or "").lower():
        raise InvalidResponseError(path="$.data.id", reason="another token than the one asked for")
    return token


_GET_TOKEN = Operation("get_token", "GET", repeatable=True, decode=_decode_asked_token)
_LIST_TOKENS = Operation[Page]("list_tokens", "GET", repeatable=True, decode=lambda _, body: decode_page(body))
# It has no idempotency key: sent twice, it makes two tokens.
_CREATE_TOKEN = Operation[CreatedToken](
    "create_token", "POST", repeatable=False, decode=lambda _, body: decode_created(body)
)
_UPDATE_TOKEN = Operation("update_token", "PATCH", repeatable=True, decode=_decode_asked_token)
_REVOKE_TOKEN = Operation[None](
    "revoke_token", "DELETE", repeatable=True, decode=lambda _, body: decode_nothing(body), undoes=True
)


def interpret(
    request: Request[T], reply: Reply, redact: Callable[[str], str], *, repeated: bool = False
) -> T | Failure:
    """Turn a reply into the operation's value, or into the failure that it means.

    Args:
        request: What was asked.
        reply: What was answered.
        redact: Masks the keys in a text; a server may echo them.
        repeated: Whether an earlier sending of the request may have been carried out.
    """
    gone = reply.status == 404 and repeated and request.operation.undoes
    if 200 <= reply.status < 300 or gone:
        try:
            return request.operation.decode(request, b"" if gone else reply.body)
        except InvalidResponseError as error:
            # A copy has no traceback: its frames would hold the body, which may hold a secret.
            return Failure(error.with_context(token_id=error.token_id and redact(error.token_id)), Fate.FINAL)
    if reply.status < 400:
        msg = f"the server answered {reply.status}, and redirects are not followed: they would carry the keys along"
        return Failure(TransportError(msg), Fate.FINAL)
    return Failure(_api_error(reply, redact), _fate(reply.status))


def _fate(status: int) -> Fate:
    if status == 429:
        return Fate.NOT_PROCESSED
    if status in {501, 505}:
        return Fate.FINAL
    return Fate.UNKNOWN if status == 408 or status >= 500 else Fate.REFUSED


def _api_error(reply: Reply, redact: Callable[[str], str]) -> APIError:
    # Masked before they are cut: half a key is no longer found.
    errors = tuple(redact(text)[:_LONGEST_ERROR] for text in decode_errors(reply.body)[:_MOST_ERRORS])
    request_id = reply.headers.get("X-Request-Id")
    rate_limit = parse_rate_limit(reply, redact)
    retry_after = parse_retry_after(reply)
    if reply.status == 429:
        reset = None if rate_limit is None else rate_limit.reset
        retry_after = reset if reset is not None else _within_a_day(retry_after)
    return api_error_class(reply.status)(
        _describe(reply.status, errors),
        status=reply.status,
        errors=errors,
        rate_limit=rate_limit,
        retry_after=retry_after,
        request_id=redact(request_id)[:_LONGEST_NAME] if request_id else None,
    )


def _describe(status: int, errors: tuple[str, ...]) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"the API answered {status}{phrase}" + (f": {'; '.join(map(shown, errors))}" if errors else "")


def parse_rate_limit(reply: Reply, redact: Callable[[str], str]) -> RateLimit | None:
    """Read the five rate-limit headers; `None` if none of them says anything.

    Junk and negative values are as good as no header. A header that was sent twice and joined (`7, 7`) counts once;
    where the two differ, the more careful one counts. A reset too large to be a delay is a Unix time.
    """
    raw_limit, raw_period, raw_remaining, raw_reset, name = map(reply.headers.get, _RATE_LIMIT)
    limit = _count(raw_limit) or None
    period = _seconds(raw_period)
    if period is not None and not 0 < period <= _DAY:
        period = None
    remaining = _count(raw_remaining)
    reset = _seconds(raw_reset)
    if reset is not None and reset > _DAY:
        reset = _until(reset, reply)
    if limit is None and period is None and remaining is None and reset is None and not name:
        return None
    return RateLimit(limit, period, remaining, reset, redact(name)[:_LONGEST_NAME] if name else None)


def parse_retry_after(reply: Reply) -> float | None:
    """Read `Retry-After`, seconds or an HTTP date, as seconds; `None` for junk and for what is over already."""
    raw = reply.headers.get("Retry-After")
    if not raw:
        return None
    seconds = _seconds(raw)
    if seconds is None:
        moment = _http_date(raw)
        seconds = None if moment is None else moment - _sent_at(reply)
    return seconds if seconds is not None and seconds > 0 else None


@lru_cache(maxsize=1024)
def _seconds(raw: str | None) -> float | None:
    values = _numbers(raw)
    return max(values) if values else None


@lru_cache(maxsize=1024)
def _count(raw: str | None) -> int | None:
    values = _numbers(raw)
    return int(min(values)) if values else None


def _numbers(raw: str | None) -> list[float]:
    parts = [part.strip() for part in raw.split(",")] if raw and len(raw) <= 200 else []
    return [float(part) for part in parts] if all(_NUMBER.fullmatch(part) for part in parts) else []


def _until(unix_time: float, reply: Reply) -> float | None:
    return _within_a_day(unix_time - _sent_at(reply))


def _within_a_day(seconds: float | None) -> float | None:
    return seconds if seconds is not None and 0 <= seconds <= _DAY else None


def _sent_at(reply: Reply) -> float:
    """Return the answer's own time, since its server's clock is what its other times are read against."""
    sent_at = _http_date(reply.headers.get("Date", ""))
    return reply.received if sent_at is None else sent_at


def _http_date(raw: str) -> float | None:
    try:
        moment = parsedate_to_datetime(raw)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
