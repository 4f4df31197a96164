"""`dd-sa-tokens audit` and the demo's report, as real processes against a fake server in the test's loop."""

import asyncio
import csv
import io
import json
import re
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from support.command_line import EXECUTABLE, MODULE, Done, Terminal, fast, keys, run, run_alone, within

from dd_sa_tokens import AccessToken
from dd_sa_tokens.audit import DEFAULT_RULES, audit_tokens
from dd_sa_tokens.cli.report.audit_result import COLUMNS, finding_record, run_audit
from dd_sa_tokens.testing import FakeDatadog

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
AT = ("--now", "2026-06-01T12:00:00Z")
HOSTILE = ("\x1b[31mred\x1b[0m", '=HYPERLINK("https://x.example")', "<script>alert(1)</script>", "[red]x[/red]", "a\nb")


def token(token_id: str, **fields: object) -> AccessToken:
    """Make a token without findings."""
    good = {"name": token_id, "scopes": ("a_read",), "created_at": NOW - 10 * DAY, "last_used_at": NOW - 5 * DAY}
    return AccessToken(id=token_id, **(good | {"expires_at": NOW + 100 * DAY} | fields))


TOKENS = [
    token("fine"),
    token("writer", scopes=("a_write",)),
    token("gone", expires_at=NOW - DAY),
    token("soon", expires_at=NOW + 20 * DAY),
    token("boss", scopes=("org_management",)),
    token("b-fine", service_account_id="b"),
    token("b-soon", expires_at=NOW + 20 * DAY, service_account_id="b"),
]


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    """A fake server with a token of each level in its account, and a second account."""
    async with FakeDatadog(tokens=TOKENS) as fake:
        yield fake


async def audit(datadog: FakeDatadog, *args: str, **options: str) -> Done:
    """Run `audit` with the server's account, as of `NOW`."""
    return await fast(datadog, "audit", datadog.service_account_id, *AT, *args, **options)


def found(text: str) -> list[tuple[str, str]]:
    """Return rule and token of each finding in JSON lines."""
    return [(item["rule"], item["token_id"]) for item in map(json.loads, text.splitlines())]


WORST_FIRST = [("admin-scopes", "boss"), ("expires-soon", "soon"), ("expired", "gone"), ("write-scopes", "writer")]


# ---- Formats


async def test_jsonl_is_what_a_pipe_gets(datadog):
    """Without a terminal each finding is a flat JSON object on a line, the worst first, and stderr is empty."""
    done = await audit(datadog)
    tokens = [one for one in datadog.tokens if one.service_account_id == datadog.service_account_id]
    assert (done.code, done.err) == (0, "")
    assert found(done.out) == WORST_FIRST
    items = [json.loads(line) for line in done.out.splitlines()]
    assert items == [finding_record(one) for one in audit_tokens(tokens, now=NOW)]
    assert tuple(items[0]) == COLUMNS
    assert items[1] | {"reason": "", "advice": ""} == {
        "level": "medium",
        "rule": "expires-soon",
        "title": "Expires within 30 days",
        "detail": "expires in 20 days, on 2026-06-21",
        "reason": "",
        "advice": "",
        "service_account_id": datadog.service_account_id,
        "service_account_name": None,
        "token_id": "soon",
        "token_name": "soon",
        "public_portion": None,
        "scopes": ["a_read"],
        "created_at": "2026-05-22T12:00:00Z",
        "last_used_at": "2026-05-27T12:00:00Z",
        "expires_at": "2026-06-21T12:00:00Z",
    }
    assert items[1]["advice"].startswith("Rotate it now")


async def test_json_and_csv_hold_the_same(datadog):
    """The array and the CSV have the findings of the JSON lines."""
    items = [json.loads(line) for line in (await audit(datadog)).out.splitlines()]
    array = json.loads((await audit(datadog, "--format", "json", program=MODULE)).out)
    rows = list(csv.DictReader(io.StringIO((await audit(datadog, "--format", "csv")).out, newline=""), strict=True))
    assert array == items
    assert rows == [
        {name: " ".join(value) if isinstance(value, list) else value or "" for name, value in item.items()}
        for item in items
    ]


async def test_table_has_counts_timeline_and_findings(datadog):
    """The table has counts that name what they count, a line for each token, and the findings with advice."""
    done = await audit(datadog, "--format", "table", COLUMNS="100")
    lines = done.out.splitlines()
    assert lines[0] == "5 tokens of 1 service account, as of 2026-06-01 12:00 UTC: 4 findings"
    assert lines[1:3] == [
        "Tokens by their worst finding:",
        "  ✖ 0 critical  ▲ 1 high  ◆ 1 medium  ■ 1 low  ○ 1 info  ✓ 1 without findings",
    ]
    assert [line.split()[1] for line in lines if "━" in line and "created to expiry" not in line] == [
        *("boss", "soon", "gone", "writer", "fine"),
    ]
    rules = [line for line in lines if re.fullmatch(r"[▲◆■○] \w+  .*: \d+ tokens?", line)]
    assert rules == [
        "▲ high  Can administer the organization: 1 token",
        "◆ medium  Expires within 30 days: 1 token",
        "■ low  Expired but still there: 1 token",
        "○ info  Can change things: 1 token",
    ]
    assert re.search(r"^  soon +soon +expires in 20 days, on 2026-06-21$", done.out, re.MULTILINE)
    assert "What to do: Rotate it now if it is in use. Otherwise let it expire." in done.out
    assert max(map(len, lines)) <= 100


async def test_html_goes_to_a_pipe(datadog):
    """`--format html` writes the page to a pipe."""
    done = await audit(datadog, "--format", "html")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("<!doctype html>")
    assert done.out.endswith("</html>\n")
    assert done.out.count('<tr id="t') == 5


async def test_html_is_chosen_by_suffix_and_replaces_the_file_as_a_whole(datadog, tmp_path):
    """The file is replaced in one move, keeps its permissions, and nothing else is left beside it."""
    file = tmp_path / "Report.HTML"
    file.write_text("before")
    file.chmod(0o640)
    with file.open() as reader:
        done = await audit(datadog, "--output", str(file))
        assert reader.read() == "before"  # a reader that has it open reads the old text
    assert (done.code, done.out) == (0, "")
    assert f"{file}: 5 tokens of 1 service account" in done.err
    assert "4 findings; tokens by their worst finding: 1 high, 1 medium, 1 low, 1 info, 1 without findings" in done.err
    assert file.read_text().startswith("<!doctype html>")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["Report.HTML"]


@pytest.mark.parametrize(("name", "begins"), [("x.jsonl", '{"level"'), ("x.json", "[\n"), ("x.csv", "level,rule")])
async def test_files_are_replaced_not_added_to(datadog, tmp_path, name, begins):
    """A second audit replaces the file of the first one, in JSON lines as well."""
    file = tmp_path / name
    await audit(datadog, "--output", str(file))
    first = file.read_text()
    await audit(datadog, "--output", str(file))
    assert file.read_text() == first
    assert first.startswith(begins)


async def test_an_audit_that_fails_leaves_the_file(datadog, tmp_path):
    """If no account can be read, the file of the last audit is unchanged."""
    file = tmp_path / "report.html"
    file.write_text("before")
    done = await run(datadog, "audit", "nope", "--output", str(file))
    assert (done.code, file.read_text()) == (1, "before")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


async def test_a_terminal_gets_a_table_and_no_html(datadog):
    """A terminal gets a table by default; a page of HTML is refused, with a hint."""
    words = (EXECUTABLE, "audit", datadog.service_account_id, *AT, "--base-url", datadog.url)

    def show(*more: str) -> tuple[int, str]:
        screen = Terminal(*words, *more, columns=100, **keys(datadog))
        return screen.end(), screen.text

    code, text = await asyncio.to_thread(show)
    assert code == 0
    assert "┃ today" in text
    assert "\x1b[1;31m▲" in text
    code, text = await asyncio.to_thread(show, "--format", "html")
    assert code == 2
    assert "give --output report.html" in " ".join(text.split())


async def test_long_lists_are_cut_on_a_terminal_only():
    """A terminal gets the first findings and the number of the others; a pipe gets all."""
    async with FakeDatadog(tokens=[token(f"t{n}", expires_at=None) for n in range(20)]) as fake:
        words = (EXECUTABLE, "audit", fake.service_account_id, *AT, "--base-url", fake.url)

        def show() -> str:
            screen = Terminal(*words, columns=100, **keys(fake))
            screen.end()
            return screen.text

        text = await asyncio.to_thread(show)
        assert text.count("it has no expiry") == 15
        assert text.count("and 5 more") == 2
        assert "--output report.html" in text
        done = await audit(fake, "--format", "table")
        assert done.out.count("it has no expiry") == 20
        assert "more" not in done.out


@pytest.mark.parametrize("columns", ["60", "100"])
async def test_hostile_names_are_harmless(columns):
    """Control characters are replaced in tables and escaped in JSON, formulas are marked in CSV, markup is text."""
    tokens = [token(f"t{n}", name=name, scopes=(f"{name}_write",)) for n, name in enumerate(HOSTILE)]
    async with FakeDatadog(tokens=tokens) as fake:
        table = (await audit(fake, "--format", "table", COLUMNS=columns)).out
        lines = (await audit(fake)).out
        rows = list(csv.DictReader(io.StringIO((await audit(fake, "--format", "csv")).out, newline="")))
        html = (await audit(fake, "--format", "html")).out
    assert table.replace("\n", "").isprintable()
    assert max(map(len, table.splitlines())) <= int(columns)
    assert "[red]x[/red]" in table
    assert lines.replace("\n", "").isprintable()
    assert [json.loads(line)["token_name"] for line in lines.splitlines()] == list(HOSTILE)
    assert [row["token_name"] for row in rows] == [f"'{name}" if name[0] == "=" else name for name in HOSTILE]
    assert [row["detail"][:2] for row in rows][1] == "'="
    assert html.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


# ---- Exit codes and options


@pytest.mark.parametrize(
    ("level", "codes"),
    [("info", "5555"), ("low", "0555"), ("medium", "0055"), ("high", "0005")],
)
async def test_exit_code_5(level, codes):
    """With `--fail-on` the code is 5 for a finding of that level or a worse one, and 0 otherwise."""
    got = ""
    for name in ("writer", "gone", "soon", "boss"):
        only = [one for one in TOKENS if one.id == name]
        async with FakeDatadog(tokens=only) as fake:
            done = await within(fake, "audit", fake.service_account_id, *AT, "--fail-on", level)
            got += str(done.code)
            assert found(done.out) == [pair for pair in WORST_FIRST if pair[1] == name]
            assert ("1 finding of level" in done.err) == (done.code == 5)
    assert got == codes


async def test_exit_code_5_of_the_executable(datadog):
    """The process ends with 5 and prints the reason; without `--fail-on` it ends with 0."""
    done = await audit(datadog, "--fail-on", "medium")
    assert (done.code, done.err) == (5, "dd-sa-tokens: 2 findings of level medium or worse\n")
    assert (await audit(datadog)).code == 0


@pytest.mark.parametrize(
    ("words", "rule", "ids"),
    [
        (("--expiring-within", "19d"), "expires-soon", []),
        (("--expiring-within", "20d"), "expires-soon", ["soon"]),
        (("--expiring-within", "100d"), "expires-soon", ["fine", "writer", "soon", "boss"]),
        (("--unused-for", "5d"), "unused", []),
        (("--unused-for", "119h"), "unused", ["fine", "writer", "soon", "boss"]),
        (("--many-scopes", "1"), "many-scopes", []),
        (("--many-scopes", "0"), "many-scopes", ["fine", "writer", "soon", "boss"]),
        (("--now", "2026-06-21T14:00:00+02:00"), "expired", ["gone", "soon"]),
        (("--now", "2026-06-21T13:59:59+02:00"), "expired", ["gone"]),
        (("--now", "2027-06-01"), "expired", ["fine", "writer", "gone", "soon", "boss"]),
        (("--now", "9999-12-31T23:59:59Z"), "expired", ["fine", "writer", "gone", "soon", "boss"]),
        (("--now", "0001-01-01T00:00:00Z"), "expired", []),
    ],
    ids=" ".join,
)
async def test_thresholds(datadog, words, rule, ids):
    """Each threshold and the moment to judge from are used as given."""
    for name in ("jsonl", "table", "html"):
        done = await within(datadog, "audit", datadog.service_account_id, *AT, *words, "--format", name)
        assert done.code == 0, done.err
        if name == "jsonl":
            assert [one for each, one in found(done.out) if each == rule] == ids


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("sa", "--expiring-within", "30"),
        ("sa", "--unused-for", "0d"),
        ("sa", "--many-scopes", "-1"),
        ("sa", "--now", "soon"),
        ("sa", "--now", "9999-12-31T23:59:59-12:00"),
        ("sa", "--now", "0001-01-01T00:00:00+12:00"),
        ("sa", "--fail-on", "terrible"),
        ("sa", "--format", "xml"),
        ("sa", "--output", "/nonexistent/report.html"),
        ("",),
        ("sa", "a\nb"),
    ],
    ids=ascii,
)
async def test_exit_code_2_for_usage(datadog, words):
    """Invalid usage ends with code 2, before anything is sent or written."""
    done = await within(datadog, "audit", *words)
    assert (done.code, done.out, datadog.requests) == (2, "", 0)
    assert done.err


# ---- Accounts


async def test_several_accounts_are_one_report(datadog):
    """Each account is read once, and the worst finding of all accounts comes first."""
    done = await audit(datadog, "b", "b")
    assert found(done.out) == [*WORST_FIRST[:2], ("expires-soon", "b-soon"), *WORST_FIRST[2:]]
    assert datadog.requests == 2
    text = (await audit(datadog, "b", "--format", "table")).out
    assert text.startswith("7 tokens of 2 service accounts")
    assert text.count("Service account b\n") == 2  # above its timeline, and above what expires soon
    html = (await audit(datadog, "b", "--format", "html")).out
    assert html.count('class="bars"') == 2


async def test_an_account_in_two_cases_is_read_once():
    """The ID of a service account in upper case is the same account."""
    async with FakeDatadog(tokens=3) as fake:
        account = fake.service_account_id
        done = await within(fake, "audit", account, account.upper(), "--format", "table")
        assert done.out.startswith("3 tokens of 1 service account")
        assert fake.requests == 1


async def test_an_account_that_fails_does_not_stop_the_others(datadog):
    """Its error is on stderr and in the report, the code is 1, and the others are reported; code 5 precedes 1."""
    done = await audit(datadog, "nope")
    assert (done.code, found(done.out)) == (1, WORST_FIRST)
    assert "404, no such service account" in done.err
    assert "service account 'nope'" in done.err
    assert "1 of 2 service accounts could not be read" in done.err
    assert "Not read: service account nope" in (await audit(datadog, "nope", "--format", "table")).out
    assert "Not read: service account <code>nope</code>" in (await audit(datadog, "nope", "--format", "html")).out
    assert (await audit(datadog, "nope", "--fail-on", "high")).code == 5


async def test_a_partly_read_account_is_left_out():
    """An account whose second page cannot be read is not reported as if its first page were all."""
    tokens = [token(f"t{n}", expires_at=None) for n in range(101)]
    async with FakeDatadog(tokens=[*tokens, token("b-soon", expires_at=None, service_account_id="b")]) as fake:
        fake.fail_next(2, stall=0.0)  # the first page of each account is answered
        fake.fail_next(1, status=400)
        done = await audit(fake, "b", "--concurrency", "1")
    assert (done.code, found(done.out)) == (1, [("never-expires", "b-soon")])
    assert "400 Bad Request" in done.err


async def test_exit_code_3_where_all_are_refused(datadog):
    """With refused keys the code is 3, one line has advice, and nothing is written."""
    done = await audit(datadog, "b", DD_API_KEY="0" * 32)
    assert (done.code, done.out) == (3, "")
    assert "Check DD_API_KEY and DD_APP_KEY" in done.err
    assert "2 of 2 service accounts could not be read" in done.err


async def test_exit_code_4_without_an_answer(datadog):
    """An API that cannot be reached is code 4."""
    assert (await audit(datadog, "--max-attempts", "1", url="http://127.0.0.1:9")).code == 4


@pytest.mark.parametrize("tokens", [[], [token("fine")]], ids=["no tokens", "nothing wrong"])
async def test_nothing_found(tokens):
    """Without findings each format is still a document, and a message says so."""
    async with FakeDatadog(tokens=tokens) as fake:
        done = [await audit(fake, "--format", name) for name in ("jsonl", "json", "csv", "table", "html")]
        failing = await audit(fake, "--fail-on", "info")
    assert [one.code for one in (*done, failing)] == [0] * 6
    assert (done[0].out, json.loads(done[1].out), done[2].out) == ("", [], ",".join(COLUMNS) + "\r\n")
    assert all("nothing was found" in one.err for one in done[:3])
    assert ("Nothing was found." if tokens else "There are no tokens.") in done[3].out
    assert "Nothing was found." in done[4].out


def test_tokens_without_an_account_belong_to_the_one_that_was_read():
    """Tokens that do not name their account belong to the one that was read, so accounts are not mixed."""
    one, other = (attrs.evolve(token("x", name="same"), id=name) for name in "ab")
    done = run_audit({"one": [one], "other": [other]}, now=NOW, rules=DEFAULT_RULES)
    assert done.findings == []
    assert [tokens[0].service_account_id for tokens in done.accounts.values()] == ["one", "other"]


# ---- The demo


def demo(*args: str) -> Done:
    return run_alone(EXECUTABLE, "demo", "--tokens", "60", *args, COLUMNS="40")


def test_the_demo_writes_a_report(tmp_path):
    """`demo --report` writes the page, and prints its path and the number of tokens of each level."""
    file = tmp_path / "a report [of mine].html"
    done = demo("--report", str(file))
    assert done.code == 0, done.err
    html = file.read_text()
    assert html.count('<tr id="t') == 60
    assert f"\n{'Report':<24}{file}\n" in done.out
    levels = re.search(r"\nTokens by worst finding +(.*)\n", done.out)
    assert levels is not None
    assert sum(map(int, re.findall(r"\d+", levels[1]))) == 60
    for number, level in re.findall(r"(\d+) (\w+)", levels[1].replace("without findings", "without")):
        assert re.search(rf"<b>{number}</b> <span>. {level}", html)


def test_the_demo_opens_its_report_first():
    """A report that cannot be written, or has another suffix, is a usage error, before anything is fetched."""
    for name in ("/nonexistent/report.html", "report.csv"):
        done = demo("--report", name)
        assert (done.code, done.out) == (2, "")
        assert "--report" in done.err
