"""What the user sees of each attempt: `on_attempt`, and the facts that log records carry."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import subprocess
import sys
from typing import Any
from unittest.mock import AsyncMock, Mock

import attrs
import pytest
from support.calls import FAST, ONCE, Connect
from support.keys import ACCOUNT
from support.payloads import rate_limit_headers
from support.replies import any_answer, hang_up, reply, stall
from support.servers import RawServer

from dd_sa_tokens import Attempt, ConfigurationError, DatadogError, RateLimit, TokensClient
from dd_sa_tokens.testing import FakeDatadog

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_a_success_is_told_with_all_its_facts(server: RawServer, connect: Connect) -> None:
    """One call that succeeds at once is one attempt with its operation, IDs, status, time and rate limit."""
    attempts: list[Attempt] = []
    server.script(reply(200, headers=rate_limit_headers(100, 99, 7)))
    await connect(on_attempt=attempts.append).get_token(ACCOUNT, "t1")
    (attempt,) = attempts
    assert 0 < attempt.seconds < 5
    assert attrs.evolve(attempt, seconds=0.0) == Attempt(
        operation="get_token",
        service_account_id=ACCOUNT,
        token_id="t1",
        number=1,
        status=200,
        error=None,
        seconds=0.0,
        waited=0.0,
        rate_limit=RateLimit(100, 10.0, 99, 7.0, None),
    )


async def test_each_attempt_of_a_call_is_told(server: RawServer, connect: Connect) -> None:
    """Failures that are tried again and final ones have their status, if any, the error's class, and a number."""
    attempts: list[Attempt] = []
    server.script(reply(503), hang_up(), stall(), reply(429, headers={"X-RateLimit-Reset": "0.2"}), reply(404))
    with pytest.raises(DatadogError):
        await connect(on_attempt=attempts.append, timeout=0.2).get_token(ACCOUNT, "t1")
    server.script(reply(200, b"{}"))
    with pytest.raises(DatadogError):
        await connect(on_attempt=attempts.append).get_token(ACCOUNT, "t1")
    assert [(attempt.number, attempt.status, attempt.error) for attempt in attempts] == [
        (1, 503, "ServerError"),
        (2, None, "TransportError"),
        (3, None, "RequestTimeoutError"),
        (4, 429, "RateLimitError"),
        (5, 404, "NotFoundError"),
        (1, 200, "InvalidResponseError"),
    ]
    assert [attempt.waited > 0 for attempt in attempts[:5]] == [False, False, False, False, True]


async def test_the_waits_add_up_to_the_clients_own(server: RawServer, connect: Connect) -> None:
    """What the attempts waited for the rate limit is, in all, what `stats` says."""
    attempts: list[Attempt] = []
    server.script(reply(200, headers=rate_limit_headers(3, 0, 0.5, 1)), otherwise=reply(200))
    client = connect(on_attempt=attempts.append)
    await client.get_tokens(ACCOUNT, ["a", "b", "c"])
    assert sum(attempt.waited for attempt in attempts) == pytest.approx(client.stats.rate_limit_wait_seconds)
    assert client.stats.rate_limit_wait_seconds > 0


async def test_every_request_of_every_operation_is_told() -> None:
    """The pages of a bulk fetch and the steps of a rotation are told: exactly what the server has received."""
    attempts: list[Attempt] = []
    async with FakeDatadog(tokens=250) as datadog, datadog.client(on_attempt=attempts.append) as client:
        await client.get_tokens(datadog.service_account_id, datadog.token_ids)
        await client.find_tokens(datadog.token_ids[:1])
        async for _ in client.list_service_accounts():
            pass
        await client.rotate_token(datadog.service_account_id, datadog.token_ids[0], store=lambda _: None)
    received = [(each.operation, each.token_id, each.status) for each in datadog.received]
    assert [(each.operation, each.token_id, each.status) for each in attempts] == received
    assert {each.operation for each in attempts} >= {"list_tokens", "create_token", "revoke_token"}


async def test_cancelled_and_closed_attempts_are_told(server: RawServer, connect: Connect) -> None:
    """An attempt that its caller cancels ends with `CancelledError`, one that `close` ends with `ClientClosedError`."""
    attempts: list[Attempt] = []
    server.script(otherwise=stall())
    client = connect(on_attempt=attempts.append)
    for end in ("cancel", "close"):
        task = asyncio.create_task(client.get_token(ACCOUNT, end))
        await server.arrival(len(attempts) + 1)
        if end == "cancel":
            task.cancel()
        else:
            await client.close()
        await asyncio.gather(task, return_exceptions=True)
    assert [(each.token_id, each.status, each.error) for each in attempts] == [
        ("cancel", None, "CancelledError"),
        ("close", None, "ClientClosedError"),
    ]


async def test_a_failing_function_fails_no_call(
    server: RawServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises is logged once for the client, with its place; answers, errors and cancellations stay the same."""

    def broken(attempt: Attempt) -> None:
        raise ZeroDivisionError(attempt.token_id)

    server.script(reply(), reply(404), stall())
    client = connect(on_attempt=broken)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    with pytest.raises(DatadogError, match="404"):
        await client.get_token(ACCOUNT, "t2")
    with pytest.raises(TimeoutError) as caught:
        await asyncio.wait_for(client.get_token(ACCOUNT, "t3"), 0.05)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "on_attempt raised ZeroDivisionError('t1') at " in record.getMessage()
    assert __file__ in record.getMessage()


@pytest.mark.parametrize("before", ["", "x" * 60, "'"], ids=["whole", "cut", "quoted"])
async def test_what_a_failing_function_says_shows_no_key(
    server: RawServer, connect: Connect, caplog: pytest.LogCaptureFixture, before: str
) -> None:
    """A key in the exception's text is masked, also where the text is cut, or holds what a repr escapes."""
    key = 'canary\\"backslash-' + "0123456789" * 3

    def broken(_: Attempt) -> None:
        raise ValueError(before + key)

    client = connect(api_key=None, app_key=None, access_token=key, on_attempt=broken)
    await client.get_token(ACCOUNT, "t1")
    assert "on_attempt raised ValueError(" in caplog.text
    assert "canary" not in caplog.text


async def test_a_coroutine_that_is_returned_is_reported(
    server: RawServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A function that returns a coroutine, which would never run, is reported once, without Python's own warning."""
    for token_id in ("t1", "t2"):
        await connect(on_attempt=lambda _: asyncio.sleep(0)).get_token(ACCOUNT, token_id)
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "on_attempt returned a coroutine"
    ] * 2


async def _async(_: Attempt) -> None: ...


class _AsyncObject:
    async def __call__(self, _: Attempt) -> None: ...


def _generator(_: Attempt) -> Any:
    yield


@pytest.mark.parametrize(
    ("on_attempt", "words"),
    [
        (_async, "not an async def"),
        (functools.partial(_async), "not an async def"),
        (_AsyncObject(), "not an async def"),
        (AsyncMock(), "not an async def"),
        (functools.partial(AsyncMock()), "not an async def"),
        (_generator, "or a generator"),
        ("print", "must be a function that takes an Attempt, not str"),
    ],
)
def test_a_function_that_would_not_run_is_refused(on_attempt: Any, words: str) -> None:
    """An `async def`, in each of its forms, a generator and what is no function are refused when the client is made."""
    with pytest.raises(ConfigurationError, match=f"^on_attempt .*{words}"):
        TokensClient(access_token="ddpat_0123456789", on_attempt=on_attempt)


async def test_a_mock_is_called(server: RawServer, connect: Connect) -> None:
    """A mock of a plain function is accepted."""
    on_attempt = Mock()
    await connect(on_attempt=on_attempt).get_token(ACCOUNT, "t1")
    on_attempt.assert_called_once()


async def test_log_records_carry_the_same_facts(
    server: RawServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A request's record has the fields of `Attempt`, a retry's also `delay`, a wait's `seconds` and `rate_limit`."""
    caplog.set_level(logging.DEBUG, "dd_sa_tokens")
    attempts: list[Attempt] = []
    limit = rate_limit_headers(3, 0, 0.1, 0.2)
    server.script(reply(503), reply(200, headers=limit), otherwise=any_answer())
    client = connect(on_attempt=attempts.append)
    for token_id in ("t1", "t2"):
        await client.get_token(ACCOUNT, token_id)
    names = [field.name for field in attrs.fields(Attempt)]
    told = [
        Attempt(**{name: vars(record)[name] for name in names}) for record in caplog.records if record.levelno == 10
    ]
    assert told == attempts
    (retry,) = (vars(record) for record in caplog.records if record.levelname == "WARNING")
    assert (retry["operation"], retry["number"], retry["status"], retry["error"]) == (
        "get_token",
        1,
        503,
        "ServerError",
    )
    assert 0 <= retry["delay"] <= FAST.max_backoff
    (wait,) = (vars(record) for record in caplog.records if record.levelname == "INFO")
    assert (wait["rate_limit"].limit, wait["rate_limit"].remaining) == (3, 0)
    assert wait["seconds"] > 0


def test_a_program_without_logging_is_quiet() -> None:
    """A retry, which is a WARNING, prints nothing where nothing is set up, and its record where logging is."""
    code = """
import asyncio, sys, logging
from dd_sa_tokens import RetryPolicy, TokensClient
from dd_sa_tokens.testing import FakeDatadog

async def main():
    with FakeDatadog(tokens=1) as datadog:
        async with datadog.client(retry=RetryPolicy(initial_backoff=0.001)) as client:
            for _ in range(2):
                datadog.fail_next(status=503)
                await client.get_token(datadog.service_account_id, datadog.token_ids[0])
                logging.basicConfig(format="%(operation)s failed: %(error)s")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "get_token failed: ServerError\n")


async def test_an_attempt_can_be_written_as_json(server: RawServer, connect: Connect) -> None:
    """An attempt holds plain values only, so `attrs.asdict` makes JSON of it."""
    lines: list[str] = []
    server.script(reply(404, headers=rate_limit_headers(100, 99, 7)))
    client = connect(on_attempt=lambda attempt: lines.append(json.dumps(attrs.asdict(attempt))), retry=ONCE)
    await client.get_tokens(ACCOUNT, ["t1"])
    assert json.loads(lines[0])["rate_limit"]["remaining"] == 99
