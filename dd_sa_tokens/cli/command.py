"""What each command is made of: a function that gets a `Run` and its own arguments, and returns the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

import attrs
import typer

from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.config import RetryPolicy
from dd_sa_tokens.models import AccessToken

from .app import guarded
from .exit_codes import check_credentials
from .fleet import make_client
from .io.console import Messages, log_to
from .options import Options, with_options

ServiceAccount = Annotated[str, typer.Argument(metavar="SA_ID", help="The service account's ID.", show_default=False)]
AccountOrOrg = Annotated[
    str | None, typer.Argument(metavar="SA_ID", help="The service account's ID; not with --org.", show_default=False)
]
Org = Annotated[bool, typer.Option("--org", help="All service accounts of the organization.")]
Token = Annotated[str, typer.Argument(metavar="TOKEN_ID", help="The token's ID.", show_default=False)]
Tokens = Annotated[list[str], typer.Argument(metavar="TOKEN_ID", help="The IDs of the tokens.", show_default=False)]


@attrs.frozen
class Run:
    """One run of a command.

    Attributes:
        options: The options of all commands.
        messages: Prints messages to standard error.
    """

    options: Options
    messages: Messages

    def client(self) -> TokensClient:
        """Make the client that the options and the environment describe.

        Raises:
            ConfigurationError: A credential or an option is missing or invalid.
            CommandError: The environment asks for a store that is not installed.
        """
        check_credentials()
        options = self.options
        url = options.base_url
        if url is None and options.site is None:
            url = os.environ.get("DD_SA_TOKENS_BASE_URL") or None
        attempts, reserve = options.max_attempts, options.rate_limit_reserve
        numbers = {"concurrency": options.concurrency, "timeout": options.timeout, "rate_limit_reserve": reserve}
        return make_client(
            site=options.site,
            base_url=url,
            proxy=options.proxy,
            trust_env=True,
            retry=RetryPolicy() if attempts is None else RetryPolicy(max_attempts=attempts),
            # What was not given keeps the client's own default.
            **{name: value for name, value in numbers.items() if value is not None},
        )


def command(body: Callable[..., int]) -> Callable[..., None]:
    """Make a typer command of a function that gets a `Run` and its own arguments, and returns the exit code.

    The signature and the docstring of the function are those of the command, as usual with typer. The command also has
    the options of all commands. Its help leaves them out, so that it fits a screen.
    """

    @wraps(body)
    def call(*, context: typer.Context, options: Options, **given: Any) -> None:
        run = Run(options.over(context.obj), Messages())
        verbosity = run.options.verbose
        log_to(run.messages, verbosity)
        raise typer.Exit(guarded(lambda: body(run, **given), run.messages, verbosity))

    own = signature(body, eval_str=True)
    context = Parameter("context", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    options = Parameter("options", Parameter.KEYWORD_ONLY, annotation=Options)
    given = [each for each in own.parameters.values() if each.annotation is not Run]
    positional = [each for each in given if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
    keyword = [each for each in given if each.kind is Parameter.KEYWORD_ONLY]
    call.__signature__ = own.replace(parameters=[context, *positional, *keyword, options], return_annotation=None)  # type: ignore[attr-defined]  # typer reads it there
    return with_options(call, hidden=True)


def describe(token: AccessToken) -> str:
    """Return the name and the ID of a token, for a message."""
    return f"{token.name!r} ({token.id})" if token.name else token.id
