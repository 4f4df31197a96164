"""Bytes to models and back: JSON, and the cattrs converter with its hooks.

Strict where a wrong value would mislead (a date that is no date), tolerant where the API may grow (unknown fields).
What was found is never quoted in an error: in a wrong place it may be anything, a key included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from sys import intern
from typing import Any

import attrs
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn

from .errors import InvalidResponseError
from .models import TOKEN_TYPE, AccessToken, CreatedToken, Secret


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number)


def _loads_strictly(body: bytes) -> Any:
    text = body.decode()
    value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    if "\\ud" in text.lower():
        # Half of a surrogate pair is no text: orjson refuses it, and it could not be printed or stored later.
        json.dumps(value, ensure_ascii=False).encode()
    return value


_Json = dict[str, Any] | list[Any] | str | float | bool | None

_loads: Callable[[bytes], _Json]
try:
    from orjson import loads as _loads
except ImportError:
    _loads = _loads_strictly

_JSON_TYPES: dict[type[object], str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}

_PATHS = {
    "id": ".id",
    "type": ".type",
    "service_account_id": ".relationships.owned_by.data.id",
}


class _WrongValueError(ValueError):
    """A leaf of the JSON document is not what the API documents."""


def _expected(what: str, value: object) -> _WrongValueError:
    return _WrongValueError(f"expected {what}, found {_JSON_TYPES.get(type(value), type(value).__name__)}")


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


def _structure_scopes(value: _Json, _type: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if type(value) is not list:
        raise _expected("an array of strings", value)
    try:
        return tuple(map(intern, value))  # tokens share them: a tenth of a kept token's memory
    except TypeError:  # from what is no str
        wrong = next(item for item in value if type(item) is not str)
    raise _expected("an array of strings, each item", wrong)


def _member(parent: dict[str, Any], path: str, *names: str) -> dict[str, Any]:
    """Return an object inside an object, however deep; an empty one where a step on the way is missing or null."""
    for name in names:
        inner: _Json = parent.get(name)
        if type(inner) is not dict:
            if inner is None:
                return {}
            way = ".".join((path, *names[: names.index(name) + 1]))
            raise InvalidResponseError(path=way, reason=str(_expected("an object", inner)))
        parent = inner
    return parent


def _structure_token(resource: _Json, path: str) -> AccessToken:
    if type(resource) is not dict:
        raise InvalidResponseError(path=path, reason=str(_expected("an object", resource)))
    if not resource.get("id"):
        raise InvalidResponseError(path=f"{path}.id", reason="the token's ID is missing")
    kind = resource.get("type", TOKEN_TYPE)
    attributes = _member(resource, path, "attributes")
    owner_id = _member(resource, path, "relationships", "owned_by", "data").get("id")
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


converter = _make_converter()
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
    return _structure_token(_envelope(body).get("data"), "$.data")


@attrs.frozen
class Page:
    """A page of a list.

    Attributes:
        tokens: The tokens on it.
        total: How many there are on all pages together; `None` where the answer does not say.
    """

    tokens: tuple[AccessToken, ...]
    total: int | None


def decode_page(body: bytes) -> Page:
    """Read the answer `{"data": [token, ...], "meta": {"page": {"total_filtered_count": n}}}`.

    Raises:
        InvalidResponseError: It is something else.
    """
    document = _envelope(body)
    data: _Json = document.get("data")
    if type(data) is not list:
        raise InvalidResponseError(path="$.data", reason=str(_expected("an array", data)))
    tokens = tuple(_structure_token(resource, f"$.data[{place}]") for place, resource in enumerate(data))
    total = _member(document, "$", "meta", "page").get("total_filtered_count")
    if total is not None and (type(total) is not int or not 0 <= total < 2**64):  # what orjson takes for one
        reason = str(_expected("a whole number of at least 0", total))
        raise InvalidResponseError(path="$.meta.page.total_filtered_count", reason=reason)
    return Page(tokens, total)


def decode_created(body: bytes) -> CreatedToken:
    """Read the answer to a create: `{"data": token}`, whose attributes hold the `key`, too.

    Raises:
        InvalidResponseError: It is something else; with the new token's ID, if that can be read.
    """
    document = _envelope(body)
    resource: _Json = document.get("data")
    try:
        return CreatedToken(_structure_token(resource, "$.data"), _key(document))
    except InvalidResponseError as error:
        # There is a token now, which somebody has to revoke.
        token_id = resource.get("id") if type(resource) is dict else None
        error.token_id = token_id if type(token_id) is str and token_id else None
        raise


def _key(document: dict[str, Any]) -> Secret:
    key = _member(document, "$", "data", "attributes").get("key")
    if type(key) is str and key:
        return Secret(key)
    reason = str(_expected("a string", key)) if key else "the secret is missing"
    raise InvalidResponseError(path="$.data.attributes.key", reason=reason)


def decode_nothing(body: bytes) -> None:
    """Read the answer to a revoke: nothing, or an object that nobody needs. A proxy's page must not pass for that.

    Raises:
        InvalidResponseError: It is something else.
    """
    if body.strip():
        _envelope(body)


def encode_token(
    *,
    token_id: str | None = None,
    name: str | None = None,
    scopes: Iterable[str] | None = None,
    expires_at: datetime | None = None,
) -> bytes:
    """Write the body of a create or an update: what is not given is left out, not sent as null."""
    attributes: dict[str, Any] = {} if name is None else {"name": name}
    if scopes is not None:
        attributes["scopes"] = list(scopes)
    if expires_at is not None:
        attributes["expires_at"] = _iso(expires_at.astimezone(UTC))
    data = {"attributes": attributes} | ({} if token_id is None else {"id": token_id}) | {"type": TOKEN_TYPE}
    return json.dumps({"data": data}, ensure_ascii=False, separators=(",", ":")).encode()


def decode_errors(body: bytes) -> tuple[str, ...]:
    """Read the API's own words from an error's body; none where the body (a proxy's HTML page, say) has none."""
    try:
        errors: _Json = _envelope(body).get("errors")
    except InvalidResponseError:
        return ()
    return tuple(item for item in errors if isinstance(item, str)) if isinstance(errors, list) else ()


def _envelope(body: bytes) -> dict[str, Any]:
    document: _Json = None
    try:
        document = _loads(body)
    except (ValueError, RecursionError):
        reason = "the body is not JSON" if body else "the body is empty"
    else:
        if type(document) is dict:
            return document
        reason = str(_expected("an object", document))
    raise InvalidResponseError(reason=reason)
