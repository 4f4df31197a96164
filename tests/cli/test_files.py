"""Where results go: standard output, devices, pipes, files that are replaced, and files that grow."""

import asyncio
import csv
import io
import json
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import pytest
from support.command_line import EXECUTABLE, Process, python, run, until, within

from dd_sa_tokens import AccessToken, TransportError
from dd_sa_tokens.cli.exit_codes import CommandError
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.cli.io.files import AtomicFile, StreamFile, open_file, open_stdout
from dd_sa_tokens.cli.io.jsonl import ResumableJsonl
from dd_sa_tokens.cli.io.partial import partial_of
from dd_sa_tokens.cli.output import Destination, open_results
from dd_sa_tokens.testing import FakeDatadog

NAMES = ("\u00dcberwachung", "\N{ROCKET}", "caf\u00e9", "\u76e3\u8996", "a\x1b[31mb")


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    """A fake server with tokens whose names are not ASCII."""
    async with FakeDatadog(tokens=[AccessToken(id=f"t{n}", name=name) for n, name in enumerate(NAMES)]) as fake:
        yield fake


# ---- Encodings


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-16", "utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("name", ["jsonl", "json"])
async def test_json_is_valid_in_every_encoding(encoding, name):
    """JSON for a stream that is not UTF-8 has ASCII escapes, so that a parser gets every name back."""
    reading, writing = os.pipe()
    sink = StreamFile("a pipe", writing, encoding)
    async with open_results(Destination(name, None), Messages(), sink=sink) as results:
        for text in NAMES:
            await results.write({"name": text})
    with os.fdopen(reading, encoding=encoding) as file:
        written = await asyncio.to_thread(file.read)
    items = json.loads(written) if name == "json" else [json.loads(line) for line in written.splitlines()]
    assert [item["name"] for item in items] == list(NAMES)
    assert written.isascii() != encoding.startswith("utf-8")


async def test_formats_on_a_standard_output_that_is_not_utf_8(datadog):
    """JSON is valid in cp1252; CSV escapes what the encoding lacks; the page has character references."""
    args = (datadog.service_account_id, "--format")
    options = {"encoding": "cp1252", "PYTHONIOENCODING": "cp1252"}
    items = json.loads((await run(datadog, "list", *args, "json", **options)).out)
    assert [item["name"] for item in items] == list(NAMES)
    rows = list(csv.DictReader(io.StringIO((await run(datadog, "list", *args, "csv", **options)).out, newline="")))
    assert [row["name"] for row in rows[:2]] == ["\u00dcberwachung", "\\U0001f680"]
    page = (await run(datadog, "audit", *args, "html", **options)).out
    assert page.isascii()
    assert "&#220;berwachung" in page


async def test_create_prints_valid_json_in_every_encoding(datadog):
    """The JSON of a new token is valid in an ASCII standard output."""
    args = ("create", datadog.service_account_id, "--name", "\u00dc", "--scope", "x", "--format", "json")
    done = await run(datadog, *args, encoding="ascii", PYTHONIOENCODING="ascii")
    assert json.loads(done.out)["name"] == "\u00dc"


# ---- Standard output, devices and pipes


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_slow_reader_does_not_block_the_loop(monkeypatch, blocking):
    """Writing to a full pipe, in blocking or non-blocking mode, waits while the loop continues, and all arrives."""
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    file = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", file)
    sink, line = open_stdout(), "x" * 4000 + "\n"

    async def write() -> None:
        for _ in range(40):
            await sink.write(line)

    task = asyncio.create_task(write())
    await asyncio.sleep(0.1)
    assert not task.done()
    received = 0
    while received < 40 * len(line):
        received += len(await asyncio.to_thread(os.read, reading, 65536))
    await task
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        await sink.write(line)
    file.close()


@pytest.mark.parametrize("name", ["jsonl", "json", "table"])
async def test_a_reader_that_never_reads_does_not_keep_the_process(tmp_path, name):
    """A signal ends a command although its write to a pipe that nothing reads never returns."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    async with FakeDatadog(tokens=1000) as fake:
        script = f"exec {EXECUTABLE} list {fake.service_account_id} --base-url {fake.url} --format {name} > {pipe}"
        process = await Process.start(fake, "-c", script, program=("bash",))
        await until(lambda: fake.requests >= (10 if name == "table" else 2))
        await asyncio.sleep(0.3)
        process.signal(signal.SIGTERM)
        assert (await process.end()).code == 130
    os.close(reading)


async def test_a_named_pipe_with_a_slow_reader(datadog, tmp_path):
    """`--output` to a named pipe does not stop the requests while its reader is slow, and the pipe stays a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with FakeDatadog(tokens=1000) as fake:
        args = ("list", fake.service_account_id, "--output", str(pipe))
        process = await Process.start(fake, *args)
        reading = await asyncio.to_thread(os.open, pipe, os.O_RDONLY)
        await until(lambda: fake.requests >= 2)  # the first page fills the pipe
        with os.fdopen(reading) as file:
            text = await asyncio.to_thread(file.read)
        assert (await process.end()).code == 0
    assert len(text.splitlines()) == 1000
    assert pipe.is_fifo()


async def test_devices_are_not_replaced(datadog):
    """A device is written to, and stays a device."""
    is_device = Path(os.devnull).is_char_device
    for name in ("csv", "jsonl"):
        args = ("get", datadog.service_account_id, "t0", "t1", "--output", "/dev/null", "--format", name)
        assert (await within(datadog, *args)).code == 0
        assert is_device()


async def test_a_device_that_is_full():
    """A full device is an error of one line."""
    with pytest.raises(CommandError, match="cannot write to /dev/full: No space left on device"):
        async with open_results(Destination("csv", Path("/dev/full")), Messages()):
            pass


# ---- Files that are replaced


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x"])
async def test_list_replaces_its_file(datadog, tmp_path, name):
    """Two runs of `list` leave the results of the second one."""
    file = tmp_path / name
    args = ("list", datadog.service_account_id, "--output", str(file))
    assert (await within(datadog, *args)).code == 0
    once = file.read_bytes()
    assert (await within(datadog, *args)).code == 0
    assert file.read_bytes() == once
    assert b"t4" in once
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("command", ["list", "update"])
async def test_append_adds_lines(datadog, tmp_path, command):
    """With --append each run adds its lines to a jsonl file; other formats and standard output are refused."""
    args = (command, datadog.service_account_id, *(("t0", "--name", "x") if command == "update" else ()))
    file = tmp_path / "x.jsonl"
    for _ in range(2):
        assert (await within(datadog, *args, "--output", str(file), "--append")).code == 0
    assert len(file.read_text().splitlines()) == (2 if command == "update" else 10)
    for more in (("--output", str(tmp_path / "x.csv")), (), ("--output", str(file), "--format", "json")):
        assert (await within(datadog, *args, "--append", *more)).code == 2
    args = ("get", datadog.service_account_id, "t0", "--output", str(file), "--append", "--resume")
    assert (await within(datadog, *args)).code == 2


def limited(size: int) -> dict[int, int]:
    """Return a limit of the size of files, in bytes: a full disk."""
    return {resource.RLIMIT_FSIZE: size}


@pytest.mark.parametrize("format_name", ["csv", "json", "jsonl", "html"])
async def test_a_disk_that_is_full_from_the_start(tmp_path, format_name):
    """If nothing could be written, the file is unchanged, nothing is left beside it, and the message says so."""
    file = tmp_path / "y"
    file.write_text("old")
    command = "audit" if format_name == "html" else "list"
    async with FakeDatadog(tokens=200) as fake:
        args = (command, fake.service_account_id, "--output", str(file), "--format", format_name)
        done = await run(fake, *args, limits=limited(0))
    assert done.code == 1
    lines = done.err.splitlines()
    assert lines[-1] == f"dd-sa-tokens: cannot write to {file}: File too large"
    assert ".partial" not in done.err
    if command == "list":
        assert lines[:-1] == ["y is unchanged; none of the results could be kept"]
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


async def test_a_full_disk_under_a_file_that_grows(datadog, tmp_path):
    """A run that replaces a jsonl file keeps nothing either if nothing could be written."""
    file = tmp_path / "x.jsonl"
    file.write_text("old")
    args = ("get", datadog.service_account_id, "t0", "--output", str(file))
    done = await run(datadog, *args, limits=limited(0))
    assert done.code == 1
    assert done.err.splitlines() == [
        "x.jsonl is unchanged; none of the results could be kept",
        f"dd-sa-tokens: cannot write to {file}.partial: File too large",
    ]
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


async def test_a_disk_that_is_full_later(tmp_path):
    """If some text could be written, the message names the file that has it, and it does have it."""
    file, beside = tmp_path / "y.csv", tmp_path / "y.csv.partial"
    async with FakeDatadog(tokens=300) as fake:
        args = ("list", fake.service_account_id, "--output", str(file))
        done = await run(fake, *args, limits=limited(20_000))
    assert done.code == 1
    assert "y.csv is unchanged; the results so far are in y.csv.partial" in done.err
    assert beside.read_text().startswith("id,name")
    assert list(tmp_path.iterdir()) == [beside]


async def test_an_error_leaves_no_empty_document(tmp_path, capsys):
    """An error before the first result leaves no document, which would look like an empty result."""
    with pytest.raises(TransportError):
        async with open_results(Destination("csv", tmp_path / "x.csv"), Messages()):
            raise TransportError("gone")
    assert list(tmp_path.iterdir()) == []
    for name in ("csv", "json", "table"):
        with pytest.raises(TransportError):
            async with open_results(Destination(name, None), Messages()):
                raise TransportError("gone")
    assert capsys.readouterr() == ("", "")


async def test_a_file_that_cannot_be_moved_into_place(tmp_path):
    """An error at the end is one line, and leaves nothing beside the file."""
    path = tmp_path / "x.csv"
    sink = AtomicFile(path, Messages())
    await sink.write("text")
    path.mkdir()
    with pytest.raises(CommandError, match="Is a directory"):
        sink.finish()
    assert list(tmp_path.iterdir()) == [path]


# ---- Files that grow


def test_a_lock_that_does_not_exist(tmp_path, monkeypatch):
    """On a file system or a platform without locks, the file is used without one."""

    def no_locks(*_args: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    ResumableJsonl(tmp_path / "x.jsonl", Messages(), "resume").finish()
    monkeypatch.setattr("dd_sa_tokens.cli.io.partial.fcntl", None)
    ResumableJsonl(tmp_path / "x.jsonl", Messages(), "resume").finish()


def test_a_rewrite_that_fails_changes_nothing(tmp_path, monkeypatch):
    """If the file cannot be rewritten, the old one stays with all its lines, and nothing beside it."""
    path = tmp_path / "x.jsonl"
    text = '{"id": "a"}\n{"id": "a"}\n'
    path.write_text(text)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    file = ResumableJsonl(path, Messages(), "resume")
    with pytest.raises(CommandError, match="No space left on device"):
        file.finish()
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["replace", "append"])
async def test_two_runs_do_not_share_a_file(datadog, tmp_path, mode):
    """A second run is refused while the first one writes, even if it would only replace the file."""
    path = tmp_path / "x.jsonl"
    first = ResumableJsonl(path, Messages(), "replace")
    await first.write('{"id": "a"}\n')
    with pytest.raises(CommandError, match=r"another run is writing to x\.jsonl"):
        ResumableJsonl(path, Messages(), mode)
    first.finish()
    ResumableJsonl(path, Messages(), mode).finish()


# ---- FILE.partial


def stopped_run(path: Path) -> Path:
    """Leave a .partial with one line beside a file, as a run that was stopped does. All else is written later."""
    beside = path.with_name(f"{path.name}.partial")
    beside.write_text('{"id": "t3"}\n')
    os.utime(beside, (1_700_000_000,) * 2)
    return beside


@pytest.mark.parametrize("old", [None, '{"id": "t1"}\n'])
@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("list",), "x.jsonl"),
        (("list",), "x.csv"),
        (("list", "--append"), "x.jsonl"),
        (("get", "t0"), "x.jsonl"),
        (("get", "t0"), "x.json"),
        (("get", "t0", "--append"), "x.jsonl"),
        (("audit",), "x.html"),
    ],
)
async def test_a_run_that_completes_its_file_removes_an_older_partial(datadog, tmp_path, words, name, old):
    """Each command that writes a file removes the .partial of an earlier run, which is out of date then."""
    file, (command, *more) = tmp_path / name, words
    stopped_run(file)
    if old is not None:
        file.write_text(old)
    done = await within(datadog, command, datadog.service_account_id, *more, "--output", str(file))
    assert done.code == 0, done.err
    assert list(tmp_path.iterdir()) == [file]


async def test_a_stopped_run_without_results_keeps_an_older_partial(datadog, tmp_path):
    """If a run ends before it has written anything, the results of the run before it can still be resumed."""
    file = tmp_path / "x.jsonl"
    beside = stopped_run(file)
    for mode in ("replace", "append"):
        ResumableJsonl(file, Messages(), mode).abandon(empty=True)
    datadog.fail_next(1, status=403)
    assert (await within(datadog, "list", datadog.service_account_id, "--output", str(file))).code == 3
    assert list(tmp_path.iterdir()) == [beside]
    done = await within(datadog, "get", datadog.service_account_id, "t0", "--output", str(file), "--resume")
    assert (done.code, "x.jsonl.partial has 1 tokens already" in done.err) == (0, True)
    assert sorted(json.loads(line)["id"] for line in file.read_text().splitlines()) == ["t0", "t3"]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("mode", ["replace", "append", "resume"])
async def test_a_file_that_grows_makes_an_older_partial_go_away(tmp_path, mode):
    """A stopped run that wrote to the file itself leaves no older .partial: --resume goes on with the file."""
    path = tmp_path / "x.jsonl"
    stopped_run(path)
    if mode != "replace":
        path.write_text('{"id": "t1"}\n')
    file = ResumableJsonl(path, Messages(), mode)
    await file.write('{"id": "t0"}\n')
    assert list(tmp_path.iterdir()) == [path]
    file.abandon(empty=False)
    resumed = ResumableJsonl(path, Messages(), "resume")
    assert resumed.done == {"t0"} | ({"t1"} if mode != "replace" else set())
    resumed.finish()


async def test_resume_prefers_a_newer_file(datadog, tmp_path):
    """A file that another program wrote after the .partial is resumed, and keeps its lines."""
    file = tmp_path / "x.jsonl"
    stopped_run(file)
    file.write_text('{"id": "t1"}\n{"id": "t2"}\n')
    done = await within(datadog, "get", datadog.service_account_id, "t0", "--output", str(file), "--resume")
    assert (done.code, done.err) == (0, "x.jsonl has 2 tokens already; they are not fetched again\n")
    assert sorted(json.loads(line)["id"] for line in file.read_text().splitlines()) == ["t0", "t1", "t2"]
    assert list(tmp_path.iterdir()) == [file]


async def test_a_list_leaves_the_partial_of_a_run_that_goes_on(datadog, tmp_path):
    """A `list` that completes the same file does not take the lines of a `get` that is still writing."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "old"}\n')
    growing = ResumableJsonl(path, Messages(), "replace")
    await growing.write('{"id": "new"}\n')
    assert (await within(datadog, "list", datadog.service_account_id, "--output", str(path))).code == 0
    growing.finish()
    assert path.read_text() == '{"id": "new"}\n'
    assert list(tmp_path.iterdir()) == [path]


# ---- Names


def named(length: int, suffix: str) -> str:
    """Return a file name of a length in bytes."""
    return "\u00e9" * ((length - len(suffix)) // 2) + "e" * ((length - len(suffix)) % 2) + suffix


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("length", [237, 238, 245, 246, 247, 248, 254, 255])
async def test_the_longest_names_work(datadog, tmp_path, suffix, length):
    """A file with the longest name is written, replaced, and resumed after a stop, by each command."""
    file = tmp_path / named(length, suffix)
    account, output = datadog.service_account_id, ("--output", str(file))
    for words in (("list", account), ("get", account, "t0"), ("audit", account), ("list", account)):
        done = await within(datadog, *words, *output)
        assert (done.code, list(tmp_path.iterdir())) == (0, [file]), done.err
    if suffix == ".jsonl":
        stopped = ResumableJsonl(file, Messages(), "replace")
        await stopped.write('{"id": "t1"}\n')
        stopped.abandon(empty=False)
        assert len(list(tmp_path.iterdir())) == 2
        done = await within(datadog, "get", account, "t0", *output, "--resume")
        assert (done.code, list(tmp_path.iterdir())) == (0, [file]), done.err
        assert sorted(json.loads(line)["id"] for line in file.read_text().splitlines()) == ["t0", "t1"]


def test_long_names_that_begin_alike(tmp_path):
    """Two files with long names have different .partial files."""
    one, other = (partial_of(tmp_path / ("x" * 254 + end)) for end in "ab")
    assert one != other
    assert partial_of(tmp_path / "x.jsonl") == tmp_path / "x.jsonl.partial"


@pytest.mark.parametrize(
    ("words", "suffix"),
    [
        *product([("list",), ("get", "t0"), ("audit",), ("update", "t0")], [".jsonl", ".csv", ""]),
        *product([("get", "t0", "--resume"), ("list", "--append")], [".jsonl", ""]),
    ],
)
async def test_names_that_cannot_be_files(datadog, tmp_path, words, suffix):
    """A name that is too long, a loop of links and a file as a directory are usage errors, before a request."""
    loop, file = tmp_path / f"loop{suffix}", tmp_path / "file"
    loop.symlink_to(loop)
    file.write_text("old")
    more = ("--name", "x") if words[0] == "update" else ()
    for path, reason in (
        (tmp_path / named(256, suffix), "File name too long"),
        (loop, "Too many levels of symbolic links"),
        (file / f"x{suffix}", "Not a directory"),
        (tmp_path / "nowhere" / f"x{suffix}", "No such file or directory"),
    ):
        args = (words[0], datadog.service_account_id, *words[1:], *more, "--output", str(path))
        done = await within(datadog, *args)
        assert done.code == 2
        said = re.sub(r"[\s\u2502]", "", done.err)
        assert re.sub(r"\s", "", f"cannot write to {path}: {reason}") in said
    assert datadog.requests == 0
    assert loop.is_symlink()
    assert sorted(tmp_path.iterdir()) == sorted([loop, file])


# ---- Other platforms

WINDOWS = """
import asyncio, os, select, signal, sys, tempfile, uvloop
for module, name in ((os, "fchmod"), (select, "poll"), (signal, "SIGHUP")):
    delattr(module, name)
sys.modules["fcntl"] = None
"""


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "-"])
async def test_functions_that_windows_lacks(datadog, tmp_path, name):
    """Without os.fchmod, select.poll, fcntl and SIGHUP, IDs are read and results are written and resumed."""
    output = str(tmp_path / name) if name != "-" else "-"
    args = ("get", datadog.service_account_id, "--ids-from", "-", "--output", output)
    done = await run(datadog, *args, program=python(WINDOWS), stdin="t0\nt1\n")
    assert (done.code, done.err) == (0, "")
    text = done.out if name == "-" else (tmp_path / name).read_text()
    assert len([line for line in text.splitlines() if "t0" in line or "t1" in line]) == 2
    if name == "x.jsonl":
        done = await run(datadog, *args, "--resume", program=python(WINDOWS), stdin="t1\nt2\n")
        assert done.code == 0
        ids = [json.loads(line)["id"] for line in (tmp_path / name).read_text().splitlines()]
        assert sorted(ids) == ["t0", "t1", "t2"]
    assert len(list(tmp_path.iterdir())) == (name != "-")


async def test_a_command_in_a_pipeline(datadog):
    """A closed standard output and a full one are errors of one line."""
    script = f"{EXECUTABLE} list $0 --base-url {datadog.url} >/dev/full; {EXECUTABLE} list $0 --base-url $2 >&-"
    done = await run(datadog, "-c", script, datadog.service_account_id, program=("bash",))
    assert done.err.splitlines() == [
        "dd-sa-tokens: cannot write to standard output: No space left on device",
        "dd-sa-tokens: cannot write to standard output: it is closed",
    ]
    assert done.code == 1


@pytest.mark.parametrize(
    "words", ["create SA --name n --scope s", "update SA t0 --name n", "ROTATE", "list SA", "demo"]
)
async def test_a_closed_standard_output_is_seen_before_a_request(datadog, words):
    """No token is made, changed or replaced if its result cannot be written."""
    words = words.replace("ROTATE", "rotate SA t0 --store-command cat").replace("SA", datadog.service_account_id)
    url = "" if words == "demo" else f"--base-url {datadog.url}"
    done = await run(datadog, "-c", f"{EXECUTABLE} {words} {url} >&-", program=("bash",))
    assert (done.code, done.err) == (1, "dd-sa-tokens: cannot write to standard output: it is closed\n")
    assert datadog.requests == 0


FULL = """
import io, os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
"""
UNBUFFERED = "sys.stdout = io.TextIOWrapper(io.FileIO(1, 'w', closefd=False), write_through=True)"
FULL_MESSAGE = "dd-sa-tokens: cannot write to standard output: No space left on device"


@pytest.mark.parametrize("first", [FULL, FULL + UNBUFFERED], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        ("--help",),
        ("get", "--help"),
        ("accounts", "--format", "table"),
        ("list", "SA", "--format", "table"),
        ("get", "SA", "t0", "--format", "table"),
        ("get", "--org", "t0", "--format", "table"),
        ("audit", "SA", "--format", "table"),
        ("update", "SA", "t0", "--name", "x", "--format", "table"),
    ],
    ids=" ".join,
)
async def test_a_full_standard_output(datadog, words, first):
    """Help, the version and tables that cannot be written end with one line and code 1."""
    args = [datadog.service_account_id if word == "SA" else word for word in words]
    done = await run(datadog, *args, first=first)
    assert (done.code, done.out, done.err.splitlines()) == (1, "", [FULL_MESSAGE])


@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_the_demo_with_a_full_output_or_error(datadog, unbuffered):
    """A full standard output ends the demo with one line; a full standard error does not stop it."""
    demo = f"{EXECUTABLE} demo --tokens 3"
    script = f"{demo} 2>/dev/full && {demo} >/dev/full"
    done = await run(datadog, "-c", script, program=("bash",), PYTHONUNBUFFERED=unbuffered)
    assert done.code == 1
    assert re.search("^Fetched +3 of 3$", done.out, re.MULTILINE)
    assert done.err.splitlines()[-1] == FULL_MESSAGE


@pytest.mark.parametrize("words", ["get --nope", "get SA --ids-from /dev/null", "list"])
async def test_a_usage_error_with_a_full_error(datadog, words):
    """A usage error keeps its status where standard error cannot take its text."""
    done = await run(datadog, "-c", f"{EXECUTABLE} {words} 2>/dev/full", program=("bash",))
    assert (done.code, done.out, done.err) == (2, "", "")


def test_open_file_of_a_directory(tmp_path):
    """A directory is refused when it is opened."""
    with pytest.raises(OSError, match="directory"):
        open_file(tmp_path, Messages())
