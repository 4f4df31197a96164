"""What users pass to a call, checked before anything is sent. `context` is what the error says the call was about."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

from .errors import InvalidArgumentError, shown

Sort = Literal[
    "name", "-name", "created_at", "-created_at", "expires_at", "-expires_at", "last_used_at", "-last_used_at"
]
Strategy = Literal["auto", "get", "list"]

LARGEST_PAGE = 100
"""Most tokens that the API puts on a page of a list."""

_LONGEST_ID = 256

PLAIN_ID = re.compile(f"[0-9A-Za-z_-]{{1,{_LONGEST_ID}}}")
"""What the API's own IDs look like: nothing to check about them, and nothing to encode."""

# Control characters would end up in logs and terminals, and a lone surrogate has no UTF-8 form to send.
_UNFIT_FOR_ID = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSENDABLE = re.compile("[\ud800-\udfff]")


def check_id(name: str, value: object, operation: str, service_account_id: str | None = None) -> str:
    """Return an ID that can be sent as one path segment.

    Raises:
        InvalidArgumentError: It is no `str`, empty, longer than 256 characters, has control characters, or is `.` or
            `..`, which every HTTP client and proxy takes for another path.
    """
    if not isinstance(value, str):
        msg = f"{name} must be a str, not {type(value).__name__}"
    elif not value:
        msg = f"{name} must not be empty"
    elif len(value) > _LONGEST_ID:
        msg = f"{name} must have at most {_LONGEST_ID} characters, not {len(value)}"
    elif _UNFIT_FOR_ID.search(value):
        msg = f"{name} must not contain control characters: {shown(value)}"
    elif value in {".", ".."}:
        msg = f"{name} must not be {value!r}: as a path segment it names another path"
    else:
        return value
    error = InvalidArgumentError(msg, operation=operation, service_account_id=service_account_id)
    if isinstance(value, str):
        setattr(error, name, value)
    raise error


def check_strategy(strategy: object, **context: Any) -> None:
    """Refuse an unknown strategy of a bulk fetch.

    Raises:
        InvalidArgumentError: It is not one of `"auto"`, `"get"` and `"list"`.
    """
    if strategy not in get_args(Strategy):
        msg = f"strategy must be {_one_of(Strategy)}, not {shown(strategy)}"
        raise InvalidArgumentError(msg, **context)


def check_list_options(filter_: object, sort: object, page_size: object, **context: Any) -> None:
    """Refuse options that no list of tokens has.

    Raises:
        InvalidArgumentError: The filter is no `str`, the sort none of the API's eight, or the page size not 1 to 100.
    """
    if filter_ is not None and (not isinstance(filter_, str) or _UNSENDABLE.search(filter_)):
        msg = f"filter must be a str, not {shown(filter_)}"
    elif sort is not None and sort not in get_args(Sort):
        msg = f"sort must be {_one_of(Sort)}, not {shown(sort)}"
    elif not isinstance(page_size, int) or isinstance(page_size, bool) or not 1 <= page_size <= LARGEST_PAGE:
        msg = f"page_size must be a whole number from 1 to {LARGEST_PAGE}, not {shown(page_size)}"
    else:
        return
    raise InvalidArgumentError(msg, **context)


def check_name(name: object, **context: Any) -> None:
    """Refuse what no token can be named.

    Raises:
        InvalidArgumentError: It is no `str`, or empty.
    """
    if not isinstance(name, str) or not name or _UNSENDABLE.search(name):
        msg = f"name must be a non-empty str, not {shown(name)}"
        raise InvalidArgumentError(msg, **context)


def check_scopes(scopes: object, **context: Any) -> None:
    """Refuse what are no scopes: a token has at least one.

    Raises:
        InvalidArgumentError: It is no collection, a single `str`, empty, or holds something else than non-empty `str`.
    """
    if isinstance(scopes, str | bytes) or not isinstance(scopes, Collection):
        msg = f"scopes must be a collection such as ['dashboards_read'], not {shown(scopes)}"
    elif not scopes:
        msg = "scopes must not be empty: a token has at least one, such as 'dashboards_read'"
    else:
        wrong = [scope for scope in cast("Collection[object]", scopes) if not _is_scope(scope)]
        if not wrong:
            return
        msg = f"scopes must hold non-empty strs such as 'dashboards_read', not {shown(wrong[0])}"
    raise InvalidArgumentError(msg, **context)


def _is_scope(scope: object) -> bool:
    return isinstance(scope, str) and bool(scope) and not _UNSENDABLE.search(scope)


def check_expiry(expires_at: object, now: datetime, **context: Any) -> None:
    """Refuse an end of a token's life that cannot be one. That it lies a day ahead at least is the API's business.

    Raises:
        InvalidArgumentError: It is no `datetime`, has no time zone, is not in the future, or is no moment in UTC.
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
