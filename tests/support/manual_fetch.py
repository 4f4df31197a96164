"""A fetch whose answers the test gives one by one."""

from __future__ import annotations

import asyncio
from typing import Any

from dd_sa_tokens import AccessToken, DatadogError, TokenResult
from dd_sa_tokens._bulk.fetcher import Fetcher
from dd_sa_tokens._cancellation import Cancellation


class ManualFetch:
    """Answers when told to; records what it is asked for, and counts the reports of a change."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.changes = 0
        self.answers: dict[str, asyncio.Future[AccessToken]] = {}
        self.fetcher = Fetcher(self._fetch, {}, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def _fetch(self, token_id: Any) -> AccessToken:
        self.asked.append(token_id)
        self.answers[token_id] = asyncio.get_running_loop().create_future()
        return await self.answers[token_id]

    async def ask(self, token_id: object) -> asyncio.Task[TokenResult]:
        """Ask in a task of its own, and return once the question is out."""

        async def answer() -> TokenResult:
            return await self.fetcher.fetch(Cancellation.of_current_task(), token_id)

        asking = asyncio.ensure_future(answer())
        await asyncio.sleep(0)
        return asking

    async def give(self, token_id: str, error: DatadogError | None = None) -> None:
        """Answer, and return once that has arrived."""
        if error is None:
            self.answers[token_id].set_result(AccessToken(id=token_id))
        else:
            self.answers[token_id].set_exception(error)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
