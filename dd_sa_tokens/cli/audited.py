"""An audit that is done: what it was about, what it found, and that as records. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from dd_sa_tokens.audit import Finding, Level, Rule, audit_tokens
from dd_sa_tokens.models import AccessToken

from .records import RecordFormat, make_records, plain
from .timeline import LEVELS, worst_levels

_TOKEN_FIELDS = ("public_portion", "scopes", "created_at", "last_used_at", "expires_at")

COLUMNS = (
    *("level", "rule", "title", "detail", "reason", "advice"),
    *("service_account_id", "token_id", "token_name", *_TOKEN_FIELDS),
)


@attrs.frozen(kw_only=True)
class Audit:
    """What an audit was about, and what it found.

    Attributes:
        accounts: The tokens by service account ID.
        now: The moment it judged from.
        rules: What it judged by.
        findings: What it found, the worst first.
        unread: Accounts that could not be read, with the reasons.
    """

    accounts: Mapping[str, Sequence[AccessToken]]
    now: datetime
    rules: Sequence[Rule]
    findings: Sequence[Finding]
    unread: Mapping[str, str]

    @property
    def total(self) -> int:
        """How many tokens there are."""
        return sum(map(len, self.accounts.values()))

    @property
    def counts(self) -> dict[Level | None, int]:
        """How many tokens have each level as their worst, the worst level first; `None` is for those without any."""
        worst = worst_levels(self.findings)
        counted = Counter(worst.get(token) for tokens in self.accounts.values() for token in tokens)
        return {level: counted[level] for level in LEVELS}

    def at_least(self, level: Level) -> int:
        """Count the findings of a level or a worse one."""
        return sum(finding.level >= level for finding in self.findings)


def carry_out(
    accounts: Mapping[str, Sequence[AccessToken]],
    *,
    now: datetime,
    rules: Sequence[Rule],
    unread: Mapping[str, str] | None = None,
) -> Audit:
    """Judge the tokens of service accounts.

    Args:
        accounts: The tokens by service account ID.
        now: The moment to judge from, timezone-aware.
        rules: What to judge by.
        unread: Accounts that could not be read, with the reasons.
    """
    # Whose a token is was said by whoever asked for the list; tokens are compared within an account.
    owned = {
        account: [
            token if token.service_account_id else attrs.evolve(token, service_account_id=account) for token in tokens
        ]
        for account, tokens in accounts.items()
    }
    findings = audit_tokens((token for tokens in owned.values() for token in tokens), now=now, rules=rules)
    return Audit(accounts=owned, now=now, rules=rules, findings=findings, unread=unread or {})


def flat(finding: Finding) -> dict[str, Any]:
    """Return what is known of a finding and its token, by name, dates in ISO 8601."""
    rule, token = finding.rule, finding.token
    values = (str(rule.level), rule.id, rule.title, finding.detail, rule.reason, rule.advice)
    about = (token.service_account_id, token.id, token.name, *(plain(getattr(token, name)) for name in _TOKEN_FIELDS))
    return dict(zip(COLUMNS, (*values, *about), strict=True))


def write_records(audit: Audit, format_name: RecordFormat, *, for_terminal: bool) -> str:
    """Return the findings as a document, a record for each."""
    records = make_records(format_name, COLUMNS, for_terminal=for_terminal)
    return "".join([records.begin(), *(records.record(flat(each)) for each in audit.findings), records.end()])


def count(number: int, noun: str) -> str:
    """Write a number of things, such as `1 token`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def sum_up(audit: Audit) -> str:
    """Say in one line what the audit was about."""
    return (
        f"{count(audit.total, 'token')} of {count(len(audit.accounts), 'service account')}, "
        f"as of {audit.now.astimezone(UTC):%Y-%m-%d %H:%M} UTC: {count(len(audit.findings), 'finding')}"
    )


def count_levels(audit: Audit) -> str:
    """Say how many tokens have each level as their worst."""
    return ", ".join(f"{number} {level or 'without findings'}" for level, number in audit.counts.items() if number)
