"""The values of the API: tokens, secrets, rate limits and counters. Immutable, and free of any I/O."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import Any, NoReturn, final

import attrs

LEAK_TYPE = "leaked_keys"
"""The JSON:API type of a leak."""

TOKEN_TYPE = "service_access_tokens"  # noqa: S105 - a type, no secret
"""The JSON:API type of a service access token."""


def _require_aware(_instance: object, attribute: attrs.Attribute[Any], value: datetime | None) -> None:
    if value is not None and value.utcoffset() is None:
        msg = f"{attribute.name} must be timezone-aware, for example datetime.now(UTC)"
        raise ValueError(msg)


def _moment(at: datetime | None) -> datetime:
    if at is None:
        return datetime.now(UTC)
    if at.utcoffset() is None:
        msg = "at must be timezone-aware, for example datetime.now(UTC)"
        raise ValueError(msg)
    return at


@final
class Secret:
    """A value that must not be shown: only `reveal()` returns it.

    `repr`, `str` and `format` show a mask; pickling is refused. Copies are the same object, since it cannot change.
    It is deliberately no attrs class, so that `attrs.asdict` does not look inside.

    Args:
        value: The value to hide.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """Return the secret itself.

        Returns:
            The value in clear text.
        """
        value: str = object.__getattribute__(self, "_value")
        return value

    def __setattr__(self, name: str, value: object) -> NoReturn:
        msg = "a Secret cannot be changed"
        raise AttributeError(msg)

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __str__(self) -> str:
        return "**********"

    def __format__(self, format_spec: str) -> str:
        return format(str(self), format_spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        ours, theirs = (secret.reveal().encode(errors="surrogatepass") for secret in (self, other))
        return compare_digest(ours, theirs)

    def __hash__(self) -> int:
        return hash((Secret, self.reveal()))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        msg = "a Secret cannot be pickled; store the value of reveal() where secrets belong"
        raise TypeError(msg)


@attrs.frozen
class Leak:
    """A place where the key of a token was found in public.

    Raises:
        ValueError: `detected_at` has no timezone.
    """

    id: str
    """The leak's ID. `relationships.leak_information.data.id` of the token."""

    detected_at: datetime | None = attrs.field(default=None, validator=_require_aware)
    """When Datadog found the key; `None` if that was not asked for. `attributes.date` of the resource of type
    `leaked_keys` in `$.included`.
    """

    source: str | None = None
    """Where the key was found; `None` if that is not known or was not asked for. `attributes.leak_source` of the same
    resource.
    """


@attrs.frozen(kw_only=True)
class ServiceAccount:
    """A service account: a user that is no person and owns tokens.

    The paths below are relative to the JSON:API resource object (`$.data` of an answer).
    Source: https://docs.datadoghq.com/api/latest/users/

    Raises:
        ValueError: `created_at` has no timezone.
    """

    id: str
    """Its ID. `id`."""

    name: str | None = None
    """Its name. `attributes.name`."""

    email: str | None = None
    """The address for notifications. `attributes.email`."""

    handle: str | None = None
    """Its handle; for a service account usually its ID. `attributes.handle`."""

    disabled: bool | None = None
    """Whether it is disabled: then its tokens do not work. `attributes.disabled`."""

    status: str | None = None
    """Its status, such as `Active`. `attributes.status`."""

    created_at: datetime | None = attrs.field(default=None, validator=_require_aware)
    """When it was made, timezone-aware. `attributes.created_at`."""


@attrs.frozen(kw_only=True)
class AccessToken:
    """A service access token as the API describes it; never its secret.

    Flat on purpose. The paths below are relative to the JSON:API resource object (`$.data` of an answer).
    Source: https://docs.datadoghq.com/api/latest/service-accounts/

    All datetimes are timezone-aware, to the microsecond (the API may send nanoseconds; the rest is cut off).

    Raises:
        ValueError: A datetime without a timezone was given.
    """

    id: str
    """The token's ID. `id`."""

    name: str | None = None
    """The name given at its creation. `attributes.name`."""

    public_portion: str | None = None
    """The part of the key that may be shown, such as `ddsat_0KHCgRdjSyb8EMXtz1E5Cp`. `attributes.public_portion`."""

    scopes: tuple[str, ...] = ()
    """The permissions granted to the token, such as `dashboards_read`. `attributes.scopes`."""

    created_at: datetime | None = attrs.field(default=None, validator=_require_aware)
    """When the token was made. `attributes.created_at`."""

    modified_at: datetime | None = attrs.field(default=None, validator=_require_aware)
    """When name or scopes last changed; `None` until the first update. `attributes.modified_at`."""

    last_used_at: datetime | None = attrs.field(default=None, validator=_require_aware)
    """When a request last used the token; `None` if never. `attributes.last_used_at`."""

    expires_at: datetime | None = attrs.field(default=None, validator=_require_aware)
    """When the token stops working; `None` if never. `attributes.expires_at`."""

    service_account_id: str | None = None
    """The service account that owns it. `relationships.owned_by.data.id`."""

    type: str = TOKEN_TYPE
    """The JSON:API resource type. `type`."""

    leak: Leak | None = None
    """Where the key was found in public; `None` if it is not known to be leaked.
    `relationships.leak_information.data`.
    """

    def is_expired(self, at: datetime | None = None) -> bool:
        """Return whether the token no longer works.

        Args:
            at: The moment to look from, timezone-aware; now by default.

        Returns:
            True from the very moment of `expires_at` on; False for a token that never expires.

        Raises:
            ValueError: `at` has no timezone.
        """
        at = _moment(at)
        return self.expires_at is not None and self.expires_at <= at

    def expires_within(self, span: timedelta, at: datetime | None = None) -> bool:
        """Return whether the token still works but stops working within a span of time.

        Args:
            span: How far to look ahead; its end is included.
            at: The moment to look from, timezone-aware; now by default.

        Returns:
            False for a token that has already expired (see `is_expired`) or never does.

        Raises:
            ValueError: `at` has no timezone.
        """
        at = _moment(at)
        return self.expires_at is not None and at < self.expires_at and self.expires_at - at <= span

    @property
    def never_used(self) -> bool:
        """Whether the token has never been used."""
        return self.last_used_at is None


@attrs.frozen
class CreatedToken:
    """A new token with its secret, which the API gives only once."""

    token: AccessToken
    """The token as any later get would describe it."""

    key: Secret
    """The secret to authenticate with. The API does not give it again."""


@attrs.frozen
class RateLimit:
    """A rate limit as the headers describe it. Any part may be unknown.

    Source: https://docs.datadoghq.com/api/latest/rate-limits/
    """

    limit: int | None = None
    """Requests allowed in a period. `X-RateLimit-Limit`."""

    period: float | None = None
    """Length of the period in seconds, calendar-aligned. `X-RateLimit-Period`."""

    remaining: int | None = None
    """Requests left in the current period. `X-RateLimit-Remaining`."""

    reset: float | None = None
    """Seconds until the next period begins. `X-RateLimit-Reset`."""

    name: str | None = None
    """The limit's name, to quote when asking for an increase. `X-RateLimit-Name`."""


@attrs.frozen(kw_only=True)
class Attempt:
    """One request of a call and what came of it: what `on_attempt` is called with. It holds no secret."""

    operation: str
    """The request's own: `list_tokens` inside a `get_tokens` that reads the list."""
    service_account_id: str | None = None
    """The service account that the request is about, if it is about one."""
    token_id: str | None = None
    """The token that the request is about, if it is about one."""
    number: int = 1
    """Its number among the attempts of its call, from 1."""

    status: int | None = None
    """The answer's HTTP status; `None` if no answer came."""

    error: str | None = None
    """The name of the error's class, such as `NotFoundError`, or `CancelledError`; `None` for a success."""

    seconds: float = 0.0
    """Seconds that it took to connect, send, read and decode the answer."""

    waited: float = 0.0
    """Seconds that it waited for the rate limit before; not part of `seconds`."""

    rate_limit: RateLimit | None = None
    """What the answer's rate-limit headers said; `None` if there were none."""


@attrs.frozen(kw_only=True)
class ClientStats:
    """What a client has done so far."""

    requests: int = 0
    """Requests sent, retries included."""

    retries: int = 0
    """Requests that were sent again after a failure."""

    rate_limited: int = 0
    """429s received."""

    rate_limit_wait_seconds: float = 0.0
    """Time that calls spent waiting for the rate limit, added up over all calls, in seconds."""
