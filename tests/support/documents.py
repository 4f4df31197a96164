"""JSON:API documents: recorded ones, and random ones that are mostly right."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from hypothesis import strategies as st
from support.samples import SAMPLES

from dd_sa_tokens import AccessToken, Leak

ACCOUNT = "5e0f7c1a-3b1d-4c55-9d0a-6a1f2b3c4d5e"
SECRET = "hunter22-must-not-show"


def sample(case: str, status: int = 200) -> bytes:
    return (SAMPLES / case / f"{status}.json").read_bytes()


def body(resource: object) -> bytes:
    return json.dumps({"data": resource}).encode()


def unset_fields(value: AccessToken | Leak) -> set[str]:
    """Return the names of the fields that have their default value."""
    return {field.name for field in attrs.fields(type(value)) if getattr(value, field.name) == field.default}


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


# Properties

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(good, good, good, values)


dates = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
documented_attributes = {
    "name": mostly(st.text()),
    "public_portion": mostly(st.text()),
    "scopes": mostly(st.lists(st.text(), max_size=3)),
    **{name: mostly(dates) for name in ("created_at", "modified_at", "last_used_at", "expires_at")},
}
attributes = st.fixed_dictionaries(
    {}, optional=documented_attributes | {"service_account_id": values, "unknown": values}
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


# Whole seconds: Python itself reads an offset of less than one second as UTC.
offsets = st.integers(-86_399, 86_399).map(lambda seconds: timedelta(seconds=seconds))
whole = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timedelta(minutes=minutes))
