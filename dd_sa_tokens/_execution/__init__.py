"""One request's way: the rate limiter, the transport, the meaning of the answer, and another try where it failed."""

from .executor import Executor
from .retry import CallState

__all__ = ["CallState", "Executor"]
