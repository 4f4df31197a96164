"""Service accounts and the organization's tokens in memory, and what the API does with them. No I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import count as counter
from typing import Any

import attrs

from dd_sa_tokens.models import AccessToken, Leak

from ._answers import Answer, RefusedError, encode
from ._checks import check
from ._queries import Query, Selections, read_include
from ._records import PERSONAL_TYPE, Record, included, moment
from ._request_bodies import read_create, read_update
from ._sample_tokens import sample_key, uuid
from ._token_queries import TokensQuery


class Accounts:
    """Service accounts by their IDs, each with its tokens in the order in which they were given or created.

    The server's time is an argument, in seconds since the epoch.

    Args:
        account_ids: The IDs of the accounts. The first is the default one, which owns the tokens that name no owner.
        rng: Chooses the IDs and keys of the tokens that are created.
    """

    def __init__(self, account_ids: Iterable[str], rng: random.Random) -> None:
        self._rng = rng
        self._accounts: dict[str, dict[str, Record]] = {account_id: {} for account_id in account_ids}
        self._personal: list[Record] = []
        self._keyed: dict[str, Record] = {}
        self._places = counter()
        self._selections: Selections[Record] = Selections()

    # ---- What the accounts hold

    def add(self, token: AccessToken) -> Record:
        """Add a token of a service account, or a personal token, which belongs to a user.

        Raises:
            InvalidArgumentError: The service account has another token of the same ID.
        """
        owner = token.service_account_id or self.account_ids[0]
        # As a get without include=leak_information shows it, so that tests can compare the two.
        plain = attrs.evolve(token, service_account_id=owner, leak=token.leak and Leak(token.leak.id))
        record = Record(plain, next(self._places), token.leak)
        if token.type == PERSONAL_TYPE:
            self._personal.append(record)
        else:
            account = self._accounts.setdefault(owner, {})
            check("tokens", token.id not in account, "of different IDs within a service account", token.id)
            account[token.id] = record
        self._selections.forget()
        return record

    @property
    def account_ids(self) -> list[str]:
        """The IDs of the accounts, the default one first."""
        return [*self._accounts]

    def tokens(self) -> tuple[AccessToken, ...]:
        """Return the tokens of all accounts, without the personal ones."""
        return tuple(record.token for record in self._in_order(self._of_accounts()))

    def token_ids(self) -> list[str]:
        """Return the IDs of the tokens of the default account."""
        return [*self._accounts[self.account_ids[0]]]

    def leaks(self) -> dict[str, Leak]:
        """Return the leaks of the accounts' tokens by the IDs of the tokens."""
        return {record.token.id: record.leak for record in self._of_accounts() if record.leak is not None}

    def admits(self, key: str, now: float) -> bool:
        """Return whether a key belongs to a token that was created here and is neither revoked nor expired."""
        record = self._keyed.get(key)
        return record is not None and not record.token.is_expired(moment(now))

    # ---- What the API does with them

    def get_token(self, account_id: str, token_id: str, query: Query = ()) -> Answer:
        """Answer with a token.

        Raises:
            RefusedError: There is no such token, or the query is not what the API documents.
        """
        record = self._find(account_id, token_id)
        include_leak = read_include(query)
        data = b'"data":%b' % record.encoded(include_leak=include_leak)
        return 200, b'{%b,"included":%b}' % (data, included([record])) if include_leak else b"{%b}" % data

    def create_token(self, account_id: str, body: bytes, now: float) -> Answer:
        """Create a token, and answer with it and its key.

        Raises:
            RefusedError: There is no such account, or the body is not what the API documents.
        """
        account_id = _known_id(account_id, self._accounts)
        account, created_at = self._accounts[account_id], moment(now)
        attributes = read_create(body, created_at)
        token_id, key = uuid(self._rng), sample_key(self._rng)
        while token_id in account:  # the given tokens may come from another server of the same seed
            token_id = uuid(self._rng)
        record = self.add(
            AccessToken(
                id=token_id,
                public_portion=key.rpartition("_")[0],
                created_at=created_at,
                service_account_id=account_id,
                **attributes,
            )
        )
        record.key = key
        self._keyed[key] = record
        return 201, encode({"data": self._resource_of_create(record, key)})

    def update_token(self, account_id: str, token_id: str, body: bytes, now: float) -> Answer:
        """Change a token, and answer with it.

        Raises:
            RefusedError: There is no such token, or the body is not what the API documents.
        """
        record = self._find(account_id, token_id)
        record.change(moment(now), **read_update(body, token_id))
        self._selections.forget()
        return self.get_token(account_id, token_id)

    def revoke_token(self, account_id: str, token_id: str) -> Answer:
        """Remove a token.

        Raises:
            RefusedError: There is no such token.
        """
        record = self._find(account_id, token_id)
        del self._find_account(account_id)[record.token.id]
        if record.key is not None:
            del self._keyed[record.key]
        self._selections.forget()
        return 204, b""

    def list_tokens(self, account_id: str, query: Query) -> Answer:
        """Answer with a page of an account's tokens.

        Raises:
            RefusedError: There is no such account, or the query is not what the API documents.
        """
        account = self._find_account(account_id)
        return self._page(account_id, account.values, query)

    def list_organization_tokens(self, query: Query, only_owner: str | None = None) -> Answer:
        """Answer with a page of the organization's tokens, personal ones among them.

        Args:
            query: What is asked for.
            only_owner: The user whose tokens the keys may see; `None` if they may see all.

        Raises:
            RefusedError: The query is not what the API documents.
        """

        def records() -> list[Record]:
            ordered = self._in_order([*self._of_accounts(), *self._personal])
            return [record for record in ordered if only_owner in {None, record.token.service_account_id}]

        return self._page(("organization", only_owner), records, query)

    def _page(self, scope: Hashable, records: Callable[[], Iterable[Record]], query: Query) -> Answer:
        wanted = TokensQuery.read(query)
        found = self._selections.get((scope, wanted.selection), lambda: wanted.select(records()))
        page = wanted.page.of(found)
        data = b",".join([record.encoded(include_leak=wanted.include_leak) for record in page])
        leaks = b',"included":%b' % included(page) if wanted.include_leak else b""
        return 200, b'{"data":[%b],"meta":{"page":{"total_filtered_count":%d}}%b}' % (data, len(found), leaks)

    # ---- Helpers

    def _of_accounts(self) -> Iterator[Record]:
        return (record for account in self._accounts.values() for record in account.values())

    @staticmethod
    def _in_order(records: Iterable[Record]) -> list[Record]:
        return sorted(records, key=lambda record: record.place)

    def _find_account(self, account_id: str) -> dict[str, Record]:
        return self._accounts[_known_id(account_id, self._accounts)]

    def _find(self, account_id: str, token_id: str) -> Record:
        account = self._find_account(account_id)
        return account[_known_id(token_id, account)]

    def _resource_of_create(self, record: Record, key: str) -> dict[str, Any]:
        """Describe a new token as only a create does: with its key, and to the nanosecond."""
        resource = record.resource()
        attributes = resource["attributes"]
        del attributes["last_used_at"]
        assert record.token.created_at is not None
        microseconds = record.token.created_at.strftime("%Y-%m-%dT%H:%M:%S.%f")
        attributes["created_at"] = f"{microseconds}{self._rng.randrange(1000):03d}Z"
        attributes["key"] = key
        return resource


def _known_id(asked: str, items: Mapping[str, object]) -> str:
    """Return the ID under which an item is kept: UUIDs have no case.

    Raises:
        RefusedError: There is no such item.
    """
    for item_id in (asked, asked.lower()):
        if item_id in items:
            return item_id
    raise RefusedError(404)
