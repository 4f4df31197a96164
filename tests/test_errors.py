"""The error tree: what catches what, what the text says, and that errors survive copies and pickles."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dd_sa_tokens import (
    AccessToken,
    APIError,
    BadRequestError,
    BulkResult,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    DatadogError,
    DeadlineExceededError,
    ForbiddenError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RateLimit,
    RateLimitError,
    RequestTimeoutError,
    RotationError,
    ServerError,
    SourceError,
    TokenResult,
    TransportError,
    UnauthorizedError,
)
from dd_sa_tokens.errors import api_error_class, short_repr

TREE = {
    InvalidArgumentError: (DatadogError, ValueError),
    ConfigurationError: (InvalidArgumentError, ValueError),
    ClientClosedError: (DatadogError,),
    DeadlineExceededError: (DatadogError, TimeoutError),
    TransportError: (DatadogError,),
    RequestTimeoutError: (TransportError, TimeoutError),
    InvalidResponseError: (DatadogError,),
    RotationError: (DatadogError,),
    SourceError: (DatadogError,),
    APIError: (DatadogError,),
    BadRequestError: (APIError,),
    UnauthorizedError: (APIError,),
    ForbiddenError: (APIError,),
    NotFoundError: (APIError,),
    ConflictError: (APIError,),
    RateLimitError: (APIError,),
    ServerError: (APIError,),
}

texts = st.none() | st.text()
context = st.fixed_dictionaries(
    {},
    optional={
        "operation": texts,
        "service_account_id": texts,
        "token_id": texts,
        "attempts": st.integers(0, 1000),
        "outcome_unknown": st.booleans(),
    },
)
rates = st.builds(RateLimit, st.none() | st.integers(), st.none(), st.integers(), st.floats(allow_nan=False), texts)
api = st.fixed_dictionaries(
    {},
    optional={
        "status": st.integers(100, 599),
        "errors": st.lists(st.text()).map(tuple),
        "rate_limit": st.none() | rates,
        "retry_after": st.none() | st.floats(0, 1e6),
        "request_id": texts,
    },
)
special = {
    DeadlineExceededError: st.fixed_dictionaries({}, optional={"deadline": st.floats(0.001, 1e9)}),
    InvalidResponseError: st.fixed_dictionaries({}, optional={"path": st.text(), "reason": st.text()}),
    RotationError: st.fixed_dictionaries({}, optional={"old_id": texts, "new_id": texts}),
    SourceError: st.fixed_dictionaries(
        {}, optional={"partial": st.just(BulkResult([TokenResult("t1", AccessToken(id="t1"))]))}
    ),
}


def made(cls: type[DatadogError]) -> st.SearchStrategy[DatadogError]:
    own = special.get(cls, api if issubclass(cls, APIError) else st.just({}))
    return st.builds(lambda message, a, b: cls(message, **a, **b), st.text(), context, own)


any_error = st.sampled_from([DatadogError, *TREE]).flatmap(made)


@pytest.mark.parametrize(("cls", "bases"), TREE.items())
def test_each_error_is_caught_by_its_bases(cls: type[DatadogError], bases: tuple[type[Exception], ...]) -> None:
    """`except` with a base, be it ours or Python's, catches the error, and `DatadogError` catches all."""
    for base in (*bases, DatadogError):
        assert isinstance(cls("no"), base)


@pytest.mark.parametrize("cls", TREE)
def test_no_error_is_caught_as_what_it_is_not(cls: type[DatadogError]) -> None:
    """`except OSError`, `ValueError` or a sibling does not swallow an error of another kind."""
    assert issubclass(cls, ValueError) is issubclass(cls, InvalidArgumentError)
    assert issubclass(cls, OSError) is issubclass(cls, TimeoutError)
    assert {other for other in TREE if issubclass(cls, other)} - {cls} <= set(TREE[cls])


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, BadRequestError),
        (401, UnauthorizedError),
        (402, APIError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (405, APIError),
        (408, APIError),
        (409, ConflictError),
        (410, APIError),
        (422, APIError),
        (429, RateLimitError),
        (499, APIError),
        (500, ServerError),
        (501, ServerError),
        (503, ServerError),
        (512, ServerError),
        (599, ServerError),
    ],
)
def test_status_gives_the_class(status: int, cls: type[APIError]) -> None:
    """Each documented status has a class of its own, every 5xx is a server error, any other 4xx the base."""
    assert api_error_class(status) is cls


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DatadogError("it broke"), "it broke"),
        (
            DatadogError(
                "it broke",
                operation="get_token",
                service_account_id="sa",
                token_id="t",
                attempts=3,
                outcome_unknown=True,
            ),
            "it broke (get_token, service account 'sa', token 't', 3 attempts, outcome unknown: it may have been done)",
        ),
        (DatadogError("it broke", attempts=1), "it broke (1 attempt)"),
        (DatadogError("it broke", token_id="a\nb"), "it broke (token 'a\\nb')"),
        (APIError("no", request_id="r\x1b[2J"), "no (request 'r\\x1b[2J')"),
        (
            InvalidResponseError(path="$.data.id", reason="is no string"),
            "the answer is not what the API documents: $.data.id: is no string",
        ),
    ],
)
def test_text_says_what_where_and_how_often(error: DatadogError, text: str) -> None:
    """The text carries the context, in a form that cannot garble a terminal or a log line."""
    assert str(error) == text


@given(st.text(min_size=200))
def test_text_stays_short_for_any_id(token_id: str) -> None:
    """A hostile ID of any length makes neither a long nor an unprintable text."""
    text = str(DatadogError("no", token_id=token_id))
    assert len(text) < 150
    assert text.isprintable()


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "'a'"), ("x" * 78, f"'{'x' * 78}'"), ("x" * 79, f"'{'x' * 79}... (81 characters)"), (None, "None")],
)
def test_short_repr_cuts_what_is_long(value: object, text: str) -> None:
    """Up to 80 characters are shown, and the length of what was longer."""
    assert short_repr(value) == text


@given(any_error)
def test_errors_survive_pickles_and_copies(error: DatadogError) -> None:
    """Every class keeps its type, text and all attributes through pickle, copy and deepcopy."""
    duplicates = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for duplicate in [*duplicates, copy.copy(error), copy.deepcopy(error), error.with_context()]:
        assert duplicate is not error
        assert type(duplicate) is type(error)
        assert duplicate.args == error.args
        assert vars(duplicate) == vars(error)
        assert str(duplicate) == str(error)


@given(any_error)
def test_every_error_carries_the_context_attributes(error: DatadogError) -> None:
    """A handler can read the context of any error without asking for its class first."""
    assert isinstance(error.message, str)
    assert error.operation is None or isinstance(error.operation, str)
    assert error.service_account_id is None or isinstance(error.service_account_id, str)
    assert error.token_id is None or isinstance(error.token_id, str)
    assert isinstance(error.attempts, int)
    assert isinstance(error.outcome_unknown, bool)


def test_with_context_changes_a_copy_only() -> None:
    """Each result has its own exception: adding context to one leaves the other and its traceback alone."""
    error = NotFoundError("gone", status=404, token_id="t1", attempts=2)
    with pytest.raises(NotFoundError):
        raise error
    duplicate = error.with_context(token_id="t2", attempts=0)
    assert (duplicate.token_id, duplicate.attempts, duplicate.status) == ("t2", 0, 404)
    assert (error.token_id, error.attempts) == ("t1", 2)
    assert duplicate.__traceback__ is None
    assert duplicate.__context__ is None


def test_api_error_defaults_are_empty() -> None:
    """An `APIError` made without details has no words, no rate limit, no wait and no request ID."""
    error = APIError("no")
    assert (error.errors, error.rate_limit, error.retry_after, error.request_id) == ((), None, None, None)
    assert SourceError("no").partial == BulkResult()


def test_errors_print_in_tracebacks() -> None:
    """A traceback shows the text with its context."""
    lines = traceback.format_exception_only(ServerError("down", status=503, operation="get_token", attempts=5))
    assert lines == ["dd_sa_tokens.errors.ServerError: down (get_token, 5 attempts)\n"]
