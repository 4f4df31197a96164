"""What a bulk fetch gives: one result for each position."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dd_sa_tokens import AccessToken, BulkResult, DatadogError, NotFoundError, ServerError, SourceError, TokenResult

TOKEN = AccessToken(id="a")
ERROR = NotFoundError("gone", status=404)
GOOD, BAD = TokenResult("a", TOKEN), TokenResult("b", error=ERROR)


def test_good_result_gives_its_token() -> None:
    """A result with a token is ok, has no error, and unwraps to the token."""
    assert (GOOD.ok, GOOD.token, GOOD.error) == (True, TOKEN, None)
    assert GOOD.unwrap() is TOKEN


def test_bad_result_raises_its_error() -> None:
    """A result with an error is not ok, has no token, and unwraps by raising that very error."""
    assert (BAD.ok, BAD.token, BAD.error) == (False, None, ERROR)
    with pytest.raises(NotFoundError) as caught:
        BAD.unwrap()
    assert caught.value is ERROR


@pytest.mark.parametrize("fields", [{}, {"token": TOKEN, "error": ERROR}])
def test_result_has_exactly_one_outcome(fields: dict[str, object]) -> None:
    """Neither both nor none of token and error can be set."""
    with pytest.raises(ValueError, match="exactly one of token and error"):
        TokenResult("a", **fields)


def test_result_cannot_be_changed() -> None:
    """A result is a frozen, slotted value."""
    with pytest.raises(AttributeError):
        GOOD.token = None
    assert not hasattr(GOOD, "__dict__")


results = st.lists(
    st.sampled_from("abcde").flatmap(
        lambda i: st.sampled_from([TokenResult(i, AccessToken(id=i)), TokenResult(i, error=ServerError(i, token_id=i))])
    ),
    max_size=8,
)


@given(results)
def test_bulk_result_is_the_sequence_it_was_made_of(items: list[TokenResult]) -> None:
    """Length, order, indices, slices, membership and reversal are those of the positions."""
    bulk = BulkResult(iter(items))
    assert isinstance(bulk, Sequence)
    assert list(bulk) == items
    assert len(bulk) == len(items)
    assert bool(bulk) is bool(items)
    assert list(reversed(bulk)) == items[::-1]
    for index, item in enumerate(items):
        assert bulk[index] is item
        assert bulk[index - len(items)] is item
        assert item in bulk
    part = bulk[1:3]
    assert isinstance(part, BulkResult)
    assert list(part) == items[1:3]
    with pytest.raises(IndexError):
        bulk[len(items)]


@given(results)
def test_bulk_result_sorts_tokens_from_errors(items: list[TokenResult]) -> None:
    """`tokens` and `errors` hold the outcomes by the ID as it was given."""
    bulk = BulkResult(items)
    assert set(bulk.tokens) == {item.token_id for item in items if item.token is not None}
    assert set(bulk.errors) == {item.token_id for item in items if item.error is not None}
    assert all(token.id == token_id for token_id, token in bulk.tokens.items())
    assert all(error.token_id == token_id for token_id, error in bulk.errors.items())


@given(results)
def test_raise_for_errors_raises_all_of_them_in_order(items: list[TokenResult]) -> None:
    """Each failed position's own error is in the group, in the order of the input; without errors nothing happens."""
    errors = [item.error for item in items if item.error is not None]
    bulk = BulkResult(items)
    if not errors:
        bulk.raise_for_errors()
        return
    with pytest.raises(ExceptionGroup) as caught:
        bulk.raise_for_errors()
    assert list(caught.value.exceptions) == errors
    assert f"{len(errors)} of {len(items)} tokens" in str(caught.value)


def test_error_group_splits_by_class() -> None:
    """`except*` of one class finds the errors of that class."""
    found: list[BaseException] = []
    try:
        BulkResult([GOOD, BAD, TokenResult("c", error=ServerError("x"))]).raise_for_errors()
    except* NotFoundError as group:
        found.extend(group.exceptions)
    except* DatadogError:
        pass
    assert found == [ERROR]


def test_bulk_results_compare_by_their_items() -> None:
    """Equal positions make equal results and hashes; a list is no BulkResult."""
    assert BulkResult([GOOD, BAD]) == BulkResult([GOOD, BAD])
    assert BulkResult([GOOD, BAD]) != BulkResult([BAD, GOOD])
    assert BulkResult([GOOD]) != [GOOD]
    assert len({BulkResult([GOOD]), BulkResult([GOOD]), BulkResult()}) == 2


def test_bulk_result_repr_is_short() -> None:
    """The repr counts instead of printing thousands of tokens."""
    assert repr(BulkResult([GOOD, BAD, GOOD])) == "<BulkResult: 1 tokens, 1 errors, 3 positions>"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda bulk: pickle.loads(pickle.dumps(bulk))])
def test_bulk_result_survives_copies_and_pickles(again: object) -> None:
    """Positions, tokens and errors are the same in a copy."""
    duplicate = again(BulkResult([GOOD, BAD]))
    assert duplicate.tokens == {"a": TOKEN}
    assert [item.token_id for item in duplicate] == ["a", "b"]
    assert isinstance(duplicate.errors["b"], NotFoundError)
    assert duplicate.errors["b"].status == 404


def test_source_error_carries_what_was_fetched() -> None:
    """The partial results survive a pickle of the error."""
    error = SourceError("it raised", partial=BulkResult([GOOD]), operation="get_tokens")
    assert pickle.loads(pickle.dumps(error)).partial == BulkResult([GOOD])
