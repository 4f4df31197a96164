"""Exit codes: which one a command ends with, and the line that says why."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from enum import IntEnum

import attrs

from dd_sa_tokens._credentials import read_credentials
from dd_sa_tokens.errors import (
    ConfigurationError,
    DatadogError,
    ForbiddenError,
    InvalidArgumentError,
    TransportError,
    UnauthorizedError,
)

NAME = "dd-sa-tokens"

# The control character is click's mark for a paragraph that keeps its lines.
EXIT_CODES = """\b
Exit codes:
  0    success
  1    a failure, for example of some of the IDs
  2    invalid usage, configuration or input file
  3    the API refused the credentials (401, 403) for everything
  4    the API could not be reached
  5    the audit has findings that --fail-on names
  130  interrupted
  141  the reader of the output closed it
"""

_WHERE_KEYS_ARE_MADE = (
    "API keys and application keys are made in Datadog under Organization Settings > API Keys and > Application Keys, "
    "access tokens under Organization Settings > Service Accounts"
)
_TOKENS = ("DD_ACCESS_TOKEN", "DD_BEARER_TOKEN")  # as in the client, the first one wins
_PAIR = ("DD_API_KEY", "DD_APP_KEY")


class ExitCode(IntEnum):
    """The status of the process. `EXIT_CODES` explains each value."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    FINDINGS = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CommandError(Exception):
    """A command cannot continue.

    Args:
        message: The line to print.
        code: The exit code.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def cannot_write(name: object, error: OSError) -> CommandError:
    """Return the error of an output that cannot be written, with the operating system's reason."""
    return CommandError(f"cannot write to {name}: {error.strerror}")


def exit_code(error: DatadogError) -> ExitCode:
    """Return the exit code for one operation that failed."""
    match error:
        case DatadogError(outcome_unknown=True):
            return ExitCode.FAILED  # the API was reached, and a second try may apply the change twice
        case InvalidArgumentError():
            return ExitCode.USAGE
        case UnauthorizedError() | ForbiddenError():
            return ExitCode.REFUSED
        case TransportError():
            return ExitCode.UNREACHABLE
        case _:
            return ExitCode.FAILED


@attrs.define
class Tally:
    """Counts how many tokens a command has finished.

    Attributes:
        noun: What is counted.
        total: How many tokens there are; `None` while that is unknown.
        succeeded: Tokens that were fetched or changed.
        skipped: Tokens that an earlier run had fetched.
        failures: Failures by the name of the error's class.
    """

    noun: str = attrs.field(default="tokens", kw_only=True)
    total: int | None = None
    succeeded: int = 0
    skipped: int = 0
    failures: Counter[str] = attrs.field(factory=Counter[str])
    _codes: set[ExitCode] = attrs.field(factory=set[ExitCode], init=False)

    @property
    def failed(self) -> int:
        """How many tokens failed."""
        return self.failures.total()

    @property
    def attempted(self) -> int:
        """How many tokens this run has finished, with success or without."""
        return self.succeeded + self.failed

    @property
    def done(self) -> int:
        """How many tokens are finished, those of an earlier run included."""
        return self.attempted + self.skipped

    def fail(self, error: DatadogError) -> None:
        """Count a failure."""
        self.failures[type(error).__name__] += 1
        self._codes.add(exit_code(error))

    @property
    def exit_code(self) -> ExitCode:
        """The exit code for all tokens together. It is the code of the errors if all agree and no token succeeded."""
        if not self._codes:
            return ExitCode.OK
        return next(iter(self._codes)) if len(self._codes) == 1 and not self.succeeded else ExitCode.FAILED

    def summary(self) -> str:
        """Return a line that says how many tokens failed, and with which errors."""
        kinds = ", ".join(f"{number} {kind}" for kind, number in self.failures.most_common())
        return f"{self.failed} of {self.attempted} tokens failed: {kinds}"


def check_credentials() -> None:
    """Check that the environment has credentials.

    Raises:
        ConfigurationError: A variable is missing or invalid. The text names it.
    """
    given = _given_variables()
    if not given:
        fault = (
            "no credentials: set DD_API_KEY and DD_APP_KEY, or DD_ACCESS_TOKEN or DD_BEARER_TOKEN, in the environment"
        )
    elif given == ["DD_API_KEY"]:
        fault = "DD_APP_KEY is not set, and DD_API_KEY alone is not enough"
    else:
        try:
            read_credentials(None, None, None)
        except ConfigurationError as error:
            fault = error.message
        else:
            return
    raise ConfigurationError(f"{fault}. {_WHERE_KEYS_ARE_MADE}")


def _given_variables() -> list[str]:
    """Return the names of the variables that the client takes the credentials from."""
    tokens = [name for name in _TOKENS if os.environ.get(name)]
    return tokens[:1] or [name for name in _PAIR if os.environ.get(name)]


def explain(error: DatadogError) -> str:
    """Return a line that says what went wrong and what to do about it, with commands instead of Python calls."""
    if isinstance(error, UnauthorizedError):
        given = " and ".join(_given_variables())
        return f"{error}. Check {given}, and the site (--site, DD_SITE). {_WHERE_KEYS_ARE_MADE}"
    if error.outcome_unknown:
        error = error.with_context(message=_with_commands(error))
    return str(error)


def _with_commands(error: DatadogError) -> str:
    account, token = error.service_account_id or "SA_ID", error.token_id or "TOKEN_ID"
    text = error.message
    for call, command in (
        ("list_tokens, sort='-created_at'", shell_command("list", account, "--sort=-created_at")),
        ("get_token shows", shell_command("get", account, token) + " shows"),
    ):
        text = text.replace(call, command)
    return text


def shell_command(*words: str) -> str:
    """Return a command of this program as a line for a shell."""
    return shlex.join([NAME, *words])
