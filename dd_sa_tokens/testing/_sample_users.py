"""Sample users of the organization, their roles, and their personal tokens."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from dd_sa_tokens.models import AccessToken

from ._records import PERSONAL_TYPE
from ._sample_tokens import midnight, uuid, word

Resource = dict[str, Any]
"""A JSON:API resource object."""

STATUSES = ("Active", "Pending", "Disabled")
_FIRST_NAMES = ("Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Hiroshi", "Inés", "Jamal")
_LAST_NAMES = ("Abe", "Brown", "Çelik", "Díaz", "Eze", "Fischer", "García", "Haddad", "Ivanova")
_PURPOSES = ("deploy", "ci", "grafana", "terraform", "backup", "on-call", "cost-report", "slo-export", "status-page")
_ROLES = {
    "Datadog Admin Role": ("org_management", "service_account_write", "user_access_manage"),
    "Datadog Standard Role": ("dashboards_write", "monitors_write", "user_app_keys"),
    "Datadog Read Only Role": ("dashboards_read", "monitors_read"),
}
_PERSONAL_TOKENS = 3
_PERSONAL_SCOPES = 320  # as many as a token of the recorded list has

Roles = list[tuple[Resource, list[Resource]]]
"""Roles, each with its permissions."""


def sample_users(people: Iterable[str], account_ids: Iterable[str], rng: random.Random) -> tuple[list[Resource], Roles]:
    """Return users in a random order, service accounts among them, and the roles that they have.

    Args:
        people: The IDs of the ordinary users.
        account_ids: The IDs of the service accounts.
        rng: Chooses everything else.
    """
    today = midnight()
    org_id = uuid(rng)
    roles = [_role(name, names, rng, today) for name, names in _ROLES.items()]
    role_ids = [role["id"] for role, _ in roles]
    users = [_person(user_id, place, rng, today) for place, user_id in enumerate(people)]
    users += [_account(account_id, place, rng, today) for place, account_id in enumerate(account_ids)]
    for user in users:
        user["relationships"] = {
            "roles": {"data": [{"type": "roles", "id": rng.choice(role_ids)}]},
            "org": {"data": {"type": "orgs", "id": org_id}},
        }
    rng.shuffle(users)
    return users, roles


def _person(user_id: str, place: int, rng: random.Random, today: datetime) -> Resource:
    status = "Active" if place % 7 else STATUSES[place // 7 % 3]
    name = f"{_FIRST_NAMES[place % 10]} {_LAST_NAMES[place % 9]}"
    email = f"user-{place}@example.com"
    return _user(
        user_id,
        rng,
        today,
        name=None if status == "Pending" else name,
        handle=email,
        email=email,
        status=status,
        service_account=False,
        last_login_time=None if status == "Pending" else _ago(rng, today, 0, 1000),
    )


def _account(account_id: str, place: int, rng: random.Random, today: datetime) -> Resource:
    series, purpose = divmod(place, len(_PURPOSES))
    name = _PURPOSES[purpose] + (f"-{series + 1}" if series else "")
    return _user(
        account_id,
        rng,
        today,
        name=name,
        handle=account_id,  # as the recorded service account has it
        email=f"{name}@example.com",
        status="Active",
        service_account=True,
        last_login_time=None,
    )


def _user(user_id: str, rng: random.Random, today: datetime, **attributes: Any) -> Resource:
    attributes |= {
        "created_at": _ago(rng, today, 1200, 2000),
        "modified_at": _ago(rng, today, 1, 1000),
        "icon": "https://example.com/avatar",
        "title": None,
        "verified": attributes["status"] != "Pending",
        "disabled": attributes["status"] == "Disabled",
        "allowed_login_methods": [],
    }
    return {"type": "users", "id": user_id, "attributes": attributes}


def sample_personal_tokens(people: list[str], rng: random.Random) -> list[AccessToken]:
    """Return a personal token of each of the first three people. The first has hundreds of scopes."""
    today = midnight()
    return [
        AccessToken(
            id=uuid(rng),
            name=f"laptop-{place}",
            public_portion=word(rng, 22),
            scopes=tuple(f"scope_{number}_read" for number in range(1 if place else _PERSONAL_SCOPES)),
            created_at=today - timedelta(days=rng.randrange(40, 400), microseconds=rng.randrange(1, 10**6)),
            service_account_id=user_id,
            type=PERSONAL_TYPE,
        )
        for place, user_id in enumerate(people[:_PERSONAL_TOKENS])
    ]


def _role(
    name: str, permissions: Iterable[str], rng: random.Random, today: datetime
) -> tuple[Resource, list[Resource]]:
    """Return a role and its permissions as resource objects."""
    created_at = _ago(rng, today, 2000, 2500)
    granted = [
        {
            "type": "permissions",
            "id": uuid(rng),
            "attributes": {
                "created": created_at,
                "description": f"Grants {permission}.",
                "display_name": permission.replace("_", " ").capitalize(),
                "display_type": "other",
                "group_name": "General",
                "name": permission,
                "restricted": False,
            },
        }
        for permission in permissions
    ]
    role = {
        "type": "roles",
        "id": uuid(rng),
        "attributes": {"name": name, "created_at": created_at, "modified_at": created_at},
        "relationships": {"permissions": {"data": [{"type": "permissions", "id": item["id"]} for item in granted]}},
    }
    return role, granted


def _ago(rng: random.Random, today: datetime, minimum: int, maximum: int) -> str:
    """Return a moment some days before today as the API writes it for users: with an offset instead of a Z."""
    at = today - timedelta(days=rng.randint(minimum, maximum), microseconds=rng.randrange(1, 10**6))
    return at.isoformat()
