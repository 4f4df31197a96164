"""The audit: each rule at its edges, what it does with missing dates and odd zones, order, and rules of one's own."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dd_sa_tokens import AccessToken, InvalidArgumentError, audit
from dd_sa_tokens.audit import (
    DEFAULT_RULES,
    Finding,
    Level,
    Rule,
    administers,
    audit_tokens,
    each,
    rules_with,
    writes,
)
from dd_sa_tokens.testing import _made_up

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


# ---- Dates


def test_a_token_in_order() -> None:
    """A token that is young, used, narrow and about to live on for a while gives no finding; nor does no token."""
    assert found(token()) == []
    assert audit_tokens([], now=NOW) == []


@pytest.mark.parametrize(
    ("expires_at", "rules"),
    [
        (NOW - DAY, ["expired"]),
        (NOW - MICROSECOND, ["expired"]),
        (NOW, ["expired"]),
        (NOW + MICROSECOND, ["expires-soon"]),
        (NOW + DAY, ["expires-soon"]),
        (NOW + 29 * DAY, ["expires-soon"]),
        (NOW + 30 * DAY, ["expires-soon"]),
        (NOW + 30 * DAY + MICROSECOND, []),
        (NOW + 31 * DAY, []),
        (None, ["never-expires"]),
        (datetime.min.replace(tzinfo=timezone(14 * timedelta(hours=1))), ["expired"]),
        (datetime.max.replace(tzinfo=timezone(-14 * timedelta(hours=1))), []),
    ],
)
def test_expiry(expires_at: datetime | None, rules: list[str]) -> None:
    """A token is expired from its expiry on, soon to expire in the 30 days before it, the thirtieth included."""
    assert found(token(expires_at=expires_at)) == rules


@pytest.mark.parametrize(
    ("age", "rules"),
    [(6 * DAY, []), (7 * DAY, []), (7 * DAY + MICROSECOND, ["never-used"]), (8 * DAY, ["never-used"]), (-DAY, [])],
)
def test_never_used(age: timedelta, rules: list[str]) -> None:
    """A token that was never used is found once it is older than a week."""
    assert found(token(last_used_at=None, created_at=NOW - age)) == rules
    assert found(token(created_at=NOW - age)) == []


@pytest.mark.parametrize(
    ("since", "rules"),
    [(89 * DAY, []), (90 * DAY, []), (90 * DAY + MICROSECOND, ["unused"]), (91 * DAY, ["unused"]), (-DAY, [])],
)
def test_unused(since: timedelta, rules: list[str]) -> None:
    """A token is found when its last use is more than 90 days ago."""
    assert found(token(last_used_at=NOW - since)) == rules


@pytest.mark.parametrize(
    ("age", "rules"),
    [(364 * DAY, []), (365 * DAY, []), (365 * DAY + MICROSECOND, ["not-rotated"]), (366 * DAY, ["not-rotated"])],
)
def test_not_rotated(age: timedelta, rules: list[str]) -> None:
    """A token that was made more than a year ago has an old key, however lately it was updated."""
    assert found(token(created_at=NOW - age)) == rules
    assert found(token(created_at=NOW - age, modified_at=NOW - DAY)) == rules


def test_missing_dates_give_no_finding() -> None:
    """Without the date of its creation a token cannot be called too old or too long unused."""
    assert found(token(created_at=None)) == []
    assert found(token(created_at=None, last_used_at=None)) == []
    assert found(AccessToken(id="bare")) == ["never-expires"]


@pytest.mark.parametrize("hours", [-11, 0, 5.5, 14])
def test_time_zones_do_not_matter(hours: float) -> None:
    """The same moments in another zone give the same findings in the same words."""
    zone = timezone(timedelta(hours=hours))
    here = token(last_used_at=NOW - 91 * DAY, created_at=NOW - 366 * DAY, expires_at=NOW + 30 * DAY)
    there = attrs.evolve(
        here, **{name: getattr(here, name).astimezone(zone) for name in ("last_used_at", "created_at", "expires_at")}
    )

    assert found(there, now=NOW.astimezone(zone)) == ["expires-soon", "unused", "not-rotated"]
    assert [item.detail for item in audit_tokens([there], now=NOW.astimezone(zone))] == [
        item.detail for item in audit_tokens([here], now=NOW)
    ]


@pytest.mark.parametrize(
    ("fields", "rule_id", "words"),
    [
        ({"expires_at": NOW - 2 * DAY}, "expired", "expired 2 days ago, on 2026-05-30"),
        ({"expires_at": NOW}, "expired", "expired less than a day ago, on 2026-06-01"),
        ({"expires_at": NOW + DAY}, "expires-soon", "expires in 1 day, on 2026-06-02"),
        ({"last_used_at": NOW - 91 * DAY}, "unused", "last used 91 days ago, on 2026-03-02"),
        (
            {"last_used_at": None, "created_at": NOW - 8 * DAY},
            "never-used",
            "made 8 days ago, on 2026-05-24, and not used since",
        ),
        ({"created_at": NOW - 366 * DAY}, "not-rotated", "made 366 days ago, on 2025-05-31"),
        ({"expires_at": None}, "never-expires", "it has no expiry"),
        ({"scopes": READS * 11}, "many-scopes", "11 scopes"),
        (
            {"scopes": ("org_management", "a_read", "billing_edit", "a_write")},
            "admin-scopes",
            "org_management, billing_edit",
        ),
        ({"scopes": ("org_management", "a_read", "billing_edit", "a_write")}, "write-scopes", "a_write"),
    ],
)
def test_a_finding_says_what_it_is(fields: dict[str, Any], rule_id: str, words: str) -> None:
    """Each detail has the figure, the day in UTC, or the scopes that the finding is about."""
    assert detail(token(**fields), rule_id) == words


def test_an_expired_token_has_one_finding() -> None:
    """What can do nothing any more is only found to be there still, whatever else was wrong with it."""
    wreck = token(
        scopes=("org_management", "a_write") * 6,
        created_at=NOW - 1000 * DAY,
        last_used_at=NOW - 500 * DAY,
        expires_at=NOW - DAY,
    )

    assert found(wreck) == ["expired"]
    assert found(attrs.evolve(wreck, last_used_at=None)) == ["expired"]


# ---- Scopes


@pytest.mark.parametrize(("number", "rules"), [(9, []), (10, []), (11, ["many-scopes"])])
def test_many_scopes(number: int, rules: list[str]) -> None:
    """Ten scopes are enough for anybody; more are found."""
    assert found(token(scopes=tuple(f"thing{place}_read" for place in range(number)))) == rules


@pytest.mark.parametrize(
    "scope",
    ["dashboards_read", "logs_read_data", "timeseries_query", "logs_live_tail", "ndm_device_profiles_view"],
)
def test_scopes_that_read(scope: str) -> None:
    """A scope with a word of looking in its name gives no finding."""
    assert not writes(scope)
    assert not administers(scope)
    assert found(token(scopes=(scope,))) == []


@pytest.mark.parametrize(
    "scope",
    [
        "dashboards_write",
        "logs_write_archives",
        "aws_configuration_edit",
        "teams_manage",
        "manage_integrations",
        "workflows_run",
        "monitors_downtime",
        "logs_delete_data",
        "dashboards_public_share",
        "something_new",
        "threads_write",
        "cost_organization_write",
    ],
)
def test_scopes_that_write(scope: str) -> None:
    """Any other scope counts as one that writes, the unknown included, but administers nothing."""
    assert writes(scope)
    assert not administers(scope)
    assert found(token(scopes=(*READS, scope))) == ["write-scopes"]


@pytest.mark.parametrize(
    "scope",
    [
        "admin",
        "api_keys_delete",
        "audit_logs_write",
        "billing_edit",
        "governance_console_write",
        "org_app_keys_write",
        "org_management",
        "service_account_write",
        "user_access_invite",
        "user_access_manage",
        "user_app_keys",
    ],
)
def test_scopes_that_administer(scope: str) -> None:
    """Scopes over people, keys, the organization and its bill are found as such, and not once more as writing."""
    assert administers(scope)
    assert writes(scope)
    assert found(token(scopes=(*READS, scope))) == ["admin-scopes"]


@pytest.mark.parametrize("scope", ["user_access_read", "billing_read", "api_keys_read", "audit_logs_read"])
def test_looking_at_what_administrators_do_is_reading(scope: str) -> None:
    """The reading kin of an administrator's scope gives no finding."""
    assert found(token(scopes=(scope,))) == []


# ---- Names


def test_duplicate_names() -> None:
    """Each of the tokens that share a name is found, and told how many others there are."""
    tokens = [token("a", name="ci"), token("b", name="cd"), token("c", name="ci"), token("d", name="ci")]
    findings = audit_tokens(tokens, now=NOW)

    assert [finding.token.id for finding in findings] == ["a", "c", "d"]
    assert {finding.detail for finding in findings} == {"2 other tokens of the account with this name"}
    assert [item.detail for item in audit_tokens(tokens[1:], now=NOW)] == [
        "1 other token of the account with this name"
    ] * 2


@pytest.mark.parametrize(
    "other",
    [
        {"service_account_id": "another"},
        {"service_account_id": None},
        {"name": "CI"},
        {"name": "ci "},
        {"expires_at": NOW},
    ],
)
def test_names_that_are_not_duplicates(other: dict[str, Any]) -> None:
    """Another account's token, another spelling, and a token that has expired share nothing."""
    assert "duplicate-name" not in found(token("a", name="ci"), token("b", **({"name": "ci"} | other)))


@pytest.mark.parametrize("name", [None, ""])
def test_tokens_without_a_name_share_none(name: str | None) -> None:
    """Having no name is not a name."""
    assert found(token("a", name=name), token("b", name=name)) == []


def test_a_token_given_twice_is_no_duplicate_of_itself() -> None:
    """Where the same token is in the input twice, its name is still its own."""
    assert found(token("a", name="ci"), token("a", name="ci")) == []


def test_tokens_of_unknown_accounts_count_as_one_account() -> None:
    """Tokens that do not say whose they are are compared with each other."""
    tokens = [token("a", name="ci", service_account_id=None), token("b", name="ci", service_account_id=None)]
    assert found(*tokens) == ["duplicate-name"] * 2


# ---- Thresholds, levels, order


@pytest.mark.parametrize(
    ("thresholds", "fields", "rule_id"),
    [
        ({"expiring_within": 2 * DAY}, {"expires_at": NOW + 2 * DAY}, "expires-soon"),
        ({"unused_for": 2 * DAY}, {"last_used_at": NOW - 3 * DAY}, "unused"),
        ({"never_used_for": 2 * DAY}, {"last_used_at": None, "created_at": NOW - 3 * DAY}, "never-used"),
        ({"rotated_within": 2 * DAY}, {"created_at": NOW - 3 * DAY}, "not-rotated"),
        ({"broad_scopes": 2}, {"scopes": ("a_read", "b_read", "c_read")}, "many-scopes"),
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
    titles = {rule.id: rule.title for rule in rules_with(unused_for=DAY, expiring_within=DAY / 2, broad_scopes=1)}

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
        ("broad_scopes", -1),
        ("broad_scopes", True),
        ("broad_scopes", 2.5),
    ],
)
def test_impossible_thresholds(name: str, value: object) -> None:
    """A threshold that cannot be one is refused by name."""
    with pytest.raises(InvalidArgumentError, match=f"{name} must be"):
        rules_with(**{name: value})


def test_levels_compare() -> None:
    """Levels have an order, so that a program can ask for one and everything above it."""
    assert sorted({*Level}) == [Level.INFO, Level.LOW, Level.MEDIUM, Level.HIGH]
    assert max(Level) is Level.HIGH
    assert Level.HIGH >= Level.HIGH > Level.MEDIUM >= Level.LOW
    assert Level("high") is Level.HIGH
    assert f"{Level.HIGH}" == str(Level.HIGH) == "high"
    with pytest.raises(TypeError):
        assert Level.HIGH > 1


def test_the_default_rules() -> None:
    """The rules' IDs and levels are what programs and exit codes go by; the worst come first; each explains itself."""
    levels = [rule.level for rule in DEFAULT_RULES]

    assert {rule.id: str(rule.level) for rule in DEFAULT_RULES} == {
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
    ]

    assert [(item.token.id, item.rule.id) for item in audit_tokens(tokens, now=NOW)] == [
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


# ---- Rules of one's own


def test_a_rule_of_ones_own() -> None:
    """The example of the documentation works, beside the default rules and alone."""
    no_team = Rule(
        id="no-team",
        title="No team in its name",
        level=Level.LOW,
        reason="Nobody knows whom to ask before it is revoked.",
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


@pytest.mark.parametrize("rule_id", ["", "Two Words", "two_words", "-x", "x-", "x--y"])
def test_rule_ids_are_in_kebab_case(rule_id: str) -> None:
    """An ID that programs would trip over is refused."""
    with pytest.raises(InvalidArgumentError, match="must be words in lower case"):
        Rule(id=rule_id, title="", level=Level.LOW, reason="", advice="", judge=each(lambda token, now: None))


# ---- Properties


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
)


@given(tokens=st.lists(tokens_of_any_kind, max_size=8), now=moments, chosen=st.sets(st.sampled_from(range(10))))
def test_any_tokens_can_be_audited(tokens: list[AccessToken], now: datetime, chosen: set[int]) -> None:
    """Whatever the tokens, the same input gives the same findings, and fewer rules find what they find among all."""
    findings = audit_tokens(tokens, now=now)
    rules = [DEFAULT_RULES[place] for place in sorted(chosen)]

    assert findings == audit_tokens(iter(tokens), now=now, rules=iter(DEFAULT_RULES))
    assert audit_tokens(tokens, now=now, rules=rules) == [item for item in findings if item.rule in rules]
    assert [item.level for item in findings] == sorted((item.level for item in findings), reverse=True)
    assert all(item.detail for item in findings)


# ---- The tokens that FakeDatadog makes up


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
def test_made_up_tokens_give_findings_of_each_kind(now: datetime, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred of FakeDatadog's tokens have something for each rule, and the same on any day and at any hour."""
    monkeypatch.setattr(Calendar, "today", now, raising=False)
    monkeypatch.setattr(_made_up, "datetime", Calendar)
    tokens = _made_up.make_up(100, random.Random(seed))
    findings = audit_tokens(tokens, now=now)
    kinds = Counter(finding.rule.id for finding in findings)
    midnight = audit_tokens(tokens, now=now.replace(hour=0, minute=0, second=0, microsecond=0))

    assert set(kinds) == {rule.id for rule in DEFAULT_RULES}
    assert [(item.token, item.rule) for item in findings] == [(item.token, item.rule) for item in midnight]
    assert len({finding.token for finding in findings}) < len(tokens)
