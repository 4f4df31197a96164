"""Formats, tables, and the values of options."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import attrs
import pytest
import typer
from rich.console import Console
from support.command_line import within

from dd_sa_tokens import AccessToken, NotFoundError
from dd_sa_tokens.cli import output
from dd_sa_tokens.cli.io.formats import FIELDS, TOKEN_COLUMNS, Csv, failure_record, make_format, to_json, token_record
from dd_sa_tokens.cli.output import Destination, choose_destination
from dd_sa_tokens.cli.report.tables import TokenTables
from dd_sa_tokens.cli.times import parse_moment, parse_span
from dd_sa_tokens.testing import FakeDatadog

TOKEN = AccessToken(
    id="t1",
    name="=a\x1b[31m, 'b'",
    scopes=("x", "y"),
    created_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    expires_at=datetime(2026, 3, 1, 2, tzinfo=UTC).astimezone(),
)
FAILURE = NotFoundError("not\x1bfound", status=404)


def console(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None, highlight=False)


def document(name: str, width: int = 100, *, empty: bool = False, ascii_only: bool = False) -> str:
    """Write a document of one token and one failure, or of nothing."""
    records = [] if empty else [token_record(TOKEN), failure_record("t\x1b2", FAILURE)]
    if name == "table":
        return TokenTables(console(width)).document(records)
    return make_format(name, TOKEN_COLUMNS, ascii_only=ascii_only, for_terminal=False).document(records)


def test_documents_without_records_can_be_parsed():
    """A document without records is valid."""
    assert document("jsonl", empty=True) == ""
    assert json.loads(document("json", empty=True)) == []
    assert list(csv.DictReader(io.StringIO(document("csv", empty=True)))) == []
    assert document("table", empty=True) == ""


def test_json_has_flat_fields_and_iso_dates():
    """Dates are ISO 8601 in UTC, scopes an array, missing values null, in the order of AccessToken's fields."""
    token, failure = json.loads(document("json"))
    assert tuple(token) == FIELDS
    assert token["created_at"] == "2026-01-02T03:04:05.000006Z"
    assert token["expires_at"] == "2026-03-01T02:00:00Z"
    assert (token["scopes"], token["last_used_at"]) == (["x", "y"], None)
    assert failure == {"id": "t\x1b2", "error": {"type": "NotFoundError", "status": 404, "message": "not\x1bfound"}}
    assert [json.loads(line) for line in document("jsonl").splitlines()] == [token, failure]


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_dates_that_utc_does_not_have(moment):
    """A date that has no form in UTC keeps its offset, in records and in tables."""
    token = AccessToken(id="t", expires_at=datetime.fromisoformat(moment))
    assert token_record(token)["expires_at"] == moment
    assert moment[:10] in TokenTables(console()).document([token_record(token)])


@pytest.mark.parametrize("text", ["a", "\x1b", "\x9b", "\u2028", "\ud800", "\U000e0001", "\u202e \N{ROCKET}", '"\\\n'])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_json_is_printable_and_exact(text, ascii_only):
    """Characters that are not printable are escaped, and all others for ASCII; a parser gets the exact text back."""
    written = to_json({"x": text}, ascii_only=ascii_only)
    assert written.isprintable()
    assert json.loads(written) == {"x": text}
    assert written.isascii() or not ascii_only
    assert ascii_only or not text.isprintable() or json.dumps(text, ensure_ascii=False) in written


def test_csv_can_be_parsed():
    """Each row has all columns; those of the token are empty for an error, and the other way round."""
    token, failure = csv.DictReader(io.StringIO(document("csv"), newline=""), strict=True)
    assert token["name"] == f"'{TOKEN.name}"
    assert token["scopes"] == "x y"
    assert token["created_at"] == "2026-01-02T03:04:05.000006Z"
    assert failure["error_status"] == "404"
    leak = {"leak_id", "leak_detected_at", "leak_source"}
    assert set(token) == {*FIELDS, "error_type", "error_status", "error_message"} - {"leak"} | leak
    assert None not in token.values()


def test_csv_on_a_terminal_has_no_control_characters():
    """Control characters are replaced in CSV for a terminal, and kept in CSV for other programs."""
    shown = Csv(("name",), for_terminal=True).record({"name": "a\x1b[2Jb\u202ec"})
    assert shown == "a\ufffd[2Jb\ufffdc\r\n"
    assert Csv(("name",)).record({"name": "a\x1b[2Jb"}) == "a\x1b[2Jb\r\n"


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (300, ["Name", "Public", "portion", "Scopes", "Last", "used", "Expires"]),
        (160, ["Name", "Public", "portion", "Scopes", "Last", "used", "Expires"]),
        (100, ["Name", "Scopes", "Last", "used", "Expires"]),
        (80, ["Name", "Last", "used", "Expires"]),
        (60, ["Name", "Expires"]),
    ],
)
def test_tables_fit_the_terminal(width, titles):
    """A table uses the whole width, shows fewer columns on a narrow terminal, and has no control characters."""
    lines = document("table", width).splitlines()
    assert max(map(len, lines)) == width
    assert lines[0].split() == ["ID", *titles]
    assert "".join(lines).isprintable()
    assert "=a\N{REPLACEMENT CHARACTER}[31m" in lines[2]
    assert lines[4].split() == ["ID", "Status", "Error"]


def test_long_ids_are_wrapped():
    """A table has the whole of a long ID."""
    table = TokenTables(console(60)).document([token_record(AccessToken(id="0123456789" * 9, name="x"))])
    assert sum(char.isdigit() for char in table) == 90


def test_records_have_every_field():
    """The keys are the fields of AccessToken, so that a new field is written as well."""
    assert tuple(token_record(TOKEN)) == FIELDS == tuple(field.name for field in attrs.fields(AccessToken))


# ---- Options


@pytest.mark.parametrize(
    ("format_name", "file", "expected"),
    [
        (None, None, "jsonl"),
        (None, "-", "jsonl"),
        (None, "x.csv", "csv"),
        (None, "x.JSON", "json"),
        (None, "x.jsonl", "jsonl"),
        (None, "x.ndjson", "jsonl"),
        (None, "x", "jsonl"),
        ("table", "x.csv", "table"),
        ("jsonl", "x.txt", "jsonl"),
        ("csv", None, "csv"),
    ],
)
def test_choice_of_format(format_name, file, expected):
    """The format is the one asked for, else that of the suffix, else JSON lines without a terminal."""
    assert choose_destination(format_name, file).format == expected


@pytest.mark.parametrize("name", ["x.html", "x.txt", "x.json.gz", "x.xlsx", "x.y.z"])
@pytest.mark.parametrize("command", ["list", "get", "update"])
async def test_unknown_suffixes_are_refused(tmp_path, name, command):
    """A file whose suffix names no format is refused with the known suffixes, and not created."""
    more = {"list": (), "get": ("t",), "update": ("t", "--name", "x")}[command]
    async with FakeDatadog(tokens=1) as datadog:
        done = await within(datadog, command, datadog.service_account_id, *more, "--output", str(tmp_path / name))
    assert (done.code, done.out, datadog.requests) == (2, "", 0)
    assert ".json, .jsonl, .ndjson, .csv" in " ".join(done.err.split())
    assert list(tmp_path.iterdir()) == []


def test_choice_of_format_on_a_terminal(monkeypatch):
    """The default is a table on a terminal, but not in a file."""
    monkeypatch.setattr(output, "is_terminal", lambda _stream: True)
    assert choose_destination(None, None) == Destination("table", None)
    assert choose_destination(None, "x") == Destination("jsonl", Path("x"))


@pytest.mark.parametrize(
    ("text", "span"),
    [("90d", timedelta(days=90)), ("36h", timedelta(hours=36)), ("2w", timedelta(weeks=2))],
)
def test_spans(text, span):
    """A span is a number of hours, days or weeks."""
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "0d", "1.5d", "1D ", "1y", "\u0661d", "9999999d"])
def test_invalid_spans(text):
    """Anything else is refused."""
    with pytest.raises(typer.BadParameter):
        parse_span(text)


def test_moments_are_utc_without_an_offset():
    """A date alone is its midnight in UTC; an offset is used as given."""
    assert parse_moment("2027-01-31") == datetime(2027, 1, 31, tzinfo=UTC)
    assert parse_moment("2027-01-31T12:00+02:00") == datetime(2027, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    with pytest.raises(typer.BadParameter):
        parse_moment("soon")
