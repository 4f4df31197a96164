"""Answers as HTTP responses, and what faults do to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import web

from ._answers import Answer, RefusedError, error
from ._faults import Fault

_WITH_BODIES = ("POST", "PATCH")


def plain_headers(now: float) -> dict[str, str]:
    """Return the headers that every answer has. `now` is the server's time, in seconds since the epoch."""
    return {"Content-Type": "application/vnd.api+json", "Date": _http_date(int(now))}


def respond(answer: Answer, headers: Mapping[str, str]) -> web.Response:
    """Return an answer as a response."""
    response = web.Response(status=answer[0], body=answer[1], headers=headers)
    if answer[0] == 204:
        del response.headers["Content-Type"]
    return response


async def read_body(request: web.BaseRequest) -> bytes:
    """Read the body of a request that may have one.

    Raises:
        RefusedError: The body is too large or incomplete.
    """
    if request.method not in _WITH_BODIES:
        return b""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        refusal = (413, "the body must be at most 1 MiB")
    except (ConnectionError, web.RequestPayloadError):  # the client has gone, or the compression is broken
        refusal = (400, "the body must be complete")
    raise RefusedError(*refusal)


def replace_answer(fault: Fault, headers: Mapping[str, str]) -> web.Response:
    """Answer with a scripted status as a proxy in front would, which counts no requests and knows no rate limit."""
    assert fault.status is not None
    if fault.body is None:
        response = respond(error(fault.status), headers)
    else:
        response = respond((fault.status, fault.body), {**headers, "Content-Type": "text/html"})
    response.headers.update(fault.headers)
    return response


async def apply_fault(
    fault: Fault,
    request: web.BaseRequest,
    answer: Answer,
    headers: Mapping[str, str],
    pause: Callable[[float], Awaitable[None]],
) -> web.Response:
    """Delay an answer, cut it short, or close the connection instead.

    Args:
        fault: The fault.
        request: The request that has met it.
        answer: The answer of the operation, which has been carried out.
        headers: The headers of the answer.
        pause: Sleeps for a number of seconds, or until the server ends.
    """
    status, body = answer
    if fault.stall is not None:
        await pause(fault.stall)
    if (fault.drop or (fault.truncate and not body)) and request.transport is not None:
        request.transport.close()  # so that the response below is not sent
    if not fault.truncate:
        return respond(answer, headers)
    response = respond((status, body[: len(body) // 2]), {**headers, "Content-Length": str(len(body))})
    response.force_close()
    return response


@lru_cache(maxsize=8)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
