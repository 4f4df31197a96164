"""Bytes to tokens and back: the recorded shapes, other JSON, and dates to the microsecond."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.documents import (
    SECRET,
    TOKENS,
    body,
    documented_attributes,
    documents,
    offsets,
    sample,
    whole,
)
from support.internals import decode_with, json_loads_strictly

from dd_sa_tokens import AccessToken, InvalidResponseError, Leak, converter
from dd_sa_tokens._protocol.codec import decode_token
from dd_sa_tokens._protocol.documents import decode_errors
from dd_sa_tokens.models import TOKEN_TYPE


@pytest.mark.parametrize(("case", "token"), TOKENS.items())
@pytest.mark.usefixtures("loads")
def test_recorded_shapes_decode(case: str, token: AccessToken) -> None:
    """Each field comes from its documented place: microseconds, milliseconds, no fraction, offsets, nulls, gaps."""
    assert decode_token(sample(case)) == token


def test_create_answer_decodes_to_a_token_without_its_key() -> None:
    """Nanoseconds are cut to microseconds, and the secret in the attributes gets into no field."""
    token = decode_token(sample("create", 201))
    assert token.created_at == datetime(2026, 5, 11, 19, 22, 48, 305117, tzinfo=UTC)
    assert token.last_used_at is None
    assert "not-a-real-key" in sample("create", 201).decode()
    assert "not-a-real-key" not in repr(token)


@pytest.mark.parametrize(
    ("status", "errors"),
    [
        (400, ("Invalid token ID",)),
        (401, ("Unauthorized",)),
        (403, ("Forbidden", "Permission required: service_account_write")),
        (404, ("Access token not found",)),
        (429, ("Too many requests",)),
    ],
)
@pytest.mark.usefixtures("loads")
def test_recorded_errors_give_their_words(status: int, errors: tuple[str, ...]) -> None:
    """The API's own words come out in order."""
    assert decode_errors(sample("get", status)) == errors


# Tolerant where the API may grow


@pytest.mark.parametrize(
    "resource",
    [
        {"id": "t1"},
        {"id": "t1", "attributes": None, "relationships": None},
        {"id": "t1", "attributes": {}, "relationships": {}},
        {"id": "t1", "relationships": {"owned_by": None}},
        {"id": "t1", "relationships": {"owned_by": {"data": None}}},
        {"id": "t1", "relationships": {"owned_by": {"data": {"id": None}}}},
        {"id": "t1", "relationships": {"owned_by": {"data": {"type": "service_account"}}, "other": 5}},
        {"id": "t1", "type": "service_access_tokens", "links": {"self": "x"}, "meta": []},
        {
            "id": "t1",
            "attributes": {
                "name": None,
                "scopes": None,
                "public_portion": None,
                "created_at": None,
                "new": [{"deep": 1}],
            },
        },
        {"id": "t1", "attributes": {"id": "other", "type": "other", "service_account_id": "other", "key": SECRET}},
    ],
)
@pytest.mark.usefixtures("loads")
def test_missing_null_and_unknown_fields_are_accepted(resource: object) -> None:
    """Only the ID must be there; an attribute that is called like one of our flat fields does not take its place."""
    assert decode_token(body(resource)) == AccessToken(id="t1")


def test_unknown_types_are_accepted() -> None:
    """A resource of a type that is new to us is a token all the same, and keeps its type."""
    assert decode_token(body({"id": "t1", "type": "personal_access_tokens"})).type == "personal_access_tokens"


# Strict where a wrong value would mislead


@pytest.mark.parametrize(
    ("resource", "path", "reason"),
    [
        (None, "$.data", "expected an object, found null"),
        ([], "$.data", "expected an object, found an array"),
        (SECRET, "$.data", "expected an object, found a string"),
        ({}, "$.data.id", "missing"),
        ({"id": None}, "$.data.id", "the token's ID is missing"),
        ({"id": ""}, "$.data.id", "missing"),
        ({"id": 5}, "$.data.id", "expected a string, found a number"),
        ({"id": True}, "$.data.id", "expected a string, found a boolean"),
        ({"id": {"x": SECRET}}, "$.data.id", "expected a string, found an object"),
        ({"id": "t", "type": 5.5}, "$.data.type", "expected a string, found a number"),
        ({"id": "t", "attributes": SECRET}, "$.data.attributes", "expected an object, found a string"),
        ({"id": "t", "attributes": []}, "$.data.attributes", "expected an object, found an array"),
        ({"id": "t", "relationships": 5}, "$.data.relationships", "expected an object, found a number"),
        ({"id": "t", "relationships": {"owned_by": "x"}}, "$.data.relationships.owned_by", "expected an object"),
        (
            {"id": "t", "relationships": {"owned_by": {"data": []}}},
            "$.data.relationships.owned_by.data",
            "expected an object, found an array",
        ),
        (
            {"id": "t", "relationships": {"owned_by": {"data": {"id": 7}}}},
            "$.data.relationships.owned_by.data.id",
            "expected a string, found a number",
        ),
        ({"id": "t", "attributes": {"name": 5}}, "$.data.attributes.name", "expected a string, found a number"),
        ({"id": "t", "attributes": {"name": False}}, "$.data.attributes.name", "found a boolean"),
        ({"id": "t", "attributes": {"public_portion": []}}, "$.data.attributes.public_portion", "found an array"),
        ({"id": "t", "attributes": {"created_at": 5}}, "$.data.attributes.created_at", "date and time, found a number"),
        ({"id": "t", "attributes": {"scopes": 5}}, "$.data.attributes.scopes", "array of strings, found a number"),
        ({"id": "t", "attributes": {"scopes": SECRET}}, "$.data.attributes.scopes", "expected an array of strings"),
        ({"id": "t", "attributes": {"scopes": {"a": 1}}}, "$.data.attributes.scopes", "expected an array of strings"),
        ({"id": "t", "attributes": {"scopes": ["a", None]}}, "$.data.attributes.scopes", "each item, found null"),
        ({"id": "t", "attributes": {"scopes": ["a", 5]}}, "$.data.attributes.scopes", "each item, found a number"),
    ],
)
@pytest.mark.usefixtures("loads")
def test_wrong_values_are_refused_with_their_json_path(resource: object, path: str, reason: str) -> None:
    """The error says where and what was expected, and quotes nothing of what was found."""
    with pytest.raises(InvalidResponseError) as caught:
        decode_token(body(resource))
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert path in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("field", ["created_at", "modified_at", "last_used_at", "expires_at"])
@pytest.mark.parametrize(
    "bad",
    [
        "",
        SECRET,
        "2026-03-02",
        "2026-03-02T08:15:30",
        "2026-03-02 08:15:30.5",
        "2026-02-30T08:15:30Z",
        "2026-03-02T25:15:30Z",
        "2026-03-02T08:15:60Z",
        "2026-03-02T08:15:30+24:00",
        "10000-01-01T00:00:00Z",
        "1772439330",
        1772439330,
        1772439330.5,
        True,
        {},
        ["2026-03-02T08:15:30Z"],
    ],
)
def test_a_date_that_is_none_is_refused(field: str, bad: object) -> None:
    """A date that cannot be read, or has no offset, is an error and never a guess or a missing value."""
    with pytest.raises(InvalidResponseError) as caught:
        decode_token(body({"id": "t", "attributes": {field: bad}}))
    assert caught.value.path == f"$.data.attributes.{field}"
    assert caught.value.reason.startswith("expected an ISO 8601 date and time")
    assert SECRET not in str(caught.value)


GARBLED = "the body is not JSON; it looks like JSON that was cut short or garbled"
HTML = "the body is not JSON; it looks like HTML or XML, such as the page of a proxy"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the body is empty"),
        (b"<html>502</html>", HTML),
        (b"  \n<?xml version='1.0'?>", HTML),
        (b'{"data": {"id": "t1"}', GARBLED),
        (b'{"data": {"id": "t1"}} x', GARBLED),
        (b'{"data": {"id": "t\xff"}}', GARBLED),
        (b'{"data": {"id": "t\\ud800"}}', GARBLED),
        (b'{"data": {"id": "t\\uDC00"}}', GARBLED),
        (b'{"data": {"id": "t1"}, "x": NaN}', GARBLED),
        (b'{"data": {"id": "t1"}, "x": -Infinity}', GARBLED),
        (b'{"data": {"id": "t1"}, "x": 1e999}', GARBLED),
        (b"[" * 200_000, GARBLED),
        (b"\xef\xbb\xbf", "the body is empty"),
        (b"hello", "the body is not JSON"),
        (b"null", "expected an object, found null"),
        (b'[{"data": {"id": "t1"}}]', "expected an object, found an array"),
        (b'"hunter22-must-not-show"', "expected an object, found a string"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.usefixtures("loads")
def test_a_body_that_is_no_document_is_refused(raw: bytes, reason: str) -> None:
    """What is no JSON, no Unicode text or no object is an error at `$`, which quotes nothing."""
    with pytest.raises(InvalidResponseError) as caught:
        decode_token(raw)
    assert (caught.value.path, caught.value.reason) == ("$", reason)
    assert caught.value.__context__ is None


@pytest.mark.usefixtures("loads")
def test_a_byte_order_mark_is_accepted() -> None:
    """Some proxies put a byte order mark before the JSON that they pass on."""
    assert decode_token(b'\xef\xbb\xbf{"data": {"id": "t1"}}') == AccessToken(id="t1")


@pytest.mark.parametrize(
    ("raw", "token_id"),
    [(b'{"data": {"id": "\\ud83e\\uddb4"}}', "🦴"), (b'{"data": {"id": "\\\\ud800"}}', "\\ud800")],
)
@pytest.mark.usefixtures("loads")
def test_escaped_pairs_and_escaped_backslashes_are_text(raw: bytes, token_id: str) -> None:
    """Only half of a surrogate pair is refused, not what merely looks like one."""
    assert decode_token(raw).id == token_id


@pytest.mark.parametrize(
    ("raw", "errors"),
    [
        (b"", ()),
        (b"<html>Forbidden</html>", ()),
        (b"[]", ()),
        (b"{}", ()),
        (b'{"errors": null}', ()),
        (b'{"errors": "text"}', ()),
        (b'{"errors": {"a": "b"}}', ()),
        (b'{"errors": []}', ()),
        (b'{"errors": ["a", 5, null, {"detail": "x"}, "b"]}', ("a", "b")),
    ],
)
@pytest.mark.usefixtures("loads")
def test_errors_without_words_give_none(raw: bytes, errors: tuple[str, ...]) -> None:
    """Decoding an error's body never raises, and keeps what is text."""
    assert decode_errors(raw) == errors


def outcome(decode: Callable[[], AccessToken]) -> AccessToken | tuple[str, str]:
    """Return the token, or where and why there is none."""
    try:
        token = decode()
    except InvalidResponseError as error:
        return error.path, error.reason
    assert type(token) is AccessToken
    return token


@given(documents, st.booleans())
@example({"data": {"id": "t", "attributes": {"unknown": 2**64}}}, True)
def test_any_json_decodes_to_a_token_or_to_one_error(document: object, ascii_only: bool) -> None:
    """Any JSON value gives an AccessToken or an InvalidResponseError, the same with orjson and without."""
    raw = json.dumps(document, ensure_ascii=ascii_only).encode()
    results = []
    with pytest.MonkeyPatch.context() as patch:
        for loads in (pytest.importorskip("orjson").loads, json_loads_strictly):
            decode_with(patch, loads)
            results.append(outcome(lambda: decode_token(raw)))
            assert isinstance(decode_errors(raw), tuple)
    assert results[0] == results[1]


jsonish = st.text(alphabet='{}[]",:0123456789eE+-.\\ud8 NaInfity', max_size=18)  # shorter than a 64-bit number


@given((jsonish | st.text(max_size=18)).map(str.encode) | st.binary(max_size=18))
@example(b"NaN")
@example(b"-Infinity")
@example(b"1e999")
def test_any_bytes_decode_the_same_with_and_without_orjson(raw: bytes) -> None:
    """Bytes are a document for both libraries or for none, and then the same one."""
    results = []
    for loads in (pytest.importorskip("orjson").loads, json_loads_strictly):
        try:
            results.append(loads(raw))
        except ValueError:
            results.append(ValueError)
    assert results[0] == results[1]


@given(documents)
def test_converter_structures_any_value_or_says_where_not(document: object) -> None:
    """`converter.structure` is public: any object gives an AccessToken or an InvalidResponseError from `$` on."""
    resource = document["data"] if isinstance(document, dict) and "data" in document else document
    result = outcome(lambda: converter.structure(resource, AccessToken))
    if not isinstance(result, AccessToken):
        path, reason = result
        assert path.startswith("$")
        assert not path.startswith("$.data")
        assert reason


moments = st.datetimes(timezones=st.just(UTC) | (whole | offsets).map(timezone))
texts = st.text(alphabet=st.characters())
token_fields: dict[str, st.SearchStrategy[Any]] = {
    "id": texts.filter(bool),
    "name": st.none() | texts,
    "public_portion": st.none() | texts,
    "scopes": st.lists(texts).map(tuple),
    "created_at": st.none() | moments,
    "modified_at": st.none() | moments,
    "last_used_at": st.none() | moments,
    "expires_at": st.none() | moments,
    "service_account_id": st.none() | texts,
    "type": st.just(TOKEN_TYPE) | texts,
    "leak": st.none() | st.builds(Leak, texts.filter(bool)),
}
tokens = st.builds(AccessToken, **token_fields)


def test_random_tokens_and_documents_have_every_field() -> None:
    """A new field of a token fails here until the tests below and those of any JSON have values for it."""
    fields = {field.name for field in attrs.fields(AccessToken)}
    assert token_fields.keys() == fields
    outside = {"id", "type", "service_account_id", "leak"}  # these are not in the attributes
    assert documented_attributes.keys() == fields - outside


@given(tokens)
@example(AccessToken(id="t", expires_at=datetime.max.replace(tzinfo=timezone(timedelta(hours=-23, minutes=-59)))))
@example(AccessToken(id="t", expires_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=23, minutes=59)))))
@example(AccessToken(id="t", created_at=datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=30)))))
def test_token_to_resource_to_token_is_the_identity(token: AccessToken) -> None:
    """Any text and any aware moment, odd offsets and extremes included, survive the way through the API's shape."""
    resource = converter.unstructure(token)
    again = converter.structure(resource, AccessToken)
    assert again == token
    for name in ("created_at", "modified_at", "last_used_at", "expires_at"):
        moment = getattr(token, name)
        assert moment is None or getattr(again, name).utcoffset() == moment.utcoffset()
    assert converter.unstructure(again) == resource


@given(st.text(min_size=1), st.lists(st.text()))
def test_resources_survive_json(token_id: str, scopes: list[str]) -> None:
    """A resource is plain JSON: what was stored as a document decodes to the token that was unstructured."""
    token = AccessToken(id=token_id, scopes=tuple(scopes))
    assert decode_token(body(converter.unstructure(token))) == token


@pytest.mark.parametrize("case", TOKENS)
def test_samples_survive_the_way_back(case: str) -> None:
    """Unstructuring a decoded sample gives the documented resource: same members, same places, same moments."""
    documented = json.loads(sample(case))["data"]
    resource = converter.unstructure(decode_token(sample(case)))
    assert resource["id"] == documented["id"]
    assert resource["type"] == documented["type"]
    assert resource["relationships"] == documented["relationships"]
    assert resource["attributes"].keys() == documented["attributes"].keys()
    for name, value in documented["attributes"].items():
        if name.endswith("_at") and value is not None:
            assert datetime.fromisoformat(resource["attributes"][name]) == datetime.fromisoformat(value)
        else:
            assert resource["attributes"][name] == value


def test_unstructured_token_has_the_shape_of_a_new_one() -> None:
    """As the API does it: expiry and last use are null where there is none, other gaps are left out."""
    assert converter.unstructure(AccessToken(id="t1")) == {
        "id": "t1",
        "type": "service_access_tokens",
        "attributes": {"expires_at": None, "last_used_at": None, "scopes": []},
    }
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert converter.unstructure(AccessToken(id="t1", expires_at=moment))["attributes"]["expires_at"] == (
        "2026-01-02T03:04:05Z"
    )


@given(
    second=st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    digits=st.text("0123456789", max_size=9),
    offset=st.sampled_from(["Z", "+00:00", "-00:00"]) | whole,
    separator=st.sampled_from("T "),
)
@settings(max_examples=300)
def test_dates_are_read_to_the_microsecond(
    second: datetime, digits: str, offset: str | timedelta, separator: str
) -> None:
    """0 to 9 fractional digits and any offset give the moment itself, cut off after microseconds."""
    second = second.replace(microsecond=0)
    if isinstance(offset, timedelta):
        minutes = int(offset.total_seconds()) // 60
        written = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    else:
        offset, written = timedelta(0), offset
    text = second.isoformat(separator) + (f".{digits}" if digits else "") + written
    token = decode_token(body({"id": "t", "attributes": {"created_at": text}}))
    truth = (second - offset).replace(microsecond=int(digits[:6].ljust(6, "0") or 0), tzinfo=UTC)
    assert token.created_at == truth
    assert token.created_at.utcoffset() == offset


@given(st.text() | st.from_regex(r"[0-9]{4}-?[0-9W]{2,3}-?[0-9]{0,2}.?[0-9:]{0,8}[.,]?[0-9]{0,9}[Z+-]?[0-9:.]{0,8}"))
def test_any_text_as_a_date_is_an_aware_moment_or_refused(text: str) -> None:
    """Any text in place of a date gives an aware datetime or the package's own error."""
    result = outcome(lambda: decode_token(body({"id": "t", "attributes": {"expires_at": text}})))
    if isinstance(result, AccessToken):
        assert result.expires_at is not None
        assert result.expires_at.utcoffset() is not None
    else:
        assert result[0] == "$.data.attributes.expires_at"
