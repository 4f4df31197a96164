"""The documentation of the fake: each block runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.markdown_blocks import blocks, languages
from support.nested_pytest import ROOT, run_pytest

README = ROOT / "dd_sa_tokens" / "testing" / "README.md"


def test_each_example_passes(tmp_path: Path) -> None:
    """Each Python block is a file under the name in its first line, and pytest passes on all of them together."""
    pytest.importorskip("aioresponses")
    files = {}
    for text in blocks(README, "python"):
        named = re.match(r"# (\w+)\.py\n", text)
        assert named is not None
        files[named[1]] = text
    tests = sum(len(re.findall(r"^(?:async )?def test_", text, re.MULTILINE)) for text in files.values())

    printed = run_pytest(tmp_path, **files)

    assert f"{tests} passed" in printed, printed
    assert tests >= 8


def test_the_command() -> None:
    """The shell block prints what the text block shows, and the table has all options."""
    (command,), (shown,) = blocks(README, "sh"), blocks(README, "text")
    program, *arguments = shlex.split(command)
    assert program == "python"
    lines = shown.splitlines()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            printed = [process.stdout.readline().rstrip("\n") for _ in lines]
        finally:
            process.kill()
    help_text = subprocess.run(
        [sys.executable, "-m", "dd_sa_tokens.testing", "--help"], capture_output=True, text=True, check=True
    ).stdout

    for line, expected in zip(printed, lines, strict=True):
        assert re.fullmatch(r"\S+".join(map(re.escape, expected.split("..."))), line)
    options = set(re.findall(r"--[a-z-]+", help_text)) - {"--help"}
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)) == options


def test_every_block_is_run() -> None:
    """There are no blocks but those that these tests run."""
    assert languages(README) == {"python", "sh", "text"}
