"""The store in Redis: one Lua script does each report and lease in one step. All that knows redis-py."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, cast
from urllib.parse import quote

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from dd_sa_tokens._ratelimit.store import Lease, LeaseRequest
from dd_sa_tokens.errors import ConfigurationError
from dd_sa_tokens.models import Secret

from .circuit import Circuit

_TIMEOUT = 0.16  # seconds of silence after which a call uses the headers only
_BUSY = 1.0  # seconds more for a round trip while Redis answers others
_CONNECTIONS = 4  # of all clients of one store: a round trip is short
_CLIENTS = (Redis, RedisCluster)  # of redis-py, asynchronous
_LENIENCY = 0.05  # seconds more if the timer fired late, because the event loop was blocked: an answer may be there

_SCRIPT = Path(__file__).with_name("lease.lua").read_text(encoding="utf-8")

_logger = logging.getLogger("dd_sa_tokens")


class RedisStore:
    """A rate-limit window that all clients of an organization have in common, kept in Redis.

    Give the same store, or stores with the same Redis, organization and prefix, to `TokensClient(rate_limit_store=)`.
    It connects when it is opened. If Redis cannot be reached, no call fails: clients use only the headers
    of their own answers until Redis is available again. Nothing secret is stored, and each key expires.

    Args:
        redis: The URL of a Redis server, such as `redis://localhost:6379/0`, or a `redis.asyncio.Redis`, which is used
            and never closed.
        organization: The name under which the organization's clients find one another; any text that has a form in
            UTF-8.
        prefix: What the names of all keys in Redis begin with; `dd-sa-tokens` by default.

    Raises:
        ConfigurationError: An argument is invalid. Also raised by `async with` if the store was closed.
    """

    def __init__(self, redis: str | Redis | RedisCluster, *, organization: str, prefix: str = "dd-sa-tokens") -> None:
        # First of all: a traceback of what is raised below may be logged with its local variables.
        kind = type(redis).__name__
        given = cast("object", redis)
        source = Secret(given) if isinstance(given, str) else given if isinstance(given, _CLIENTS) else None
        del redis, given
        self._organization, self._prefix = organization, prefix
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        for name, value in (("organization", organization), ("prefix", prefix)):
            if not isinstance(cast("object", value), str) or not value.strip() or not _has_utf_8(value):
                msg = f"{name} must be a non-empty str, such as 'acme', not {value!r}"
                raise ConfigurationError(msg)
        self._owns_redis = isinstance(source, Secret)
        self._redis = _make_redis(source, kind)
        self._script = _SCRIPT
        self._digest = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._circuit = Circuit()
        self._answered_at = -math.inf
        self._late: set[asyncio.Future[Any]] = set()  # round trips that took too long and are being cancelled

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not open" if self._loop is None else "open"
        return f"<RedisStore organization={self._organization!r} prefix={self._prefix!r}, {state}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        msg = "a RedisStore cannot be pickled; make one in each process"
        raise TypeError(msg)

    async def __aenter__(self) -> Self:
        if self._closed:
            msg = "the RedisStore was closed; make a new one"
            raise ConfigurationError(msg)
        self._loop = asyncio.get_running_loop()
        await self._connect()
        return self

    async def _connect(self) -> None:
        """Connect, so that the first requests need not wait for that."""
        begun = asyncio.get_running_loop().time()
        try:
            ping = self._redis.ping()  # pyright: ignore[reportUnknownMemberType] - redis-py leaves it open
            await self._within_time(cast("Coroutine[Any, Any, Any]", ping))
        except Exception as error:  # noqa: BLE001 - as in `lease`
            self._record_failure(begun, self._describe(error))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to Redis, unless they are borrowed. Clients that are open use the headers only."""
        self._closed = True
        if self._late:
            await asyncio.wait(self._late, timeout=_TIMEOUT)
        if self._owns_redis:
            await self._redis.aclose()

    def check(self) -> None:
        """See that the store can be used under the running event loop.

        Raises:
            ConfigurationError: It is not open, is closed, or is of another loop.
        """
        if self._closed:
            msg = "rate_limit_store is closed; keep the RedisStore open for as long as its clients"
        elif self._loop is None:
            msg = "rate_limit_store is not open; use it within 'async with RedisStore(...) as store'"
        elif self._loop is not asyncio.get_running_loop():
            msg = "rate_limit_store was opened under another event loop; make one store for each loop"
        else:
            return
        raise ConfigurationError(msg)

    async def lease(self, request: LeaseRequest) -> Lease | None:
        """Report to Redis and lease permits, in one round trip.

        Args:
            request: The report and the demand.

        Returns:
            The lease; `None` if Redis gave no usable answer in time, or was unavailable a moment ago.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if self._closed:
            self._record_failure(begun, "it was closed")
            return None
        if not self._circuit.allows(begun):
            return None
        try:
            lease = _read(await self._within_time(self._run(request)))
        except Exception as error:  # noqa: BLE001 - any fault of Redis or the network: a store makes no call fail
            self._record_failure(begun, self._describe(error))
            return None
        if self._circuit.record_success():
            _logger.info("the rate-limit store is available again: the limit is shared")
        return lease

    def _record_failure(self, begun: float, reason: str) -> None:
        if self._circuit.record_failure(begun, asyncio.get_running_loop().time()):
            _logger.warning(
                "the rate-limit store is unavailable (%s): "
                "clients use only the headers of their own responses until it is available again",
                reason,
            )

    def _describe(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {_TIMEOUT:g} s"
        text = f"{type(error).__name__}: {error}"
        for value in _passwords(self._redis):
            text = text.replace(value, "**********")
        return text

    def _key(self, request: LeaseRequest, record: str) -> str:
        # All of one scope are in one slot of a Redis Cluster: it hashes what is in braces.
        owner = f"{quote(self._prefix, safe=' ')}:{quote(self._organization, safe=' ')}"
        return f"{{{owner}:{quote(request.scope, safe='/:')}}}:{quote(record, safe='/ ')}"

    async def _run(self, request: LeaseRequest) -> Any:
        keys = self._key(request, request.record), self._key(request, request.operation)
        arguments = (*keys, *_arguments(request))
        try:
            return await cast("Coroutine[Any, Any, Any]", self._redis.evalsha(self._digest, 2, *arguments))
        except NoScriptError:  # Redis is new, or was restarted
            return await cast("Coroutine[Any, Any, Any]", self._redis.eval(self._script, 2, *arguments))

    async def _within_time(self, call: Coroutine[Any, Any, Any]) -> Any:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        task = loop.create_task(call)
        try:
            # Redis counts as unavailable if it is silent. While it answers others, it is only busy, or this process is.
            while (due := min(max(begun, self._answered_at), begun + _BUSY) + _TIMEOUT) > loop.time():
                await asyncio.wait([task], timeout=due - loop.time())
                if task.done():
                    break
            if not task.done() and loop.time() - due > _LENIENCY:
                await asyncio.wait([task], timeout=_LENIENCY)
            if task.done():
                self._answered_at = loop.time()
                return task.result()
        finally:
            if not task.done():
                self._late.add(task)
                task.add_done_callback(self._forget)
                task.cancel()
        raise TimeoutError

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # it came too late to matter


def _has_utf_8(text: str) -> bool:
    """Return whether a text can be sent. A lone surrogate cannot, such as that of a variable with another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _make_redis(source: Secret | Redis | RedisCluster | None, kind: str) -> Redis | RedisCluster:
    if source is None:
        msg = f"redis must be a URL, as str, or a redis.asyncio.Redis, not {kind}"
        raise ConfigurationError(msg)
    if not isinstance(source, Secret):
        return source
    try:
        # One attempt: the circuit decides when there is another. The time is bounded here, not by redis-py's timers.
        pool = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] - as above
            source.reveal(),
            max_connections=_CONNECTIONS,
            timeout=None,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
        )
        # It connects later. An option of the URL that redis-py refuses is refused now.
        pool.make_connection()  # type: ignore[no-untyped-call] # redis-py leaves it open
    except (ValueError, TypeError, AttributeError, RedisError):
        msg = (
            "redis must be a URL such as redis://localhost:6379/0, rediss://... or unix://..., with options of redis-py"
        )
    else:
        return Redis.from_pool(pool)
    raise ConfigurationError(msg)


def _passwords(redis: Redis | RedisCluster) -> list[str]:
    pool = getattr(redis, "connection_pool", None)
    settings: dict[str, Any] = getattr(pool, "connection_kwargs", {})
    return [str(settings[name]) for name in ("password", "username") if settings.get(name)]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3f}"


def _arguments(request: LeaseRequest) -> list[str]:
    """Put a request into the order that the script has."""
    probe = "" if request.probe_answered is None else "answered" if request.probe_answered else "failed"
    arguments = [
        request.record,
        *map(str, (request.window, request.finished, request.returned, request.needed, request.wanted)),
        *map(str, (request.reserve, probe, _milliseconds(request.pause))),
    ]
    view = request.view
    if view is not None:
        arguments += [str(view.limit), _milliseconds(view.period), str(view.remaining)]
        arguments += [_milliseconds(view.ends_in), _milliseconds(view.uncertainty)]
    return arguments


def _read(reply: Any) -> Lease:
    """Make a lease of the script's reply: the record, then whole numbers, times in milliseconds."""
    record, *rest = cast("list[Any]", reply)
    name = record.decode() if isinstance(record, bytes) else str(record)
    if not rest:
        return Lease(record=name)
    window, granted, left, ends_in, limit, period, is_probe, is_probing, paused, is_far, is_tight, clients = map(
        int, rest
    )
    return Lease(
        record=name,
        window=window,
        granted=granted,
        left=left if limit else None,
        ends_in=ends_in / 1000,
        limit=limit or None,
        period=period / 1000 or None,
        is_probe=bool(is_probe),
        is_probing=bool(is_probing),
        paused_for=paused / 1000,
        is_far=bool(is_far),
        is_tight=bool(is_tight),
        clients=clients,
    )
