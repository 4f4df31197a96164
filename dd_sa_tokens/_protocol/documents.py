"""JSON:API documents: bytes to plain values, with the JSON path of what is wrong. Pure.

What was found is never quoted in an error: in a wrong place it may be anything, a key included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs

from dd_sa_tokens.errors import InvalidResponseError

T = TypeVar("T")

Json = dict[str, Any] | list[Any] | str | float | bool | None

_BOM = b"\xef\xbb\xbf"  # some proxies put a byte order mark before JSON

_JSON_TYPES: dict[type[object], str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


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


_loads: Callable[[bytes], Json]
try:
    from orjson import loads as _loads
except ImportError:
    _loads = _loads_strictly


def describe_mismatch(what: str, value: object) -> str:
    """Return what was expected and which JSON type was found instead, as text."""
    return f"expected {what}, found {_JSON_TYPES.get(type(value), type(value).__name__)}"


def mismatch(path: str, what: str, value: object) -> InvalidResponseError:
    """Return the error for a value of a wrong type at a JSON path."""
    return InvalidResponseError(path=path, reason=describe_mismatch(what, value))


def parse_document(body: bytes) -> dict[str, Any]:
    """Read a body as a JSON object.

    Raises:
        InvalidResponseError: It is something else.
    """
    document: Json = None
    try:
        document = _loads(body.removeprefix(_BOM) if body[:1] == _BOM[:1] else body)
    except (ValueError, RecursionError):
        reason = _describe_non_json(body)
    else:
        if type(document) is dict:
            return document
        reason = describe_mismatch("an object", document)
    raise InvalidResponseError(reason=reason)


def _describe_non_json(body: bytes) -> str:
    """Return what a body that cannot be parsed looks like, without quoting it."""
    start = body.removeprefix(_BOM).lstrip()[:1]
    if not start:
        return "the body is empty"
    if start == b"<":
        return "the body is not JSON; it looks like HTML or XML, such as the page of a proxy"
    if start in {b"{", b"["}:
        return "the body is not JSON; it looks like JSON that was cut short or garbled"
    return "the body is not JSON"


def member(parent: dict[str, Any], path: str, *names: str) -> dict[str, Any]:
    """Return an object inside an object, by the names on the way; an empty one where a step is missing or null.

    Raises:
        InvalidResponseError: A step on the way is no object.
    """
    for name in names:
        inner: Json = parent.get(name)
        if type(inner) is not dict:
            if inner is None:
                return {}
            raise mismatch(".".join((path, *names[: names.index(name) + 1])), "an object", inner)
        parent = inner
    return parent


@attrs.frozen
class Page(Generic[T]):
    """A page of a list.

    Attributes:
        items: What is on it.
        total: How many there are on all pages together; `None` where the answer does not say.
        date: When the server answered, by its own clock, in seconds since the epoch.
    """

    items: tuple[T, ...]
    total: int | None
    date: float = 0.0


def decode_data(document: dict[str, Any], decode_item: Callable[[Json], T]) -> T:
    """Read the answer `{"data": resource}`.

    Args:
        document: The answer's document.
        decode_item: Makes an item of a resource. The path of its `InvalidResponseError` begins at the resource.

    Raises:
        InvalidResponseError: The document is something else.
    """
    try:
        return decode_item(document.get("data"))
    except InvalidResponseError as error:
        inner = error
    raise _inside("$.data", inner)


def decode_page(document: dict[str, Any], date: float, decode_item: Callable[[Json], T]) -> Page[T]:
    """Read the answer `{"data": [resource, ...], "meta": {"page": {"total_filtered_count": n}}}`.

    Args:
        document: The answer's document.
        date: When the server answered, in seconds since the epoch.
        decode_item: As for `decode_data`.

    Raises:
        InvalidResponseError: The document is something else.
    """
    data: Json = document.get("data")
    if type(data) is not list:
        raise mismatch("$.data", "an array", data)
    items: list[T] = []
    inner: InvalidResponseError | None = None
    try:
        for resource in data:
            items.append(decode_item(resource))  # noqa: PERF401 - their number is the place of one that is wrong
    except InvalidResponseError as error:
        inner = error
    if inner is not None:
        raise _inside(f"$.data[{len(items)}]", inner)
    total = member(document, "$", "meta", "page").get("total_filtered_count")
    if total is not None and (type(total) is not int or not 0 <= total < 2**64):  # the range of orjson's numbers
        raise mismatch("$.meta.page.total_filtered_count", "a whole number of at least 0", total)
    return Page(tuple(items), total, date)


def _inside(path: str, inner: InvalidResponseError) -> InvalidResponseError:
    """Return the error of a resource with the path from the document's root."""
    return InvalidResponseError(path=path + inner.path.removeprefix("$"), reason=inner.reason)


def decode_nothing(body: bytes) -> None:
    """Read the answer to a revoke: nothing, or an object without meaning. A proxy's page must not pass for that.

    Raises:
        InvalidResponseError: It is something else.
    """
    if body.strip():
        parse_document(body)


def decode_errors(body: bytes) -> tuple[str, ...]:
    """Read the API's own words from an error's body; none where the body, such as a proxy's HTML page, has none."""
    try:
        errors: Json = parse_document(body).get("errors")
    except InvalidResponseError:
        return ()
    return tuple(item for item in errors if isinstance(item, str)) if isinstance(errors, list) else ()
