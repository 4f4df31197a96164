"""One set of checks for all that users pass in: to the client, to `FakeDatadog` and to audits.

Each check raises before anything is sent. Its text names the argument and says what would be right. `context` is what
the error says the call was about.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, cast, get_args
from uuid import UUID

from .errors import ConfigurationError, InvalidArgumentError, short_repr

Sort = Literal[
    "name",
    "-name",
    "created_at",
    "-created_at",
    "expires_at",
    "-expires_at",
    "last_used_at",
    "-last_used_at",
    "leaked",
    "-leaked",
]
"""An order in which the API can list tokens; a leading `-` reverses it."""

Strategy = Literal["auto", "get", "list"]
"""How a bulk fetch spends as few requests as possible; see `TokensClient.get_tokens`."""

MOST_OWNERS = 50
"""Most owners that one request for a list names: each takes 50 characters of the URL."""

LARGEST_PAGE = 100
"""Most items that the API puts on one page of a list."""

_LONGEST_ID = 256
LONGEST_TIME = 1e9
"""Seconds that any time may last: thirty years."""

PLAIN_ID = re.compile(f"[0-9A-Za-z_-]{{1,{_LONGEST_ID}}}")
"""The form of the API's own IDs, which need no further check and no encoding."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")  # they would end up in logs and terminals
_UUID_FORM = re.compile("[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_UNSENDABLE = re.compile("[\ud800-\udfff]")
_WITHOUT_HALVES = "without half of a surrogate pair, which has no UTF-8 form"


def check(name: str, fits: object, what: str, value: object) -> None:
    """Refuse an argument that does not fit.

    Raises:
        InvalidArgumentError: `fits` is false.
    """
    if not fits:
        msg = f"{name} must be {what}, not {short_repr(value)}"
        raise InvalidArgumentError(msg)


def is_whole(value: Any, least: int = 0) -> bool:
    """Return whether a value is a whole number of at least `least`; a `bool` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_seconds(value: Any, least: float = 0.0) -> bool:
    """Return whether a value is a number of seconds from `least` to `LONGEST_TIME`; a `bool` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= LONGEST_TIME


def is_span(value: Any) -> bool:
    """Return whether a value is a `timedelta` of at least 0."""
    return isinstance(value, timedelta) and value >= timedelta()


def check_number(name: str, value: object, *, above: bool = False, below: float = LONGEST_TIME) -> None:
    """Refuse an option that is no number in range.

    Raises:
        ConfigurationError: The value is no number, is below 0 (or equal to it if `above`), or not under `below`.
    """
    fits = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (value > 0 if above else value >= 0)
        and value < below
    )
    if not fits:
        limits = f"{'above' if above else 'of at least'} 0 and below {below:g}"
        msg = f"{name} must be a number {limits}, not {short_repr(value)}"
        raise ConfigurationError(msg)


def check_count(name: str, value: object) -> None:
    """Refuse an option that is no whole number of at least 1.

    Raises:
        ConfigurationError: It is not.
    """
    if not is_whole(value, 1):
        msg = f"{name} must be a whole number of at least 1, not {short_repr(value)}"
        raise ConfigurationError(msg)


def read_collection(values: object) -> list[object] | None:
    """Return the values of a collection; `None` if it is none, such as a text, which is a single value.

    The values are read once, and nothing else is asked of the collection: a cursor is empty when it is read again, and
    an array has no truth value.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Collection):
        return None
    return list(iter(cast("Collection[object]", values)))


def underlying_function(callback: Callable[..., object]) -> Any:
    """Return the function that a callable runs: inside a `partial`, or the `__call__` of an object."""
    function: Any = callback
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    if not inspect.isroutine(function):
        function = getattr(function, "__call__", function)  # noqa: B004 - its kind is wanted, not whether it has one
    return function


def check_id(name: str, value: object, operation: str, service_account_id: str | None = None) -> str:
    """Return an ID that can be sent as one path segment.

    Raises:
        InvalidArgumentError: It is no `str`, empty, longer than 256 characters, has control characters or half of a
            surrogate pair, or is `.` or `..`, which every HTTP client and proxy takes for another path.
    """
    if not isinstance(value, str):
        msg = f"{name} must be a str or a uuid.UUID, not {type(value).__name__}"
    elif not value:
        msg = f"{name} must not be empty"
    elif len(value) > _LONGEST_ID:
        msg = f"{name} must have at most {_LONGEST_ID} characters, not {len(value)}"
    elif _UNSENDABLE.search(value):
        msg = f"{name} must be a str {_WITHOUT_HALVES}, not {short_repr(value)}"
    elif _CONTROLS.search(value):
        msg = f"{name} must not contain control characters: {short_repr(value)}"
    elif value in {".", ".."}:
        msg = f"{name} must not be {value!r}: as a path segment it names another path"
    else:
        return value
    context: dict[str, Any] = {"service_account_id": service_account_id}
    if isinstance(value, str):
        context[name] = value
    raise InvalidArgumentError(msg, operation=operation, **context)


def as_id(value: object) -> object:
    """Return a `uuid.UUID` as its text, and anything else as it is: it is checked later."""
    return str(value) if isinstance(value, UUID) else value


def check_owner_ids(service_account_ids: object, operation: str) -> list[str]:
    """Return the IDs of service accounts, each once.

    Raises:
        InvalidArgumentError: It is no collection, a single `str`, or holds an invalid ID.
    """
    values = read_collection(service_account_ids)
    if values is None:
        msg = f"service_account_ids must be a collection of IDs, not {short_repr(service_account_ids)}"
        raise InvalidArgumentError(msg, operation=operation)
    ids = [check_id("service_account_id", as_id(value), operation) for value in values]
    return unique_ids(ids)


def canonical_id(value: str) -> str:
    """Return the form of an ID by which it is compared: the API compares UUIDs without regard to case."""
    lower = value.lower()
    return value if value == lower or not _UUID_FORM.fullmatch(value) else lower


def unique_ids(values: Iterable[str]) -> list[str]:
    """Return IDs in their order, each once."""
    return list({canonical_id(value): value for value in values}.values())


def check_flag(name: str, value: object, **context: Any) -> None:
    """Refuse an option that is no `bool`.

    Raises:
        InvalidArgumentError: It is not.
    """
    if not isinstance(value, bool):
        msg = f"{name} must be True or False, not {short_repr(value)}"
        raise InvalidArgumentError(msg, **context)


def check_strategy(strategy: object, **context: Any) -> None:
    """Refuse an unknown strategy of a bulk fetch.

    Raises:
        InvalidArgumentError: It is not one of `"auto"`, `"get"` and `"list"`.
    """
    if strategy not in get_args(Strategy):
        msg = f"strategy must be {_one_of(Strategy)}, not {short_repr(strategy)}"
        raise InvalidArgumentError(msg, **context)


def check_deadline(deadline: object, **context: Any) -> None:
    """Refuse a deadline that is no number of seconds.

    Raises:
        InvalidArgumentError: It is neither `None` nor a finite number above 0.
    """
    if deadline is not None and not (is_seconds(deadline) and deadline):
        msg = f"deadline must be a number of seconds above 0 and finite, or None, not {short_repr(deadline)}"
        raise InvalidArgumentError(msg, **context)


def check_list_options(filter_: object, sort: object, page_size: object, **context: Any) -> None:
    """Refuse options that no list of tokens has.

    Raises:
        InvalidArgumentError: The filter is no `str`, the sort is unknown, or the page size is not 1 to 100.
    """
    if filter_ is not None and not isinstance(filter_, str):
        msg = f"filter must be a str, not {short_repr(filter_)}"
    elif filter_ is not None and _UNSENDABLE.search(filter_):
        msg = f"filter must be a str {_WITHOUT_HALVES}, not {short_repr(filter_)}"
    elif sort is not None and sort not in get_args(Sort):
        msg = f"sort must be {_one_of(Sort)}, not {short_repr(sort)}"
    elif not is_whole(page_size, 1) or cast("int", page_size) > LARGEST_PAGE:
        msg = f"page_size must be a whole number from 1 to {LARGEST_PAGE}, not {short_repr(page_size)}"
    else:
        return
    raise InvalidArgumentError(msg, **context)


def check_name(name: object, **context: Any) -> None:
    """Refuse a value that cannot be a token's name.

    Raises:
        InvalidArgumentError: It is no `str`, empty, or has half of a surrogate pair.
    """
    if not isinstance(name, str) or not name:
        msg = f"name must be a non-empty str, not {short_repr(name)}"
    elif _UNSENDABLE.search(name):
        msg = f"name must be a non-empty str {_WITHOUT_HALVES}, not {short_repr(name)}"
    else:
        return
    raise InvalidArgumentError(msg, **context)


def check_scopes(scopes: object, **context: Any) -> list[str]:
    """Return a token's scopes: a token has at least one.

    Raises:
        InvalidArgumentError: It is no collection, a single `str`, empty, or has an item that is not a non-empty `str`.
    """
    values = read_collection(scopes)
    wrong = [value for value in values or () if not _is_scope(value)]
    if values is None:
        msg = f"scopes must be a collection such as ['dashboards_read'], not {short_repr(scopes)}"
    elif not values:
        msg = "scopes must not be empty: a token has at least one, such as 'dashboards_read'"
    elif wrong:
        msg = f"scopes must hold non-empty strs such as 'dashboards_read', not {short_repr(wrong[0])}"
    else:
        return cast("list[str]", values)
    raise InvalidArgumentError(msg, **context)


def _is_scope(scope: object) -> bool:
    return isinstance(scope, str) and bool(scope) and not _UNSENDABLE.search(scope)


def check_expiry(expires_at: object, now: datetime, **context: Any) -> None:
    """Refuse a value that cannot be the end of a token's life. Whether it is a day ahead is left to the API.

    Raises:
        InvalidArgumentError: It is no `datetime`, has no time zone, is not in the future, or has no date in UTC.
    """
    if expires_at is None:
        return
    if not isinstance(expires_at, datetime) or expires_at.utcoffset() is None:
        msg = "expires_at must be a timezone-aware datetime, for example datetime.now(UTC) + timedelta(days=30)"
    elif expires_at <= now:
        msg = f"expires_at must be in the future, not {expires_at.isoformat()}"
    elif not _has_utc(expires_at):
        msg = "expires_at must be before the year 10000 in UTC, too"
    else:
        return
    raise InvalidArgumentError(msg, **context)


def _has_utc(moment: datetime) -> bool:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return False
    return True


def _one_of(literal: Any) -> str:
    *names, last = (f'"{name}"' for name in get_args(literal))
    return f"{', '.join(names)} or {last}"
