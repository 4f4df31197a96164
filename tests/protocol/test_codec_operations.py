"""Bodies of the other operations: lists, created tokens, the answer to a revoke, and what is sent."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.documents import (
    ACCOUNT,
    SECRET,
    TOKENS,
    body,
    documents,
    mostly,
    offsets,
    resources,
    sample,
    values,
    whole,
)
from support.internals import decode_with, json_loads_strictly

from dd_sa_tokens import AccessToken, InvalidResponseError, converter
from dd_sa_tokens._protocol.codec import decode_created, decode_token, decode_tokens, encode_token
from dd_sa_tokens._protocol.documents import Page, decode_nothing

# Lists


def page_of(*resources: object, **page: object) -> bytes:
    return json.dumps({"data": list(resources), "meta": {"page": page}}).encode()


@pytest.mark.usefixtures("loads")
def test_recorded_lists_decode() -> None:
    """A page gives its tokens in their order, and how many there are on all pages; a new account has none."""
    assert decode_tokens(sample("list"), 0.0) == Page((TOKENS["get"], TOKENS["get_updated"]), 2)
    assert decode_tokens(sample("list_empty"), 0.0) == Page((), 0)


@pytest.mark.parametrize(
    ("document", "total"),
    [
        ({"data": []}, None),
        ({"data": [], "meta": None}, None),
        ({"data": [], "meta": {}}, None),
        ({"data": [], "meta": {"page": None}}, None),
        ({"data": [], "meta": {"page": {"total_filtered_count": None}}}, None),
        ({"data": [], "meta": {"page": {"total_filtered_count": 0, "size": 10}, "x": 1}, "links": {}}, 0),
        ({"data": [], "meta": {"page": {"total_filtered_count": 2**62}}}, 2**62),
    ],
)
@pytest.mark.usefixtures("loads")
def test_a_list_may_say_less_or_more(document: object, total: int | None) -> None:
    """A total that is missing is not known, which is not the same as none; unknown fields are let be."""
    assert decode_tokens(json.dumps(document).encode(), 0.0) == Page((), total)


@pytest.mark.parametrize(
    ("raw", "path", "reason"),
    [
        (b"", "$", "the body is empty"),
        (b"<html>", "$", "the body is not JSON"),
        (b"[]", "$", "expected an object, found an array"),
        (b"{}", "$.data", "expected an array, found null"),
        (b'{"data": null}', "$.data", "expected an array, found null"),
        (b'{"data": {"id": "t1"}}', "$.data", "expected an array, found an object"),
        (body(SECRET), "$.data", "expected an array, found a string"),
        (page_of({"id": "t1"}, SECRET), "$.data[1]", "expected an object, found a string"),
        (page_of({"id": "t1"}, {}), "$.data[1].id", "missing"),
        (page_of({"id": "t1"}, None), "$.data[1]", "expected an object, found null"),
        (
            page_of(*[{"id": "t"}] * 12, {"id": "t", "attributes": {"created_at": SECRET}}),
            "$.data[12].attributes.created_at",
            "expected an ISO 8601 date and time",
        ),
        (page_of({"id": "t1", "attributes": {"scopes": SECRET}}), "$.data[0].attributes.scopes", "an array of strings"),
        (b'{"data": [], "meta": []}', "$.meta", "expected an object, found an array"),
        (b'{"data": [], "meta": {"page": 5}}', "$.meta.page", "expected an object, found a number"),
        *(
            (
                page_of(total_filtered_count=total),
                "$.meta.page.total_filtered_count",
                f": expected a whole number of at least 0, found {found}",
            )
            for total, found in [
                (-1, "a number"),
                (1.5, "a number"),
                (2.0, "a number"),
                (2**64, "a number"),
                (10**30, "a number"),
                (True, "a boolean"),
                ("2", "a string"),
                (SECRET, "a string"),
                ([2], "an array"),
            ]
        ),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.usefixtures("loads")
def test_what_is_no_list_is_refused_with_its_json_path(raw: bytes, path: str, reason: str) -> None:
    """The error says which token of the page, and what of it, is wrong, and quotes nothing of it."""
    with pytest.raises(InvalidResponseError, match=reason) as caught:
        decode_tokens(raw, 0.0)
    assert caught.value.path == path
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.usefixtures("loads")
def test_tokens_of_a_list_share_what_they_have_in_common() -> None:
    """Thousands of kept tokens hold the texts that are the same for all of them once."""
    owner = {"owned_by": {"data": {"id": ACCOUNT}}}
    resource = {"type": "service_access_tokens", "attributes": {"scopes": ["usage_read"]}, "relationships": owner}
    first, second = decode_tokens(page_of(*({"id": token_id} | resource for token_id in ("t1", "t2"))), 0.0).items

    assert first.service_account_id is second.service_account_id
    assert first.type is second.type
    assert first.scopes[0] is second.scopes[0]


lists = mostly(
    st.fixed_dictionaries(
        {"data": mostly(st.lists(resources, max_size=3))},
        optional={
            "meta": mostly(
                st.fixed_dictionaries({"page": mostly(st.fixed_dictionaries({"total_filtered_count": values}))})
            )
        },
    )
)


@given(lists)
@example({"data": [], "meta": {"page": {"total_filtered_count": 2**63}}})
@example({"data": [], "meta": {"page": {"total_filtered_count": 2**64}}})
def test_any_json_is_a_page_or_one_error(document: object) -> None:
    """Any JSON value gives a Page or an InvalidResponseError, the same with orjson and without."""
    raw = json.dumps(document).encode()
    results: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        for loads in (pytest.importorskip("orjson").loads, json_loads_strictly):
            decode_with(patch, loads)
            try:
                results.append(decode_tokens(raw, 0.0))
            except InvalidResponseError as error:
                results.append((error.path, error.reason))
    assert results[0] == results[1]


# Created tokens


@pytest.mark.usefixtures("loads")
def test_a_recorded_create_decodes_to_token_and_key() -> None:
    """The key comes out only by `reveal()`; the token is the one that a get describes later."""
    created = decode_created(sample("create", 201))

    assert created.key.reveal() == "ddsat_4RsLg6IwOz0KvFh7YeBuJm_not-a-real-key"
    assert created.token == decode_token(sample("create", 201))
    for shown in (repr(created), str(created), f"{created}", repr(converter.unstructure(created.token))):
        assert "not-a-real-key" not in shown


@pytest.mark.parametrize(
    ("resource", "path", "reason"),
    [
        ({"id": "t1"}, ".attributes.key", ": the secret is missing"),
        ({"id": "t1", "attributes": None}, ".attributes.key", "the secret is missing"),
        ({"id": "t1", "attributes": {"key": None}}, ".attributes.key", "the secret is missing"),
        ({"id": "t1", "attributes": {"key": ""}}, ".attributes.key", "the secret is missing"),
        ({"id": "t1", "attributes": {"key": [SECRET]}}, ".attributes.key", "expected a string, found an array"),
        ({"id": "t1", "attributes": {"key": 5}}, ".attributes.key", "expected a string, found a number"),
        ({"id": "t1", "attributes": {"key": SECRET, "name": 5}}, ".attributes.name", "expected a string"),
        ({"attributes": {"key": SECRET}}, ".id", ": the token's ID is missing"),
        ({"id": "t1", "attributes": {"key": SECRET, "created_at": SECRET}}, ".attributes.created_at", "ISO 8601"),
        (SECRET, "", "expected an object, found a string"),
        (None, "", "expected an object, found null"),
    ],
)
@pytest.mark.usefixtures("loads")
def test_a_create_without_its_key_is_refused(resource: object, path: str, reason: str) -> None:
    """An answer to a create that lacks its secret, or is no token, is an error that does not show the secret."""
    with pytest.raises(InvalidResponseError, match=reason) as caught:
        decode_created(body(resource))
    assert caught.value.path == f"$.data{path}"
    assert SECRET not in f"{caught.value} {vars(caught.value)}"
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("resource", "token_id"),
    [
        ({"id": "t1"}, "t1"),
        ({"id": "t1", "attributes": {"key": SECRET, "created_at": "today"}}, "t1"),
        ({"id": ""}, None),
        ({"id": 5}, None),
        ({"id": {"id": "t1"}}, None),
        ({"attributes": {"key": SECRET}}, None),
        (["t1"], None),
    ],
)
@pytest.mark.usefixtures("loads")
def test_a_create_that_cannot_be_read_names_its_token(resource: object, token_id: str | None) -> None:
    """The error names the token to revoke if the answer holds its ID, and nothing that is no ID."""
    with pytest.raises(InvalidResponseError) as caught:
        decode_created(body(resource))
    assert caught.value.token_id == token_id


@given(documents)
def test_any_json_is_a_created_token_or_one_error(document: object) -> None:
    """Any answer to a create gives a token with a key, or the package's own error."""
    with suppress(InvalidResponseError):
        created = decode_created(json.dumps(document).encode())
        assert type(created.token) is AccessToken
        assert created.key.reveal()


# The answer to a revoke


@pytest.mark.parametrize("raw", [b"", b" ", b"\r\n", b"{}", b' {"data": null, "meta": 5}\n'])
@pytest.mark.usefixtures("loads")
def test_nothing_and_any_object_answer_a_revoke(raw: bytes) -> None:
    """No body, a blank one and any object are accepted alike."""
    decode_nothing(raw)


@pytest.mark.parametrize("raw", [b"<html>Signed out</html>", b"OK", b"[]", b"null", b'{"data": '])
@pytest.mark.usefixtures("loads")
def test_a_page_of_a_proxy_answers_no_revoke(raw: bytes) -> None:
    """What the API does not say must not pass for its word that a token is gone."""
    with pytest.raises(InvalidResponseError) as caught:
        decode_nothing(raw)
    assert caught.value.path == "$"


# What is sent


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"name": "n", "scopes": ["a", "b"]}, '{"data":{"attributes":{"name":"n","scopes":["a","b"]},"type":"%s"}}'),
        ({"token_id": "t", "name": "n"}, '{"data":{"attributes":{"name":"n"},"id":"t","type":"%s"}}'),
        ({"token_id": "t", "scopes": ("a",)}, '{"data":{"attributes":{"scopes":["a"]},"id":"t","type":"%s"}}'),
        ({"name": 'ü"\\\n🚀'}, '{"data":{"attributes":{"name":"ü\\"\\\\\\n🚀"},"type":"%s"}}'),
    ],
)
def test_what_is_not_given_is_not_sent(given: dict[str, Any], sent: str) -> None:
    """The body holds what was given and nothing else: no nulls, no spaces, and UTF-8 as it is."""
    assert encode_token(**given).decode() == sent % "service_access_tokens"


@given(st.text(min_size=1), st.lists(st.text(min_size=1), min_size=1), st.text(min_size=1))
def test_any_text_arrives_as_it_was_given(name: str, scopes: list[str], token_id: str) -> None:
    """The server reads exactly the name, scopes and ID that were given, for any text."""
    sent = json.loads(encode_token(name=name, scopes=scopes, token_id=token_id))
    attributes = {"name": name, "scopes": scopes}
    assert sent == {"data": {"attributes": attributes, "id": token_id, "type": "service_access_tokens"}}


@given(
    st.datetimes(
        min_value=datetime(2, 1, 1),
        max_value=datetime(9998, 12, 31),
        timezones=st.just(UTC) | (whole | offsets).map(timezone),
    )
    | st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2090, 1, 1), timezones=st.timezones())
)
@example(datetime(2027, 4, 8, 16, 45, 35, 914000, tzinfo=timezone(timedelta(hours=2))))
def test_an_end_is_sent_in_utc(expires_at: datetime) -> None:
    """A moment in any time zone is sent as the same moment in UTC, with a Z, to the microsecond."""
    sent = json.loads(encode_token(expires_at=expires_at))["data"]["attributes"]
    assert sent.keys() == {"expires_at"}
    assert sent["expires_at"].endswith("Z")
    assert "+" not in sent["expires_at"]
    assert datetime.fromisoformat(sent["expires_at"]) == expires_at.astimezone(UTC)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "XXX-05:30"])
def test_an_end_is_sent_in_utc_wherever_the_client_runs(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own time zone does not show in what is sent."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        sent = json.loads(encode_token(expires_at=datetime(2027, 4, 8, 16, tzinfo=timezone(timedelta(hours=2)))))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert sent["data"]["attributes"]["expires_at"] == "2027-04-08T14:00:00Z"


def test_what_is_no_json_type_is_named_by_its_own() -> None:
    """The converter, which may be given anything, says what it was given."""
    with pytest.raises(InvalidResponseError, match="expected a string, found bytes"):
        converter.structure({"id": b"t1"}, AccessToken)
