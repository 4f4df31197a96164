"""The result of an audit as a page of HTML that holds all it needs. The template engine escapes all text."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import attrs

from dd_sa_tokens.audit import Finding, Level, Rule, administers, utc_day
from dd_sa_tokens.cli.io.printable import printable
from dd_sa_tokens.models import AccessToken

from .audit_result import AuditResult, count, level_name, utc_minute
from .svg import Drawing, describe, draw
from .timeline import LEVELS, SIGNS, lay_out, scale_for

if TYPE_CHECKING:
    from jinja2 import Template

_PACKAGE = "dd_sa_tokens.cli.report"
_MOST_OPEN = 30  # findings of a rule; a longer list is folded
_OPEN = Level.HIGH  # the findings of lower levels are folded
_LARGE = 500  # tokens; a browser lays out the rows of a longer table only when they come into view


@attrs.frozen
class _Account:
    """A service account in the page, with the numbers of its tokens by their worst findings."""

    id: str
    name: str | None
    tokens: int
    counts: Sequence[tuple[Level | None, int]]
    rows: Sequence[_Row]
    numbers: Mapping[AccessToken, int]
    drawing: Drawing
    description: str


@attrs.frozen
class _Row:
    """A token in the page. Links use its number."""

    number: int
    account: str
    name: str | None
    token: AccessToken
    level: Level | None
    findings: Sequence[Finding]

    @property
    def scopes(self) -> list[tuple[str, bool]]:
        """The scopes, and whether each is an administrator's. Those of administrators come first."""
        return sorted(((scope, administers(scope)) for scope in self.token.scopes), key=lambda scope: not scope[1])


@attrs.frozen
class _Group:
    """A rule in the page, with its findings."""

    rule: Rule
    findings: Sequence[tuple[_Row, Finding]]

    @property
    def open(self) -> bool:
        return self.rule.level >= _OPEN and len(self.findings) <= _MOST_OPEN


def render_report(result: AuditResult) -> str:
    """Return the result of an audit as a page of HTML, which loads nothing and can be read without scripts.

    Returns:
        The page. Text from the API is escaped.
    """
    rows = list(_rows(result))
    style, script = _read("report.css"), _read("report.js")
    return (
        _template().render(
            style=style,
            script=script,
            style_hash=_hash(style),
            script_hash=_hash(script),
            now=result.now,
            levels=LEVELS,
            several=len(result.accounts) > 1,
            counts=result.counts,
            accounts=list(_accounts(result, rows)),
            rows=rows,
            large=len(rows) > _LARGE,
            findings=result.findings,
            groups=_groups(rows, result.rules),
            unread=result.unread,
            silent=_rules_without_findings(result),
            next_expiry=_next_expiry(rows, result.now),
        )
        + "\n"
    )


def _template() -> Template:
    """Return the template. It escapes all values, and raises an error for a missing one."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only a page needs it

    environment = Environment(
        loader=PackageLoader(_PACKAGE, "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "day": utc_day,
        "level": _level_class,
        "level_name": level_name,
        "percent": _percent,
        "sign": SIGNS.__getitem__,
        "utc_minute": utc_minute,
        "with_noun": count,
    }
    environment.filters.update(filters)
    return environment.get_template("report.html.j2")


def _rows(result: AuditResult) -> Iterator[_Row]:
    """Yield a row for each token, account by account, the worst tokens of an account first."""
    by_token: defaultdict[AccessToken, list[Finding]] = defaultdict(list)
    for finding in result.findings:
        by_token[finding.token].append(finding)
    worst, number = result.worst, 0
    for account, members in result.accounts.items():
        for token in sorted(members, key=lambda token: LEVELS.index(worst.get(token))):
            number += 1
            name = result.names.get(account)
            yield _Row(number, account, name, token, worst.get(token), by_token.get(token, ()))


def _groups(rows: Iterable[_Row], rules: Sequence[Rule]) -> list[_Group]:
    """Return the rules with findings: the worst level first; within a level, in the order of the rules."""
    findings: defaultdict[str, list[tuple[_Row, Finding]]] = defaultdict(list)
    for row in rows:
        for finding in row.findings:
            findings[finding.rule.id].append((row, finding))
    groups = [_Group(rule, findings[rule.id]) for rule in rules if rule.id in findings]
    return sorted(groups, key=lambda group: group.rule.level, reverse=True)


def _accounts(result: AuditResult, rows: Iterable[_Row]) -> Iterator[_Account]:
    scale = scale_for((token for tokens in result.accounts.values() for token in tokens), result.now)
    by_account: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_account[row.account].append(row)
    for account, tokens in result.accounts.items():
        bars, own = lay_out(tokens, result.worst, scale), by_account[account]
        levels = Counter(bar.level for bar in bars)
        yield _Account(
            id=account,
            name=result.names.get(account),
            tokens=len(tokens),
            counts=[(level, levels[level]) for level in LEVELS if levels[level]],
            rows=own,
            numbers={row.token: row.number for row in own},
            drawing=draw(bars, scale),
            description=describe(bars, scale),
        )


def _rules_without_findings(result: AuditResult) -> list[Rule]:
    found = {finding.rule.id for finding in result.findings}
    return [rule for rule in result.rules if rule.id not in found]


def _next_expiry(rows: Iterable[_Row], now: datetime) -> _Row | None:
    """Return the token that expires next."""
    ends = [(row.token.expires_at, row) for row in rows if row.token.expires_at and not row.token.is_expired(now)]
    return min(ends, key=lambda item: item[0])[1] if ends else None


def _level_class(level: Level | None) -> str:
    return str(level) if level else "none"


def _percent(place: float) -> str:
    return f"{100 * place:.1f}%"


def _printable(value: Any) -> Any:
    # Markup is the template's own; other text may come from the API.
    return printable(value) if type(value) is str else value


def _read(name: str) -> str:
    return resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """Return the digest by which the page's Content-Security-Policy allows its own style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
