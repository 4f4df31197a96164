"""Sample tokens, as varied as those of real accounts, and the same for the same seed."""

from __future__ import annotations

import random
import string
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs

from dd_sa_tokens.models import AccessToken, Leak

_BASE62 = string.digits + string.ascii_letters
_SCOPES: tuple[str, ...] = (
    "apm_read", "cases_read", "ci_visibility_read", "dashboards_read", "dashboards_write", "events_read", "hosts_read",
    "incident_read", "incident_write", "logs_read_data", "logs_read_index_data", "logs_write_pipelines", "metrics_read",
    "monitors_downtime", "monitors_read", "monitors_write", "notebooks_read", "rum_apps_read",
    "security_monitoring_signals_read", "slos_read", "slos_write", "synthetics_read", "synthetics_write", "teams_read",
    "timeseries_query", "usage_read", "user_access_read", "workflows_run",
)  # fmt: skip
_ADMIN_SCOPES: tuple[str, ...] = (
    "billing_edit",
    "org_management",
    "service_account_write",
    "user_access_invite",
    "user_access_manage",
)
_USES = ("backup", "ci", "cost-report", "deploy", "grafana", "on-call", "slo-export", "status-page", "terraform")
_UNUSUAL_NAMES = ("Überwachung", "made by hand, please keep; " * 8, "監視の同期", "дежурный бот", "déploiement 🚀")
# Days from now, or before the token's end, to choose from. The lengths have no common divisor, so all pairs occur.
_EXPIRIES = (None, (31, 364), (2, 29), None, (-90, -2), (31, 364), (31, 364), (366, 700), None, (2, 13))
_LAST_USES = ((2, 6), None, (2, 6), (95, 400), (2, 27), None, (2, 13))
_LEAK_SOURCES = ("https://github.com/example/deploy-scripts", None, "https://hub.docker.com/r/example/worker")


def uuid(rng: random.Random) -> str:
    """Return a random UUID."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def word(rng: random.Random, length: int) -> str:
    """Return random letters and digits."""
    return "".join(rng.choices(_BASE62, k=length))


def sample_key(rng: random.Random) -> str:
    """Return a secret in the form of a service access token's, which begins with its public portion."""
    return f"{_public_portion(rng)}_{word(rng, 36)}"


def sample_tokens(number: int, rng: random.Random, leaks: random.Random) -> list[AccessToken]:
    """Return sample tokens of one service account, a few of them leaked.

    Args:
        number: How many tokens.
        rng: Chooses everything but the leaks.
        leaks: Chooses the leaks, so that the tokens are the same as without them.
    """
    today = midnight()
    tokens = [_sample_token(place, rng, today) for place in range(number)]
    for place in range(18, number, 20):
        tokens[place] = attrs.evolve(tokens[place], name=tokens[place - 7].name)
    for count, place in enumerate(range(12, number, 25)):
        source = _LEAK_SOURCES[count % len(_LEAK_SOURCES)]
        tokens[place] = attrs.evolve(tokens[place], leak=_sample_leak(leaks, today, source))
    return tokens


def midnight() -> datetime:
    """Return the beginning of today in UTC, which the dates of all samples are relative to."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _sample_leak(rng: random.Random, today: datetime, source: str | None) -> Leak:
    seconds = rng.randrange(86_400)
    return Leak(uuid(rng), today - timedelta(days=_days(rng, 2, 6), seconds=-seconds), source)


def _public_portion(rng: random.Random) -> str:
    return f"ddsat_{word(rng, 22)}"


def _sample_token(place: int, rng: random.Random, today: datetime) -> AccessToken:
    def moment(days: int) -> datetime:
        return today + timedelta(days=days, microseconds=rng.randrange(86_400_000_000))

    def ago(minimum: int, maximum: int) -> int:
        return _days(rng, ended + minimum, ended + maximum)

    expiry, last_use = _EXPIRIES[place % len(_EXPIRIES)], _LAST_USES[place % len(_LAST_USES)]
    expires = None if expiry is None else _days(rng, *expiry)
    ended = max(0, -(expires or 0))
    used = None if last_use is None else ago(*last_use)
    created = _days(rng, (used or ended) + 10, (used or ended) + 500)
    modified = _days(rng, 2, created - 1) if rng.random() < 0.3 else None
    scopes = rng.sample(_SCOPES, rng.choice((1, 1, 2, 3, 5, 8, 12)))
    if place % 9 == 4:
        scopes[:2] = rng.sample(_ADMIN_SCOPES, min(2, len(scopes)))
    name = f"{rng.choice(_USES)}-{rng.choice(('prod', 'staging', 'dev'))}-{place:03d}"
    return AccessToken(
        id=uuid(rng),
        name=_UNUSUAL_NAMES[place // 13 % len(_UNUSUAL_NAMES)] if place % 13 == 6 else name,
        public_portion=_public_portion(rng),
        scopes=tuple(scopes),
        created_at=moment(-created),
        modified_at=None if modified is None else moment(-modified),
        last_used_at=None if used is None else moment(-used),
        expires_at=None if expires is None else moment(expires).replace(microsecond=0),
    )


def _days(rng: random.Random, minimum: int, maximum: int) -> int:
    """Return a number of days that is at least one day off the usual thresholds, which are multiples of 5 or 7."""
    while True:
        days = rng.randint(minimum, maximum)
        if days % 5 and days % 7:
            return days
