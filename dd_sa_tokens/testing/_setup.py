"""From the arguments of `FakeDatadog` to what the server holds."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from typing import get_args

import attrs

from dd_sa_tokens.models import AccessToken

from ._accounts import Accounts
from ._checks import MAX_SECONDS, check, check_names, check_tokens, is_rate_limit, is_seconds, is_whole
from ._fixed_window import FixedWindow, Rounding
from ._organization import Organization
from ._records import PERSONAL_TYPE
from ._routes import LIMITS, PERMISSIONS
from ._sample_tokens import sample_key, sample_tokens, uuid
from ._sample_users import sample_personal_tokens, sample_roles, sample_users
from ._users import Users

_ROUNDINGS = get_args(Rounding)
_MAX_PORT = 65535


def _read_permissions(permissions: Collection[str]) -> frozenset[str]:
    return check_names("permissions", permissions, PERMISSIONS)


@attrs.frozen(kw_only=True)
class Settings:
    """The arguments of `FakeDatadog` but for the tokens.

    Raises:
        InvalidArgumentError: An argument is out of range.
    """

    accounts: int
    users: int
    permissions: frozenset[str] = attrs.field(converter=_read_permissions)
    rate_limit: tuple[int, float] | None
    rate_limit_used: int
    latency: float
    seed: int
    reset_rounding: Rounding
    clock_offset: float
    port: int

    def __attrs_post_init__(self) -> None:
        a_limit, a_count = "None, or requests (at least 1) and seconds (at least 0.001)", "a whole number of at least 0"
        check("accounts", is_whole(self.accounts, 1), "a whole number of at least 1", self.accounts)
        check("users", is_whole(self.users), a_count, self.users)
        check("rate_limit", is_rate_limit(self.rate_limit), a_limit, self.rate_limit)
        check("rate_limit_used", is_whole(self.rate_limit_used), a_count, self.rate_limit_used)
        check("latency", is_seconds(self.latency), "seconds, at least 0", self.latency)
        check("seed", is_whole(self.seed), a_count, self.seed)
        rounding, offset = self.reset_rounding, self.clock_offset
        check("reset_rounding", rounding in _ROUNDINGS, f"one of {', '.join(_ROUNDINGS)}", rounding)
        check("clock_offset", is_seconds(offset, -MAX_SECONDS), "seconds, at most 1e9", offset)
        check("port", is_whole(self.port) and self.port <= _MAX_PORT, f"a number from 0 to {_MAX_PORT}", self.port)

    def windows(self) -> dict[str, FixedWindow]:
        """Return a window for each rate limit, by its name; none if there is no limit."""
        if self.rate_limit is None:
            return {}
        return {name: FixedWindow(*self.rate_limit, self.reset_rounding, self.rate_limit_used, name) for name in LIMITS}


@attrs.frozen(repr=False)
class Keys:
    """The keys that are valid from the start."""

    api_key: str
    app_key: str
    access_token: str


def make_organization(tokens: int | Iterable[AccessToken], settings: Settings) -> tuple[Keys, Organization]:
    """Return the keys and the organization.

    Everything but the first account's tokens comes from random generators of its own, so that these tokens are the
    same for any number of accounts and users.

    Args:
        tokens: How many sample tokens each service account has, or the tokens to hold.
        settings: The other arguments.

    Raises:
        InvalidArgumentError: The tokens are invalid, or an account has two tokens of the same ID.
    """
    rng, account_rng, leaks, user_rng, personal = _generators(settings.seed)
    first_id = uuid(rng)
    keys = Keys(f"{rng.getrandbits(128):032x}", f"{rng.getrandbits(160):040x}", sample_key(rng))
    more_ids = [uuid(account_rng) for _ in range(settings.accounts - 1)]
    if isinstance(tokens, int):
        check("tokens", is_whole(tokens), "a whole number of at least 0, or AccessTokens", tokens)
        held = sample_tokens(tokens, rng, leaks)
        for account_id in more_ids:
            more = sample_tokens(tokens, account_rng, leaks)
            held += [attrs.evolve(token, service_account_id=account_id) for token in more]
    else:
        held = check_tokens(tokens)
    account_ids = _account_ids(held, first_id, more_ids, settings.accounts)
    people = [uuid(user_rng) for _ in range(settings.users)]
    accounts = Accounts(account_ids, rng)
    for token in _mixed(held, sample_personal_tokens(people, personal)):
        accounts.add(token)
    users = Users(sample_users(people, account_ids, user_rng), sample_roles(user_rng), uuid(user_rng))
    return keys, Organization(accounts, users, people, settings.permissions)


def _generators(seed: int) -> tuple[random.Random, ...]:
    names = ("accounts", "leaks", "users", "personal tokens")
    seeds: list[int | str] = [seed, *(f"{name} of {seed}" for name in names)]
    return tuple(random.Random(each) for each in seeds)  # noqa: S311 - sample data


def _account_ids(held: Iterable[AccessToken], first_id: str, more_ids: Iterable[str], number: int) -> list[str]:
    """Return the accounts' IDs: those that the tokens name in their order, then sample ones up to the number."""
    owners = [token.service_account_id for token in held if token.type != PERSONAL_TYPE]
    default_id = (owners[0] if owners else None) or first_id
    named = dict.fromkeys([default_id, *(owner or default_id for owner in owners)])
    for account_id in more_ids:
        if len(named) < number:
            named[account_id] = None
    return [*named]


def _mixed(held: list[AccessToken], personal: list[AccessToken]) -> list[AccessToken]:
    """Spread the personal tokens evenly among the others, so that they are on different pages of a long list."""
    mixed = list(held)
    step = len(held) // (len(personal) + 1)
    for place, token in enumerate(personal, 1):
        mixed.insert(place * (step + 1) - 1, token)
    return mixed
