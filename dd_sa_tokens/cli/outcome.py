"""How a command ends: its exit code, and the line that says why."""

from __future__ import annotations

import os
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

# Between empty lines, for typer to keep the lines apart.
EXIT_CODES = """Exit codes:

0 all well

1 something failed, such as some of the IDs

2 usage or configuration

3 refused by the API (401, 403), for all

4 the API could not be reached

5 an audit found what it was to fail on (--fail-on)

130 interrupted

141 whoever read the output went away
"""

_WHERE = (
    "API keys and application keys are made in Datadog under Organization Settings > API Keys and > Application Keys, "
    "access tokens under Organization Settings > Service Accounts"
)
_VARIABLES = ("DD_API_KEY", "DD_APP_KEY", "DD_ACCESS_TOKEN")


class CommandError(Exception):
    """A command cannot go on; the text is the line to show."""


class ExitCode(IntEnum):
    """What the process ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    FINDINGS = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


def exit_code(error: DatadogError) -> ExitCode:
    """Return the code for one operation that failed."""
    match error:
        case DatadogError(outcome_unknown=True):
            return ExitCode.FAILED  # it was reached, and whoever tries again may do the thing twice
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
    """How far a command has come that is about many tokens.

    Attributes:
        total: How many there are; `None` while that is not known.
        succeeded: Those that came, or were dealt with.
        failures: Those that did not, by type of error.
    """

    total: int | None = None
    succeeded: int = 0
    failures: Counter[str] = attrs.field(factory=Counter[str])
    _codes: set[ExitCode] = attrs.field(factory=set[ExitCode], init=False)

    @property
    def failed(self) -> int:
        """Those that did not come."""
        return self.failures.total()

    @property
    def done(self) -> int:
        """Those that need not be waited for any more."""
        return self.succeeded + self.failed

    def fail(self, error: DatadogError) -> None:
        """Count one that failed."""
        self.failures[type(error).__name__] += 1
        self._codes.add(exit_code(error))

    @property
    def exit_code(self) -> ExitCode:
        """The code for all of them together: that of each one's error only where all have the same."""
        if not self._codes:
            return ExitCode.OK
        return next(iter(self._codes)) if len(self._codes) == 1 and not self.succeeded else ExitCode.FAILED

    def summary(self) -> str:
        """Say how many failed, and of what."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.failures.most_common())
        return f"{self.failed} of {self.done} tokens failed: {kinds}"


def check_credentials() -> None:
    """Look whether the environment has credentials, and say which variable is missing or wrong.

    Raises:
        ConfigurationError: It has none, or they cannot be right.
    """
    given = [name for name in _VARIABLES if os.environ.get(name)]
    if not given:
        fault = "no credentials: set DD_API_KEY and DD_APP_KEY, or DD_ACCESS_TOKEN, in the environment"
    elif given == ["DD_API_KEY"]:
        fault = "DD_APP_KEY is not set, and DD_API_KEY alone is not enough"
    else:
        try:
            read_credentials(None, None, None)
        except ConfigurationError as error:
            fault = error.message
        else:
            return
    raise ConfigurationError(f"{fault}. {_WHERE}")


def explain(error: DatadogError) -> str:
    """Say in one line what went wrong, and what to do about refused keys."""
    given = " and ".join(name for name in _VARIABLES if os.environ.get(name))
    if isinstance(error, UnauthorizedError):
        return f"{error}. Check {given}, and that the site (--site, DD_SITE) is theirs. {_WHERE}"
    if isinstance(error, ForbiddenError):
        return f"{error}. Whoever {given} belongs to needs the permission service_account_write. {_WHERE}"
    return str(error)
