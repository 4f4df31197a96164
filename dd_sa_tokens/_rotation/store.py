"""The caller's `store`: what counts as stored, and whether its exception holds the secret."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future
from typing import Any, cast
from urllib.parse import quote

from dd_sa_tokens._validation import underlying_function
from dd_sa_tokens.errors import InvalidArgumentError
from dd_sa_tokens.models import CreatedToken, Secret

Store = Callable[[CreatedToken], Awaitable[object] | None]
"""Stores a new token: an async function, or a plain one that has stored when it returns `None`."""

_PERCENT = re.compile("%..")
_LINE_END = re.compile(r"\s+|(?:\\r)?\\n")  # as it is, or as a repr shows it


class NotStoredError(Exception):
    """`store` returned something that stores nothing."""


def check_store(store: object, **context: Any) -> None:
    """Refuse a `store` that can be seen to store nothing.

    Raises:
        InvalidArgumentError: It is not callable; or it is a generator, an async generator, or a context manager made
            of one, whose code does not run when it is called.
    """
    if not callable(store):
        msg = f"store must be an async callable that takes the CreatedToken, not {type(store).__name__}"
        raise InvalidArgumentError(msg, **context)
    if _is_generator(store):
        msg = "store must be an async callable that stores when it is awaited, not a generator or a context manager"
        raise InvalidArgumentError(msg, **context)


def _is_generator(store: Callable[..., object]) -> bool:
    function = underlying_function(store)
    if inspect.iscoroutinefunction(function):
        return False
    if getattr(function, "__globals__", None) is vars(contextlib):  # `asynccontextmanager` wraps a generator
        function = inspect.unwrap(function)
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


async def ensure_stored(result: object) -> None:
    """Await what `store` returned.

    Raises:
        NotStoredError: It is neither awaitable nor `None`, such as the future of an executor; or what it gave when it
            was awaited is work that has not been done, or `False`. So nothing was stored.
    """
    if inspect.isawaitable(result):
        given = _result_of(await result)
        if not _is_left_to_do(given) and given is not False:
            return
        if inspect.iscoroutine(given):
            given.close()  # or Python would warn that it was never awaited
        what = f"gave {'False' if given is False else type(given).__name__} when it was awaited"
    elif result is not None:
        what = f"returned {type(result).__name__}, which cannot be awaited"
    else:
        return
    msg = f"store {what}, so the new token counts as not stored"
    raise NotStoredError(msg)


def _result_of(given: object) -> object:
    """Return the result of a future or task that has succeeded; any other value as it is."""
    if not isinstance(given, asyncio.Future | Future):
        return given
    future = cast("Future[object]", given)
    if not future.done() or future.cancelled() or future.exception() is not None:
        return future
    return _result_of(future.result())


def _is_left_to_do(given: object) -> bool:
    """Return whether a value stands for work that may not have been done, as where `store` forgets an `await`."""
    return inspect.isawaitable(given) or isinstance(given, Generator | AsyncGenerator | Future)


def holds_secret(failure: BaseException, key: Secret) -> bool:
    """Return whether the caller's exception, or one behind or inside it, holds the secret, also if it is encoded."""
    forms = forms_of(key.reveal())
    left: list[BaseException | None] = [failure]
    seen: set[int] = set()
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        try:
            text = f"{error} {error!r} {error.args} {vars(error)}"
        except Exception:  # noqa: BLE001 - what cannot be shown may hold anything
            return True
        joined = _LINE_END.sub("", text)  # base64 comes in lines, too
        if any(form in text or form in joined for form in forms):
            return True
        left += [error.__cause__, error.__context__]
        if isinstance(error, BaseExceptionGroup):
            left += cast("BaseExceptionGroup[BaseException]", error).exceptions
    return False


def forms_of(secret: str) -> set[str]:
    """Return what shows a secret in a text: the secret, percent-encoded or in base64, also as a part of other data.

    Base64 encodes three bytes at a time, so it has three forms, by where in the data the secret begins. The characters
    at both ends depend on the neighbours and on the padding, so they are left out.
    """
    data = secret.encode(errors="surrogatepass")
    percent = quote(data, safe="")
    forms = {secret, percent, _PERCENT.sub(lambda match: match[0].lower(), percent)}
    for before, mixed in enumerate((0, 2, 3)):
        encoded = b64encode(bytes(before) + data)[mixed : (before + len(data)) * 8 // 6].decode()
        forms |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return forms - {""}
