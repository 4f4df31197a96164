"""The page of an audit as a parser reads it: complete, harmless, self-contained, with the findings."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import attrs
import pytest

from dd_sa_tokens import AccessToken, Leak
from dd_sa_tokens.audit import DEFAULT_RULES, Level, Rule, each
from dd_sa_tokens.cli.report.audit_result import run_audit
from dd_sa_tokens.cli.report.html import render_report
from dd_sa_tokens.cli.report.svg import draw
from dd_sa_tokens.cli.report.timeline import LEVELS, SIGNS, lay_out, scale_for

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SCRIPT = "<script>alert(1)</script>"
VOID = {"meta", "line", "path", "circle", "br", "rect", "use", "input"}


@attrs.define
class Node:
    """An element with its attributes, its elements and its whole text."""

    tag: str
    attributes: dict[str, str]
    children: list[Node] = attrs.Factory(list)
    text: str = ""

    def all(self, tag: str, cls: str | None = None) -> list[Node]:
        """Return the elements below of a kind, and of a class."""
        found = [
            child
            for child in self.children
            if child.tag == tag and (cls is None or cls in child.attributes.get("class", "").split())
        ]
        return [*found, *(deep for child in self.children for deep in child.all(tag, cls))]

    def one(self, tag: str, **attributes: str) -> Node:
        """Return the only element below of a kind with these attributes."""
        (only,) = (node for node in self.all(tag) if attributes.items() <= node.attributes.items())
        return only


class Page(HTMLParser):
    """A parser that insists on elements being closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Node("", {})
        self.stack = [self.root]
        self.feed(html)
        self.close()
        assert self.stack == [self.root]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes)
        node = Node(tag, {name: value or "" for name, value in attributes})
        self.stack[-1].children.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.stack[-1].children.append(Node(tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for node in self.stack:
            node.text += data


def token(token_id: str = "t1", **fields: Any) -> AccessToken:
    return AccessToken(id=token_id, **({"expires_at": NOW + 100 * DAY, "service_account_id": "sa"} | fields))


def report(accounts: Mapping[str, Sequence[AccessToken]], rules: Sequence[Rule] = DEFAULT_RULES) -> str:
    """Audit tokens and return the page."""
    return render_report(run_audit(accounts, now=NOW, rules=rules))


def page(*tokens: AccessToken, **accounts: Sequence[AccessToken]) -> Node:
    """Return the parsed page of some tokens, of one account unless told otherwise."""
    return Page(report(accounts or {"sa": tokens})).root


MIXED = [
    token("high", name="ops", scopes=("a_read", "org_management"), created_at=NOW - 90 * DAY, last_used_at=NOW - DAY),
    token("medium", name="old", expires_at=None, created_at=NOW - 90 * DAY),
    token("low", name="gone", expires_at=NOW - DAY),
    token("info", name="ci", scopes=("a_write",)),
    token("fine", name="ok", scopes=("a_read",), public_portion="ddsat_0KHC"),
]


# ---- Whole and self-contained


def test_the_page_is_a_document() -> None:
    """The page has a language, an encoding, a title with the moment of the audit, and one main heading."""
    root = page(*MIXED)

    assert report({"sa": MIXED}).startswith("<!doctype html>\n")
    assert root.one("html").attributes["lang"] == "en"
    assert root.one("meta", charset="utf-8")
    assert root.one("meta", name="viewport").attributes["content"] == "width=device-width, initial-scale=1"
    assert root.one("meta", name="color-scheme").attributes["content"] == "light dark"
    assert root.all("title")[0].text == "Audit of service access tokens, 2026-06-01 12:00 UTC"
    assert len(root.all("h1")) == 1


def test_the_policy_allows_the_pages_own_style_and_script_only() -> None:
    """A Content-Security-Policy forbids everything but the page's style and script, by their digests."""
    root = page(*MIXED)
    policy = root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"].split("; ")

    def digest(tag: str) -> str:
        return base64.b64encode(hashlib.sha256(root.one(tag).text.encode()).digest()).decode()

    assert policy == [
        "default-src 'none'",
        f"style-src 'sha256-{digest('style')}'",
        f"script-src 'sha256-{digest('script')}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_nothing_is_loaded_from_elsewhere() -> None:
    """No element can fetch anything: all links stay within the page, and it has no other URL."""
    html = report({"sa": MIXED})
    root = Page(html).root
    everything = [root]
    for node in everything:
        everything.extend(node.children)

    assert not re.search(r"https?:|url\(|@import|javascript:|data:", html)
    assert {node.tag for node in everything}.isdisjoint({"link", "img", "iframe", "object", "embed", "base", "form"})
    for node in everything:
        assert node.attributes.keys().isdisjoint({"src", "style", "srcset"})
        assert not any(name.startswith("on") for name in node.attributes)
        assert node.attributes.get("href", "#").startswith("#")


def test_links_have_targets() -> None:
    """Each link and each reference names an ID of the page, and no ID occurs twice."""
    html = report({"sa": MIXED, "another": [token("x", expires_at=None)]})
    ids = re.findall(r' id="([^"]+)"', html)
    targets = re.findall(r' href="#([^"]+)"', html)
    targets += " ".join(re.findall(r' aria-labelledby="([^"]+)"', html)).split()

    assert len(set(ids)) == len(ids)
    assert set(targets) <= set(ids)
    assert "t1" in targets


# ---- What it says


def test_the_headline_counts_tokens_by_their_worst_finding() -> None:
    """The counts by level add up to the tokens, and the moment, the accounts and the next expiry are named."""
    root = page(*MIXED)
    counts = root.one("ul", **{"class": "counts"})
    header = " ".join(root.one("header").text.split())

    assert [" ".join(item.text.split()) for item in counts.all("li")] == [
        "0 ✖ critical",
        "1 ▲ high",
        "1 ◆ medium",
        "1 ■ low",
        "1 ○ info",
        "1 ✓ without findings",
    ]
    assert "5 tokens of 1 service account, as of 2026-06-01 12:00 UTC." in header
    assert "5 findings." in header
    assert "Next to expire: ops, on 2026-09-09." in header


@pytest.mark.parametrize(
    ("accounts", "words"),
    [
        ({}, "0 tokens of 0 service accounts"),
        ({"sa": []}, "0 tokens of 1 service account,"),
        ({"sa": [token()]}, "1 token of 1 service account,"),
        ({"sa": [token(expires_at=None)], "other": [token("b")]}, "2 tokens of 2 service accounts,"),
    ],
)
def test_one_and_many(accounts: dict[str, list[AccessToken]], words: str) -> None:
    """No token and one token make a page, with the right words for their number."""
    header = " ".join(Page(report(accounts)).root.one("header").text.split())

    assert words in header
    assert ("Next to expire" in header) == any(one.expires_at for tokens in accounts.values() for one in tokens)


def test_the_next_expiry_is_to_come() -> None:
    """A token that has expired is not the next to expire."""
    root = page(
        token("a", name="gone", expires_at=NOW), token("b", name="next"), token("c", expires_at=NOW + 999 * DAY)
    )

    assert "Next to expire: next, on 2026-09-09." in " ".join(root.one("header").text.split())


def test_findings_are_grouped_by_rule() -> None:
    """Each rule has its level, title, count, reason and advice, and a line for each of its findings."""
    root = page(*MIXED, token("more", name="", expires_at=None))
    groups = root.all("details")
    rules = {rule.title: rule for rule in DEFAULT_RULES}

    assert [[" ".join(part.text.split()) for part in group.one("summary").children] for group in groups] == [
        ["▲ high", "Can administer the organization", "1 token"],
        ["◆ medium", "Never used", "1 token"],
        ["◆ medium", "Never expires", "2 tokens"],
        ["■ low", "Expired but still there", "1 token"],
        ["○ info", "Can change things", "1 token"],
    ]
    for group in groups:
        rule = rules[group.one("summary").all("span")[0].text]
        assert rule.reason in group.text
        assert rule.advice in group.text
    assert [[cell.text for cell in row.children] for row in groups[2].all("tr")] == [
        ["Token", "Finding"],
        ["old", "it has no expiry"],
        ["no name", "it has no expiry"],
    ]
    assert ["open" in group.attributes for group in groups] == [True, False, False, False, False]


def test_the_worst_rules_come_first() -> None:
    """Rules are sorted by level, then by the order in which they were given."""
    titles = [
        group.all("span")[0].text
        for group in Page(report({"sa": MIXED}, rules=DEFAULT_RULES[::-1])).root.all("details")
    ]

    assert titles == [
        "Can administer the organization",
        "Never expires",
        "Never used",
        "Expired but still there",
        "Can change things",
    ]


def test_rules_keep_their_order_for_any_tokens() -> None:
    """Within a level the order is that of the rules, not of the tokens."""
    old = token("a", created_at=NOW - 400 * DAY, last_used_at=NOW)
    idle = token("b", created_at=NOW - 100 * DAY, last_used_at=NOW - 100 * DAY)

    for tokens in ([old, idle], [idle, old]):
        assert [group.all("span")[0].text for group in page(*tokens).all("details")] == [
            "Not used for 90 days",
            "Not rotated for 365 days",
        ]


def test_long_lists_are_folded() -> None:
    """Even the worst findings are folded if they are many, so that the timeline stays near the top."""
    tokens = [token(str(number), scopes=("org_management",)) for number in range(31)]

    assert "open" in page(*tokens[:30]).all("details")[0].attributes
    assert "open" not in page(*tokens).all("details")[0].attributes


def test_rules_that_found_nothing_are_named() -> None:
    """The page names the rules without findings, and says so if no rule has any."""
    silent = page(token()).one("p", **{"class": "silent"}).text

    assert "Nothing was found." in page(token()).one("section", id="findings").text
    assert all(rule.title in silent for rule in DEFAULT_RULES)
    assert "Never expires" not in page(token(expires_at=None)).one("p", **{"class": "silent"}).text
    every = Rule(id="every", title="Everything", level=Level.LOW, reason="", advice="", judge=each(lambda *_: "x"))
    assert not Page(report({"sa": [token()]}, rules=[every])).root.all("p", "silent")


def test_the_table_has_a_row_for_each_token() -> None:
    """A row has the name, ID, public portion, worst level, findings, scopes and dates of a token."""
    table = page(*MIXED).one("table", id="all")
    rows = [[" ".join(cell.text.split()) for cell in row.children] for row in table.all("tr")]

    assert rows[:2] == [
        ["Token", "Worst", "Findings", "Scopes", "Created", "Last used", "Expires"],
        [
            "ops high",
            "▲ high",
            "Can administer the organization",
            "org_management, a_read",
            "2026-03-03",
            "2026-05-31",
            "2026-09-09",
        ],
    ]
    assert rows[2][2:] == ["Never used; Never expires", "", "2026-03-03", "never", "never"]
    assert rows[5] == ["ok fine ddsat_0KHC", "✓ fine", "", "a_read", "unknown", "never", "2026-09-09"]
    assert [row[1].split()[1] for row in rows[1:]] == ["high", "medium", "low", "info", "fine"]
    assert table.all("strong")[0].text == "org_management"


@pytest.mark.parametrize(("number", "classes"), [(500, "tokens"), (501, "tokens large")])
def test_very_long_tables_are_marked(number: int, classes: str) -> None:
    """A table that a browser would lay out slowly is marked, so that the style can speed it up."""
    assert page(*(token(str(place)) for place in range(number))).one("table", id="all").attributes["class"] == classes


def test_several_accounts_in_one_report() -> None:
    """Each account has its own timeline on a common scale, and its own part of the table; the worst one comes first."""
    root = page(three=[], two=[token("b", expires_at=NOW)], one=[token("a", expires_at=None)])
    plots = root.all("svg", "plot")

    titles = ["Service account one ◆ 1 medium ", "Service account two ■ 1 low ", "Service account three "]
    assert [heading.text for heading in root.all("h3")] == titles
    assert len(plots) == 2
    assert [tick.attributes["x"] for tick in plots[0].all("text")] == [
        tick.attributes["x"] for tick in plots[1].all("text")
    ]
    assert "This account has no tokens." in root.one("section", id="timeline").text
    assert [[row.all("th")[0].text for row in body.all("tr")] for body in root.one("table", id="all").all("tbody")] == [
        [titles[0], "no name a"],
        [titles[1], "no name b"],
        [titles[2]],
    ]
    assert [cell.text for cell in root.all("details")[0].all("td")] == ["one", "it has no expiry"]


# ---- The timeline


@pytest.mark.parametrize("number", [0, 1, 5, 500, 501, 700])
def test_as_many_bars_as_tokens(number: int) -> None:
    """Each token has a bar, and each used token a dot, for any number of tokens."""
    tokens = [
        token(str(place), expires_at=None if place % 3 else NOW + place * DAY, last_used_at=NOW if place % 2 else None)
        for place in range(number)
    ]
    timeline = page(*tokens).one("section", id="timeline")

    assert sum(len(svg.all("path", "bar")) for svg in timeline.all("svg", "bars")) == number
    assert sum(len(svg.all("circle", "dot")) for svg in timeline.all("svg", "plot")) == number // 2


def test_bars_have_the_level_of_the_worst_finding() -> None:
    """A bar's class and the sign beside its name show the level, so that color is not the only mark."""
    timeline = page(*MIXED).one("section", id="timeline")
    names = timeline.all("svg", "names")[0].all("text")

    assert [bar.attributes["class"] for bar in timeline.all("svg", "bars")[0].all("path")] == [
        "bar high",
        "bar medium",
        "bar low",
        "bar info",
        "bar none",
    ]
    assert [name.text for name in names] == ["▲ ops", "◆ old", "■ gone", "○ ci", "✓ ok"]
    assert len(set(SIGNS.values())) == len(LEVELS)


def test_the_timeline_has_a_text_alternative() -> None:
    """The timeline is an image with a title and a description of its content."""
    plot = page(*MIXED).all("svg", "plot")[0]
    title, description = plot.one("title"), plot.one("desc")

    assert plot.attributes["role"] == "img"
    assert plot.attributes["aria-labelledby"].split() == [title.attributes["id"], description.attributes["id"]]
    assert title.text == "Timeline of the tokens of service account sa"
    assert description.text == (
        "Each token is a bar from its creation to its expiry, the worst first. "
        "Tokens: 5 (1 high, 1 medium, 1 low, 1 info, 1 without findings). "
        "Expired: 1. Without an expiry: 1. Never used: 4. "
        "The tables of this page have the same information."
    )


def path(**fields: Any) -> str:
    """Return the path of a token's bar on an axis from 100 days ago to 100 days ahead."""
    one = token(**({"created_at": NOW - 50 * DAY} | fields))
    scale = attrs.evolve(scale_for([one], NOW), first=-100 * DAY.total_seconds(), last=100 * DAY.total_seconds())
    (bar,) = draw(lay_out([one], {}, scale), scale).rows
    return bar.path


@pytest.mark.parametrize(
    ("fields", "d"),
    [
        ({"expires_at": NOW + 50 * DAY}, "M250 56h500"),
        ({"expires_at": None}, "M250 56H952m6 0h8m6 0h8m6 0h8"),
        ({"expires_at": NOW + 101 * DAY}, "M250 56H952m6 0h8m6 0h8m6 0h8"),
        ({"created_at": None, "expires_at": NOW + 50 * DAY}, "M0 56h8m6 0h8m6 0h8m6 0H750"),
        ({"created_at": None, "expires_at": None}, "M0 56h8m6 0h8m6 0h8m6 0H952m6 0h8m6 0h8m6 0h8"),
        ({"expires_at": NOW - 50 * DAY}, "M250 56h3"),
        ({"expires_at": NOW - 99 * DAY}, "M250 56h3"),
        ({"created_at": NOW + 99 * DAY, "expires_at": None}, "M995 56h5"),
        ({"created_at": NOW + 200 * DAY, "expires_at": None}, "M997 56h3"),
    ],
)
def test_paths(fields: dict[str, Any], d: str) -> None:
    """A bar is a line that ends in dashes if it continues or is unknown, and no bar is too short to see."""
    assert path(**fields) == d


def test_accounts_are_grouped_by_name() -> None:
    """Where names are known, accounts of one level come in the order of their names, and the ID stands beside each."""
    accounts = {
        "id-1": [token("a")],
        "id-2": [token("b")],
        "id-3": [token("c")],
        "id-4": [token("d", leak=Leak(id="x"))],
    }
    names = {"id-1": "web", "id-2": "Api", "id-4": "zoo"}
    root = Page(render_report(run_audit(accounts, now=NOW, rules=DEFAULT_RULES, names=names))).root

    assert [heading.text for heading in root.all("h3")] == [
        "Service account zoo id-4 ✖ 1 critical ",
        "Service account Api id-2 ✓ 1 without findings ",
        "Service account id-3 ✓ 1 without findings ",
        "Service account web id-1 ✓ 1 without findings ",
    ]
    assert [row.text for row in root.all("tr", "owner")] == [heading.text for heading in root.all("h3")]
    assert [cell.text for cell in root.all("details")[0].all("td")] == ["zoo id-4", "its key was found in public"]


def test_the_worst_of_many_tokens_have_names() -> None:
    """500 tokens have names, the worst first. The bars of the others are close together, in groups with numbers."""
    leaked = token("leaked", leak=Leak(id="x"))
    tokens = [token(str(number), expires_at=None if number % 2 else NOW) for number in range(1100)]
    timeline = page(*tokens, leaked).one("section", id="timeline")
    names = timeline.all("svg", "names")[0].all("text")
    bars = timeline.all("svg", "bars")[0].all("path")
    rows = [float(re.match(r"M\d+ ([\d.]+)", bar.attributes["d"])[1]) for bar in bars]

    assert len(names) == 502
    assert names[0].text == "✖ leaked"
    assert {name.text[0] for name in names[1:500]} == {"◆"}
    assert [(name.text, name.attributes["y"], name.attributes["data-rows"]) for name in names[500:]] == [
        ("◆ medium: 51 more tokens", "14050.0", "51"),
        ("■ low: 550 tokens", "14223.0", "550"),
    ]
    assert (rows[0], rows[499], rows[500], rows[1100]) == (56, 14028, 14057.5, 15877.5)
    assert timeline.all("svg", "plot")[0].attributes["height"] == "15887"


def test_names_in_the_timeline_are_short() -> None:
    """A long name is cut off, and a token without a name is shown by its ID."""
    tokens = [token("a", name="x" * 32), token("b", name="x" * 33), token("the-id", name=None)]
    names = page(*tokens).all("svg", "names")[0].all("text")

    assert [name.text for name in names] == [f"✓ {'x' * 32}", f"✓ {'x' * 32}…", "✓ the-id"]


# ---- Harmless


@pytest.mark.parametrize(
    "text",
    [
        SCRIPT,
        "</title></svg></style><script>alert(1)</script>",
        "\"'><img src=x onerror=alert(1)>",
        "{{ 7 * 7 }}{% raw %}",
        "<!-- -->]]>&amp;&#60;",
        "\u05e9\u05dc\u05d5\u05dd",
        "👩\u200d🚀",
        "x" * 5000,
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_values_from_the_api_are_text(text: str) -> None:
    """Any name, ID, scope or account is shown as it is, and changes no element of the page."""
    plain = page(plain=[token("plain", name="plain", scopes=("plain",), public_portion="plain")])
    odd = Page(
        report(
            {
                text: [
                    token(text, name=text, scopes=(text,), public_portion=text, service_account_id=text),
                ]
            }
        )
    ).root
    cells = odd.one("table", id="all").all("tr")[1].children

    assert shape(odd) == shape(plain)
    assert [code.text for code in cells[0].all("code")] == [text, text]
    assert (cells[0].all("bdi")[0].text, cells[3].text) == (text, text)
    assert odd.all("h3")[0].text == f"Service account {text}"
    assert odd.all("script")[0].text == plain.all("script")[0].text


def shape(node: Node) -> Any:
    """Return the elements of a page without their texts."""
    return node.tag, sorted(node.attributes), [shape(child) for child in node.children]


def test_control_characters_are_replaced() -> None:
    """Characters that change the direction of a line, or have no UTF-8 form, are replaced."""
    html = report({"sa": [token(name="a\x00b\x1bc\ud800d\u202ee\nf")]})

    assert "a�b�c�d�e�f" in html
    assert html.encode("utf-8").isascii() is False


# ---- Colours


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, as WCAG defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_enough_contrast(scheme: int) -> None:
    """In both color schemes every text has the contrast of WCAG AA, 4.5 to 1, on the page and its panels."""
    css = resources.files("dd_sa_tokens.cli.report").joinpath("report.css").read_text("utf-8")
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", css.split(":root {")[scheme + 1].split("}")[0]))
    texts = [colours[name] for name in ("ink", "soft", "link", "high", "medium", "low", "info", "none")]

    for ground in (colours["paper"], colours["panel"]):
        for text in texts:
            lighter, darker = sorted((luminance(text), luminance(ground)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)


# ---- Cost


def test_two_thousand_tokens() -> None:
    """The page has little more than a kilobyte for each of many tokens, and a bar for each."""
    tokens = [
        token(
            f"{number:036}",
            name=f"deploy-prod-{number}",
            scopes=("dashboards_read", "monitors_write", "org_management"),
            created_at=NOW - (number % 700) * DAY,
            last_used_at=NOW - (number % 100) * DAY,
            expires_at=None if number % 3 else NOW + (number % 300 - 30) * DAY,
        )
        for number in range(2_000)
    ]
    html = report({"sa": tokens})

    assert len(html) < 2_000 * 1_200
    assert html.count('<path class="bar ') == 2_000 + html.count('<path class="bar line"')


def test_jinja_is_imported_for_a_page_only() -> None:
    """Importing the command line imports no template engine and no web server; rendering a page imports the engine."""
    code = """
import sys, datetime, dd_sa_tokens.cli
print("aiohttp.web" in sys.modules)
from dd_sa_tokens.cli.report.audit_result import run_audit
from dd_sa_tokens.cli.report.html import render_report
print("jinja2" in sys.modules)
render_report(run_audit({}, now=datetime.datetime.now(datetime.UTC), rules=()))
print("jinja2" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False", "True"]
