"""The options of all commands. They can stand before the command, after it, or both."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_type_hints

import attrs
import typer


@attrs.frozen(kw_only=True)
class Options:
    """The options of all commands; `None` where one was not given.

    Credentials are not among them: the arguments of a process are visible to other users of the machine.
    """

    site: Annotated[
        str | None, typer.Option(metavar="SITE", help="Datadog site, for example datadoghq.eu; also DD_SITE.")
    ] = None
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Base URL instead of a site; also DD_SA_TOKENS_BASE_URL.")
    ] = None
    proxy: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Proxy URL. HTTPS_PROXY, which other users cannot see, and NO_PROXY work, too."
        ),
    ] = None
    concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Maximum number of requests in flight. Default: 50.")
    ] = None
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Timeout of one attempt. Default: 30.")] = (
        None
    )
    max_attempts: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Maximum attempts of one request. Waits for the rate limit do not count. Default: 5.",
        ),
    ] = None
    rate_limit_reserve: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the rate limit (0 <= SHARE < 1) to leave to others in the organization. Default: 0.",
        ),
    ] = None
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log retries and waits for the rate limit to standard error; -vv also logs each request.",
        ),
    ] = 0

    def over(self, earlier: Options) -> Options:
        """Return these options, with those of `earlier` where an option is not given here."""
        given = {name: value for name, value in attrs.asdict(self).items() if value is not None}
        return attrs.evolve(earlier, **given | {"verbose": self.verbose + earlier.verbose})


def with_options(function: Callable[..., None], *, hidden: bool = False) -> Callable[..., None]:
    """Give a typer command the options. The function gets them as its argument `options`.

    Args:
        function: The command.
        hidden: Whether the command's help leaves the options out.
    """

    @wraps(function)
    def call(**given: Any) -> None:
        options = Options(**{option.name: given.pop(option.name) for option in attrs.fields(Options)})
        function(options=options, **given)

    own = inspect.signature(function, eval_str=True)
    parameters = [each for each in own.parameters.values() if each.name != "options"]
    call.__signature__ = own.replace(parameters=[*parameters, *_parameters(hidden=hidden)])  # type: ignore[attr-defined]  # typer reads it there
    return call


def _parameters(*, hidden: bool) -> list[inspect.Parameter]:
    hints = get_type_hints(Options, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for option in attrs.fields(Options):
        kind, about = hints[option.name].__origin__, hints[option.name].__metadata__[0]
        about = copy.copy(about)
        about.hidden = hidden
        parameters.append(
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=Annotated[kind, about]
            )
        )
    return parameters
