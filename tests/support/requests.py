"""One request of each operation, and responses to it."""

from __future__ import annotations

from typing import Any

from multidict import CIMultiDict

from dd_sa_tokens import (
    APIError,
    RateLimit,
)
from dd_sa_tokens._protocol.headers import Redact, parse_rate_limit, parse_retry_after
from dd_sa_tokens._protocol.interpret import interpret
from dd_sa_tokens._protocol.operations import (
    ListOptions,
    Request,
    create_token,
    get_token,
    list_tokens,
    revoke_token,
    update_token,
)
from dd_sa_tokens._protocol.responses import Failure, Response, Retry

ACCOUNT = "5e0f7c1a-3b1d-4c55-9d0a-6a1f2b3c4d5e"
TOKEN = "c0ffee00-1d2e-4f30-8a41-52b6c7d8e9f0"
REQUEST = get_token(ACCOUNT, TOKEN)
LIST = list_tokens(ACCOUNT, ListOptions(), 0)
CREATE = create_token(ACCOUNT, name="deploy-bot", scopes=["dashboards_read"], expires_at=None)
UPDATE = update_token(ACCOUNT, TOKEN, name="deploy-bot-2", scopes=None)
REVOKE = revoke_token(ACCOUNT, TOKEN)
REQUESTS: list[Request[Any]] = [REQUEST, LIST, CREATE, UPDATE, REVOKE]


def plain(text: str) -> str:
    return text


def error(answer: Response) -> APIError:
    outcome = interpret(REQUEST, answer, plain)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, APIError)
    return outcome.error


RECORDED_ID = "9d4b2c6e-8f01-4723-a5b9-e1c3d5f7092b"
NOW = 1_790_000_003.25  # the local clock when a reply came


def reply(
    status: int = 200,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    redact: Redact = plain,
    **named: str,
) -> Response:
    given = {name.replace("_", "-"): value for name, value in named.items()}
    all_headers = CIMultiDict((headers or {}) | given)
    return Response(status, all_headers, body, parse_rate_limit(all_headers, NOW, redact), NOW)


# What became of a request, and how it may be sent again: what the two facts of a failure say together.
REFUSED = (Retry.NEVER, False)
FINAL = (Retry.NEVER, True)
UNKNOWN = (Retry.BACKOFF, True)
NOT_PROCESSED = (Retry.THROTTLED, False)


def verdict(failure: Failure) -> tuple[Retry, bool]:
    """Return how a failed request may be sent again, and whether it may have been carried out."""
    return failure.retry, failure.maybe_applied


def rate_limit_of(response: Response) -> RateLimit | None:
    """Return what the rate-limit headers of a response say."""
    return parse_rate_limit(response.headers, response.received, plain)


def retry_after_of(response: Response) -> float | None:
    """Return what `Retry-After` of a response says, in seconds."""
    return parse_retry_after(response.headers, response.received)
