"""The organization: what each operation does, and which permission it needs."""

from __future__ import annotations

import attrs

from . import _routes
from ._accounts import Accounts
from ._answers import Answer, RefusedError
from ._queries import Query
from ._routes import Route
from ._users import Users


@attrs.frozen
class Organization:
    """Service accounts, users, and the permissions of the keys.

    Attributes:
        accounts: The service accounts and all tokens.
        users: The users.
        people: The IDs of the users that are no service accounts.
        permissions: The permissions that every key has.
    """

    accounts: Accounts
    users: Users
    people: list[str]
    permissions: frozenset[str]

    def answer(self, route: Route, query: Query, body: bytes, now: float) -> Answer:
        """Carry a request out, and return the answer, which may be a refusal.

        Args:
            route: What the request asks for.
            query: Its query.
            body: Its body.
            now: The server's time, in seconds since the epoch.
        """
        try:
            self._check_permission(route)
            return self._carry_out(route, query, body, now)
        except RefusedError as refused:
            return refused.answer

    def _check_permission(self, route: Route) -> None:
        needed = route.operation.permissions
        if needed and self.permissions.isdisjoint(needed):
            raise RefusedError(403)

    def _carry_out(self, route: Route, query: Query, body: bytes, now: float) -> Answer:
        account_id, token_id = route.service_account_id or "", route.token_id or ""
        match route.operation:
            case _routes.GET:
                answer = self.accounts.get_token(account_id, token_id, query)
            case _routes.LIST:
                answer = self.accounts.list_tokens(account_id, query)
            case _routes.CREATE:
                answer = self.accounts.create_token(account_id, body, now)
            case _routes.UPDATE:
                answer = self.accounts.update_token(account_id, token_id, body, now)
            case _routes.REVOKE:
                answer = self.accounts.revoke_token(account_id, token_id)
            case _routes.LIST_ORGANIZATION:
                answer = self.accounts.list_organization_tokens(query, self._only_owner())
            case _routes.LIST_USERS:
                answer = self.users.list_users(query)
            case _routes.GET_USER:
                answer = self.users.get_user(account_id)
            case _:
                raise RefusedError(404)
        return answer

    def _only_owner(self) -> str | None:
        """Return whose tokens the keys may see: with `user_app_keys` alone, those of the first user, who made them."""
        if "org_app_keys_read" in self.permissions:
            return None
        return next(iter(self.people), "no user")
