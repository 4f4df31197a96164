"""The page of an audit in a real browser: complete, without errors or requests, readable on a phone and in the dark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from support import browser as browsers
from support.browser import Browser

from dd_sa_tokens import AccessToken
from dd_sa_tokens.audit import DEFAULT_RULES
from dd_sa_tokens.cli.report.audit_result import run_audit
from dd_sa_tokens.cli.report.html import render_report

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of this file."""
    with browsers.open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def tokens(number: int, account: str = "sa") -> list[AccessToken]:
    """Make tokens of all kinds."""
    return [
        AccessToken(
            id=f"{account}-{place:034}",
            name=f"deploy-prod-{place}",
            scopes=("dashboards_read", "monitors_write", *(["org_management"] if place % 5 == 0 else [])),
            created_at=NOW - (place * 37 % 700) * DAY,
            last_used_at=NOW - (place % 100) * DAY if place % 4 else None,
            expires_at=None if place % 3 else NOW + (place % 300 - 30) * DAY,
            service_account_id=account,
        )
        for place in range(number)
    ]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """The file for a report."""
    return tmp_path / "report.html"


def write(path: Path, **accounts: Sequence[AccessToken]) -> Path:
    """Write the report of an audit."""
    result = run_audit(accounts, now=NOW, rules=DEFAULT_RULES, unread={"gone": "404"})
    path.write_text(render_report(result), encoding="utf-8")
    return path


def bars(browser: Browser) -> int:
    """Count the bars of the timelines."""
    return browser.js("document.querySelectorAll('.bars path.bar').length")


def test_the_page_logs_nothing_and_requests_nothing(browser: Browser, report: Path) -> None:
    """The console is empty, only the file is requested, and the style and the script work."""
    browser.open(write(report, sa=tokens(40)))

    assert browser.requests() == [report.as_uri()]
    assert browser.js("performance.getEntriesByType('resource').length") == 0
    assert browser.js("document.querySelectorAll('th button').length") == 7
    assert browser.js("getComputedStyle(document.body).maxWidth") == "1408px"
    assert browser.console() == []


def test_errors_and_requests_are_noticed(browser: Browser, tmp_path: Path) -> None:
    """The test above can fail: it notices a page that logs an error and loads an image."""
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('oh')</script><img src='other.png'>", encoding="utf-8")
    browser.open(bad)

    assert len(browser.requests()) == 2
    assert any("oh" in line for line in browser.console())


@pytest.mark.parametrize("number", [0, 1, 60, 300])
def test_as_many_bars_as_tokens(browser: Browser, report: Path, number: int) -> None:
    """The timelines have as many bars as there are tokens, in one account or two."""
    browser.open(write(report, sa=tokens(number), other=tokens(3, "other")))

    assert bars(browser) == number + 3
    assert browser.js("document.querySelectorAll('#all tbody tr[id]').length") == number + 3


def test_a_script_in_a_name_is_text(browser: Browser, report: Path) -> None:
    """A name that is a script is shown as text: it adds no element and opens no dialog."""
    named = AccessToken(id=SCRIPT, name=SCRIPT, scopes=(SCRIPT,), expires_at=None, service_account_id=SCRIPT)
    browser.open(write(report, **{SCRIPT: [named]}))

    assert browser.js("document.scripts.length") == 1  # raises if a dialog is open
    assert browser.js("document.querySelector('#all tbody bdi').textContent") == SCRIPT
    assert browser.js("document.querySelector('.names text').textContent") == f"◆ {SCRIPT}"
    assert browser.console() == []


def test_the_table_is_sorted_by_a_click(browser: Browser, report: Path) -> None:
    """A click on a heading sorts the table, a second click reverses it, and `aria-sort` says so."""
    browser.open(write(report, sa=tokens(12)))
    names = "[...document.querySelectorAll('#all tbody bdi')].map((name) => name.textContent)"
    wanted = [f"deploy-prod-{place}" for place in range(12)]
    button = browser.driver.find_element("css selector", "#all th button")

    button.click()
    first = browser.js(names)
    said = browser.js("document.querySelector('#all th').getAttribute('aria-sort')")
    button.click()

    assert (first, said) == (wanted, "ascending")
    assert browser.js(names) == wanted[::-1]


def type_filter(browser: Browser, text: str) -> None:
    """Replace the text in the box that filters."""
    box = browser.driver.find_element("id", "filter")
    box.clear()
    if text:
        box.send_keys(text)


def shown(browser: Browser, selector: str) -> list[str]:
    """Return the texts of the elements that are visible."""
    return browser.js(
        f"[...document.querySelectorAll('{selector}')].filter((one) => one.checkVisibility())"
        ".map((one) => one.textContent)"
    )


def test_the_filter_leaves_what_matches(browser: Browser, report: Path) -> None:
    """The box filters table and timeline by all its words; rows move up, and accounts without a match are hidden."""
    browser.open(write(report, sa=tokens(60), other=tokens(20, "other")))
    height = browser.js("document.querySelector('.plot').getBoundingClientRect().height")
    names = "[...document.querySelectorAll('#all tbody tr[id]')].filter((row) => row.checkVisibility()).length"

    type_filter(browser, "PROD-1 rotated")
    found = sorted(shown(browser, "#all tbody bdi"))
    wanted = [f"deploy-prod-{place}" for place in (10, 11, 13, 14, 16, 17)]
    assert found == sorted(2 * wanted)
    assert sorted(text[2:] for text in shown(browser, ".names text")) == found
    assert len(shown(browser, ".bars path")) == 12
    assert browser.js("document.querySelector('output').textContent") == "12 of 80 tokens"
    assert browser.js("document.querySelector('.plot').getBoundingClientRect().height") < height / 2
    tops = browser.js(
        "[...document.querySelectorAll('.bars path')].filter((one) => one.checkVisibility())"
        ".map((one) => one.getBoundingClientRect().y - one.closest('.plot').getBoundingClientRect().y)"
    )
    assert tops[1] - tops[0] == 28

    type_filter(browser, "sa-")
    assert len(shown(browser, ".account h3")) == len(shown(browser, "#all .owner")) == 1
    assert browser.js(names) == 60
    type_filter(browser, "nothing-has-this")
    assert shown(browser, ".account h3") == shown(browser, "#all tbody bdi") == []
    type_filter(browser, "")
    browser.js("document.getElementById('filter').dispatchEvent(new Event('input'))")
    assert browser.js(names) == 80
    assert browser.js("document.querySelector('.plot').getBoundingClientRect().height") == height
    assert browser.console() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_five_hundred_tokens_have_names(browser: Browser, report: Path, width: int) -> None:
    """Each of 500 tokens has its name beside its bar, or above it on a phone, and no name covers another."""
    browser.open(write(report, sa=tokens(500)), width=width)

    tops = browser.js("[...document.querySelectorAll('.names text')].map((one) => one.getBoundingClientRect().y)")
    size = browser.js("document.querySelector('.names text').getBoundingClientRect().height")
    assert len(tops) == 500
    assert min(low - high for high, low in pairwise(tops)) >= size


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_nothing_scrolls_sideways(browser: Browser, report: Path, width: int) -> None:
    """The page is as wide as the window, on a phone as well, even with names of one long word."""
    odd = AccessToken(id="x" * 200, name="y" * 200, scopes=("z" * 200,), expires_at=None, service_account_id="w" * 200)
    browser.open(write(report, sa=tokens(30), other=[odd]), width=width)

    assert browser.js("innerWidth") == width
    assert browser.js("document.documentElement.scrollWidth") <= width


def test_light_and_dark(browser: Browser, report: Path) -> None:
    """The page has a dark background in the dark color scheme, and light text on it."""
    write(report, sa=tokens(3))
    seen = {}
    for scheme in ("light", "dark"):
        browser.open(report, scheme=scheme)
        style = browser.js("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
        seen[scheme] = [sum(map(int, re.findall(r"\d+", colour))) for colour in style]

    assert seen["light"][0] > 600 > 300 > seen["light"][1]
    assert seen["dark"][1] > 600 > 300 > seen["dark"][0]


def test_thousands_of_tokens_open(browser: Browser, report: Path) -> None:
    """A page with 2,000 tokens opens, with a bar and a row for each."""
    browser.open(write(report, sa=tokens(2_000)))

    assert browser.js("document.readyState") == "complete"
    assert bars(browser) == 2_000
    assert browser.js("document.querySelectorAll('#all tbody tr').length") == 2_000
