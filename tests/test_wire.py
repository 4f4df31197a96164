"""The protocol: paths that name what was asked for, replies as values or errors, headers read with care."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from dd_sa_tokens import (
    AccessToken,
    APIError,
    BadRequestError,
    ConflictError,
    CreatedToken,
    ForbiddenError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RateLimit,
    RateLimitError,
    ServerError,
    TransportError,
    UnauthorizedError,
)
from dd_sa_tokens._arguments import check_id
from dd_sa_tokens._codec import Page
from dd_sa_tokens._wire import (
    Failure,
    Fate,
    Reply,
    Request,
    create_token,
    get_token,
    interpret,
    list_tokens,
    parse_rate_limit,
    parse_retry_after,
    revoke_token,
    update_token,
)
from dd_sa_tokens.config import read_credentials

SAMPLES = Path(__file__).parent / "samples"
ACCOUNT = "5e0f7c1a-3b1d-4c55-9d0a-6a1f2b3c4d5e"
TOKEN = "c0ffee00-1d2e-4f30-8a41-52b6c7d8e9f0"
REQUEST = get_token(ACCOUNT, TOKEN)
LIST = list_tokens(ACCOUNT, filter_=None, sort=None, size=100, number=0)
CREATE = create_token(ACCOUNT, name="deploy-bot", scopes=["dashboards_read"], expires_at=None)
UPDATE = update_token(ACCOUNT, TOKEN, name="deploy-bot-2", scopes=None)
REVOKE = revoke_token(ACCOUNT, TOKEN)
REQUESTS: list[Request[Any]] = [REQUEST, LIST, CREATE, UPDATE, REVOKE]
ALL = pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation.name)
NOW = 1_790_000_003.25  # the local clock when a reply came
DAY = 86_400
KEY = "canary0123456789abcdefghijklmnop"
APP = "canary-app-0123456789abcdefghijklmnopqrs"
REDACT = read_credentials(KEY, APP, None, {}).redact


def plain(text: str) -> str:
    return text


def reply(status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None, **named: str) -> Reply:
    given = {name.replace("_", "-"): value for name, value in named.items()}
    return Reply(status, CIMultiDict((headers or {}) | given), body, NOW)


def sample(case: str, status: int) -> Reply:
    return reply(status, (SAMPLES / case / f"{status}.json").read_bytes())


def error(answer: Reply) -> APIError:
    outcome = interpret(REQUEST, answer, plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, APIError)
    return outcome.error


# Requests


def test_get_token_is_the_documented_request() -> None:
    """GET, the documented path, and safe to send again."""
    assert REQUEST.path == f"/api/v2/service_accounts/{ACCOUNT}/access_tokens/{TOKEN}"
    assert (REQUEST.service_account_id, REQUEST.token_id) == (ACCOUNT, TOKEN)
    assert (REQUEST.operation.name, REQUEST.operation.method, REQUEST.operation.repeatable) == (
        "get_token",
        "GET",
        True,
    )


@pytest.mark.parametrize(
    ("token_id", "segment"),
    [
        ("../x", "..%2Fx"),
        ("a/b", "a%2Fb"),
        ("?", "%3F"),
        ("#", "%23"),
        ("%2F", "%252F"),
        ("%2e%2e", "%252e%252e"),
        ("...", "..."),
        (" ", "%20"),
        ("a+b", "a%2Bb"),
        ("a;b", "a%3Bb"),
        ("a\\b", "a%5Cb"),
        ("ü", "%C3%BC"),
    ],
)
def test_odd_ids_become_one_segment(token_id: str, segment: str) -> None:
    """Dots, slashes, question marks, percent signs and hashes reach the server as themselves."""
    assert get_token(ACCOUNT, token_id).path == f"/api/v2/service_accounts/{ACCOUNT}/access_tokens/{segment}"
    assert get_token(token_id, TOKEN).path == f"/api/v2/service_accounts/{segment}/access_tokens/{TOKEN}"


ids = (
    st.text(alphabet=st.characters())
    | st.text(alphabet="./%2eEfF?#\\;:@&=+ ab", max_size=12)
    | st.text(min_size=200, max_size=300)
    | st.sampled_from(
        [".", "..", "%2e%2e", "../..", "a/../b", "//", "?x=1", "#x", "\ud800", "\x00", "x" * 256, "x" * 257]
    )
)


@given(ids, ids)
def test_any_id_is_one_segment_or_refused(account: str, token_id: str) -> None:
    """No ID changes the path around it: each is refused, or comes out of its own segment exactly as it went in."""
    try:
        check_id("service_account_id", account, "get_token")
        check_id("token_id", token_id, "get_token")
    except InvalidArgumentError:
        with pytest.raises(InvalidArgumentError):
            get_token(account, token_id)
        return
    path = get_token(account, token_id).path
    segments = path.split("/")
    assert len(segments) == 7
    assert segments[:4] == ["", "api", "v2", "service_accounts"]
    assert segments[5] == "access_tokens"
    assert unquote(segments[4]) == account
    assert unquote(segments[6]) == token_id
    assert not {"", ".", ".."} & {*segments[1:]}
    assert not {"?", "#", ";", "\\"} & set(path)
    assert path.isascii()
    assert path.isprintable()


@pytest.mark.parametrize(("bad", "name"), [(("", "t"), "service_account_id"), (("sa", ".."), "token_id")])
def test_refused_ids_are_named(bad: tuple[str, str], name: str) -> None:
    """The error says which of the two IDs cannot be one, and for which operation."""
    with pytest.raises(InvalidArgumentError, match=f"^{name} ") as caught:
        get_token(*bad)
    assert caught.value.operation == "get_token"


@pytest.mark.parametrize(
    ("request_", "name", "method", "path", "token_id", "repeatable", "safe"),
    [
        (LIST, "list_tokens", "GET", "?page%5Bsize%5D=100&page%5Bnumber%5D=0", None, True, True),
        (CREATE, "create_token", "POST", "", None, False, False),
        (UPDATE, "update_token", "PATCH", f"/{TOKEN}", TOKEN, True, False),
        (REVOKE, "revoke_token", "DELETE", f"/{TOKEN}", TOKEN, True, False),
    ],
)
def test_the_other_documented_requests(
    request_: Request[Any], name: str, method: str, path: str, token_id: str | None, repeatable: bool, safe: bool
) -> None:
    """Method and path of each, what it is about, and that a create is the one that is never sent twice."""
    assert request_.path == f"/api/v2/service_accounts/{ACCOUNT}/access_tokens{path}"
    assert (request_.service_account_id, request_.token_id) == (ACCOUNT, token_id)
    operation = request_.operation
    assert (operation.name, operation.method, operation.repeatable, operation.safe) == (name, method, repeatable, safe)


def recorded(case: str, **attributes: Any) -> bytes:
    """Return a recorded body without its spaces, with more attributes if there are any."""
    body = json.loads((SAMPLES / case / "request.json").read_text())
    body["data"]["attributes"] |= attributes
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


RECORDED_ID = "9d4b2c6e-8f01-4723-a5b9-e1c3d5f7092b"
SOON = datetime(2027, 4, 8, 18, 45, 35, 914000, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (REQUEST, None),
        (LIST, None),
        (REVOKE, None),
        (CREATE, recorded("create")),
        (
            create_token(ACCOUNT, name="Ü", scopes=("a", "b"), expires_at=SOON),
            recorded("create", name="Ü", scopes=["a", "b"], expires_at="2027-04-08T16:45:35.914000Z"),
        ),
        (update_token(ACCOUNT, RECORDED_ID, name="deploy-bot-2", scopes=None), recorded("update")),
        (
            update_token(ACCOUNT, RECORDED_ID, name="deploy-bot-2", scopes=["a"]),
            recorded("update", scopes=["a"]),
        ),
        (
            update_token(ACCOUNT, RECORDED_ID, name=None, scopes=["a"]),
            recorded("update", scopes=["a"]).replace(b'"name":"deploy-bot-2",', b""),
        ),
    ],
)
def test_bodies_are_the_recorded_ones(request_: Request[Any], body: bytes | None) -> None:
    """A body is as recorded, to the byte but for spaces, and holds nothing that was not given; the others have none."""
    assert request_.body == body


def test_each_request_is_all_that_has_to_be_sent() -> None:
    """A request holds its operation, its IDs, its body, and how to find out what became of it."""
    requests: list[Request[Any]] = [
        get_token("sa", "t1"),
        list_tokens("sa", filter_=None, sort=None, size=7, number=3),
        create_token("sa", name="n", scopes=["a"], expires_at=datetime(2999, 1, 1, tzinfo=UTC)),
        update_token("sa", "t1", name="n", scopes=["a"]),
        update_token("sa", "t1", name=None, scopes=["a"]),
        revoke_token("sa", "t1"),
    ]
    one, everything = "/api/v2/service_accounts/sa/access_tokens/t1", "/api/v2/service_accounts/sa/access_tokens"
    new = {"attributes": {"name": "n", "scopes": ["a"], "expires_at": "2999-01-01T00:00:00Z"}}
    both, scopes = {"attributes": {"name": "n", "scopes": ["a"]}}, {"attributes": {"scopes": ["a"]}}
    kind, update = {"type": "service_access_tokens"}, {"id": "t1", "type": "service_access_tokens"}
    modified = "get_token shows whether it was done: by a modified_at of {since} or later"
    assert [
        (
            request.operation.name,
            request.path,
            request.service_account_id,
            request.token_id,
            None if request.body is None else json.loads(request.body)["data"],
            request.trace,
        )
        for request in requests
    ] == [
        ("get_token", one, "sa", "t1", None, ""),
        ("list_tokens", f"{everything}?page%5Bsize%5D=7&page%5Bnumber%5D=3", "sa", None, None, ""),
        (
            "create_token",
            everything,
            "sa",
            None,
            new | kind,
            "look for a token created at {since} or later and named 'n' (list_tokens, sort='-created_at')",
        ),
        ("update_token", one, "sa", "t1", both | update, modified),
        ("update_token", one, "sa", "t1", scopes | update, modified),
        ("revoke_token", one, "sa", "t1", None, "get_token shows whether it was done: it finds no revoked token"),
    ]


@pytest.mark.parametrize(
    ("ask", "operation", "token_id"),
    [
        (lambda: list_tokens("sa", filter_=5, sort=None, size=1, number=0), "list_tokens", None),
        (lambda: create_token("sa", name="", scopes=["a"], expires_at=None), "create_token", None),
        (lambda: create_token("sa", name="n", scopes=[], expires_at=None), "create_token", None),
        (lambda: update_token("sa", "t1", name="", scopes=None), "update_token", "t1"),
        (lambda: update_token("sa", "t1", name=None, scopes=[]), "update_token", "t1"),
        (lambda: update_token("sa", "t1", name=None, scopes=None), "update_token", "t1"),
    ],
)
def test_a_refusal_says_what_was_asked(ask: Callable[[], Any], operation: str, token_id: str | None) -> None:
    """An argument that cannot be right is refused with the operation and the IDs that it was for."""
    with pytest.raises(InvalidArgumentError) as caught:
        ask()
    error = caught.value
    assert (error.operation, error.service_account_id, error.token_id) == (operation, "sa", token_id)


def test_a_filter_and_a_sort_go_into_the_query() -> None:
    """Size and number of the page, the sort and the filter, each under the API's own name, and only those given."""
    request = list_tokens(ACCOUNT, filter_="a&b=c #?/+é", sort="-created_at", size=7, number=12)
    query = "page%5Bsize%5D=7&page%5Bnumber%5D=12&sort=-created_at&filter=a%26b%3Dc%20%23%3F%2F%2B%C3%A9"
    assert request.path == f"/api/v2/service_accounts/{ACCOUNT}/access_tokens?{query}"
    assert list_tokens(ACCOUNT, filter_="", sort=None, size=7, number=0).path.endswith("%5D=0&filter=")


@given(
    st.none() | st.text() | st.text(alphabet='&=;#?/+% []"\\\r\n\x00', max_size=9),
    st.sampled_from([None, "name", "-last_used_at"]),
    st.integers(1, 100),
    st.integers(0, 10**6),
)
def test_the_server_reads_the_query_as_it_was_given(
    filter_: str | None, sort: str | None, size: int, number: int
) -> None:
    """Whatever a filter is made of, two servers' ways of reading a query find exactly what was given."""
    path, _, query = list_tokens(ACCOUNT, filter_=filter_, sort=sort, size=size, number=number).path.partition("?")
    expected = {"page[size]": str(size), "page[number]": str(number), "sort": sort, "filter": filter_}
    given_ = {name: value for name, value in expected.items() if value is not None}
    assert path == f"/api/v2/service_accounts/{ACCOUNT}/access_tokens"
    assert parse_qsl(query, keep_blank_values=True, strict_parsing=True) == list(given_.items())
    assert dict(URL(f"http://x{path}?{query}", encoded=True).query) == given_
    assert query.isascii()
    assert query.isprintable()
    assert not {" ", "#", "/", "+"} & set(query)


ASK: list[Callable[[Any, Any], Request[Any]]] = [
    get_token,
    lambda account, _: list_tokens(account, filter_=None, sort=None, size=1, number=0),
    lambda account, _: create_token(account, name="n", scopes=["s"], expires_at=None),
    lambda account, token: update_token(account, token, name="n", scopes=None),
    revoke_token,
]


@pytest.mark.parametrize(("ask", "request_"), list(zip(ASK, REQUESTS, strict=True)))
def test_every_operation_encodes_its_ids(ask: Callable[[Any, Any], Request[Any]], request_: Request[Any]) -> None:
    """Odd IDs are one segment each in the path of every operation, and impossible ones are refused in its name."""
    path = ask("../a?b", "c/../d#").path.partition("?")[0]
    assert path.removesuffix("/c%2F..%2Fd%23") == "/api/v2/service_accounts/..%2Fa%3Fb/access_tokens"
    assert path.endswith("access_tokens") == (request_.token_id is None)
    for bad in ("", "..", None):
        with pytest.raises(InvalidArgumentError, match=r"^service_account_id ") as caught:
            ask(bad, TOKEN)
        assert caught.value.operation == request_.operation.name
        if request_.token_id is not None:
            with pytest.raises(InvalidArgumentError, match=r"^token_id ") as caught:
                ask(ACCOUNT, bad)
            assert (caught.value.operation, caught.value.service_account_id) == (request_.operation.name, ACCOUNT)


@pytest.mark.parametrize(
    ("ask", "text", "token_id"),
    [
        (lambda: create_token(ACCOUNT, name="", scopes=["s"], expires_at=None), "name must", None),
        (lambda: create_token(ACCOUNT, name="\ud800", scopes=["s"], expires_at=None), "name must", None),
        (lambda: create_token(ACCOUNT, name="n", scopes=[], expires_at=None), "scopes must", None),
        (lambda: create_token(ACCOUNT, name="n", scopes="s", expires_at=None), "scopes must", None),
        (lambda: create_token(ACCOUNT, name="n", scopes=["\udfff"], expires_at=None), "scopes must", None),
        (lambda: update_token(ACCOUNT, TOKEN, name="", scopes=None), "name must", TOKEN),
        (lambda: update_token(ACCOUNT, TOKEN, name="n", scopes=[]), "scopes must", TOKEN),
        (lambda: update_token(ACCOUNT, TOKEN, name=None, scopes="s"), "scopes must", TOKEN),
        (lambda: update_token(ACCOUNT, TOKEN, name=None, scopes=None), "give name, scopes or both", TOKEN),
        (lambda: list_tokens(ACCOUNT, filter_="\ud800", sort=None, size=1, number=0), "filter must", None),
        (lambda: list_tokens(ACCOUNT, filter_=None, sort="id", size=1, number=0), "sort must", None),
        (lambda: list_tokens(ACCOUNT, filter_=None, sort=None, size=101, number=0), "page_size must", None),
    ],
)
def test_what_cannot_be_sent_is_refused(ask: Callable[[], Request[Any]], text: str, token_id: str | None) -> None:
    """Each argument that cannot be right is named, with what the call was about."""
    with pytest.raises(InvalidArgumentError, match=f"^{text}") as caught:
        ask()
    assert caught.value.operation is not None
    assert (caught.value.service_account_id, caught.value.token_id) == (ACCOUNT, token_id)
    assert str(caught.value).isprintable()


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
    request_: Request[Any], answer: Reply, kind: type, repeated: bool
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
def test_an_undecodable_success_may_have_been_one(request_: Request[Any], answer: Reply, path: str) -> None:
    """A 2xx that cannot be read is final, counts as perhaps done, and leaves no frame that holds the body."""
    outcome = interpret(request_, answer, plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, InvalidResponseError)
    assert (outcome.error.path, outcome.fate) == (path, Fate.FINAL)
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
        assert outcome.fate is Fate.REFUSED


@pytest.mark.parametrize("body", [b"", b"404 page not found", b'{"errors": "none"}'])
def test_a_404_to_a_repeated_revoke_needs_no_words(body: bytes) -> None:
    """The status is what counts, whatever stands in the body."""
    assert interpret(REVOKE, reply(404, body), plain, repeated=True) is None


@pytest.mark.parametrize("status", [301, 400, 401, 403, 405, 408, 409, 410, 429, 500, 503])
def test_a_repeated_revoke_takes_nothing_else_as_done(status: int) -> None:
    """Any other failure of a repeated revoke is still one."""
    assert isinstance(interpret(REVOKE, reply(status), plain, repeated=True), Failure)


@ALL
@pytest.mark.parametrize("status", [100, 301, 307, 308])
def test_a_redirect_may_have_been_done(request_: Request[Any], status: int) -> None:
    """Whoever redirects may have done it before; it is not followed and not tried again."""
    outcome = interpret(request_, reply(status, Location="/elsewhere"), plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, TransportError)
    assert outcome.fate is Fate.FINAL


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
    assert outcome.fate is Fate.FINAL
    assert outcome.error.__traceback__ is None
    assert outcome.error.__context__ is None


def test_another_token_is_named_as_that() -> None:
    """Somebody else's token is refused in words that say so."""
    outcome = interpret(REQUEST, reply(200, b'{"data": {"id": "c0ffee00"}}'), plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, InvalidResponseError)
    assert outcome.error.reason == "another token than the one asked for"


@ALL
@pytest.mark.parametrize(
    ("status", "cls", "fate"),
    [
        (400, BadRequestError, Fate.REFUSED),
        (401, UnauthorizedError, Fate.REFUSED),
        (403, ForbiddenError, Fate.REFUSED),
        (404, NotFoundError, Fate.REFUSED),
        (405, APIError, Fate.REFUSED),
        (408, APIError, Fate.UNKNOWN),
        (409, ConflictError, Fate.REFUSED),
        (422, APIError, Fate.REFUSED),
        (429, RateLimitError, Fate.NOT_PROCESSED),
        (500, ServerError, Fate.UNKNOWN),
        (501, ServerError, Fate.FINAL),
        (502, ServerError, Fate.UNKNOWN),
        (503, ServerError, Fate.UNKNOWN),
        (504, ServerError, Fate.UNKNOWN),
        (505, ServerError, Fate.FINAL),
        (512, ServerError, Fate.UNKNOWN),
        (599, ServerError, Fate.UNKNOWN),
    ],
)
def test_error_status_gives_class_and_fate(
    request_: Request[Any], status: int, cls: type[APIError], fate: Fate
) -> None:
    """Each status has its class, and says what became of the request, the same for every operation."""
    outcome = interpret(request_, reply(status, b"<html>a proxy's page</html>"), plain)
    assert isinstance(outcome, Failure)
    assert type(outcome.error) is cls
    assert outcome.error.status == status
    assert outcome.fate is fate


@pytest.mark.parametrize("status", [100, 300, 301, 302, 303, 304, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is a final `TransportError` that says why."""
    outcome = interpret(REQUEST, reply(status, Location="https://evil.example/"), plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, TransportError)
    assert outcome.fate is Fate.FINAL
    assert f"answered {status}, and redirects are not followed" in str(outcome.error)


@pytest.mark.parametrize(
    ("status", "errors", "text"),
    [
        (400, ("Invalid token ID",), "the API answered 400 Bad Request: 'Invalid token ID'"),
        (
            403,
            ("Forbidden", "Permission required: service_account_write"),
            "the API answered 403 Forbidden: 'Forbidden'; 'Permission required: service_account_write'",
        ),
        (404, ("Access token not found",), "the API answered 404 Not Found: 'Access token not found'"),
        (409, ("Conflict",), "the API answered 409 Conflict: 'Conflict'"),
        (429, ("Too many requests",), "the API answered 429 Too Many Requests: 'Too many requests'"),
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
        ({"X-RateLimit-Reset": "0", "Retry-After": "3"}, 0.0),
        ({"X-RateLimit-Reset": "junk", "Retry-After": "3"}, 3.0),
        ({"Retry-After": "86400"}, 86_400.0),
        ({"Retry-After": "86401"}, None),
        ({"Retry-After": "junk"}, None),
        ({}, None),
    ],
)
def test_a_429_says_when_to_come_back(headers: dict[str, str], retry_after: float | None) -> None:
    """The reset counts before `Retry-After`, and a delay of more than a day is as good as none."""
    assert error(reply(429, headers=headers)).retry_after == retry_after


def test_a_5xx_keeps_a_long_retry_after() -> None:
    """How long a wait is too long is the policy's decision, so the error keeps what the server said."""
    assert error(reply(503, Retry_After="100000")).retry_after == 100_000.0


@pytest.mark.parametrize(
    "answer",
    [
        reply(400, f'{{"errors": ["bad key {KEY}", "{APP}"]}}'.encode()),
        reply(500, X_Request_Id=f"r-{KEY}"),
        reply(429, X_RateLimit_Name=f"limit of {APP}"),
    ],
)
def test_keys_that_a_server_echoes_are_masked(answer: Reply) -> None:
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
    outcome = interpret(REQUEST, reply(429, headers={name: "x" * 80 + KEY}), REDACT)
    assert isinstance(outcome, Failure)
    assert "can" not in f"{outcome.error} {vars(outcome.error)}"


def test_long_headers_are_cut() -> None:
    """A request ID and a limit's name keep a hundred characters."""
    failed = error(reply(429, X_Request_Id="r" * 5_000, X_RateLimit_Name="n" * 5_000))
    assert failed.request_id == "r" * 100
    assert failed.rate_limit == RateLimit(name="n" * 100)


# Rate-limit headers


@pytest.mark.parametrize(
    ("raw", "reset"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("007", 7.0),
        ("7.25", 7.25),
        ("7.", 7.0),
        ("7, 7", 7.0),
        ("7,7", 7.0),
        ("3, 7", 7.0),
        ("86400", 86_400.0),
        ("", None),
        ("-1", None),
        ("+7", None),
        ("1e3", None),
        ("0x10", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("7 s", None),
        ("7, soon", None),
        ("7,", None),
        (".5", None),
        ("\u0667", None),
        ("7\n7", None),
        ("86401", None),
        ("9" * 30, None),
        ("7" + " " * 500, None),
    ],
)
def test_reset_is_read_with_care(raw: str, reset: float | None) -> None:
    """Zero, fractions and a header sent twice are values; junk, negatives and delays over a day are no header."""
    rate = parse_rate_limit(reply(X_RateLimit_Limit="5", X_RateLimit_Reset=raw), plain)
    assert rate == RateLimit(limit=5, reset=reset)


@pytest.mark.parametrize(
    ("seconds", "date", "reset"),
    [
        (1_790_000_010, None, 6.75),
        (1_790_000_010, 1_790_000_000, 10.0),
        (1_790_000_010, 1_790_000_009, 1.0),
        (1_790_000_010, 1_790_000_010, 0.0),
        (1_790_000_010, 1_790_000_011, None),
        (1_790_000_010, 1_790_000_010 - DAY, float(DAY)),
        (1_790_000_010, 1_790_000_009 - DAY, None),
    ],
)
def test_a_unix_time_is_read_against_the_answer_s_date(seconds: int, date: int | None, reset: float | None) -> None:
    """A reset too large to be a delay is a time on the server's clock; the local one counts only without `Date`."""
    headers = {"X-RateLimit-Limit": "5", "X-RateLimit-Reset": str(seconds)}
    if date is not None:
        headers["Date"] = formatdate(date, usegmt=True)
    assert parse_rate_limit(reply(headers=headers), plain) == RateLimit(limit=5, reset=reset)


@pytest.mark.parametrize(
    ("name", "raw", "rate"),
    [
        ("Limit", "100", RateLimit(limit=100)),
        ("Limit", "100, 60", RateLimit(limit=60)),
        ("Remaining", "42", RateLimit(remaining=42)),
        ("Remaining", "0", RateLimit(remaining=0)),
        ("Remaining", "9, 3", RateLimit(remaining=3)),
        ("Remaining", "4.9", RateLimit(remaining=4)),
        ("Period", "3600", RateLimit(period=3600.0)),
        ("Period", "10, 60", RateLimit(period=60.0)),
        ("Period", "0.5", RateLimit(period=0.5)),
        ("Period", "86400", RateLimit(period=86_400.0)),
        ("Name", "tokens_v2", RateLimit(name="tokens_v2")),
        ("Limit", "many", None),
        ("Limit", "-1", None),
        ("Limit", "0", None),
        ("Remaining", "-1", None),
        ("Period", "0", None),
        ("Period", "86401", None),
        ("Period", "-10", None),
        ("Name", "", None),
        ("Reset", "never", None),
        ("Reset", "99999999999", None),
    ],
)
def test_each_header_alone(name: str, raw: str, rate: RateLimit | None) -> None:
    """Each header counts by itself; the careful one of two; and where nothing usable was said, there is no limit."""
    assert parse_rate_limit(reply(headers={f"x-ratelimit-{name.lower()}": raw}), plain) == rate


def test_no_headers_are_no_rate_limit() -> None:
    """An answer without rate-limit headers says nothing about a quota."""
    assert parse_rate_limit(reply(Date="Mon, 01 Jun 2026 00:00:00 GMT", Retry_After="5"), plain) is None


# Retry-After

SENT = 1_790_000_000


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("120", 120.0),
        ("0.5", 0.5),
        ("5, 5", 5.0),
        ("0", None),
        ("-5", None),
        ("", None),
        ("soon", None),
        ("1e3", None),
        (formatdate(SENT + 30, usegmt=True), 30.0),
        (formatdate(SENT, usegmt=True), None),
        (formatdate(SENT - 30, usegmt=True), None),
        ("Mon, 21 Sep 2026 16:13:50 +0200", 30.0),
        ("Fri, 99 Zzz 2026 00:00:00 GMT", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(raw: str, seconds: float | None) -> None:
    """A number or an HTTP date read against the answer's own; what is over or junk is no header."""
    answer = reply(503, Date=formatdate(SENT, usegmt=True), Retry_After=raw)
    assert parse_retry_after(answer) == seconds


def test_retry_after_date_counts_from_the_local_clock_without_a_date() -> None:
    """Without `Date` the time of arrival stands in."""
    assert parse_retry_after(reply(503, Retry_After=formatdate(SENT + 30, usegmt=True))) == SENT + 30 - NOW


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "XXX-05:30"])
def test_http_dates_are_utc_whatever_the_local_timezone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The obsolete asctime form, which names no zone, is UTC by RFC 9110, and so is the usual one."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        moment = time.gmtime(SENT + 30)
        for raw in (time.asctime(moment), formatdate(SENT + 30, usegmt=True)):
            assert parse_retry_after(reply(503, Date=formatdate(SENT, usegmt=True), Retry_After=raw)) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


# Whatever a server sends

numberish = st.text(alphabet="0123456789.,-+ eE", max_size=12)
dateish = st.from_regex(
    r"([A-Z][a-z]{2}, )?[0-9]{1,2} (Jan|Jun|Dec|Zzz) [0-9]{1,5} "
    r"[0-9]{1,2}[:.][0-9]{1,2}([:.][0-9]{1,2}){0,2}( (GMT|EST|Z|[+-][0-9]{1,9}))?",
    fullmatch=True,
)
anything = st.text() | numberish | dateish | st.integers().map(str) | st.floats().map(str)
NAMES = [
    *(f"X-RateLimit-{part}" for part in ("Limit", "Period", "Remaining", "Reset", "Name")),
    "Retry-After",
    "Date",
    "X-Request-Id",
]


@given(st.dictionaries(st.sampled_from(NAMES), anything), st.sampled_from([200, 403, 429, 503]))
@example({"Retry-After": "1 Jan 0001 00:00:00", "Date": "1 Jan 9999 00:00:00 -2300"}, 503)
@example({"Retry-After": "Wed, 3 Apr 2002 12.34.56.78+0800", "Date": "17 June , 2022"}, 503)
@example({"Date": "1 Jan 2020 00:00:00 +99999999999999999999", "X-RateLimit-Reset": "99999999999999999999"}, 429)
def test_any_headers_give_values_in_range(headers: dict[str, str], status: int) -> None:
    """No text in any header raises, and what is read is finite, not negative, and no longer than a day."""
    answer = reply(status, headers=headers)
    rate = parse_rate_limit(answer, plain)
    assert rate != RateLimit()
    if rate is not None:
        assert rate.limit is None or rate.limit >= 1
        assert rate.remaining is None or rate.remaining >= 0
        assert rate.period is None or 0 < rate.period <= DAY
        assert rate.reset is None or 0 <= rate.reset <= DAY
        assert rate.name is None or 0 < len(rate.name) <= 100
    wait = parse_retry_after(answer)
    assert wait is None or (wait > 0 and math.isfinite(wait))
    outcome = interpret(REQUEST, answer, plain)
    assert isinstance(outcome, Failure)
    if status == 429:
        assert isinstance(outcome.error, RateLimitError)
        assert outcome.error.retry_after is None or 0 <= outcome.error.retry_after <= DAY


@given(st.sampled_from(REQUESTS), st.integers(100, 599), st.binary(), st.booleans())
def test_any_reply_is_a_value_or_a_failure(request_: Request[Any], status: int, body: bytes, repeated: bool) -> None:
    """Interpreting never raises, whatever operation, status and body."""
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
