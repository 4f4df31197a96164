"""Finds what is wrong with tokens: rules as data, and a pure function that applies them.

    findings = audit_tokens(tokens, now=datetime.now(UTC))
    for finding in findings:  # the worst first
        print(finding.level, finding.token.id, finding.title, finding.detail)

Thresholds are arguments of `rules_with`. A rule that you do not want is left out by its ID:

    rules = [rule for rule in rules_with(unused_for=timedelta(days=30)) if rule.id != "write-scopes"]

A rule of your own has a title, a level, a reason, advice, and a function that returns what is wrong with a token, or
`None`:

    no_team = Rule(
        id="no-team",
        title="No team in its name",
        level=Level.LOW,
        reason="It is not known whom to ask before it is revoked.",
        advice="Rename it to team/purpose.",
        judge=each(lambda token, now: None if "/" in (token.name or "") else "it has no slash"),
    )
    audit_tokens(tokens, now=now, rules=[*DEFAULT_RULES, no_team])

A function that needs all tokens of an account at once is given as `judge` itself, without `each`.

How the rules judge:

- A missing date gives no finding: a token whose `created_at` is unknown may be old or new.
- "Longer than" and "more than" do not include the threshold, and "within" does: a token that was used exactly 90 days
  ago was used in the last 90 days, and one that expires in exactly 30 days expires within 30.
- An expired token no longer works, so its only finding is that it is still there. Its name does not make the name of a
  working token a duplicate.
- Tokens are compared with tokens of the same service account only. Tokens of an unknown account count as one account.
- Leaks are found in `AccessToken.leak`. When and where a key was seen is known only for tokens that were read with
  `include_leak=True`.

The levels are this package's own; see `Level`. To change one, give `attrs.evolve(rule, level=...)` instead of the rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import cast

from dd_sa_tokens._validation import check
from dd_sa_tokens.errors import InvalidArgumentError
from dd_sa_tokens.models import AccessToken

from ._rules import DEFAULT_RULES, rules_with
from ._scopes import administers, writes
from ._values import Finding, Judge, Level, Rule, each, utc_day

__all__ = [
    "DEFAULT_RULES",
    "Finding",
    "Judge",
    "Level",
    "Rule",
    "administers",
    "audit_tokens",
    "each",
    "rules_with",
    "utc_day",
    "writes",
]


def audit_tokens(
    tokens: Iterable[AccessToken], *, now: datetime, rules: Iterable[Rule] = DEFAULT_RULES
) -> list[Finding]:
    """Judge tokens by rules.

    Args:
        tokens: The tokens of one service account or of several; see `AccessToken.service_account_id`.
        now: The moment to judge from, timezone-aware.
        rules: The rules. `DEFAULT_RULES` by default; `rules_with` has other thresholds.

    Returns:
        The findings, the worst first. Findings of one level are in the order of the tokens, and those of one token in
        the order of the rules.

    Raises:
        InvalidArgumentError: `now` is no datetime with a timezone, `tokens` or `rules` hold something else, or a rule's
            function does not return a text or `None` for each token.
    """
    is_aware = isinstance(cast("object", now), datetime) and now.utcoffset() is not None
    check("now", is_aware, "a timezone-aware datetime, for example datetime.now(UTC)", now)
    check("rules", isinstance(cast("object", rules), Iterable), "Rules, such as those of rules_with()", rules)
    check("tokens", isinstance(cast("object", tokens), Iterable), "AccessTokens", tokens)
    chosen = list(rules)
    for rule in chosen:
        check("rules", isinstance(cast("object", rule), Rule), "Rules, such as those of rules_with()", rule)
    accounts: defaultdict[str | None, list[tuple[int, AccessToken]]] = defaultdict(list)
    for position, token in enumerate(tokens):
        check("tokens", isinstance(cast("object", token), AccessToken), "AccessTokens", token)
        accounts[token.service_account_id].append((position, token))
    found = [
        (place, number, finding)
        for number, rule in enumerate(chosen)
        for account in accounts.values()
        for place, finding in _apply(rule, account, now)
    ]
    found.sort(key=lambda item: item[:2])
    found.sort(key=lambda item: item[2].level, reverse=True)
    return [finding for _, _, finding in found]


def _apply(rule: Rule, account: Iterable[tuple[int, AccessToken]], now: datetime) -> list[tuple[int, Finding]]:
    """Judge the tokens of one account by one rule; each finding comes with its token's position."""
    judged = [(place, token) for place, token in account if rule.includes_expired or not token.is_expired(now)]
    answers = rule.judge([token for _, token in judged], now)
    name, what = f"the answers of the rule {rule.id}", "a str or None for each token"
    check(name, isinstance(cast("object", answers), Iterable) and not isinstance(answers, str), what, answers)
    details = list(answers)
    for detail in details:
        check(name, isinstance(cast("object", detail), str | None), what, detail)
    if len(details) != len(judged):
        msg = f"the rule {rule.id} must give an answer for each of {len(judged)} tokens, not {len(details)} answers"
        raise InvalidArgumentError(msg)
    return [
        (place, Finding(token, rule, detail))
        for (place, token), detail in zip(judged, details, strict=True)
        if detail is not None
    ]
