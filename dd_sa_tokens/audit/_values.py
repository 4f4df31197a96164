"""The values of an audit: levels, rules and findings."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial, total_ordering

import attrs

from dd_sa_tokens._validation import check
from dd_sa_tokens.errors import InvalidArgumentError, short_repr
from dd_sa_tokens.models import AccessToken

Judge = Callable[[Sequence[AccessToken], datetime], Iterable[str | None]]
"""Takes the tokens of one service account and the moment to judge from. Returns for each token, in order, what is wrong
with it, or `None`."""


@total_ordering
class Level(enum.Enum):
    """How bad a finding is, from the least bad on.

    Levels compare: `Level.INFO < Level.LOW < Level.MEDIUM < Level.HIGH < Level.CRITICAL`.
    """

    INFO = "info"
    """Worth knowing."""

    LOW = "low"
    """Clutter that hides other problems."""

    MEDIUM = "medium"
    """Harm would last or spread, or something that works will break."""

    HIGH = "high"
    """A stranger who finds the key can change the whole organization."""

    CRITICAL = "critical"
    """Strangers have the key already."""

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


def _require_level(_instance: object, _attribute: attrs.Attribute[Level], value: object) -> None:
    check("a rule's level", isinstance(value, Level), "a Level", value)


def _require_function(_instance: object, _attribute: attrs.Attribute[Judge], value: object) -> None:
    check("a rule's judge", callable(value), "a function", value)


@attrs.frozen(kw_only=True)
class Rule:
    """Something that can be wrong with a token. Two rules are equal if everything but their functions is equal.

    Raises:
        InvalidArgumentError: The ID is not in kebab-case, the level is no `Level`, or `judge` is no function.
    """

    id: str = attrs.field(validator=_require_kebab_case)
    """The name for programs, in kebab-case, such as `never-used`."""

    title: str
    """The name for people."""

    level: Level = attrs.field(validator=_require_level)
    """How bad it is."""

    reason: str
    """Why it matters: a sentence."""

    advice: str
    """What to do about it: a sentence."""

    judge: Judge = attrs.field(validator=_require_function, eq=False, repr=False)
    """Returns for each of an account's tokens what is wrong with it. `each` makes one from a function of one token."""

    includes_expired: bool = False
    """Whether expired tokens are judged, too."""


@attrs.frozen
class Finding:
    """Something that a rule has found wrong with a token."""

    token: AccessToken
    """The token."""

    rule: Rule
    """The rule."""

    detail: str
    """The facts of this token, such as `expires in 12 days, on 2026-06-13`. It may hold scopes and the source of a leak
    as the API sent them, so escape it wherever you show it.
    """

    @property
    def level(self) -> Level:
        """How bad it is: the level of the rule."""
        return self.rule.level

    @property
    def title(self) -> str:
        """The name for people: the title of the rule."""
        return self.rule.title


def each(judge: Callable[[AccessToken, datetime], str | None]) -> Judge:
    """Make a rule's function from a function of a single token.

    Args:
        judge: Takes a token and the moment to judge from. Returns what is wrong with it, or `None`.

    Returns:
        A function for `Rule.judge`, which calls `judge` for each token.
    """
    return partial(_each, judge)


def _each(
    judge: Callable[[AccessToken, datetime], str | None], tokens: Sequence[AccessToken], now: datetime
) -> list[str | None]:
    return [judge(token, now) for token in tokens]


def utc_day(moment: datetime) -> str:
    """Return the day of a moment in UTC, such as `2026-06-13`.

    Args:
        moment: A timezone-aware moment. In the first hours of year 1 and the last of year 9999, which have no day in
            UTC, its own day is returned.

    Returns:
        The day in ISO 8601.
    """
    try:
        return moment.astimezone(UTC).date().isoformat()
    except OverflowError:
        return moment.date().isoformat()
