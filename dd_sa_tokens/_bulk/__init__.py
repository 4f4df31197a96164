"""Bulk fetches: a pool of workers over any iterable, one answer for each ID, and the way that needs fewest requests."""

from .accounts import UserRequests, find_accounts
from .engine import MakeStrategy, collect, stream
from .find import find
from .ids import Source, check_source
from .strategy import TokenRequests, make_strategy

__all__ = [
    "MakeStrategy",
    "Source",
    "TokenRequests",
    "UserRequests",
    "check_source",
    "collect",
    "find",
    "find_accounts",
    "make_strategy",
    "stream",
]
