"""Plain aiohttp as a client of the fake server, so that its tests need nothing of ours but the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import attrs
from yarl import URL

from dd_sa_tokens.testing import FakeDatadog

TYPE = "service_access_tokens"
LIMIT_HEADERS = {f"X-RateLimit-{name}" for name in ("Limit", "Period", "Remaining", "Reset", "Name")}


@attrs.frozen
class Got:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def keys(datadog: FakeDatadog) -> dict[str, str]:
    return {"DD-API-KEY": datadog.api_key, "DD-APPLICATION-KEY": datadog.app_key}


def address(datadog: FakeDatadog, token_id: str | None = None, account_id: str | None = None) -> URL:
    """Return the URL of a token, or of a list without one; IDs are encoded as one segment."""
    account = quote(account_id or datadog.service_account_id, safe="")
    end = "" if token_id is None else f"/{quote(token_id, safe='')}"
    return URL(f"{datadog.url}/api/v2/service_accounts/{account}/access_tokens{end}", encoded=True)


async def get(
    session: aiohttp.ClientSession, datadog: FakeDatadog, url: URL | None = None, headers: Any = None, **query: str
) -> Got:
    """GET a URL; the first token by default."""
    url = (address(datadog, datadog.token_ids[0]) if url is None else url).update_query(query)
    async with session.get(url, headers=keys(datadog) if headers is None else headers) as answer:
        return Got(answer.status, answer.headers, await answer.read())


async def ask(
    session: aiohttp.ClientSession, datadog: FakeDatadog, method: str, url: URL, body: Any = None, headers: Any = None
) -> Got:
    """Send a request with a body, which is JSON unless it is bytes already."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body)
    headers = keys(datadog) | {"Content-Type": "application/json"} if headers is None else headers
    async with session.request(method, url, data=data, headers=headers) as answer:
        return Got(answer.status, answer.headers, await answer.read())


def wanted(**attributes: Any) -> dict[str, Any]:
    """Return the body of a create; it is valid unless the attributes are not."""
    return {"data": {"type": TYPE, "attributes": {"name": "new", "scopes": ["logs_read_data"]} | attributes}}


def change(token_id: str, **attributes: Any) -> dict[str, Any]:
    """Return the body of an update."""
    return {"data": {"type": TYPE, "id": token_id, "attributes": attributes}}


async def create(session: aiohttp.ClientSession, datadog: FakeDatadog, **attributes: Any) -> dict[str, Any]:
    """Create a token in the default account, and return its resource object."""
    got = await ask(session, datadog, "POST", address(datadog), wanted(**attributes))
    assert got.status == 201, got.body
    resource: dict[str, Any] = got.json["data"]
    return resource


async def revoke(session: aiohttp.ClientSession, datadog: FakeDatadog, token_id: str) -> Got:
    """Revoke a token of the default account."""
    return await ask(session, datadog, "DELETE", address(datadog, token_id))


async def listed(session: aiohttp.ClientSession, datadog: FakeDatadog, **query: str) -> tuple[list[str], int]:
    """Return the IDs on a page, and the total."""
    got = await get(session, datadog, address(datadog), **query)
    assert got.status == 200
    return [item["id"] for item in got.json["data"]], got.json["meta"]["page"]["total_filtered_count"]


async def raw(datadog: FakeDatadog, target: str, method: str = "GET", body: bytes = b"") -> bytes:
    """Send a request line and a body as they are, and return all that comes until the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(datadog.url).port)
    writer.write(head(datadog, target, method, len(body)) + body)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def head(datadog: FakeDatadog, target: str, method: str, length: int) -> bytes:
    """Return the head of a request whose connection closes with the answer."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in keys(datadog).items()]
    return "\r\n".join([*lines, "", ""]).encode()
