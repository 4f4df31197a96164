"""Certificate authorities of one's own, and who trusts them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import trustme


def make_authority(host: str, *, ended: bool = False) -> tuple[trustme.CA, ssl.SSLContext]:
    """Return an authority, and the context of a server that has its certificate for a host."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    now = datetime.now(UTC)
    end = now - timedelta(days=1) if ended else now + timedelta(days=1)
    authority.issue_cert(host, not_before=now - timedelta(days=2), not_after=end).configure_cert(context)
    return authority, context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Return the context of a client that trusts an authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
