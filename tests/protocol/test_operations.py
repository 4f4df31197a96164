"""Requests: paths, queries and bodies that name exactly what was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.requests import (
    ACCOUNT,
    CREATE,
    LIST,
    RECORDED_ID,
    REQUEST,
    REQUESTS,
    REVOKE,
    TOKEN,
    UPDATE,
)
from support.samples import SAMPLES
from yarl import URL

from dd_sa_tokens import (
    InvalidArgumentError,
)
from dd_sa_tokens._protocol.operations import (
    ListOptions,
    Request,
    create_token,
    get_token,
    list_tokens,
    revoke_token,
    update_token,
)
from dd_sa_tokens._validation import check_id

# Requests


def test_get_token_is_the_documented_request() -> None:
    """GET, the documented path, and safe to send again."""
    assert REQUEST.path == f"/api/v2/service_accounts/{ACCOUNT}/access_tokens/{TOKEN}"
    assert (REQUEST.service_account_id, REQUEST.token_id) == (ACCOUNT, TOKEN)
    assert (REQUEST.operation.name, REQUEST.operation.method, REQUEST.operation.idempotent) == (
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
    assert (operation.name, operation.method, operation.idempotent, operation.safe) == (name, method, repeatable, safe)


def recorded(case: str, **attributes: Any) -> bytes:
    """Return a recorded body without its spaces, with more attributes if there are any."""
    body = json.loads((SAMPLES / case / "request.json").read_text())
    body["data"]["attributes"] |= attributes
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


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
        list_tokens("sa", ListOptions(size=7), 3),
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
            request.how_to_verify,
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
        (lambda: list_tokens("sa", ListOptions(filter=5, size=1), 0), "list_tokens", None),
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
    request = list_tokens(ACCOUNT, ListOptions(filter="a&b=c #?/+é", sort="-created_at", size=7), 12)
    query = "page%5Bsize%5D=7&page%5Bnumber%5D=12&sort=-created_at&filter=a%26b%3Dc%20%23%3F%2F%2B%C3%A9"
    assert request.path == f"/api/v2/service_accounts/{ACCOUNT}/access_tokens?{query}"
    assert list_tokens(ACCOUNT, ListOptions(filter="", size=7), 0).path.endswith("%5D=0&filter=")


@given(
    st.none() | st.text() | st.text(alphabet='&=;#?/+% []"\\\r\n\x00', max_size=9),
    st.sampled_from([None, "name", "-last_used_at"]),
    st.integers(1, 100),
    st.integers(0, 10**6),
)
def test_the_server_reads_the_query_as_it_was_given(
    filter_: str | None, sort: str | None, size: int, number: int
) -> None:
    """Two servers' ways of reading a query find exactly the filter that was given, for any text."""
    path, _, query = list_tokens(ACCOUNT, ListOptions(filter=filter_, sort=sort, size=size), number).path.partition("?")
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
    lambda account, _: list_tokens(account, ListOptions(size=1), 0),
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
        (lambda: list_tokens(ACCOUNT, ListOptions(filter="\ud800", size=1), 0), "filter must", None),
        (lambda: list_tokens(ACCOUNT, ListOptions(sort="id", size=1), 0), "sort must", None),
        (lambda: list_tokens(ACCOUNT, ListOptions(size=101), 0), "page_size must", None),
    ],
)
def test_what_cannot_be_sent_is_refused(ask: Callable[[], Request[Any]], text: str, token_id: str | None) -> None:
    """Each argument that cannot be right is named, with what the call was about."""
    with pytest.raises(InvalidArgumentError, match=f"^{text}") as caught:
        ask()
    assert caught.value.operation is not None
    assert (caught.value.service_account_id, caught.value.token_id) == (ACCOUNT, token_id)
    assert str(caught.value).isprintable()
