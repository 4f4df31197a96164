"""The entry point of `dd-sa-tokens` and of `python -m dd_sa_tokens`."""

from __future__ import annotations

import sys
from importlib import import_module

_HINT = 'dd-sa-tokens: the command line needs more than the library: pip install "dd-sa-tokens[cli]"\n'


def main() -> None:
    """Run the command line. Ends with a status: 2 for a usage error or without the extra `cli`, 130 after Ctrl-C."""
    try:
        if not _extra_is_there():
            sys.stderr.write(_HINT)
            sys.exit(2)
        from .cli import run  # noqa: PLC0415 - only now is it known that it can be imported

        run()
    except KeyboardInterrupt:
        sys.exit(130)


def _extra_is_there() -> bool:
    # Only these two are tried: an ImportError from anywhere else is a fault of ours, and must be seen as one.
    try:
        import_module("rich")
        import_module("typer")
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
