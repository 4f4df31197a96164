"""All that knows aiohttp: the session, one exchange with the server, and the map from aiohttp's exceptions to ours."""

from .body import LARGEST_BODY
from .settings import read_settings
from .transport import Transport

__all__ = ["LARGEST_BODY", "Transport", "read_settings"]
