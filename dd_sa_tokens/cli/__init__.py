"""The command line: its commands, in the order in which the help shows them."""

from __future__ import annotations

from . import audit, changes, demo, get, listing, rotate
from .app import app, run
from .outcome import EXIT_CODES

__all__ = ["app", "demo", "run"]

for _name, _command in (
    ("get", get.get),
    ("list", listing.list_tokens),
    ("audit", audit.audit),
    ("create", changes.create),
    ("update", changes.update),
    ("revoke", changes.revoke),
    ("rotate", rotate.rotate),
    ("demo", demo.demo),
):
    app.command(_name, epilog=EXIT_CODES)(_command)
