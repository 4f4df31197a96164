"""A client that shares the rate limit with other processes, as the environment says."""

from __future__ import annotations

import os
from typing import Any, Self

from dd_sa_tokens.client import TokensClient

from .exit_codes import CommandError, ExitCode


def make_client(**options: Any) -> TokensClient:
    """Make a client; with `DD_SA_TOKENS_REDIS_URL`, one whose rate limit is kept in Redis.

    Args:
        options: The client's.

    Raises:
        ConfigurationError: An option, or the URL, is invalid.
        CommandError: redis-py is not installed.
    """
    url = os.environ.get("DD_SA_TOKENS_REDIS_URL")
    if not url:
        return TokensClient(**options)
    try:
        from dd_sa_tokens.fleet import RedisStore  # noqa: PLC0415 - an extra, and 0.1 s that others need not wait
    except ImportError:
        message = "DD_SA_TOKENS_REDIS_URL needs redis-py, the extra redis; from a clone: pip install '.[cli,redis]'"
        raise CommandError(message, ExitCode.USAGE) from None
    store = RedisStore(url, organization=os.environ.get("DD_SA_TOKENS_ORGANIZATION") or "default")

    class SharingClient(TokensClient):
        """A client whose store is open as long as the client."""

        async def __aenter__(self) -> Self:
            await store.__aenter__()
            return await super().__aenter__()

        async def close(self) -> None:
            await super().close()
            await store.close()

    return SharingClient(rate_limit_store=store, **options)
