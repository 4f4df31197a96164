"""Sample users of the organization, their roles, and their personal tokens."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs

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


@attrs.frozen
class User:
    """A user. Its dates and its role follow from its number, so that an organization of 50,000 is made quickly.

    Attributes:
        id: The ID.
        number: Its position among the users of its kind.
        name: The name; `None` for one who has not accepted the invitation.
        handle: The email address of a person, the ID of a service account.
        email: The email address.
        status: `Active`, `Pending` or `Disabled`.
        is_account: Whether it is a service account.
    """

    id: str
    number: int
    name: str | None
    handle: str
    email: str
    status: str = STATUSES[0]
    is_account: bool = False

    @property
    def created_at(self) -> datetime:
        """When it was created: 1200 to 2000 days ago."""
        return midnight() - timedelta(days=1200 + self.number * 37 % 800, microseconds=self.number % 999_999 + 1)

    @property
    def modified_at(self) -> datetime:
        """When it was changed last: 1 to 1000 days ago."""
        return midnight() - timedelta(days=1 + self.number * 61 % 1000, microseconds=self.number % 999_999 + 1)

    def resource(self, role_id: str, org_id: str) -> Resource:
        """Return its resource object. Users' dates have an offset where tokens' dates have a Z, as recorded."""
        logged_in = None if self.is_account or self.status == "Pending" else self.modified_at.isoformat()
        attributes: dict[str, Any] = {
            "name": self.name,
            "handle": self.handle,
            "created_at": self.created_at.isoformat(),
            "modified_at": self.modified_at.isoformat(),
            "email": self.email,
            "icon": "https://example.com/avatar",
            "title": None,
            "verified": self.status != "Pending",
            "service_account": self.is_account,
            "disabled": self.status == "Disabled",
            "allowed_login_methods": [],
            "status": self.status,
            "last_login_time": logged_in,
        }
        relationships = {
            "roles": {"data": [{"type": "roles", "id": role_id}]},
            "org": {"data": {"type": "orgs", "id": org_id}},
        }
        return {"type": "users", "id": self.id, "attributes": attributes, "relationships": relationships}


@attrs.frozen
class Role:
    """A role and its permissions, as resource objects."""

    resource: Resource
    permissions: list[Resource]


def sample_users(people: Iterable[str], account_ids: Iterable[str], rng: random.Random) -> list[User]:
    """Return users in a random order, service accounts among them.

    Args:
        people: The IDs of the ordinary users.
        account_ids: The IDs of the service accounts.
        rng: Chooses the order.
    """
    users = [_person(user_id, number) for number, user_id in enumerate(people)]
    users += [_account(account_id, number) for number, account_id in enumerate(account_ids)]
    rng.shuffle(users)
    return users


def sample_personal_tokens(people: list[str], rng: random.Random) -> list[AccessToken]:
    """Return a personal token of each of the first three people. The first has hundreds of scopes."""
    today = midnight()
    return [
        AccessToken(
            id=uuid(rng),
            name=f"laptop-{number}",
            public_portion=word(rng, 22),
            scopes=tuple(f"scope_{scope}_read" for scope in range(1 if number else _PERSONAL_SCOPES)),
            created_at=today - timedelta(days=rng.randrange(40, 400), microseconds=rng.randrange(1, 10**6)),
            service_account_id=user_id,
            type=PERSONAL_TYPE,
        )
        for number, user_id in enumerate(people[:_PERSONAL_TOKENS])
    ]


def sample_roles(rng: random.Random) -> list[Role]:
    """Return three roles. `rng` chooses their IDs and those of their permissions."""
    created_at = (midnight() - timedelta(days=2500)).isoformat()
    return [_role(name, permissions, rng, created_at) for name, permissions in _ROLES.items()]


def _person(user_id: str, number: int) -> User:
    status = STATUSES[number // 7 % 3] if number % 7 == 0 else STATUSES[0]
    name = f"{_FIRST_NAMES[number % 10]} {_LAST_NAMES[number % 9]}"
    email = f"user-{number}@example.com"
    return User(user_id, number, None if status == "Pending" else name, email, email, status)


def _account(account_id: str, number: int) -> User:
    series, purpose = divmod(number, len(_PURPOSES))
    name = _PURPOSES[purpose] + (f"-{series + 1}" if series else "")
    # The recorded service account's handle is its own ID.
    return User(account_id, number, name, account_id, f"{name}@example.com", is_account=True)


def _role(name: str, permissions: Iterable[str], rng: random.Random, created_at: str) -> Role:
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
    resource = {
        "type": "roles",
        "id": uuid(rng),
        "attributes": {"name": name, "created_at": created_at, "modified_at": created_at},
        "relationships": {"permissions": {"data": [{"type": "permissions", "id": item["id"]} for item in granted]}},
    }
    return Role(resource, granted)
