"""Tokens as JSON:API resources, and back: the cattrs converter with its hooks. Pure.

Strict where a wrong value would mislead (a date that is no date), tolerant where the API may grow (unknown fields).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from sys import intern
from typing import Any

import attrs
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from dd_sa_tokens.errors import InvalidResponseError
from dd_sa_tokens.models import LEAK_TYPE, TOKEN_TYPE, AccessToken, CreatedToken, Leak, Secret

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


def _structure_optional_bool(value: object, _type: object) -> bool | None:
    if value is not None and type(value) is not bool:
        raise _expected("a boolean", value)
    return value


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


Leaks = Mapping[str, Leak]
"""The leaks that a document includes, by their IDs."""

_NO_LEAKS: Leaks = {}


def structure_token(resource: Json, path: str, leaks: Leaks = _NO_LEAKS) -> AccessToken:
    """Make a token of a resource.

    Args:
        resource: The resource.
        path: Its JSON path, for errors.
        leaks: What the document includes of leaks.

    Raises:
        InvalidResponseError: The resource is not what the API documents.
    """
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
        token = _from_flat(flat, AccessToken)
    except ClassValidationError as group:
        name, reason = first_fault(group)
    else:
        relationships = resource.get("relationships")
        if relationships is None or relationships.get("leak_information") is None:
            return token
        return attrs.evolve(token, leak=_leak(resource, path, leaks))
    raise InvalidResponseError(path=path + _PATHS.get(name, f".attributes.{name}"), reason=reason)


def _leak(resource: dict[str, Any], path: str, leaks: Leaks) -> Leak | None:
    """Return the leak that a token names, with what the document includes of it."""
    relationship = member(resource, path, "relationships", "leak_information")
    if relationship.get("data") is None:
        return None
    leak_id = member(relationship, f"{path}.relationships.leak_information", "data").get("id")
    if type(leak_id) is not str or not leak_id:
        raise mismatch(f"{path}.relationships.leak_information.data.id", "a string", leak_id)
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


def parse_moment(value: object) -> datetime | None:
    """Return an ISO 8601 date and time with an offset as a datetime; `None` for any other value."""
    try:
        return _structure_optional_datetime(value, datetime)
    except _WrongValueError:
        return None


def first_fault(group: ClassValidationError) -> tuple[str, str]:
    """Return the first attribute that is wrong, and the reason."""
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
    relationships: dict[str, Any] = {}
    if token.service_account_id is not None:
        relationships["owned_by"] = {"data": {"id": token.service_account_id, "type": "service_account"}}
    if token.leak is not None:
        relationships["leak_information"] = {"data": {"id": token.leak.id, "type": LEAK_TYPE}}
    return resource | ({"relationships": relationships} if relationships else {})


def _make_converter() -> Converter:
    made = Converter()
    made.register_structure_hook(str, _structure_str)
    made.register_structure_hook(str | None, _structure_optional_str)
    made.register_structure_hook(datetime | None, _structure_optional_datetime)
    made.register_structure_hook_func(lambda cls: cls == tuple[str, ...], _structure_scopes)
    made.register_structure_hook(bool | None, _structure_optional_bool)
    return made


converter: Converter = _make_converter()
"""The cattrs converter between `AccessToken` and the documented JSON:API resource object.

`converter.structure(resource, AccessToken)` raises `InvalidResponseError` with the JSON path of what is wrong;
`converter.unstructure(token)` gives the resource back. What is known of a leak beyond its ID is not in the resource.
"""

# cattrs writes this function for the flat model; the hook below lays the nested resource out flat for it.
_from_flat = make_dict_structure_fn(AccessToken, converter, leak=override(omit=True))
converter.register_structure_hook(AccessToken, lambda resource, _type: structure_token(resource, "$"))
converter.register_unstructure_hook(AccessToken, _unstructure_token)


def decode_token(body: bytes) -> AccessToken:
    """Read the answer `{"data": token}`.

    Raises:
        InvalidResponseError: It is something else.
    """
    document = parse_document(body)
    leaks = included_leaks(document) if "included" in document else _NO_LEAKS
    return structure_token(document.get("data"), "$.data", leaks)


def decode_tokens(body: bytes, date: float) -> Page[AccessToken]:
    """Read a page of tokens. `date`: when the server answered, in seconds since the epoch.

    Raises:
        InvalidResponseError: It is something else.
    """
    document = parse_document(body)
    leaks = included_leaks(document)
    return decode_page(document, date, lambda resource, path: structure_token(resource, path, leaks))


def decode_created(body: bytes) -> CreatedToken:
    """Read the answer to a create: `{"data": token}`, whose attributes hold the `key`, too.

    Raises:
        InvalidResponseError: It is something else; with the new token's ID, if that can be read.
    """
    document = parse_document(body)
    resource: Json = document.get("data")
    try:
        return CreatedToken(structure_token(resource, "$.data"), _key(document))
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
