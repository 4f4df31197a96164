"""The organization's list of tokens, and the service accounts among its users. Pure.

Sources: https://docs.datadoghq.com/api/latest/key-management/ and https://docs.datadoghq.com/api/latest/users/
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import attrs
from cattrs import ClassValidationError
from cattrs.gen import make_dict_structure_fn

from dd_sa_tokens._validation import LARGEST_PAGE, check_list_options
from dd_sa_tokens.errors import InvalidResponseError, NotFoundError
from dd_sa_tokens.models import AccessToken, ServiceAccount

from .codec import converter, included_leaks, structure_token
from .documents import Json, Page, decode_data, decode_page, member, mismatch, parse_document
from .hooks import first_fault, parse_moment
from .operations import ListOptions, Operation, Request, segment
from .responses import Response

PERSONAL_TYPE = "personal_access_tokens"


@attrs.frozen
class OtherRow:
    """A row of a list that is not what was asked for: a personal token, or a user who is a person.

    It is not decoded, but it counts: it moves other rows between pages.

    Attributes:
        id: Its ID.
        created_at: When it was made; `None` if that is not known.
    """

    id: str
    created_at: datetime | None


def list_organization_tokens(
    owner_ids: Sequence[str], options: ListOptions, number: int
) -> Request[Page[AccessToken | OtherRow]]:
    """Ask for a page of the organization's tokens, personal ones among them; pages count from 0.

    Args:
        owner_ids: Only tokens of these service accounts; empty for all.
        options: Which tokens, and how.
        number: The page's number.

    Raises:
        InvalidArgumentError: An option is invalid.
    """
    options.check(operation="list_organization_tokens")
    owners = [("filter[owned_by]", owner_id) for owner_id in owner_ids]
    return Request(_LIST_ORGANIZATION_TOKENS, f"/api/v2/personal_access_tokens{options.query(number, *owners)}")


def list_users(filter_: str | None, number: int) -> Request[Page[ServiceAccount | OtherRow]]:
    """Ask for a page of the users, service accounts among them; pages count from 0.

    Raises:
        InvalidArgumentError: The filter is invalid.
    """
    check_list_options(filter_, None, LARGEST_PAGE, operation="list_service_accounts")
    query: dict[str, str | int] = {"page[size]": LARGEST_PAGE, "page[number]": number}
    query |= {} if filter_ is None else {"filter": filter_}
    return Request(_LIST_USERS, f"/api/v2/users?{urlencode(query, quote_via=quote)}")


def get_user(service_account_id: str) -> Request[ServiceAccount]:
    """Ask for one user, who must be a service account.

    Raises:
        InvalidArgumentError: The ID is invalid.
    """
    path = f"/api/v2/users/{segment('service_account_id', service_account_id, _GET_USER)}"
    return Request(_GET_USER, path, service_account_id)


def _decode_organization_tokens(_request: object, response: Response) -> Page[AccessToken | OtherRow]:
    document = parse_document(response.body)
    leaks = included_leaks(document)

    def decode_row(resource: Json) -> AccessToken | OtherRow:
        if type(resource) is dict and resource.get("type") == PERSONAL_TYPE:
            return _other_row(resource)
        return structure_token(resource, leaks)

    return decode_page(document, response.date, decode_row)


def _decode_user_row(resource: Json) -> ServiceAccount | OtherRow:
    if type(resource) is not dict:
        raise mismatch("$", "an object", resource)
    attributes = member(resource, "$", "attributes")
    flag: Json = attributes.get("service_account")
    if flag is not None and type(flag) is not bool:
        raise mismatch("$.attributes.service_account", "a boolean", flag)
    if not flag:
        return _other_row(resource)
    try:
        return _account_from_flat({**attributes, "id": _id_of(resource)}, ServiceAccount)
    except ClassValidationError as group:
        name, reason = first_fault(group)
    raise InvalidResponseError(path=f"$.attributes.{name}", reason=reason)


def _decode_service_account(_request: object, response: Response) -> ServiceAccount:
    user = decode_data(parse_document(response.body), _decode_user_row)
    if isinstance(user, ServiceAccount):
        return user
    msg = "this user is a person, not a service account"
    raise NotFoundError(msg, status=404)


_account_from_flat = make_dict_structure_fn(ServiceAccount, converter)


def _other_row(resource: dict[str, Any]) -> OtherRow:
    attributes: Json = resource.get("attributes")
    created_at = attributes.get("created_at") if type(attributes) is dict else None
    return OtherRow(_id_of(resource), parse_moment(created_at))


def _id_of(resource: dict[str, Any]) -> str:
    row_id = resource.get("id")
    if type(row_id) is not str or not row_id:
        raise mismatch("$.id", "a string", row_id)
    return row_id


_SEE_ALL = "org_app_keys_read (user_app_keys shows one's own tokens only)"
_SEE_USERS = "user_access_read"

_LIST_ORGANIZATION_TOKENS = Operation(
    "list_organization_tokens",
    "GET",
    idempotent=True,
    decode=_decode_organization_tokens,
    permissions=_SEE_ALL,
    not_found="",
)
_LIST_USERS = Operation[Page[ServiceAccount | OtherRow]](
    "list_service_accounts",
    "GET",
    idempotent=True,
    decode=lambda _, response: decode_page(parse_document(response.body), response.date, _decode_user_row),
    permissions=_SEE_USERS,
    not_found="",
)
_GET_USER = Operation[ServiceAccount](
    "get_service_account",
    "GET",
    idempotent=True,
    decode=_decode_service_account,
    permissions=_SEE_USERS,
    not_found="service account",
)
