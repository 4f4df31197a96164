"""Pytest fixtures, for a conftest.py with `pytest_plugins = ["dd_sa_tokens.testing.plugin"]`.

Both fixtures are synchronous and need no pytest-asyncio.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partialmethod
from importlib import import_module
from inspect import signature
from typing import Any
from unittest.mock import Mock

import pytest

from ._server import FakeDatadog


@pytest.fixture
def fake_datadog() -> Iterator[FakeDatadog]:
    """A `FakeDatadog` with its defaults, in a thread of its own, for one test.

    Yields:
        The running server, for synchronous tests and for clients of any event loop.
    """
    with FakeDatadog() as datadog:
        yield datadog


@pytest.fixture
def aioresponses_for_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make aioresponses work with the installed aiohttp for one test.

    aioresponses 0.7.9 creates responses without the argument `stream_writer`, which aiohttp 3.14 requires.

    Raises:
        ModuleNotFoundError: aioresponses is not installed.
    """
    core = import_module("aioresponses.core")  # here, because users of `fake_datadog` alone need not have it
    original: Any = core.ClientResponse

    if "stream_writer" in signature(original).parameters:
        fitting = partialmethod(original.__init__, stream_writer=Mock(output_size=0))
        monkeypatch.setattr(core, "ClientResponse", type("ClientResponse", (original,), {"__init__": fitting}))
