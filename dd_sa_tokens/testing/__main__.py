"""`python -m dd_sa_tokens.testing`: a fake Datadog server in the foreground, to try programs against.

It prints a line that sets the environment for the command line, and an example command. Ctrl-C or SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from dd_sa_tokens.errors import InvalidArgumentError

from ._server import FakeDatadog


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until Ctrl-C or SIGTERM.

    Args:
        arguments: The command's arguments; those of the process by default.

    Returns:
        The exit code: 0 at the end, 1 if the port is in use or standard output cannot be written. Wrong arguments exit
        with 2.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        datadog = FakeDatadog(**vars(options))
    except InvalidArgumentError as error:
        parser.error(error.message)
    signal.signal(signal.SIGTERM, _interrupt)
    failed = f"port {options.port} cannot be used"
    try:
        with datadog:
            failed = "cannot write to standard output"
            print(_text(datadog, options), flush=True)  # noqa: T201 - what the command is for
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"{failed}: {error.strerror}", file=sys.stderr)  # noqa: T201 - for a person
        return 1


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dd_sa_tokens.testing",
        description="Run a fake Datadog server on this machine until Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; a free one by default")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of each service account (default: 100)")
    parser.add_argument("--accounts", type=int, default=1, help="service accounts (default: 1)")
    parser.add_argument(
        "--rate-limit",
        type=_rate_limit,
        default=(100, 10.0),
        metavar="100/10s",
        help="requests allowed in a period; or none (default: 100/10s)",
    )
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before each answer (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same tokens and keys (default: 0)")
    return parser


def _rate_limit(text: str) -> tuple[int, float] | None:
    if text == "none":
        return None
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9}(?:\.\d+)?)s?", text, re.ASCII)
    if found is None:
        msg = f"must be requests and seconds, such as 100/10s, or none, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(found[1]), float(found[2])


def _text(datadog: FakeDatadog, options: argparse.Namespace) -> str:
    limit = "no rate limit"
    if options.rate_limit is not None:
        limit = f"at most {options.rate_limit[0]} requests in {options.rate_limit[1]:g} s"
    accounts = "1 service account" if options.accounts == 1 else f"{options.accounts} service accounts"
    return "\n".join(
        (
            f"# A fake Datadog server: {accounts} with {options.tokens} tokens each, {limit}.",
            "# Paste these lines into another shell. Ctrl-C ends the server.",
            f"export DD_ACCESS_TOKEN={datadog.access_token} DD_SA_TOKENS_BASE_URL={datadog.url}",
            f"dd-sa-tokens list {datadog.service_account_id}",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
