"""The command line in a terminal: bars, tables, widths and colors."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
from support.command_line import EXECUTABLE, Terminal, keys, plain, run

from dd_sa_tokens import AccessToken
from dd_sa_tokens.testing import FakeDatadog

ESCAPE = "\x1b[31mred"
COLOR = re.compile(r"\x1b\[(?:\d+;)*[349][0-8](?:;\d+)*m")


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    """A fake server with 40 tokens."""
    async with FakeDatadog(tokens=40) as fake:
        yield fake


@pytest.fixture
async def hostile() -> AsyncIterator[FakeDatadog]:
    """A fake server with a token whose name has an escape sequence."""
    async with FakeDatadog(tokens=[AccessToken(id="t0", name=ESCAPE)]) as fake:
        yield fake


async def test_bar_and_table():
    """A terminal gets a bar with the rate limit and a countdown, which is redrawn, and then the table."""
    async with FakeDatadog(tokens=45, rate_limit=(20, 1.0)) as datadog:
        words = ("get", datadog.service_account_id, *datadog.token_ids, "nope", "--strategy", "get", "-v")
        code, text = await Terminal.show(datadog, *words)
    assert code == 1
    assert re.search(r"46/46 tokens .*━+.* rate limit \d+/20 left", text)
    assert len(set(re.findall(r"rate limit 0/20 left, next window in (\d\.\d) s", text))) >= 2
    assert re.search(r"\d\d INFO ", text)
    table = text[text.rindex("\x1b[?25h") :]
    assert [line.split()[0] for line in table.splitlines() if "-" in line.split(" ")[0]][:45] == datadog.token_ids
    assert "1 of 46 tokens failed" in table
    assert "\x1b[" in table  # red
    assert not any(key in text for key in keys(datadog).values())


async def test_a_narrow_terminal_without_colors():
    """At 60 columns every line fits, whole IDs come first, and NO_COLOR removes the colors."""
    async with FakeDatadog(tokens=25) as datadog:
        code, text = await Terminal.show(datadog, "list", datadog.service_account_id, columns=60, NO_COLOR="1")
    assert code == 0
    assert not COLOR.search(text)
    lines = [plain(line) for line in re.split(r"[\r\n]+", text)]
    assert max(map(len, lines)) <= 60
    assert [line.split()[0] for line in lines if re.match(r"[\da-f]{8}-", line)] == datadog.token_ids


async def test_a_wide_terminal_is_used(datadog):
    """A table is as wide as a wide terminal."""
    _, text = await Terminal.show(datadog, "list", datadog.service_account_id, columns=230)
    assert max(len(plain(line)) for line in text.splitlines() if "─" in line) == 230


@pytest.mark.parametrize(
    ("columns", "env"),
    [(80, {"COLUMNS": "4"}), (80, {"COLUMNS": "0"}), (80, {"COLUMNS": "-1"}), (80, {"COLUMNS": "9" * 12}), (1, {})],
)
async def test_impossible_widths(hostile, columns, env):
    """A width that is too small or too large for a table is replaced by the nearest possible one."""
    for command in ("list", "audit"):
        code, text = await Terminal.show(hostile, command, hostile.service_account_id, columns=columns, **env)
        assert code == 0, text
        assert "t0" in text


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("{list} | head -2", False),
        ("{list} --format table | cat", False),
        ("{list} > >(cat)", False),
        ("{list} --format jsonl", False),
        ("{list} > /dev/null", True),
        ("{list} --output /dev/null | cat", True),
    ],
)
async def test_progress_does_not_mix_with_results(command, shown):
    """There is no bar where a pipe's reader, or the results themselves, may write to the same terminal."""
    async with FakeDatadog(tokens=300, latency=0.1) as datadog:
        words = f"{EXECUTABLE} list {datadog.service_account_id} --base-url {datadog.url}"
        screen = Terminal("bash", "-c", f"{command.format(list=words)}; wait", **keys(datadog))
        await asyncio.to_thread(screen.end)
    assert ("rate limit" in screen.text) == shown
    if command.endswith(("head -2", "jsonl")):
        assert all(json.loads(line)["id"] for line in screen.text.splitlines())


async def test_lines_in_a_terminal_have_no_bar(datadog):
    """JSON lines in the terminal itself are not mixed with a bar."""
    words = ("get", datadog.service_account_id, *datadog.token_ids[:3], "--format", "jsonl")
    code, text = await Terminal.show(datadog, *words)
    assert code == 0
    assert [json.loads(line)["id"] for line in text.splitlines()] == datadog.token_ids[:3]


@pytest.mark.parametrize("env", [{}, {"TTY_COMPATIBLE": "0"}, {"FORCE_COLOR": ""}, {"TERM": "dumb"}], ids=str)
@pytest.mark.parametrize("more", [(), ("--output", "/dev/tty")], ids=" ".join)
async def test_csv_in_a_terminal_is_harmless(hostile, env, more):
    """No variable and no way to name the terminal lets an escape sequence of a name reach it."""
    words = ("list", hostile.service_account_id, "--format", "csv", *more)
    _, text = await Terminal.show(hostile, *words, **env)
    assert "\ufffd[31mred" in text
    assert ESCAPE not in text


@pytest.mark.parametrize("env", [{"TTY_COMPATIBLE": "1"}, {"FORCE_COLOR": "1"}], ids=str)
async def test_csv_in_a_pipe_is_exact(hostile, env):
    """No variable changes the data of CSV in a pipe."""
    done = await run(hostile, "list", hostile.service_account_id, "--format", "csv", **env)
    assert ESCAPE in done.out


async def test_progress_after_resume_counts_all_ids(datadog, tmp_path):
    """After --resume the bar counts the tokens of the file as done, and the summary only those of this run."""
    file = tmp_path / "x.jsonl"
    held = [*datadog.token_ids[:30], "another"]
    file.write_text("".join(f'{{"id": "{token_id}"}}\n' for token_id in held))
    words = ("get", datadog.service_account_id, *datadog.token_ids, *datadog.token_ids, "nope")
    _, text = await Terminal.show(datadog, *words, "--output", str(file), "--resume", columns=120)
    assert "41/41 tokens" in plain(text)
    assert "30/41 tokens" in plain(text)
    assert "1 of 11 tokens failed" in plain(text)
