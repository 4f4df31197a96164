"""The findings among FakeDatadog's sample tokens."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dd_sa_tokens.audit import (
    DEFAULT_RULES,
    audit_tokens,
)
from dd_sa_tokens.testing import _sample_tokens

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
READS = ("dashboards_read",)


class Calendar(datetime):
    """A clock that stands still."""

    today: datetime

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.today.astimezone(tz)


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 6, 1, tzinfo=UTC),
        datetime(2027, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(2028, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    ids=str,
)
def test_sample_tokens_give_findings_of_each_kind(now: datetime, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred of FakeDatadog's tokens have something for each rule, and the same on any day and at any hour."""
    monkeypatch.setattr(Calendar, "today", now, raising=False)
    monkeypatch.setattr(_sample_tokens, "datetime", Calendar)
    tokens = _sample_tokens.sample_tokens(100, random.Random(seed), random.Random(seed))
    findings = audit_tokens(tokens, now=now)
    kinds = Counter(finding.rule.id for finding in findings)
    midnight = audit_tokens(tokens, now=now.replace(hour=0, minute=0, second=0, microsecond=0))

    assert set(kinds) == {rule.id for rule in DEFAULT_RULES}
    assert [(item.token, item.rule) for item in findings] == [(item.token, item.rule) for item in midnight]
    assert len({finding.token for finding in findings}) < len(tokens)
