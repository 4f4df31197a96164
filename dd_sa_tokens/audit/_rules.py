"""The default rules, and the functions that judge tokens for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from dd_sa_tokens._validation import check, is_span, is_whole
from dd_sa_tokens.models import AccessToken

from ._scopes import administers, writes
from ._values import Level, Rule, each, utc_day


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _length(span: timedelta) -> str:
    """Write a span in whole days, such as `12 days`."""
    return _count(span.days, "day") if span.days else "less than a day"


def _days(span: timedelta) -> str:
    """Write a threshold in days, such as `30 days` or `0.5 days`."""
    days = span / timedelta(days=1)
    return f"{days:g} day" if days == 1 else f"{days:g} days"


def _leaked(token: AccessToken, now: datetime) -> str | None:
    leak = token.leak
    if leak is None:
        return None
    where = "in public" if leak.source is None else f"at {leak.source}"
    if leak.detected_at is None:
        return f"its key was found {where}"
    # Datadog's clock may be ahead of this one, and an audit may judge from a moment in the past.
    age = f"{_length(now - leak.detected_at)} ago, " if leak.detected_at <= now else ""
    return f"its key was found {where} {age}on {utc_day(leak.detected_at)}"


def _expired(token: AccessToken, now: datetime) -> str | None:
    if token.expires_at is None or not token.is_expired(now):
        return None
    return f"expired {_length(now - token.expires_at)} ago, on {utc_day(token.expires_at)}"


def _expires_soon(within: timedelta, token: AccessToken, now: datetime) -> str | None:
    if token.expires_at is None or not token.expires_within(within, now):
        return None
    return f"expires in {_length(token.expires_at - now)}, on {utc_day(token.expires_at)}"


def _never_used(within: timedelta, token: AccessToken, now: datetime) -> str | None:
    if not token.never_used or token.created_at is None or now - token.created_at <= within:
        return None
    return f"created {_length(now - token.created_at)} ago, on {utc_day(token.created_at)}, and not used since"


def _unused(span: timedelta, token: AccessToken, now: datetime) -> str | None:
    if token.last_used_at is None or now - token.last_used_at <= span:
        return None
    return f"last used {_length(now - token.last_used_at)} ago, on {utc_day(token.last_used_at)}"


def _never_expires(token: AccessToken, _now: datetime) -> str | None:
    return "it has no expiry" if token.expires_at is None else None


def _not_rotated(span: timedelta, token: AccessToken, now: datetime) -> str | None:
    if token.created_at is None or now - token.created_at <= span:
        return None
    return f"created {_length(now - token.created_at)} ago, on {utc_day(token.created_at)}"


def _many_scopes(most: int, token: AccessToken, _now: datetime) -> str | None:
    return _count(len(token.scopes), "scope") if len(token.scopes) > most else None


def _admin_scopes(token: AccessToken, _now: datetime) -> str | None:
    return ", ".join(filter(administers, token.scopes)) or None


def _write_scopes(token: AccessToken, _now: datetime) -> str | None:
    return ", ".join(scope for scope in token.scopes if writes(scope) and not administers(scope)) or None


def _duplicate_names(tokens: Sequence[AccessToken], _now: datetime) -> list[str | None]:
    ids: defaultdict[str, set[str]] = defaultdict(set)  # sets, because a token given twice is no duplicate of itself
    for token in tokens:
        if token.name:
            ids[token.name].add(token.id)
    others = [len(ids[token.name]) - 1 if token.name else 0 for token in tokens]
    return [f"{_count(number, 'other token')} of the account with this name" if number else None for number in others]


def rules_with(
    *,
    expiring_within: timedelta = timedelta(days=30),
    unused_for: timedelta = timedelta(days=90),
    never_used_for: timedelta = timedelta(days=7),
    rotated_within: timedelta = timedelta(days=365),
    many_scopes: int = 10,
) -> tuple[Rule, ...]:
    """Return the default rules with thresholds of your own.

    Args:
        expiring_within: A token that expires within this time is found. 30 days by default.
        unused_for: A token whose last use is longer ago than this is found. 90 days by default.
        never_used_for: A token that was never used is found once it is older than this. 7 days by default.
        rotated_within: A token older than this is found. An update keeps the key, so only a new token counts as a
            rotation. 365 days by default.
        many_scopes: A token with more scopes than this is found. 10 by default.

    Returns:
        The rules, the worst first.

    Raises:
        InvalidArgumentError: A time is no `timedelta` or is negative, or `many_scopes` is no whole number of at least
            0.
    """
    for name, span in (
        ("expiring_within", expiring_within),
        ("unused_for", unused_for),
        ("never_used_for", never_used_for),
        ("rotated_within", rotated_within),
    ):
        check(name, is_span(span), "a timedelta of at least 0", span)
    check("many_scopes", is_whole(many_scopes), "a whole number of at least 0", many_scopes)
    rules = (
        _LEAKED,
        *_of_scopes(many_scopes),
        *_of_time(expiring_within, unused_for, never_used_for, rotated_within),
        *_of_order(),
    )
    return tuple(sorted(rules, key=lambda rule: rule.level, reverse=True))


_LEAKED = Rule(
    id="leaked",
    title="Leaked",
    level=Level.CRITICAL,
    reason="Datadog has found its key in public, so strangers can use it until it is revoked.",
    advice="Rotate it now, so that its users get a new key, then revoke it; look in the audit trail for what it did.",
    judge=each(_leaked),
)


def _of_scopes(most: int) -> tuple[Rule, ...]:
    return (
        Rule(
            id="admin-scopes",
            title="Can administer the organization",
            level=Level.HIGH,
            reason="Its key can let others in, create keys, or change what protects the organization.",
            advice="Remove the scopes, or move them to a token that expires soon and that one protected job uses.",
            judge=each(_admin_scopes),
        ),
        Rule(
            id="many-scopes",
            title=f"More than {_count(most, 'scope')}",
            level=Level.MEDIUM,
            reason="A leaked key does as much harm as its scopes allow, and a key for many purposes is hard to revoke.",
            advice="Create a token for each purpose, with the scopes that it needs.",
            judge=each(partial(_many_scopes, most)),
        ),
        Rule(
            id="write-scopes",
            title="Can change things",
            level=Level.INFO,
            reason="Many jobs only read. A job that may write can break what it watches.",
            advice="Check that the job needs to write. If it does not, update the token to scopes that read.",
            judge=each(_write_scopes),
        ),
    )


def _of_time(expiring: timedelta, unused: timedelta, never_used: timedelta, rotated: timedelta) -> tuple[Rule, ...]:
    return (
        Rule(
            id="expires-soon",
            title=f"Expires within {_days(expiring)}",
            level=Level.MEDIUM,
            reason="Jobs that use it fail from that moment on, and an expiry cannot be changed.",
            advice="Rotate it now if it is in use. Otherwise let it expire.",
            judge=each(partial(_expires_soon, expiring)),
        ),
        Rule(
            id="unused",
            title=f"Not used for {_days(unused)}",
            level=Level.MEDIUM,
            reason="No job needs it, and its use by a stranger would go unnoticed.",
            advice="Ask its owner, then revoke it.",
            judge=each(partial(_unused, unused)),
        ),
        Rule(
            id="never-used",
            title="Never used",
            level=Level.MEDIUM,
            reason=f"It was created more than {_days(never_used)} ago, and its key may be stored in a forgotten place.",
            advice="Ask its owner, then revoke it.",
            judge=each(partial(_never_used, never_used)),
        ),
        Rule(
            id="never-expires",
            title="Never expires",
            level=Level.MEDIUM,
            reason="A key that leaks stays valid until the leak is noticed.",
            advice="Rotate it to a token with an expiry. The expiry of this one cannot be changed.",
            judge=each(_never_expires),
        ),
        Rule(
            id="not-rotated",
            title=f"Not rotated for {_days(rotated)}",
            level=Level.MEDIUM,
            reason="The older a key is, the more people and places have it. An update of the token keeps its key.",
            advice="Rotate it.",
            judge=each(partial(_not_rotated, rotated)),
        ),
    )


def _of_order() -> tuple[Rule, ...]:
    return (
        Rule(
            id="expired",
            title="Expired but still there",
            level=Level.LOW,
            reason="It no longer works: jobs that still use it fail, and it hides the tokens that matter.",
            advice="Check that no job uses it any more, then revoke it.",
            judge=each(_expired),
            includes_expired=True,
        ),
        Rule(
            id="duplicate-name",
            title="Shares its name with another token",
            level=Level.LOW,
            reason="A person who revokes or rotates by name may take the wrong one.",
            advice="Name each after the job that uses it, and revoke what is left over from a rotation.",
            judge=_duplicate_names,
        ),
    )


DEFAULT_RULES = rules_with()
"""The rules with their default thresholds."""
