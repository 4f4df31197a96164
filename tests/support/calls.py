"""Each call of the client about one token, under one signature."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from dd_sa_tokens import CreatedToken, RetryPolicy, TokensClient

from .keys import CREATED_KEY

FAST = RetryPolicy(initial_backoff=0.002, max_backoff=0.01)

ONCE = RetryPolicy(max_attempts=1)

Connect = Callable[..., TokensClient]


async def _store(created: CreatedToken) -> None:
    assert created.key.reveal() == CREATED_KEY


# Each call of the client about one token of an account; each gives its value or raises its error.
CALLS: dict[str, Callable[[TokensClient, str, str], Coroutine[Any, Any, Any]]] = {}


def _call(call: Callable[[TokensClient, str, str], Coroutine[Any, Any, Any]]) -> None:
    CALLS[call.__name__.strip("_")] = call


@_call
async def _get(client: TokensClient, account: str, token_id: str) -> Any:
    return await client.get_token(account, token_id)


@_call
async def _get_many(client: TokensClient, account: str, token_id: str) -> Any:
    return [item.unwrap() for item in await client.get_tokens(account, [token_id])]


@_call
async def _stream(client: TokensClient, account: str, token_id: str) -> Any:
    async with aclosing(client.stream_tokens(account, [token_id])) as results:  # unwrap() raises inside the loop
        return [item.unwrap() async for item in results]


@_call
async def _list(client: TokensClient, account: str, _: str) -> Any:
    return [token async for token in client.list_tokens(account)]


@_call
async def _create(client: TokensClient, account: str, _: str) -> Any:
    return await client.create_token(account, name="n", scopes=["a"])


@_call
async def _update(client: TokensClient, account: str, token_id: str) -> Any:
    return await client.update_token(account, token_id, name="n")


@_call
async def _revoke(client: TokensClient, account: str, token_id: str) -> Any:
    return await client.revoke_token(account, token_id)


@_call
async def _rotate(client: TokensClient, account: str, token_id: str) -> Any:
    return await client.rotate_token(account, token_id, store=_store)
