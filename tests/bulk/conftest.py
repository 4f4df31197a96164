"""Fixtures of the bulk fetches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from support.bulk import (
    slowly,
)
from support.manual_fetch import ManualFetch


@pytest.fixture(params=[list, slowly], ids=["sync", "async"])
def source(request: pytest.FixtureRequest) -> Callable[[Iterable[Any]], Any]:
    """Make an iterable, or an async one, of IDs."""
    return request.param


@pytest.fixture
def fetcher() -> ManualFetch:
    return ManualFetch()
