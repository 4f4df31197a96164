"""What the API can do, as values: each operation, and the request that asks for it. Pure.

Source: https://docs.datadoghq.com/api/latest/service-accounts/
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import attrs

from dd_sa_tokens._validation import (
    LARGEST_PAGE,
    PLAIN_ID,
    check_flag,
    check_id,
    check_list_options,
    check_name,
    check_scopes,
)
from dd_sa_tokens.errors import InvalidArgumentError, InvalidResponseError, short_repr
from dd_sa_tokens.models import AccessToken, CreatedToken

from .codec import decode_created, decode_token, decode_tokens, encode_token
from .documents import Page, decode_nothing
from .responses import Response

T = TypeVar("T")

INCLUDE_LEAK = [("include", "leak_information")]
"""The part of a query that asks for what is known of leaks."""


@attrs.frozen
class Operation(Generic[T]):
    """One thing that the API can do.

    Attributes:
        name: The client's method. Errors, logs and the rate limiter know the operation by it.
        method: The HTTP method.
        idempotent: Whether it may be sent again although it may have been carried out (RFC 9110, section 9.2.2).
        decode: Makes the value of a 2xx answer; raises `InvalidResponseError`, or `NotFoundError` where the answer is
            about something else than what was asked for.
        permissions: The permissions that the keys need, for the text of a 403.
        not_found: What a 404 says there is none of.
        not_found_means_done: Whether the goal is that the resource is gone. A 404 to a retry then means success.
    """

    name: str
    method: str
    idempotent: bool
    decode: Callable[[Request[T], Response], T]
    permissions: str
    not_found: str
    not_found_means_done: bool = False

    @property
    def safe(self) -> bool:
        """Whether it changes nothing (RFC 9110, section 9.2.1), so that its outcome is never in doubt."""
        return self.method == "GET"


@attrs.define
class Request(Generic[T]):
    """An operation on something: all that has to be sent, except the host and the keys.

    Attributes:
        operation: What to do.
        path: The URL's path and query, percent-encoded, as they are sent.
        service_account_id: The service account that it is about, if it is about one.
        token_id: The token that it is about, if it is about one.
        body: JSON to send; `None` for none.
        how_to_verify: How to find out whether it was carried out where no answer tells. `{since}` stands for the time
            at which it was sent.
    """

    operation: Operation[T]
    path: str
    service_account_id: str | None = None
    token_id: str | None = None
    body: bytes | None = None
    how_to_verify: str = ""


def get_token(service_account_id: str, token_id: str, *, include_leak: bool = False) -> Request[AccessToken]:
    """Ask for one token, and for what is known of its leak if `include_leak`.

    Raises:
        InvalidArgumentError: An ID is invalid.
    """
    return token_getter(service_account_id, include_leak=include_leak)(token_id)


def token_getter(service_account_id: str, *, include_leak: bool = False) -> Callable[[str], Request[AccessToken]]:
    """Return `get_token` for many tokens of one service account, whose part of the path is made once.

    Raises:
        InvalidArgumentError: The ID is invalid.
    """
    check_flag("include_leak", include_leak, operation="get_token", service_account_id=service_account_id)
    query = f"?{urlencode(INCLUDE_LEAK)}" if include_leak else ""
    return partial(_get, service_account_id, _collection(_GET_TOKEN, service_account_id), query)


def _get(service_account_id: str, collection: str, query: str, token_id: str) -> Request[AccessToken]:
    path = f"{collection}/{segment('token_id', token_id, _GET_TOKEN, service_account_id)}{query}"
    return Request(_GET_TOKEN, path, service_account_id, token_id)


@attrs.frozen(kw_only=True)
class ListOptions:
    """Which tokens of a list are wanted, and how: the same for a service account's list and the organization's.

    Attributes:
        filter: Only tokens that match this text.
        sort: The order.
        leaked_only: Only tokens whose keys are known to be leaked.
        include_leak: Whether to ask for what is known of leaks.
        size: Tokens on a page.
    """

    filter: str | None = None
    sort: str | None = None
    leaked_only: bool = False
    include_leak: bool = False
    size: int = LARGEST_PAGE

    def check(self, **context: Any) -> None:
        """Refuse options that no list has.

        Raises:
            InvalidArgumentError: One is invalid; the text names it.
        """
        check_list_options(self.filter, self.sort, self.size, **context)
        check_flag("leaked_only", self.leaked_only, **context)
        check_flag("include_leak", self.include_leak, **context)

    def query(self, number: int, *more: tuple[str, str]) -> str:
        """Return the query of page number `number`, counted from 0."""
        pairs: list[tuple[str, str | int]] = [("page[size]", self.size), ("page[number]", number)]
        if self.sort is not None:
            pairs.append(("sort", self.sort))
        if self.filter is not None:
            pairs.append(("filter", self.filter))
        if self.leaked_only:
            pairs.append(("filter[leaked]", "true"))
        if self.include_leak:
            pairs += INCLUDE_LEAK
        return f"?{urlencode([*pairs, *more], quote_via=quote)}"


def list_tokens(service_account_id: str, options: ListOptions, number: int) -> Request[Page[AccessToken]]:
    """Ask for a page of a service account's tokens; pages count from 0.

    Raises:
        InvalidArgumentError: The ID, or an option, is invalid.
    """
    path = _collection(_LIST_TOKENS, service_account_id)
    options.check(operation="list_tokens", service_account_id=service_account_id)
    return Request(_LIST_TOKENS, path + options.query(number), service_account_id)


def create_token(
    service_account_id: str, *, name: str, scopes: Collection[str], expires_at: datetime | None
) -> Request[CreatedToken]:
    """Ask for a new token.

    Raises:
        InvalidArgumentError: The ID, the name or the scopes are invalid.
    """
    path = _collection(_CREATE_TOKEN, service_account_id)
    check_name(name, operation="create_token", service_account_id=service_account_id)
    given = check_scopes(scopes, operation="create_token", service_account_id=service_account_id)
    body = encode_token(name=name, scopes=given, expires_at=expires_at)
    look = f"look for a token created at {{since}} or later and named {short_repr(name)}"
    return Request(
        _CREATE_TOKEN, path, service_account_id, body=body, how_to_verify=f"{look} (list_tokens, sort='-created_at')"
    )


def update_token(
    service_account_id: str, token_id: str, *, name: str | None, scopes: Collection[str] | None
) -> Request[AccessToken]:
    """Ask for a change of a token's name, scopes or both.

    Raises:
        InvalidArgumentError: An ID, the name or the scopes are invalid, or there is nothing to change.
    """
    path = _resource(_UPDATE_TOKEN, service_account_id, token_id)
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
    given = None if scopes is None else check_scopes(scopes, **context)
    body = encode_token(token_id=token_id, name=name, scopes=given)
    how_to_verify = "get_token shows whether it was done: by a modified_at of {since} or later"
    return Request(_UPDATE_TOKEN, path, service_account_id, token_id, body, how_to_verify)


def revoke_token(service_account_id: str, token_id: str) -> Request[None]:
    """Ask for the end of a token.

    Raises:
        InvalidArgumentError: An ID is invalid.
    """
    path = _resource(_REVOKE_TOKEN, service_account_id, token_id)
    how_to_verify = "get_token shows whether it was done: it finds no revoked token"
    return Request(_REVOKE_TOKEN, path, service_account_id, token_id, how_to_verify=how_to_verify)


def _collection(operation: Operation[Any], service_account_id: str) -> str:
    account = segment("service_account_id", service_account_id, operation)
    return f"/api/v2/service_accounts/{account}/access_tokens"


def _resource(operation: Operation[Any], service_account_id: str, token_id: str) -> str:
    token = segment("token_id", token_id, operation, service_account_id)
    return f"{_collection(operation, service_account_id)}/{token}"


def segment(name: str, value: str, operation: Operation[Any], service_account_id: str | None = None) -> str:
    """Return a checked ID as one segment of a path."""
    if type(value) is str and PLAIN_ID.fullmatch(value):
        return value
    return quote(check_id(name, value, operation.name, service_account_id), safe="")


def _decode_same_token(request: Request[AccessToken], response: Response) -> AccessToken:
    token = decode_token(response.body)
    if token.id != request.token_id and token.id.lower() != (request.token_id or "").lower():
        raise InvalidResponseError(path="$.data.id", reason="another token than the one asked for")
    return token


# Source: https://docs.datadoghq.com/account_management/service-access-tokens/
_MAY_READ = "service_account_write (for service accounts that you manage) or org_app_keys_read (for all)"
_MAY_WRITE = "service_account_write (for service accounts that you manage) or org_app_keys_write (for all)"
_NO_TOKEN = "token or service account"  # noqa: S105 - a text, no secret
_NO_ACCOUNT = "service account"

_GET_TOKEN = Operation(
    "get_token", "GET", idempotent=True, decode=_decode_same_token, permissions=_MAY_READ, not_found=_NO_TOKEN
)
_LIST_TOKENS = Operation[Page[AccessToken]](
    "list_tokens",
    "GET",
    idempotent=True,
    decode=lambda _, response: decode_tokens(response.body, response.date),
    permissions=_MAY_READ,
    not_found=_NO_ACCOUNT,
)
_CREATE_TOKEN = Operation[CreatedToken](
    "create_token",
    "POST",
    idempotent=False,  # it has no idempotency key: sent twice, it makes two tokens
    decode=lambda _, response: decode_created(response.body),
    permissions=_MAY_WRITE,
    not_found=_NO_ACCOUNT,
)
_UPDATE_TOKEN = Operation(
    "update_token", "PATCH", idempotent=True, decode=_decode_same_token, permissions=_MAY_WRITE, not_found=_NO_TOKEN
)
_REVOKE_TOKEN = Operation[None](
    "revoke_token",
    "DELETE",
    idempotent=True,
    decode=lambda _, response: decode_nothing(response.body),
    permissions=_MAY_WRITE,
    not_found=_NO_TOKEN,
    not_found_means_done=True,
)
