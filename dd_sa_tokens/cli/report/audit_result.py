"""The result of an audit: the tokens, the findings, and both as records. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import attrs

from dd_sa_tokens.audit import Finding, Level, Rule, audit_tokens
from dd_sa_tokens.cli.io.formats import json_value
from dd_sa_tokens.models import AccessToken

from .timeline import LEVELS, worst_levels

_TOKEN_FIELDS = ("public_portion", "scopes", "created_at", "last_used_at", "expires_at")

COLUMNS = (
    *("level", "rule", "title", "detail", "reason", "advice"),
    *("service_account_id", "service_account_name", "token_id", "token_name", *_TOKEN_FIELDS),
)


@attrs.frozen(kw_only=True)
class AuditResult:
    """The result of an audit.

    Attributes:
        accounts: The tokens by service account ID: accounts with worse findings first, then in the order of names.
        now: The moment that the audit judged from.
        rules: The rules of the audit.
        findings: The findings, the worst first.
        unread: The service accounts that could not be read, with the reasons.
        names: The names of service accounts by their IDs, as far as they are known.
    """

    accounts: Mapping[str, Sequence[AccessToken]]
    now: datetime
    rules: Sequence[Rule]
    findings: Sequence[Finding]
    unread: Mapping[str, str]
    names: Mapping[str, str]

    @property
    def total(self) -> int:
        """How many tokens there are."""
        return sum(map(len, self.accounts.values()))

    @cached_property
    def worst(self) -> dict[AccessToken, Level]:
        """The level of each token's worst finding."""
        return worst_levels(self.findings)

    @property
    def counts(self) -> dict[Level | None, int]:
        """How many tokens have each level as their worst, the worst level first; `None` for tokens without findings."""
        worst = self.worst
        counted = Counter(worst.get(token) for tokens in self.accounts.values() for token in tokens)
        return {level: counted[level] for level in LEVELS}

    def title(self, account: str) -> str:
        """Return the name and the ID of a service account, or its ID alone."""
        return f"{self.names[account]} ({account})" if account in self.names else account

    def record(self, finding: Finding) -> dict[str, Any]:
        """Return the fields of a finding, its token and its service account by name."""
        return finding_record(finding, self.names.get(finding.token.service_account_id or ""))

    def at_least(self, level: Level) -> int:
        """Return how many findings have a level or a worse one."""
        return sum(finding.level >= level for finding in self.findings)

    def headline(self) -> str:
        """Return a line with the numbers of tokens, service accounts and findings, and the moment."""
        return (
            f"{count(self.total, 'token')} of {count(len(self.accounts), 'service account')}, "
            f"as of {utc_minute(self.now)}: {count(len(self.findings), 'finding')}"
        )

    def tokens_by_level(self) -> str:
        """Return how many tokens have each level as their worst."""
        return ", ".join(f"{number} {level_name(level)}" for level, number in self.counts.items() if number)


def run_audit(
    accounts: Mapping[str, Sequence[AccessToken]],
    *,
    now: datetime,
    rules: Sequence[Rule],
    unread: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> AuditResult:
    """Audit the tokens of service accounts.

    Args:
        accounts: The tokens by service account ID.
        now: The moment to judge from, timezone-aware.
        rules: The rules of the audit.
        unread: The service accounts that could not be read, with the reasons.
        names: The names of service accounts by their IDs, as far as they are known.

    Returns:
        The result.
    """
    # Rules compare the tokens of one account. A token that does not name its account belongs to the one that was read.
    owned = {
        account: [
            token if token.service_account_id else attrs.evolve(token, service_account_id=account) for token in tokens
        ]
        for account, tokens in accounts.items()
    }
    findings = audit_tokens((token for tokens in owned.values() for token in tokens), now=now, rules=rules)
    known = names or {}
    worst = worst_levels(findings)

    def place(account: str) -> tuple[int, str, str]:
        first = min((LEVELS.index(worst.get(token)) for token in owned[account]), default=len(LEVELS))
        return first, known.get(account, account).casefold(), account

    ordered = {account: owned[account] for account in sorted(owned, key=place)}
    return AuditResult(accounts=ordered, now=now, rules=rules, findings=findings, unread=unread or {}, names=known)


def finding_record(finding: Finding, account_name: str | None = None) -> dict[str, Any]:
    """Return the fields of a finding and its token by name, with dates in ISO 8601."""
    rule, token = finding.rule, finding.token
    values = (str(rule.level), rule.id, rule.title, finding.detail, rule.reason, rule.advice)
    fields = (json_value(getattr(token, name)) for name in _TOKEN_FIELDS)
    owner = (token.service_account_id, account_name)
    return dict(zip(COLUMNS, (*values, *owner, token.id, token.name, *fields), strict=True))


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 token` or `2 tokens`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def level_name(level: Level | None) -> str:
    """Return the name of a level; `None` is `without findings`."""
    return str(level or "without findings")


def utc_minute(moment: datetime) -> str:
    """Return a moment such as `2026-06-13 12:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
