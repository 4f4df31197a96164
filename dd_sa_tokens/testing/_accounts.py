"""Service accounts and their tokens in memory, and what the API does with them. No I/O."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import count as counter
from typing import Any

import attrs

from dd_sa_tokens._codec import converter
from dd_sa_tokens.models import AccessToken

from ._answers import Answer, RefusedError
from ._checks import check
from ._request_bodies import read_create, read_update
from ._sample_tokens import sample_key, uuid

_LARGEST_PAGE = 100
_SORTS = ("name", "created_at", "expires_at", "last_used_at")


@attrs.define(eq=False)
class _Record:
    """A token, its resource object ready to be sent, its place among all tokens, and its key if it was made here."""

    token: AccessToken
    resource: bytes
    place: int
    key: str | None = attrs.field(default=None, repr=False)


class Accounts:
    """Service accounts by their IDs, each with its tokens in the order in which they were given or made.

    The server's time comes in as seconds since the epoch.

    Args:
        default: The ID of the account that is always there, and owns the tokens that name no other.
        rng: Chooses the IDs and keys of the tokens that are made.
    """

    def __init__(self, default: str, rng: random.Random) -> None:
        self._default = default
        self._rng = rng
        self._accounts: dict[str, dict[str, _Record]] = {default: {}}
        self._keyed: dict[str, _Record] = {}
        self._places = counter()

    def hold(self, token: AccessToken) -> None:
        """Take a token in.

        Raises:
            InvalidArgumentError: Its service account has one of the same ID.
        """
        owner = token.service_account_id or self._default
        account = self._accounts.setdefault(owner, {})
        check("tokens", token.id not in account, "of different IDs within a service account", token.id)
        token = attrs.evolve(token, service_account_id=owner)
        account[token.id] = _Record(token, _encoded(converter.unstructure(token)), next(self._places))

    def tokens(self) -> tuple[AccessToken, ...]:
        """Return the tokens of all accounts."""
        record = [record for account in self._accounts.values() for record in account.values()]
        return tuple(record.token for record in sorted(record, key=lambda record: record.place))

    def token_ids(self) -> list[str]:
        """Name the tokens of the default account."""
        return [*self._accounts[self._default]]

    def admits(self, key: str, now: float) -> bool:
        """Tell whether it is the key of a token that was made here, and neither revoked nor expired since."""
        record = self._keyed.get(key)
        return record is not None and not record.token.is_expired(_moment(now))

    def get(self, account_id: str, token_id: str) -> Answer:
        """Answer with a token.

        Raises:
            RefusedError: There is no such token.
        """
        return 200, b'{"data":%b}' % self._find(account_id, token_id).resource

    def create(self, account_id: str, body: bytes, now: float) -> Answer:
        """Make a token, and answer with it and its key.

        Raises:
            RefusedError: There is no such account, or the body is not what the API documents.
        """
        account = self._find_account(account_id)
        created_at = _moment(now)
        attributes = read_create(body, created_at)
        token_id, key = uuid(self._rng), sample_key(self._rng)
        while token_id in account:  # the tokens at the start may come from another server of the same seed
            token_id = uuid(self._rng)
        self.hold(
            AccessToken(
                id=token_id,
                public_portion=key.rpartition("_")[0],
                created_at=created_at,
                service_account_id=account_id,
                **attributes,
            )
        )
        record = account[token_id]
        record.key = key
        self._keyed[key] = record
        return 201, _encoded({"data": self._introduced(record.token, key)})

    def update(self, account_id: str, token_id: str, body: bytes, now: float) -> Answer:
        """Change a token, and answer with it.

        Raises:
            RefusedError: There is no such token, or the body is not what the API documents.
        """
        record = self._find(account_id, token_id)
        record.token = attrs.evolve(record.token, modified_at=_moment(now), **read_update(body, token_id))
        record.resource = _encoded(converter.unstructure(record.token))
        return self.get(account_id, token_id)

    def revoke(self, account_id: str, token_id: str) -> Answer:
        """Forget a token.

        Raises:
            RefusedError: There is no such token.
        """
        record = self._find(account_id, token_id)
        del self._accounts[account_id][token_id]
        if record.key is not None:
            del self._keyed[record.key]
        return 204, b""

    def list(self, account_id: str, query: Mapping[str, str]) -> Answer:
        """Answer with a page of an account's tokens.

        Raises:
            RefusedError: There is no such account, or the query is not what the API documents.
        """
        account = self._find_account(account_id)
        size, number = _whole(query.get("page[size]", "10")), _whole(query.get("page[number]", "0"))
        sort = query.get("sort")
        if size is None or not 1 <= size <= _LARGEST_PAGE:
            raise RefusedError(400, f"page[size] must be a whole number from 1 to {_LARGEST_PAGE}")
        if number is None:
            raise RefusedError(400, "page[number] must be a whole number of at least 0")
        if sort is not None and sort.removeprefix("-") not in _SORTS:
            raise RefusedError(400, f"sort must be {', '.join(_SORTS)}, or one of them after a -")
        found = _filtered(account.values(), query.get("filter", ""))
        page = _sorted(found, sort)[number * size : (number + 1) * size]
        resources = b",".join([record.resource for record in page])
        return 200, b'{"data":[%b],"meta":{"page":{"total_filtered_count":%d}}}' % (resources, len(found))

    def _find_account(self, account_id: str) -> dict[str, _Record]:
        account = self._accounts.get(account_id)
        if account is None:
            raise RefusedError(404)
        return account

    def _find(self, account_id: str, token_id: str) -> _Record:
        record = self._find_account(account_id).get(token_id)
        if record is None:
            raise RefusedError(404)
        return record

    def _introduced(self, token: AccessToken, key: str) -> dict[str, Any]:
        """Describe a new token as only a create does: with its key, and to the nanosecond."""
        resource: dict[str, Any] = converter.unstructure(token)
        attributes = resource["attributes"]
        del attributes["last_used_at"]
        assert token.created_at is not None
        microseconds = token.created_at.strftime("%Y-%m-%dT%H:%M:%S.%f")
        attributes["created_at"] = f"{microseconds}{self._rng.randrange(1000):03d}Z"
        attributes["key"] = key
        return resource


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def _encoded(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _filtered(account: Iterable[_Record], text: str) -> list[_Record]:
    wanted = text.casefold()
    return [record for record in account if not wanted or wanted in (record.token.name or "").casefold()]


def _sorted(account: list[_Record], sort: str | None) -> list[_Record]:
    """Sort by an attribute, downwards after a `-`; tokens without it come last either way."""
    if sort is None:
        return account
    name = sort.removeprefix("-")
    known = [record for record in account if getattr(record.token, name) is not None]
    known.sort(key=lambda record: getattr(record.token, name), reverse=name != sort)
    return known + [record for record in account if getattr(record.token, name) is None]
