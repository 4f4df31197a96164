"""The organization's users in memory: people, and service accounts among them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from ._answers import Answer, RefusedError, encode
from ._queries import USER_SORTS, Query, Selections, Sort, first, read_page, read_sort
from ._sample_users import STATUSES, Resource, Role, User


class Users:
    """The users by their IDs.

    Args:
        users: The users in the server's order.
        roles: The roles that they have.
        org_id: The ID of their organization.
    """

    def __init__(self, users: Iterable[User], roles: list[Role], org_id: str) -> None:
        self._users = {user.id: user for user in users}
        self._roles = roles
        self._org_id = org_id
        self._selections: Selections[User] = Selections()

    def get_user(self, user_id: str) -> Answer:
        """Answer with a user.

        Raises:
            RefusedError: There is no such user.
        """
        user = self._users.get(user_id) or self._users.get(user_id.lower())  # UUIDs have no case
        if user is None:
            raise RefusedError(404)
        return 200, encode({"data": self._resource(user), "included": self._included([user])})

    def list_users(self, query: Query) -> Answer:
        """Answer with a page of users.

        The filter is text that the name, the handle or the email address contains, in any case.

        Raises:
            RefusedError: The query is not what the API documents.
        """
        page, sort = read_page(query), _read_user_sort(query)
        text = (first(query, "filter") or "").casefold()
        statuses = _read_statuses(query)

        def select() -> list[User]:
            wanted = [user for user in self._users.values() if _matches(user, text, statuses)]
            return sort.apply(wanted, _value)

        found = self._selections.get((sort, text, statuses), select)
        users = page.of(found)
        data = [self._resource(user) for user in users]
        meta = {"page": {"total_filtered_count": len(found), "total_count": len(self._users)}}
        return 200, encode({"data": data, "included": self._included(users), "meta": meta})

    def _role_of(self, user: User) -> Role:
        return self._roles[user.number % len(self._roles)]

    def _resource(self, user: User) -> Resource:
        return user.resource(self._role_of(user).resource["id"], self._org_id)

    def _included(self, users: Iterable[User]) -> list[Resource]:
        """Return the roles that users have, and the permissions of these roles."""
        roles = {role.resource["id"]: role for role in map(self._role_of, users)}.values()
        permissions = [permission for role in roles for permission in role.permissions]
        return [role.resource for role in roles] + permissions


def _value(user: User, name: str) -> Any:
    """Return what a user is sorted by. `user_count` is an attribute of roles, so no user has a value."""
    return None if name == "user_count" else getattr(user, name)


def _matches(user: User, text: str, statuses: frozenset[str]) -> bool:
    texts = (user.name or "", user.handle, user.email)
    return user.status in statuses and (not text or any(text in item.casefold() for item in texts))


def _read_statuses(query: Query) -> frozenset[str]:
    statuses = frozenset((first(query, "filter[status]") or ",".join(STATUSES)).split(","))
    if not statuses <= {*STATUSES}:
        raise RefusedError(400, f"filter[status] must be {', '.join(STATUSES)}, or several of them with commas")
    return statuses


def _read_user_sort(query: Query) -> Sort:
    """Read `sort` and `sort_dir`, which wins over a leading `-`."""
    sort, direction = read_sort(query, USER_SORTS), first(query, "sort_dir")
    if direction not in {None, "asc", "desc"}:
        raise RefusedError(400, "sort_dir must be asc or desc")
    return sort if direction is None else attrs.evolve(sort, descending=direction == "desc")
