"""The queries of lists of tokens."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import attrs

from ._checks import canonical_id
from ._queries import TOKEN_SORTS, Page, Query, Sort, first, read_include, read_leaked, read_page, read_sort
from ._records import Record


@attrs.frozen
class TokensQuery:
    """What a list of tokens is asked for.

    Attributes:
        page: The page.
        sort: The order.
        filter: Text that the name must contain, in any case; empty for no filter.
        owners: IDs of the owners whose tokens are wanted; empty for all.
        leaked: Whether only leaked tokens are wanted.
        include_leak: Whether the answer has the leaks in `included`.
    """

    page: Page
    sort: Sort
    filter: str
    owners: frozenset[str]
    leaked: bool
    include_leak: bool

    @classmethod
    def read(cls, query: Query) -> TokensQuery:
        """Read a query.

        Raises:
            RefusedError: The query is not what the API documents.
        """
        return cls(
            page=read_page(query),
            sort=read_sort(query, TOKEN_SORTS),
            filter=(first(query, "filter") or "").casefold(),
            owners=frozenset(canonical_id(value) for name, value in query if name == "filter[owned_by]"),
            leaked=read_leaked(query),
            include_leak=read_include(query),
        )

    @property
    def selection(self) -> Hashable:
        """What decides which tokens are on all pages together."""
        return self.sort, self.filter, self.owners, self.leaked

    def select(self, records: Iterable[Record]) -> list[Record]:
        """Return the wanted ones of the records, in the wanted order."""
        return self.sort.apply([record for record in records if self._wants(record)], _value)

    def _wants(self, record: Record) -> bool:
        return (
            (not self.leaked or record.leak is not None)
            and (not self.owners or canonical_id(record.token.service_account_id or "") in self.owners)
            and (not self.filter or self.filter in (record.token.name or "").casefold())
        )


def _value(record: Record, name: str) -> Any:
    """Return what a record is sorted by. Tokens that are not leaked come before leaked ones."""
    return record.leak is not None if name == "leaked" else getattr(record.token, name)
