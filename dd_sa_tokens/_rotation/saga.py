"""The saga of a rotation: read the old token, make a new one, have it stored, revoke the old one.

At every moment at least one token works and is stored. A step that cannot be finished is undone. If it cannot be
undone, a `RotationError` reports it; where the call is cancelled, a note on the cancellation and the log do.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TypeVar

import attrs

from dd_sa_tokens._cancellation import Cancellation
from dd_sa_tokens._execution import CallState, Executor
from dd_sa_tokens._protocol import operations
from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens._validation import check_expiry, check_id
from dd_sa_tokens.config import Options
from dd_sa_tokens.errors import (
    DatadogError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RotationError,
)
from dd_sa_tokens.models import AccessToken, CreatedToken

from .completion import Completion, complete
from .lifetime import successor_expiry
from .store import NotStoredError, Store, check_store, ensure_stored, holds_secret

T = TypeVar("T")

_logger = logging.getLogger("dd_sa_tokens")

_UNDO_WITHIN = 30.0  # seconds that a cancelled call takes to revoke what it had made
_STATE = {True: "works", False: "has expired", None: "may work"}


async def rotate(
    executor: Executor,
    options: Options,
    service_account_id: str,
    token_id: str,
    *,
    store: Store,
    expires_at: datetime | None,
) -> AccessToken:
    """Replace a token. `TokensClient.rotate_token` says what holds after each kind of failure."""
    check_id("service_account_id", service_account_id, "rotate_token")
    check_id("token_id", token_id, "rotate_token", service_account_id)
    context = {"operation": "rotate_token", "service_account_id": service_account_id, "token_id": token_id}
    check_expiry(expires_at, datetime.now(UTC), **context)
    check_store(store, **context)
    reading = CallState()
    old = await _read(executor, options, service_account_id, token_id, reading)
    saga = _Saga(executor, options, service_account_id, token_id, old, reading.attempts)
    new = await saga.create(expires_at)
    await saga.store(store, new)
    await saga.revoke_old(new.token.id)
    return new.token


async def _read(
    executor: Executor, options: Options, service_account_id: str, token_id: str, call: CallState
) -> AccessToken:
    try:
        return await executor.send(operations.get_token(service_account_id, token_id), options, call)
    except DatadogError as error:
        failure = error
    raise _unchanged("reading the old token", failure, token_id, call.attempts)


@attrs.define
class _Saga:
    """The steps that change something, in their order. Each succeeds, or raises with everything undone or reported."""

    executor: Executor
    options: Options
    service_account_id: str
    old_id: str
    old: AccessToken
    attempts: int  # requests sent so far

    async def create(self, expires_at: datetime | None) -> CreatedToken:
        """Make the new token. If the call is cancelled meanwhile, the new token is revoked again."""
        made = await self._complete(self._creation(expires_at))
        if made.error is not None and made.error.outcome_unknown and made.error.token_id is not None:
            # It was made, but its secret could not be read. It is revoked below: the text needs no advice to find it.
            error = made.error
            if isinstance(error, InvalidResponseError):
                error = InvalidResponseError(path=error.path, reason=error.reason)
            why = f"creating the new token: {error.message}"
            failure, cancelled = await self._undo(why, made.error.token_id, _UNDO_WITHIN if made.cancelled else None)
            raise _ending(failure, made.cancelled or cancelled)
        if made.error is not None and made.error.outcome_unknown:
            text = (
                f"creating the new token: {made.error.message}. "
                f"Now the old token {self._old_state()}, and there may be a new one whose secret is lost"
            )
            raise _ending(self._failure(text, None, new_works=None), made.cancelled)
        if made.error is not None:
            unchanged = _unchanged("creating the new token", made.error, self.old_id, self.attempts)
            raise _ending(unchanged, made.cancelled)
        assert made.value is not None
        if made.cancelled is not None:
            failure, _ = await self._undo("it was cancelled", made.value.token.id, _UNDO_WITHIN)
            raise _ending(failure, made.cancelled)
        return made.value

    async def store(self, store: Store, new: CreatedToken) -> None:
        """Have the caller store the new token. If that fails, the new token is revoked again."""
        failure = await self._hand_over(store, new)
        if failure is None:
            return
        why = f"store raised {type(failure).__name__}"
        if isinstance(failure, NotStoredError):
            why = str(failure)
            failure = None
        elif holds_secret(failure, new.key):
            why += " (not shown: it holds the secret)"
            failure = None  # not even this frame, which is in the traceback of what is raised below, may keep it
        ended, cancelled = await self._undo(why, new.token.id)
        ended.__cause__ = failure
        raise _ending(ended, cancelled)

    async def revoke_old(self, new_id: str) -> None:
        """Revoke the old token, now that its users have switched."""
        revoked = await self._complete(operations.revoke_token(self.service_account_id, self.old_id))
        if not _is_gone(revoked.error):
            assert revoked.error is not None
            unsure = revoked.error.outcome_unknown
            text = (
                f"revoking the old token: {revoked.error.message}. Now the new token works and is stored; "
                f"the old one {self._old_state(unsure=unsure)}, and is still to be revoked"
            )
            raise _ending(self._failure(text, new_id, new_works=True, old_unsure=unsure), revoked.cancelled)
        if revoked.error is not None:
            _logger.warning("the old token %s was gone already: another client has revoked or rotated it", self.old_id)
        if revoked.cancelled is not None:
            revoked.cancelled.add_note(f"the rotation was complete: {new_id} has replaced {self.old_id}")
            raise revoked.cancelled

    async def _complete(self, request: Request[T], seconds: float | None = None) -> Completion[T]:
        completion = await complete(self.executor, self.options, request, seconds)
        self.attempts += completion.attempts
        return completion

    async def _hand_over(self, store: Store, new: CreatedToken) -> BaseException | None:
        """Call the caller's code. Return what it raised: this frame, which may show the secret, is left behind."""
        cancellation = Cancellation.of_current_task()
        try:
            await ensure_stored(store(new))
        except Exception as error:  # noqa: BLE001 - after any exception, the token was not stored
            return error
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and not cancellation.is_external():
                return error  # not the rotation was cancelled, but what store had begun
            # Perhaps it was stored, so neither token may go.
            text = (
                "the rotation was stopped while the new token was being stored. "
                f"Now the old token {self._old_state()}, and the new one works: revoke the one that is not in use"
            )
            _report(error, self._failure(text, new.token.id, new_works=True))
            raise
        return None

    def _creation(self, expires_at: datetime | None) -> Request[CreatedToken]:
        old = self.old
        try:
            ends = expires_at or successor_expiry(old, datetime.now(UTC))
            return operations.create_token(
                self.service_account_id, name=old.name or "", scopes=old.scopes, expires_at=ends
            )
        except InvalidArgumentError as error:
            text = f"the old token cannot be rotated: {error.message}. Nothing was changed"
        raise self._failure(text, None, new_works=False)

    async def _undo(
        self, why: str, new_id: str, seconds: float | None = None
    ) -> tuple[RotationError, asyncio.CancelledError | None]:
        """Revoke the new token. Return what holds then, and the cancellation that came meanwhile, if one came."""
        undone = await self._complete(operations.revoke_token(self.service_account_id, new_id), seconds)
        if _is_gone(undone.error):
            now = f"the new token is revoked, and the old one {self._old_state()}"
            text = f"the rotation was rolled back: {why}. Now {now}"
            return self._failure(text, new_id, new_works=False), undone.cancelled
        assert undone.error is not None
        works = None if undone.error.outcome_unknown else True
        text = (
            f"{why}; revoking the new token: {undone.error.message}. Now the old token {self._old_state()}; "
            f"the new one {_STATE[works]}, and is still to be revoked"
        )
        return self._failure(text, new_id, new_works=works), undone.cancelled

    def _old_works(self, *, unsure: bool = False) -> bool | None:
        if self.old.is_expired():
            return False
        return None if unsure else True

    def _old_state(self, *, unsure: bool = False) -> str:
        return _STATE[self._old_works(unsure=unsure)]

    def _failure(
        self, text: str, new_id: str | None, *, new_works: bool | None, old_unsure: bool = False
    ) -> RotationError:
        old_works = self._old_works(unsure=old_unsure)
        return RotationError(
            text,
            old_id=self.old_id,
            new_id=new_id,
            old_works=old_works,
            new_works=new_works,
            operation="rotate_token",
            service_account_id=self.service_account_id,
            token_id=self.old_id,
            attempts=self.attempts,
            outcome_unknown=None in (old_works, new_works),
        )


def _is_gone(error: DatadogError | None) -> bool:
    """Return whether a token is gone, from how its revocation ended: another client may have revoked it."""
    return error is None or isinstance(error, NotFoundError)


def _unchanged(step: str, error: DatadogError, old_id: str, attempts: int) -> DatadogError:
    message = f"{step}: {error.message}. Nothing was changed"
    return error.with_context(operation="rotate_token", token_id=old_id, attempts=attempts, message=message)


def _report(stopped: BaseException, failure: RotationError) -> None:
    """Report what holds now where the call must end as a cancellation."""
    stopped.add_note(str(failure))
    _logger.warning("%s", failure)


def _ending(failure: DatadogError, cancelled: asyncio.CancelledError | None) -> BaseException:
    """Return the exception that ends the call: the failure; or the cancellation, which then reports the failure."""
    if cancelled is None:
        return failure
    if isinstance(failure, RotationError):
        _report(cancelled, failure)
    return cancelled
