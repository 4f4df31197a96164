"""`python -m dd_sa_tokens.testing`, as a process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from dd_sa_tokens import TokensClient
from dd_sa_tokens.testing import FakeDatadog
from dd_sa_tokens.testing.__main__ import main

COMMAND = (sys.executable, "-m", "dd_sa_tokens.testing")


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the command, and give the process and the four lines that it prints."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *options], stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, [process.stdout.readline().rstrip("\n") for _ in range(4)]
        finally:
            process.kill()


def exported(line: str) -> dict[str, str]:
    """Read the variables of an `export` line."""
    assert line.startswith("export ")
    return dict(re.findall(r"(\w+)=(\S+)", line))


async def test_the_export_line() -> None:
    """The printed token and URL reach a server with the tokens, accounts and rate limit that were asked for."""
    options = ("--tokens", "7", "--accounts", "2", "--rate-limit", "50/60s", "--latency", "0.05", "--seed", "3")
    with running(*options) as (_, lines):
        variables = exported(lines[2])
        expected = FakeDatadog(7, accounts=2, seed=3)
        token, url = variables["DD_ACCESS_TOKEN"], variables["DD_SA_TOKENS_BASE_URL"]
        async with TokensClient(access_token=token, base_url=url) as client:
            start = time.monotonic()
            for account in expected.service_account_ids:
                ids = [item.id async for item in client.list_tokens(account)]
                assert ids == [item.id for item in expected.tokens if item.service_account_id == account]
            assert time.monotonic() - start >= 0.1
            assert client.rate_limit is not None
            assert (client.rate_limit.limit, client.rate_limit.period) == (50, 60.0)

    assert variables.keys() == {"DD_ACCESS_TOKEN", "DD_SA_TOKENS_BASE_URL"}
    assert lines[0] == ("# A fake Datadog server: 2 service accounts with 7 tokens each, at most 50 requests in 60 s.")
    assert lines[3] == f"dd-sa-tokens list {expected.service_account_id}"


async def test_without_a_rate_limit_on_a_port() -> None:
    """`--rate-limit none` sends no rate-limit headers, and `--port` chooses the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running("--port", str(port), "--rate-limit", "none", "--tokens", "1") as (_, lines):
        variables = exported(lines[2])
        assert variables["DD_SA_TOKENS_BASE_URL"] == f"http://127.0.0.1:{port}"
        async with TokensClient(
            access_token=variables["DD_ACCESS_TOKEN"], base_url=f"http://127.0.0.1:{port}"
        ) as client:
            assert [item async for item in client.list_tokens(FakeDatadog(0).service_account_id)]
            assert client.rate_limit is None
    assert lines[0].endswith("1 service account with 1 tokens each, no rate limit.")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signals(name: str) -> None:
    """Ctrl-C and SIGTERM end it at once, with exit code 0 and without a complaint, while a request waits."""
    with running("--latency", "600") as (process, lines):
        port = URL(exported(lines[2])["DD_SA_TOKENS_BASE_URL"]).port or 0
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            os.kill(process.pid, getattr(signal, name))
            out, err = process.communicate(timeout=10)
            with suppress(ConnectionResetError):  # if the signal came before the connection was accepted
                assert client.recv(1) == b""

    assert (process.returncode, out, err) == (0, "", "")


def test_within_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`main` prints its lines, asks for SIGTERM, and returns 0 when it is interrupted."""
    handlers: dict[int, Any] = {}

    def sleep(_seconds: float) -> None:
        handlers[signal.SIGTERM](signal.SIGTERM, None)

    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(time, "sleep", sleep)

    assert main(["--tokens", "3", "--rate-limit", "none"]) == 0
    assert capsys.readouterr().out.startswith("# A fake Datadog server: 1 service account with 3 tokens each")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rate-limit", "100"), "--rate-limit"),
        (("--rate-limit", "100/10m"), "--rate-limit"),
        (("--rate-limit", "0/10s"), "rate_limit must be"),
        (("--tokens", "-1"), "tokens must be"),
        (("--tokens", "x"), "--tokens"),
        (("--accounts", "0"), "accounts must be"),
        (("--latency", "nan"), "latency must be"),
        (("--seed", "-1"), "seed must be"),
        (("--port", "70000"), "port must be"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_wrong_arguments(options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument ends it with code 2, the usage, and a line that names the argument."""
    with pytest.raises(SystemExit) as caught:
        main(options)

    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.startswith("usage: python -m dd_sa_tokens.testing")
    assert words in err.splitlines()[-1]


def test_a_port_in_use() -> None:
    """A port that is in use ends it with code 1 and one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=20, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"port {port} cannot be used: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_full_standard_output() -> None:
    """If its lines cannot be written, it ends with code 1 and a line that says so."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(COMMAND, stdout=full, stderr=subprocess.PIPE, text=True, timeout=20, check=False)

    assert done.returncode == 1
    assert done.stderr == "cannot write to standard output: No space left on device\n"
