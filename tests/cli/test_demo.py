"""The entry point of the command line and its demo, mostly as a process of their own."""

import logging
import math
import re
import signal
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from support.command_line import MODULE, Done, Terminal, run_alone
from typer.testing import CliRunner

from dd_sa_tokens import RateLimit, RetryPolicy, TokensClient, cli
from dd_sa_tokens.__main__ import main
from dd_sa_tokens.cli import app
from dd_sa_tokens.cli.io import progress
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.testing import FakeDatadog

demo = import_module("dd_sa_tokens.cli.commands.demo")

SMALL = ("--tokens", "60", "--limit", "50", "--period", "1")
CANARY = "canary-0123456789abcdef"
# A user's shell may have these. The demo would fail if it read them.
SHELL = {"DD_API_KEY": CANARY, "DD_APP_KEY": CANARY, "DD_ACCESS_TOKEN": CANARY, "DD_SITE": f"{CANARY}.example.com"}


def run(*args: str, **env: str) -> Done:
    """Run the command line to its end, not in a terminal."""
    return run_alone(*MODULE, *args, **SHELL | env)


def summary(stdout: str) -> dict[str, str]:
    """Return the lines of the form `label   value`, by label."""
    rows = (re.fullmatch(r"(\S+(?: \S+)*) {2,}(\S.*)", line) for line in stdout.splitlines())
    return {row[1]: row[2] for row in rows if row}


@pytest.fixture
def without(tmp_path: Path) -> Iterator[object]:
    """Return a function that gives a PYTHONPATH on which a library cannot be imported."""

    def block(library: str) -> str:
        (tmp_path / f"{library}.py").write_text("raise ImportError('not installed')\n")
        return str(tmp_path)

    return block


def terminal(*args: str, **env: str) -> Terminal:
    """Run the command line in a pseudo-terminal."""
    return Terminal(*MODULE, *args, **(SHELL | env))


@pytest.fixture(scope="module")
def small() -> Done:
    """Run the demo once with small settings."""
    return run("demo", *SMALL)


def test_the_introduction_comes_first(small):
    """First the demo says where the fake Datadog server is, what it holds and what it allows."""
    first = re.sub(r"\s+", " ", small.err)
    assert re.match(
        r"A fake Datadog server on this machine \(http://127\.0\.0\.1:\d+\) "
        r"holds 60 tokens and allows 50 requests per 1 s\.",
        first,
    )


def test_summary_counts_everything(small):
    """Every token is fetched with one request each, without a 429, and the exit code is 0."""
    rows = summary(small.out)
    assert small.code == 0, small.err
    assert rows["Fetched"] == "60 of 60"
    assert rows["Failed"] == "0"
    assert rows["Requests"] == "60"
    assert rows["Retries"] == "0"
    assert rows["429 responses"] == "0"


def test_time_is_close_to_the_minimum(small):
    """The time is not below the theoretical minimum of the rate limit, and not far above it."""
    rows = summary(small.out)
    took, least = (float(rows[label].split()[0]) for label in ("Time", "Theoretical minimum"))
    assert 0 <= least <= 1.0
    assert least <= took + 0.01
    assert took < least + 5.0
    assert "(the rate limit admits request 60 no earlier)" in rows["Theoretical minimum"]


def test_table_shows_the_first_tokens(small):
    """The table has a heading and ten rows that fit 80 columns, with the public portions that Datadog gives."""
    lines = small.out.splitlines()
    heading = next(line for line in lines if line.startswith("Name"))
    assert heading.split("  ")[0] == "Name"
    assert "Public portion" in heading
    assert "Scopes" in heading
    assert "Last used" in heading
    assert "Expires" in heading
    assert sum("ddsat_" in line for line in lines) == 10
    assert max(map(len, lines)) <= 80


def test_plain_lines_without_a_terminal(small):
    """Without a terminal, progress is plain lines on stderr; stdout has only the results, and no escapes."""
    assert "\x1b" not in small.out + small.err
    assert "━" not in small.err
    progress = [line for line in small.err.splitlines() if re.match(r"\d+/60 tokens, rate limit ", line)]
    assert progress[-1].startswith("60/60 tokens, rate limit ")
    assert "/60 tokens" not in small.out


def test_keys_of_the_environment_are_left_alone(small):
    """The keys and the site of the environment are not needed, not used and not shown."""
    assert small.code == 0
    assert CANARY not in small.out + small.err


def test_forced_colour_makes_no_bar_in_a_pipe():
    """FORCE_COLOR colors the text in a pipe, but draws no bar there."""
    result = run("demo", *SMALL, FORCE_COLOR="1")
    assert "━━ rate limit" not in result.err
    assert "60/60 tokens, rate limit " in result.err


def test_faults_are_retried():
    """With scripted faults every token is still fetched, and each fault costs one more request."""
    result = run("demo", *SMALL, "--faults", "10")
    rows = summary(result.out)
    assert result.code == 0, result.err
    assert rows["Fetched"] == "60 of 60"
    requests, rejected = int(rows["Requests"].split()[0]), int(rows["429 responses"])
    assert requests - rejected == 60 + demo.fault_count(60, 10)
    assert int(rows["Retries"]) > 0
    assert "10% of the requests fail" in result.err
    assert "Traceback" not in result.err
    assert "GET /api" not in result.err  # the library's log of retries


def test_terminal_shows_a_bar():
    """A terminal gets a bar that is redrawn in place, with the rate limit and a countdown, and no key."""
    screen = terminal("demo", "--tokens", "101", "--limit", "50", "--period", "1")
    assert screen.end() == 0
    assert re.search(r"101/101 tokens .*━+.* rate limit \d+/50 left", screen.text)
    assert "\x1b[2K" in screen.text
    countdown = set(re.findall(r"rate limit 0/50 left, next window in (\d\.\d) s", screen.text))
    assert len(countdown) >= 3
    assert CANARY not in screen.text
    assert not re.search("api.?key|authorization|bearer", screen.text, re.IGNORECASE)


def test_no_color_is_honoured():
    """With NO_COLOR the terminal gets a bar without colors."""
    screen = terminal("demo", *SMALL, NO_COLOR="1")
    assert screen.end() == 0
    assert "━" in screen.text
    assert not re.search(r"\x1b\[(?:\d+;)*[349][0-8](?:;\d+)*m", screen.text)


def test_dumb_terminal_gets_lines():
    """A terminal that cannot move its cursor gets plain lines."""
    screen = terminal("demo", *SMALL, TERM="dumb")
    assert screen.end() == 0
    assert "60/60 tokens, rate limit " in screen.text
    assert "\x1b" not in screen.text


def test_ctrl_c_ends_it_quietly():
    """Ctrl-C ends the demo at once with code 130, the cursor back, and no traceback."""
    screen = terminal("demo", "--tokens", "1000", "--limit", "10", "--period", "60")
    screen.read(until="next window in")
    screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 130
    assert "Traceback" not in screen.text
    assert screen.text.rindex("\x1b[?25h") > screen.text.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    "options",
    [
        ("--tokens", "0"),
        ("--tokens", "-3"),
        ("--tokens", "many"),
        ("--limit", "0"),
        ("--period", "0.5"),
        ("--period", "nan"),
        ("--period", "inf"),
        ("--faults", "-1"),
        ("--faults", "91"),
        ("--nonsense",),
    ],
    ids=" ".join,
)
def test_bad_options_are_usage_errors(options):
    """An option out of range ends with code 2 and names the option, before anything is started."""
    result = CliRunner().invoke(app, ["demo", *options])
    assert result.exit_code == 2
    assert options[0] in re.sub(r"\x1b\[[\d;]*m", "", result.stderr)
    assert "fake Datadog" not in result.output


def test_failures_are_reported():
    """Tokens that failed are counted, the first are named on stderr, and the exit code is 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "TokensClient", partial(TokensClient, retry=RetryPolicy(max_attempts=1)))
        result = CliRunner().invoke(app, ["demo", "--tokens", "40", "--faults", "20"], env={"COLUMNS": "80"})
    rows = summary(result.stdout)
    assert result.exit_code == 1
    assert 0 < int(rows["Failed"]) <= demo.fault_count(40, 20)
    assert rows["Fetched"] == f"{40 - int(rows['Failed'])} of 40"
    assert len(re.findall("get_token, service account", result.stderr)) == min(int(rows["Failed"]), 3)


def test_the_keys_of_the_fake_server_are_not_shown(monkeypatch):
    """The keys of the fake Datadog server do not appear in the output of the demo either."""
    made = []

    class Spy(FakeDatadog):
        async def __aenter__(self):
            made.append(self)
            return await super().__aenter__()

    monkeypatch.setattr("dd_sa_tokens.testing.FakeDatadog", Spy)
    monkeypatch.setattr(Messages, "can_redraw", True)
    result = CliRunner().invoke(app, ["demo", "--tokens", "5"])
    assert result.exit_code == 0, result.output
    assert made[0].requests == 5
    assert made[0].api_key not in result.output
    assert made[0].app_key not in result.output


@pytest.mark.parametrize("library", ["typer", "rich"])
def test_without_the_extra(without, library):
    """Without typer or rich one line says what to install, and the exit code is 2."""
    result = run("demo", PYTHONPATH=without(library))
    assert result.code == 2
    assert result.out == ""
    assert len(result.err.splitlines()) == 1
    assert "pip install '.[cli]'" in result.err


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("broken", "code"), [({}, 0), ({"rich": None}, 2), ({"typer": None}, 2)], ids=["all there", "no rich", "no typer"]
)
def test_main_exits_with_the_code(monkeypatch, capsys, broken, code):
    """The entry point ends with the command's code, or with 2 if a library that it needs cannot be imported."""
    monkeypatch.setattr(logging.getLogger("dd_sa_tokens"), "handlers", [])
    monkeypatch.setattr(sys, "argv", ["dd-sa-tokens", "--version"])
    for library, module in broken.items():
        monkeypatch.setitem(sys.modules, library, module)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    assert ("pip install '.[cli]'" in capsys.readouterr().err) == bool(code)


def test_ctrl_c_while_starting(monkeypatch):
    """Ctrl-C before a command runs ends with code 130."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupted)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130


def test_without_uvloop(without):
    """The command line works without uvloop."""
    result = run("demo", "--tokens", "5", PYTHONPATH=without("uvloop"))
    assert result.code == 0, result.err
    assert summary(result.out)["Fetched"] == "5 of 5"


def test_version_and_help():
    """`--version` prints the version, and no arguments print the help."""
    assert re.fullmatch(r"dd-sa-tokens \d+\.\d+\S*\n", run("--version").out)
    bare = run()
    assert bare.code == 2
    assert "demo" in bare.out + bare.err


@pytest.mark.parametrize(
    ("start", "requests", "expected"),
    [
        (1000.0, 1, 0.0),
        (1000.0, 100, 0.0),
        (1004.999, 100, 0.0),
        (1000.0, 101, 5.0),
        (1002.0, 101, 3.0),
        (1002.0, 200, 3.0),
        (1002.0, 201, 8.0),
        (1002.0, 300, 8.0),
        (1004.75, 301, 10.25),
        (1000.0, 0, 0.0),
    ],
)
def test_least_seconds(start, requests, expected):
    """The window of the last request begins at a multiple of the period; 100 requests per 5 s."""
    assert demo.least_seconds(start, requests, 100, 5.0) == pytest.approx(expected)


@pytest.mark.parametrize("start", [1_790_000_000.0, 1_790_000_000.3, 1_790_000_001.999])
def test_least_seconds_agrees_with_a_count_by_hand(start):
    """Counting requests window by window gives the same moment, for any number of requests."""
    limit, period = 7, 2.0
    moment, left = start, limit
    for requests in range(1, 40):
        if left == 0:
            moment, left = (math.floor(moment / period) + 1) * period, limit
        left -= 1
        assert demo.least_seconds(start, requests, limit, period) == pytest.approx(moment - start)


@pytest.mark.parametrize(
    ("tokens", "percent", "expected"), [(300, 0, 0), (90, 10, 10), (60, 50, 60), (10, 90, 90), (1, 10, 0)]
)
def test_fault_count(tokens, percent, expected):
    """The faults are the given percentage of all requests, themselves included."""
    assert demo.fault_count(tokens, percent) == expected


@pytest.mark.parametrize(
    ("rate", "more", "expected"),
    [
        (None, True, "rate limit not known yet"),
        (RateLimit(), True, "rate limit not known yet"),
        (RateLimit(limit=100, remaining=57, reset=3.14), True, "rate limit 57/100 left"),
        (RateLimit(limit=100, remaining=0, reset=3.14), True, "rate limit 0/100 left, next window in 3.1 s"),
        (RateLimit(limit=100, remaining=0), True, "rate limit 0/100 left"),
        (RateLimit(limit=100, remaining=0, reset=3.14), False, "rate limit 0/100 left"),
    ],
)
def test_rate_limit_text(rate, more, expected):
    """The text always has what is left, and the wait for the next window only if there is one."""
    assert progress.rate_limit_text(rate, more=more) == expected


def test_the_report_of_the_demo(tmp_path):
    """`--report` writes a page about the tokens that were fetched; without a path there is none."""
    page = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["demo", "--tokens", "5", "--report", str(page)])
    assert done.exit_code == 0
    assert "Tokens by worst finding" in done.stdout
    assert "<html" in page.read_text(encoding="utf-8")
    assert CliRunner().invoke(app, ["demo", "--tokens", "1"]).exit_code == 0
    assert list(tmp_path.iterdir()) == [page]


def test_a_report_of_another_suffix(tmp_path):
    """The error names the suffixes that the report can have, and no option that the demo lacks."""
    result = CliRunner().invoke(app, ["demo", "--report", str(tmp_path / "x.txt")])
    assert result.exit_code == 2
    assert "the suffix of x.txt is not one of .html, .htm" in " ".join(result.stderr.split())
    assert "--format" not in result.stderr
    assert list(tmp_path.iterdir()) == []
