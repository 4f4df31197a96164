"""The command line: its commands, in the order in which the help lists them."""

from __future__ import annotations

from .app import app, run
from .commands.accounts import list_accounts
from .commands.audit import audit
from .commands.create import create
from .commands.demo import demo
from .commands.get import get
from .commands.list import list_tokens
from .commands.revoke import revoke
from .commands.rotate import rotate
from .commands.update import update
from .exit_codes import NAME

__all__ = ["app", "run"]

for _name, _command in (
    ("accounts", list_accounts),
    ("list", list_tokens),
    ("get", get),
    ("audit", audit),
    ("create", create),
    ("update", update),
    ("revoke", revoke),
    ("rotate", rotate),
    ("demo", demo),
):
    app.command(_name, epilog=f"Options of all commands (--site, -v ...), exit codes: {NAME} --help")(_command)
