"""The organization's list and the users' list: requests, rows of every kind, and what is never structured."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.documents import ACCOUNT, SECRET, TOKENS, resources, sample, values
from support.requests import plain, reply

from dd_sa_tokens import (
    AccessToken,
    ForbiddenError,
    InvalidArgumentError,
    InvalidResponseError,
    Leak,
    NotFoundError,
    ServiceAccount,
)
from dd_sa_tokens._protocol.documents import Page
from dd_sa_tokens._protocol.interpret import interpret
from dd_sa_tokens._protocol.operations import ListOptions, Request
from dd_sa_tokens._protocol.organization import OtherRow, get_user, list_organization_tokens, list_users
from dd_sa_tokens._protocol.responses import Failure

OTHER_ACCOUNT = "77aa0c3e-52d1-4b8e-a6f4-1c9d2e3f4a5b"
PERSON = "aa11bb22-cc33-4d44-8e55-ff6677889900"
DEPLOY = ServiceAccount(
    id=ACCOUNT,
    name="deploy",
    email="robots@example.com",
    handle=ACCOUNT,
    disabled=False,
    status="Active",
    created_at=datetime(2025, 5, 12, 9, 53, 43, 305109, tzinfo=UTC),
)
TOKENS_PAGE = list_organization_tokens([], ListOptions(), 0)
USERS_PAGE = list_users(None, 0)
USER = get_user(ACCOUNT)
FILTER: Any = ["deploy"]


def decode(request: Request[Any], document: object) -> Any:
    """Return what a 200 with a document means; its error is raised."""
    outcome = interpret(request, reply(200, json.dumps(document).encode()), plain)
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome


def page_of(*rows: object, **more: Any) -> dict[str, Any]:
    return {"data": rows, "meta": {"page": {"total_filtered_count": len(rows)}}} | more


def personal(token_id: object = "p1", **members: Any) -> dict[str, Any]:
    return {"id": token_id, "type": "personal_access_tokens"} | members


def user(user_id: object = ACCOUNT, **attributes: Any) -> dict[str, Any]:
    return {"id": user_id, "type": "users", "attributes": {"service_account": True} | attributes}


# The organization's tokens


@pytest.mark.usefixtures("loads")
def test_recorded_rows_of_the_organization() -> None:
    """Service tokens are structured, with owners and leaks; of a personal one only ID and date of creation are read."""
    page: Page[AccessToken | OtherRow] = interpret_sample(TOKENS_PAGE, "list_organization")

    leak = Leak(
        "1b9e6c40-7d52-4f3a-8e11-0a2b3c4d5e6f",
        datetime(2026, 8, 19, 11, 2, 45, tzinfo=UTC),
        "github.com/acme/deploy-scripts",
    )
    created = datetime(2026, 3, 2, 8, 15, 30, 120045, tzinfo=UTC)
    first, second, third, fourth = page.items
    assert page.total == 4
    assert first == OtherRow("f00dbabe-0c1d-4e2f-9a3b-4c5d6e7f8091", created)
    assert second == attrs.evolve(TOKENS["get"], leak=leak)
    assert (third.id, third.created_at) == (TOKENS["get_updated"].id, created)
    assert isinstance(third, AccessToken)
    assert third.service_account_id == OTHER_ACCOUNT
    assert fourth == OtherRow("f00dbabe-0c1d-4e2f-9a3b-4c5d6e7f8092", created)


def interpret_sample(request: Request[Any], case: str) -> Any:
    return interpret(request, reply(200, sample(case)), plain)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"attributes": None},
        {"attributes": "text"},
        {"attributes": ["a"]},
        {"attributes": {"scopes": 5, "name": ["a"], "expires_at": "never", "last_used_at": 0, "public_portion": {}}},
        {"attributes": {"scopes": [None] * 300}},
        {"attributes": {"created_at": 5}},
        {"attributes": {"created_at": "2026-03-02T08:15:30"}},
        {"attributes": {"created_at": "soon"}, "relationships": {"owned_by": 5}},
        {"relationships": "text"},
        {"relationships": {"leak_information": {"data": 5}}},
        {"relationships": {"owned_by": {"data": {"id": 5, "type": "users"}}}},
    ],
    ids=str,
)
@pytest.mark.usefixtures("loads")
def test_a_broken_personal_token_does_no_harm(members: dict[str, Any]) -> None:
    """A personal token is skipped, so what is wrong in it does not keep the service tokens from being listed."""
    page = decode(TOKENS_PAGE, page_of(personal(**members), {"id": "t1"}))

    assert page.items == (OtherRow("p1", None), AccessToken(id="t1"))


def test_personal_scopes_are_not_structured() -> None:
    """What a page of 100 personal tokens becomes is the same with 300 scopes each as with none."""
    scopes = [f"scope_{number}_read" for number in range(300)]
    rows = [personal(f"p{number}", attributes={"scopes": scopes, "name": "laptop"}) for number in range(100)]

    items = decode(TOKENS_PAGE, page_of(*rows)).items
    assert items == tuple(OtherRow(f"p{number}", None) for number in range(100))
    assert {field.name for field in attrs.fields(OtherRow)} == {"id", "created_at"}


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (None, "$.data[1]"),
        ([], "$.data[1]"),
        (SECRET, "$.data[1]"),
        (personal(None), "$.data[1].id"),
        (personal(""), "$.data[1].id"),
        (personal(5), "$.data[1].id"),
        ({}, "$.data[1].id"),
        ({"id": "t1", "attributes": {"scopes": "all"}}, "$.data[1].attributes.scopes"),
        ({"id": "t1", "relationships": {"owned_by": {"data": {"id": 5}}}}, "$.data[1].relationships.owned_by.data.id"),
        (
            {"id": "t1", "relationships": {"leak_information": {"data": {"id": 5}}}},
            "$.data[1].relationships.leak_information.data.id",
        ),
        ({"id": "t1", "type": 5}, "$.data[1].type"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("loads")
def test_a_row_that_misleads_is_refused(row: object, path: str) -> None:
    """A service token with a wrong value, or a row without an ID, is an error with its JSON path."""
    with pytest.raises(InvalidResponseError) as caught:
        decode(TOKENS_PAGE, page_of(personal(), row))
    assert caught.value.path == path
    assert SECRET not in str(caught.value)


def test_a_type_that_is_new_is_a_token() -> None:
    """Only `personal_access_tokens` are left out: a type that is new to this package is not hidden from an audit."""
    (row,) = decode(TOKENS_PAGE, page_of({"id": "t1", "type": "workload_access_tokens"})).items

    assert row == AccessToken(id="t1", type="workload_access_tokens")


@given(st.lists(resources, max_size=4), values)
def test_any_page_is_rows_or_an_invalid_response(rows: list[Any], included: Any) -> None:
    """Random rows of both kinds give rows with IDs, or an error about the response, nothing else."""
    rows = [row | {"type": "personal_access_tokens"} if type(row) is dict and len(row) > 2 else row for row in rows]
    try:
        page = decode(TOKENS_PAGE, page_of(*rows, included=included))
    except InvalidResponseError as error:
        assert error.path.startswith("$.data")  # noqa: PT017 - an error is one of two right outcomes
    else:
        assert [row.id for row in page.items] == [row["id"] for row in rows]


def test_requests_for_the_organizations_tokens() -> None:
    """The path, the paging and all options, and the owners with the parameter repeated for each."""
    options = ListOptions(filter="a&b", sort="leaked", leaked_only=True, include_leak=True, size=7)
    path, _, query = list_organization_tokens(["sa-1", "sa/2?"], options, 3).path.partition("?")

    assert path == "/api/v2/personal_access_tokens"
    assert parse_qsl(query, strict_parsing=True) == [
        ("page[size]", "7"),
        ("page[number]", "3"),
        ("sort", "leaked"),
        ("filter", "a&b"),
        ("filter[leaked]", "true"),
        ("include", "leak_information"),
        ("filter[owned_by]", "sa-1"),
        ("filter[owned_by]", "sa/2?"),
    ]
    assert TOKENS_PAGE.path == "/api/v2/personal_access_tokens?page%5Bsize%5D=100&page%5Bnumber%5D=0"
    assert (TOKENS_PAGE.service_account_id, TOKENS_PAGE.token_id, TOKENS_PAGE.body) == (None, None, None)


def test_fifty_owners_fit_into_a_url() -> None:
    """The request line of 50 owners is well below the 8 KiB that servers and proxies commonly allow."""
    assert len(list_organization_tokens([ACCOUNT] * 50, ListOptions(), 10_000).path) < 4_096


@pytest.mark.parametrize(
    "options",
    [{"filter": 5}, {"sort": "id"}, {"size": 0}, {"size": 101}, {"leaked_only": 1}, {"include_leak": None}],
    ids=str,
)
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    """The error is about this list, and about no service account."""
    with pytest.raises(InvalidArgumentError) as caught:
        list_organization_tokens([], ListOptions(**options), 0)
    assert (caught.value.operation, caught.value.service_account_id) == ("list_organization_tokens", None)


# Users


@pytest.mark.usefixtures("loads")
def test_recorded_rows_of_the_users() -> None:
    """Service accounts are structured; of a person only the ID and the date of creation are read."""
    page: Page[ServiceAccount | OtherRow] = interpret_sample(USERS_PAGE, "list_users")

    created = DEPLOY.created_at
    disabled = attrs.evolve(DEPLOY, id=OTHER_ACCOUNT, name=None, handle=OTHER_ACCOUNT, disabled=True, status="Disabled")
    assert page.items == (OtherRow(PERSON, created), DEPLOY, disabled)
    assert page.total == 3
    assert interpret_sample(USER, "get_user") == DEPLOY


@pytest.mark.parametrize(
    "included", [None, 5, "text", {}, [None, 5], [{"id": 5}], [{"type": "roles", "attributes": 5}]], ids=str
)
@pytest.mark.usefixtures("loads")
def test_what_is_included_with_users_is_not_read(included: object) -> None:
    """Roles and permissions are not structured, so nothing in them can make a list or a get fail."""
    assert decode(USERS_PAGE, page_of(user(), included=included)).items == (ServiceAccount(id=ACCOUNT),)
    assert decode(USER, {"data": user(), "included": included}) == ServiceAccount(id=ACCOUNT)


@pytest.mark.parametrize(
    "row",
    [
        {"id": "u1"},
        {"id": "u1", "attributes": None},
        user("u1", service_account=None),
        user("u1", service_account=False, name=5, email=[], created_at="soon", disabled="no"),
        user("u1", service_account=False) | {"relationships": 5},
        {"id": "u1", "attributes": {"name": 5}},
    ],
    ids=str,
)
def test_a_person_is_not_structured(row: dict[str, Any]) -> None:
    """A user without the flag is a person, and what is wrong in a person's attributes does no harm."""
    assert decode(USERS_PAGE, page_of(row, user())).items == (OtherRow("u1", None), ServiceAccount(id=ACCOUNT))


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (None, ""),
        ([], ""),
        (SECRET, ""),
        ({"id": "u1", "attributes": SECRET}, ".attributes"),
        (user("u1", service_account="true"), ".attributes.service_account"),
        (user("u1", service_account=1), ".attributes.service_account"),
        (user("u1", service_account=[]), ".attributes.service_account"),
        (user(None), ".id"),
        (user(""), ".id"),
        (user(5), ".id"),
        (user(5, service_account=False), ".id"),
        (user(name=5), ".attributes.name"),
        (user(email=[SECRET]), ".attributes.email"),
        (user(handle={}), ".attributes.handle"),
        (user(status=0), ".attributes.status"),
        (user(disabled="false"), ".attributes.disabled"),
        (user(disabled=0), ".attributes.disabled"),
        (user(created_at="soon"), ".attributes.created_at"),
        (user(created_at="2025-05-12T09:53:43"), ".attributes.created_at"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("loads")
def test_a_user_that_misleads_is_refused(row: object, path: str) -> None:
    """A wrong value in a service account, or a flag that does not say what the user is, has its JSON path."""
    for request, document, start in ((USERS_PAGE, page_of(row), "$.data[0]"), (USER, {"data": row}, "$.data")):
        with pytest.raises(InvalidResponseError) as caught:
            decode(request, document)
        assert caught.value.path == start + path
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("attributes", [{}, {"service_account": None}, {"service_account": False, "name": 5}], ids=str)
def test_a_get_of_a_person(attributes: dict[str, Any]) -> None:
    """A user that is a person is a `NotFoundError` that says so; it is not retried."""
    document = {"data": {"id": PERSON, "type": "users", "attributes": attributes}}
    outcome = interpret(get_user(PERSON), reply(200, json.dumps(document).encode()), plain)

    assert isinstance(outcome, Failure)
    assert type(outcome.error) is NotFoundError
    assert outcome.error.status == 404
    assert outcome.error.message == "this user is a person, not a service account"
    assert outcome.error.__traceback__ is None


def test_requests_for_users() -> None:
    """Pages of 100, the filter as it was given, and one user by its ID as one segment of the path."""
    assert USERS_PAGE.path == "/api/v2/users?page%5Bsize%5D=100&page%5Bnumber%5D=0"
    assert list_users("a&b ü", 7).path.endswith("page%5Bnumber%5D=7&filter=a%26b%20%C3%BC")
    assert get_user("../a?b").path == "/api/v2/users/..%2Fa%3Fb"
    assert USER.service_account_id == ACCOUNT


@pytest.mark.parametrize("bad", ["", "..", None, 5, "a\nb", "x" * 257])
def test_invalid_ids_and_filters_of_users(bad: Any) -> None:
    """The error names the argument and the call."""
    with pytest.raises(InvalidArgumentError, match=r"^service_account_id ") as caught:
        get_user(bad)
    assert caught.value.operation == "get_service_account"
    with pytest.raises(InvalidArgumentError, match=r"^filter must") as caught:
        list_users(FILTER, 0)
    assert caught.value.operation == "list_service_accounts"


# Refusals


@pytest.mark.parametrize(
    ("request_", "permission"),
    [(TOKENS_PAGE, "org_app_keys_read"), (USERS_PAGE, "user_access_read"), (USER, "user_access_read")],
    ids=lambda value: value.operation.name if isinstance(value, Request) else value,
)
def test_a_403_names_the_permission(request_: Request[Any], permission: str) -> None:
    """The error names the permission that the keys lack, beside the API's own words."""
    outcome = interpret(request_, reply(403, b'{"errors": ["Forbidden", "ask your admin"]}'), plain)

    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, ForbiddenError)
    assert f"it needs the permission {permission}" in str(outcome.error)
    assert "ask your admin" in str(outcome.error)
    assert outcome.error.errors == ("Forbidden", "ask your admin")


def test_a_404_to_a_get_of_a_user() -> None:
    """A user that does not exist is no such service account."""
    outcome = interpret(USER, reply(404, b'{"errors": ["Not Found"]}'), plain)

    assert isinstance(outcome, Failure)
    assert outcome.error.message == "the API answered 404, no such service account"
