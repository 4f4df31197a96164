"""The fast path of decoding and the general one: the same tokens, the same errors."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.documents import sample, unset_fields, values
from support.internals import structure_by_cattrs, without_cattrs

from dd_sa_tokens import AccessToken, InvalidResponseError, converter
from dd_sa_tokens._protocol.codec import included_leaks, structure_token


class Text(str):
    """A string of another type than JSON gives."""

    __slots__ = ()


class Table(dict[str, Any]):
    """An object of another type than JSON gives."""


SAMPLES: list[Any] = [json.loads(sample(case)) for case in ("get", "get_updated", "get_documented", "list_leaked")]
LEAKS = included_leaks(SAMPLES[-1])
RESOURCES: list[Any] = [*(document["data"] for document in SAMPLES[:-1]), *SAMPLES[-1]["data"]]

dates = st.sampled_from(["2026-05-28T14:36:47.296135174Z", "2026-05-28", "2026-05-28T14:36:47", "0001-01-01T00Z", ""])
others = st.sampled_from([Text("t1"), Text("2026-05-28T14:36:47Z"), Table(data=None), Table(id="x"), [Text("a")], {}])
TYPES = st.sampled_from(["service_access_tokens", "personal_access_tokens", "", Text("service_access_tokens")])


def places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where each value is: what holds it, and under which name or number."""
    for name, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        yield holder, name
        if isinstance(value, dict | list):
            yield from places(value)


@st.composite
def damaged_resources(draw: st.DrawFn) -> Any:
    """A real resource in which up to three values are missing or others."""
    box = [copy.deepcopy(draw(st.sampled_from(RESOURCES)))]
    for _ in range(draw(st.integers(0, 3))):
        holder, name = draw(st.sampled_from(list(places(box))))
        what = draw(st.sampled_from(["replace", "remove", "retype", "add"]))
        if what == "remove" and holder is not box:
            holder.pop(name)
        elif what == "retype" and type(holder[name]) in {str, dict}:
            holder[name] = {str: Text, dict: Table}[type(holder[name])](holder[name])
        elif what == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(["modified_at", "leak_information", "type", "id", "x"]))] = draw(values | dates)
        else:
            holder[name] = copy.deepcopy(draw(values | dates | others | TYPES))
    return box[0]


def outcome(structure: Any, resource: Any) -> object:
    """Return the token, or where and why there is none."""
    try:
        token = structure(resource, LEAKS)
    except InvalidResponseError as error:
        return error.path, error.reason, str(error)
    assert type(token) is AccessToken
    return token


def test_the_real_resources_have_every_field() -> None:
    """A new field of a token fails here until a resource has it: the tests below compare what the resources have."""
    never_set = [unset_fields(structure_by_cattrs(resource, LEAKS)) for resource in RESOURCES]
    assert set.intersection(*never_set) == {"type"}  # the fast path takes one type only


@settings(max_examples=300, deadline=None)
@given(damaged_resources())
def test_the_fast_path_changes_nothing(resource: Any) -> None:
    """Any resource gives the same token, or the same error, as from cattrs alone."""
    assert outcome(structure_token, resource) == outcome(structure_by_cattrs, resource)


@pytest.mark.parametrize("resource", RESOURCES)
def test_documented_shapes_take_the_fast_path(resource: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded resources need no more than the fast path, through the converter, too."""
    expected = structure_by_cattrs(resource, {})
    without_cattrs(monkeypatch)
    assert converter.structure(resource, AccessToken) == expected
