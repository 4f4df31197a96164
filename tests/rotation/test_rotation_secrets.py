"""No error of a rotation shows the secret of a created token."""

from __future__ import annotations

import asyncio
import pickle
from base64 import b64encode, encodebytes, urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from support.rotations import (
    SCENARIOS,
    SomeError,
    Vault,
    cancelled,
    check_no_secret,
    notes,
)
from support.scripted import ScriptedDatadog
from support.waiting import until

from dd_sa_tokens import (
    CreatedToken,
    DatadogError,
    RotationError,
    Secret,
    TokensClient,
)
from dd_sa_tokens._rotation.store import holds_secret

pytestmark = pytest.mark.usefixtures("loop_errors")

# Secrets


class QuietError(SomeError):
    """Does not say what it holds."""

    def __str__(self) -> str:
        return "no"

    __repr__ = __str__


class MuteError(SomeError):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError(self.args)

    __repr__ = __str__


def with_attribute(secret: str) -> Exception:
    error = SomeError("no")
    error.sent = {"headers": [("x-value", secret)]}
    return error


def with_note(secret: str) -> Exception:
    error = SomeError("no")
    error.add_note(f"sent: {secret}")
    return error


def behind(secret: str, *, cause: bool = False, hidden: bool = False) -> Exception:
    """Put one exception behind another one, as `raise` does it in an `except` block."""
    error, inner = SomeError("no"), LookupError(secret)
    error.__context__ = inner
    error.__cause__ = inner if cause else None
    error.__suppress_context__ = cause or hidden
    return error


def grouped(secret: str, depth: int) -> Exception:
    """Put an exception so deep down, and so far back, that a traceback does not show it."""
    error: Exception = SomeError(secret)
    for _ in range(depth):
        error = ExceptionGroup("no", [*[SomeError("no")] * 30, error])
    return error


HIDING: dict[str, Callable[[str], Exception]] = {
    "text": lambda secret: SomeError(f"403 for PUT value={secret}"),
    "bytes": lambda secret: SomeError(b"value=" + secret.encode()),
    "args": QuietError,
    "mute": MuteError,
    "base64": lambda secret: SomeError({"data": {"key": b64encode(secret.encode()).decode()}}),
    "base64, without padding": lambda secret: SomeError(b64encode(secret.encode()).rstrip(b"=")),
    "base64, in lines": lambda secret: SomeError(encodebytes(b"more than a line: " * 3 + secret.encode()).decode()),
    "base64, in the repr of lines": lambda secret: SomeError(encodebytes(b"long: " * 9 + secret.encode())),
    "base64, for URLs": lambda secret: SomeError(urlsafe_b64encode(secret.encode())),
    "base64, after one byte": lambda secret: SomeError(b64encode(b":" + secret.encode() + b"\n")),
    "base64, after two bytes": lambda secret: SomeError(urlsafe_b64encode(b"u:" + secret.encode() + b"\n")),
    "percent-encoded": lambda secret: SomeError(f"PUT /keys?value={quote(secret, safe='')}"),
    "attribute": with_attribute,
    "note": with_note,
    "cause": partial(behind, cause=True),
    "context": behind,
    "hidden context": partial(behind, hidden=True),
    "cause in a group": lambda secret: ExceptionGroup("no", [SomeError(), behind(secret, cause=True)]),
    "cause at the head of a group": lambda secret: ExceptionGroup("no", [behind(secret, cause=True), SomeError()]),
    "wide group": partial(grouped, depth=1),
    "deep group": partial(grouped, depth=20),
}


@pytest.mark.parametrize("by", ["coroutine", "future"])
@pytest.mark.parametrize("undo_fails", [False, True])
@pytest.mark.parametrize("how", HIDING)
async def test_what_store_raises_does_not_carry_the_secret_along(
    datadog: ScriptedDatadog,
    client: TokensClient,
    vault: Vault,
    log: pytest.LogCaptureFixture,
    how: str,
    undo_fails: bool,
    by: str,
) -> None:
    """An exception that holds the new secret, wherever it hides, is named but not chained, and stays in no frame."""

    async def store(created: CreatedToken) -> None:
        await vault.store(created)
        raise HIDING[how](created.key.reveal())

    def future(created: CreatedToken) -> asyncio.Future[None]:
        return asyncio.ensure_future(store(created))

    if undo_fails:
        datadog.fail("DELETE", status=403)
    error = await vault.fail(client, store=store if by == "coroutine" else future)
    assert (error.__cause__, error.__context__) == (None, None)
    named = type(HIDING[how]("")).__name__
    assert f"store raised {named} (not shown: it holds the secret)" in str(error)
    assert error.new_works is undo_fails
    check_no_secret(error, log, client, datadog)


ODD = "ddsat_~?>~?>/+ %ü🚀" * 3
HALF = "ddsat_\ud800" * 3


@pytest.mark.parametrize("before", ["", "u", "u:", "user:"])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode], ids=["standard", "for URLs"])
def test_a_secret_in_base64_is_found_anywhere(encode: Callable[[bytes], bytes], before: str) -> None:
    """A secret with characters that both forms of base64 encode differently, in the middle of other data."""
    for after in ("", "\n", "!!", "}}}"):
        encoded = encode(f"{before}{ODD}{after}".encode()).decode()
        assert holds_secret(ValueError(encoded), Secret(ODD))
        assert holds_secret(ValueError(f"<{encoded.rstrip('=')}>"), Secret(ODD))
    assert not holds_secret(ValueError(encode(f"{before}{ODD.upper()}".encode()).decode()), Secret(ODD))


@pytest.mark.parametrize("change", [str, str.lower, lambda text: text + "&a=b"])
def test_a_percent_encoded_secret_is_found(change: Callable[[str], str]) -> None:
    """Hexadecimal digits may be written in both cases."""
    assert holds_secret(ValueError(change(quote(ODD, safe=""))), Secret(ODD))


def test_a_secret_without_a_utf8_form_is_found() -> None:
    """JSON may hold half a character: no error comes of looking for it."""
    assert holds_secret(ValueError(HALF), Secret(HALF))
    assert not holds_secret(ValueError("no"), Secret(HALF))


@pytest.mark.parametrize("how", ["text", "cause", "deep group"])
async def test_nor_where_undoing_is_cancelled(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture, how: str
) -> None:
    """Nor does a cancellation that comes while the new token is being revoked."""

    async def store(created: CreatedToken) -> None:
        await vault.store(created)
        raise HIDING[how](created.key.reveal())

    datadog.fail("DELETE", stall=0.05)
    task = asyncio.ensure_future(vault.rotate(client, store=store))
    await until(lambda: "DELETE" in datadog.asked)
    error = await cancelled(task)
    assert "the new token is revoked" in notes(error)
    check_no_secret(error, log, client, datadog)


async def test_what_store_raises_may_hold_the_created_token(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture
) -> None:
    """A `CreatedToken`, whose secret is masked, and a cycle of causes are no reason to hide the caller's exception."""

    async def store(created: CreatedToken) -> None:
        error = SomeError("could not store", created, created.token.public_portion)
        error.__context__ = ValueError("of old")
        error.__context__.__context__ = error
        raise error

    error = await vault.fail(client, store=store)
    assert isinstance(error.__cause__, SomeError)
    check_no_secret(error, log, client, datadog)


FAILURES: dict[str, dict[str, Any]] = {
    **{name: SCENARIOS[name] for name in ("create refused", "undo fails", "undo refused", "old one stays")},
    "create lost": {"POST": [{"drop": True}]},
    "create cut short": {"POST": [{"truncate": True}]},
    "store raises": {"error": SomeError("no")},
    "old one may stay": {"DELETE": [{"status": 503}] * 3},
    "none": {},
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_no_failure_shows_the_secret(
    datadog: ScriptedDatadog, client: TokensClient, vault: Vault, log: pytest.LogCaptureFixture, failure: str
) -> None:
    """However a rotation ends, no log record, text, note, frame of ours or pickle holds the new secret."""
    vault.error = FAILURES[failure].get("error")
    for method in ("GET", "POST", "DELETE"):
        for fault in FAILURES[failure].get(method, ()):
            datadog.fail(method, **fault)
    (outcome,) = await asyncio.gather(vault.rotate(client), return_exceptions=True)
    assert isinstance(outcome, DatadogError) == (failure != "none")
    check_no_secret(outcome if isinstance(outcome, Exception) else None, log, client, datadog)
    assert [record for record in log.records if record.name == "dd_sa_tokens"]


async def test_the_error_can_be_pickled(client: TokensClient, vault: Vault) -> None:
    """A RotationError is the same after a round trip through pickle."""
    vault.error = SomeError("no")
    error = await vault.fail(client)
    duplicate = pickle.loads(pickle.dumps(error))
    assert (str(duplicate), vars(duplicate)) == (str(error), vars(error))
    assert type(duplicate) is RotationError
