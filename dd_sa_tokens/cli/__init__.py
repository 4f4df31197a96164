"""The command line: each module with a command adds itself to `app` when it is imported here."""

from __future__ import annotations

from . import demo
from .app import app, run

__all__ = ["app", "demo", "run"]
