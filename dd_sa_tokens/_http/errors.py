"""aiohttp's exceptions as failures: what to say, and what became of the request."""

from __future__ import annotations

import os
import re
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import aiohttp

from dd_sa_tokens._protocol.headers import Redact
from dd_sa_tokens._protocol.responses import Failure, Retry
from dd_sa_tokens.errors import RequestTimeoutError, TransportError

from .body import LARGEST_BODY, TooLargeError

_LONGEST_REASON = 200
_WITH_HOST = (aiohttp.ClientConnectorError, aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch)
_NOT_USER_CODE = (Path(aiohttp.__file__).parent, Path(__file__).parents[1])
_QUOTED = re.compile(r"(?:b|bytearray\(b)['\"].*", re.DOTALL)  # what aiohttp quotes of an answer
_HEADER_NAME = re.compile(r"b['\"]([A-Za-z0-9-]{1,60})\s*:")
_CONTENT_ENCODING = re.compile(r"(?:Can not decode content-encoding: )?(?:gzip|deflate|br|zstd)")


class _Row(NamedTuple):
    exception: type[BaseException]
    text: str
    retry: Retry
    sent: bool  # whether the request had left, where that was not seen
    of_proxy: str = ""  # the text where a proxy failed, before the request could leave


_NEVER, _BACKOFF = Retry.NEVER, Retry.BACKOFF

# The most specific first.
_TABLE = (
    _Row(TooLargeError, f"the body is larger than {LARGEST_BODY // 1024 // 1024} MiB", _NEVER, sent=True),
    _Row(aiohttp.InvalidURL, "the URL is refused by the HTTP library", _NEVER, sent=False),
    _Row(aiohttp.ClientConnectorCertificateError, "the server's TLS certificate is not valid", _NEVER, sent=False),
    _Row(aiohttp.ClientConnectorSSLError, "no TLS connection could be made", _BACKOFF, sent=False),
    _Row(aiohttp.ServerFingerprintMismatch, "the server's TLS certificate is not the expected one", _NEVER, sent=False),
    _Row(aiohttp.ClientConnectorDNSError, "the host name could not be resolved", _BACKOFF, sent=False),
    _Row(aiohttp.ClientProxyConnectionError, "the proxy could not be reached", _BACKOFF, sent=False),
    _Row(
        aiohttp.ClientHttpProxyError,
        "the proxy refused the connection",
        _BACKOFF,
        sent=False,
        of_proxy="the proxy refused the connection",
    ),
    _Row(aiohttp.ClientConnectorError, "no connection could be made", _BACKOFF, sent=False),
    _Row(aiohttp.ConnectionTimeoutError, "the session's own timeout for connections ran out", _BACKOFF, sent=False),
    _Row(
        aiohttp.ServerDisconnectedError,
        "the server closed the connection without an answer",
        _BACKOFF,
        sent=True,
        of_proxy="the proxy closed the connection without an answer",
    ),
    _Row(aiohttp.ClientPayloadError, "the answer's body was cut short or garbled", _BACKOFF, sent=True),
    _Row(
        aiohttp.ClientResponseError,
        "the answer is not valid HTTP",
        _NEVER,
        sent=True,
        of_proxy="the proxy's answer is not valid HTTP",
    ),
    _Row(TimeoutError, "the session's own timeout ran out", _BACKOFF, sent=True),
    _Row(
        aiohttp.ClientError,
        "the connection failed",
        _BACKOFF,
        sent=True,
        of_proxy="the connection to the proxy failed",
    ),
    _Row(OSError, "the connection failed", _BACKOFF, sent=True),
    _Row(RuntimeError, "the session failed; was it made under another event loop?", _NEVER, sent=True),
    _Row(Exception, "the session failed", _NEVER, sent=True),  # a middleware of a borrowed session, for example
)


def explain(error: Exception, redact: Redact, *, sent: bool | None, proxy: str = "") -> Failure:
    """Return the failure that an exception means.

    Args:
        error: What aiohttp, or code of the user's that it calls, raised.
        redact: Masks the keys in a text.
        sent: Whether the request had left; `None` where that was not seen: then the exception decides.
        proxy: Host and port of the proxy that it goes through; empty for none.
    """
    row = next(row for row in _TABLE if isinstance(error, row.exception) and not _is_garbled(error, row))
    retry, text, details = row.retry, row.text, [_detail(error)]
    if proxy and sent is False and row.of_proxy:  # the proxy was asked for a tunnel, and nothing else was sent
        text, details = row.of_proxy, [proxy, *details]
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        retry = Retry.NEVER
    cls = RequestTimeoutError if issubclass(row.exception, TimeoutError) else TransportError
    sent = row.sent if sent is None else sent
    detail = redact(" ".join(_joined(details).split()))[:_LONGEST_REASON]  # masked before it is cut
    text += (f": {detail}" if detail else "") + f" ({type(error).__name__}{origin_of(error)})"
    return Failure(cls(text), retry, sent=sent, maybe_applied=sent)


def _is_garbled(error: Exception, row: _Row) -> bool:
    """Return whether aiohttp reports a truncated compressed body as invalid HTTP. Another row is right for that."""
    if not isinstance(error, aiohttp.ClientResponseError) or row.exception is not aiohttp.ClientResponseError:
        return False
    return _CONTENT_ENCODING.fullmatch(error.message) is not None


def _detail(error: Exception) -> str:
    """Return what a person needs to act: the host, the operating system's reason, the fault of an answer."""
    if isinstance(error, TooLargeError | aiohttp.InvalidURL | aiohttp.ServerDisconnectedError):
        return ""  # the table's text says it all
    if isinstance(error, aiohttp.ClientPayloadError):
        return ""  # its text may quote what the server sent
    if isinstance(error, aiohttp.ClientResponseError):
        is_proxy = isinstance(error, aiohttp.ClientHttpProxyError)
        return _describe_status(error.status) if is_proxy else _fault_of_answer(error.message)
    where = host_and_port(error.host, error.port) if isinstance(error, _WITH_HOST) else ""
    return _joined([where, _reason(error) if isinstance(error, OSError) else safe_str(error)])


def _joined(details: list[str]) -> str:
    return ", ".join(filter(None, details))


def host_and_port(host: str | None, port: int | None) -> str:
    """Return a host and a port as in a URL, where an IPv6 address has brackets."""
    return f"[{host}]:{port}" if host and ":" in host else f"{host}:{port}"


def _describe_status(status: int) -> str:
    try:
        return f"it answered {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"it answered {status}"


def _reason(error: OSError) -> str:
    """Return the operating system's reason: asyncio puts a text of its own in its place."""
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    for name in ("verify_message", "reason"):  # the TLS library's words, which quote nothing that the server sent
        if isinstance(reason := getattr(cause, name, None), str):
            return reason
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(cause, ConnectionResetError) and not cause.args:
        return "the connection was closed during the TLS handshake"  # asyncio gives no reason
    error = cause if isinstance(cause, OSError) else error
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or safe_str(error)


def _fault_of_answer(message: str) -> str:
    """Return what aiohttp's parser says of an answer, with the header's name, but without the bytes that it quotes."""
    fault = _QUOTED.sub("", message).strip(" :\n")
    header = _HEADER_NAME.search(message)
    if fault.startswith("Got more than"):
        return f"a header or the status line is too long ({fault.removesuffix(' when reading')})"
    return f"{fault}, in the header {header[1]}" if header else fault


def safe_str(error: BaseException) -> str:
    """Return what an exception says."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception of the user's may have a faulty __str__
        return ""


def origin_of(error: BaseException) -> str:
    """Return the file and line in the user's code that raised; empty if aiohttp raised by itself."""
    origin, traceback = "", error.__traceback__
    while traceback is not None:
        file = Path(traceback.tb_frame.f_code.co_filename)
        if not any(file.is_relative_to(folder) for folder in _NOT_USER_CODE) and "asyncio" not in file.parts:
            origin = f" at {file}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return origin
