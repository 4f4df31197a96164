"""Commands that talk to the API: the options that all of them have, and what they are given for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Annotated, Any, TypeVar, get_type_hints

import attrs
import typer

from dd_sa_tokens.client import TokensClient
from dd_sa_tokens.config import RetryPolicy

from .app import guarded, run_async
from .console import Messages, log_to
from .outcome import check_credentials

T = TypeVar("T")
Body = Callable[..., int]

_PANEL = "Connection"

ServiceAccount = Annotated[str, typer.Argument(metavar="SA_ID", help="The service account's ID.", show_default=False)]
Token = Annotated[str, typer.Argument(metavar="TOKEN_ID", help="The token's ID.", show_default=False)]

Verbosity = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        help="Log retries and waits for quota to standard error; -vv requests, too.",
        rich_help_panel=_PANEL,
    ),
]


@attrs.frozen(kw_only=True)
class Shared:
    """The options that all commands have. Credentials are none of them: options show in lists of processes."""

    site: Annotated[
        str | None,
        typer.Option(help="The Datadog site, such as datadoghq.eu; DD_SITE by default.", rich_help_panel=_PANEL),
    ] = None
    base_url: Annotated[
        str | None, typer.Option(help="Instead of a site: a proxy or a fake server.", rich_help_panel=_PANEL)
    ] = None
    concurrency: Annotated[int, typer.Option(min=1, help="Most requests in flight.", rich_help_panel=_PANEL)] = 50
    timeout: Annotated[float, typer.Option(help="Seconds for one attempt.", rich_help_panel=_PANEL)] = 30.0
    max_attempts: Annotated[
        int,
        typer.Option(min=1, help="Most attempts for one request; waiting for quota is none.", rich_help_panel=_PANEL),
    ] = 5
    rate_limit_reserve: Annotated[
        float,
        typer.Option(
            help="Share of the quota (0 <= r < 1) to leave to others in your organization.", rich_help_panel=_PANEL
        ),
    ] = 0.0
    verbose: Verbosity = 0


@attrs.frozen
class Run:
    """One run of a command.

    Attributes:
        shared: The options that all commands have.
        messages: For all that is no data.
    """

    shared: Shared
    messages: Messages

    def client(self) -> TokensClient:
        """Make the client.

        Raises:
            ConfigurationError: The environment has no good credentials, or an option cannot be right.
        """
        check_credentials()
        shared = self.shared
        return TokensClient(
            site=shared.site,
            base_url=shared.base_url,
            concurrency=shared.concurrency,
            timeout=shared.timeout,
            retry=RetryPolicy(max_attempts=shared.max_attempts),
            rate_limit_reserve=shared.rate_limit_reserve,
        )

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return run_async(work)


def command(body: Body) -> Callable[..., None]:
    """Make a command of a function that is given a `Run` and its own arguments, and returns the exit code.

    Its signature and docstring are the command's, as ever with typer; the options of `Shared` come on top.
    """

    @wraps(body)
    def call(**given: Any) -> None:
        shared = Shared(**{option.name: given.pop(option.name) for option in attrs.fields(Shared)})
        run = Run(shared, Messages())
        log_to(run.messages, shared.verbose)
        raise typer.Exit(guarded(partial(body, run, **given), run.messages, shared.verbose))

    own = inspect.signature(body, eval_str=True)
    parameters = [*list(own.parameters.values())[1:], *_shared_parameters()]
    call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it there
    return call


def _shared_parameters() -> list[inspect.Parameter]:
    hints = get_type_hints(Shared, include_extras=True)
    return [
        inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hints[option.name]
        )
        for option in attrs.fields(Shared)
    ]
