"""Ctrl-C, SIGTERM and SIGHUP: what is kept, what is printed, and the exit code."""

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from support.command_line import MODULE, Process, python, run, until, within

from dd_sa_tokens import TokenResult, TokensClient
from dd_sa_tokens.testing import FakeDatadog

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    """A fake server with 40 tokens."""
    async with FakeDatadog(tokens=40) as fake:
        yield fake


@pytest.mark.parametrize("number", SIGNALS)
async def test_each_signal_ends_a_rotation_in_order(datadog, tmp_path, number):
    """A signal ends the store command and the rotation, prints what holds, and leaves no file behind."""
    started, first = tmp_path / "started", datadog.token_ids[0]
    command = f"sh -c 'touch {started}; sleep 60'"
    args = ("rotate", datadog.service_account_id, first, "--store-command", command)
    process = await Process.start(datadog, *args, "--output", str(tmp_path / "x.json"))
    await until(started.exists)
    process.signal(number)
    done = await process.end()
    assert (done.code, done.out) == (130, "")
    assert "interrupted; the rotation was stopped while the new token was being stored" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["started"]


@pytest.mark.parametrize("number", SIGNALS)
async def test_each_signal_removes_temporary_files(datadog, tmp_path, number):
    """A signal during a fetch ends with code 130 and leaves the results so far, and no hidden file."""
    file = tmp_path / "x.csv"
    datadog.fail_next(2, stall=0.0)
    datadog.fail_next(1, stall=30.0)
    args = ("get", datadog.service_account_id, *datadog.token_ids[:5], "--output", str(file), "--concurrency", "1")
    process = await Process.start(datadog, *args)
    await until(lambda: datadog.requests == 3)
    process.signal(number)
    done = await process.end()
    assert done.code == 130
    assert "interrupted after 2 tokens" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv.partial"]


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
async def test_an_ignored_signal_stays_ignored(datadog, name):
    """Under nohup, or in the background of a script, a signal that is ignored does not end a command."""
    datadog.fail_next(1, stall=0.5)
    code = f"import signal; signal.signal(signal.{name}, signal.SIG_IGN)"
    process = await Process.start(datadog, "list", datadog.service_account_id, first=code)
    await until(lambda: datadog.requests == 1)
    process.signal(getattr(signal, name))
    done = await process.end()
    assert done.code == 0
    assert len(done.out.splitlines()) == 40


@pytest.mark.parametrize("program", [MODULE, None])
async def test_the_resuming_command_of_a_pipe(datadog, tmp_path, program):
    """The printed command names the program and the options as typed, and says that IDs come from standard input."""
    file = tmp_path / "a b.jsonl"
    options = {} if program is None else {"program": program}
    args = ("-v", "get", datadog.service_account_id, "--ids-from", "-", "--append", "--output", str(file))
    process = await Process.start(datadog, *args, **options)
    assert process.process.stdin is not None
    process.process.stdin.write(b"a\n")
    await until(lambda: file.exists() and file.read_text())
    datadog.fail_next(1, stall=30.0)
    process.process.stdin.write(b"b\n")
    await until(lambda: datadog.requests == 2)
    process.signal(signal.SIGINT)
    done = await process.end()
    assert done.code == 130
    words = shlex.split(done.err.partition("Resume with the same IDs on standard input: ")[2])
    begin = ["dd-sa-tokens"] if program is None else ["python", "-m", "dd_sa_tokens"]
    assert words[: len(begin) + 3] == [*begin, "-v", "get", "--resume"]
    assert "--append" not in words
    assert str(file) in words


async def test_a_signal_before_the_first_result(datadog, tmp_path):
    """There is nothing to resume, so no file is left, and the message says so."""
    file = tmp_path / "x.jsonl"
    datadog.fail_next(1, stall=30.0)
    process = await Process.start(datadog, "get", datadog.service_account_id, "a", "--output", str(file))
    await until(lambda: datadog.requests == 1)
    process.signal(signal.SIGINT)
    done = await process.end()
    assert done.code == 130
    assert done.err == "dd-sa-tokens: interrupted before the first result; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


# ---- A new token's secret


async def create(datadog: FakeDatadog, **options: object) -> Process:
    """Start a create, and wait until the server has received its request."""
    before = datadog.requests
    args = ("create", datadog.service_account_id, "--name", "new", "--scope", "x")
    process = await Process.start(datadog, *args, **options)
    await until(lambda: datadog.requests > before)
    return process


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_before_the_answer_of_a_create(number):
    """A create that was sent is waited for: its token is named and its secret is printed, with code 130."""
    async with FakeDatadog(tokens=1, latency=0.5) as datadog:
        process = await create(datadog)
        process.signal(number)
        done = await process.end()
        made = datadog.tokens[-1]
    assert done.code == 130
    assert re.fullmatch(r"ddsat_\w+\n", done.out)
    assert f"interrupted, but the API had created the token: created 'new' ({made.id})" in done.err


async def test_a_signal_at_any_moment_of_a_create():
    """A signal at any moment around the answer leaves the token's ID on standard error, if a token was created."""
    async with FakeDatadog(tokens=0, latency=0.02) as datadog:
        for delay in (0.0, 0.018, 0.02, 0.022, 0.025, 0.03):
            before = len(datadog.tokens)
            process = await create(datadog)
            await asyncio.sleep(delay)
            if process.process.returncode is None:
                process.signal(signal.SIGINT)
            done = await process.end()
            made = datadog.tokens[before:]
            assert all(token.id in done.err for token in made), (delay, done)
            assert made or "To look for it: dd-sa-tokens list" in done.err


async def test_a_signal_in_the_moment_of_the_answer():
    """A signal that Python handles between the answer and the printing of the secret does not lose the token's ID."""
    code = """
import os, signal, dd_sa_tokens.client
create = dd_sa_tokens.client.TokensClient.create_token
async def interrupted(self, *args, **options):
    created = await create(self, *args, **options)
    os.kill(os.getpid(), signal.SIGINT)
    return created
dd_sa_tokens.client.TokensClient.create_token = interrupted
"""
    async with FakeDatadog(tokens=0) as datadog:
        process = await create(datadog, first=code)
        done = await process.end()
        assert datadog.token_ids[0] in done.err
    assert re.fullmatch(r"ddsat_\w+\n", done.out)


async def test_a_create_without_an_answer_can_be_abandoned(datadog):
    """A second signal ends the wait for the answer; the message has a command to look for the token."""
    datadog.fail_next(1, stall=30.0)
    process = await create(datadog)
    process.signal(signal.SIGINT)
    await asyncio.sleep(0.3)
    assert process.process.returncode is None
    process.signal(signal.SIGINT)
    done = await process.end()
    assert (done.code, done.out) == (130, "")
    assert f"To look for it: dd-sa-tokens list {datadog.service_account_id} --sort=-created_at" in done.err


async def test_many_signals_during_a_create(datadog):
    """However many signals come, the message about the token is printed."""
    datadog.fail_next(1, stall=30.0)
    process = await create(datadog)
    while process.process.returncode is None:
        process.signal(signal.SIGINT)
        await asyncio.sleep(0.002)
    done = await process.end()
    assert done.code == 130
    assert "To look for it: dd-sa-tokens list" in done.err


async def test_a_create_that_was_not_sent(datadog):
    """A signal before the request is sent ends the create at once, and nothing is created."""
    code = """
import asyncio, dd_sa_tokens.client
async def waiting(self, *args, **options):
    print("waiting", flush=True)
    await asyncio.sleep(30)
dd_sa_tokens.client.TokensClient.create_token = waiting
"""
    args = ("create", datadog.service_account_id, "--name", "new", "--scope", "x")
    process = await Process.start(datadog, *args, first=code)
    assert process.process.stdout is not None
    await process.process.stdout.readline()
    process.signal(signal.SIGINT)
    done = await process.end()
    assert (done.code, done.err) == (130, "dd-sa-tokens: interrupted; nothing was created\n")
    assert datadog.requests == 0


async def test_a_signal_while_the_secret_is_written(datadog):
    """A signal while standard output does not accept the secret names the token, and how to revoke it."""
    code = "import os; os.set_blocking(1, False)\ntry:\n    while os.write(1, b'x' * 65536): pass\nexcept OSError: pass"
    script = 'exec "$0" -c "$1" create "$2" --name new --scope x --base-url "$3" | sleep 2'
    words = (python(code)[0], python(code)[2], datadog.service_account_id, datadog.url)
    process = await Process.start(datadog, "-c", f"trap '' INT; {script}", *words, program=("bash",))
    await until(lambda: datadog.requests == 1)
    done = await process.end()
    assert datadog.token_ids[-1] in done.err
    assert f"dd-sa-tokens revoke {datadog.service_account_id} {datadog.token_ids[-1]}" in done.err


async def test_interrupted_changes(datadog):
    """An interrupted update or revoke says that it may have been done, with a command to look."""
    first = datadog.token_ids[0]
    for command, more in (("update", ("--name", "x")), ("revoke", ("--yes",))):
        datadog.fail_next(1, stall=30.0)
        before = datadog.requests
        process = await Process.start(datadog, command, datadog.service_account_id, first, *more)
        await until(lambda before=before: datadog.requests == before + 1)
        process.signal(signal.SIGTERM)
        done = await process.end()
        assert done.code == 130
        assert f"interrupted; {first} may have been" in done.err
        assert f"dd-sa-tokens get {datadog.service_account_id} {first}" in done.err


async def test_a_signal_outside_the_loop(datadog, tmp_path):
    """A signal before the event loop runs ends a command with code 130, and nothing is sent."""
    code = """
import os, signal, dd_sa_tokens.cli.output as output
opened = output.choose_format
def interrupted(*args, **options):
    os.kill(os.getpid(), signal.SIGHUP)
    return opened(*args, **options)
output.choose_format = interrupted
"""
    done = await run(datadog, "list", datadog.service_account_id, first=code)
    assert (done.code, done.out, done.err, datadog.requests) == (130, "", "", 0)


@pytest.mark.parametrize("command", ["list", "get"])
async def test_a_named_pipe_without_a_reader(datadog, tmp_path, command):
    """A signal ends a command that waits for the reader of a named pipe, and the pipe stays."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    args = (command, datadog.service_account_id, *datadog.token_ids[: command == "get"], "--output", str(pipe))
    process = await Process.start(datadog, *args)
    await until(lambda: datadog.requests == 1)
    process.signal(signal.SIGTERM)
    assert (await process.end()).code == 130
    assert pipe.is_fifo()


async def test_the_reader_of_a_named_pipe_gets_an_end(datadog, tmp_path):
    """The reader of a named pipe gets an end even if there are no results, or an error comes first."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for code in (0, 1):
        if code:
            datadog.fail_next(1, status=400)
        reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
        args = ("list", datadog.service_account_id, "--filter", "no such token", "--output", str(pipe))
        assert (await within(datadog, *args)).code == code
        async with asyncio.timeout(20):
            assert await reading == ""


# ---- The same within this process, where coverage sees it


@pytest.mark.parametrize(
    ("words", "method", "said"),
    [
        (("create", "SA", "--name", "n", "--scope", "s"), "create_token", "interrupted; nothing was created"),
        (("update", "SA", "t", "--name", "n"), "update_token", "interrupted; t may have been changed"),
        (("revoke", "SA", "t", "--yes"), "revoke_token", "interrupted; t may have been revoked"),
        (("rotate", "SA", "t", "--store-command", "true"), "rotate_token", "interrupted; both tokens work"),
    ],
)
async def test_a_cancelled_change(datadog, monkeypatch, words, method, said):
    """A cancelled change has code 130, and says what may have been done."""

    async def cancelled(*_args: object, **_kwargs: object) -> None:
        error = asyncio.CancelledError()
        error.add_note("both tokens work")
        raise error

    monkeypatch.setattr(TokensClient, method, cancelled)
    done = await within(datadog, *words)
    assert (done.code, done.out) == (130, "")
    assert said in done.err


async def test_a_create_that_is_cancelled_in_its_last_moment(datadog, monkeypatch):
    """A create that has an answer although it was cancelled prints the secret, and has code 130."""
    shield = asyncio.shield

    async def cancelled(awaitable: asyncio.Future[object]) -> None:
        await shield(awaitable)
        raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "shield", cancelled)
    done = await within(datadog, "create", datadog.service_account_id, "--name", "n", "--scope", "s")
    assert done.code == 130
    assert datadog.token_ids[-1] in done.err
    assert done.out.startswith("ddsat_")


@pytest.mark.parametrize(
    ("name", "program", "said"),
    [
        (
            "new.jsonl",
            "/x/dd_sa_tokens/__main__.py",
            "new.jsonl has the results so far. Resume: python -m dd_sa",
        ),
        ("old.jsonl", "/x/dd-sa-tokens", "old.jsonl.partial has the results so far. Resume: dd-sa-tokens get --resume"),
        ("old.csv", "/x/dd-sa-tokens", "interrupted after 1 tokens; a run with --output FILE.jsonl can be resumed"),
    ],
)
async def test_a_cancelled_get(datadog, tmp_path, monkeypatch, name, program, said):
    """A cancelled fetch keeps its results and prints how to continue; a file that it was to replace is unchanged."""
    for old in ("old.jsonl", "old.csv"):
        (tmp_path / old).write_text("old")

    async def cancelled(*_args: object, **_kwargs: object) -> AsyncIterator[TokenResult]:
        yield TokenResult("a", datadog.tokens[0], None)
        raise asyncio.CancelledError

    monkeypatch.setattr(TokensClient, "stream_tokens", cancelled)
    args = ("get", datadog.service_account_id, "a", "b", "--output", str(tmp_path / name))
    monkeypatch.setattr(sys, "argv", [program, *args])
    done = await within(datadog, *args)
    assert done.code == 130
    assert said in done.err
    beside = tmp_path / f"{name}.partial"
    assert datadog.token_ids[0] in (beside if name.startswith("old") else tmp_path / name).read_text()
    assert (tmp_path / "old.csv").read_text() == (tmp_path / "old.jsonl").read_text() == "old"


@pytest.mark.parametrize(
    ("typed", "echoed"),
    [
        (["--proxy", "http://us%40er:pass@h:3128"], ["--proxy", "http://h:3128"]),
        (["--proxy=http://user:p@ss/word@h:3128"], ["--proxy=http://h:3128"]),
        (["--proxy", "http://h:3128"], ["--proxy", "http://h:3128"]),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
async def test_the_resuming_command_repeats_no_password(datadog, tmp_path, monkeypatch, typed, echoed, place):
    """The user and password of a proxy are left out of the printed command, and the line says so."""

    async def cancelled(*_args: object, **_kwargs: object) -> AsyncIterator[TokenResult]:
        yield TokenResult("a", datadog.tokens[0], None)
        raise asyncio.CancelledError

    monkeypatch.setattr(TokensClient, "stream_tokens", cancelled)
    args = ["get", datadog.service_account_id, "a", "--output", str(tmp_path / "x.jsonl")]
    monkeypatch.setattr(sys, "argv", ["dd-sa-tokens", *(typed + args if place == "before" else args + typed)])
    done = await within(datadog, *args)
    said, _, command = done.err.partition(": dd-sa-tokens ")
    assert ("Resume with the user and password of --proxy, which are left out here" in said) == (typed != echoed)
    words = [args[0], "--resume", *args[1:]]
    assert shlex.split(command) == (echoed + words if place == "before" else words + echoed)
