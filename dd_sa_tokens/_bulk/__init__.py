"""Bulk fetches: a pool of workers over any iterable, one answer for each ID, and the way that needs fewest requests."""

from .engine import Source, check_source, collect, stream
from .strategy import FetchStrategy, make_strategy

__all__ = ["FetchStrategy", "Source", "check_source", "collect", "make_strategy", "stream"]
