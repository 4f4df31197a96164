"""The saga of a rotation: read the old token, make a new one, have it stored, revoke the old one.

At every moment at least one token works and is stored. What cannot be finished is undone; what cannot be undone is
reported: in a `RotationError`, or where the call is cancelled, in a note on the cancellation and in the log.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Generic, NoReturn, TypeVar

import attrs

from . import _wire
from ._arguments import check_expiry, check_id
from ._pipeline import Pipeline
from ._wire import Request
from .errors import DatadogError, InvalidArgumentError, NotFoundError, RotationError, TransportError
from .models import AccessToken, CreatedToken, Secret

T = TypeVar("T")

Store = Callable[[CreatedToken], Awaitable[object]]

_logger = logging.getLogger("dd_sa_tokens")

_UNDO_WITHIN = 30.0  # seconds that a cancelled call takes to revoke what it had made


async def rotate(
    pipeline: Pipeline, service_account_id: str, token_id: str, store: Store, expires_at: datetime | None
) -> AccessToken:
    """Replace a token. `TokensClient.rotate_token` says what holds after each kind of failure."""
    check_id("service_account_id", service_account_id, "rotate_token")
    check_id("token_id", token_id, "rotate_token", service_account_id)
    context = {"operation": "rotate_token", "service_account_id": service_account_id, "token_id": token_id}
    check_expiry(expires_at, datetime.now(UTC), **context)
    if not callable(store):
        msg = f"store must be an async callable that takes the CreatedToken, not {type(store).__name__}"
        raise InvalidArgumentError(msg, **context)
    saga = _Saga(pipeline, service_account_id, token_id)
    new = await saga.create(await saga.read(), expires_at)
    await saga.store(store, new)
    await saga.revoke_old(new.token.id)
    return new.token


def successor_expiry(old: AccessToken, now: datetime) -> datetime | None:
    """Return when the successor of a token ends: after as long a life, from now on; `None` for never.

    Raises:
        ValueError: The old token ends, and how long it lived is not known.
    """
    if old.expires_at is None:
        return None
    if old.created_at is None or old.created_at >= old.expires_at:
        msg = "it expires, and how long it lived is not known, so expires_at must be given"
        raise ValueError(msg)
    return now + (old.expires_at - old.created_at)


@attrs.frozen
class _Settled(Generic[T]):
    """How a request ended that was seen through although the caller may have been cancelled.

    Attributes:
        value: What it gave, if it succeeded.
        error: Why it failed, if it did.
        cancelled: The cancellation that came meanwhile and is still to be raised, if one came.
    """

    value: T | None
    error: DatadogError | None
    cancelled: asyncio.CancelledError | None


@attrs.frozen
class _Saga:
    """The steps, in their order. Each ends well, or raises with everything undone or reported."""

    pipeline: Pipeline
    service_account_id: str
    old_id: str

    async def read(self) -> AccessToken:
        """Read the old token. Nothing has changed yet."""
        try:
            return await self.pipeline.send(_wire.get_token(self.service_account_id, self.old_id))
        except DatadogError as error:
            failure = error
        raise self._as_ours("reading the old token", failure)

    async def create(self, old: AccessToken, expires_at: datetime | None) -> CreatedToken:
        """Make the new token. If the call is cancelled meanwhile, the new token is revoked again."""
        made = await self._settle(self._creation(old, expires_at))
        if made.error is not None and made.error.outcome_unknown:
            text = (
                f"creating the new token: {made.error.message}. "
                "Now the old token works, and there may be a new one whose secret nobody knows"
            )
            _end(self._failure(text, None, new_works=None), made.cancelled)
        if made.error is not None:
            _end(self._as_ours("creating the new token", made.error), made.cancelled)
        assert made.value is not None
        if made.cancelled is not None:
            new_id = made.value.token.id
            undone = await self._settle(self._revocation(new_id), _UNDO_WITHIN)
            _end(self._after_undoing("the rotation was cancelled", new_id, undone.error), made.cancelled)
        return made.value

    async def store(self, store: Store, new: CreatedToken) -> None:
        """Have the new token stored. If that fails, the new token is revoked again."""
        new_id = new.token.id
        failure: Exception | None = None
        try:
            stored = store(new)
            if inspect.isawaitable(stored):  # a plain function that has returned has stored it, too
                await stored
        except Exception as error:  # noqa: BLE001 - whatever the caller's code raises, the token was not stored
            failure = error
        except BaseException as error:  # cancelled: perhaps it was stored, so neither token may go
            text = "the rotation was stopped while the new token was being stored. Now both tokens work: revoke one"
            _report(error, self._failure(text, new_id, new_works=True))
            raise
        if failure is None:
            return
        undone = await self._settle(self._revocation(new_id))
        ended = self._after_undoing(f"store raised {type(failure).__name__}", new_id, undone.error)
        if undone.cancelled is None and not _shows(failure, new.key):
            raise ended from failure
        _end(ended, undone.cancelled)

    async def revoke_old(self, new_id: str) -> None:
        """Revoke the old token, now that its users have switched."""
        revoked = await self._settle(self._revocation(self.old_id))
        if not _is_gone(revoked.error):
            assert revoked.error is not None
            works = None if revoked.error.outcome_unknown else True
            text = (
                f"revoking the old token: {revoked.error.message}. Now the new token works and is stored; "
                f"the old one {_WORKS[works]}, and is still to be revoked"
            )
            _end(self._failure(text, new_id, old_works=works, new_works=True), revoked.cancelled)
        if revoked.cancelled is not None:
            revoked.cancelled.add_note(f"the rotation was complete: {new_id} has replaced {self.old_id}")
            raise revoked.cancelled

    def _creation(self, old: AccessToken, expires_at: datetime | None) -> Request[CreatedToken]:
        fault = "" if old.name and old.scopes else "it has no name or no scopes, and a new token needs both"
        try:
            ends = expires_at or successor_expiry(old, datetime.now(UTC))
        except ValueError as error:
            fault, ends = str(error), None
        if fault:
            raise self._failure(f"the old token cannot be rotated: {fault}. Nothing was changed", None, new_works=False)
        return _wire.create_token(self.service_account_id, name=old.name or "", scopes=old.scopes, expires_at=ends)

    def _revocation(self, token_id: str) -> Request[None]:
        return _wire.revoke_token(self.service_account_id, token_id)

    async def _settle(self, request: Request[T], seconds: float | None = None) -> _Settled[T]:
        """See a request through: what is under way is waited for, although the call is cancelled or its time is up.

        What only waits then, for quota or for its next try, is given up.
        """
        task = asyncio.ensure_future(self.pipeline.send(request))
        cancelled: asyncio.CancelledError | None = None
        hurry = given_up = False
        while not task.done():
            try:
                if not hurry:
                    await asyncio.wait([task], timeout=seconds)
                    hurry = True
                else:
                    await self.pipeline.landing(task)
                    given_up = given_up or not task.done()
                    task.cancel()
                    await asyncio.wait([task])
            except asyncio.CancelledError as asked:
                cancelled, hurry = cancelled or asked, True
        if task.cancelled():
            # A create that waited was not carried out; a revoke may have been, by an earlier try.
            unknown = not given_up or request.operation.repeatable
            gone = TransportError("given up before it was answered", outcome_unknown=unknown)
            return _Settled(None, gone, cancelled)
        error = task.exception()
        if error is None:
            return _Settled(task.result(), None, cancelled)
        if not isinstance(error, DatadogError):
            raise error
        return _Settled(None, error, cancelled)

    def _after_undoing(self, why: str, new_id: str, error: DatadogError | None) -> RotationError:
        if _is_gone(error):
            text = f"{why}. Now the new token is revoked, and the old one works"
            return self._failure(text, new_id, new_works=False)
        assert error is not None
        works = None if error.outcome_unknown else True
        text = (
            f"{why}; revoking the new token: {error.message}. Now the old token works; "
            f"the new one {_WORKS[works]}, and is still to be revoked"
        )
        return self._failure(text, new_id, new_works=works)

    def _failure(
        self, text: str, new_id: str | None, *, old_works: bool | None = True, new_works: bool | None
    ) -> RotationError:
        return RotationError(
            text,
            old_id=self.old_id,
            new_id=new_id,
            old_works=old_works,
            new_works=new_works,
            operation="rotate_token",
            service_account_id=self.service_account_id,
            token_id=self.old_id,
            outcome_unknown=old_works is None or new_works is None,
        )

    def _as_ours(self, step: str, error: DatadogError) -> DatadogError:
        message = f"{step}: {error.message}. Nothing was changed"
        return error.with_context(operation="rotate_token", token_id=self.old_id, message=message)


_WORKS = {True: "works, too", None: "may work"}


def _is_gone(error: DatadogError | None) -> bool:
    """Tell from how its revocation ended whether a token is gone: somebody else may have revoked it."""
    return error is None or isinstance(error, NotFoundError)


def _shows(error: Exception, key: Secret) -> bool:
    """Tell whether a text of the caller's exception, or of one behind it, holds the secret."""
    return key.reveal() in "".join(traceback.format_exception(error))


def _report(stopped: BaseException, failure: RotationError) -> None:
    """Say what holds where a cancellation has to go on as a cancellation."""
    stopped.add_note(str(failure))
    _logger.warning("%s", failure)


def _end(failure: DatadogError, cancelled: asyncio.CancelledError | None) -> NoReturn:
    if cancelled is None:
        raise failure
    if isinstance(failure, RotationError):
        _report(cancelled, failure)
    raise cancelled
