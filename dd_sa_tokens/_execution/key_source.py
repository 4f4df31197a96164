"""Keys that functions give: asked for once for all calls that need them, and again when the API refuses them."""

from __future__ import annotations

import asyncio
import inspect
from typing import cast

import attrs

from dd_sa_tokens._credentials import Credentials
from dd_sa_tokens._http.errors import origin_of
from dd_sa_tokens.errors import ClientClosedError, CredentialsError, DatadogError
from dd_sa_tokens.models import Secret


@attrs.define(eq=False)
class _Asking:
    """Functions that are being asked.

    Attributes:
        outcome: `None` once the credentials have the keys, or why they do not.
        begun: When it began, on the loop's clock.
        name: The argument whose function is asked.
        waiting: Calls that wait for it.
    """

    outcome: asyncio.Future[DatadogError | None]
    begun: float
    name: str = ""
    waiting: int = 0

    def end(self, error: DatadogError | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(error)


class KeySource:
    """Asks the functions of a client's credentials.

    Calls that need keys at the same time share one asking. It runs in a task of its own, so a call that is cancelled
    leaves the others waiting; when no call waits any more, it is cancelled.

    Args:
        credentials: Get the keys.

    Attributes:
        asked: How often the functions have given keys, also the same ones.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self.asked = 0
        self._accepted = False
        self._asking: _Asking | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def version(self) -> int:
        """The version of the keys that a request is signed with now."""
        return self._credentials.version

    def record_accepted(self, version: int) -> None:
        """Note that the API took keys of this version."""
        self._accepted = self._accepted or version == self._credentials.version

    async def get_ready(self, timeout: float) -> DatadogError | None:  # noqa: ASYNC109 - see `_ask`
        """Ask for the keys if there are none yet; return why there are none."""
        return None if self._credentials.version else await self._ask(timeout)

    async def renew(self, version: int, asked: int, timeout: float) -> DatadogError | bool:  # noqa: ASYNC109 - see `_ask`
        """Ask again after a 401, unless that has been done since the call began, or there are newer keys.

        If the API has not yet accepted the keys returned last, the calls of that time do not ask again. A later call
        does: the new keys may be available by then.

        Args:
            version: The version of the refused keys.
            asked: The value of `asked` when the call began.
            timeout: Seconds that the functions may take.

        Returns:
            Whether there are other keys than the refused ones; or why that is not known.
        """
        if version == self._credentials.version and (asked == self.asked or self._accepted):
            error = await self._ask(timeout)
            if error is not None:
                return error
        return version != self._credentials.version

    def close(self) -> None:
        """End the waiting: the client is being closed."""
        if self._asking is not None:
            self._asking.end(ClientClosedError("the client was closed while it waited for a key"))
        if self._task is not None:
            self._task.cancel()

    async def _ask(self, timeout: float) -> DatadogError | None:  # noqa: ASYNC109 - others may wait longer
        loop = asyncio.get_running_loop()
        asking = self._asking
        if asking is None or asking.outcome.done():
            asking = self._asking = _Asking(loop.create_future(), loop.time())
            self._task = loop.create_task(self._run(asking))
        asking.waiting += 1
        try:
            # Counted from the beginning: otherwise calls that keep coming would keep a function alive that hangs.
            await asyncio.wait([asking.outcome], timeout=max(asking.begun + timeout - loop.time(), 0.0))
            if asking.outcome.done():
                return asking.outcome.result()
            return CredentialsError(f"the function given as {asking.name} took longer than {timeout:g} s")
        finally:
            asking.waiting -= 1
            if not asking.waiting and not asking.outcome.done():
                asking.end(None)
                assert self._task is not None
                self._task.cancel()

    async def _run(self, asking: _Asking) -> None:
        error: DatadogError | None = CredentialsError("asking for the key was interrupted")
        try:
            error = await self._ask_each(asking)
        finally:
            asking.end(error)

    async def _ask_each(self, asking: _Asking) -> DatadogError | None:
        given: dict[str, Secret] = {}
        for name, function in self._credentials.functions.items():
            asking.name = name
            key = await _call(name, function)
            if isinstance(key, CredentialsError):
                return key
            given[name] = key
        if asking.outcome.done():  # no call waits any more, and newer keys may be there
            return None
        refused = self._credentials.update(given)
        if refused is not None:
            name, fault = refused
            return CredentialsError(f"the function given as {name} returned an invalid key: {fault}")
        self.asked += 1
        self._accepted = False
        return None


async def _call(name: str, function: Secret) -> Secret | CredentialsError:
    """Return what a function gives. What it raises is not kept: its text and its frames may hold a key."""
    try:
        key = cast("object", function.reveal()())  # type: ignore[operator] # pyright: ignore[reportCallIssue] - checked
        if inspect.isawaitable(key):
            key = await key
        return key if isinstance(key, Secret) else Secret(cast("str", key))
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        text = f"{type(error).__name__}{origin_of(error)}"
    except Exception as error:  # noqa: BLE001 - the user's function may raise anything
        text = f"{type(error).__name__}{origin_of(error)}"
    return CredentialsError(f"the function given as {name} raised {text}")
