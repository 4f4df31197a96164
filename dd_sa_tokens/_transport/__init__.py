"""The session, one attempt, and the map from aiohttp's exceptions to ours."""

from .body import LARGEST_BODY
from .transport import Transport

__all__ = ["LARGEST_BODY", "Transport"]
