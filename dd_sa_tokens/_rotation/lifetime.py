"""When the successor of a token ends: after as long a life as the old one had. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from dd_sa_tokens.errors import InvalidArgumentError
from dd_sa_tokens.models import AccessToken

_DAY = timedelta(days=1)  # the shortest life that the API accepts
_CLOSE = timedelta(minutes=2)  # a life that differs from whole days by less was meant as whole days
_CLOCKS = timedelta(minutes=1)  # by how much the clocks of client and server may differ
_TRAVEL_TIME = timedelta(minutes=1)


def successor_expiry(old: AccessToken, now: datetime) -> datetime | None:
    """Return when the successor of a token ends: after as long a life, from now on; `None` for never.

    The API counts a life from the moment at which the request arrives, by its own clock, and refuses lives under a day
    and over a cap (365 days, say). So whole days get a minute less, and a single day gets a minute more.

    Raises:
        InvalidArgumentError: The old token ends, and how long it lived is not known.
    """
    if old.expires_at is None:
        return None
    if old.created_at is None or old.created_at >= old.expires_at:
        msg = "expires_at must be given: the old token ends, and how long it lived is not known"
        raise InvalidArgumentError(msg)
    life = old.expires_at - old.created_at
    whole_days = round(life / _DAY) * _DAY
    if abs(life - whole_days) < _CLOSE and whole_days:
        life = _DAY + _TRAVEL_TIME if whole_days == _DAY else whole_days - _CLOCKS
    try:
        return now + life
    except OverflowError:  # made to last until the year 9999: that is as far as dates go
        return old.expires_at
