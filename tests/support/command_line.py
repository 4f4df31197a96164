"""Runs the real command line: as a process beside the test's loop, in a pseudo-terminal, or within this process."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import select
import signal
import subprocess
import sys
import time
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import attrs
import pytest
from typer.testing import CliRunner

from dd_sa_tokens import cli
from dd_sa_tokens.testing import FakeDatadog

from .fork_server import Child, fork

ROOT = Path(__file__).parents[2]
EXECUTABLE = str(Path(sys.executable).with_name("dd-sa-tokens"))
MODULE = (sys.executable, "-m", "dd_sa_tokens")
OURS = ("DD_", "COV_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "PYTHON", "TTY_")


def environment(**more: str) -> dict[str, str]:
    """Return an environment without the settings of the user who runs the tests.

    It has no certificates: aiohttp reads all of the machine's as it is imported, which takes 0.1 s.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | {"TERM": "xterm-256color", "SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull} | more


def keys(datadog: FakeDatadog) -> dict[str, str]:
    """Return the variables with the keys that the fake server accepts."""
    return {"DD_API_KEY": datadog.api_key, "DD_APP_KEY": datadog.app_key}


def python(code: str, *args: str) -> tuple[str, ...]:
    """Return a program that runs some code, and then the command line, as if it were the executable."""
    return (sys.executable, "-c", f"{code}\nfrom dd_sa_tokens.__main__ import main\nmain()", *args)


def plain(text: str) -> str:
    """Return what a terminal shows, without escape sequences."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)


@attrs.frozen
class Done:
    """A run that has ended."""

    code: int
    out: str
    err: str


def _argv(words: Sequence[str], env: Mapping[str, str]) -> list[str] | None:
    """Return what `sys.argv` is in a run of the command line, or `None` if it is to start as users start it.

    That is so for other programs, and for variables that are read while Python starts or libraries are imported.
    """
    if any(name.startswith(("PYTHONPATH", "LC_", "LANG", "SSL_")) for name in env):
        return None
    if words[0] == EXECUTABLE:
        return list(words)
    if tuple(words[:3]) == MODULE:
        return [str(ROOT / "dd_sa_tokens/__main__.py"), *words[3:]]
    return None


class _Piped:
    """A child of the fork server with pipes: what `asyncio.subprocess.Process` offers of it."""

    def __init__(self, child: Child, stdin: StreamWriter, stdout: StreamReader, stderr: StreamReader) -> None:
        self._child, self.stdin, self.stdout, self.stderr = child, stdin, stdout, stderr
        self.pid = child.pid

    @classmethod
    async def start(cls, argv: Sequence[str], env: dict[str, str], **more: Any) -> _Piped:
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        child = fork(argv, env, str(ROOT), theirs, **more)
        for descriptor in theirs:
            os.close(descriptor)
        loop, outputs = asyncio.get_running_loop(), []
        for pipe, _ in pipes[1:]:
            outputs.append(StreamReader(limit=2**22))
            protocol = StreamReaderProtocol(outputs[-1])
            await loop.connect_read_pipe(lambda protocol=protocol: protocol, os.fdopen(pipe, "rb", 0))
        protocol = StreamReaderProtocol(StreamReader())
        transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(pipes[0][1], "wb", 0))
        return cls(child, StreamWriter(transport, protocol, None, loop), *outputs)

    @property
    def returncode(self) -> int | None:
        return self._child.poll()

    async def wait(self) -> int:
        return await self._child.ended()

    async def communicate(self, data: bytes) -> tuple[bytes, bytes]:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.stdin.write(data)
            await self.stdin.drain()
        self.stdin.close()
        out, err, _ = await asyncio.gather(self.stdout.read(), self.stderr.read(), self.wait())
        return out, err


class Process:
    """The command line as a process, against a fake server in the test's loop."""

    def __init__(self, process: asyncio.subprocess.Process | _Piped) -> None:
        self.process = process

    @classmethod
    async def start(
        cls,
        datadog: FakeDatadog,
        *args: str,
        program: tuple[str, ...] = (EXECUTABLE,),
        url: str | None = None,
        first: str = "",
        limits: Mapping[int, int] = {},
        **env: str,
    ) -> Process:
        """Start it with valid keys, unless `env` has others. Every stream is a pipe.

        Args:
            datadog: The server whose keys, and whose address unless `url` is another, the command line uses.
            args: Its arguments.
            program: What runs it.
            url: Another base URL.
            first: Code that runs in the process before the command line does.
            limits: The highest value of each resource (`resource.RLIMIT_...`).
            env: More variables.
        """
        pipe = asyncio.subprocess.PIPE
        words = (*program, *args, "--base-url", url or datadog.url)
        variables = environment(**(keys(datadog) | env))
        argv = _argv(words, env)
        if argv:
            return cls(await _Piped.start(argv, variables, first=first, limits=limits))
        assert not first
        assert not limits
        return cls(
            await asyncio.create_subprocess_exec(
                *words, cwd=ROOT, env=variables, stdin=pipe, stdout=pipe, stderr=pipe, limit=2**22
            )
        )

    async def end(self, stdin: str | bytes = b"", encoding: str = "utf-8") -> Done:
        """Give it its input, and wait for its end."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        async with asyncio.timeout(60):
            out, err = await self.process.communicate(data)
        assert self.process.returncode is not None
        done = Done(self.process.returncode, out.decode(encoding), err.decode(encoding))
        assert "Traceback" not in done.err, done.err
        assert "Exception ignored" not in done.err, done.err
        return done

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended. asyncio's own method can lose the status of one that ends."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)


async def run(
    datadog: FakeDatadog, *args: str, stdin: str | bytes = b"", encoding: str = "utf-8", **options: Any
) -> Done:
    """Run the executable to its end."""
    return await (await Process.start(datadog, *args, **options)).end(stdin, encoding)


def run_alone(*words: str, **env: str) -> Done:
    """Run the command line without a server of the test, and without a terminal."""
    variables, argv = environment(**env), _argv(words, env)
    if argv is None:
        done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)
        return Done(done.returncode, done.stdout, done.stderr)
    with Path(os.devnull).open("rb") as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        child = fork(argv, variables, str(ROOT), [file.fileno() for file in (stdin, stdout, stderr)])
        code = child.wait(60)
        for file in (stdout, stderr):
            file.seek(0)
        return Done(code, stdout.read().decode(), stderr.read().decode())


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the other process sends no event
            await asyncio.sleep(0.005)


async def within(datadog: FakeDatadog, *args: str, stdin: str | None = None, **env: str) -> Done:
    """Run the command line within this process, in a thread with its own loop: quick, and measured by coverage."""
    words = [*args, "--base-url", datadog.url]
    runner = CliRunner()
    result = await asyncio.to_thread(runner.invoke, cli.app, words, input=stdin, env=keys(datadog) | env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def assert_names_option(message: str, option: str) -> None:
    """See that an error message is about an option that exists; the client's own errors name it as a parameter."""
    assert "No such option" not in message
    assert option.removeprefix("--").replace("-", "_") in message.replace("-", "_"), message


async def fast(datadog: FakeDatadog, *args: str, **options: Any) -> Done:
    """Run the command line within this process, unless the options or the exact bytes of CSV need a process."""
    if "csv" in args or options.keys() & {"program", "url", "stdin"}:
        return await run(datadog, *args, **options)
    return await within(datadog, *args, **options)


class Terminal:
    """A process that runs in a pseudo-terminal."""

    def __init__(self, *words: str, columns: int = 80, **env: str) -> None:
        pty = pytest.importorskip("pty")
        termios = pytest.importorskip("termios")
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        argv, streams = _argv(words, env), [slave] * 3
        self.process: Child | subprocess.Popen[bytes]
        if argv:
            self.process = fork(argv, environment(**env), str(ROOT), streams, session=True)
        else:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=environment(**env), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
            )
        os.close(slave)
        self.text = ""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode  # a read may end within a character

    @classmethod
    async def show(cls, datadog: FakeDatadog, *args: str, columns: int = 80, **env: str) -> tuple[int, str]:
        """Run the executable to its end, and return its status and what the terminal received."""
        screen = cls(EXECUTABLE, *args, "--base-url", datadog.url, columns=columns, **(keys(datadog) | env))
        return await asyncio.to_thread(screen.end), screen.text

    def read(self, until: str | None = None) -> str:
        """Read until a text appears, or until the process has ended."""
        deadline = time.monotonic() + 60
        while until is None or until not in self.text:
            assert select.select([self.master], [], [], deadline - time.monotonic())[0], self.text
            try:
                data = os.read(self.master, 65536)
            except OSError:  # Linux says so when the other side is closed
                data = b""
            if not data:
                break
            self.text += self._decode(data)
        return self.text

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self.master, text.encode())

    def end(self) -> int:
        """Wait for the end and return the status."""
        self.read()
        os.close(self.master)
        return self.process.wait(60)
