"""Text from the API, made harmless for a terminal, an HTML page and a spreadsheet."""

from __future__ import annotations

import unicodedata

# These two only join or separate the letters and emoji beside them, and some scripts need them.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def printable(text: str) -> str:
    """Replace control characters, line breaks, marks that change the direction of text, and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"
