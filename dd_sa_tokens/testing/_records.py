"""A token in the server's memory, and its JSON:API resource object."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import attrs

from dd_sa_tokens.models import AccessToken, Leak

from ._answers import encode

PERSONAL_TYPE = "personal_access_tokens"


@attrs.define(eq=False)
class Record:
    """A token as the server holds it.

    Attributes:
        token: The token. Its owner is a user if its type is `personal_access_tokens`.
        place: Its position among all tokens of the organization, in the order in which they were made.
        leak: Where its key was found in public, if it was.
        key: Its secret, if it was created over HTTP.
    """

    token: AccessToken
    place: int
    leak: Leak | None = None
    key: str | None = attrs.field(default=None, repr=False)
    _encoded: dict[bool, bytes] = attrs.field(factory=dict[bool, bytes], init=False, repr=False)

    def encoded(self, *, include_leak: bool = False) -> bytes:
        """Return its resource object as JSON.

        Args:
            include_leak: Whether the request asks for `include=leak_information`. If so, a token that is not leaked
                has the relationship, too: null. Otherwise only leaked tokens have it.
        """
        if include_leak not in self._encoded:
            self._encoded[include_leak] = encode(self.resource(include_leak=include_leak))
        return self._encoded[include_leak]

    def change(self, now: datetime, **attributes: Any) -> None:
        """Change attributes of the token, and note when."""
        self.token = attrs.evolve(self.token, modified_at=now, **attributes)
        self._encoded.clear()

    def resource(self, *, include_leak: bool = False) -> dict[str, Any]:
        """Return its resource object. It is written here, not by the client's code, which the server is there to test.

        `modified_at` is missing until the first update, as in the recorded answers. `last_used_at` and `expires_at`
        are null if there is none.
        """
        token, leak = self.token, self.leak
        optional = {
            "created_at": _iso(token.created_at),
            "modified_at": _iso(token.modified_at),
            "name": token.name,
            "public_portion": token.public_portion,
        }
        attributes: dict[str, Any] = {name: value for name, value in optional.items() if value is not None}
        attributes |= {
            "expires_at": _iso(token.expires_at),
            "last_used_at": _iso(token.last_used_at),
            "scopes": list(token.scopes),
        }
        owner_type = "users" if token.type == PERSONAL_TYPE else "service_account"
        relationships: dict[str, Any] = {"owned_by": {"data": {"id": token.service_account_id, "type": owner_type}}}
        if leak is not None or include_leak:
            data = None if leak is None else {"id": leak.id, "type": "leaked_keys"}
            relationships["leak_information"] = {"data": data}
        return {"id": token.id, "type": token.type, "attributes": attributes, "relationships": relationships}


def included(records: Iterable[Record]) -> bytes:
    """Return the `included` array of an answer with leak information: a `leaked_keys` resource for each leak.

    A leak whose date is not known has no resource there: the API's resource always has a date.
    """
    leaks = [record.leak for record in records if record.leak is not None and record.leak.detected_at is not None]
    return encode([_leak_resource(leak) for leak in leaks])


def _leak_resource(leak: Leak) -> dict[str, Any]:
    attributes = {"date": _iso(leak.detected_at)} | ({} if leak.source is None else {"leak_source": leak.source})
    return {"id": leak.id, "type": "leaked_keys", "attributes": attributes}


def moment(now: float) -> datetime:
    """Return a time in seconds since the epoch as a datetime in UTC."""
    return datetime.fromtimestamp(now, UTC)


def _iso(at: datetime | None) -> str | None:
    if at is None:
        return None
    text = at.isoformat()
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text
