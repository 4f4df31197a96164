"""Service accounts and their tokens in memory, and what the API does with them. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count as counter

import attrs

from dd_sa_tokens._codec import converter
from dd_sa_tokens.models import AccessToken

from ._answers import Answer, error
from ._checks import check

_LARGEST_PAGE = 100
_SORTS = ("name", "created_at", "expires_at", "last_used_at")


@attrs.frozen
class _Held:
    """A token, its resource object ready to be sent, and its place among all tokens."""

    token: AccessToken
    resource: bytes
    place: int


class Accounts:
    """Service accounts by their IDs, each with its tokens in the order in which they were given or made.

    Args:
        default: The ID of the account that is always there, and owns the tokens that name no other.
    """

    def __init__(self, default: str) -> None:
        self._default = default
        self._accounts: dict[str, dict[str, _Held]] = {default: {}}
        self._places = counter()

    def hold(self, token: AccessToken) -> None:
        owner = token.service_account_id or self._default
        account = self._accounts.setdefault(owner, {})
        check("tokens", token.id not in account, "of different IDs within a service account", token.id)
        token = attrs.evolve(token, service_account_id=owner)
        resource = json.dumps(converter.unstructure(token), ensure_ascii=False, separators=(",", ":"))
        account[token.id] = _Held(token, resource.encode(), next(self._places))

    def tokens(self) -> tuple[AccessToken, ...]:
        held = [held for account in self._accounts.values() for held in account.values()]
        return tuple(held.token for held in sorted(held, key=lambda held: held.place))

    def token_ids(self) -> list[str]:
        """Name the tokens of the default account."""
        return [*self._accounts[self._default]]

    def get(self, account_id: str, token_id: str) -> Answer:
        held = self._accounts.get(account_id, {}).get(token_id)
        return error(404) if held is None else (200, b'{"data":%b}' % held.resource)

    def list(self, account_id: str, query: Mapping[str, str]) -> Answer:
        account = self._accounts.get(account_id)
        if account is None:
            return error(404)
        size, number = _whole(query.get("page[size]", "10")), _whole(query.get("page[number]", "0"))
        sort = query.get("sort")
        if size is None or not 1 <= size <= _LARGEST_PAGE:
            return error(400, f"page[size] must be a whole number from 1 to {_LARGEST_PAGE}")
        if number is None:
            return error(400, "page[number] must be a whole number of at least 0")
        if sort is not None and sort.removeprefix("-") not in _SORTS:
            return error(400, f"sort must be {', '.join(_SORTS)}, or one of them after a -")
        found = _filtered(account.values(), query.get("filter", ""))
        page = _sorted(found, sort)[number * size : (number + 1) * size]
        resources = b",".join([held.resource for held in page])
        return 200, b'{"data":[%b],"meta":{"page":{"total_filtered_count":%d}}}' % (resources, len(found))


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _filtered(account: Iterable[_Held], text: str) -> list[_Held]:
    wanted = text.casefold()
    return [held for held in account if not wanted or wanted in (held.token.name or "").casefold()]


def _sorted(account: list[_Held], sort: str | None) -> list[_Held]:
    """Sort by an attribute, downwards after a `-`; tokens without it come last either way."""
    if sort is None:
        return account
    name = sort.removeprefix("-")
    known = [held for held in account if getattr(held.token, name) is not None]
    known.sort(key=lambda held: getattr(held.token, name), reverse=name != sort)
    return known + [held for held in account if getattr(held.token, name) is None]
