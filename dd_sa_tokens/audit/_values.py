"""What an audit is made of: levels, rules and findings."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial, total_ordering

import attrs

from dd_sa_tokens.errors import InvalidArgumentError, short_repr
from dd_sa_tokens.models import AccessToken

Judge = Callable[[Sequence[AccessToken], datetime], Iterable[str | None]]
"""Takes the tokens of one account and the moment to judge from; gives, for each token in order, what is wrong with it,
or `None`."""


@total_ordering
class Level(enum.Enum):
    """How bad a finding is. Levels compare: `Level.INFO < Level.LOW < Level.MEDIUM < Level.HIGH`."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    def __str__(self) -> str:
        return self.value

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Level):
            return NotImplemented
        return _RANK[self] < _RANK[other]


_RANK = {level: rank for rank, level in enumerate(Level)}


def _require_kebab_case(_instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
        msg = f"a rule's id must be words in lower case with hyphens between them, not {short_repr(value)}"
        raise InvalidArgumentError(msg)


@attrs.frozen(kw_only=True)
class Rule:
    """Something that can be wrong with a token. Two rules are equal if all but their functions are.

    Attributes:
        id: What programs call it, in kebab-case, such as `never-used`.
        title: What people call it.
        level: How bad it is.
        reason: Why it matters: a sentence.
        advice: What to do about it: a sentence.
        judge: Says for each of an account's tokens what is wrong with it; see `each` for one token at a time.
        includes_expired: Whether expired tokens are judged too. False by default.

    Raises:
        InvalidArgumentError: The ID is not in kebab-case.
    """

    id: str = attrs.field(validator=_require_kebab_case)
    title: str
    level: Level
    reason: str
    advice: str
    judge: Judge = attrs.field(eq=False, repr=False)
    includes_expired: bool = False


@attrs.frozen
class Finding:
    """What a rule found wrong with a token.

    Attributes:
        token: The token.
        rule: The rule.
        detail: What it is in this token's case, such as `expires in 12 days, on 2026-06-13`. Scopes are in it as the
            API gave them, so escape it where you show it.
    """

    token: AccessToken
    rule: Rule
    detail: str

    @property
    def level(self) -> Level:
        """How bad it is."""
        return self.rule.level

    @property
    def title(self) -> str:
        """What people call it."""
        return self.rule.title


def each(judge: Callable[[AccessToken, datetime], str | None]) -> Judge:
    """Make a rule's function out of one that looks at one token at a time.

    Args:
        judge: Takes a token and the moment to judge from; gives what is wrong, or `None`.
    """
    return partial(_each, judge)


def _each(
    judge: Callable[[AccessToken, datetime], str | None], tokens: Sequence[AccessToken], now: datetime
) -> list[str | None]:
    return [judge(token, now) for token in tokens]


def utc_day(moment: datetime) -> str:
    """Write a moment's day in UTC, such as `2026-06-13`."""
    try:
        return moment.astimezone(UTC).date().isoformat()
    except OverflowError:  # in the first hours of year 1 or the last of year 9999
        return moment.date().isoformat()
