"""The queries of lists: reading them, and selecting what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import attrs

from ._answers import RefusedError

Query = Sequence[tuple[str, str]]
"""The names and values of a query, decoded, in order. A name may occur several times."""

MAX_PAGE_SIZE = 100
TOKEN_SORTS = ("name", "created_at", "expires_at", "last_used_at", "leaked")
USER_SORTS = ("name", "modified_at", "user_count")
_INCLUDES = {"leak_information"}

T = TypeVar("T")


@attrs.frozen
class Page:
    """Which page of a list a query asks for.

    Attributes:
        size: Rows on a page, 1 to 100.
        number: The number of the page, from 0.
    """

    size: int
    number: int

    def of(self, rows: Sequence[T]) -> Sequence[T]:
        """Return the rows on the page."""
        return rows[self.number * self.size : (self.number + 1) * self.size]


@attrs.frozen
class Sort:
    """An order of rows.

    Attributes:
        name: The attribute to sort by; `None` for the order of the server.
        descending: Whether the largest value comes first.
    """

    name: str | None = None
    descending: bool = False

    def apply(self, rows: list[T], value: Callable[[T, str], Any]) -> list[T]:
        """Return the rows in this order.

        Equal rows stay in the server's order, in both directions. Rows without a value come last, in both directions.

        Args:
            rows: The rows in the server's order.
            value: Returns a row's value of an attribute, or `None`.
        """
        if (name := self.name) is None:
            return rows
        known = [row for row in rows if value(row, name) is not None]
        known.sort(key=lambda row: value(row, name), reverse=self.descending)
        return known + [row for row in rows if value(row, name) is None]


class Selections(Generic[T]):
    """Remembers the rows that a query selects, so that its next page is not selected again."""

    def __init__(self) -> None:
        self._selected: dict[Hashable, list[T]] = {}

    def get(self, key: Hashable, select: Callable[[], list[T]]) -> list[T]:
        """Return the rows for a key; call `select` if they are not known."""
        if key not in self._selected:
            if len(self._selected) >= 16:  # a few lists are read at a time; each may hold all rows
                self._selected.clear()
            self._selected[key] = select()
        return self._selected[key]

    def forget(self) -> None:
        """Forget all rows, because one of them has changed."""
        self._selected.clear()


def first(query: Query, name: str) -> str | None:
    """Return the first value of a name; `None` if it does not occur."""
    return next((value for key, value in query if key == name), None)


def read_page(query: Query) -> Page:
    """Read `page[size]` (10 by default) and `page[number]` (0 by default).

    Raises:
        RefusedError: One of them is not what the API documents.
    """
    size = _whole(first(query, "page[size]"), 10)
    number = _whole(first(query, "page[number]"), 0)
    if size is None or not 1 <= size <= MAX_PAGE_SIZE:
        raise RefusedError(400, f"page[size] must be a whole number from 1 to {MAX_PAGE_SIZE}")
    if number is None:
        raise RefusedError(400, "page[number] must be a whole number of at least 0")
    return Page(size, number)


def read_sort(query: Query, names: Iterable[str]) -> Sort:
    """Read `sort`, an attribute with or without a leading `-`.

    Raises:
        RefusedError: It is none of the names.
    """
    text = first(query, "sort")
    if text is None:
        return Sort()
    name = text.removeprefix("-")
    if name not in names:
        raise RefusedError(400, f"sort must be {', '.join(names)}, or one of them after a -")
    return Sort(name, name != text)


def read_leaked(query: Query) -> bool:
    """Read `filter[leaked]`. `false` means no filter.

    Raises:
        RefusedError: It is neither `true` nor `false`.
    """
    text = first(query, "filter[leaked]") or "false"
    if text not in {"true", "false"}:
        raise RefusedError(400, "filter[leaked] must be true or false")
    return text == "true"


def read_include(query: Query) -> bool:
    """Read `include`, and return whether it asks for `leak_information`.

    Raises:
        RefusedError: It names something else.
    """
    names = {name for key, value in query if key == "include" for name in value.split(",")}
    if not names <= _INCLUDES:
        raise RefusedError(400, "include must be leak_information")
    return bool(names)


def _whole(text: str | None, default: int) -> int | None:
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
