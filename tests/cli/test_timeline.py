"""The timeline: the ends of the bars, the labels of the axis, and the text in a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from dd_sa_tokens import AccessToken
from dd_sa_tokens.audit import DEFAULT_RULES, Finding, Level, audit_tokens
from dd_sa_tokens.cli.io.printable import printable
from dd_sa_tokens.cli.report.text_timeline import print_timeline
from dd_sa_tokens.cli.report.timeline import LEVELS, Bar, Scale, lay_out, scale_for, worst_levels

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)
HUNDRED_DAYS = Scale(NOW, -50 * DAY.total_seconds(), 50 * DAY.total_seconds())  # today is in the middle


def token(token_id: str = "t1", **fields: Any) -> AccessToken:
    return AccessToken(id=token_id, **fields)


def bar(scale: Scale = HUNDRED_DAYS, **fields: Any) -> Bar:
    """Lay out one token."""
    (only,) = lay_out([token(**fields)], {}, scale)
    return only


def finding(one: AccessToken, level: Level) -> Finding:
    """Make a finding of a level."""
    return Finding(one, next(rule for rule in DEFAULT_RULES if rule.level is level), "")


def drawn(
    *tokens: AccessToken, width: int = 80, encoding: str = "utf-8", findings: list[Finding] | None = None, **more: Any
) -> list[str]:
    """Print the timeline of some tokens and return its lines."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    console = Console(file=out, width=width, color_system=None, legacy_windows=False)
    found = audit_tokens(tokens, now=NOW) if findings is None else findings
    print_timeline(console, tokens, found, now=NOW, **more)
    out.seek(0)
    return out.read().splitlines()


# ---- Bars


def test_a_life_within_the_axis() -> None:
    """A bar goes from creation to expiry, with the last use between."""
    one = bar(created_at=NOW - 25 * DAY, expires_at=NOW + 25 * DAY, last_used_at=NOW - 10 * DAY)

    assert (one.start, one.end, one.used) == (0.25, 0.75, 0.4)
    assert (one.open_start, one.open_end) == (False, False)


@pytest.mark.parametrize(
    ("fields", "start", "end", "open_start", "open_end"),
    [
        ({}, 0, 1, True, True),
        ({"created_at": NOW}, 0.5, 1, False, True),
        ({"expires_at": NOW}, 0, 0.5, True, False),
        ({"created_at": NOW - 50 * DAY, "expires_at": NOW + 50 * DAY}, 0, 1, False, False),
        ({"created_at": NOW - 51 * DAY, "expires_at": NOW + 51 * DAY}, 0, 1, True, True),
        ({"created_at": NOW + 25 * DAY, "expires_at": NOW + 40 * DAY}, 0.75, 0.9, False, False),
        ({"created_at": NOW + 25 * DAY, "expires_at": NOW}, 0.75, 0.75, False, False),
        ({"created_at": NOW - 99 * DAY, "expires_at": NOW - 98 * DAY}, 0, 0, True, False),
        ({"created_at": NOW + 98 * DAY}, 1, 1, False, True),
    ],
    ids=["nothing known", "endless", "beginless", "edges", "beyond", "to come", "backwards", "long ago", "far ahead"],
)
def test_bars_at_the_edges(fields: dict[str, Any], start: float, end: float, open_start: bool, open_end: bool) -> None:
    """An end that is unknown or outside is drawn at the edge and marked open; no bar runs backwards."""
    one = bar(**fields)

    assert (one.start, one.end) == (pytest.approx(start), pytest.approx(end))
    assert (one.open_start, one.open_end) == (open_start, open_end)


@pytest.mark.parametrize(("last_used_at", "used"), [(None, None), (NOW - 99 * DAY, 0), (NOW, 0.5), (NOW + 99 * DAY, 1)])
def test_last_uses_outside_the_axis(last_used_at: datetime | None, used: float | None) -> None:
    """A last use outside the axis is drawn at its edge, so that the token does not look unused."""
    assert bar(last_used_at=last_used_at).used == used


def test_the_worst_come_first() -> None:
    """Bars are sorted by level, then by expiry; tokens without an expiry come last."""
    names = ["fine", "endless", "late", "soon", "info", "low", "high"]
    ends = {"endless": None, "late": NOW + 2 * DAY, "soon": NOW + DAY}
    tokens = {name: token(name, expires_at=ends.get(name, NOW + DAY)) for name in names}
    levels = {tokens["high"]: Level.HIGH, tokens["low"]: Level.LOW, tokens["info"]: Level.INFO} | {
        tokens[name]: Level.MEDIUM for name in ends
    }
    bars = lay_out(tokens.values(), levels, HUNDRED_DAYS)

    assert [one.token.id for one in bars] == ["high", "soon", "late", "endless", "low", "info", "fine"]
    assert [one.level for one in bars[:2] + bars[-1:]] == [Level.HIGH, Level.MEDIUM, None]


def test_worst_levels() -> None:
    """A token's level is that of its worst finding, in any order."""
    one, two = token("a"), token("b")
    findings = [finding(one, Level.LOW), finding(one, Level.HIGH), finding(one, Level.INFO), finding(two, Level.INFO)]

    assert worst_levels(findings) == {one: Level.HIGH, two: Level.INFO}
    assert LEVELS == (Level.CRITICAL, Level.HIGH, Level.MEDIUM, Level.LOW, Level.INFO, None)


# ---- The scale


@pytest.mark.parametrize(
    ("moments", "before", "after"),
    [
        ({}, 30 * DAY, 30 * DAY),
        ({"created_at": NOW - DAY, "expires_at": NOW + DAY}, 30 * DAY, 30 * DAY),
        ({"created_at": NOW - 2 * YEAR, "expires_at": NOW + YEAR}, 2 * YEAR, YEAR),
        ({"last_used_at": NOW - 2 * YEAR}, 2 * YEAR, 30 * DAY),
        ({"expires_at": NOW - YEAR}, YEAR, 30 * DAY),
        ({"created_at": NOW - 50 * YEAR, "expires_at": NOW + 50 * YEAR}, 4 * YEAR, 2 * YEAR),
    ],
)
def test_the_time_that_is_shown(moments: dict[str, Any], before: timedelta, after: timedelta) -> None:
    """The scale spans the tokens' dates, at least a month and at most some years, with a margin on each side."""
    scale = scale_for([token(**moments)], NOW)
    margin = 0.04 * (before + after)

    assert scale.first == pytest.approx(-(before + margin).total_seconds())
    assert scale.last == pytest.approx((after + margin).total_seconds())
    assert scale.place(NOW) == scale.today


def test_ticks_are_months() -> None:
    """The axis is labelled with months, then with half years, then with years, as many as fit."""

    def labels(years: float, most: int = 6) -> list[str]:
        span = years * YEAR.total_seconds()
        return [tick.label for tick in Scale(NOW, -span, span).ticks(most)]

    assert labels(0.2) == ["2026-04", "2026-05", "2026-06", "2026-07", "2026-08"]
    assert labels(1) == ["2026-01", "2026-07", "2027-01"]
    assert labels(2) == ["2025", "2026", "2027", "2028"]
    assert labels(2, 20)[:2] == ["2024-10", "2025-01"]
    assert labels(2, 0) == []


def test_ticks_are_where_the_months_begin() -> None:
    """A label stands at the first of the month in UTC, in whichever timezone now is given."""
    scale = Scale(NOW.astimezone(timezone(-11 * DAY / 24)), HUNDRED_DAYS.first, HUNDRED_DAYS.last)
    (tick,) = (tick for tick in scale.ticks(6) if tick.label == "2026-06")

    assert tick.place == pytest.approx(0.495)
    assert scale.ticks(6) == HUNDRED_DAYS.ticks(6)
    assert all(0.06 <= tick.place <= 0.94 for tick in scale.ticks(6))


@pytest.mark.parametrize("now", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_ticks_stop_at_the_first_and_last_year(now: datetime) -> None:
    """At the first and the last day of `datetime` the axis is labelled on one side only."""
    span = YEAR.total_seconds()
    places = [tick.place < 0.5 for tick in Scale(now, -span, span).ticks(6)]

    assert places
    assert set(places) == {now.year == 9999}


zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.none() | st.datetimes(timezones=zones)


@given(
    st.lists(
        st.builds(
            AccessToken,
            id=st.just("x"),
            created_at=moments,
            last_used_at=moments,
            expires_at=moments,
        )
    )
)
def test_any_tokens_can_be_laid_out(tokens: list[AccessToken]) -> None:
    """For any dates there is a bar for each token, within the axis, from left to right."""
    bars = lay_out(tokens, worst_levels(audit_tokens(tokens, now=NOW)), scale_for(tokens, NOW))

    assert len(bars) == len(tokens)
    assert all(0 <= one.start <= one.end <= 1 for one in bars)
    assert all(one.used is None or 0 <= one.used <= 1 for one in bars)


# ---- In a terminal


def test_a_line_for_each_token() -> None:
    """Each token has a sign, a name and a bar, with characters for the last use, today and open ends."""
    tokens = [
        token("a", name="ends", created_at=NOW - 25 * DAY, expires_at=NOW + 25 * DAY, last_used_at=NOW - 10 * DAY),
        token("b", name="begins", created_at=NOW - 25 * DAY),
        token("c", name="open", expires_at=NOW + 25 * DAY),
    ]
    lines = drawn(*tokens, width=44, scale=HUNDRED_DAYS, findings=[finding(tokens[0], Level.HIGH)])

    assert lines[:5] == [
        "                              ┃ today",
        "                     2026-05        2026-07",
        "▲ ends                 ━━━━●━━┃━━━━━━",
        "✓ open           ◀━━━━━━━━━━━━┃━━━━━━",
        "✓ begins               ━━━━━━━┃━━━━━━━━━━━▶",
    ]


def test_the_legend_explains_the_signs() -> None:
    """Below the bars each sign is explained, wrapped where the terminal is narrow."""
    legend = " ".join(" ".join(drawn(width=60)[2:]).split())

    for words in ("▲ high", "◆ medium", "■ low", "○ info", "✓ nothing found", "● last use", "◀▶ beyond or unknown"):
        assert words in legend


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_other_encodings_get_plain_characters(encoding: str) -> None:
    """A terminal without these characters gets ASCII, and names lose what it cannot show."""
    lines = drawn(
        token("a", name="監視 bot", created_at=NOW - DAY, last_used_at=NOW - DAY), encoding=encoding, width=60
    )

    assert lines[2].startswith("M ?? bot ")
    assert lines[2].endswith(">")
    assert "o" in lines[2][-20:]
    assert "|" in lines[2]
    assert all(line.isascii() for line in lines)


@pytest.mark.parametrize("width", [30, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Long and wide names are cut off: each token has one line, and all bars begin in one column and use the width."""
    tokens = [token(name, name=name, expires_at=None) for name in ("x" * 300, "監視" * 50, "short")]
    lines = drawn(*tokens, width=width, scale=HUNDRED_DAYS)
    rows = [line for line in lines if line[0] == "◆"]

    assert len(rows) == 3
    assert all(cell_len(line) <= width for line in lines)
    assert max(map(cell_len, rows)) == width - 1  # the whole width is used
    assert sum("…" in row for row in rows) == 2
    assert len({cell_len(row.split("◀")[0]) for row in rows}) == 1


def test_a_limit_of_lines() -> None:
    """With a limit the worst tokens are shown, and the rest is counted."""
    tokens = [token(str(number), name=f"n{number}", expires_at=NOW + number * DAY) for number in range(1, 6)]

    assert [line.split()[1] for line in drawn(*tokens, limit=2)[2:5]] == ["n1", "n2", "3"]
    assert drawn(*tokens, limit=2)[4].strip() == "and 3 more"
    assert not any("more" in line for line in drawn(*tokens, limit=5))
    assert drawn(*tokens, limit=5) == drawn(*tokens)


def test_control_characters_and_markup_are_harmless() -> None:
    """A name cannot move the cursor or color the line: it is shown as text."""
    name = "\x1b[2J\r\n[red]x[/]\u202e"
    lines = drawn(token(name=name))

    assert lines[2].startswith("◆ �[2J��[red]x[/]� ")
    assert not any("\x1b" in line or "\u202e" in line for line in lines)


def test_a_token_without_a_name_shows_its_id() -> None:
    """A token without a name is shown by its ID."""
    assert drawn(token("the-id"))[2].startswith("◆ the-id ")
    assert drawn(token("the-id", name=""))[2].startswith("◆ the-id ")


def test_today_at_the_right_edge() -> None:
    """Without room on the right, the label of today stands on the left."""
    late = Scale(NOW, -100 * DAY.total_seconds(), DAY.total_seconds())

    assert drawn(token(), scale=late)[0].endswith("today ┃")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("é 監視 🚀", "é 監視 🚀"),
        ("a\tb\nc\x00\x9b", "a�b�c��"),
        ("\ud800", "�"),
        ("\u202eevil\u2066", "�evil�"),
        ("👩\u200d🚀 क्\u200cष", "👩\u200d🚀 क्\u200cष"),
        ("a\u00a0b\u3000c\u2028", "a\u00a0b\u3000c�"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """Control characters, direction overrides and lone surrogates are replaced; joiners that scripts need stay."""
    assert printable(text) == shown
