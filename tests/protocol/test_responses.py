"""Responses as values or errors."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.requests import (
    ACCOUNT,
    CREATE,
    FINAL,
    LIST,
    NOT_PROCESSED,
    RECORDED_ID,
    REFUSED,
    REQUEST,
    REQUESTS,
    REVOKE,
    TOKEN,
    UNKNOWN,
    UPDATE,
    error,
    plain,
    reply,
    verdict,
)
from support.samples import SAMPLES

from dd_sa_tokens import (
    AccessToken,
    APIError,
    BadRequestError,
    ConflictError,
    CreatedToken,
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    RateLimit,
    RateLimitError,
    ServerError,
    TransportError,
    UnauthorizedError,
)
from dd_sa_tokens._credentials import read_credentials
from dd_sa_tokens._protocol.documents import Page
from dd_sa_tokens._protocol.interpret import interpret
from dd_sa_tokens._protocol.operations import Request, get_token, update_token
from dd_sa_tokens._protocol.responses import Failure, Response

ALL = pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation.name)
KEY = "canary0123456789abcdefghijklmnop"
APP = "canary-app-0123456789abcdefghijklmnopqrs"
REDACT = read_credentials(KEY, APP, None, {}).redact


def sample(case: str, status: int) -> Response:
    return reply(status, (SAMPLES / case / f"{status}.json").read_bytes())


# Replies


@pytest.mark.parametrize(
    ("request_", "answer", "kind"),
    [
        (LIST, sample("list", 200), Page),
        (LIST, sample("list_empty", 200), Page),
        (CREATE, sample("create", 201), CreatedToken),
        (update_token(ACCOUNT, RECORDED_ID, name="x", scopes=None), sample("update", 200), AccessToken),
        (REVOKE, reply(204), type(None)),
        (REVOKE, reply(200, b'{"data": null}'), type(None)),
        (REVOKE, reply(200, b"<html>log in</html>"), Failure),
        (REVOKE, reply(202), type(None)),
    ],
)
@pytest.mark.parametrize("repeated", [False, True])
def test_every_operation_s_success_is_its_value(
    request_: Request[Any], answer: Response, kind: type, repeated: bool
) -> None:
    """What is recorded of each operation is read as what it gives; a revoke gives nothing, and is no proxy's page."""
    outcome = interpret(request_, answer, plain, repeated=repeated)
    assert type(outcome) is kind
    if isinstance(outcome, AccessToken):
        assert outcome.name == "deploy-bot-2"
        assert outcome.modified_at == datetime(2026, 5, 11, 19, 22, 49, 17503, tzinfo=UTC)


@pytest.mark.parametrize(
    ("request_", "answer", "path"),
    [
        (LIST, reply(200), "$"),
        (LIST, reply(204), "$"),
        (LIST, reply(200, b'{"data": [{"id": "t"}, {"id": 5}]}'), "$.data[1].id"),
        (CREATE, reply(201), "$"),
        (CREATE, reply(201, b'{"data": {"id": "t"}}'), "$.data.attributes.key"),
        (CREATE, reply(201, b'{"data": {"attributes": {"key": "canary"}}}'), "$.data.id"),
        (UPDATE, reply(204), "$"),
        (UPDATE, reply(200, b'{"data": {"id": "another"}}'), "$.data.id"),
    ],
)
def test_an_undecodable_success_may_have_been_one(request_: Request[Any], answer: Response, path: str) -> None:
    """A 2xx that cannot be read is final, counts as perhaps done, and leaves no frame that holds the body."""
    outcome = interpret(request_, answer, plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, InvalidResponseError)
    assert (outcome.error.path, verdict(outcome)) == (path, FINAL)
    assert outcome.error.__traceback__ is None
    assert "canary" not in f"{outcome} {outcome.error} {vars(outcome.error)} {answer}"


@pytest.mark.parametrize(
    ("body", "token_id"),
    [
        (b'{"data": {"id": "t"}}', "t"),
        (f'{{"data": {{"id": "t-{KEY}"}}}}'.encode(), "t-**********"),
        (b'{"data": {"id": 5}}', None),
        (b"<html>", None),
    ],
)
def test_a_new_token_whose_secret_cannot_be_read_is_named(body: bytes, token_id: str | None) -> None:
    """A create's answer that tells the new token's ID and no secret gives an error with that ID, no key in it."""
    outcome = interpret(CREATE, reply(201, body), REDACT)
    assert isinstance(outcome, Failure)
    assert outcome.error.token_id == token_id


@ALL
@pytest.mark.parametrize("repeated", [False, True])
def test_only_a_repeated_revoke_takes_a_404_as_done(request_: Request[Any], repeated: bool) -> None:
    """A 404 means that it is done where an earlier sending may have revoked the token, and only there."""
    outcome = interpret(request_, sample("get", 404), plain, repeated=repeated)
    if request_ is REVOKE and repeated:
        assert outcome is None
    else:
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.error, NotFoundError)
        assert verdict(outcome) == REFUSED


@pytest.mark.parametrize("body", [b"", b"404 page not found", b'{"errors": "none"}'])
def test_a_404_to_a_repeated_revoke_needs_no_words(body: bytes) -> None:
    """The status decides, with any body."""
    assert interpret(REVOKE, reply(404, body), plain, repeated=True) is None


@pytest.mark.parametrize("status", [301, 400, 401, 403, 405, 408, 409, 410, 429, 500, 503])
def test_a_repeated_revoke_takes_nothing_else_as_done(status: int) -> None:
    """Any other failure of a repeated revoke is still one."""
    assert isinstance(interpret(REVOKE, reply(status), plain, repeated=True), Failure)


@ALL
@pytest.mark.parametrize("status", [100, 301, 307, 308])
def test_a_redirect_may_have_been_done(request_: Request[Any], status: int) -> None:
    """A redirect is neither followed nor tried again; the operation may have been applied before it."""
    outcome = interpret(request_, reply(status, Location="/elsewhere"), plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, TransportError)
    assert verdict(outcome) == FINAL


def test_a_reply_does_not_show_its_body() -> None:
    """A body may hold a secret, so it is in no repr."""
    assert "not-a-real-key" not in repr(sample("create", 201))
    assert "not-a-real-key" not in repr(interpret(CREATE, sample("create", 201), plain))


@pytest.mark.parametrize("status", [200, 201, 203, 299])
def test_success_gives_the_token(status: int) -> None:
    """A 2xx with the token that was asked for is the token; no content type is needed."""
    body = sample("get", 200).body
    token = interpret(REQUEST, reply(status, body), plain)
    assert isinstance(token, AccessToken)
    assert (token.id, token.name, token.service_account_id) == (TOKEN, "nightly-export", ACCOUNT)


@pytest.mark.parametrize(
    ("asked", "given"), [(TOKEN.upper(), TOKEN), (TOKEN, TOKEN.upper()), ("ab" * 16, "AB" * 16), ("ü", "Ü")]
)
def test_ids_may_differ_in_case(asked: str, given: str) -> None:
    """A UUID in capitals names the same token."""
    answer = interpret(get_token(ACCOUNT, asked), reply(200, f'{{"data": {{"id": "{given}"}}}}'.encode()), plain)
    assert isinstance(answer, AccessToken)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"data": {"id": "c0ffee00-1d2e-4f30-8a41-52b6c7d8e9f1"}}', "$.data.id"),
        (b'{"data": {"id": "c0ffee00"}}', "$.data.id"),
        (b"", "$"),
        (b"<html>", "$"),
        (b'{"data": null}', "$.data"),
        (b'{"data": {"id": "' + TOKEN.encode() + b'", "attributes": {"scopes": "x"}}}', "$.data.attributes.scopes"),
    ],
)
def test_success_with_another_body_is_a_final_failure(body: bytes, path: str) -> None:
    """Another token, or no token, is an `InvalidResponseError` that is not tried again and holds no frames."""
    outcome = interpret(REQUEST, reply(200, body), plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, InvalidResponseError)
    assert outcome.error.path == path
    assert verdict(outcome) == FINAL
    assert outcome.error.__traceback__ is None
    assert outcome.error.__context__ is None


def test_another_token_is_named_as_that() -> None:
    """An answer about another token is refused with words that say so."""
    outcome = interpret(REQUEST, reply(200, b'{"data": {"id": "c0ffee00"}}'), plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, InvalidResponseError)
    assert outcome.error.reason == "another token than the one asked for"


CLASSES: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitError,
}
VERDICTS = {408: UNKNOWN, 429: NOT_PROCESSED, 501: FINAL, 505: FINAL}


@ALL
def test_every_error_status_gives_class_and_verdict(request_: Request[Any]) -> None:
    """Each status from 400 to 599 has its class, and one verdict for every operation: 4xx refused, 5xx unknown.

    The statuses of `VERDICTS` are the exceptions, as in the table of `_execution/retry.py`.
    """
    for status in range(400, 600):
        outcome = interpret(request_, reply(status, b"<html>a proxy's page</html>"), plain)
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.error, APIError)
        cls, expected = (ServerError, UNKNOWN) if status >= 500 else (APIError, REFUSED)
        assert (outcome.error.status, type(outcome.error)) == (status, CLASSES.get(status, cls))
        assert (status, verdict(outcome)) == (status, VERDICTS.get(status, expected))


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is a final `TransportError` that says why."""
    outcome = interpret(REQUEST, reply(status, Location="https://evil.example/"), plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, TransportError)
    assert verdict(outcome) == FINAL
    assert f"answered {status}, and redirects are not followed" in str(outcome.error)


@pytest.mark.parametrize("status", [100, 101, 103, 199])
def test_an_answer_of_no_result_is_refused(status: int) -> None:
    """A status that is neither a success nor an error is a final `TransportError`; it is no redirect."""
    outcome = interpret(REQUEST, reply(status), plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, TransportError)
    assert verdict(outcome) == FINAL
    assert str(outcome.error) == f"the server answered {status}, which is neither a success nor an error"


NEEDS = (
    "it needs the permission service_account_write (for service accounts that you manage) or org_app_keys_read "
    "(for all)"
)


@pytest.mark.parametrize(
    ("status", "errors", "text"),
    [
        (400, ("Invalid token ID",), "the API answered 400 Bad Request: 'Invalid token ID'"),
        (
            403,
            ("Forbidden", "Permission required: service_account_write"),
            f"the API answered 403 Forbidden: 'Permission required: service_account_write'; {NEEDS}",
        ),
        (
            404,
            ("Access token not found",),
            "the API answered 404, no such token or service account: 'Access token not found'",
        ),
        (409, ("Conflict",), "the API answered 409 Conflict"),
        (429, ("Too many requests",), "the API answered 429 Too Many Requests"),
        (
            503,
            ("Service temporarily unavailable",),
            "the API answered 503 Service Unavailable: 'Service temporarily unavailable'",
        ),
    ],
)
def test_error_samples_give_the_api_s_words(status: int, errors: tuple[str, ...], text: str) -> None:
    """The API's words are in `errors`, and with the status in the text."""
    failed = error(sample("get", status))
    assert failed.errors == errors
    assert str(failed) == text


@pytest.mark.parametrize("said", ['["Not Found"]', '["not found."]', '["404"]', "[]"])
def test_words_that_say_no_more_than_the_status_are_left_out(said: str) -> None:
    """A 404 says what there is none of; the phrase of the status beside it would be read twice."""
    failed = error(reply(404, f'{{"errors": {said}}}'.encode()))
    assert str(failed) == "the API answered 404, no such token or service account"


def test_unknown_status_and_hostile_words_stay_printable() -> None:
    """An unknown status has no phrase, and control characters in the words do not reach a terminal."""
    assert str(error(reply(512))) == "the API answered 512"
    failed = error(reply(400, b'{"errors": ["a\\u001b[2Jb\\nc"]}'))
    assert str(failed).isprintable()
    assert failed.errors == ("a\x1b[2Jb\nc",)


def test_words_without_end_are_cut() -> None:
    """Ten words of a thousand characters each are kept of an error, so that a million of them fit into memory."""
    body = ('{"errors": [' + ",".join(['"' + "x" * 5_000 + '"'] * 50) + "]}").encode()
    failed = error(reply(400, body))
    assert [len(text) for text in failed.errors] == [1_000] * 10
    assert len(str(failed)) < 1_500


def test_error_carries_its_headers() -> None:
    """Quota, wait and request ID of the answer are attributes of the error."""
    failed = error(
        reply(
            503,
            X_RateLimit_Limit="100",
            X_RateLimit_Period="10",
            X_RateLimit_Remaining="42",
            X_RateLimit_Reset="7",
            X_RateLimit_Name="tokens",
            Retry_After="12",
            x_request_id="abc",
        )
    )
    assert failed.rate_limit == RateLimit(100, 10.0, 42, 7.0, "tokens")
    assert failed.retry_after == 12.0
    assert failed.request_id == "abc"
    assert "request 'abc'" in str(failed)


def test_error_without_headers_has_none() -> None:
    """What the answer did not say is None."""
    failed = error(reply(500))
    assert (failed.rate_limit, failed.retry_after, failed.request_id, failed.errors) == (None, None, None, ())


@pytest.mark.parametrize(
    ("headers", "retry_after"),
    [
        ({"X-RateLimit-Reset": "7"}, 7.0),
        ({"X-RateLimit-Reset": "7", "Retry-After": "3"}, 7.0),
        ({"X-RateLimit-Reset": "0", "X-RateLimit-Period": "10", "Retry-After": "3"}, 0.0),
        ({"X-RateLimit-Reset": "0", "Retry-After": "3"}, 3.0),
        ({"X-RateLimit-Reset": "0"}, 0.0),
        ({"X-RateLimit-Reset": "junk", "Retry-After": "3"}, 3.0),
        ({"Retry-After": "86400"}, 86_400.0),
        ({"Retry-After": "86401"}, None),
        ({"Retry-After": "junk"}, None),
        ({}, None),
    ],
)
def test_a_429_says_when_to_come_back(headers: dict[str, str], retry_after: float | None) -> None:
    """A reset that tells the window's end counts before `Retry-After`. More than a day is as good as no delay."""
    assert error(reply(429, headers=headers)).retry_after == retry_after


def test_a_5xx_keeps_a_long_retry_after() -> None:
    """How long a wait is too long is the policy's decision, so the error keeps what the server said."""
    assert error(reply(503, Retry_After="100000")).retry_after == 100_000.0


@pytest.mark.parametrize(
    "answer",
    [
        reply(400, f'{{"errors": ["bad key {KEY}", "{APP}"]}}'.encode()),
        reply(500, X_Request_Id=f"r-{KEY}"),
        reply(429, redact=REDACT, X_RateLimit_Name=f"limit of {APP}"),
    ],
)
def test_keys_that_a_server_echoes_are_masked(answer: Response) -> None:
    """Neither attributes nor text of an error show a key that came back in a body or header."""
    outcome = interpret(REQUEST, answer, REDACT)
    assert isinstance(outcome, Failure)
    shown = f"{outcome.error} {vars(outcome.error)}"
    assert "canary" not in shown
    assert "**********" in shown


@pytest.mark.parametrize("before", [997, 990, 970, 969])
def test_a_key_is_masked_where_an_error_is_cut(before: int) -> None:
    """Cutting a long text leaves no piece of a key at its end."""
    body = ('{"errors": ["' + "x" * before + KEY + '"]}').encode()
    outcome = interpret(REQUEST, reply(400, body), REDACT)
    assert isinstance(outcome, Failure)
    assert "can" not in f"{outcome.error} {vars(outcome.error)}"


@pytest.mark.parametrize("name", ["X-Request-Id", "X-RateLimit-Name"])
def test_a_key_is_masked_where_a_header_is_cut(name: str) -> None:
    """Cutting a long header leaves no piece of a key at its end."""
    outcome = interpret(REQUEST, reply(429, headers={name: "x" * 80 + KEY}, redact=REDACT), REDACT)
    assert isinstance(outcome, Failure)
    assert "can" not in f"{outcome.error} {vars(outcome.error)}"


def test_long_headers_are_cut() -> None:
    """A request ID and a limit's name keep a hundred characters."""
    failed = error(reply(429, X_Request_Id="r" * 5_000, X_RateLimit_Name="n" * 5_000))
    assert failed.request_id == "r" * 100
    assert failed.rate_limit == RateLimit(name="n" * 100)


@given(st.sampled_from(REQUESTS), st.integers(100, 599), st.binary(), st.booleans())
def test_any_reply_is_a_value_or_a_failure(request_: Request[Any], status: int, body: bytes, repeated: bool) -> None:
    """Interpreting never raises, for any operation, status and body."""
    outcome = interpret(request_, reply(status, body), plain, repeated=repeated)
    assert isinstance(outcome, Failure) or outcome is None
    assert outcome is not None or request_ is REVOKE


def test_all_samples_interpret() -> None:
    """Every captured reply is a value or an error of its own status."""
    found = sorted(SAMPLES.glob("get*/*.json"))
    assert len(found) >= 10
    for case, files in itertools.groupby(found, lambda path: path.parent.name):
        for path in files:
            answer = sample(case, int(path.stem))
            token_id = path.read_text().split('"id": "')[1][:36] if answer.status == 200 else TOKEN
            outcome = interpret(get_token(ACCOUNT, token_id), answer, plain)
            if answer.status == 200:
                assert isinstance(outcome, AccessToken)
            else:
                assert isinstance(outcome, Failure)
                assert isinstance(outcome.error, APIError)
                assert outcome.error.status == answer.status
