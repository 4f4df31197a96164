"""What type checkers say of the values and the converter. Never run: mypy and pyright read it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, assert_type

from dd_sa_tokens import (
    AccessToken,
    BulkResult,
    CreatedToken,
    DatadogError,
    Leak,
    RetryPolicy,
    Secret,
    ServiceAccount,
    Site,
    Sort,
    Strategy,
    TokenResult,
    __version__,
    converter,
)
from dd_sa_tokens.audit import DEFAULT_RULES, Finding, Level, Rule, audit_tokens, each, rules_with

version: str = __version__
assert_type(Site("datadoghq.eu"), Site)


def a_token(token: AccessToken, at: datetime) -> None:
    assert_type(token.id, str)
    assert_type(token.name, str | None)
    assert_type(token.public_portion, str | None)
    assert_type(token.scopes, tuple[str, ...])
    assert_type(token.created_at, datetime | None)
    assert_type(token.modified_at, datetime | None)
    assert_type(token.last_used_at, datetime | None)
    assert_type(token.expires_at, datetime | None)
    assert_type(token.service_account_id, str | None)
    assert_type(token.type, str)
    assert_type(token.is_expired(), bool)
    assert_type(token.is_expired(at), bool)
    assert_type(token.expires_within(timedelta(days=7), at), bool)
    assert_type(token.never_used, bool)
    assert_type({token: 1}, dict[AccessToken, int])
    token.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def a_leak(token: AccessToken) -> None:
    assert_type(token.leak, Leak | None)
    if token.leak is not None:
        assert_type(token.leak.id, str)
        assert_type(token.leak.detected_at, datetime | None)
        assert_type(token.leak.source, str | None)
        token.leak.source = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    Leak("l1", "2026")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def a_service_account(account: ServiceAccount) -> None:
    assert_type(account.id, str)
    assert_type(account.name, str | None)
    assert_type(account.email, str | None)
    assert_type(account.handle, str | None)
    assert_type(account.disabled, bool | None)
    assert_type(account.status, str | None)
    assert_type(account.created_at, datetime | None)
    assert_type({account: 1}, dict[ServiceAccount, int])
    ServiceAccount("sa")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def names_of_strategies_and_sorts() -> None:
    strategy: Strategy = "list"
    sort: Sort = "-leaked"
    strategy = "fast"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    sort = "+leaked"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del strategy, sort


def a_secret(created: CreatedToken) -> None:
    assert_type(created.token, AccessToken)
    assert_type(created.key, Secret)
    assert_type(created.key.reveal(), str)
    key: str = created.key  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del key


def many(result: BulkResult) -> None:
    assert_type(result.tokens, dict[str, AccessToken])
    assert_type(result.errors, dict[str, DatadogError])
    assert_type(result[0], TokenResult)
    assert_type(result[1:], BulkResult)
    assert_type(len(result), int)
    assert_type([item.token_id for item in result], list[str])
    assert_type(result.raise_for_errors(), None)
    for item in reversed(result):
        assert_type(item, TokenResult)


def a_policy(policy: RetryPolicy) -> None:
    assert_type(policy.max_attempts, int)
    assert_type(policy.initial_backoff, float)
    assert_type(policy.max_backoff, float)
    assert_type(policy.max_rate_limit_wait, float | None)
    RetryPolicy(max_attempts="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def converted(resource: dict[str, Any]) -> None:
    token = converter.structure(resource, AccessToken)
    assert_type(token, AccessToken)
    back: dict[str, Any] = converter.unstructure(token)
    assert_type(converter.structure(back, AccessToken), AccessToken)


def an_audit(tokens: tuple[AccessToken, ...], now: datetime) -> None:
    own = Rule(id="x", title="", level=Level.LOW, reason="", advice="", judge=each(lambda token, _now: token.name))
    findings = audit_tokens(tokens, now=now, rules=[*rules_with(unused_for=timedelta(days=1)), own])
    assert_type(findings, list[Finding])
    assert_type(findings[0].level, Level)
    assert_type(findings[0].level >= Level.HIGH, bool)
    assert_type(DEFAULT_RULES, tuple[Rule, ...])
    audit_tokens(tokens)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
