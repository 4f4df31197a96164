"""The rules that come with the package, and what they ask of a token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from dd_sa_tokens.errors import InvalidArgumentError, short_repr
from dd_sa_tokens.models import AccessToken

from ._values import Level, Rule, each, utc_day

# ---- Scopes

# https://docs.datadoghq.com/account_management/rbac/permissions/
_READING = {"query", "read", "tail", "view"}
_OF_ADMINISTRATORS = (
    "admin",
    "api_keys_",
    "audit_logs_",
    "billing_",
    "governance_",
    "org_",
    "service_account_",
    "user_",
)


def writes(scope: str) -> bool:
    """Tell whether a scope lets its holder change something.

    A scope that only looks has `read`, `view`, `query` or `tail` among its words: `dashboards_read`, `logs_read_data`,
    `timeseries_query`. Any other counts as one that writes, since what is unknown is better looked at once too often:
    `monitors_write`, `logs_write_archives`, `workflows_run`, `monitors_downtime`, `data_scanner_unmask`.
    """
    return _READING.isdisjoint(scope.split("_"))


def administers(scope: str) -> bool:
    """Tell whether a scope lets its holder change who may do what, the organization itself, its keys or its bill.

    `user_access_manage`, `service_account_write`, `org_management`, `org_app_keys_write`, `billing_edit` and the like;
    their reading kin, such as `user_access_read`, are none.
    """
    return scope.startswith(_OF_ADMINISTRATORS) and writes(scope)


# ---- The rules


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _length(span: timedelta) -> str:
    """Write a span in whole days, such as `12 days`."""
    return _count(span.days, "day") if span.days else "less than a day"


def _days(span: timedelta) -> str:
    """Write a threshold in days, such as `30 days` or `0.5 days`."""
    days = span / timedelta(days=1)
    return f"{days:g} day" if days == 1 else f"{days:g} days"


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
    return f"made {_length(now - token.created_at)} ago, on {utc_day(token.created_at)}, and not used since"


def _unused(span: timedelta, token: AccessToken, now: datetime) -> str | None:
    if token.last_used_at is None or now - token.last_used_at <= span:
        return None
    return f"last used {_length(now - token.last_used_at)} ago, on {utc_day(token.last_used_at)}"


def _never_expires(token: AccessToken, _now: datetime) -> str | None:
    return "it has no expiry" if token.expires_at is None else None


def _not_rotated(span: timedelta, token: AccessToken, now: datetime) -> str | None:
    if token.created_at is None or now - token.created_at <= span:
        return None
    return f"made {_length(now - token.created_at)} ago, on {utc_day(token.created_at)}"


def _many_scopes(most: int, token: AccessToken, _now: datetime) -> str | None:
    return _count(len(token.scopes), "scope") if len(token.scopes) > most else None


def _admin_scopes(token: AccessToken, _now: datetime) -> str | None:
    return ", ".join(filter(administers, token.scopes)) or None


def _write_scopes(token: AccessToken, _now: datetime) -> str | None:
    return ", ".join(scope for scope in token.scopes if writes(scope) and not administers(scope)) or None


def _duplicate_names(tokens: Sequence[AccessToken], _now: datetime) -> list[str | None]:
    ids: defaultdict[str, set[str]] = defaultdict(set)  # so that a token given twice is no duplicate of itself
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
    broad_scopes: int = 10,
) -> tuple[Rule, ...]:
    """Make the rules that come with the package, with thresholds of your own.

    Args:
        expiring_within: How far ahead an expiry is found. 30 days by default.
        unused_for: For how long a token may go unused. 90 days by default.
        never_used_for: For how long a new token may go without its first use. 7 days by default.
        rotated_within: How old a token may become. An update keeps the secret, so only a new token counts as a
            rotation. 365 days by default.
        broad_scopes: How many scopes a token may have. 10 by default.

    Returns:
        The rules, the worst first.

    Raises:
        InvalidArgumentError: A span is no `timedelta` or is negative, or `broad_scopes` no whole number of at least 0.
    """
    for name, span in (
        ("expiring_within", expiring_within),
        ("unused_for", unused_for),
        ("never_used_for", never_used_for),
        ("rotated_within", rotated_within),
    ):
        _check_span(name, span)
    _check_number("broad_scopes", broad_scopes)
    rules = (
        *_of_scopes(broad_scopes),
        *_of_time(expiring_within, unused_for, never_used_for, rotated_within),
        *_of_order(),
    )
    return tuple(sorted(rules, key=lambda rule: rule.level, reverse=True))


def _check_span(name: str, span: object) -> None:
    if not isinstance(span, timedelta) or span < timedelta():
        msg = f"{name} must be a timedelta of at least 0, not {short_repr(span)}"
        raise InvalidArgumentError(msg)


def _check_number(name: str, number: object) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        msg = f"{name} must be a whole number of at least 0, not {short_repr(number)}"
        raise InvalidArgumentError(msg)


def _of_scopes(most: int) -> tuple[Rule, ...]:
    return (
        Rule(
            id="admin-scopes",
            title="Can administer the organization",
            level=Level.HIGH,
            reason="Whoever has its key can let others in, make keys, or change what protects the organization.",
            advice="Take the scopes away, or give them to a token that one guarded job uses and that expires soon.",
            judge=each(_admin_scopes),
        ),
        Rule(
            id="many-scopes",
            title=f"More than {_count(most, 'scope')}",
            level=Level.MEDIUM,
            reason="A leaked key does as much harm as its scopes allow; one for many purposes is hard to revoke.",
            advice="Make a token for each purpose, with the scopes that it needs.",
            judge=each(partial(_many_scopes, most)),
        ),
        Rule(
            id="write-scopes",
            title="Can change things",
            level=Level.INFO,
            reason="Many jobs only read. One that may write can break what it watches.",
            advice="Check that the job needs to write; if not, update the token to scopes that read.",
            judge=each(_write_scopes),
        ),
    )


def _of_time(expiring: timedelta, unused: timedelta, never_used: timedelta, rotated: timedelta) -> tuple[Rule, ...]:
    return (
        Rule(
            id="expires-soon",
            title=f"Expires within {_days(expiring)}",
            level=Level.MEDIUM,
            reason="Whatever uses it fails from that moment on, and an expiry cannot be moved.",
            advice="Rotate it now if it is in use; otherwise let it expire.",
            judge=each(partial(_expires_soon, expiring)),
        ),
        Rule(
            id="unused",
            title=f"Not used for {_days(unused)}",
            level=Level.MEDIUM,
            reason="Nobody would miss it, and nobody would notice if someone else used it.",
            advice="Ask its owner, then revoke it.",
            judge=each(partial(_unused, unused)),
        ),
        Rule(
            id="never-used",
            title="Never used",
            level=Level.MEDIUM,
            reason=f"It was made more than {_days(never_used)} ago, and its key may lie where nobody remembers.",
            advice="Ask whoever made it, then revoke it.",
            judge=each(partial(_never_used, never_used)),
        ),
        Rule(
            id="never-expires",
            title="Never expires",
            level=Level.MEDIUM,
            reason="A key that leaks stays good until someone notices.",
            advice="Rotate it to a token with an expiry; this one cannot be given one.",
            judge=each(_never_expires),
        ),
        Rule(
            id="not-rotated",
            title=f"Not rotated for {_days(rotated)}",
            level=Level.MEDIUM,
            reason="The older a key, the more places and people have seen it. An update of the token keeps its key.",
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
            reason="It can do nothing any more, but what still uses it fails, and it hides the tokens that matter.",
            advice="Check that nothing uses it any more, then revoke it.",
            judge=each(_expired),
            includes_expired=True,
        ),
        Rule(
            id="duplicate-name",
            title="Shares its name with another token",
            level=Level.LOW,
            reason="Whoever revokes or rotates by name may take the wrong one.",
            advice="Rename them after what uses them; revoke what is left over from a rotation.",
            judge=_duplicate_names,
        ),
    )


DEFAULT_RULES = rules_with()
"""The rules with their default thresholds."""
