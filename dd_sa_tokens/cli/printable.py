"""Text that others chose, made harmless to look at: on a terminal, in the report, and in a spreadsheet."""

from __future__ import annotations

import unicodedata

# Both only join or part the letters and emoji beside them; some scripts cannot be written without.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def printable(text: str) -> str:
    """Replace what a terminal would obey, what breaks a line or turns it round, and what has no UTF-8 form."""
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"
