"""Tokens as JSON:API resources, and back: the cattrs converter with its hooks. Pure.

Strict where a wrong value would mislead (a date that is no date), tolerant where the API may grow (unknown fields).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from sys import intern
from typing import Any

import attrs
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from dd_sa_tokens.errors import InvalidResponseError
from dd_sa_tokens.models import LEAK_TYPE, TOKEN_TYPE, AccessToken, CreatedToken, Leak, Secret

from .documents import Json, Page, decode_data, decode_page, describe_mismatch, member, mismatch, parse_document
from .hooks import first_fault, make_converter, parse_moment, structure_optional_datetime, structure_scopes

_PATHS = {
    "id": ".id",
    "type": ".type",
    "service_account_id": ".relationships.owned_by.data.id",
}


Leaks = Mapping[str, Leak]
"""The leaks that a document includes, by their IDs."""

_NO_LEAKS: Leaks = {}


def structure_token(resource: Any, leaks: Leaks = _NO_LEAKS) -> AccessToken:
    """Make a token of a resource.

    A resource of the documented shape takes a fast path, with the same effect in a third of the time. It makes the
    checks of `_structure_any`, to which it leaves a resource that fails one: that says where the fault is.

    Args:
        resource: The resource.
        leaks: What the document includes of leaks.

    Raises:
        InvalidResponseError: The resource is not what the API documents. The path begins at the resource.
    """
    try:
        attributes, relationships = resource["attributes"], resource["relationships"]
        owned_by, optional = relationships["owned_by"], attributes.get
        owner, token_id = owned_by["data"], resource["id"]
        name, public_portion = attributes["name"], attributes["public_portion"]
        if (
            type(resource) is type(attributes) is type(relationships) is type(owned_by) is type(owner) is dict
            and type(token_id) is type(name) is type(public_portion) is str
            and token_id
            and resource["type"] == TOKEN_TYPE
        ):
            return _make_token(
                token_id,
                name,
                public_portion,
                structure_scopes(optional("scopes")),
                structure_optional_datetime(optional("created_at")),
                structure_optional_datetime(optional("modified_at")),
                structure_optional_datetime(optional("last_used_at")),
                structure_optional_datetime(optional("expires_at")),
                intern(owner["id"]),
                None if relationships.get("leak_information") is None else _leak(resource, leaks),
            )
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return _structure_any(resource, leaks)


def _setter(field: str) -> Callable[[AccessToken, Any], None]:
    """Return what sets a field of a token, which is frozen and has slots."""
    setter: Callable[[AccessToken, Any], None] = getattr(AccessToken, field).__set__
    return setter


# One for each field: `_make_token` must set all of them.
_set_id = _setter("id")
_set_name = _setter("name")
_set_public_portion = _setter("public_portion")
_set_scopes = _setter("scopes")
_set_created_at = _setter("created_at")
_set_modified_at = _setter("modified_at")
_set_last_used_at = _setter("last_used_at")
_set_expires_at = _setter("expires_at")
_set_service_account_id = _setter("service_account_id")
_set_type = _setter("type")
_set_leak = _setter("leak")


def _make_token(  # noqa: PLR0917 - by keyword it would be slower
    token_id: str,
    name: str,
    public_portion: str,
    scopes: tuple[str, ...],
    created_at: datetime | None,
    modified_at: datetime | None,
    last_used_at: datetime | None,
    expires_at: datetime | None,
    service_account_id: str,
    leak: Leak | None,
) -> AccessToken:
    """Make a token of checked values. The class itself would check them again, which takes three times as long."""
    token = object.__new__(AccessToken)
    _set_id(token, token_id)
    _set_name(token, name)
    _set_public_portion(token, public_portion)
    _set_scopes(token, scopes)
    _set_created_at(token, created_at)
    _set_modified_at(token, modified_at)
    _set_last_used_at(token, last_used_at)
    _set_expires_at(token, expires_at)
    _set_service_account_id(token, service_account_id)
    _set_type(token, TOKEN_TYPE)
    _set_leak(token, leak)
    return token


def _structure_any(resource: Json, leaks: Leaks) -> AccessToken:
    """Make a token of any resource that the API may send; cattrs says where it is wrong."""
    if type(resource) is not dict:
        raise mismatch("$", "an object", resource)
    if not resource.get("id"):
        raise InvalidResponseError(path="$.id", reason="the token's ID is missing")
    kind = resource.get("type", TOKEN_TYPE)
    attributes = member(resource, "$", "attributes")
    owner_id = member(resource, "$", "relationships", "owned_by", "data").get("id")
    flat = {
        **attributes,
        "id": resource["id"],
        "type": TOKEN_TYPE if kind == TOKEN_TYPE else kind,
        "service_account_id": intern(owner_id) if type(owner_id) is str else owner_id,
    }
    try:
        token = _from_flat(flat, AccessToken)
    except ClassValidationError as group:
        name, reason = first_fault(group)
    else:
        relationships = resource.get("relationships")
        if relationships is None or relationships.get("leak_information") is None:
            return token
        return attrs.evolve(token, leak=_leak(resource, leaks))
    raise InvalidResponseError(path="$" + _PATHS.get(name, f".attributes.{name}"), reason=reason)


def _leak(resource: dict[str, Any], leaks: Leaks) -> Leak | None:
    """Return the leak that a token names, with what the document includes of it."""
    relationship = member(resource, "$", "relationships", "leak_information")
    if relationship.get("data") is None:
        return None
    leak_id = member(relationship, "$.relationships.leak_information", "data").get("id")
    if type(leak_id) is not str or not leak_id:
        raise mismatch("$.relationships.leak_information.data.id", "a string", leak_id)
    return leaks.get(leak_id) or Leak(leak_id)


def included_leaks(document: dict[str, Any]) -> Leaks:
    """Read the leaks that a document includes. Malformed ones are left out: the token itself names its leak."""
    included: Json = document.get("included")
    if type(included) is not list:
        return _NO_LEAKS
    leaks: dict[str, Leak] = {}
    resources: list[Json] = included
    for resource in resources:
        leak = _included_leak(resource)
        if leak is not None:
            leaks[leak.id] = leak
    return leaks


def _included_leak(resource: Json) -> Leak | None:
    if type(resource) is not dict or resource.get("type") != LEAK_TYPE:
        return None
    leak_id: Json = resource.get("id")
    attributes: Json = resource.get("attributes")
    known: dict[str, Any] = attributes if type(attributes) is dict else {}
    source: Json = known.get("leak_source")
    if type(leak_id) is not str:
        return None
    return Leak(leak_id, parse_moment(known.get("date")), source if type(source) is str else None)


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
    relationships: dict[str, Any] = {}
    if token.service_account_id is not None:
        relationships["owned_by"] = {"data": {"id": token.service_account_id, "type": "service_account"}}
    if token.leak is not None:
        relationships["leak_information"] = {"data": {"id": token.leak.id, "type": LEAK_TYPE}}
    return resource | ({"relationships": relationships} if relationships else {})


converter: Converter = make_converter()
"""The cattrs converter between `AccessToken` and the documented JSON:API resource object.

`converter.structure(resource, AccessToken)` raises `InvalidResponseError` with the JSON path of what is wrong;
`converter.unstructure(token)` gives the resource back. What is known of a leak beyond its ID is not in the resource.
"""

# cattrs writes this function for the flat model; the hook below lays the nested resource out flat for it.
_from_flat = make_dict_structure_fn(AccessToken, converter, leak=override(omit=True))
converter.register_structure_hook(AccessToken, lambda resource, _type: structure_token(resource))
converter.register_unstructure_hook(AccessToken, _unstructure_token)


def decode_token(body: bytes) -> AccessToken:
    """Read the answer `{"data": token}`.

    Raises:
        InvalidResponseError: It is something else.
    """
    document = parse_document(body)
    leaks = included_leaks(document) if "included" in document else _NO_LEAKS
    return decode_data(document, partial(structure_token, leaks=leaks) if leaks else structure_token)


def decode_tokens(body: bytes, date: float) -> Page[AccessToken]:
    """Read a page of tokens. `date`: when the server answered, in seconds since the epoch.

    Raises:
        InvalidResponseError: It is something else.
    """
    document = parse_document(body)
    leaks = included_leaks(document)
    return decode_page(document, date, partial(structure_token, leaks=leaks) if leaks else structure_token)


def decode_created(body: bytes) -> CreatedToken:
    """Read the answer to a create: `{"data": token}`, whose attributes hold the `key`, too.

    Raises:
        InvalidResponseError: It is something else; with the new token's ID, if that can be read.
    """
    document = parse_document(body)
    resource: Json = document.get("data")
    try:
        return CreatedToken(decode_data(document, structure_token), _key(document))
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
    scopes: Sequence[str] | None = None,
    expires_at: datetime | None = None,
) -> bytes:
    """Write the body of a create or an update. What is not given is left out, not sent as null."""
    attributes: dict[str, Any] = {} if name is None else {"name": name}
    if scopes is not None:
        attributes["scopes"] = scopes
    if expires_at is not None:
        attributes["expires_at"] = _iso(expires_at.astimezone(UTC))
    data = {"attributes": attributes} | ({} if token_id is None else {"id": token_id}) | {"type": TOKEN_TYPE}
    return json.dumps({"data": data}, ensure_ascii=False, separators=(",", ":")).encode()
