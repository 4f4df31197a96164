"""Masks a secret in a stream of bytes, also where it is encoded, has line breaks, or comes in pieces. No I/O."""

from __future__ import annotations

import re

from dd_sa_tokens._rotation.store import forms_of
from dd_sa_tokens.models import Secret

_MASK = b"**********"
_LONGEST_GAP = 40  # bytes of whitespace between two characters: base64 comes in lines, and these may be indented


class SecretMask:
    """Masks a secret. Text that may be the beginning of it is held back until more has come.

    Args:
        key: The secret. It is masked as it is, percent-encoded and in base64.
    """

    def __init__(self, key: Secret) -> None:
        forms = [form.encode() for form in sorted(forms_of(key.reveal()), key=len, reverse=True)]
        self._pattern = re.compile(b"|".join(map(_with_gaps, forms)))
        self._beginnings = {form[:size] for form in forms for size in range(1, len(form))}
        self._longest = len(forms[0]) * (1 + _LONGEST_GAP)
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Take a piece of text, and return what can be shown."""
        text = self._pattern.sub(_MASK, self._held + chunk)
        end = self._end_of_shown(text)
        self._held = text[end:]
        return text[:end]

    def end(self) -> bytes:
        """Return what is left at the end of the text."""
        return self._held

    def _end_of_shown(self, text: bytes) -> int:
        """Return where the longest beginning of the secret starts that the text ends with."""
        start = max(0, len(text) - self._longest)
        places = [start + found.start() for found in re.finditer(rb"\S", text[start:])]
        tail = bytes(text[place] for place in places)
        return next((place for at, place in enumerate(places) if tail[at:] in self._beginnings), len(text))


def _with_gaps(form: bytes) -> bytes:
    return (rb"\s{0,%d}" % _LONGEST_GAP).join(re.escape(form[at : at + 1]) for at in range(len(form)))
