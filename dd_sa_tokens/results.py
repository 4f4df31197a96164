"""The results of a bulk fetch: one for each position of its input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, final, overload

import attrs

from .errors import DatadogError
from .models import AccessToken


def _exactly_one(instance: TokenResult, _attribute: attrs.Attribute[Any], error: DatadogError | None) -> None:
    if (instance.token is None) == (error is None):
        msg = "exactly one of token and error must be set"
        raise ValueError(msg)


@attrs.frozen
class TokenResult:
    """The outcome for one token ID: the token or the error.

    Raises:
        ValueError: Both or neither of `token` and `error` are set.
    """

    token_id: str
    """The ID as it was given; where it was no `str`, a description such as `<int 5>`."""

    token: AccessToken | None = None
    """The token; `None` if the fetch failed."""

    error: DatadogError | None = attrs.field(default=None, validator=_exactly_one)
    """Why the fetch failed; `None` if it did not."""

    @property
    def ok(self) -> bool:
        """Whether the token was fetched."""
        return self.token is not None

    def unwrap(self) -> AccessToken:
        """Return the token, or raise the error.

        Returns:
            The token.

        Raises:
            DatadogError: The error of this result.
        """
        if self.token is not None:
            return self.token
        assert self.error is not None
        raise self.error


@final
class BulkResult(Sequence[TokenResult]):
    """The results of `get_tokens`: a sequence of `TokenResult` in the order of the input, one for each position.

    Args:
        items: The results.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[TokenResult] = ()) -> None:
        self._items = tuple(items)

    @overload
    def __getitem__(self, index: int) -> TokenResult: ...
    @overload
    def __getitem__(self, index: slice) -> BulkResult: ...
    def __getitem__(self, index: int | slice) -> TokenResult | BulkResult:
        return BulkResult(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return self._items == other._items if isinstance(other, BulkResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._items)

    def __reduce__(self) -> tuple[type[BulkResult], tuple[tuple[TokenResult, ...]]]:
        return BulkResult, (self._items,)

    def __repr__(self) -> str:
        return f"<BulkResult: {len(self.tokens)} tokens, {len(self.errors)} errors, {len(self)} positions>"

    @property
    def tokens(self) -> dict[str, AccessToken]:
        """The tokens that were fetched, by their ID as it was given.

        A repeated ID has one entry. Iterate over the result itself for each position.
        """
        return {item.token_id: item.token for item in self._items if item.token is not None}

    @property
    def errors(self) -> dict[str, DatadogError]:
        """The errors, by their ID as it was given.

        A repeated ID has one entry. Iterate over the result itself for each position.
        """
        return {item.token_id: item.error for item in self._items if item.error is not None}

    def raise_for_errors(self) -> None:
        """Do nothing if every token was fetched, else raise all errors together.

        Raises:
            ExceptionGroup: With the `DatadogError` of each failed position, in order.
        """
        errors = [item.error for item in self._items if item.error is not None]
        if errors:
            msg = f"{len(errors)} of {len(self)} tokens could not be fetched"
            raise ExceptionGroup(msg, errors)


class SourceError(DatadogError):
    """Reading `token_ids` stopped: the caller's iterable raised, or the deadline passed and it is an async iterable.

    `__cause__` is the iterable's own exception, or a `DeadlineExceededError`.

    Attributes:
        partial: The results for the IDs read before that.
    """

    def __init__(self, message: str = "", *, partial: BulkResult | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.partial: BulkResult = partial if partial is not None else BulkResult()
