"""Tokens as JSON:API resources, and back: the cattrs converter with its hooks. Pure.

Strict where a wrong value would mislead (a date that is no date), tolerant where the API may grow (unknown fields).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from sys import intern
from typing import Any

from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn

from dd_sa_tokens.errors import InvalidResponseError
from dd_sa_tokens.models import TOKEN_TYPE, AccessToken, CreatedToken, Secret

from .documents import Json, Page, decode_page, describe_mismatch, member, mismatch, parse_document

_PATHS = {
    "id": ".id",
    "type": ".type",
    "service_account_id": ".relationships.owned_by.data.id",
}


class _WrongValueError(ValueError):
    """A leaf of the JSON document is not what the API documents."""


def _expected(what: str, value: object) -> _WrongValueError:
    return _WrongValueError(describe_mismatch(what, value))


def _structure_str(value: object, _type: object) -> str:
    if type(value) is not str:
        raise _expected("a string", value)
    return value


def _structure_optional_str(value: object, _type: object) -> str | None:
    return None if value is None else _structure_str(value, str)


def _structure_optional_datetime(value: object, _type: object) -> datetime | None:
    if value is None:
        return None
    if type(value) is not str:
        raise _expected("an ISO 8601 date and time", value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        msg = "expected an ISO 8601 date and time with an offset, found another string"
        raise _WrongValueError(msg)
    return moment


def _structure_scopes(value: Json, _type: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if type(value) is not list:
        raise _expected("an array of strings", value)
    try:
        return tuple(map(intern, value))  # tokens share them, which saves a tenth of a kept token's memory
    except TypeError:  # from an item that is no str
        wrong = next(item for item in value if type(item) is not str)
    raise _expected("an array of strings, each item", wrong)


def _structure_token(resource: Json, path: str) -> AccessToken:
    if type(resource) is not dict:
        raise mismatch(path, "an object", resource)
    if not resource.get("id"):
        raise InvalidResponseError(path=f"{path}.id", reason="the token's ID is missing")
    kind = resource.get("type", TOKEN_TYPE)
    attributes = member(resource, path, "attributes")
    owner_id = member(resource, path, "relationships", "owned_by", "data").get("id")
    flat = {
        **attributes,
        "id": resource["id"],
        "type": TOKEN_TYPE if kind == TOKEN_TYPE else kind,
        "service_account_id": intern(owner_id) if type(owner_id) is str else owner_id,
    }
    try:
        return _from_flat(flat, AccessToken)
    except ClassValidationError as group:
        name, reason = _first_fault(group)
    raise InvalidResponseError(path=path + _PATHS.get(name, f".attributes.{name}"), reason=reason)


def _first_fault(group: ClassValidationError) -> tuple[str, str]:
    for error, note in group.group_exceptions()[0]:
        if isinstance(error, _WrongValueError):
            return note.name, str(error)
    raise group


def _iso(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    text = moment.isoformat()
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def _unstructure_token(token: AccessToken) -> dict[str, Any]:
    attributes: dict[str, Any] = {"expires_at": _iso(token.expires_at), "last_used_at": _iso(token.last_used_at)}
    optional = {
        "created_at": _iso(token.created_at),
        "modified_at": _iso(token.modified_at),
        "name": token.name,
        "public_portion": token.public_portion,
    }
    attributes |= {name: value for name, value in optional.items() if value is not None}
    attributes["scopes"] = list(token.scopes)
    resource: dict[str, Any] = {"id": token.id, "type": token.type, "attributes": attributes}
    if token.service_account_id is not None:
        owner = {"id": token.service_account_id, "type": "service_account"}
        resource["relationships"] = {"owned_by": {"data": owner}}
    return resource


def _make_converter() -> Converter:
    made = Converter()
    made.register_structure_hook(str, _structure_str)
    made.register_structure_hook(str | None, _structure_optional_str)
    made.register_structure_hook(datetime | None, _structure_optional_datetime)
    made.register_structure_hook_func(lambda cls: cls == tuple[str, ...], _structure_scopes)
    return made


converter: Converter = _make_converter()
"""The cattrs converter between `AccessToken` and the documented JSON:API resource object.

`converter.structure(resource, AccessToken)` raises `InvalidResponseError` with the JSON path of what is wrong;
`converter.unstructure(token)` gives the resource back.
"""

# cattrs writes this function for the flat model; the hook below lays the nested resource out flat for it.
_from_flat = make_dict_structure_fn(AccessToken, converter)
converter.register_structure_hook(AccessToken, lambda resource, _type: _structure_token(resource, "$"))
converter.register_unstructure_hook(AccessToken, _unstructure_token)


def decode_token(body: bytes) -> AccessToken:
    """Read the answer `{"data": token}`.

    Raises:
        InvalidResponseError: It is something else.
    """
    return _structure_token(parse_document(body).get("data"), "$.data")


def decode_tokens(body: bytes, date: float) -> Page[AccessToken]:
    """Read a page of tokens. `date`: when the server answered, in seconds since the epoch.

    Raises:
        InvalidResponseError: It is something else.
    """
    return decode_page(body, date, _structure_token)


def decode_created(body: bytes) -> CreatedToken:
    """Read the answer to a create: `{"data": token}`, whose attributes hold the `key`, too.

    Raises:
        InvalidResponseError: It is something else; with the new token's ID, if that can be read.
    """
    document = parse_document(body)
    resource: Json = document.get("data")
    try:
        return CreatedToken(_structure_token(resource, "$.data"), _key(document))
    except InvalidResponseError as error:
        # There is a token now, and the caller needs its ID to revoke it.
        token_id = resource.get("id") if type(resource) is dict else None
        error.token_id = token_id if type(token_id) is str and token_id else None
        raise


def _key(document: dict[str, Any]) -> Secret:
    key = member(document, "$", "data", "attributes").get("key")
    if type(key) is str and key:
        return Secret(key)
    reason = describe_mismatch("a string", key) if key else "the secret is missing"
    raise InvalidResponseError(path="$.data.attributes.key", reason=reason)


def encode_token(
    *,
    token_id: str | None = None,
    name: str | None = None,
    scopes: Iterable[str] | None = None,
    expires_at: datetime | None = None,
) -> bytes:
    """Write the body of a create or an update. What is not given is left out, not sent as null."""
    attributes: dict[str, Any] = {} if name is None else {"name": name}
    if scopes is not None:
        attributes["scopes"] = list(scopes)
    if expires_at is not None:
        attributes["expires_at"] = _iso(expires_at.astimezone(UTC))
    data = {"attributes": attributes} | ({} if token_id is None else {"id": token_id}) | {"type": TOKEN_TYPE}
    return json.dumps({"data": data}, ensure_ascii=False, separators=(",", ":")).encode()
