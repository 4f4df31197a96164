"""Fixtures of the rotations."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from support.cancelling import check_nothing_left
from support.internals import is_open
from support.rotations import Vault, connect
from support.scripted import ScriptedDatadog

from dd_sa_tokens import (
    TokensClient,
)


@pytest.fixture
async def datadog() -> AsyncIterator[ScriptedDatadog]:
    """A fake server with three tokens that no test changes."""
    async with ScriptedDatadog(tokens=3) as datadog:
        yield datadog


@pytest.fixture
async def client(datadog: ScriptedDatadog) -> AsyncIterator[TokensClient]:
    """A client with keys of its own, that leaves nothing behind."""
    async with connect(datadog) as client:
        yield client
        if is_open(client):
            check_nothing_left(client)


@pytest.fixture
async def vault(datadog: ScriptedDatadog, client: TokensClient) -> Vault:
    """Where the old token is kept."""
    return await Vault.with_a_token(datadog, client)


# Cancelled


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Every logger's DEBUG, asyncio's and aiohttp's too."""
    caplog.set_level(logging.DEBUG)
    return caplog
