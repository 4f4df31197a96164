"""How much memory grows while a stream runs over ever more IDs."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator

from dd_sa_tokens import TokensClient

from .server import SERVICE_ACCOUNT_ID, fast_server


def _peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024 / 1024


async def _ids(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"{number:08d}-0000-4000-8000-000000000000"


async def _stream(url: str, count: int) -> None:
    async with TokensClient(base_url=url, api_key="0" * 32, app_key="1" * 40) as client:
        async for item in client.stream_tokens(SERVICE_ACCOUNT_ID, _ids(count), strategy="get"):
            item.unwrap()


def main(*, quick: bool) -> None:
    """Print the growth of the peak of resident memory over a warm-up of 2,000 IDs."""
    count = 5_000 if quick else 200_000
    with fast_server() as url:
        asyncio.run(_stream(url, 2_000))
        before = _peak_mib()
        asyncio.run(_stream(url, count))
    print(f"\nMemory, {count:,} IDs streamed from an async generator")
    print(f"  resident before {before:.1f} MiB, growth {_peak_mib() - before:.1f} MiB")
