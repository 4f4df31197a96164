"""Token IDs from files and pipes."""

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.command_line import Process, run, until, within

from dd_sa_tokens.cli.exit_codes import CommandError, ExitCode
from dd_sa_tokens.cli.io.ids import Source, gather, open_ids
from dd_sa_tokens.testing import FakeDatadog


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    """A fake server with three tokens."""
    async with FakeDatadog(tokens=3) as fake:
        yield fake


async def read(source: Source) -> list[str]:
    """Return all IDs of a source."""
    return source if isinstance(source, list) else [token_id async for token_id in source]


def piped(data: bytes) -> int:
    """Return a pipe that holds some data, and then ends."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(data)
    return reading


def stored(data: bytes) -> int:
    """Return a regular file that holds some data."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return os.open(file.name, os.O_RDONLY)


async def test_ids_of_a_pipe_come_as_they_are_written():
    """IDs are taken from a pipe when they arrive, in any pieces, while the loop continues."""
    reading, writing = os.pipe()
    source = gather(["first"], reading)
    assert not isinstance(source, list)
    seen = [await anext(aiter(source))]
    for piece, expected in ((b"a\nb", ["a"]), (b"c\n# no\n", ["bc"]), (b"\xff\n", ["\udcff"]), (b"last", [])):
        os.write(writing, piece)
        seen += [await anext(source) for _ in expected]
    os.close(writing)
    assert [*seen, *[token_id async for token_id in source]] == ["first", "a", "bc", "\udcff", "last"]


@pytest.mark.parametrize("make", [piped, stored])
@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"\xef\xbb\xbf# x\r\n\r\n  a \r\nb\n#end", ["a", "b"]),
        (b"x" * 256 + b"\n", ["x" * 256]),
        ("\u00fc".encode() * 256, ["\u00fc" * 256]),
        (b"# " + b"x" * 40_000 + b"\na\n  #" + b"y" * 10_000, ["a"]),
        (b" " * 40_000 + b"\na\n" + b" " * 10_000, ["a"]),
    ],
    ids=["nothing", "no line break", "comments", "longest", "longest in UTF-8", "long comments", "long blank lines"],
)
async def test_lines(make, data, ids):
    """A line is an ID, without the spaces around it; blank lines and comments of any length are skipped."""
    assert await read(gather([], make(data))) == ids


@pytest.mark.parametrize("make", [piped, stored])
@pytest.mark.parametrize("line", [b"x" * 257, "\u00fc".encode() * 257, b"x" * 50_000], ids=len)
async def test_a_line_that_is_too_long_is_refused(make, line):
    """A line with more than 256 characters is refused with its number, with and without a line break after it."""
    for end in (b"", b"\nb\n"):
        with pytest.raises(CommandError, match="line 3 has more than 256 characters") as caught:
            await read(gather([], make(b"a\n# x\n" + line + end)))
        assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize("is_pipe", [True, False])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
async def test_a_file_in_utf_16(datadog, tmp_path, encoding, is_pipe):
    """A file in UTF-16 is refused as a whole, in one line with its name and the encoding that it must have."""
    text, file = "\r\n".join(datadog.token_ids), tmp_path / "ids.txt"
    file.write_text(text, encoding)
    words = ("--ids-from", "-" if is_pipe else str(file), "--output", str(tmp_path / "x.jsonl"))
    done = await run(datadog, "get", datadog.service_account_id, *words, stdin=text.encode(encoding))
    name = "standard input" if is_pipe else file
    assert done.err == f"dd-sa-tokens: --ids-from: {name} is in UTF-16, and must be in UTF-8\n"
    assert (done.code, done.out, datadog.requests) == (2, "", 0)
    assert [*tmp_path.iterdir()] == [file]


async def test_a_pipe_in_utf_16_that_comes_in_pieces():
    """UTF-16 is refused even if its first two bytes come one by one."""
    reading, writing = os.pipe()
    source = gather(["first"], reading)
    assert not isinstance(source, list)
    assert await anext(source) == "first"
    os.write(writing, b"\xff")
    task = asyncio.create_task(anext(source))
    await asyncio.sleep(0.05)
    os.write(writing, b"\xfea\0\n\0")
    with pytest.raises(CommandError, match="standard input is in UTF-16, and must be in UTF-8"):
        await task
    os.close(writing)


@pytest.mark.parametrize("as_file", [False, True])
async def test_a_huge_file_without_a_line_break(datadog, tmp_path, as_file):
    """80 MB without a line break are refused at once, in little memory, with the number of the line."""
    file = tmp_path / "ids"
    with file.open("wb") as out:
        out.write(b"# comment\n")
        out.truncate(80_000_000)
    args = ("get", datadog.service_account_id, "--ids-from", str(file) if as_file else "/dev/stdin", "--format", "csv")
    little_memory = {resource.RLIMIT_DATA: 400_000_000}  # bytes, of which the command line needs half anyway
    start = time.monotonic()
    process = await Process.start(datadog, *args, limits=little_memory)
    if not as_file:
        assert process.process.stdin is not None
        process.process.stdin.write(b"# comment\n" + b"x" * 1_000_000)
    done = await process.end()
    assert (done.code, done.out, datadog.requests) == (2, "", 0)
    assert done.err == "dd-sa-tokens: --ids-from: line 2 has more than 256 characters, so it is not an ID\n"
    assert time.monotonic() - start < 20


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose reading fails")
async def test_a_file_that_cannot_be_read(datadog):
    """A file that can be opened but not read is a message of one line and code 2."""
    done = await run(datadog, "get", datadog.service_account_id, "--ids-from", "/proc/self/mem")
    assert (done.code, done.out, datadog.requests) == (2, "", 0)
    assert done.err == "dd-sa-tokens: --ids-from: cannot read the IDs: Input/output error\n"


async def test_a_pipe_that_cannot_be_read_further(monkeypatch):
    """An error in the middle of a pipe has code 2 as well."""
    reading, writing = os.pipe()
    source = gather([], reading)
    assert not isinstance(source, list)

    def fail(*_args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("dd_sa_tokens.cli.io.ids.read_chunk", fail)
    with pytest.raises(CommandError, match="cannot read the IDs: Input/output error") as caught:
        await anext(source)
    assert caught.value.code == ExitCode.USAGE
    os.close(writing)


async def test_a_pipe_in_non_blocking_mode():
    """A pipe that another process switched to non-blocking mode is waited for."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    source = gather(["first"], reading)
    assert not isinstance(source, list)
    assert await anext(source) == "first"
    os.write(writing, b"a\n")
    assert await anext(source) == "a"
    os.close(writing)
    assert [token_id async for token_id in source] == []


async def test_a_closed_standard_input(datadog, monkeypatch):
    """Without a standard input, `--ids-from -` ends with code 2."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", None)
        with pytest.raises(CommandError, match="there is no standard input"):
            open_ids("-")
    for name in ("/nonexistent", "/"):
        done = await within(datadog, "get", datadog.service_account_id, "--ids-from", name)
        assert (done.code, done.out, datadog.requests) == (2, "", 0)
        assert f"cannot read {name}" in done.err


@pytest.mark.parametrize("text", ["", "\n\r\n  \n# no ID\n"])
@pytest.mark.parametrize("is_pipe", [True, False])
async def test_a_file_without_ids(datadog, tmp_path, text, is_pipe):
    """A file without IDs is invalid usage. It makes no file of results, and changes none that is there."""
    ids, new, old = tmp_path / "ids", tmp_path / "new.jsonl", tmp_path / "old.jsonl"
    ids.write_text(text)
    old.write_text('{"id": "t"}\n')
    for file in (new, old):
        words = ("--ids-from", "-" if is_pipe else str(ids), "--output", str(file))
        done = await run(datadog, "get", datadog.service_account_id, *words, stdin=text)
        assert (done.code, done.out, datadog.requests) == (2, "", 0)
        assert "the file has no IDs" in done.err
    assert sorted(tmp_path.iterdir()) == [ids, old]
    assert old.read_text() == '{"id": "t"}\n'


def descriptors() -> set[int]:
    """Return the file descriptors that are open."""
    found: set[int] = set()
    for number in range(256):
        with suppress(OSError):
            os.fstat(number)
            found.add(number)
    return found


async def test_descriptors_are_closed(datadog):
    """Reading IDs leaves no file open, neither after the last ID nor after the first."""
    before = descriptors()
    assert await read(gather([], piped(b"a\nb\n"))) == ["a", "b"]
    assert await read(gather([], stored(b"a\nb\n"))) == ["a", "b"]
    source = gather([], piped(b"a\nb\n"))
    assert not isinstance(source, list)
    assert await anext(source) == "a"
    await source.aclose()
    await until(lambda: descriptors() == before)
