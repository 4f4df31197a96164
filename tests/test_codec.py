"""Bytes to models and back: the recorded shapes, whatever else JSON can hold, and dates to the microsecond."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.internals import decode_with, json_loads_strictly

from dd_sa_tokens import AccessToken, InvalidResponseError, converter
from dd_sa_tokens._codec import (
    Page,
    decode_created,
    decode_errors,
    decode_nothing,
    decode_page,
    decode_token,
    encode_token,
)

SAMPLES = Path(__file__).parent / "samples"
ACCOUNT = "5e0f7c1a-3b1d-4c55-9d0a-6a1f2b3c4d5e"
SECRET = "hunter22-must-not-show"


def sample(case: str, status: int = 200) -> bytes:
    return (SAMPLES / case / f"{status}.json").read_bytes()


def body(resource: object) -> bytes:
    return json.dumps({"data": resource}).encode()


@pytest.fixture(params=["orjson", "json"])
def loads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Decode with either library; the extra `speed` must not change what comes out."""
    if request.param == "orjson":
        decode_with(monkeypatch, pytest.importorskip("orjson").loads)
    else:
        decode_with(monkeypatch, json_loads_strictly)
    return request.param


# Samples

TOKENS = {
    "get": AccessToken(
        id="c0ffee00-1d2e-4f30-8a41-52b6c7d8e9f0",
        name="nightly-export",
        public_portion="ddsat_7Qm2Wc9RkLx4TfYb1NsVdP",
        scopes=("dashboards_read",),
        created_at=datetime(2026, 3, 2, 8, 15, 30, 120045, tzinfo=UTC),
        service_account_id=ACCOUNT,
    ),
    "get_updated": AccessToken(
        id="0b5e7d21-94c3-4a6f-b1f8-0d2c4e6a8b91",
        name="billing-sync",
        public_portion="ddsat_2HvKz8DnEo5XpGq3UjMaCt",
        scopes=("metrics_read", "timeseries_query", "usage_read"),
        created_at=datetime(2026, 3, 2, 8, 15, 30, 120045, tzinfo=UTC),
        modified_at=datetime(2026, 9, 14, 9, 41, 2, 507300, tzinfo=UTC),
        last_used_at=datetime(2026, 11, 20, 6, tzinfo=UTC),
        expires_at=datetime(2027, 1, 31, 22, 5, 7, 914000, tzinfo=UTC),
        service_account_id=ACCOUNT,
    ),
    "get_documented": AccessToken(
        id="3f9a6b70-62d4-4e0b-8c15-7a9e1d3f5b24",
        name="from the documentation",
        public_portion="ddsat_5TyBn1",
        scopes=("dashboards_read", "dashboards_write"),
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
        modified_at=datetime(2024, 6, 1, tzinfo=UTC),
        last_used_at=datetime(2025, 6, 15, 12, 30, tzinfo=UTC),
        expires_at=datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC),
        service_account_id=ACCOUNT,
    ),
}


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


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the body is empty"),
        (b"<html>502</html>", "the body is not JSON"),
        (b'{"data": {"id": "t1"}', "the body is not JSON"),
        (b'{"data": {"id": "t1"}} x', "the body is not JSON"),
        (b'{"data": {"id": "t\xff"}}', "the body is not JSON"),
        (b'{"data": {"id": "t\\ud800"}}', "the body is not JSON"),
        (b'{"data": {"id": "t\\uDC00"}}', "the body is not JSON"),
        (b'\xef\xbb\xbf{"data": {"id": "t1"}}', "the body is not JSON"),
        (b'{"data": {"id": "t1"}, "x": NaN}', "the body is not JSON"),
        (b'{"data": {"id": "t1"}, "x": -Infinity}', "the body is not JSON"),
        (b'{"data": {"id": "t1"}, "x": 1e999}', "the body is not JSON"),
        (b"[" * 200_000, "the body is not JSON"),
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
    """Whatever an error's body is, decoding it never raises, and keeps what is text."""
    assert decode_errors(raw) == errors


# Properties

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(good, good, good, values)


dates = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
attributes = st.fixed_dictionaries(
    {},
    optional={
        "name": mostly(st.text()),
        "public_portion": mostly(st.text()),
        "scopes": mostly(st.lists(st.text(), max_size=3)),
        **{name: mostly(dates) for name in ("created_at", "modified_at", "last_used_at", "expires_at")},
        "service_account_id": values,
        "unknown": values,
    },
)
owner = mostly(st.fixed_dictionaries({}, optional={"id": mostly(st.text()), "type": values}))
resources = mostly(
    st.fixed_dictionaries(
        {"id": mostly(st.text(min_size=1))},
        optional={
            "type": mostly(st.text()),
            "attributes": mostly(attributes),
            "relationships": mostly(
                st.fixed_dictionaries({"owned_by": mostly(st.fixed_dictionaries({"data": owner}))})
            ),
        },
    )
)
documents = mostly(st.fixed_dictionaries({"data": resources}))


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


# Whole seconds: Python itself reads an offset of less than one second as UTC.
offsets = st.integers(-86_399, 86_399).map(lambda seconds: timedelta(seconds=seconds))
whole = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timedelta(minutes=minutes))
moments = st.datetimes(timezones=st.just(UTC) | (whole | offsets).map(timezone))
texts = st.text(alphabet=st.characters())
tokens = st.builds(
    AccessToken,
    id=texts.filter(bool),
    name=st.none() | texts,
    public_portion=st.none() | texts,
    scopes=st.lists(texts).map(tuple),
    created_at=st.none() | moments,
    modified_at=st.none() | moments,
    last_used_at=st.none() | moments,
    expires_at=st.none() | moments,
    service_account_id=st.none() | texts,
    type=texts,
)


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
    """Whatever stands where a date should be, nothing but an aware datetime or our own error comes out."""
    result = outcome(lambda: decode_token(body({"id": "t", "attributes": {"expires_at": text}})))
    if isinstance(result, AccessToken):
        assert result.expires_at is not None
        assert result.expires_at.utcoffset() is not None
    else:
        assert result[0] == "$.data.attributes.expires_at"


# Lists


def page_of(*resources: object, **page: object) -> bytes:
    return json.dumps({"data": list(resources), "meta": {"page": page}}).encode()


@pytest.mark.usefixtures("loads")
def test_recorded_lists_decode() -> None:
    """A page gives its tokens in their order, and how many there are on all pages; a new account has none."""
    assert decode_page(sample("list")) == Page((TOKENS["get"], TOKENS["get_updated"]), 2)
    assert decode_page(sample("list_empty")) == Page((), 0)


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
    assert decode_page(json.dumps(document).encode()) == Page((), total)


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
        decode_page(raw)
    assert caught.value.path == path
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.usefixtures("loads")
def test_tokens_of_a_list_share_what_they_have_in_common() -> None:
    """Thousands of kept tokens hold the texts that are the same for all of them once."""
    owner = {"owned_by": {"data": {"id": ACCOUNT}}}
    resource = {"type": "service_access_tokens", "attributes": {"scopes": ["usage_read"]}, "relationships": owner}
    first, second = decode_page(page_of(*({"id": token_id} | resource for token_id in ("t1", "t2")))).tokens

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
                results.append(decode_page(raw))
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
    """The error says which token somebody has to revoke, if the answer holds an ID, and nothing that is none."""
    with pytest.raises(InvalidResponseError) as caught:
        decode_created(body(resource))
    assert caught.value.token_id == token_id


@given(documents)
def test_any_json_is_a_created_token_or_one_error(document: object) -> None:
    """Whatever answers a create, nothing but a token with a key or our own error comes out."""
    with suppress(InvalidResponseError):
        created = decode_created(json.dumps(document).encode())
        assert type(created.token) is AccessToken
        assert created.key.reveal()


# The answer to a revoke


@pytest.mark.parametrize("raw", [b"", b" ", b"\r\n", b"{}", b' {"data": null, "meta": 5}\n'])
@pytest.mark.usefixtures("loads")
def test_nothing_and_any_object_answer_a_revoke(raw: bytes) -> None:
    """No body, a blank one and an object that nobody needs are all as good as nothing."""
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
    """Whatever a name, scopes and an ID are made of, the server reads exactly that."""
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
