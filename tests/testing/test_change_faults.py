"""Rate limit and scripted faults around creates, updates and revokes."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import aiohttp
import pytest
from support.plain_client import address, ask, change, get, head, raw, wanted
from support.waiting import until
from yarl import URL

from dd_sa_tokens.testing import FakeDatadog


async def test_all_token_operations_spend_one_rate_limit(session: aiohttp.ClientSession) -> None:
    """The five operations spend one rate limit, also if they fail; a request beyond the limit is not carried out."""
    async with FakeDatadog(tokens=1, rate_limit=(8, 3600.0)) as datadog:
        token_id = datadog.token_ids[0]
        url = address(datadog, token_id)
        asked: list[tuple[str, URL, Any, int]] = [
            ("GET", url, None, 200),
            ("GET", address(datadog), None, 200),
            ("POST", address(datadog), wanted(), 201),
            ("POST", address(datadog), wanted(name=""), 400),
            ("PATCH", url, change(token_id, name="new"), 200),
            ("PATCH", url, change("another", name="new"), 400),
            ("DELETE", url, None, 204),
            ("DELETE", url, None, 404),
            ("POST", address(datadog), wanted(), 429),
            ("PATCH", address(datadog, datadog.token_ids[-1]), change(datadog.token_ids[-1], name="x"), 429),
            ("DELETE", address(datadog, datadog.token_ids[-1]), None, 429),
        ]
        answers = [await ask(session, datadog, method, where, body) for method, where, body, _ in asked]

    assert [got.status for got in answers] == [status for *_, status in asked]
    assert [got.headers["X-RateLimit-Remaining"] for got in answers] == [*"76543210", "0", "0", "0"]
    assert {got.headers["X-RateLimit-Name"] for got in answers} == {"service_account_access_tokens"}
    assert (datadog.requests, datadog.rejected) == (11, 3)
    assert [token.name for token in datadog.tokens] == ["new"]


OPERATIONS = ["POST", "PATCH", "DELETE"]


def operation(datadog: FakeDatadog, method: str) -> tuple[str, bytes]:
    """Return the path and the body of an operation on the account, or on its only token."""
    token_id = datadog.token_ids[0]
    body = {"POST": wanted(), "PATCH": change(token_id, name="new"), "DELETE": None}[method]
    path = address(datadog, None if method == "POST" else token_id).raw_path
    return path, b"" if body is None else json.dumps(body).encode()


def carried_out(datadog: FakeDatadog, method: str) -> bool:
    """Return whether that operation has been carried out on a server with one token."""
    names = [token.name for token in datadog.tokens]
    return {"POST": len(names) == 2, "PATCH": names == ["new"], "DELETE": names == []}[method]


@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_refusal_instead_of_a_change(session: aiohttp.ClientSession, method: str) -> None:
    """A scripted status, like bad credentials, keeps an operation from being carried out; the next one is."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, method)
        datadog.fail_next(status=503)

        url = URL(f"{datadog.url}{path}", encoded=True)
        assert (await ask(session, datadog, method, url, body, headers={})).status == 401
        assert (await raw(datadog, path, method, body)).startswith(b"HTTP/1.1 503 ")
        assert not carried_out(datadog, method)
        assert (await raw(datadog, path, method, body)).startswith(b"HTTP/1.1 20")
        assert carried_out(datadog, method)


@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_change_whose_answer_is_dropped(method: str) -> None:
    """With a drop the operation is carried out, and not a byte says so."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, method)
        datadog.fail_next(drop=True)

        assert await raw(datadog, path, method, body) == b""
        assert carried_out(datadog, method)


@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_change_whose_answer_is_truncated(method: str) -> None:
    """With a truncated answer the operation is carried out; a revoke's, which has no body, is dropped."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, method)
        datadog.fail_next(truncate=True)
        start, _, rest = (await raw(datadog, path, method, body)).partition(b"\r\n\r\n")

    assert carried_out(datadog, method)
    if method == "DELETE":
        assert (start, rest) == (b"", b"")
    else:
        length = re.search(rb"Content-Length: (\d+)", start)
        assert length is not None
        assert len(rest) == int(length[1]) // 2 > 0


@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_change_whose_answer_stalls(method: str) -> None:
    """With a stall the operation is carried out at once, and its answer comes later."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, method)
        datadog.fail_next(stall=0.05)
        stalled = asyncio.create_task(raw(datadog, path, method, body))
        await until(lambda: carried_out(datadog, method))
        assert not stalled.done()
        assert (await stalled).startswith(b"HTTP/1.1 20")


async def test_a_fault_belongs_to_who_came_first(session: aiohttp.ClientSession) -> None:
    """A fault stays with the request that met it, although others come while its body is on its way."""
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, "POST")
        datadog.fail_next(drop=True)
        datadog.fail_next(status=503)
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(datadog.url).port)
        writer.write(head(datadog, path, "POST", len(body)) + body[:9])
        await until(lambda: datadog.pending_faults == 1)

        assert (await get(session, datadog)).status == 503
        assert not carried_out(datadog, "POST")
        writer.write(body[9:])
        assert await reader.read() == b""
        assert carried_out(datadog, "POST")
        writer.close()
        await writer.wait_closed()


async def test_bodies_that_never_end(session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes, or the server's end, while a body is on its way: nothing is made, said, or waited for."""
    before = asyncio.all_tasks()
    async with FakeDatadog(tokens=1) as datadog:
        path, body = operation(datadog, "POST")
        writers = []
        for _ in range(2):
            _, writer = await asyncio.open_connection("127.0.0.1", URL(datadog.url).port)
            writer.write(head(datadog, path, "POST", len(body)) + body[:9])
            writers.append(writer)
        await until(lambda: datadog.requests == 2)
        writers[0].close()
        await writers[0].wait_closed()
        assert (await get(session, datadog)).status == 200
        start = time.monotonic()
    assert time.monotonic() - start < 5
    writers[1].close()
    await writers[1].wait_closed()

    assert len(datadog.tokens) == 1
    assert asyncio.all_tasks() == before
    assert caplog.records == []
