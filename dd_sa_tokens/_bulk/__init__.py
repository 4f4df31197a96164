"""Bulk fetches: a pool of workers over any iterable, one answer for each ID, and the way that needs fewest requests."""

from .engine import MakeStrategy, collect, stream
from .find import find
from .ids import Source, check_source
from .strategy import TokenRequests, make_strategy

__all__ = ["MakeStrategy", "Source", "TokenRequests", "check_source", "collect", "find", "make_strategy", "stream"]
