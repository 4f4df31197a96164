"""The order of findings, levels, thresholds and rules of a user's own."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dd_sa_tokens import AccessToken, InvalidArgumentError, audit
from dd_sa_tokens.audit import (
    DEFAULT_RULES,
    Finding,
    Level,
    Rule,
    audit_tokens,
    each,
    rules_with,
)
from dd_sa_tokens.models import Leak

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
READS = ("dashboards_read",)


def token(token_id: str = "t1", **fields: Any) -> AccessToken:
    """Make a token that no default rule finds anything wrong with, but for what is given."""
    fine: dict[str, Any] = {
        "name": token_id,
        "scopes": READS,
        "created_at": NOW - 100 * DAY,
        "last_used_at": NOW - DAY,
        "expires_at": NOW + 100 * DAY,
        "service_account_id": "sa",
    }
    return AccessToken(id=token_id, **(fine | fields))


def found(*tokens: AccessToken, now: datetime = NOW, **thresholds: Any) -> list[str]:
    """Name the rules that found something."""
    return [finding.rule.id for finding in audit_tokens(tokens, now=now, rules=rules_with(**thresholds))]


def detail(one: AccessToken, rule_id: str) -> str:
    """Return what the one finding of a rule says."""
    (finding,) = (finding for finding in audit_tokens([one], now=NOW) if finding.rule.id == rule_id)
    return finding.detail


@pytest.mark.parametrize(
    ("thresholds", "fields", "rule_id"),
    [
        ({"expiring_within": 2 * DAY}, {"expires_at": NOW + 2 * DAY}, "expires-soon"),
        ({"unused_for": 2 * DAY}, {"last_used_at": NOW - 3 * DAY}, "unused"),
        ({"never_used_for": 2 * DAY}, {"last_used_at": None, "created_at": NOW - 3 * DAY}, "never-used"),
        ({"rotated_within": 2 * DAY}, {"created_at": NOW - 3 * DAY}, "not-rotated"),
        ({"many_scopes": 2}, {"scopes": ("a_read", "b_read", "c_read")}, "many-scopes"),
    ],
)
def test_thresholds_of_ones_own(thresholds: dict[str, Any], fields: dict[str, Any], rule_id: str) -> None:
    """Each threshold can be set, is named in the rule, and leaves the other rules as they are."""
    (rule,) = (rule for rule in rules_with(**thresholds) if rule.id == rule_id)
    tight = {name: value - DAY if isinstance(value, timedelta) else value + 1 for name, value in thresholds.items()}
    loose = tight if rule_id == "expires-soon" else thresholds | {name: 3 * value for name, value in thresholds.items()}

    assert found(token(**fields), **thresholds) == [rule_id]
    assert found(token(**fields), **loose) != [rule_id]
    assert "2 " in rule.title + rule.reason
    assert [rule for rule in rules_with(**thresholds) if rule.id != rule_id] == [
        rule for rule in DEFAULT_RULES if rule.id != rule_id
    ]


def test_titles_name_the_threshold() -> None:
    """A rule's title says its threshold in days, in the singular and in parts of days too."""
    titles = {rule.id: rule.title for rule in rules_with(unused_for=DAY, expiring_within=DAY / 2, many_scopes=1)}

    assert titles["unused"] == "Not used for 1 day"
    assert titles["expires-soon"] == "Expires within 0.5 days"
    assert titles["many-scopes"] == "More than 1 scope"
    assert titles["not-rotated"] == "Not rotated for 365 days"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expiring_within", -MICROSECOND),
        ("unused_for", 90),
        ("never_used_for", None),
        ("rotated_within", "1y"),
        ("many_scopes", -1),
        ("many_scopes", True),
        ("many_scopes", 2.5),
    ],
)
def test_impossible_thresholds(name: str, value: object) -> None:
    """A threshold that cannot be one is refused by name."""
    with pytest.raises(InvalidArgumentError, match=f"{name} must be"):
        rules_with(**{name: value})


def test_levels_compare() -> None:
    """Levels have an order, so that a program can ask for one and everything above it."""
    assert sorted({*Level}) == [Level.INFO, Level.LOW, Level.MEDIUM, Level.HIGH, Level.CRITICAL]
    assert max(Level) is Level.CRITICAL
    assert Level.CRITICAL > Level.HIGH >= Level.HIGH > Level.MEDIUM >= Level.LOW
    assert Level("high") is Level.HIGH
    assert f"{Level.HIGH}" == str(Level.HIGH) == "high"
    with pytest.raises(TypeError):
        assert Level.HIGH > 1


def test_the_default_rules() -> None:
    """The rules' IDs and levels are what programs and exit codes go by; the worst come first; each explains itself."""
    levels = [rule.level for rule in DEFAULT_RULES]

    assert {rule.id: str(rule.level) for rule in DEFAULT_RULES} == {
        "leaked": "critical",
        "admin-scopes": "high",
        "many-scopes": "medium",
        "expires-soon": "medium",
        "unused": "medium",
        "never-used": "medium",
        "never-expires": "medium",
        "not-rotated": "medium",
        "expired": "low",
        "duplicate-name": "low",
        "write-scopes": "info",
    }
    assert levels == sorted(levels, reverse=True)
    assert all(rule.reason.endswith(".") and rule.advice.endswith(".") for rule in DEFAULT_RULES)
    assert len({rule.title for rule in DEFAULT_RULES}) == len(DEFAULT_RULES)


def test_the_worst_comes_first() -> None:
    """Findings are sorted by level, then by the input's order, across accounts, then by the rules' order."""
    tokens = [
        token("a", expires_at=NOW),
        token("b", expires_at=None, created_at=NOW - 400 * DAY, service_account_id="another"),
        token("c", scopes=("org_management",), expires_at=None),
        token("d", leak=Leak("l")),
    ]

    assert [(item.token.id, item.rule.id) for item in audit_tokens(tokens, now=NOW)] == [
        ("d", "leaked"),
        ("c", "admin-scopes"),
        ("b", "never-expires"),
        ("b", "not-rotated"),
        ("c", "never-expires"),
        ("a", "expired"),
    ]


def test_what_a_finding_is() -> None:
    """A finding has its token, rule, detail, level and title, cannot be changed, and goes to another process."""
    one = token(expires_at=NOW)
    (finding,) = audit_tokens([one], now=NOW)

    assert finding.token is one
    assert finding.rule in DEFAULT_RULES
    assert (finding.level, finding.title) == (Level.LOW, "Expired but still there")
    assert pickle.loads(pickle.dumps(finding)) == finding
    assert not hasattr(finding, "__dict__")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        finding.detail = "other"


@pytest.mark.parametrize("now", [datetime(2026, 6, 1), None, "2026-06-01", 0])
def test_moments_without_a_zone_are_refused(now: Any) -> None:
    """Without a timezone it is not known when now is, so nothing is judged, not even no token."""
    with pytest.raises(InvalidArgumentError, match="now must be a timezone-aware datetime"):
        audit_tokens([], now=now)


def test_a_rule_of_ones_own() -> None:
    """The example of the documentation works, beside the default rules and alone."""
    no_team = Rule(
        id="no-team",
        title="No team in its name",
        level=Level.LOW,
        reason="It is not known whom to ask before it is revoked.",
        advice="Rename it to team/purpose.",
        judge=each(lambda token, now: None if "/" in (token.name or "") else "it has no slash"),
    )
    tokens = [token("a", name="web/ci"), token("b", name="ci"), token("c", name="cd", expires_at=NOW)]

    assert audit_tokens(tokens, now=NOW, rules=[no_team]) == [Finding(tokens[1], no_team, "it has no slash")]
    assert [item.rule.id for item in audit_tokens(tokens, now=NOW, rules=[*DEFAULT_RULES, no_team])] == [
        "no-team",
        "expired",
    ]
    assert str(audit.__doc__).count("judge=each(lambda token, now: None if") == 1


def test_a_rule_that_sees_a_whole_account() -> None:
    """A function given as `judge` itself sees all working tokens of one account at a time, and the moment."""
    seen: list[tuple[list[str], datetime]] = []

    def judge(tokens: Any, now: datetime) -> list[str | None]:
        seen.append(([one.id for one in tokens], now))
        return [None] * len(tokens)

    rule = Rule(id="x", title="x", level=Level.INFO, reason="", advice="", judge=judge)
    tokens = [token("a"), token("b", service_account_id="another"), token("c"), token("d", expires_at=NOW)]
    audit_tokens(tokens, now=NOW, rules=[rule, attrs.evolve(rule, includes_expired=True)])

    assert seen == [(["a", "c"], NOW), (["b"], NOW), (["a", "c", "d"], NOW), (["b"], NOW)]


@pytest.mark.parametrize("answers", [[], ["x"], ["x", None, None]])
def test_a_rule_that_answers_for_too_few_or_many(answers: list[str | None]) -> None:
    """A function of one's own that does not answer once for each token is refused by its rule's ID."""
    rule = Rule(id="odd", title="", level=Level.LOW, reason="", advice="", judge=lambda tokens, now: answers)

    with pytest.raises(InvalidArgumentError, match="the rule odd must give an answer for each of 2 tokens"):
        audit_tokens([token("a"), token("b")], now=NOW, rules=[rule])


@pytest.mark.parametrize("answers", [None, False, "xy", [None, False], [True, None], ["x", 5]])
def test_a_rule_that_answers_with_something_else(answers: Any) -> None:
    """Answers are texts or `None`: anything else, such as what is false, is refused by the rule's ID."""
    rule = Rule(id="odd", title="", level=Level.LOW, reason="", advice="", judge=lambda tokens, now: answers)

    with pytest.raises(InvalidArgumentError, match="the answers of the rule odd must be a str or None for each token"):
        audit_tokens([token("a"), token("b")], now=NOW, rules=[rule])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rules", {"tokens": [], "rules": ["leaked"]}),
        ("rules", {"tokens": [], "rules": "leaked"}),
        ("rules", {"tokens": [], "rules": DEFAULT_RULES[0]}),
        ("rules", {"tokens": [], "rules": None}),
        ("tokens", {"tokens": ["a"]}),
        ("tokens", {"tokens": [None]}),
        ("tokens", {"tokens": token("a")}),
    ],
)
def test_tokens_and_rules_of_another_type(name: str, arguments: dict[str, Any]) -> None:
    """What is no token or no rule is refused by the name of the argument."""
    with pytest.raises(InvalidArgumentError, match=f"^{name} must be"):
        audit_tokens(now=NOW, **arguments)


@pytest.mark.parametrize(("name", "value"), [("level", "high"), ("level", None), ("judge", None), ("judge", "leaked")])
def test_rules_with_fields_of_another_type(name: str, value: Any) -> None:
    """A rule needs a level and a function."""
    with pytest.raises(InvalidArgumentError, match=f"a rule's {name} must be a"):
        attrs.evolve(DEFAULT_RULES[0], **{name: value})


@pytest.mark.parametrize("rule_id", ["", "Two Words", "two_words", "-x", "x-", "x--y"])
def test_rule_ids_are_in_kebab_case(rule_id: str) -> None:
    """An ID that programs would trip over is refused."""
    with pytest.raises(InvalidArgumentError, match="must be words in lower case"):
        Rule(id=rule_id, title="", level=Level.LOW, reason="", advice="", judge=each(lambda token, now: None))


zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=zones)
names = st.none() | st.sampled_from(["ci", "cd"]) | st.text(max_size=5)
scopes = st.lists(st.sampled_from(["a_read", "a_write", "org_management"]) | st.text(max_size=20), max_size=15)
tokens_of_any_kind = st.builds(
    AccessToken,
    id=st.sampled_from("abcdef"),
    name=names,
    scopes=scopes.map(tuple),
    created_at=st.none() | moments,
    modified_at=st.none() | moments,
    last_used_at=st.none() | moments,
    expires_at=st.none() | moments,
    service_account_id=st.sampled_from([None, "sa", "another"]),
    leak=st.none() | st.builds(Leak, st.just("l"), st.none() | moments, st.none() | st.text(max_size=5)),
)


@given(
    tokens=st.lists(tokens_of_any_kind, max_size=8),
    now=moments,
    chosen=st.sets(st.sampled_from(range(len(DEFAULT_RULES)))),
)
@settings(max_examples=40, deadline=None)
def test_any_tokens_can_be_audited(tokens: list[AccessToken], now: datetime, chosen: set[int]) -> None:
    """For any tokens the same input gives the same findings, and each rule finds the same alone and among others."""
    findings = audit_tokens(tokens, now=now)
    rules = [DEFAULT_RULES[place] for place in sorted(chosen)]

    assert findings == audit_tokens(iter(tokens), now=now, rules=iter(DEFAULT_RULES))
    assert audit_tokens(tokens, now=now, rules=rules) == [item for item in findings if item.rule in rules]
    assert [item.level for item in findings] == sorted((item.level for item in findings), reverse=True)
    assert all(item.detail for item in findings)
