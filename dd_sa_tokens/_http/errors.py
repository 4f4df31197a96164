"""aiohttp's exceptions as failures: what to say, and what became of the request."""

from __future__ import annotations

from typing import NamedTuple

import aiohttp

from dd_sa_tokens._protocol.responses import Failure, Retry
from dd_sa_tokens.errors import RequestTimeoutError, TransportError

from .body import LARGEST_BODY, TooLargeError


class _Row(NamedTuple):
    exception: type[BaseException]
    text: str
    retry: Retry
    sent: bool  # whether the request had left, where that was not seen


_NEVER, _BACKOFF = Retry.NEVER, Retry.BACKOFF

# The most specific first. What an exception of aiohttp says is not repeated: it may quote what the server sent.
_TABLE = (
    _Row(TooLargeError, f"the body is larger than {LARGEST_BODY // 1024 // 1024} MiB", _NEVER, sent=True),
    _Row(aiohttp.InvalidURL, "the URL is refused by the HTTP library", _NEVER, sent=False),
    _Row(
        aiohttp.ClientConnectorCertificateError,
        "the server's TLS certificate is not valid for it",
        _NEVER,
        sent=False,
    ),
    _Row(aiohttp.ClientConnectorSSLError, "no TLS connection could be made", _BACKOFF, sent=False),
    _Row(aiohttp.ServerFingerprintMismatch, "the server's TLS certificate is not the expected one", _NEVER, sent=False),
    _Row(aiohttp.ClientConnectorDNSError, "the host name could not be resolved", _BACKOFF, sent=False),
    _Row(aiohttp.ClientProxyConnectionError, "the proxy could not be reached", _BACKOFF, sent=False),
    _Row(aiohttp.ClientHttpProxyError, "the proxy refused the connection", _BACKOFF, sent=False),
    _Row(aiohttp.ClientConnectorError, "no connection could be made", _BACKOFF, sent=False),
    _Row(aiohttp.ServerDisconnectedError, "the server closed the connection without an answer", _BACKOFF, sent=True),
    _Row(aiohttp.ClientPayloadError, "the answer's body was cut short or garbled", _BACKOFF, sent=True),
    _Row(aiohttp.ClientResponseError, "the answer is not HTTP", _BACKOFF, sent=True),
    _Row(TimeoutError, "the session's own timeout ran out", _BACKOFF, sent=True),
    _Row(aiohttp.ClientError, "the connection failed", _BACKOFF, sent=True),
    _Row(OSError, "the connection failed", _BACKOFF, sent=True),
    _Row(RuntimeError, "the session failed; was it made under another event loop?", _NEVER, sent=True),
    _Row(Exception, "the session failed", _NEVER, sent=True),  # a middleware of a borrowed session, for example
)


def explain(error: Exception, *, sent: bool | None) -> Failure:
    """Return the failure that an exception means.

    Args:
        error: What aiohttp, or a middleware of a borrowed session, raised.
        sent: Whether the request had left; `None` where that was not seen: then the exception decides.
    """
    row = next(row for row in _TABLE if isinstance(error, row.exception))
    text = row.text + _certificate_reason(error)
    cls = RequestTimeoutError if row.exception is TimeoutError else TransportError
    sent = row.sent if sent is None else sent
    return Failure(cls(f"{text} ({type(error).__name__})"), row.retry, sent=sent, maybe_applied=sent)


def _certificate_reason(error: Exception) -> str:
    """Say what is wrong with a certificate, in the TLS library's words, which quote nothing that the server sent."""
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else None
    reason = getattr(cause, "verify_message", "")
    return f": {reason}" if reason else ""
