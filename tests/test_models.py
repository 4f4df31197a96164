"""The values: what an auditor asks of a token, and a secret that does not show."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dd_sa_tokens import AccessToken, ClientStats, CreatedToken, RateLimit, Secret

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CANARY = "ddsat_canary_7Qm2Wc9RkLx4TfYb1NsVdP"

secrets = st.text(min_size=12, alphabet="abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789").map(
    "ddsat_".__add__
)


def token(**fields: object) -> AccessToken:
    return AccessToken(id="t1", **fields)


class Offsetless(tzinfo):
    """A timezone that knows no offset: Python takes such datetimes for naive."""

    def utcoffset(self, dt: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


@pytest.mark.parametrize(
    ("expires_at", "expired"),
    [
        (None, False),
        (NOON - timedelta(microseconds=1), True),
        (NOON, True),
        (NOON + timedelta(microseconds=1), False),
        (datetime(2026, 6, 1, 13, 59, 59, tzinfo=timezone(timedelta(hours=2))), True),
        (datetime.min.replace(tzinfo=UTC), True),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=23))), False),
    ],
)
def test_token_is_expired_from_the_moment_of_its_expiry_on(expires_at: datetime | None, expired: bool) -> None:
    """A token works until just before `expires_at`, with any UTC offset, and for ever without one."""
    assert token(expires_at=expires_at).is_expired(NOON) is expired


@pytest.mark.parametrize(
    ("expires_at", "within"),
    [
        (None, False),
        (NOON - SECOND, False),
        (NOON, False),
        (NOON + timedelta(microseconds=1), True),
        (NOON + timedelta(days=7), True),
        (NOON + timedelta(days=7, microseconds=1), False),
    ],
)
def test_token_expires_within_a_span_that_includes_its_end(expires_at: datetime | None, within: bool) -> None:
    """What has expired already, or never does, does not expire within the next week."""
    assert token(expires_at=expires_at).expires_within(timedelta(days=7), NOON) is within


def test_helpers_look_from_now_by_default() -> None:
    """Without `at` the helpers take the present, which is between a minute ago and in a minute."""
    past, future = datetime.now(UTC) - 60 * SECOND, datetime.now(UTC) + 60 * SECOND
    assert token(expires_at=past).is_expired()
    assert not token(expires_at=future).is_expired()
    assert token(expires_at=future).expires_within(61 * SECOND)
    assert not token(expires_at=future).expires_within(50 * SECOND)
    assert not token(expires_at=past).expires_within(61 * SECOND)


@pytest.mark.parametrize(("last_used_at", "never"), [(None, True), (NOON, False)])
def test_never_used_is_a_missing_last_use(last_used_at: datetime | None, never: bool) -> None:
    """A token without a last use has never signed a request."""
    assert token(last_used_at=last_used_at).never_used is never


@pytest.mark.parametrize("field", ["created_at", "modified_at", "last_used_at", "expires_at"])
def test_naive_datetimes_are_refused_by_name(field: str) -> None:
    """A datetime of a token always has an offset, so one without is refused where it is put in."""
    with pytest.raises(ValueError, match=f"{field} must be timezone-aware"):
        token(**{field: datetime(2026, 6, 1)})


def test_datetimes_whose_timezone_has_no_offset_are_refused() -> None:
    """A tzinfo without an offset makes a naive datetime too, which could not be compared later."""
    with pytest.raises(ValueError, match="expires_at must be timezone-aware"):
        token(expires_at=datetime(2026, 6, 1, tzinfo=Offsetless()))


@pytest.mark.parametrize("ask", ["is_expired", "expires_within"])
def test_naive_moments_are_refused(ask: str) -> None:
    """A helper that is asked about a naive moment says so instead of failing in a comparison."""
    naive = datetime(2026, 6, 1)
    arguments = (naive,) if ask == "is_expired" else (SECOND, naive)
    with pytest.raises(ValueError, match="at must be timezone-aware"):
        getattr(token(expires_at=NOON), ask)(*arguments)
    with pytest.raises(ValueError, match="at must be timezone-aware"):
        getattr(token(expires_at=None), ask)(*arguments)


@pytest.mark.parametrize(
    "value",
    [token(expires_at=NOON), CreatedToken(token(), Secret(CANARY)), RateLimit(limit=1), ClientStats(), Secret(CANARY)],
    ids=lambda value: type(value).__name__,
)
def test_values_are_frozen_and_slotted(value: object) -> None:
    """No attribute of a value can be changed or added, and values can be put into sets."""
    for name in ("id", "token", "limit", "requests", "_value", "something_new"):
        with pytest.raises(AttributeError):
            setattr(value, name, "x")
    assert not hasattr(value, "__dict__")
    assert len({value, copy.copy(value), copy.deepcopy(value)}) == 1


@pytest.mark.parametrize("value", [token(scopes=("a", "b"), expires_at=NOON), RateLimit(5, 10.0, 4, 3.0, "n")])
def test_values_without_a_secret_pickle(value: object) -> None:
    """Tokens and rate limits can be sent to another process."""
    assert pickle.loads(pickle.dumps(value)) == value


def test_a_bare_token_has_the_documented_defaults() -> None:
    """Everything but the ID may be missing from an answer."""
    assert token() == AccessToken(
        id="t1",
        name=None,
        public_portion=None,
        scopes=(),
        created_at=None,
        modified_at=None,
        last_used_at=None,
        expires_at=None,
        service_account_id=None,
        type="service_access_tokens",
    )


def test_a_new_client_has_done_nothing() -> None:
    """All counters begin at zero."""
    assert attrs.astuple(ClientStats()) == (0, 0, 0, 0.0)


@given(secrets)
def test_secret_shows_only_when_revealed(value: str) -> None:
    """No usual way of looking at a secret, or at what holds it, gives it away."""
    secret = Secret(value)
    created = CreatedToken(token(), secret)
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%s %r %s", (secret, secret, created), None)
    looks = [
        repr(secret),
        str(secret),
        ascii(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{secret:>40}",
        f"{secret:.3}",
        f"{secret}",
        "%s|%r|%a" % (secret, secret, secret),  # noqa: UP031 - one of the ways to format
        f"{format(secret)}",
        repr(created),
        str(created),
        repr([secret]),
        repr({"key": secret}),
        pprint.pformat(created),
        repr(attrs.asdict(created)),
        repr(attrs.astuple(created)),
        repr(attrs.asdict(created, recurse=False)),
        repr(copy.copy(secret)),
        repr(copy.deepcopy(created)),
        record.getMessage(),
    ]
    for look in looks:
        assert not any(value[i : i + 8] in look for i in range(len(value) - 7)), look
    assert secret.reveal() == value
    assert copy.deepcopy(created).key.reveal() == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: [s], lambda s: CreatedToken(token(), s)])
def test_secret_refuses_to_be_pickled(protocol: int, wrap: object) -> None:
    """A pickle would hold the secret in the clear, so there is none; the error does not show it either."""
    with pytest.raises(TypeError, match="cannot be pickled") as caught:
        pickle.dumps(wrap(Secret(CANARY)), protocol)
    assert CANARY not in str(caught.value)


def test_secret_has_no_vars_and_no_json() -> None:
    """Generic serializers do not get at the value."""
    with pytest.raises(TypeError):
        vars(Secret(CANARY))
    with pytest.raises(TypeError) as caught:
        json.dumps({"key": Secret(CANARY)})
    assert CANARY not in str(caught.value)
    with pytest.raises(TypeError, match="cannot be pickled"):
        Secret(CANARY).__getstate__()


def test_secret_formats_like_its_mask() -> None:
    """A width in a format string applies to the mask, which hides the secret's length."""
    assert f"{Secret('short'):>12}" == "  **********"
    assert str(Secret("a")) == str(Secret("a" * 100)) == "**********"
    assert repr(Secret("a")) == "Secret('**********')"


def test_secret_compares_by_value_with_secrets_only() -> None:
    """Two secrets of one value are equal and hash alike; a plain text is never equal to a secret."""
    assert Secret(CANARY) == Secret(CANARY)
    assert Secret(CANARY) != Secret(CANARY[:-1])
    assert Secret("schlüssel") != Secret("schlussel")
    assert Secret("\ud800") == Secret("\ud800") != Secret("a")
    assert Secret(CANARY) != CANARY
    assert len({Secret(CANARY), Secret(CANARY), Secret("x")}) == 2
    assert hash(Secret(CANARY)) != hash(CANARY)


def test_secret_cannot_be_changed() -> None:
    """Setting an attribute is refused and leaves the value alone."""
    secret = Secret(CANARY)
    for name in (*Secret.__slots__, "other"):
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(secret, name, "other")
    assert secret.reveal() == CANARY
