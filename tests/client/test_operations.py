"""List, create, update and revoke: what goes out and what comes back. aiohttp is replaced."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from aioresponses import aioresponses
from support.keys import ACCOUNT
from support.mocked import TOKENS, US1, sent
from support.payloads import resource
from support.samples import SAMPLES
from yarl import URL

from dd_sa_tokens import (
    APIError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    InvalidArgumentError,
    NotFoundError,
    TokensClient,
)

US1_TOKENS = f"https://api.datadoghq.com{TOKENS}"
FAR = datetime(2999, 4, 8, 18, 45, 35, 914000, tzinfo=timezone(timedelta(hours=2)))


# List, create, update and revoke


def answered(case: str, status: int = 200) -> dict[str, Any]:
    """Return a recorded answer."""
    document: dict[str, Any] = json.loads((SAMPLES / case / f"{status}.json").read_text())
    return document


def page(numbers: range, total: int) -> dict[str, Any]:
    meta = {"page": {"total_filtered_count": total}}
    return {"data": [resource(f"t{number}") for number in numbers], "meta": meta}


def page_url(number: int, size: int = 100, **more: str) -> str:
    query = {"page[size]": str(size), "page[number]": str(number)} | more
    return str(URL(US1_TOKENS).with_query(query))


def only_request(mocked: aioresponses) -> tuple[str, URL, bytes | None, dict[str, str]]:
    """Return the one request that went out: method, URL, body and headers."""
    [(method, url, options)] = sent(mocked)
    assert options["allow_redirects"] is False
    return method, url, options.get("data"), dict(options["headers"])


@pytest.mark.parametrize(("case", "count"), [("list", 2), ("list_empty", 0)])
async def test_a_list_is_the_documented_request(
    mocked: aioresponses, client: TokensClient, case: str, count: int
) -> None:
    """A list is a GET of its pages, the first one being number 0, without a body; its tokens are those of a get."""
    mocked.get(page_url(0), payload=answered(case))
    tokens = [token async for token in client.list_tokens(ACCOUNT)]
    assert [token.name for token in tokens] == ["nightly-export", "billing-sync"][:count]
    method, url, body, headers = only_request(mocked)
    assert (method, url.path, body) == ("GET", TOKENS, None)
    assert dict(url.query) == {"page[size]": "100", "page[number]": "0"}
    assert headers.keys() == {"Accept", "Accept-Encoding", "User-Agent"}  # the keys are added as a request leaves


async def test_a_list_s_options_go_into_its_query(mocked: aioresponses, client: TokensClient) -> None:
    """Filter, sort and page size are those of every page, and the tokens come in the pages' order."""
    more = {"sort": "-created_at", "filter": "a&b=ü"}
    for number in range(3):
        mocked.get(page_url(number, 2, **more), payload=page(range(2 * number, min(2 * number + 2, 5)), 5))
    tokens = client.list_tokens(ACCOUNT, filter="a&b=ü", sort="-created_at", page_size=2)
    assert [token.id async for token in tokens] == ["t0", "t1", "t2", "t3", "t4"]
    queries = [dict(url.query) for _, url, _ in sent(mocked)]
    assert queries == [{"page[size]": "2", "page[number]": str(number)} | more for number in range(3)]


async def test_a_create_is_the_recorded_request(mocked: aioresponses, client: TokensClient) -> None:
    """A create is a POST of the recorded JSON; it gives the token and, once, its key."""
    mocked.post(US1_TOKENS, status=201, payload=answered("create", 201), content_type="application/vnd.api+json")
    created = await client.create_token(ACCOUNT, name="deploy-bot", scopes=["dashboards_read"])
    assert created.key.reveal() == "ddsat_4RsLg6IwOz0KvFh7YeBuJm_not-a-real-key"
    assert (created.token.name, created.token.scopes) == ("deploy-bot", ("dashboards_read",))
    assert (created.token.expires_at, created.token.last_used_at) == (None, None)
    assert created.token.created_at == datetime(2026, 5, 11, 19, 22, 48, 305117, tzinfo=UTC)
    method, url, body, headers = only_request(mocked)
    assert (method, url) == ("POST", URL(US1_TOKENS))
    assert json.loads(body or b"") == json.loads((SAMPLES / "create" / "request.json").read_text())
    assert b" " not in (body or b"")
    assert headers["Content-Type"] == "application/json"
    assert headers["Accept"] == "application/json"


@pytest.mark.parametrize("scopes", [["a", "b"], ("a", "b"), {"a": 1, "b": 2}.keys()])
async def test_a_create_with_all_that_there_is(mocked: aioresponses, client: TokensClient, scopes: Any) -> None:
    """Scopes from any collection are sent as an array, and the end of its life in UTC."""
    mocked.post(US1_TOKENS, status=201, payload=answered("create", 201))
    await client.create_token(ACCOUNT, name="Ü", scopes=scopes, expires_at=FAR)
    _, _, body, _ = only_request(mocked)
    attributes = '{"name":"Ü","scopes":["a","b"],"expires_at":"2999-04-08T16:45:35.914000Z"}'
    assert (body or b"").decode() == f'{{"data":{{"attributes":{attributes},"type":"service_access_tokens"}}}}'


async def test_an_update_is_the_recorded_request(mocked: aioresponses, client: TokensClient) -> None:
    """An update is a PATCH of the recorded JSON, with what changes and nothing else, and gives the token as it is."""
    token_id = answered("update")["data"]["id"]
    mocked.patch(f"{US1_TOKENS}/{token_id}", payload=answered("update"))
    token = await client.update_token(ACCOUNT, token_id, name="deploy-bot-2")
    assert (token.id, token.name, token.scopes) == (token_id, "deploy-bot-2", ("dashboards_read",))
    assert token.modified_at == datetime(2026, 5, 11, 19, 22, 49, 17503, tzinfo=UTC)
    method, url, body, headers = only_request(mocked)
    assert (method, url) == ("PATCH", URL(f"{US1_TOKENS}/{token_id}"))
    assert json.loads(body or b"") == json.loads((SAMPLES / "update" / "request.json").read_text())
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("change", [{"scopes": ("a", "b")}, {"name": "n", "scopes": {"a"}}])
async def test_an_update_sends_what_changes(mocked: aioresponses, client: TokensClient, change: dict[str, Any]) -> None:
    """Scopes replace scopes and a name a name; what is not given is not in the body."""
    mocked.patch(US1, payload={"data": resource()})
    await client.update_token(ACCOUNT, "t1", **change)
    _, _, body, _ = only_request(mocked)
    expected = change | {"scopes": list(change["scopes"])}
    data = {"attributes": expected, "id": "t1", "type": "service_access_tokens"}
    assert json.loads(body or b"") == {"data": data}


@pytest.mark.parametrize(("status", "body"), [(204, ""), (200, "{}"), (202, "")])
async def test_a_revoke_is_the_recorded_request(
    mocked: aioresponses, client: TokensClient, status: int, body: str
) -> None:
    """A revoke is a DELETE without a body, and gives nothing."""
    mocked.delete(US1, status=status, body=body)
    assert await client.revoke_token(ACCOUNT, "t1") is None
    method, url, sent_body, headers = only_request(mocked)
    assert (method, url, sent_body) == ("DELETE", URL(US1), None)
    assert "Content-Type" not in headers


Call = Callable[[TokensClient], Awaitable[object]]


async def read_list(client: TokensClient) -> list[Any]:
    return [token async for token in client.list_tokens(ACCOUNT)]


CALLS: dict[str, Call] = {
    "list_tokens": read_list,
    "create_token": lambda client: client.create_token(ACCOUNT, name="n", scopes=["s"]),
    "update_token": lambda client: client.update_token(ACCOUNT, "t1", name="n"),
    "revoke_token": lambda client: client.revoke_token(ACCOUNT, "t1"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequestError), (403, ForbiddenError), (404, NotFoundError), (409, ConflictError)]
)
async def test_every_call_s_refusal_says_what_it_was_about(
    mocked: aioresponses, client: TokensClient, request: pytest.FixtureRequest, call: Call, status: int, kind: type
) -> None:
    """A refusal names the call and its IDs, and leaves no doubt that nothing was done."""
    for method in ("GET", "POST", "PATCH", "DELETE"):
        for url in (US1, US1_TOKENS, page_url(0)):
            mocked.add(url, method, status=status, payload={"errors": ["no"]})
    with pytest.raises(APIError) as caught:
        await call(client)
    name = request.node.callspec.id.rpartition("-")[2]
    error = caught.value
    assert type(error) is kind
    assert (error.operation, error.service_account_id) == (name, ACCOUNT)
    assert error.token_id == ("t1" if name in {"update_token", "revoke_token"} else None)
    assert (error.errors, error.attempts, error.outcome_unknown) == (("no",), 1, False)
    assert "look" not in str(error)
    assert len(sent(mocked)) == 1


BAD: list[tuple[Callable[[TokensClient], Any], str]] = [
    (lambda client: client.list_tokens(""), "service_account_id"),
    (lambda client: client.list_tokens(ACCOUNT, filter=5), "filter"),
    (lambda client: client.list_tokens(ACCOUNT, sort="id"), "sort"),
    (lambda client: client.list_tokens(ACCOUNT, page_size=0), "page_size"),
    (lambda client: client.list_tokens(ACCOUNT, page_size=101), "page_size"),
    (lambda client: client.create_token("..", name="n", scopes=["s"]), "service_account_id"),
    (lambda client: client.create_token(ACCOUNT, name="", scopes=["s"]), "name"),
    (lambda client: client.create_token(ACCOUNT, name=5, scopes=["s"]), "name"),
    (lambda client: client.create_token(ACCOUNT, name="n", scopes="s"), "scopes"),
    (lambda client: client.create_token(ACCOUNT, name="n", scopes=[]), "scopes"),
    *(
        (
            lambda client, expires_at=expires_at: client.create_token(
                ACCOUNT, name="n", scopes=["s"], expires_at=expires_at
            ),
            "expires_at",
        )
        for expires_at in (
            "2999-01-01T00:00:00Z",
            32_503_680_000,
            FAR.date(),
            FAR.replace(tzinfo=None),
            datetime.now(UTC),
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        )
    ),
    (lambda client: client.update_token(ACCOUNT, "", name="n"), "token_id"),
    (lambda client: client.update_token(ACCOUNT, "t1"), "name, scopes or both"),
    (lambda client: client.update_token(ACCOUNT, "t1", name=""), "name"),
    (lambda client: client.update_token(ACCOUNT, "t1", scopes=()), "scopes"),
    (lambda client: client.update_token(ACCOUNT, "t1", name="n", scopes="s"), "scopes"),
    (lambda client: client.revoke_token(ACCOUNT, "."), "token_id"),
    (lambda client: client.revoke_token(None, "t1"), "service_account_id"),
]


@pytest.mark.parametrize(("call", "named"), BAD)
async def test_a_bad_argument_is_refused_before_anything_is_sent(
    mocked: aioresponses, client: TokensClient, call: Callable[[TokensClient], Any], named: str
) -> None:
    """What cannot be right is named by an `InvalidArgumentError`, by a list, too, when it is called and not later."""
    with pytest.raises(InvalidArgumentError, match=named) as caught:
        await call(client)  # a list is not awaited: it has to raise before
    assert caught.value.operation in CALLS
    assert caught.value.attempts == 0
    assert not isinstance(caught.value, ConfigurationError)
    mocked.assert_not_called()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_call_works_on_a_closed_client(mocked: aioresponses, client: TokensClient, call: Call) -> None:
    """After `close` each call raises `ClientClosedError`, sends nothing, and leaves no doubt about it."""
    await client.close()
    with pytest.raises(ClientClosedError) as caught:
        await call(client)
    assert (caught.value.attempts, caught.value.outcome_unknown) == (0, False)
    mocked.assert_not_called()


async def test_a_closed_client_s_list_is_refused_when_it_is_called(client: TokensClient) -> None:
    """A list of a closed client is refused at once, and an earlier one ends with the same error."""
    tokens = client.list_tokens(ACCOUNT)
    await client.close()
    with pytest.raises(ClientClosedError):
        client.list_tokens(ACCOUNT)
    with pytest.raises(ClientClosedError):
        await anext(tokens)
