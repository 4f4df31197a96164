"""Fixtures of the protocol."""

from __future__ import annotations

import pytest
from support.internals import decode_with, json_loads_strictly


@pytest.fixture(params=["orjson", "json"])
def loads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Decode with either library; the extra `speed` must not change what comes out."""
    if request.param == "orjson":
        decode_with(monkeypatch, pytest.importorskip("orjson").loads)
    else:
        decode_with(monkeypatch, json_loads_strictly)
    return request.param
