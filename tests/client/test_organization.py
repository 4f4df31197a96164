"""The whole organization over real sockets: leaks of every call, all tokens, and the service accounts."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any
from uuid import UUID

import attrs
import pytest
from support.calls import Connect
from support.internals import answer_requests, in_flight, on_the_wire
from support.lists import connected
from support.organizations import ServedRows, decode_page_of, ids, owned, page_number, personal, token_id_of, user
from support.payloads import resource
from support.replies import Responder, hang_up, reply, stall
from support.servers import RawServer

from dd_sa_tokens import (
    AccessToken,
    ClientClosedError,
    ForbiddenError,
    InvalidArgumentError,
    InvalidResponseError,
    Leak,
    NotFoundError,
    ServiceAccount,
    Sort,
    Strategy,
    TokensClient,
)
from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens.testing import FakeDatadog

MANY = 20_000
INVALID_IDS: list[Any] = ["", ".", "..", "a\nb", "x" * 257, 5, None, b"a", ["a"], "\ud800"]


async def ids_of(items: AsyncGenerator[Any, None]) -> list[str]:
    return [item.id async for item in items]


def account_ids(count: int) -> list[str]:
    return [f"5acc0000-0000-4000-8000-{number:012x}" for number in range(count)]


# Leaks


def leaky() -> FakeDatadog:
    """Return an organization of two accounts with 150 tokens each, of which some are leaked."""
    return FakeDatadog(tokens=150, accounts=2)


async def test_a_get_gives_the_leak() -> None:
    """A leaked token has its leak's ID in any case, and where and when it was found if that is asked for."""
    async with leaky() as datadog, connected(datadog) as client:
        assert len(datadog.leaks) > 1
        for token_id, leak in datadog.leaks.items():
            (account,) = {token.service_account_id for token in datadog.tokens if token.id == token_id}
            assert account is not None
            assert (await client.get_token(account, token_id, include_leak=True)).leak == leak
            assert (await client.get_token(account, token_id)).leak == Leak(leak.id)
        sound = next(token_id for token_id in datadog.token_ids if token_id not in datadog.leaks)
        assert (await client.get_token(datadog.service_account_id, sound, include_leak=True)).leak is None


@pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])
@pytest.mark.parametrize("strategy", ["get", "list", "auto"])
async def test_each_strategy_gives_the_same_leaks(strategy: Strategy, streamed: bool) -> None:
    """What is known of a token does not depend on how it was fetched, with `include_leak` or without."""
    async with leaky() as datadog, connected(datadog) as client:
        account, wanted = datadog.service_account_id, datadog.token_ids
        leaks = {token_id: datadog.leaks[token_id] for token_id in wanted if token_id in datadog.leaks}
        assert leaks
        for include_leak in (True, False):
            if streamed:
                items = [
                    item
                    async for item in client.stream_tokens(
                        account, wanted, strategy=strategy, include_leak=include_leak
                    )
                ]
            else:
                items = [*await client.get_tokens(account, wanted, strategy=strategy, include_leak=include_leak)]
            found = {item.token_id: item.unwrap().leak for item in items}
            expected = leaks if include_leak else {token_id: Leak(leak.id) for token_id, leak in leaks.items()}
            assert found == dict.fromkeys(wanted) | expected
        listed = datadog.requests < 2 * len(wanted)
        assert listed == (strategy != "get")


async def test_what_the_list_did_not_hold_is_got_with_its_leak(server: RawServer, connect: Connect) -> None:
    """A bulk fetch asks for leaks on its pages and in the gets for the rest."""
    leak = {"relationships": {"leak_information": {"data": {"id": "l1", "type": "leaked_keys"}}}}
    included = [{"id": "l1", "type": "leaked_keys", "attributes": {"leak_source": "a gist"}}]

    async def act(request: Any) -> None:
        named = request.target.partition("?")[0].rpartition("/")[2]
        data: Any = [resource("t0") | leak] if named == "access_tokens" else resource(named) | leak
        await reply(200, {"data": data, "included": included, "meta": {"page": {"total_filtered_count": 1}}})(request)

    server.script(otherwise=act)
    result = await connect().get_tokens("sa", ["t0", "t1", "t2"], strategy="list", include_leak=True)

    assert [item.unwrap().leak for item in result] == [Leak("l1", None, "a gist")] * 3
    assert len(server.requests) == 3
    assert all("include=leak_information" in request.target for request in server.requests)


@pytest.mark.parametrize("organization", [False, True], ids=["account", "organization"])
async def test_only_leaked_tokens(organization: bool) -> None:
    """`leaked_only` lists the leaked tokens, in their order, and `include_leak` adds where and when."""
    async with leaky() as datadog, connected(datadog) as client:

        def tokens(**options: Any) -> AsyncGenerator[AccessToken, None]:
            if organization:
                return client.list_organization_tokens(**options)
            return client.list_tokens(datadog.service_account_id, **options)

        leaks = {
            token_id: leak for token_id, leak in datadog.leaks.items() if organization or token_id in datadog.token_ids
        }
        full = {token.id: token.leak async for token in tokens(leaked_only=True, include_leak=True)}
        assert full == leaks
        plain = {token.id: token.leak async for token in tokens(leaked_only=True)}
        assert plain == {token_id: Leak(leak.id) for token_id, leak in leaks.items()}
        everything = {token.id: token.leak async for token in tokens(include_leak=True)}
        assert {token_id: leak for token_id, leak in everything.items() if leak} == leaks
        assert len(everything) == (300 if organization else 150)
        assert datadog.requests <= 2 + 4


@pytest.mark.parametrize("organization", [False, True], ids=["account", "organization"])
@pytest.mark.parametrize(("sort", "leaked_first"), [("leaked", False), ("-leaked", True)])
async def test_sorting_by_leaked(organization: bool, sort: Sort, leaked_first: bool) -> None:
    """Leaked tokens come last, or first with a leading `-`."""
    async with leaky() as datadog, connected(datadog) as client:
        if organization:
            tokens = client.list_organization_tokens(sort=sort)
        else:
            tokens = client.list_tokens(datadog.service_account_id, sort=sort)
        kinds = [token.leak is not None async for token in tokens]
        assert kinds == sorted(kinds, reverse=leaked_first)
        assert {*kinds} == {True, False}


async def test_a_malformed_leak_is_an_error_of_its_token_alone(server: RawServer, connect: Connect) -> None:
    """A bulk fetch names the path for the one ID, and fetches the others."""
    broken = resource("t1") | {"relationships": {"leak_information": {"data": "l1"}}}

    async def act(request: Any) -> None:
        await reply(200, {"data": broken} if request.token_id == "t1" else None)(request)

    server.script(otherwise=act)
    result = await connect().get_tokens("sa", ["t0", "t1", "t2"])

    assert [item.ok for item in result] == [True, False, True]
    assert isinstance(result[1].error, InvalidResponseError)
    assert result[1].error.path == "$.data.relationships.leak_information.data"


# All tokens of the organization


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_the_list_is_the_whole_organization(size: int) -> None:
    """All tokens of all accounts come in the API's order, and none of the personal ones among them."""
    async with FakeDatadog(tokens=12, accounts=5) as datadog, connected(datadog) as client:
        tokens = [token async for token in client.list_organization_tokens(page_size=size)]
        assert tuple(tokens) == datadog.tokens
        assert Counter(token.service_account_id for token in tokens) == dict.fromkeys(datadog.service_account_ids, 12)
        assert {token.type for token in tokens} == {"service_access_tokens"}
        assert datadog.requests == 63 // size + 1


@pytest.mark.parametrize(("accounts", "requests"), [(2, 3), (1, 2), (0, 3)])
async def test_what_an_inventory_costs(accounts: int, requests: int) -> None:
    """280 rows of two accounts take three requests, named or not."""
    async with FakeDatadog(tokens=140, accounts=2, users=0) as datadog, connected(datadog) as client:
        owners = datadog.service_account_ids[:accounts]
        tokens = [token async for token in client.list_organization_tokens(service_account_ids=owners)]
        assert len(tokens) == 140 * (accounts or 2)
        assert datadog.requests == requests


async def test_filters_sorts_and_owners() -> None:
    """Text, order and owners go to the API together; text that means something in a URL stays in the filter."""
    async with FakeDatadog(tokens=40, accounts=4) as datadog, connected(datadog) as client:
        first, second, *_ = datadog.service_account_ids
        created = await client.create_token(second, name="a&sort=name #1/ü", scopes=["a"])
        text = "&SORT=name #1/ü"
        assert await ids_of(client.list_organization_tokens(filter=text)) == [created.token.id]
        assert await ids_of(client.list_organization_tokens(filter=text, service_account_ids=[first])) == []
        newest = [
            token
            async for token in client.list_organization_tokens(
                service_account_ids={first, second}, sort="-created_at", page_size=9
            )
        ]
        dates = [token.created_at for token in newest]
        assert dates == sorted((date for date in dates if date), reverse=True)
        assert {token.service_account_id for token in newest} == {first, second}
        assert len(newest) == 81


async def test_leaving_early_costs_one_page(server: RawServer, connect: Connect) -> None:
    """A consumer that takes one token and leaves has sent one request; one that leaves later gives up what is ahead."""
    organization = ServedRows([resource(token_id) for token_id in ids(1000)])
    server.script(otherwise=organization)
    client = connect()
    async with aclosing(client.list_organization_tokens(page_size=10)) as tokens:
        assert (await anext(tokens)).id == ids(1)[0]
    assert organization.pages == [0]
    organization.before = lambda number: stall() if number > 1 else None
    async with aclosing(client.list_organization_tokens(page_size=10)) as tokens:
        async for token in tokens:
            if token.id == ids(20)[15]:
                await server.arrival(4)
                break
    assert (in_flight(client), on_the_wire(client)) == (0, 0)


@pytest.mark.parametrize("concurrency", [1, 3, 8])
async def test_pages_are_read_ahead(server: RawServer, connect: Connect, concurrency: int) -> None:
    """While the consumer is at a page the next ones are under way, at most `concurrency` of them."""
    organization = ServedRows([personal(token_id) for token_id in ids(20, 1)] + [resource(i) for i in ids(400)])
    server.script(otherwise=organization)
    async with aclosing(connect(concurrency=concurrency).list_organization_tokens(page_size=10)) as tokens:
        async for token in tokens:
            if token.id == ids(100)[99]:
                break
        consumed = 12
        await server.arrival(consumed + concurrency - 1)
        await asyncio.sleep(0.03)
        assert consumed <= len(organization.pages) <= consumed + concurrency
    assert organization.pages[:2] == [0, 1]


@pytest.mark.parametrize("kind", [resource, personal], ids=["service", "personal"])
@pytest.mark.parametrize("amid", [1, 2, 3])
async def test_rows_that_go_while_the_list_is_read(
    server: RawServer, connect: Connect, kind: Callable[[str], Any], amid: int
) -> None:
    """A row of any kind that goes moves the others: the list is read once more, and each token comes exactly once."""
    gone, stay = ids(3, 1), ids(40)
    organization = ServedRows([*map(kind, gone), *map(resource, stay)])

    def before(number: int) -> Responder | None:
        if number == amid:
            organization.rows = [row for row in organization.rows if row["id"] not in gone]
        return None

    organization.before = before
    server.script(otherwise=organization)
    found = await ids_of(connect(concurrency=1).list_organization_tokens(page_size=10))

    assert sorted(token_id for token_id in found if token_id not in gone) == stay
    assert len(found) == len({*found})
    assert organization.pages.count(0) == 2


@pytest.mark.parametrize("kind", [resource, personal], ids=["service", "personal"])
@pytest.mark.parametrize("lasting", [True, False], ids=["one more", "one for another"])
async def test_rows_that_come_while_the_list_is_read(
    server: RawServer, connect: Connect, kind: Callable[..., Any], lasting: bool
) -> None:
    """A row that comes first pushes others onto the next page: none comes twice, and none that stays is missed.

    A total that stays the same hides it, where another row goes. Then a row that comes twice, or one that is newer than
    the first page, shows it: a personal one, too.
    """
    stay = ids(40)
    rows = [resource(token_id) for token_id in stay]
    organization = ServedRows([*rows, resource("last")], date="Thu, 28 May 2026 14:40:00 GMT")

    def before(number: int) -> Responder | None:
        if number == 1 and organization.pages.count(0) == 1:
            new = kind("new", created_at="2026-05-28T14:40:05Z")
            organization.rows = [new, *rows, *([resource("last")] if lasting else [])]
        return None

    organization.before = before
    server.script(otherwise=organization)
    found = await ids_of(connect(concurrency=1).list_organization_tokens(page_size=10))

    assert [token_id for token_id in found if token_id in stay] == stay
    assert len(found) == len({*found})
    assert ("new" in found) == (kind is resource)
    assert organization.pages.count(0) == 2


async def test_a_new_personal_row_alone_shows_that_rows_moved(server: RawServer, connect: Connect) -> None:
    """One personal row goes, and another comes at the end: nothing but its date shows that a token was jumped over."""
    stay = ids(30)
    organization = ServedRows([personal("old"), *map(resource, stay)], date="Thu, 28 May 2026 14:40:00 GMT")

    def before(number: int) -> Responder | None:
        if number == 1 and organization.rows[0]["id"] == "old":
            organization.rows = [*map(resource, stay), personal("new", created_at="2026-05-28T14:40:09Z")]
        return None

    organization.before = before
    server.script(otherwise=organization)
    found = await ids_of(connect(concurrency=1).list_organization_tokens(page_size=10))

    assert sorted(found) == stay
    assert found[-1] == stay[9]


async def test_a_broken_personal_row_does_no_harm(server: RawServer, connect: Connect) -> None:
    """A list, and a find, go on over a personal token that is not as documented."""
    broken = {"id": "p1", "type": "personal_access_tokens", "attributes": {"scopes": 5}, "relationships": "none"}
    server.script(otherwise=reply(200, {"data": [broken, resource("t1")], "included": 5}))
    client = connect()
    assert await ids_of(client.list_organization_tokens()) == ["t1"]
    assert (await client.find_tokens(["t1"]))[0].ok


# Owners


@pytest.mark.parametrize(("count", "parts"), [(1, [1]), (50, [50]), (51, [50, 1]), (120, [50, 50, 20])])
async def test_fifty_owners_in_a_request(server: RawServer, connect: Connect, count: int, parts: list[int]) -> None:
    """Owners go into one parameter each, 50 to a request; the lists are merged in the order of the owners."""
    owners = account_ids(count)
    organization = ServedRows([owned(token_id_of(number), owner) for number, owner in enumerate(owners)])
    organization.rows += [owned("of another", "another"), personal("p1")]
    server.script(otherwise=organization)

    found = [token async for token in connect().list_organization_tokens(service_account_ids=owners)]

    assert [token.service_account_id for token in found] == owners
    assert [len(named) for named in organization.owners] == parts
    assert [owner for named in organization.owners for owner in named] == owners


async def test_parts_of_several_pages(server: RawServer, connect: Connect) -> None:
    """120 owners with two tokens each, seven on a page: all tokens, each once."""
    owners = account_ids(120)
    rows = [owned(token_id_of(number), owner) for number, owner in enumerate(owners * 2)]
    organization = ServedRows(rows)
    server.script(otherwise=organization)

    found = await ids_of(connect().list_organization_tokens(service_account_ids=owners, page_size=7))

    assert sorted(found) == ids(240)
    assert len(organization.pages) == 15 + 15 + 6


async def test_an_owner_given_twice(server: RawServer, connect: Connect) -> None:
    """The same account in two cases, as a UUID, and repeated is one owner; what is no UUID differs by case."""
    owner = account_ids(12)[11]
    organization = ServedRows([owned("t1", owner), owned("t2", "sa"), owned("t3", "SA")])
    server.script(otherwise=organization)

    given = [owner, owner.upper(), UUID(owner), "sa", "SA", "sa", owner]
    found = await ids_of(connect().list_organization_tokens(service_account_ids=given))

    assert found == ["t1", "t2", "t3"]
    assert [[value.lower() for value in named] for named in organization.owners] == [[owner, "sa", "sa"]]


async def test_parts_are_merged_without_duplicates(server: RawServer, connect: Connect) -> None:
    """A server that gives the same token in two parts does not make it come twice."""
    rows = [resource(token_id) for token_id in ids(30)]
    organization = ServedRows(rows)

    async def ignore_owners(request: Any) -> None:
        head = request.head.replace(b"filter%5Bowned_by%5D", b"ignored")
        await organization(attrs.evolve(request, head=head))

    server.script(otherwise=ignore_owners)
    tokens = connect().list_organization_tokens(service_account_ids=account_ids(120), page_size=10)

    assert await ids_of(tokens) == ids(30)
    assert organization.pages.count(0) >= 3


@pytest.mark.parametrize(
    "make",
    [list, tuple, set, frozenset, dict.fromkeys, lambda items: dict.fromkeys(items).keys()],
    ids=lambda make: make.__name__,
)
async def test_owners_in_any_collection(make: Callable[[list[str]], Any]) -> None:
    """Owners are any collection; an owner without tokens adds none."""
    async with FakeDatadog(tokens=5, accounts=4) as datadog, connected(datadog) as client:
        owners = [*datadog.service_account_ids[1:3], "unknown"]
        tokens = [token async for token in client.list_organization_tokens(service_account_ids=make(owners))]
        assert tokens == [token for token in datadog.tokens if token.service_account_id in owners]
        assert len(tokens) == 10


# Service accounts


async def test_service_accounts_among_the_users() -> None:
    """Of 370 users the 20 service accounts come, each once, in the API's order; a get gives the same."""
    async with FakeDatadog(tokens=0, accounts=20, users=350) as datadog, connected(datadog) as client:
        accounts = [account async for account in client.list_service_accounts()]
        assert {account.id for account in accounts} == {*datadog.service_account_ids}
        assert len(accounts) == 20
        assert datadog.requests == 4
        assert all(account.handle == account.id and account.name and account.email for account in accounts)
        assert {account.status for account in accounts} == {"Active"}
        assert all(account.created_at and account.created_at.tzinfo for account in accounts)
        for account in accounts[:3]:
            assert await client.get_service_account(account.id) == account
            assert await client.get_service_account(UUID(account.id)) == account
            assert await client.get_service_account(account.id.upper()) == account


async def test_a_filter_of_users() -> None:
    """The filter is the API's, over all users, of whom the service accounts are kept."""
    async with FakeDatadog(tokens=0, accounts=9, users=30) as datadog, connected(datadog) as client:
        found = [account.name async for account in client.list_service_accounts(filter="Deploy")]
        assert found == ["deploy"]
        assert await ids_of(client.list_service_accounts(filter="user-1@")) == []
        assert await ids_of(client.list_service_accounts(filter="&filter=deploy")) == []


async def test_users_that_move(server: RawServer, connect: Connect) -> None:
    """A person who leaves moves the service accounts: the list is read once more, and each comes once."""
    people, accounts = [user(f"u{number}", service_account=False) for number in range(5)], ids(250)
    users = ServedRows([*people, *map(user, accounts)])

    def before(number: int) -> Responder | None:
        if number == 1:
            users.rows = [row for row in users.rows if row["attributes"]["service_account"]]
        return None

    users.before = before
    server.script(otherwise=users)
    found = await ids_of(connect(concurrency=1).list_service_accounts())

    assert sorted(found) == accounts
    assert users.pages.count(0) == 2


async def test_included_roles_are_not_read(server: RawServer, connect: Connect) -> None:
    """Roles and permissions that come with users may be anything."""
    data = [user("u1", service_account=False, name=5), user("sa")]
    for included in (None, 5, "text", [{"type": "roles", "id": None}] * 1000, [[["deep"]]]):
        listed = {"data": data, "included": included, "meta": {"page": {"total_filtered_count": 2}}}
        server.script(reply(200, listed), reply(200, {"data": data[1], "included": included}))
        client = connect()
        assert await ids_of(client.list_service_accounts()) == ["sa"]
        assert (await client.get_service_account("sa")).id == "sa"


async def test_a_person_is_no_service_account(server: RawServer, connect: Connect) -> None:
    """The ID of a person is a `NotFoundError` that says so, after as many attempts as it took; so is an unknown one."""
    person = reply(200, {"data": user("u1", service_account=False)})
    server.script(person, reply(503), hang_up(), person, reply(404))
    client = connect()
    said = "this user is a person, not a service account"
    for message, attempts in ((said, 1), (said, 3), ("the API answered 404, no such service account", 1)):
        with pytest.raises(NotFoundError) as caught:
            await client.get_service_account("u1")
        error = caught.value
        assert message in str(error)
        assert (error.status, error.attempts, error.outcome_unknown) == (404, attempts, False)
        assert (error.operation, error.service_account_id, error.token_id) == ("get_service_account", "u1", None)
    assert len(server.requests) == 5


# Refusals


REFUSABLE: dict[str, tuple[str, Callable[[TokensClient], Any]]] = {
    "list_organization_tokens": ("org_app_keys_read", lambda client: anext(client.list_organization_tokens())),
    "list_service_accounts": ("user_access_read", lambda client: anext(client.list_service_accounts())),
    "get_service_account": ("user_access_read", lambda client: client.get_service_account("sa")),
    "get_token": ("service_account_write", lambda client: client.get_token("sa", "t1")),
    "list_tokens": ("service_account_write", lambda client: anext(client.list_tokens("sa"))),
    "create_token": ("service_account_write", lambda client: client.create_token("sa", name="n", scopes=["a"])),
    "update_token": ("service_account_write", lambda client: client.update_token("sa", "t1", name="n")),
    "revoke_token": ("service_account_write", lambda client: client.revoke_token("sa", "t1")),
}


@pytest.mark.parametrize("operation", REFUSABLE)
async def test_a_403_names_the_permission(operation: str) -> None:
    """Without any permission each call is refused with the name of the permission that the keys lack."""
    permission, call = REFUSABLE[operation]
    async with FakeDatadog(tokens=1, permissions=()) as datadog, connected(datadog) as client:
        with pytest.raises(ForbiddenError) as caught:
            await call(client)
        assert f"it needs the permission {permission}" in str(caught.value)
        assert caught.value.operation == operation
        assert datadog.requests == 1


async def test_a_403_amid_the_list(server: RawServer, connect: Connect) -> None:
    """A page that is refused ends the list with its error, after what came before."""
    organization = ServedRows(
        [resource(token_id) for token_id in ids(50)], lambda number: reply(403) if number == 2 else None
    )
    server.script(otherwise=organization)
    client, found = connect(), list[str]()

    async def consume() -> None:
        async for token in client.list_organization_tokens(page_size=10):
            found.append(token.id)

    with pytest.raises(ForbiddenError, match="org_app_keys_read") as caught:
        await consume()
    assert (caught.value.operation, caught.value.service_account_id) == ("list_organization_tokens", None)
    assert found == ids(20)
    assert in_flight(client) == 0


@pytest.mark.parametrize("bad", INVALID_IDS, ids=repr)
async def test_an_id_that_is_no_id_is_refused_at_once(server: RawServer, connect: Connect, bad: Any) -> None:
    """An invalid account among the owners, or to get, is refused before anything is sent, and named."""
    client = connect()
    with pytest.raises(InvalidArgumentError, match=r"^service_account_id ") as caught:
        client.list_organization_tokens(service_account_ids=[*account_ids(60), bad])
    assert caught.value.operation == "list_organization_tokens"
    with pytest.raises(InvalidArgumentError, match=r"^service_account_id ") as caught:
        await client.get_service_account(bad)
    assert caught.value.operation == "get_service_account"
    assert server.requests == []


@pytest.mark.parametrize(
    "bad", ["an ID", b"an ID", 5, None, UUID(int=5), iter(["a"])], ids=lambda bad: type(bad).__name__
)
async def test_owners_that_are_no_collection_are_refused(server: RawServer, connect: Connect, bad: Any) -> None:
    """A single ID, or an iterator, is no collection of owners."""
    with pytest.raises(InvalidArgumentError, match=r"^service_account_ids must be a collection of IDs"):
        connect().list_organization_tokens(service_account_ids=bad)
    assert server.requests == []


@pytest.mark.parametrize(
    "options",
    [
        {"filter": 5},
        {"filter": "\ud800"},
        {"sort": "id"},
        {"sort": "+leaked"},
        {"page_size": 0},
        {"page_size": 101},
        {"page_size": True},
        {"leaked_only": "true"},
        {"leaked_only": None},
        {"include_leak": 1},
    ],
    ids=repr,
)
async def test_invalid_options_are_refused_at_once(server: RawServer, connect: Connect, options: Any) -> None:
    """An option is refused when the list is made, not when its loop begins, for both lists of tokens."""
    client = connect()
    for make in (client.list_organization_tokens, lambda **given: client.list_tokens("sa", **given)):
        with pytest.raises(InvalidArgumentError, match=f"^{next(iter(options))} must be"):
            make(**options)
    assert server.requests == []


async def test_other_invalid_arguments_are_refused_at_once(server: RawServer, connect: Connect) -> None:
    """The users' filter, and the flag of each fetch, are checked before anything is sent."""
    client, bad = connect(), [5]
    for make in (
        lambda: client.list_service_accounts(filter=bad),
        lambda: client.stream_tokens("sa", ["t1"], include_leak=bad),
    ):
        with pytest.raises(InvalidArgumentError, match="must be"):
            make()
    for call in (
        lambda: client.get_token("sa", "t1", include_leak=bad),
        lambda: client.get_tokens("sa", ["t1"], include_leak=bad),
    ):
        with pytest.raises(InvalidArgumentError, match=r"^include_leak must be True or False"):
            await call()
    assert server.requests == []


async def test_closed_clients(server: RawServer, connect: Connect) -> None:
    """A list that is under way ends with `ClientClosedError`, and so does each call after `close()`."""
    organization = ServedRows([resource(token_id) for token_id in ids(50)], lambda number: stall() if number else None)
    server.script(otherwise=organization)
    client = connect()
    listing = asyncio.create_task(ids_of(client.list_organization_tokens(page_size=10)))
    await server.arrival(3)
    await client.close()
    with pytest.raises(ClientClosedError):
        await listing
    for make in (client.list_organization_tokens, client.list_service_accounts):
        with pytest.raises(ClientClosedError):
            make()
    with pytest.raises(ClientClosedError):
        await client.get_service_account("sa")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("arrived", [1, 2, 4])
async def test_a_cancelled_list_leaves_nothing(server: RawServer, connect: Connect, arrived: int) -> None:
    """A cancellation during any page, of any part, gives up what is under way."""
    owners = account_ids(60)
    organization = ServedRows([owned(token_id_of(number), owner) for number, owner in enumerate(owners)])
    organization.before = lambda _number: stall() if len(organization.pages) >= arrived else None
    server.script(otherwise=organization)
    client = connect()
    listing = asyncio.create_task(ids_of(client.list_organization_tokens(service_account_ids=owners, page_size=20)))
    await server.arrival(arrived)
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing
    assert (in_flight(client), on_the_wire(client)) == (0, 0)


# Size


async def test_memory_of_a_long_list() -> None:
    """20,000 tokens stream in the memory of their IDs, which are needed to yield none twice."""
    blocks: dict[int, int] = {}

    def answer(request: Request[Any]) -> Any:
        start = page_number(request) * 100
        rows = [
            (personal if number % 50 == 0 else resource)(token_id_of(number))
            for number in range(start, min(start + 100, MANY))
        ]
        return decode_page_of(request, rows, MANY)

    client = TokensClient(access_token="ddpat_x", concurrency=4)
    answer_requests(client, answer)
    count = 0
    async for token in client.list_organization_tokens():
        assert token.leak is None
        count += 1
        if count in {3_000, 18_000}:
            gc.collect()
            blocks[count] = sys.getallocatedblocks()

    assert count == MANY * 49 // 50
    # A row's ID is one block of memory; its token would be nine more.
    assert blocks[18_000] - blocks[3_000] < 15_300 * 1.2


async def test_memory_of_many_users() -> None:
    """20,000 users, 40 of them service accounts, stream in the memory of their IDs, in 201 requests."""
    blocks: dict[int, int] = {}
    pages: list[int] = []

    def answer(request: Request[Any]) -> Any:
        number = page_number(request)
        pages.append(number)
        if number in {40, 190}:
            gc.collect()
            blocks[number] = sys.getallocatedblocks()
        users = range(number * 100, min(number * 100 + 100, 20_000))
        rows = [user(token_id_of(place), service_account=place % 500 == 0) for place in users]
        return decode_page_of(request, rows, 20_000)

    client = TokensClient(access_token="ddpat_x", concurrency=4)
    answer_requests(client, answer)
    accounts = [account async for account in client.list_service_accounts()]

    assert [account.id for account in accounts] == [token_id_of(number) for number in range(0, 20_000, 500)]
    assert all(type(account) is ServiceAccount for account in accounts)
    assert sorted(pages) == list(range(201))
    assert blocks[190] - blocks[40] < 15_000 * 1.2
