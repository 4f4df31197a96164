"""From a request's method and path to the operation that it asks for."""

from __future__ import annotations

import re
from urllib.parse import unquote

import attrs

TOKENS_LIMIT = "service_account_access_tokens"
ORGANIZATION_LIMIT = "personal_access_tokens"
USERS_LIMIT = "users"
LIMITS = (TOKENS_LIMIT, ORGANIZATION_LIMIT, USERS_LIMIT)
"""The names of the rate limits. Each has a window of its own."""

_READ = ("service_account_write", "org_app_keys_read")
_WRITE = ("service_account_write", "org_app_keys_write")

PERMISSIONS = ("service_account_write", "org_app_keys_read", "org_app_keys_write", "user_app_keys", "user_access_read")
"""The permissions that the server knows."""


@attrs.frozen
class Operation:
    """What a request can ask for.

    Attributes:
        name: The name of the client's method, such as `get_token`.
        limit: The name of the rate limit that it spends.
        permissions: The permissions of which the keys need one.
    """

    name: str
    limit: str = TOKENS_LIMIT
    permissions: tuple[str, ...] = ()


GET = Operation("get_token", permissions=_READ)
LIST = Operation("list_tokens", permissions=_READ)
CREATE = Operation("create_token", permissions=_WRITE)
UPDATE = Operation("update_token", permissions=_WRITE)
REVOKE = Operation("revoke_token", permissions=_WRITE)
LIST_ORGANIZATION = Operation("list_organization_tokens", ORGANIZATION_LIMIT, ("org_app_keys_read", "user_app_keys"))
LIST_USERS = Operation("list_service_accounts", USERS_LIMIT, ("user_access_read",))
GET_USER = Operation("get_service_account", USERS_LIMIT, ("user_access_read",))
UNKNOWN = Operation("unknown")
"""Any other request. It is answered with 404 and spends the limit of the token operations."""

OPERATIONS = (GET, LIST, CREATE, UPDATE, REVOKE, LIST_ORGANIZATION, LIST_USERS, GET_USER)

# The names of the groups are those of the fields of `Route`.
_ACCOUNT = "(?P<service_account_id>[^/]*)"
_TOKENS = f"service_accounts/{_ACCOUNT}/access_tokens"
_TOKEN = f"{_TOKENS}/(?P<token_id>[^/]*)"
_ROUTES = [
    (method, re.compile(f"/api/v2/{path}"), operation)
    for method, path, operation in (
        ("GET", _TOKEN, GET),
        ("GET", _TOKENS, LIST),
        ("POST", _TOKENS, CREATE),
        ("PATCH", _TOKEN, UPDATE),
        ("DELETE", _TOKEN, REVOKE),
        ("GET", "personal_access_tokens", LIST_ORGANIZATION),
        ("GET", "users", LIST_USERS),
        ("GET", f"users/{_ACCOUNT}", GET_USER),
    )
]


@attrs.frozen
class Route:
    """An operation and the IDs in its path, decoded."""

    operation: Operation
    service_account_id: str | None = None
    token_id: str | None = None


def find_route(method: str, raw_path: str) -> Route:
    """Return the operation that a request asks for, and what it is about.

    Args:
        method: The request's method.
        raw_path: The path as it came. An ID is one segment of it, so the IDs are decoded only after they are found.
    """
    for wanted, pattern, operation in _ROUTES:
        if method == wanted and (match := pattern.fullmatch(raw_path)):
            return Route(operation, **{name: unquote(value) for name, value in match.groupdict().items()})
    return Route(UNKNOWN)
