"""The root of the command line: options, help, messages, and errors as exit codes."""

import io
import logging
import os
import re
import subprocess
import sys
from contextlib import suppress
from importlib import import_module

import pytest
import typer
from support.command_line import EXECUTABLE, assert_names_option, environment, within
from typer.testing import CliRunner

from dd_sa_tokens import DatadogError, TransportError, cli
from dd_sa_tokens.cli.exit_codes import CommandError, ExitCode, Tally
from dd_sa_tokens.cli.io.console import Messages, log_to
from dd_sa_tokens.testing import FakeDatadog

app = import_module("dd_sa_tokens.cli.app")  # the package also has a name `app`

SECRET = "canary-0123456789abcdef"
COMMANDS = [command.name for command in cli.app.registered_commands]


@pytest.fixture
def quiet_logger(monkeypatch):
    """Restore the library's logger after the test."""
    logger = logging.getLogger("dd_sa_tokens")
    monkeypatch.setattr(logger, "handlers", [])
    level = logger.level
    yield logger
    logger.setLevel(level)


# ---- Options and help


def shown_help(*words: str, columns: int = 80) -> str:
    """Return the help of a command."""
    return CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": str(columns), "TERM": "dumb"}).stdout


def test_the_top_help_has_the_exit_codes():
    """The exit codes and the options of all commands are in the top help, and no option takes a key."""
    shown = shown_help()
    for code in (*ExitCode,):
        assert re.search(rf"^ +{code.value} +\w", shown, re.MULTILINE)
    for option in (
        "--site",
        "--base-url",
        "--proxy",
        "--concurrency",
        "--timeout",
        "--max-attempts",
        "--rate-limit-reserve",
        "-v",
    ):
        assert option in shown
    assert not re.search("--(api|app)-?key|--access-token", shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_a_screen(name):
    """The help of each command has at most 24 lines of 80 columns, and names the top help for the rest."""
    lines = shown_help(name).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "exit codes: dd-sa-tokens --help" in lines[-1]
    assert not any(line.startswith("  130") for line in lines)


@pytest.mark.parametrize("columns", [0, 4, 40, 300])
def test_help_in_any_width(columns):
    """The help is complete in a terminal of any width."""
    assert "--ids-from" in shown_help("get", columns=columns)


@pytest.mark.parametrize("before", [True, False])
async def test_options_stand_before_or_after_the_command(quiet_logger, before):
    """-v and the other options of all commands work on both sides of the command."""
    async with FakeDatadog(tokens=1) as datadog:
        options = ("-vv", "--max-attempts", "1", "--concurrency", "3")
        words = ("list", datadog.service_account_id)
        datadog.fail_next(1, status=503)
        done = await within(datadog, *(options if before else ()), *words, *(() if before else options))
        assert done.code == 1
        assert re.search(r"DEBUG GET /api/v2/service_accounts/\S+: 503", done.err)
        assert datadog.requests == 1


async def test_options_on_both_sides_add_up(quiet_logger):
    """An option after the command replaces the one before it, and each -v counts."""
    async with FakeDatadog(tokens=1) as datadog:
        datadog.fail_next(1, status=503)
        words = ("-v", "--max-attempts", "5", "list", datadog.service_account_id, "-v", "--max-attempts", "1")
        done = await within(datadog, *words)
    assert done.code == 1
    assert "DEBUG" in done.err


@pytest.mark.parametrize("words", [("--concurrency", "0", "list", "sa"), ("list", "sa", "--timeout", "nan")])
async def test_invalid_options_end_with_code_2(words):
    """An invalid option ends with code 2 and its name on both sides of the command, before anything is sent."""
    async with FakeDatadog(tokens=1) as datadog:
        done = await within(datadog, *words)
        assert (done.code, done.out, datadog.requests) == (2, "", 0)
    assert_names_option(done.err, next(word for word in words if word.startswith("--")))


async def test_unknown_options_end_with_code_2():
    """An option that does not exist ends with code 2 and its name, before anything is sent."""
    async with FakeDatadog(tokens=1) as datadog:
        done = await within(datadog, "-x")
        assert (done.code, done.out, datadog.requests) == (2, "", 0)
    assert "No such option: -x" in done.err


@pytest.mark.parametrize("words", [("--site", "datadoghq.eu", "demo"), ("demo", "--base-url", "http://127.0.0.1:9")])
def test_the_demo_refuses_options_of_a_connection(words):
    """The demo has its own server, so an option that names another one is refused."""
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 2
    assert "the demo has its own server" in done.stderr


def test_completion_knows_the_commands():
    """The shell's completion offers the commands with the typed beginning."""
    more = {"_DD_SA_TOKENS_COMPLETE": "complete_bash", "COMP_WORDS": "dd-sa-tokens r", "COMP_CWORD": "1"}
    done = subprocess.run([EXECUTABLE], env=environment(**more), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["revoke", "rotate"]


# ---- Errors as exit codes


def fails_with_a_secret() -> int:
    secret = SECRET
    raise KeyError(secret)


def test_unexpected_errors_are_one_line_without_values(capsys):
    """An unexpected exception ends with code 1 and one line with its type, not its text, which may hold a key."""
    assert app.guarded(fails_with_a_secret, Messages()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "unexpected KeyError" in line
    assert "--verbose" in line
    assert SECRET not in line


def test_verbose_shows_where_an_unexpected_error_came_from(capsys):
    """With --verbose the places in the source come before that line, still without values."""
    assert app.guarded(fails_with_a_secret, Messages(), 1) == 1
    text = capsys.readouterr().err
    assert "in fails_with_a_secret" in text
    assert "raise KeyError(secret)" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokenPipeError(), 141),
        (KeyboardInterrupt(), 130),
        (CommandError("x"), 1),
        (CommandError("x", ExitCode.USAGE), 2),
        (TransportError("x"), 4),
        (DatadogError("x"), 1),
        (DatadogError("x", outcome_unknown=True), 1),
        (ExceptionGroup("x", [ValueError()]), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_a_code(error, code, monkeypatch):
    """Each exception becomes an exit code."""
    monkeypatch.setattr(app, "discard", lambda _stream: None)

    def work() -> int:
        raise error

    assert app.guarded(work, Messages()) == code


def test_errors_of_typer_pass():
    """typer prints its own errors."""

    def work() -> int:
        raise typer.BadParameter("x")

    with pytest.raises(typer.BadParameter):
        app.guarded(work, Messages())


def test_the_code_of_many_failures():
    """The exit code of many tokens is that of their errors only if all agree and no token succeeded."""
    tally = Tally()
    assert tally.exit_code == 0
    tally.fail(TransportError("x"))
    assert tally.exit_code == 4
    tally.succeeded += 1
    assert tally.exit_code == 1


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BrokenPipeError(), 141, ""),
        (OSError(28, "No space left"), 1, "dd-sa-tokens: cannot write to standard output: No space left\n"),
        (None, 0, ""),
    ],
)
def test_an_output_that_cannot_be_flushed(monkeypatch, capsys, error, code, said):
    """An output that cannot be flushed at the end changes the code, with a message unless its reader is gone."""

    class Broken(io.StringIO):
        def flush(self) -> None:
            if error is not None:
                raise error

    monkeypatch.setattr(logging.getLogger("dd_sa_tokens"), "handlers", [])
    monkeypatch.setattr(sys, "argv", ["dd-sa-tokens", "--version"])
    monkeypatch.setattr(sys, "stdout", Broken())
    monkeypatch.setattr(typer, "echo", lambda _text: None)
    with pytest.raises(SystemExit) as end:
        cli.run()
    assert (end.value.code, capsys.readouterr().err) == (code, said)


def test_closed_standard_descriptors_are_filled(monkeypatch):
    """The null device gets the numbers 0 to 2 where they are closed, so that no socket does."""
    opened: list[str] = []

    def fstat(number: int) -> None:
        if number == 1:
            raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        patch.setattr(os, "open", lambda name, _flags: opened.append(name))
        app.fill_standard_descriptors()
    assert opened == [os.devnull]


# ---- Messages


def test_a_message_is_one_harmless_line(capsys):
    """Escapes, line breaks and marks that change the direction of text are replaced; markup is text."""
    Messages().fail("a\x1b[31m\nb\u202e [red]c[/red] " + "long " * 40)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dd-sa-tokens: a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b")
    assert "[red]c[/red]" in line


def test_a_standard_error_without_a_reader_stops_nothing(monkeypatch):
    """A message that cannot be printed is dropped."""
    reading, writing = os.pipe()
    os.close(reading)
    gone = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stderr", gone)
    Messages().say("x")
    with suppress(BrokenPipeError):
        gone.close()


@pytest.mark.parametrize(("verbosity", "shown"), [(0, 0), (1, 1), (2, 2)])
def test_verbosity(quiet_logger, capsys, verbosity, shown):
    """-v logs retries and waits, -vv each request; without them nothing is logged."""
    log_to(Messages(), verbosity)
    quiet_logger.info("the rate limit is used up")
    quiet_logger.debug("GET %s", "/x\x1b")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == shown
    assert all(line.isprintable() for line in lines)
