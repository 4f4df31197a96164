"""Each rule at its edges, missing dates and unusual time zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

from dd_sa_tokens import AccessToken
from dd_sa_tokens.audit import (
    Level,
    administers,
    audit_tokens,
    rules_with,
    writes,
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
    """A token that was created more than a year ago has an old key, even if it was updated since."""
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
            "created 8 days ago, on 2026-05-24, and not used since",
        ),
        ({"created_at": NOW - 366 * DAY}, "not-rotated", "created 366 days ago, on 2025-05-31"),
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


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        (Leak("l"), "its key was found in public"),
        (Leak("l", source="a gist"), "its key was found at a gist"),
        (Leak("l", NOW - 3 * DAY), "its key was found in public 3 days ago, on 2026-05-29"),
        (Leak("l", NOW - 3 * DAY, "a gist"), "its key was found at a gist 3 days ago, on 2026-05-29"),
        (Leak("l", NOW, "a gist"), "its key was found at a gist less than a day ago, on 2026-06-01"),
        (Leak("l", NOW + DAY, "a gist"), "its key was found at a gist on 2026-06-02"),
    ],
)
def test_leaked(leak: Leak, words: str) -> None:
    """A leaked token is found, and the finding says where and when its key was seen, as far as that is known."""
    (finding,) = audit_tokens([token(leak=leak)], now=NOW)

    assert (finding.rule.id, finding.level, finding.detail) == ("leaked", Level.CRITICAL, words)
    assert finding.rule.advice.startswith("Rotate it now")
    assert "then revoke it" in finding.rule.advice


def test_an_expired_token_has_one_finding() -> None:
    """An expired token is only found to be still there, although more was wrong with it."""
    wreck = token(
        scopes=("org_management", "a_write") * 6,
        created_at=NOW - 1000 * DAY,
        last_used_at=NOW - 500 * DAY,
        expires_at=NOW - DAY,
    )

    assert found(wreck) == ["expired"]
    assert found(attrs.evolve(wreck, last_used_at=None)) == ["expired"]
    assert found(attrs.evolve(wreck, leak=Leak("l"))) == ["expired"]


@pytest.mark.parametrize(("number", "rules"), [(9, []), (10, []), (11, ["many-scopes"])])
def test_many_scopes(number: int, rules: list[str]) -> None:
    """More than ten scopes are found."""
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
