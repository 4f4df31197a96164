"""Leaks: what an answer says of them, with and without `included`, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.documents import ACCOUNT, SECRET, TOKENS, body, sample, values

from dd_sa_tokens import AccessToken, InvalidArgumentError, InvalidResponseError, Leak, converter
from dd_sa_tokens._protocol.codec import decode_created, decode_token, decode_tokens
from dd_sa_tokens._protocol.operations import ListOptions, get_token, list_tokens, token_getter

LEAK_ID = "1b9e6c40-7d52-4f3a-8e11-0a2b3c4d5e6f"
FULL = Leak(LEAK_ID, datetime(2026, 8, 19, 11, 2, 45, tzinfo=UTC), "github.com/acme/deploy-scripts")
AT = ".relationships.leak_information"


def leaked(named: object = LEAK_ID, included: object = ()) -> bytes:
    """Return the answer to a get of a token that names a leak, with an `included` of any kind."""
    data = {"id": named, "type": "leaked_keys"} if isinstance(named, str) else named
    resource = {"id": "t1", "relationships": {"leak_information": {"data": data}}}
    return json.dumps({"data": resource, "included": included}).encode()


def leak_resource(leak_id: object = LEAK_ID, **attributes: Any) -> dict[str, Any]:
    return {"id": leak_id, "type": "leaked_keys", "attributes": {"date": "2026-08-19T11:02:45Z"} | attributes}


# What is known of a leak


@pytest.mark.parametrize(("case", "leak"), [("get_leaked", FULL), ("get_leaked_plain", Leak(LEAK_ID))])
@pytest.mark.usefixtures("loads")
def test_a_leaked_token(case: str, leak: Leak) -> None:
    """A get gives the leak; when and where it was found only if that was asked for."""
    assert decode_token(sample(case)) == attrs.evolve(TOKENS["get"], leak=leak)


@pytest.mark.usefixtures("loads")
def test_leaks_of_a_list() -> None:
    """On a page each token has its own leak: with a source, without one, and none."""
    page = decode_tokens(sample("list_leaked"), 0.0)

    zone = timezone(timedelta(hours=2))
    without_source = Leak(
        "e2d4c6b8-a091-4382-b574-665748392a1b", datetime(2026, 10, 1, 0, 0, 0, 500_000, tzinfo=zone), None
    )
    assert [token.leak for token in page.items] == [FULL, None, without_source]
    assert [token.name for token in page.items] == ["nightly-export", "billing-sync", "slo-export"]


@pytest.mark.parametrize(
    "relationships",
    [
        {},
        {"leak_information": None},
        {"leak_information": {}},
        {"leak_information": {"data": None}},
        {"leak_information": {"links": {"self": "x"}}},
    ],
    ids=str,
)
def test_a_token_that_is_not_known_to_be_leaked(relationships: object) -> None:
    """A relationship that is missing or null names no leak, even if a leak is included."""
    document = {"data": {"id": "t1", "relationships": relationships}, "included": [leak_resource()]}

    assert decode_token(json.dumps(document).encode()).leak is None


def test_an_attribute_that_is_called_like_our_field_is_no_leak() -> None:
    """Only the relationship names a leak."""
    assert decode_token(body({"id": "t1", "attributes": {"leak": {"id": "x"}}})).leak is None


def test_the_answer_to_a_create_may_name_a_leak() -> None:
    """A new token can be known as leaked, too, if its key was seen at once."""
    document = json.loads(sample("create", 201))
    document["data"]["relationships"]["leak_information"] = {"data": {"id": LEAK_ID, "type": "leaked_keys"}}

    assert decode_created(json.dumps(document).encode()).token.leak == Leak(LEAK_ID)


# `included` that is not as documented


@pytest.mark.parametrize(
    "included",
    [
        None,
        [],
        {},
        "text",
        5,
        [None, 5, "text", [], {}],
        [leak_resource("another")],
        [leak_resource() | {"type": "roles"}],
        [leak_resource(None)],
        [leak_resource(5)],
        [{"id": LEAK_ID}],
    ],
    ids=str,
)
@pytest.mark.usefixtures("loads")
def test_a_leak_that_is_not_included(included: object) -> None:
    """The token is there with its leak's ID if `included` lacks the leak, has others, or is malformed."""
    assert decode_token(leaked(included=included)) == AccessToken(id="t1", leak=Leak(LEAK_ID))


@pytest.mark.parametrize(
    ("attributes", "leak"),
    [
        (None, Leak(LEAK_ID)),
        ([], Leak(LEAK_ID)),
        ({}, Leak(LEAK_ID)),
        ({"date": "2026-08-19T11:02:45Z"}, attrs.evolve(FULL, source=None)),
        ({"date": "2026-08-19T11:02:45Z", "leak_source": None}, attrs.evolve(FULL, source=None)),
        ({"date": "2026-08-19T11:02:45Z", "leak_source": 5}, attrs.evolve(FULL, source=None)),
        ({"date": "2026-08-19T11:02:45Z", "leak_source": ["a"]}, attrs.evolve(FULL, source=None)),
        ({"date": None, "leak_source": "a"}, Leak(LEAK_ID, None, "a")),
        ({"date": 1_700_000_000, "leak_source": "a"}, Leak(LEAK_ID, None, "a")),
        ({"date": "yesterday", "leak_source": "a"}, Leak(LEAK_ID, None, "a")),
        ({"date": "2026-08-19T11:02:45", "leak_source": "a"}, Leak(LEAK_ID, None, "a")),
        (
            {"date": "2026-08-19T13:02:45.123456789+02:00"},
            Leak(LEAK_ID, datetime(2026, 8, 19, 11, 2, 45, 123456, tzinfo=UTC)),
        ),
    ],
    ids=str,
)
def test_what_is_known_of_an_included_leak(attributes: object, leak: Leak) -> None:
    """A part that is missing or malformed is `None`; the other part, and the token, are still there."""
    resource = {"id": LEAK_ID, "type": "leaked_keys", "attributes": attributes}

    assert decode_token(leaked(included=[None, resource, leak_resource("another")])).leak == leak


@given(values)
def test_no_included_makes_an_answer_fail(included: object) -> None:
    """With any JSON in `included` the token is there and names its leak."""
    leak = decode_token(leaked(included=[included])).leak

    assert leak is not None
    assert leak.id == LEAK_ID
    assert decode_token(leaked(included=included)).leak is not None


# A relationship that is not as documented


@pytest.mark.parametrize(
    ("relationship", "path", "found"),
    [
        (5, AT, "a number"),
        (0, AT, "a number"),
        (False, AT, "a boolean"),
        ("", AT, "a string"),
        (SECRET, AT, "a string"),
        ([], AT, "an array"),
        ({"data": 5}, f"{AT}.data", "a number"),
        ({"data": 0}, f"{AT}.data", "a number"),
        ({"data": False}, f"{AT}.data", "a boolean"),
        ({"data": SECRET}, f"{AT}.data", "a string"),
        ({"data": []}, f"{AT}.data", "an array"),
        ({"data": [{"id": LEAK_ID}]}, f"{AT}.data", "an array"),
        ({"data": {}}, f"{AT}.data.id", "null"),
        ({"data": {"type": "leaked_keys"}}, f"{AT}.data.id", "null"),
        ({"data": {"id": ""}}, f"{AT}.data.id", "a string"),
        ({"data": {"id": 5}}, f"{AT}.data.id", "a number"),
        ({"data": {"id": [SECRET]}}, f"{AT}.data.id", "an array"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("loads")
def test_a_relationship_of_a_wrong_type_is_refused(relationship: object, path: str, found: str) -> None:
    """Taken for no leak it would hide the one finding that must not be missed; the error has its JSON path."""
    resource = {"id": "t1", "relationships": {"leak_information": relationship}}
    page = json.dumps({"data": [{"id": "t0"}, resource]}).encode()

    for decode, start in (
        (lambda: decode_token(body(resource)), "$.data"),
        (lambda: decode_tokens(page, 0.0), "$.data[1]"),
        (lambda: converter.structure(resource, AccessToken), "$"),
    ):
        with pytest.raises(InvalidResponseError) as caught:
            decode()
        assert caught.value.path == start + path
        assert found in caught.value.reason
        assert SECRET not in str(caught.value)


# The converter


leaks = st.builds(
    Leak,
    st.text(min_size=1),
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.none() | st.text(),
)


@given(st.builds(AccessToken, id=st.text(min_size=1), name=st.none() | st.text(), leak=st.none() | leaks))
def test_a_round_trip_keeps_the_leaks_id(token: AccessToken) -> None:
    """Token to resource to token is the identity, except for what the API sends outside the resource."""
    expected = token if token.leak is None else attrs.evolve(token, leak=Leak(token.leak.id))
    resource = converter.unstructure(token)

    assert converter.structure(resource, AccessToken) == expected
    assert converter.structure(json.loads(json.dumps(resource)), AccessToken) == expected


def test_a_leak_as_a_resource() -> None:
    """The relationship stands beside the owner's, as the API writes it; a token without a leak has none."""
    owner = {"data": {"id": ACCOUNT, "type": "service_account"}}
    token = AccessToken(id="t1", service_account_id=ACCOUNT, leak=FULL)
    plain = AccessToken(id="t1", leak=Leak("l1"))

    assert converter.unstructure(token)["relationships"] == {
        "owned_by": owner,
        "leak_information": {"data": {"id": LEAK_ID, "type": "leaked_keys"}},
    }
    assert converter.unstructure(plain)["relationships"] == {
        "leak_information": {"data": {"id": "l1", "type": "leaked_keys"}}
    }
    assert converter.unstructure(attrs.evolve(token, leak=None))["relationships"] == {"owned_by": owner}


# Requests


def test_asking_for_leaks() -> None:
    """`include=leak_information` and `filter[leaked]=true` are in the query if they are asked for, else not."""
    one, many = (
        f"/api/v2/service_accounts/{ACCOUNT}/access_tokens/t1",
        f"/api/v2/service_accounts/{ACCOUNT}/access_tokens",
    )
    page = "?page%5Bsize%5D=100&page%5Bnumber%5D=2"

    assert get_token(ACCOUNT, "t1").path == one
    assert get_token(ACCOUNT, "t1", include_leak=True).path == f"{one}?include=leak_information"
    assert token_getter(ACCOUNT, include_leak=True)("a?b").path == f"{many}/a%3Fb?include=leak_information"
    assert list_tokens(ACCOUNT, ListOptions(), 2).path == many + page
    assert list_tokens(ACCOUNT, ListOptions(leaked_only=True), 2).path == f"{many}{page}&filter%5Bleaked%5D=true"
    assert (
        list_tokens(ACCOUNT, ListOptions(sort="-leaked", filter="a&b", leaked_only=True, include_leak=True), 2).path
        == f"{many}{page}&sort=-leaked&filter=a%26b&filter%5Bleaked%5D=true&include=leak_information"
    )


@pytest.mark.parametrize("value", [None, 1, 0, "true", [True]], ids=str)
@pytest.mark.parametrize("name", ["leaked_only", "include_leak"])
def test_a_flag_that_is_no_bool_is_refused(name: str, value: Any) -> None:
    """A flag is True or False: a list that is given as a flag by mistake is not taken for a yes."""
    with pytest.raises(InvalidArgumentError, match=f"^{name} must be True or False") as caught:
        list_tokens(ACCOUNT, ListOptions(**{name: value}), 0)
    assert (caught.value.operation, caught.value.service_account_id) == ("list_tokens", ACCOUNT)
