"""aiohttp's exceptions as ours: what to tell, and what became of the request."""

from __future__ import annotations

import aiohttp

from dd_sa_tokens._wire import Failure, Fate
from dd_sa_tokens.errors import RequestTimeoutError, TransportError

from .body import LARGEST_BODY, TooLargeError

# The most specific first. What an exception of aiohttp says is not repeated: it may quote what the server sent.
_FAILURES: tuple[tuple[type[BaseException], str, Fate], ...] = (
    (TooLargeError, f"the body is larger than {LARGEST_BODY // 1024 // 1024} MiB", Fate.FINAL),
    (aiohttp.InvalidURL, "the URL is refused by the HTTP library", Fate.REFUSED),
    (aiohttp.ClientConnectorCertificateError, "the server's TLS certificate is not valid for it", Fate.REFUSED),
    (aiohttp.ClientConnectorSSLError, "no TLS connection could be made", Fate.NOT_SENT),
    (aiohttp.ServerFingerprintMismatch, "the server's TLS certificate is not the expected one", Fate.REFUSED),
    (aiohttp.ClientConnectorDNSError, "the host name could not be resolved", Fate.NOT_SENT),
    (aiohttp.ClientProxyConnectionError, "the proxy could not be reached", Fate.NOT_SENT),
    (aiohttp.ClientHttpProxyError, "the proxy refused the connection", Fate.NOT_SENT),
    (aiohttp.ClientConnectorError, "no connection could be made", Fate.NOT_SENT),
    (aiohttp.ServerDisconnectedError, "the server closed the connection without an answer", Fate.UNKNOWN),
    (aiohttp.ClientPayloadError, "the answer's body was cut short or garbled", Fate.UNKNOWN),
    (aiohttp.ClientResponseError, "the answer is not HTTP", Fate.UNKNOWN),
    (TimeoutError, "the session's own timeout ran out", Fate.UNKNOWN),
    (aiohttp.ClientError, "the connection failed", Fate.UNKNOWN),
    (OSError, "the connection failed", Fate.UNKNOWN),
    (RuntimeError, "the session failed; was it made under another event loop?", Fate.FINAL),
    (Exception, "the session failed", Fate.FINAL),  # a middleware of a borrowed session, say
)


def explain(error: Exception) -> Failure:
    """Return the failure that an exception means."""
    kind, text, fate = next(row for row in _FAILURES if isinstance(error, row[0]))
    text += _fault_of_certificate(error)
    cls = RequestTimeoutError if kind is TimeoutError else TransportError
    return Failure(cls(f"{text} ({type(error).__name__})"), fate)


def _fault_of_certificate(error: Exception) -> str:
    """Say what is wrong with a certificate, in the TLS library's words, which quote nothing that the server sent."""
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else None
    reason = getattr(cause, "verify_message", "")
    return f": {reason}" if reason else ""
