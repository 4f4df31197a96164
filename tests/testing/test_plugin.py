"""The pytest plugin, in pytest runs of its own: with and without pytest-asyncio, and with loops of every scope."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from aioresponses import aioresponses
from support.nested_pytest import run_pytest

from dd_sa_tokens.testing import FakeDatadog

PLUGIN = 'pytest_plugins = ["dd_sa_tokens.testing.plugin"]\n'


SYNC = """
import http.client

def test_one(fake_datadog):
    assert fake_datadog.requests == 0
    client = http.client.HTTPConnection(fake_datadog.url.removeprefix("http://"))
    client.request("GET", "/")
    assert client.getresponse().status == 401
    client.close()
    assert fake_datadog.requests == 1

def test_another_fake(fake_datadog):
    assert fake_datadog.requests == 0
    assert len(fake_datadog.tokens) == 100
"""

LOOPS = """
import asyncio

import pytest

from dd_sa_tokens import RetryPolicy
from dd_sa_tokens.testing import FakeDatadog

RUNS = range(20)

@pytest.fixture(scope="session")
def datadog():
    with FakeDatadog(tokens=20, rate_limit=None) as fake:
        yield fake

async def fetch(datadog):
    datadog.fail_next(status=503)
    async with datadog.client(retry=RetryPolicy(initial_backoff=0.001)) as client:
        result = await client.get_tokens(datadog.service_account_id, datadog.token_ids)
    assert len(result.tokens) == 20
    assert datadog.pending_faults == 0

@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("run", RUNS)
async def test_function(datadog, run):
    await fetch(datadog)

@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("run", RUNS)
async def test_module(datadog, run):
    await fetch(datadog)

@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("run", RUNS)
async def test_session(datadog, run):
    await fetch(datadog)

@pytest.mark.parametrize("run", RUNS)
def test_sync(datadog, run):
    asyncio.run(fetch(datadog))
"""

STALLED = """
import http.client
import time

def test_leaves_a_stalled_request_behind(fake_datadog):
    fake_datadog.fail_next(stall=600.0)
    client = http.client.HTTPConnection(fake_datadog.url.removeprefix("http://"))
    client.request("GET", "/", headers={"DD-APPLICATION-KEY": fake_datadog.access_token})
    while fake_datadog.pending_faults:
        time.sleep(0.001)
    test_leaves_a_stalled_request_behind.client = client

def test_goes_on(fake_datadog):
    client = test_leaves_a_stalled_request_behind.client
    assert client.sock.recv(1) == b""
    client.close()
"""

MOCKED = """
import asyncio

import aiohttp
from aioresponses import aioresponses, core

ORIGINAL = core.ClientResponse

async def fetch():
    with aioresponses() as mocked:
        mocked.get("http://example.com/", payload={"a": 1})
        async with aiohttp.ClientSession() as session, session.get("http://example.com/") as answer:
            return await answer.json()

def test_with_the_fixture(aioresponses_for_aiohttp):
    assert asyncio.run(fetch()) == {"a": 1}

def test_patched_for_one_test_only():
    assert core.ClientResponse is ORIGINAL
    assert ORIGINAL is aiohttp.ClientResponse
"""


def test_its_fixtures(tmp_path: Path) -> None:
    """The fixtures serve synchronous tests, and clients of event loops of every scope.

    One session-scoped fake serves loops of each scope and synchronous tests, 20 times each. A test that leaves a
    stalled request behind ends at once. aioresponses works with its fixture, and is afterwards what it was.
    """
    files = {"test_sync": SYNC, "test_stalled": STALLED, "test_mocked": MOCKED}

    assert "86 passed" in run_pytest(tmp_path, conftest=PLUGIN, test_loops=LOOPS, **files)


def test_without_pytest_asyncio(tmp_path: Path) -> None:
    """The fixtures need no pytest-asyncio."""
    files = {"test_sync": SYNC, "test_stalled": STALLED, "test_mocked": MOCKED}

    assert "6 passed" in run_pytest(tmp_path, "-p", "no:asyncio", conftest=PLUGIN, **files)


def test_unknown_unless_asked_for(tmp_path: Path) -> None:
    """A test run that does not name the plugin has none of its fixtures."""
    printed = run_pytest(tmp_path, "-p", "no:asyncio", test_sync=SYNC)

    assert "fixture 'fake_datadog' not found" in printed
    assert "2 errors" in printed


async def test_fixtures_beside_an_event_loop(fake_datadog: FakeDatadog, aioresponses_for_aiohttp: None) -> None:
    """Both fixtures serve one test: aioresponses answers for one address, the fake for its own."""
    with aioresponses(passthrough=[fake_datadog.url]) as mocked:
        mocked.get("http://example.com/", payload={"a": 1})
        async with aiohttp.ClientSession() as session, session.get("http://example.com/") as answer:
            assert await answer.json() == {"a": 1}
        async with fake_datadog.client() as client:
            assert len((await client.get_tokens(fake_datadog.service_account_id, fake_datadog.token_ids)).tokens) == 100
