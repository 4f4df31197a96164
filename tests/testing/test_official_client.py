"""Datadog's own Python client, unchanged, against the fake server: what it makes of the answers is what they mean."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from dd_sa_tokens import AccessToken
from dd_sa_tokens.models import Leak
from dd_sa_tokens.testing import FakeDatadog

pytest.importorskip("datadog_api_client", reason="Datadog's own client is not installed (extra `peers`)")

from datadog_api_client import ApiClient, AsyncApiClient, Configuration
from datadog_api_client.exceptions import (
    ApiException,
    ForbiddenException,
    NotFoundException,
    ServiceException,
    UnauthorizedException,
)
from datadog_api_client.v2.api.key_management_api import KeyManagementApi
from datadog_api_client.v2.api.service_accounts_api import ServiceAccountsApi
from datadog_api_client.v2.api.users_api import UsersApi
from datadog_api_client.v2.model.access_token_list_item import AccessTokenListItem
from datadog_api_client.v2.model.full_service_access_token import FullServiceAccessToken
from datadog_api_client.v2.model.list_personal_access_tokens_response import ListPersonalAccessTokensResponse
from datadog_api_client.v2.model.list_service_access_tokens_response import ListServiceAccessTokensResponse
from datadog_api_client.v2.model.permission import Permission
from datadog_api_client.v2.model.personal_access_tokens_include_query_parameter_item import (
    PersonalAccessTokensIncludeQueryParameterItem,
)
from datadog_api_client.v2.model.personal_access_tokens_sort import PersonalAccessTokensSort
from datadog_api_client.v2.model.query_sort_order import QuerySortOrder
from datadog_api_client.v2.model.role import Role
from datadog_api_client.v2.model.service_access_token import ServiceAccessToken
from datadog_api_client.v2.model.service_access_token_create_response import ServiceAccessTokenCreateResponse
from datadog_api_client.v2.model.service_access_token_response import ServiceAccessTokenResponse
from datadog_api_client.v2.model.service_access_tokens_type import ServiceAccessTokensType
from datadog_api_client.v2.model.service_account_access_token_create_attributes import (
    ServiceAccountAccessTokenCreateAttributes,
)
from datadog_api_client.v2.model.service_account_access_token_create_data import ServiceAccountAccessTokenCreateData
from datadog_api_client.v2.model.service_account_access_token_create_request import (
    ServiceAccountAccessTokenCreateRequest,
)
from datadog_api_client.v2.model.service_account_access_token_update_attributes import (
    ServiceAccountAccessTokenUpdateAttributes,
)
from datadog_api_client.v2.model.service_account_access_token_update_data import ServiceAccountAccessTokenUpdateData
from datadog_api_client.v2.model.service_account_access_token_update_request import (
    ServiceAccountAccessTokenUpdateRequest,
)
from datadog_api_client.v2.model.updated_service_access_token import UpdatedServiceAccessToken
from datadog_api_client.v2.model.updated_service_access_token_response import UpdatedServiceAccessTokenResponse
from datadog_api_client.v2.model.user import User
from datadog_api_client.v2.model.user_response import UserResponse
from datadog_api_client.v2.model.users_response import UsersResponse

TYPE = ServiceAccessTokensType.SERVICE_ACCESS_TOKENS


class Call(Protocol):
    """Call one of the official client's methods by its name, and return what it made of the answer."""

    def __call__(self, method: str, /, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...


Connect = Callable[..., Call]


def configured(datadog: FakeDatadog, **options: Any) -> Configuration:
    """Point the official client at the server, by its public settings, and sign with the pair of keys or otherwise."""
    keys = {"apiKeyAuth": datadog.api_key, "appKeyAuth": datadog.app_key}
    return Configuration(**{"host": datadog.url, "api_key": keys} | options)


def method_of(client: Any, name: str) -> Callable[..., Any]:
    """Return a method of the one of its APIs that has it."""
    (api,) = (api for api in (ServiceAccountsApi, KeyManagementApi, UsersApi) if hasattr(api, name))
    method: Callable[..., Any] = getattr(api(client), name)
    return method


@pytest.fixture(params=["sync", "async"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Make official clients, synchronous ones (in a thread) and asynchronous ones; they are closed with the test."""
    threaded: list[ApiClient] = []
    asynchronous: list[AsyncApiClient] = []

    def connect_sync(datadog: FakeDatadog, **options: Any) -> Call:
        client = ApiClient(configured(datadog, **options))
        threaded.append(client)
        return lambda method, /, *args, **kwargs: asyncio.to_thread(method_of(client, method), *args, **kwargs)

    def connect_async(datadog: FakeDatadog, **options: Any) -> Call:
        client = AsyncApiClient(configured(datadog, **options))
        asynchronous.append(client)
        return lambda method, /, *args, **kwargs: method_of(client, method)(*args, **kwargs)

    yield connect_sync if request.param == "sync" else connect_async
    for client in threaded:
        client.close()
    for client in asynchronous:
        await client.__aexit__(None, None, None)


def test_synchronous_code(fake_datadog: FakeDatadog) -> None:
    """The fixture of the pytest plugin serves the official client in a test without an event loop."""
    with ApiClient(configured(fake_datadog)) as client:
        api = ServiceAccountsApi(client)
        answer = api.list_service_account_access_tokens(fake_datadog.service_account_id, page_size=100)
    assert [token.id for token in answer.data] == fake_datadog.token_ids


def creation(name: str, scopes: list[str], **optional: Any) -> ServiceAccountAccessTokenCreateRequest:
    attributes = ServiceAccountAccessTokenCreateAttributes(name=name, scopes=scopes, **optional)
    return ServiceAccountAccessTokenCreateRequest(ServiceAccountAccessTokenCreateData(attributes=attributes, type=TYPE))


def change(token_id: str, **attributes: Any) -> ServiceAccountAccessTokenUpdateRequest:
    return ServiceAccountAccessTokenUpdateRequest(
        ServiceAccountAccessTokenUpdateData(
            attributes=ServiceAccountAccessTokenUpdateAttributes(**attributes), id=token_id, type=TYPE
        )
    )


def read(resource: Any) -> AccessToken:
    """Turn what the official client has made of a token into ours, to compare the two."""
    optional = {
        name: resource.attributes.get(name) for name in ("created_at", "expires_at", "last_used_at", "modified_at")
    }
    assert all(type(value) in (datetime, type(None)) for value in optional.values())
    owner = resource.relationships.owned_by.data
    leaked = resource.relationships.get("leak_information")
    assert str(owner.type) == "service_account"
    return AccessToken(
        id=resource.id,
        name=resource.attributes.name,
        public_portion=resource.attributes.public_portion,
        scopes=tuple(resource.attributes.scopes),
        service_account_id=owner.id,
        type=str(resource.type),
        leak=Leak(leaked.data.id) if leaked and leaked.data else None,
        **optional,
    )


# ---- What it gets


async def test_get(connect: Connect) -> None:
    """Each sample token arrives as one of its model classes, with everything that the server holds."""
    async with FakeDatadog(tokens=30) as datadog:
        call = connect(datadog)
        for token in datadog.tokens:
            answer = await call("get_service_account_access_token", datadog.service_account_id, token.id)

            assert type(answer) is ServiceAccessTokenResponse
            assert type(answer.data) is ServiceAccessToken
            assert read(answer.data) == token


async def test_list(connect: Connect) -> None:
    """Lists arrive with their totals, by pages, sorted and filtered."""
    async with FakeDatadog(tokens=25) as datadog:
        call = connect(datadog)

        async def listed(**query: Any) -> tuple[list[AccessToken], int]:
            answer = await call("list_service_account_access_tokens", datadog.service_account_id, **query)
            assert type(answer) is ListServiceAccessTokensResponse
            assert {type(item) for item in answer.data} <= {ServiceAccessToken}
            return [read(item) for item in answer.data], answer.meta.page.total_filtered_count

        tokens = list(datadog.tokens)
        by_creation = sorted(tokens, key=lambda token: token.created_at or datetime.max.replace(tzinfo=UTC))
        ci = [token for token in tokens if "ci" in (token.name or "").casefold()]
        assert 1 < len(ci) < 10
        assert await listed() == (tokens[:10], 25)
        assert await listed(page_size=20, page_number=1) == (tokens[20:], 25)
        assert await listed(page_size=20, page_number=2) == ([], 25)
        ascending, descending = (
            PersonalAccessTokensSort.CREATED_AT_ASCENDING,
            PersonalAccessTokensSort.CREATED_AT_DESCENDING,
        )
        assert await listed(sort=ascending, page_size=100) == (by_creation, 25)
        assert await listed(sort=descending, page_size=3) == (by_creation[:-4:-1], 25)
        assert await listed(filter="CI") == (ci, len(ci))
        assert await listed(filter="no such name") == ([], 0)


async def test_list_of_all_sorts(connect: Connect) -> None:
    """It may sort by name, expiry and last use, too."""
    async with FakeDatadog(tokens=3) as datadog:
        call = connect(datadog)
        for sort in ("name", "-name", "expires_at", "-expires_at", "last_used_at", "-last_used_at"):
            answer = await call(
                "list_service_account_access_tokens", datadog.service_account_id, sort=PersonalAccessTokensSort(sort)
            )
            assert {item.id for item in answer.data} == set(datadog.token_ids)


# ---- Leaks, the whole organization, users

LEAKS = [PersonalAccessTokensIncludeQueryParameterItem.LEAK_INFORMATION]


def leaks_of(answer: Any) -> dict[str, Leak]:
    """Turn what the official client has made of the leaks into ours, by the IDs of the tokens."""
    included = {}
    for item in answer.included:
        leak = item.get_oneof_instance()
        source = leak.attributes.get("leak_source")
        included[leak.id] = Leak(leak.id, leak.attributes.date, source)
    rows = answer.data if isinstance(answer.data, list) else [answer.data]
    data = {row.id: row.relationships.leak_information.data for row in rows}
    return {token_id: included[leak.id] for token_id, leak in data.items() if leak is not None}


async def test_leaks(connect: Connect) -> None:
    """With `include`, gets and lists arrive with the leaks that the server holds; without it, with their IDs."""
    async with FakeDatadog(tokens=60) as datadog:
        call = connect(datadog)
        account = datadog.service_account_id
        leaked = [token for token in datadog.tokens if token.id in datadog.leaks]
        answer = await call("list_service_account_access_tokens", account, page_size=100, include=LEAKS)
        assert leaks_of(answer) == datadog.leaks != {}
        answer = await call("list_service_account_access_tokens", account, filter_leaked=True, include=LEAKS)
        assert (leaks_of(answer), answer.meta.page.total_filtered_count) == (datadog.leaks, len(leaked))
        answer = await call("list_personal_access_tokens", page_size=100, include=LEAKS)
        assert leaks_of(answer) == datadog.leaks
        for token in (*leaked, datadog.tokens[0]):
            one = await call("get_service_account_access_token", account, token.id, include=LEAKS)
            assert leaks_of(one) == {i: leak for i, leak in datadog.leaks.items() if i == token.id}
            plain = await call("get_service_account_access_token", account, token.id)
            assert "included" not in plain
            if token.id in datadog.leaks:
                assert plain.data.relationships.leak_information.data.id == datadog.leaks[token.id].id


async def test_organization(connect: Connect) -> None:
    """The organization's list arrives by pages, with both kinds of tokens, filtered by owners, leaks and names."""
    async with FakeDatadog(tokens=30, accounts=3) as datadog:
        call = connect(datadog)

        async def listed(**query: Any) -> tuple[list[Any], int]:
            answer = await call("list_personal_access_tokens", **query)
            assert type(answer) is ListPersonalAccessTokensResponse
            assert {type(row) for row in answer.data} <= {AccessTokenListItem}
            return answer.data, answer.meta.page.total_filtered_count

        rows, total = await listed(page_size=100)
        service = [row for row in rows if str(row.type) == "service_access_tokens"]
        personal = [row for row in rows if str(row.type) == "personal_access_tokens"]
        assert (len(rows), total, len(personal)) == (93, 93, 3)
        assert tuple(read(row) for row in service) == datadog.tokens
        assert {str(row.relationships.owned_by.data.type) for row in personal} == {"users"}
        assert [row.id for row in (await listed(page_size=40, page_number=2))[0]] == [row.id for row in rows[80:]]
        owners = datadog.service_account_ids[::2]
        found, total = await listed(filter_owned_by=owners, page_size=100)
        assert ({row.relationships.owned_by.data.id for row in found}, total) == ({*owners}, 60)
        found, _ = await listed(filter_leaked=True)
        assert {row.id for row in found} == {*datadog.leaks}
        found, _ = await listed(sort=PersonalAccessTokensSort.LEAKED_DESCENDING, page_size=len(datadog.leaks))
        assert {row.id for row in found} == {*datadog.leaks}
        found, _ = await listed(filter="LAPTOP")
        assert found == personal


async def test_users(connect: Connect) -> None:
    """Users arrive by pages, filtered and sorted, with their roles and permissions; one user is the same alone."""
    async with FakeDatadog(tokens=0, accounts=2, users=20) as datadog:
        call = connect(datadog)
        answer = await call("list_users", page_size=100)
        rows = {row.id: row for row in answer.data}
        assert type(answer) is UsersResponse
        assert {type(row) for row in answer.data} == {User}
        assert {type(item.get_oneof_instance()) for item in answer.included} == {Role, Permission}
        assert (answer.meta.page.total_filtered_count, answer.meta.page.total_count) == (22, 22)
        accounts = {row.id for row in rows.values() if row.attributes.service_account}
        assert accounts == {*datadog.service_account_ids}
        assert all(type(row.attributes.created_at) is datetime for row in rows.values())
        assert [row.id for row in (await call("list_users", page_size=20, page_number=1)).data] == [*rows][20:]
        account = datadog.service_account_ids[1]
        assert [row.id for row in (await call("list_users", filter=account)).data] == [account]
        one = await call("get_user", account)
        assert type(one) is UserResponse
        assert one.data == rows[account]
        names = [row.attributes.name for row in rows.values() if row.attributes.name]
        ordered = await call("list_users", sort="name", sort_dir=QuerySortOrder.DESC, page_size=len(names))
        assert [row.attributes.name for row in ordered.data] == sorted(names, reverse=True)


@pytest.mark.parametrize(
    ("method", "args"),
    [("list_personal_access_tokens", ()), ("list_users", ()), ("get_user", ("x",))],
)
async def test_missing_permissions(connect: Connect, method: str, args: tuple[str, ...]) -> None:
    """A missing permission is its `ForbiddenException`."""
    async with FakeDatadog(tokens=1, permissions=["service_account_write"]) as datadog:
        call = connect(datadog)
        with pytest.raises(ForbiddenException):
            await call(method, *args)
        assert (await call("list_service_account_access_tokens", datadog.service_account_id)).data


# ---- What it changes


@pytest.mark.parametrize("expires", [False, True])
async def test_create(connect: Connect, expires: bool) -> None:
    """A create arrives as the full model, with the key, and with an expiry where one was asked for."""
    expires_at = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    async with FakeDatadog(tokens=1) as datadog:
        call = connect(datadog)
        wanted = creation("größer", ["logs_read_data", "apm_read"], **({"expires_at": expires_at} if expires else {}))
        before = datetime.now(UTC)
        answer = await call("create_service_account_access_token", datadog.service_account_id, wanted)
        after = datetime.now(UTC)
        token = read(answer.data)
        got = await call("get_service_account_access_token", datadog.service_account_id, token.id)

    assert type(answer) is ServiceAccessTokenCreateResponse
    assert type(answer.data) is FullServiceAccessToken
    assert answer.data.attributes.key.startswith(f"{token.public_portion}_")
    assert (token.name, token.scopes) == ("größer", ("logs_read_data", "apm_read"))
    assert token.expires_at == (expires_at if expires else None)
    assert token.created_at is not None
    assert before <= token.created_at <= after
    assert "last_used_at" not in answer.data.attributes
    assert "modified_at" not in answer.data.attributes
    assert read(got.data) == token == datadog.tokens[1]
    assert "key" not in got.data.attributes


async def test_update(connect: Connect) -> None:
    """An update of the name or the scopes arrives as the updated model, with the moment of the change."""
    async with FakeDatadog(tokens=1) as datadog:
        call = connect(datadog)
        (before,) = datadog.tokens
        ids = (datadog.service_account_id, before.id)
        for attributes in ({"name": "renamed"}, {"scopes": ["usage_read"]}, {"name": "both", "scopes": ["a", "b"]}):
            answer = await call("update_service_account_access_token", *ids, change(before.id, **attributes))
            (held,) = datadog.tokens

            assert type(answer) is UpdatedServiceAccessTokenResponse
            assert type(answer.data) is UpdatedServiceAccessToken
            assert read(answer.data) == held
            assert held.modified_at is not None
            assert abs(datetime.now(UTC) - held.modified_at) < timedelta(seconds=30)
    assert (held.name, held.scopes, held.created_at) == ("both", ("a", "b"), before.created_at)


async def test_revoke(connect: Connect) -> None:
    """A revoke arrives as nothing; afterwards the token is not found by get, update or revoke."""
    async with FakeDatadog(tokens=2) as datadog:
        call = connect(datadog)
        ids = (datadog.service_account_id, datadog.token_ids[0])
        assert await call("revoke_service_account_access_token", *ids) is None
        for method, *body in (
            ("get_service_account_access_token",),
            ("update_service_account_access_token", change(ids[1], name="new")),
            ("revoke_service_account_access_token",),
        ):
            with pytest.raises(NotFoundException) as caught:
                await call(method, *ids, *body)
            assert (caught.value.status, caught.value.body) == (404, {"errors": ["Not Found"]})
    assert len(datadog.tokens) == 1


# ---- Credentials and errors


async def test_a_created_key_signs(connect: Connect) -> None:
    """The key that a create gave signs as a Bearer token and in the application key's place, until it is revoked."""
    async with FakeDatadog(tokens=1) as datadog:
        account = datadog.service_account_id
        call = connect(datadog)
        created = (await call("create_service_account_access_token", account, creation("new", ["a"]))).data
        key = created.attributes.key
        ways = [
            connect(datadog, api_key=None, access_token=key),
            connect(datadog, api_key={"appKeyAuth": key}),
        ]
        for signed in ways:
            answer = await signed("get_service_account_access_token", account, created.id)
            assert answer.data.id == created.id
        await call("revoke_service_account_access_token", account, created.id)
        for signed in ways:
            with pytest.raises(UnauthorizedException):
                await signed("list_service_account_access_tokens", account)


async def test_wrong_keys(connect: Connect) -> None:
    """Wrong keys are its `UnauthorizedException`, with the API's own words."""
    async with FakeDatadog(tokens=1) as datadog:
        for options in (
            {"api_key": {"apiKeyAuth": datadog.api_key, "appKeyAuth": "wrong"}},
            {"api_key": {"apiKeyAuth": "wrong", "appKeyAuth": datadog.app_key}},
            {"api_key": None, "access_token": "wrong"},
        ):
            with pytest.raises(UnauthorizedException) as caught:
                await connect(datadog, **options)("list_service_account_access_tokens", datadog.service_account_id)
            assert (caught.value.status, caught.value.body) == (401, {"errors": ["Unauthorized"]})


async def test_a_bad_request(connect: Connect) -> None:
    """What the API refuses is its `ApiException` with 400, and the text says why."""
    async with FakeDatadog(tokens=1) as datadog:
        call = connect(datadog)
        soon = creation("new", ["a"], expires_at=datetime.now(UTC) + timedelta(hours=1))
        for body, text in ((soon, "24 hours"), (creation("", ["a"]), "name"), (creation("new", []), "scopes")):
            with pytest.raises(ApiException) as caught:
                await call("create_service_account_access_token", datadog.service_account_id, body)
            assert caught.value.status == 400
            assert text in caught.value.body["errors"][0]


async def test_429s_without_retry(connect: Connect) -> None:
    """A 429 is its `ApiException`, whose headers say how long to wait."""
    async with FakeDatadog(tokens=1, rate_limit=(1, 3600.0), rate_limit_used=1) as datadog:
        with pytest.raises(ApiException) as caught:
            await connect(datadog)("list_service_account_access_tokens", datadog.service_account_id)

    headers = {name.lower(): value for name, value in caught.value.headers.items()}
    assert caught.value.status == 429
    assert 1 <= int(headers["x-ratelimit-reset"]) <= 3600
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("1", "0")


async def test_429s_with_retry(connect: Connect) -> None:
    """With its retry on, it waits as the headers say, and has its answer in the next window, a create's as well."""
    begun = time.time() % 1.0  # so that the server starts at the beginning of a window
    async with FakeDatadog(tokens=1, rate_limit=(5, 1.0), rate_limit_used=5, clock_offset=-begun) as datadog:
        call = connect(datadog, enable_retry=True)
        answer = await call("create_service_account_access_token", datadog.service_account_id, creation("new", ["a"]))

    assert read(answer.data) == datadog.tokens[1]
    assert (datadog.requests, datadog.rejected, len(datadog.tokens)) == (2, 1, 2)


@pytest.mark.parametrize(("status", "kind"), [(403, ForbiddenException), (503, ServiceException)])
async def test_a_scripted_status(connect: Connect, status: int, kind: type[ApiException]) -> None:
    """A scripted status is the exception that it has for it, and keeps the operation from being carried out."""
    async with FakeDatadog(tokens=1) as datadog:
        datadog.fail_next(status=status)
        ids = (datadog.service_account_id, datadog.token_ids[0])
        with pytest.raises(kind) as caught:
            await connect(datadog)("revoke_service_account_access_token", *ids)

    assert caught.value.status == status
    assert len(datadog.tokens) == 1
