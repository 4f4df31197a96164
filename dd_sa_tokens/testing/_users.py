"""The organization's users in memory: people, and service accounts among them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from ._answers import Answer, RefusedError, encode
from ._queries import USER_SORTS, Query, Selections, Sort, first, read_page, read_sort
from ._sample_users import STATUSES, Resource, Roles


class Users:
    """The users by their IDs.

    Args:
        users: The users as resource objects, in the server's order.
        roles: The roles that they have.
    """

    def __init__(self, users: Iterable[Resource], roles: Roles) -> None:
        self._users = {user["id"]: user for user in users}
        self._roles = roles
        self._selections: Selections[Resource] = Selections()

    def get_user(self, user_id: str) -> Answer:
        """Answer with a user.

        Raises:
            RefusedError: There is no such user.
        """
        user = self._users.get(user_id)
        if user is None:
            raise RefusedError(404)
        return 200, encode({"data": user, "included": self._included([user])})

    def list_users(self, query: Query) -> Answer:
        """Answer with a page of users.

        The filter is text that the name, the handle or the email address contains, in any case.

        Raises:
            RefusedError: The query is not what the API documents.
        """
        page, sort = read_page(query), _read_user_sort(query)
        text = (first(query, "filter") or "").casefold()
        statuses = _read_statuses(query)

        def select() -> list[Resource]:
            wanted = [user for user in self._users.values() if _matches(user["attributes"], text, statuses)]
            return sort.apply(wanted, lambda user, name: user["attributes"].get(name))

        found = self._selections.get((sort, text, statuses), select)
        rows = page.of(found)
        meta = {"page": {"total_filtered_count": len(found), "total_count": len(self._users)}}
        return 200, encode({"data": rows, "included": self._included(rows), "meta": meta})

    def _included(self, users: Iterable[Resource]) -> list[Resource]:
        """Return the roles that users have, and the permissions of these roles."""
        ids = {role["id"] for user in users for role in user["relationships"]["roles"]["data"]}
        held = [(role, permissions) for role, permissions in self._roles if role["id"] in ids]
        return [role for role, _ in held] + [permission for _, permissions in held for permission in permissions]


def _matches(attributes: Resource, text: str, statuses: frozenset[str]) -> bool:
    texts = (attributes["name"] or "", attributes["handle"], attributes["email"])
    return attributes["status"] in statuses and (not text or any(text in item.casefold() for item in texts))


def _read_statuses(query: Query) -> frozenset[str]:
    statuses = frozenset((first(query, "filter[status]") or ",".join(STATUSES)).split(","))
    if not statuses <= set(STATUSES):
        raise RefusedError(400, f"filter[status] must be {', '.join(STATUSES)}, or several of them with commas")
    return statuses


def _read_user_sort(query: Query) -> Sort:
    """Read `sort` and `sort_dir`; the latter wins over a leading `-`."""
    sort, direction = read_sort(query, USER_SORTS), first(query, "sort_dir")
    if direction not in {None, "asc", "desc"}:
        raise RefusedError(400, "sort_dir must be asc or desc")
    return sort if direction is None else attrs.evolve(sort, descending=direction == "desc")
