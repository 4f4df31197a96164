"""From a request to what the accounts make of it."""

from __future__ import annotations

from urllib.parse import unquote

from aiohttp import web

from ._accounts import Accounts
from ._answers import Answer, RefusedError

_ROOT = "/api/v2/service_accounts/"
_WITH_BODIES = ("POST", "PATCH")


async def carry_out(accounts: Accounts, request: web.BaseRequest, now: float) -> Answer:
    """Read a request to its end, do what it asks for, and return the answer, be it a refusal.

    Args:
        accounts: What it is about.
        request: A request of any method, to any path.
        now: The server's time, in seconds since the epoch.
    """
    try:
        body = await _read(request) if request.method in _WITH_BODIES else b""
        return _operate(accounts, request, body, now)
    except RefusedError as refused:
        return refused.answer


async def _read(request: web.BaseRequest) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        refusal = (413, "the body must be at most 1 MiB")
    except (ConnectionError, web.RequestPayloadError):  # a client that went meanwhile, or a broken compression
        refusal = (400, "the body must be complete")
    raise RefusedError(*refusal)


def _operate(accounts: Accounts, request: web.BaseRequest, body: bytes, now: float) -> Answer:
    # The path as it came: an ID is one segment of it, whatever it becomes once decoded.
    path = request.rel_url.raw_path
    if not path.startswith(_ROOT):
        raise RefusedError(404)
    match request.method, [unquote(segment) for segment in path.removeprefix(_ROOT).split("/")]:
        case "GET", [account_id, "access_tokens", token_id]:
            return accounts.get(account_id, token_id)
        case "GET", [account_id, "access_tokens"]:
            return accounts.list(account_id, request.query)
        case "POST", [account_id, "access_tokens"]:
            return accounts.create(account_id, body, now)
        case "PATCH", [account_id, "access_tokens", token_id]:
            return accounts.update(account_id, token_id, body, now)
        case "DELETE", [account_id, "access_tokens", token_id]:
            return accounts.revoke(account_id, token_id)
        case _:
            raise RefusedError(404)
