"""The parts of the command line, by themselves: documents, tables, files, IDs, and how anything ends."""

import asyncio
import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest
import typer
from rich.console import Console
from support.command_line import EXECUTABLE, environment, keys, until, within
from typer.testing import CliRunner

from dd_sa_tokens import AccessToken, DatadogError, NotFoundError, TransportError, cli
from dd_sa_tokens.cli import changes, get, output, rotate
from dd_sa_tokens.cli.app import guarded
from dd_sa_tokens.cli.command import Run, Shared
from dd_sa_tokens.cli.console import Messages, log_to
from dd_sa_tokens.cli.formats import FIELDS, flat, make_format
from dd_sa_tokens.cli.ids import gather, open_ids
from dd_sa_tokens.cli.outcome import CommandError, ExitCode, Tally
from dd_sa_tokens.cli.output import Destination, choose_destination, open_output, open_sink
from dd_sa_tokens.cli.records import Csv, to_json
from dd_sa_tokens.cli.resume import LinesFile
from dd_sa_tokens.cli.sinks import Stdout
from dd_sa_tokens.cli.times import parse_moment, parse_span
from dd_sa_tokens.testing import FakeDatadog

app_module = import_module("dd_sa_tokens.cli.app")  # the package has a name `app`, too

SECRET = "canary-0123456789abcdef"
TOKEN = AccessToken(
    id="t1",
    name="=a\x1b[31m, 'b'",
    scopes=("x", "y"),
    created_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    expires_at=datetime(2026, 3, 1, 2, tzinfo=UTC).astimezone(),
)
FAILURE = NotFoundError("not\x1bfound", status=404)


def plain(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None, highlight=False)


def document(name: str, width: int = 100, *, empty: bool = False) -> str:
    """Write a document of one token and one failure, or of nothing."""
    written = make_format(name, plain(width))
    items = [] if empty else [written.token(TOKEN), written.failure("t\x1b2", FAILURE)]
    return "".join([written.begin(), *items, written.end()])


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """The lines that were said, once the test reads them."""
    lines: list[str] = []

    class Lines(list[str]):
        def __iter__(self) -> Iterator[str]:
            lines.extend(capsys.readouterr().err.splitlines())
            return iter(lines)

    return Lines()


@pytest.fixture
def quiet_logger(monkeypatch):
    """Put the library's logger back afterwards."""
    logger = logging.getLogger("dd_sa_tokens")
    monkeypatch.setattr(logger, "handlers", [])
    level = logger.level
    yield logger
    logger.setLevel(level)


def test_documents_of_nothing_parse():
    """A document without items is a document nevertheless."""
    assert document("jsonl", empty=True) == ""
    assert json.loads(document("json", empty=True)) == []
    assert list(csv.DictReader(io.StringIO(document("csv", empty=True)))) == []
    assert document("table", empty=True) == ""


def test_json_has_flat_fields_and_iso_dates():
    """Dates are ISO 8601 in UTC, scopes an array, what is missing null, in the order of AccessToken's fields."""
    token, failure = json.loads(document("json"))
    assert tuple(token) == FIELDS
    assert token["created_at"] == "2026-01-02T03:04:05.000006Z"
    assert token["expires_at"] == "2026-03-01T02:00:00Z"
    assert (token["scopes"], token["last_used_at"]) == (["x", "y"], None)
    assert failure == {"id": "t\x1b2", "error": {"type": "NotFoundError", "status": 404, "message": "not\x1bfound"}}
    assert [json.loads(line) for line in document("jsonl").splitlines()] == [token, failure]


@pytest.mark.parametrize("text", ["a", "\x1b", "\x9b", "\u2028", "\ud800", "\U000e0001", "\u202e \N{ROCKET}", '"\\\n'])
def test_json_is_printable_and_exact(text):
    """What is not printable is escaped in JSON, what is printable stands as it is, and a parser gets all of it back."""
    written = to_json({"x": text})
    assert written.isprintable()
    assert json.loads(written) == {"x": text}
    assert not text.isprintable() or json.dumps(text, ensure_ascii=False) in written


def test_csv_parses_with_its_own_parser():
    """Each row has all columns; the token's are empty where there is an error, and the other way round."""
    token, failure = csv.DictReader(io.StringIO(document("csv"), newline=""), strict=True)
    assert token["name"] == f"'{TOKEN.name}"
    assert token["scopes"] == "x y"
    assert token["created_at"] == "2026-01-02T03:04:05.000006Z"
    assert failure["error_status"] == "404"
    assert set(token) == {*FIELDS, "error_type", "error_status", "error_message"}
    assert None not in token.values()


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (160, ["Name", "Public", "portion", "Scopes", "Last", "used", "Expires"]),
        (100, ["Name", "Scopes", "Last", "used", "Expires"]),
        (80, ["Name", "Last", "used", "Expires"]),
        (60, ["Name", "Expires"]),
    ],
)
def test_tables_fit_the_terminal(width, titles):
    """A narrow terminal shows fewer columns, every line fits, and nothing in it steers the terminal."""
    lines = document("table", width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["ID", *titles]
    assert "".join(lines).isprintable()
    assert "=a\N{REPLACEMENT CHARACTER}[31m" in lines[2]
    assert lines[4].split() == ["ID", "Status", "Error"]


def test_long_ids_are_wrapped_not_cut():
    """An ID is there as a whole, however long it is."""
    tables = make_format("table", plain(60))
    tables.token(AccessToken(id="0123456789" * 9, name="x"))
    assert sum(char.isdigit() for char in tables.end()) == 90


@pytest.mark.parametrize(
    ("format_name", "file", "expected"),
    [
        (None, None, "jsonl"),
        (None, "-", "jsonl"),
        (None, "x.csv", "csv"),
        (None, "x.JSON", "json"),
        (None, "x.jsonl", "jsonl"),
        (None, "x", "jsonl"),
        ("table", "x.csv", "table"),
        ("csv", None, "csv"),
    ],
)
def test_choice_of_format(format_name, file, expected):
    """What was asked for, else what the suffix says, else JSON lines where there is no terminal."""
    assert choose_destination(format_name, file).format == expected


def test_choice_of_format_on_a_terminal(monkeypatch):
    """On a terminal a table is the default, but not in a file."""
    monkeypatch.setattr(output, "stdout_is_terminal", lambda: True)
    assert choose_destination(None, None) == Destination("table", None)
    assert choose_destination(None, None).is_terminal
    assert choose_destination(None, "x").format == "jsonl"


@pytest.mark.parametrize(
    ("text", "span"),
    [("90d", timedelta(days=90)), ("36h", timedelta(hours=36)), ("2w", timedelta(weeks=2))],
)
def test_spans(text, span):
    """Hours, days and weeks."""
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "0d", "1.5d", "1D ", "1y", "\u0661d", "9999999d"])
def test_what_is_no_span(text):
    """Anything else is refused."""
    with pytest.raises(typer.BadParameter):
        parse_span(text)


def test_moments_are_utc_unless_they_say_otherwise():
    """A date alone is its midnight in UTC; an offset is taken as it is."""
    assert parse_moment("2027-01-31") == datetime(2027, 1, 31, tzinfo=UTC)
    assert parse_moment("2027-01-31T12:00+02:00") == datetime(2027, 1, 31, 10, tzinfo=UTC)
    with pytest.raises(typer.BadParameter):
        parse_moment("soon")


async def test_ids_of_a_pipe_come_as_they_are_written():
    """IDs are taken from a pipe when they come, in whatever pieces, while other tasks go on."""
    reading, writing = os.pipe()
    source = gather(["first"], reading)
    assert not isinstance(source, list)
    seen: list[str] = []

    async def read() -> None:
        async for token_id in source:
            seen.append(token_id)  # noqa: PERF401 - to be looked at meanwhile

    task = asyncio.create_task(read())
    for piece, expected in ((b"a\nb", "a"), (b"c\n# no\n", "bc"), (b"\xff\n", "\udcff"), (b"last", None)):
        os.write(writing, piece)
        if expected is not None:
            await until(lambda expected=expected: seen[-1:] == [expected])
    os.close(writing)
    await task
    assert seen == ["first", "a", "bc", "\udcff", "last"]


async def test_ids_that_cannot_be_read(monkeypatch):
    """What goes wrong on the way is one line."""

    def fail(*_args: object) -> None:
        raise OSError(5, "Input/output error")

    reading, writing = os.pipe()
    source = gather([], reading)
    assert not isinstance(source, list)
    os.write(writing, b"a\n")
    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(CommandError, match="cannot read the IDs: Input/output error"):
        await anext(aiter(source))
    os.close(writing)


def test_ids_of_a_closed_standard_input(monkeypatch):
    """Without a standard input, - is a usage error."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(typer.BadParameter, match="there is no standard input"):
        open_ids("-")


async def test_a_slow_reader_does_not_hold_up_the_loop(monkeypatch):
    """While a pipe is full, writing waits without blocking: other tasks go on, and all arrives."""
    reading, writing = os.pipe()
    file = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", file)
    sink, line = Stdout(), "x" * 4000 + "\n"

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
    with suppress(BrokenPipeError):
        file.close()


@pytest.mark.parametrize("name", ["csv", "jsonl"])
async def test_a_file_that_cannot_be_written_any_more(tmp_path, name):
    """A full disk is one line, whatever is written then; and nothing is left beside the file."""
    path = tmp_path / "x"
    sink = open_sink(Destination(name, path), Messages())
    sink._file.close()
    sink._file = Path("/dev/full").open("r+b" if name == "jsonl" else "w")  # noqa: ASYNC230, SIM115 - the sink's own, and it closes it
    with pytest.raises(CommandError, match=r"cannot write \S+: No space left on device"):
        await sink.write("x" * 100_000)
    sink.abandon(empty=False)
    assert sink._file.closed
    assert [each.name for each in tmp_path.iterdir()] == (["x"] if name == "jsonl" else [])


async def test_a_device_that_is_full(stderr):
    """A device that takes nothing more is one line, too."""
    with pytest.raises(CommandError, match="cannot write /dev/full: No space left on device"):
        async with open_output(Destination("csv", Path("/dev/full")), Messages()):
            pass
    assert list(stderr) == []


async def test_an_error_leaves_no_empty_document(tmp_path, capsys):
    """Where nothing had come when it ended, there is no document that could be taken for an empty answer."""
    with pytest.raises(TransportError):
        async with open_output(Destination("csv", tmp_path / "x.csv"), Messages()):
            raise TransportError("gone")
    assert list(tmp_path.iterdir()) == []
    for name in ("csv", "json", "table"):
        with pytest.raises(TransportError):
            async with open_output(Destination(name, None), Messages()):
                raise TransportError("gone")
    assert capsys.readouterr().out == ""


def test_a_lock_that_is_not_there(tmp_path, monkeypatch):
    """Where the file system has no locks, the file is used without one."""

    def no_locks(*_args: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    LinesFile(tmp_path / "x.jsonl").finish()
    monkeypatch.setattr("dd_sa_tokens.cli.resume.fcntl", None)
    LinesFile(tmp_path / "x.jsonl").finish()


def test_a_rewrite_that_fails_changes_nothing(tmp_path, monkeypatch):
    """If the file cannot be written anew, the old one stays, with all its lines, and nothing beside it."""
    path = tmp_path / "x.jsonl"
    text = '{"id": "a"}\n{"id": "a"}\n'
    path.write_text(text)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    file = LinesFile(path)
    file.one_line_each = True
    with pytest.raises(CommandError, match="No space left on device"):
        file.finish()
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


async def test_get_cancelled(tmp_path, monkeypatch, capsys):
    """A fetch that is cancelled leaves the lines that came, and says how to go on, by whatever way it was started."""
    async with FakeDatadog(tokens=10) as datadog:
        for name, value in keys(datadog).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["/x/dd_sa_tokens/__main__.py", "get", "a b", "--resume"])
        run = Run(Shared(base_url=datadog.url, concurrency=1), Messages())
        for destination, said in (
            (Destination("jsonl", tmp_path / "x.jsonl"), "Resume with the same IDs on standard input: python -m"),
            (Destination("csv", None), "interrupted after 3 tokens; with --output FILE.jsonl a run can be resumed"),
        ):
            sink = open_sink(destination, run.messages)
            known = get._known(sink, run.messages, resume=True)
            fetch = get.Fetch(
                datadog.service_account_id, get.Wanted(datadog.token_ids, known), "get", destination, sink
            )
            datadog.fail_next(3, stall=0.0)
            datadog.fail_next(1, stall=30.0)
            before = datadog.requests
            task = asyncio.create_task(get._get(run, run.client(), fetch, from_stdin=True))
            await until(lambda before=before: datadog.requests == before + 4)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert said in capsys.readouterr().err
    assert (tmp_path / "x.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize(("answer", "code"), [("y\n", 1), ("n\n", 1), ("", 1)])
async def test_revoke_asks(monkeypatch, answer, code):
    """An ID that is not there is said before the question, which is about the others."""
    monkeypatch.setattr(Messages, "can_ask", True)
    async with FakeDatadog(tokens=2) as datadog:
        args = ("revoke", datadog.service_account_id, datadog.token_ids[0], "nope")
        done = await within(datadog, *args, stdin=answer)
        assert done.code == code
        assert "404" in done.err.split("Revoke ")[0]
        assert len(datadog.token_ids) == (1 if answer == "y\n" else 2)
        done = await within(datadog, "revoke", datadog.service_account_id, "nope")
        assert "Revoke" not in done.err
        assert "nothing was revoked" in done.err


async def test_a_secret_that_cannot_be_written(monkeypatch):
    """The token whose secret is lost is named."""

    def closed(_text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(changes, "write_stdout", closed)
    monkeypatch.setattr(app_module, "silence_stdout", lambda: None)
    async with FakeDatadog(tokens=1) as datadog:
        done = await within(datadog, "create", datadog.service_account_id, "--name", "n", "--scope", "s")
        assert done.code == ExitCode.BROKEN_PIPE
        assert datadog.token_ids[-1] in done.err


@pytest.mark.parametrize("name", ["create", "update", "revoke"])
async def test_changes_cancelled(name, monkeypatch):
    """Who interrupts a change is told that it may have been made."""
    args = {
        "create": ("--name", "n", "--scope", "s"),
        "update": ("t1", "--name", "n"),
        "revoke": ("t1", "--yes"),
    }
    method = {"create": "create_token", "update": "update_token", "revoke": "revoke_token"}[name]

    async def cancelled(*_args: object, **_kwargs: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(f"dd_sa_tokens.client.TokensClient.{method}", cancelled)
    async with FakeDatadog(tokens=1) as datadog:
        done = await within(datadog, name, datadog.service_account_id, *args[name])
    assert done.code == 130
    assert done.err.startswith("dd-sa-tokens: interrupted; ")


async def test_rotate_cancelled_and_other_ends(monkeypatch):
    """What a cancellation says in its notes is shown; an error that is not the command's is shown as it is."""
    error = asyncio.CancelledError()
    error.add_note("both work")
    messages: list[str] = []

    async def fails(*_args: object, **_kwargs: object) -> None:
        raise error

    monkeypatch.setattr("dd_sa_tokens.client.TokensClient.rotate_token", fails)
    monkeypatch.setattr(Messages, "fail", lambda _self, text: messages.append(text))
    async with FakeDatadog(tokens=1) as datadog:
        args = ("rotate", datadog.service_account_id, "t1", "--store-command", "true")
        assert (await within(datadog, *args)).code == 130
        error = rotate.RotationError("half way")
        assert (await within(datadog, *args)).code == 1
    assert messages == ["interrupted; both work", "half way"]


async def test_a_store_command_that_will_not_end(monkeypatch):
    """A command that does not end when it is asked to is killed."""
    monkeypatch.setattr(rotate, "_END_WITHIN", 0.3)
    pipe = asyncio.subprocess.PIPE
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    await process.stdout.readline()
    await rotate._end(process)
    assert await process.wait() == -9


def fails_with_a_secret() -> int:
    secret = SECRET
    raise KeyError(secret)


def test_unexpected_errors_are_one_line_without_values(stderr):
    """What nobody foresaw ends with code 1 and one line that names its type, not its text, which may hold a key."""
    assert guarded(fails_with_a_secret, Messages()) == 1
    (line,) = stderr
    assert "unexpected KeyError" in line
    assert "--verbose" in line
    assert SECRET not in line


def test_verbose_shows_where_an_unexpected_error_came_from(stderr):
    """With --verbose the places in the source come before that line; still no value does."""
    assert guarded(fails_with_a_secret, Messages(), 1) == 1
    text = "\n".join(stderr)
    assert "in fails_with_a_secret" in text
    assert "raise KeyError(secret)" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokenPipeError(), 141),
        (KeyboardInterrupt(), 130),
        (CommandError("x"), 1),
        (TransportError("x"), 4),
        (DatadogError("x"), 1),
        (ExceptionGroup("x", [ValueError()]), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_end_has_its_code(error, code, monkeypatch):
    """Whatever is raised becomes an exit code."""
    monkeypatch.setattr(app_module, "silence_stdout", lambda: None)

    def work() -> int:
        raise error

    assert guarded(work, Messages()) == code


def test_all_failures_of_a_kind_give_their_code():
    """The code of single errors is that of all together only where none succeeded and all are alike."""
    tally = Tally()
    assert tally.exit_code == 0
    tally.fail(TransportError("x"))
    assert tally.exit_code == 4
    tally.succeeded += 1
    assert tally.exit_code == 1


def test_what_is_said_is_one_harmless_line(stderr):
    """Escapes, line breaks and marks that turn text round do not reach the terminal; markup is plain text."""
    Messages().fail("a\x1b[31m\nb\u202e [red]c[/red] " + "long " * 40)
    (line,) = stderr
    assert line.startswith("dd-sa-tokens: a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b")
    assert "[red]c[/red]" in line


def test_a_stderr_that_nobody_reads_stops_nothing(monkeypatch):
    """What cannot be said is not said."""
    reading, writing = os.pipe()
    os.close(reading)
    gone = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stderr", gone)
    Messages().say("x")
    with suppress(BrokenPipeError):
        gone.close()


@pytest.mark.parametrize(("verbosity", "shown"), [(0, 0), (1, 1), (2, 2)])
def test_verbosity(quiet_logger, stderr, verbosity, shown):
    """-v shows what is worth knowing, -vv every request; without it nothing is logged."""
    log_to(Messages(), verbosity)
    quiet_logger.info("the quota is spent")
    quiet_logger.debug("GET %s", "/x\x1b")
    lines = list(stderr)
    assert len(lines) == shown
    assert all(line.isprintable() for line in lines)


def test_closed_standard_files_are_filled(monkeypatch):
    """Numbers 0 to 2 are never given to a socket: the null device takes those that are free."""
    opened: list[str] = []

    def fstat(number: int) -> None:
        if number == 1:
            raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        patch.setattr(os, "open", lambda name, _flags: opened.append(name))
        app_module._keep_standard_files()
    assert opened == [os.devnull]


@pytest.mark.parametrize(("error", "code"), [(BrokenPipeError(), 141), (OSError(), 1), (None, 0)])
def test_what_is_left_to_flush(monkeypatch, error, code):
    """An output that cannot be flushed at the end changes the code, and says nothing."""

    class Broken(io.StringIO):
        def flush(self) -> None:
            if error is not None:
                raise error

    monkeypatch.setattr(logging.getLogger("dd_sa_tokens"), "handlers", [])
    monkeypatch.setattr(app_module, "_run_app", lambda: 0)
    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(SystemExit) as end:
        cli.run()
    assert end.value.code == code


def test_flat_names_every_field():
    """The keys are the fields of AccessToken, so that a field that is added is written, too."""
    assert tuple(flat(TOKEN)) == FIELDS == tuple(AccessToken.__attrs_attrs__[n].name for n in range(len(FIELDS)))


@pytest.mark.parametrize("name", ["", "get", "list", "create", "update", "revoke", "rotate", "demo", "audit"])
def test_help_tells_exit_codes(name):
    """The help of every command lists the exit codes, and no option takes a key."""
    shown = CliRunner().invoke(cli.app, [*name.split(), "--help"], env={"COLUMNS": "100", "TERM": "dumb"}).stdout
    for code in ("0 all well", "1 something failed", "2 usage", "3 refused", "4 the API", "5 an audit", "130 interr"):
        assert f"\n {code}" in shown
    assert not re.search("--(api|app)-?key|--access-token", shown)


def test_completion_knows_the_commands():
    """The shell's completion offers the commands that begin with what is typed."""
    more = {"_DD_SA_TOKENS_COMPLETE": "complete_bash", "COMP_WORDS": "dd-sa-tokens r", "COMP_CWORD": "1"}
    done = subprocess.run([EXECUTABLE], env=environment(**more), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["revoke", "rotate"]


def test_csv_on_a_terminal_has_nothing_that_it_obeys():
    """What a terminal would obey is replaced in CSV that goes there, and kept in CSV for other programs."""
    shown = Csv(("name",), for_terminal=True).record({"name": "a\x1b[2Jb\u202ec"})
    assert shown == "a\ufffd[2Jb\ufffdc\r\n"
    assert Csv(("name",)).record({"name": "a\x1b[2Jb"}) == "a\x1b[2Jb\r\n"
