"""Words for tokens in messages."""

from __future__ import annotations

from dd_sa_tokens.models import AccessToken


def describe(token: AccessToken) -> str:
    """Return the name and the ID of a token, for a sentence."""
    return f"{token.name!r} ({token.id})" if token.name else token.id
