"""The entry point of `dd-sa-tokens` and `python -m dd_sa_tokens`."""

from __future__ import annotations

import sys
from importlib import import_module

_HINT = (
    "dd-sa-tokens: the command line needs typer, rich and jinja2. "
    "Install them with the extra cli, from a clone: pip install '.[cli]'\n"
)


def main() -> None:
    """Run the command line, and exit with its status: 2 for invalid usage or without the extra, 130 after Ctrl-C."""
    try:
        if not _has_extra():
            sys.stderr.write(_HINT)
            sys.exit(2)
        from .cli import run  # noqa: PLC0415 - it can be imported only now

        run()
    except KeyboardInterrupt:
        sys.exit(130)


def _has_extra() -> bool:
    # Only these two are tried: an ImportError from another module is a bug, and must not look like a missing extra.
    try:
        import_module("rich")
        import_module("typer")
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
