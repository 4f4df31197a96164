"""What type checkers say of the errors. Never run: mypy and pyright read it."""

from __future__ import annotations

from typing import assert_type

from dd_sa_tokens import (
    APIError,
    BulkResult,
    DatadogError,
    DeadlineExceededError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RateLimit,
    RateLimitError,
    RequestTimeoutError,
    RotationError,
    SourceError,
    TokensClient,
)


def every_error(error: DatadogError) -> None:
    assert_type(error.message, str)
    assert_type(error.operation, str | None)
    assert_type(error.service_account_id, str | None)
    assert_type(error.token_id, str | None)
    assert_type(error.attempts, int)
    assert_type(error.outcome_unknown, bool)


def an_answer(error: APIError) -> None:
    assert_type(error.status, int)
    assert_type(error.errors, tuple[str, ...])
    assert_type(error.rate_limit, RateLimit | None)
    assert_type(error.retry_after, float | None)
    assert_type(error.request_id, str | None)


def special_ones(
    response: InvalidResponseError, rotation: RotationError, source: SourceError, late: DeadlineExceededError
) -> None:
    assert_type(late.deadline, float)
    assert_type(response.path, str)
    assert_type(response.reason, str)
    assert_type(rotation.old_id, str | None)
    assert_type(rotation.new_id, str | None)
    assert_type(source.partial, BulkResult)


async def caught(client: TokensClient) -> None:
    try:
        await client.get_token("account", "token")
    except NotFoundError as error:
        assert_type(error.status, int)
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except TimeoutError as error:
        assert_type(error, TimeoutError)
    except ValueError as error:
        assert_type(error, ValueError)
    try:
        await client.get_token("account", "token")
    except* DatadogError as group:
        assert_type(group.exceptions[0], DatadogError | ExceptionGroup[DatadogError])


timeout: TimeoutError = RequestTimeoutError()
invalid: ValueError = InvalidArgumentError()
