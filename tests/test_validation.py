"""What callers pass: what cannot be right is refused by name, before anything is sent; all else is let through."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from support.bulk import NoTruth, ReadOnce

from dd_sa_tokens import ConfigurationError, InvalidArgumentError
from dd_sa_tokens._validation import (
    Sort,
    check_expiry,
    check_id,
    check_list_options,
    check_name,
    check_owner_ids,
    check_scopes,
    check_strategy,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ABOUT: dict[str, Any] = {"operation": "create_token", "service_account_id": "account"}


@pytest.mark.parametrize(
    "bad",
    ["", ".", "..", "x" * 257, "a\0", "a\n", "\x1b[2J", "a\x7f", "a\x85b", "\ud800", "a\udfff", None, 5, b"id", ["id"]],
)
@pytest.mark.parametrize("name", ["service_account_id", "token_id"])
def test_bad_ids_are_refused_by_name(name: str, bad: object) -> None:
    """What cannot be sent as one path segment is refused; the error names argument and operation, and is printable."""
    with pytest.raises(InvalidArgumentError, match=f"^{name} must") as caught:
        check_id(name, bad, "get_token")
    assert caught.value.operation == "get_token"
    assert getattr(caught.value, name) == (bad if isinstance(bad, str) else None)
    assert not isinstance(caught.value, ConfigurationError)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("good", ["a", "...", "../x", "a/b", "%2F", "?", "#", " ", "ü", "x" * 256, "🦴", "\xa0"])
def test_odd_ids_are_returned_as_they_are(good: str) -> None:
    """Anything that can be encoded as one segment is sent for the server to judge."""
    assert check_id("token_id", good, "get_token") == good


@pytest.mark.parametrize("strategy", ["auto", "get", "list"])
def test_known_strategies_are_accepted(strategy: str) -> None:
    """The strategies that there are pass."""
    check_strategy(strategy)


@pytest.mark.parametrize("bad", ["", "AUTO", "fastest", None, 5, ["get"]])
def test_unknown_strategies_are_refused_by_name(bad: object) -> None:
    """A typo in the strategy is an error, not a silent default."""
    with pytest.raises(InvalidArgumentError, match=r"^strategy must be"):
        check_strategy(bad)


@pytest.mark.parametrize("bad", ["", None, 5, b"name", ["name"], "a\ud800b"])
def test_bad_names_are_refused(bad: object) -> None:
    """A token's name is a non-empty text that has a UTF-8 form; the error says what it was about."""
    with pytest.raises(InvalidArgumentError, match=r"^name must be a non-empty str") as caught:
        check_name(bad, **ABOUT)
    assert (caught.value.operation, caught.value.service_account_id) == ("create_token", "account")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("good", ["deploy", " ", "Überwachung 🚀", "a\nb", "x" * 5000])
def test_other_names_are_for_the_api_to_judge(good: str) -> None:
    """Anything that can be sent as a name is."""
    check_name(good, **ABOUT)


@pytest.mark.parametrize(
    "bad",
    [
        *("dashboards_read", b"dashboards_read", None, 5, object(), iter(["dashboards_read"])),
        *([], (), set(), {}, [""], ["dashboards_read", ""], [None], [5], ["a", b"b"], ["\udfff"]),
    ],
    ids=lambda value: type(value).__name__ if " object at 0x" in repr(value) else type(value).__name__ + repr(value),
)
def test_bad_scopes_are_refused(bad: object) -> None:
    """Scopes are a non-empty collection of non-empty texts, and never one text, which is a collection of letters."""
    with pytest.raises(InvalidArgumentError, match=r"^scopes must") as caught:
        check_scopes(bad, **ABOUT)
    assert "dashboards_read" in str(caught.value)
    assert caught.value.operation == "create_token"


@pytest.mark.parametrize("make", [list, tuple, set, frozenset, dict.fromkeys, ReadOnce, NoTruth])
def test_any_collection_of_scopes_is_accepted(make: Callable[[list[str]], Any]) -> None:
    """Lists, sets, views, cursors and arrays are all collections of scopes. They are read once."""
    assert sorted(check_scopes(make(["a", "b"]), **ABOUT)) == ["a", "b"]
    assert check_scopes(["a", "a"], **ABOUT) == ["a", "a"]


@pytest.mark.parametrize("make", [list, tuple, set, ReadOnce, NoTruth])
def test_no_scopes_of_any_kind_are_refused(make: Callable[[list[str]], Any]) -> None:
    """Whether there are scopes is asked of the values, not of the truth of their collection."""
    with pytest.raises(InvalidArgumentError, match="scopes must not be empty"):
        check_scopes(make([]), **ABOUT)


@pytest.mark.parametrize("make", [list, tuple, ReadOnce, NoTruth])
def test_any_collection_of_owners_is_accepted(make: Callable[[list[str]], Any]) -> None:
    """The same holds for the IDs of service accounts, of which there may be none."""
    assert check_owner_ids(make(["a", "b", "a"]), "list") == ["a", "b"]
    assert check_owner_ids(make([]), "list") == []


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (NOW.replace(tzinfo=None) + timedelta(days=9), "timezone-aware"),
        (NOW.date() + timedelta(days=9), "timezone-aware"),
        ("2027-01-01T00:00:00Z", "timezone-aware"),
        (1_900_000_000, "timezone-aware"),
        (NOW, "in the future, not 2026-11-24T12:00:00"),
        (NOW - timedelta(microseconds=1), "in the future"),
        ((NOW - timedelta(seconds=1)).astimezone(timezone(timedelta(hours=14))), "in the future"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "before the year 10000 in UTC"),
    ],
)
def test_an_end_that_cannot_be_one_is_refused(bad: object, text: str) -> None:
    """The end of a token's life is a moment in the future that UTC has, too, and no local time without an offset."""
    with pytest.raises(InvalidArgumentError, match=rf"^expires_at must be .*{text}"):
        check_expiry(bad, NOW, **ABOUT)


@pytest.mark.parametrize(
    "good",
    [
        None,
        NOW + timedelta(microseconds=1),
        NOW + timedelta(hours=1),
        NOW.replace(2999),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_how_far_ahead_an_end_lies_is_for_the_api_to_judge(good: datetime | None) -> None:
    """An hour ahead is too soon for the API, which says so itself."""
    check_expiry(good, NOW, **ABOUT)
    if good is not None:
        check_expiry(good.astimezone(timezone(timedelta(hours=-11))), NOW, **ABOUT)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        *[(("", None, bad), "page_size must be a whole number from 1 to 100") for bad in (0, 101, -1, 1.0, True, "9")],
        *[((None, bad, 100), "sort must be ") for bad in ("id", "", "--name", "NAME", "+name", " name", 5, ["name"])],
        *[((bad, None, 100), "filter must be a str, not") for bad in (5, b"x", ["x"])],
        (("\ud800", None, 100), "filter must be a str without half of a surrogate pair"),
    ],
)
def test_bad_options_of_a_list_are_refused(options: tuple[object, object, object], text: str) -> None:
    """What the API would refuse, or what could not be sent, is refused by its name."""
    with pytest.raises(InvalidArgumentError, match=f"^{text}") as caught:
        check_list_options(*options, operation="list_tokens", service_account_id="account")
    assert caught.value.operation == "list_tokens"


@pytest.mark.parametrize("sort", [None, *get_args(Sort)])
def test_all_sorts_are_accepted(sort: str | None) -> None:
    """A list can be sorted by five fields, up and down, and have any text for a filter, an empty one too."""
    assert len(get_args(Sort)) == 10
    for size in (1, 100):
        check_list_options("", sort, size)
        check_list_options("a&b=c #?/ü", sort, size)
