"""The README: every example runs, through the real client, against a fake Datadog; only the base URL is another."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.internals import replace_base_url

from benchmarks import report
from benchmarks.__main__ import PARTS
from dd_sa_tokens._endpoint import read_base_url
from dd_sa_tokens.testing import FakeDatadog

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"

SHELL = {"sh", "bash", "shell", "console"}


@attrs.frozen
class Block:
    """A fenced block.

    Attributes:
        language: What stands behind its fence.
        line: The number of its first line.
        text: What is in it.
        heading: The heading that it stands under.
    """

    language: str
    line: int
    text: str
    heading: str


def read_blocks() -> list[Block]:
    """Read the README's fenced blocks."""
    if not README.exists():
        pytest.fail("there is no README.md yet")
    blocks: list[Block] = []
    heading, language, begun, lines = "", None, 0, list[str]()
    for number, line in enumerate(README.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```") and language is None:
            language, begun, lines = line.strip("` ").split(" ")[0], number + 1, []
        elif line.startswith("```") and language is not None:
            blocks.append(Block(language, begun, "\n".join(lines), heading))
            language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    assert language is None, f"the block that begins at line {begun} does not end"
    return blocks


def examples() -> list[Block]:
    """Return the README's examples in Python."""
    return [block for block in read_blocks() if block.language in {"python", "py", "pycon"}]


def is_test(block: Block) -> bool:
    """Return whether an example is a test, for pytest to run."""
    return re.search(r"^(async )?def test_", block.text, re.MULTILINE) is not None


async def run(block: Block, names: dict[str, Any]) -> None:
    """Run an example. What it defines is there for the next one."""
    source = "\n" * (block.line - 1) + block.text  # so that tracebacks show the README's line numbers
    code = compile(source, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, names)
    else:
        # In a thread, where it can have a loop of its own, as `asyncio.run` wants.
        await asyncio.to_thread(exec, code, names)


def test_there_are_examples() -> None:
    """The README shows the three main calls, and a test of one's own."""
    text = "\n".join(block.text for block in examples())

    for call in ("get_token(", "get_tokens(", "stream_tokens(", "FakeDatadog("):
        assert call in text


async def test_every_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block runs, in order, as a reader would paste it."""
    blocks = [block for block in examples() if not is_test(block)]
    async with FakeDatadog(tokens=60, rate_limit=(100_000, 10.0)) as datadog:
        monkeypatch.setenv("DD_API_KEY", datadog.api_key)
        monkeypatch.setenv("DD_APP_KEY", datadog.app_key)

        def elsewhere(site: Any = None, base_url: str | None = None, **more: Any) -> str:
            """Check what was given as ever, and then go to the fake; a fake that the example made itself is fine."""
            url = read_base_url(site, base_url, **more)
            return url if base_url is not None and url.startswith("http://127.0.0.1:") else datadog.url

        replace_base_url(monkeypatch, elsewhere)
        names: dict[str, Any] = {"__name__": "__main__"}
        for block in blocks:
            token_ids = list(datadog.token_ids)
            names |= {
                "service_account_id": datadog.service_account_id,
                "token_ids": token_ids,
                "token_id": token_ids[0],
            }
            try:
                async with asyncio.timeout(20):
                    await run(block, names)
            except Exception as error:
                error.add_note(f"in the example at README.md:{block.line}")
                raise
        assert datadog.requests > 0
        assert datadog.rejected == 0


def test_every_example_test_passes(tmp_path: Path) -> None:
    """Every pytest example passes as it stands, in a file of its own, with warnings as errors."""
    blocks = [block for block in examples() if is_test(block)]
    assert blocks
    for block in blocks:
        (tmp_path / f"test_readme_{block.line}.py").write_text(block.text, encoding="utf-8")
    settings = ["asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function"]
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    options += [part for setting in settings for part in ("-o", setting)]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DD_", "PYTEST_"))}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_setting_up_is_two_commands() -> None:
    """Under "Set up" there are exactly two commands, of one line each: one sees it work, the other runs the tests."""
    blocks = [
        block for block in read_blocks() if block.heading.lower() in {"set up", "setup"} and block.language in SHELL
    ]

    assert len(blocks) == 2
    for block in blocks:
        assert len(block.text.strip().splitlines()) == 1
        assert not block.text.rstrip().endswith("\\")


def test_the_test_command_is_one_line() -> None:
    """One command, on one line, runs the tests."""
    commands = [block.text.strip() for block in read_blocks() if block.language in SHELL and "pytest" in block.text]

    assert len(commands) == 1
    assert "\n" not in commands[0]


def test_each_test_that_is_named_exists() -> None:
    """Every test that the README names as proof is there, under that name."""
    named = set(re.findall(r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?", README.read_text(encoding="utf-8")))
    assert named
    for file, name in named:
        source = (REPOSITORY / "tests" / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^(?:async def|def|class) {name}\b|^{name} = ", source, re.MULTILINE), name


def test_the_figures_are_those_of_the_results() -> None:
    """The tables of benchmarks/README.md are those that the JSON of the last run gives, and no part is missing."""
    text = report.README.read_text(encoding="utf-8")
    reports = report.load(report.RESULTS)
    assert re.findall(r"<!-- figures: (\w+) -->", text) == list(PARTS)
    assert {one.part for one in reports} == set(PARTS)
    assert text == report.with_figures(text, reports)


@pytest.mark.parametrize("page", [README, report.README], ids=["README.md", "benchmarks/README.md"])
def test_every_picture_is_there(page: Path) -> None:
    """Each picture that a page shows is in the repository, and has a text for readers who do not see it."""
    for text, path in re.findall(r"!\[(.*?)\]\((.*?)\)", page.read_text(encoding="utf-8")):
        assert text
        assert (page.parent / path).is_file(), path
