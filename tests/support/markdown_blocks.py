"""The fenced blocks of a Markdown file."""

from __future__ import annotations

import re
from pathlib import Path


def blocks(path: Path, language: str) -> list[str]:
    """Return the text of the blocks in a language, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def languages(path: Path) -> set[str]:
    """Return the languages of all blocks."""
    return set(re.findall(r"^```(\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
