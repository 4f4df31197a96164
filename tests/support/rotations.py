"""A fake server, a client and a store for rotations, and the check of what holds after one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from support.internals import parts
from support.keys import leaks, remains
from support.scripted import ScriptedDatadog
from support.waiting import HANG

from dd_sa_tokens import (
    AccessToken,
    CreatedToken,
    DatadogError,
    RetryPolicy,
    RotationError,
    TokensClient,
)

QUICK = RetryPolicy(max_attempts=3, initial_backoff=0.004, max_backoff=0.004)
NAME, SCOPES = "ci deploys", ("dashboards_read", "logs_read_data")
DAY = timedelta(days=1)
LIFE = 90 * DAY


def connect(datadog: ScriptedDatadog, **options: Any) -> TokensClient:
    """Make a client of the fake."""
    keys = {"base_url": datadog.url, "api_key": datadog.api_key, "app_key": datadog.app_key}
    return TokensClient(**({"retry": QUICK} | keys | options))


@attrs.define(eq=False)
class Vault:
    """Where secrets are kept.

    Attributes:
        datadog: Whose.
        old: The token that is to be rotated.
        kept: The secrets of the tokens that were stored, by ID.
        handed: What `store` was given.
        error: What `store` raises, if it is to fail.
        pauses: How often `store` is suspended on its way.
    """

    datadog: ScriptedDatadog
    old: AccessToken
    kept: dict[str, str] = attrs.field(repr=False)
    handed: list[CreatedToken] = attrs.field(factory=list[CreatedToken])
    error: Exception | None = None
    pauses: int = 0

    @classmethod
    async def with_a_token(
        cls, datadog: ScriptedDatadog, client: TokensClient, life: timedelta | None = LIFE, name: str = NAME
    ) -> Vault:
        """Make the old token; the requests up to here do not count."""
        ends = datetime.now(UTC) + life if life else None
        made = await client.create_token(datadog.service_account_id, name=name, scopes=SCOPES, expires_at=ends)
        datadog.asked.clear()
        return cls(datadog, made.token, {made.token.id: made.key.reveal()})

    async def store(self, created: CreatedToken) -> None:
        """Keep a secret, a little at a time."""
        self.handed.append(created)
        for _ in range(self.pauses):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.kept[created.token.id] = created.key.reveal()

    def rotate(self, client: TokensClient, **options: Any) -> Awaitable[AccessToken]:
        """Rotate the old token."""
        return client.rotate_token(self.datadog.service_account_id, self.old.id, **({"store": self.store} | options))

    async def fail(self, client: TokensClient, kind: type[DatadogError] = RotationError, **options: Any) -> Any:
        """Rotate the old token and return the error that this has to raise."""
        with pytest.raises(kind) as caught:
            await self.rotate(client, **options)
        assert type(caught.value) is kind
        error = caught.value
        assert (error.operation, error.service_account_id) == ("rotate_token", self.datadog.service_account_id)
        assert error.token_id == self.old.id
        return error

    @property
    def live(self) -> set[str]:
        """Return the IDs of the old token and of those that were made to replace it, as far as they live."""
        return {token.id for token in self.datadog.tokens if token.name == self.old.name}

    @property
    def new_id(self) -> str:
        """Return the ID of the one token that `store` was given."""
        (created,) = self.handed
        return created.token.id

    def check_unchanged(self) -> None:
        """See that the old token works and that there is no other."""
        assert self.live == {self.old.id}
        assert self.datadog.works(self.old.id)

    def check_replaced(self) -> None:
        """See that the new token works, is kept, and stands alone."""
        (new_id,) = self.live
        assert new_id != self.old.id
        assert self.datadog.works(new_id)
        assert self.kept[new_id] == self.datadog.keys[new_id]


def state(error: RotationError) -> tuple[Any, ...]:
    """Return what a RotationError says of the two tokens."""
    return error.old_works, error.new_id, error.new_works, error.outcome_unknown


def warnings(log: pytest.LogCaptureFixture) -> str:
    """Return what our logger has said at WARNING since the log was cleared, retries aside."""
    records = [record for record in log.records if record.name == "dd_sa_tokens" and record.levelno == logging.WARNING]
    return "\n".join(text for text in (record.getMessage() for record in records) if "; attempt " not in text)


def notes(error: BaseException | None) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def check_no_secret(
    error: BaseException | None, log: pytest.LogCaptureFixture, client: TokensClient, datadog: ScriptedDatadog
) -> None:
    """Look for the created keys in all that is left of a call."""
    secrets = datadog.secrets()
    assert secrets
    for where, text in remains(error) if error is not None else ():
        assert leaks(text, *secrets) == [], where
    for record in log.records:
        assert leaks(record.getMessage() + repr(record.args) + repr(record.exc_info), *secrets) == []
    assert leaks(repr(vars(client)) + repr([vars(part) for part in parts(client)]), *secrets) == []


SOON = timedelta(seconds=10)
LATER = {"status": 429, "headers": {"Retry-After": "0.01"}}
LONG_AFTER = {"status": 429, "headers": {"X-RateLimit-Reset": "3000"}}


# The secret was not stored


class SomeError(Exception):
    """Anything that the caller's code may raise."""


SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {},
    "latency": {"latency": 0.002},
    "429s": {"GET": [LATER], "POST": [LATER], "DELETE": [LATER]},
    "503s": {"GET": [{"status": 503}], "DELETE": [{"status": 503}]},
    "503s, no pause": {"latency": 0.002, "DELETE": [{"status": 503}] * 2, "retry": RetryPolicy(initial_backoff=0.0)},
    "lost answers": {"GET": [{"drop": True}], "DELETE": [{"drop": True}]},
    "create lost": {"POST": [{"drop": True}]},
    "create refused": {"POST": [{"status": 409}]},
    "slow store": {"pauses": 3},
    "store raises": {"pauses": 1, "error": SomeError()},
    "undo fails": {"error": SomeError(), "DELETE": [{"status": 503}] * 3},
    "undo refused": {"error": SomeError(), "DELETE": [{"status": 403}]},
    "old one stays": {"DELETE": [{"status": 403}]},
}


async def cancelled(task: asyncio.Future[Any]) -> asyncio.CancelledError:
    """Cancel a rotation; return the cancellation with which it has to end."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        async with asyncio.timeout(HANG):
            await task
    assert asyncio.current_task().cancelling() == 0
    return caught.value
