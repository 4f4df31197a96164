"""The audit's report: one HTML page that holds all it needs, made with a template engine that escapes."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import attrs

from dd_sa_tokens.audit import DEFAULT_RULES, Finding, Level, Rule, administers, utc_day
from dd_sa_tokens.models import AccessToken

from .picture import SIGNS, Picture, describe, draw
from .printable import printable
from .timeline import LEVELS, lay_out, scale_for, worst_levels

if TYPE_CHECKING:
    from jinja2 import Template

_MOST_OPEN = 30  # findings of a rule: a longer list is folded, and one click away
_LARGE = 500  # tokens: a longer table is laid out where it is looked at only
_OPEN = Level.HIGH  # so are the findings of lower levels


@attrs.frozen
class _Account:
    """A service account in the report."""

    id: str
    tokens: int
    picture: Picture
    description: str


@attrs.frozen
class _Row:
    """A token in the report, with a number to link to."""

    number: int
    account: str
    token: AccessToken
    level: Level | None
    findings: Sequence[Finding]

    @property
    def scopes(self) -> list[tuple[str, bool]]:
        """The scopes, those of administrators first, with whether they are."""
        return sorted(((scope, administers(scope)) for scope in self.token.scopes), key=lambda scope: not scope[1])


@attrs.frozen
class _Group:
    """A rule in the report, with what it found."""

    rule: Rule
    findings: Sequence[tuple[_Row, Finding]]

    @property
    def open(self) -> bool:
        return self.rule.level >= _OPEN and len(self.findings) <= _MOST_OPEN


def render_report(
    accounts: Mapping[str, Sequence[AccessToken]],
    findings: Iterable[Finding],
    *,
    now: datetime,
    rules: Iterable[Rule] = DEFAULT_RULES,
    unread: Mapping[str, str] | None = None,
) -> str:
    """Make the report of an audit: a page of HTML that loads nothing from elsewhere and reads without scripts.

    Args:
        accounts: The tokens by service account ID.
        findings: What the audit of all of them found.
        now: The moment of the audit, timezone-aware.
        rules: What was judged by, to name what found nothing. `DEFAULT_RULES` by default.
        unread: Service accounts that could not be read, with the reasons: the page says that they are missing.

    Returns:
        The page, to be written as UTF-8. Whatever text came from the API is escaped.
    """
    findings, rules = list(findings), list(rules)
    rows = list(_rows(accounts, findings))
    style, script = _read("report.css"), _read("report.js")
    return _template().render(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        now=now,
        levels=LEVELS,
        accounts_total=len(accounts),
        several=len(accounts) > 1,
        counts=Counter(row.level for row in rows),
        accounts=_pictures(accounts, findings, now),
        rows=rows,
        large=len(rows) > _LARGE,
        findings=findings,
        groups=_groups(rows, rules),
        unread=unread or {},
        silent=_silent(rules, findings),
        next_expiry=_next_expiry(rows, now),
    )


def _template() -> Template:
    """Read the template, which escapes whatever it is given and fails at what it is not given."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only a report needs it

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_harmless, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "day": utc_day,
        "stamp": _stamp,
        "level": _level,
        "sign": SIGNS.__getitem__,
        "percent": _percent,
    }
    return environment.from_string(_read("report.html.j2"))


def _rows(accounts: Mapping[str, Sequence[AccessToken]], findings: Iterable[Finding]) -> Iterator[_Row]:
    """Yield a row for each token, the worst first."""
    by_token: defaultdict[AccessToken, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_token[finding.token].append(finding)
    worst = worst_levels(findings)
    tokens = [(account, token) for account, members in accounts.items() for token in members]
    tokens.sort(key=lambda item: LEVELS.index(worst.get(item[1])))
    for number, (account, token) in enumerate(tokens, 1):
        yield _Row(number, account, token, worst.get(token), by_token.get(token, ()))


def _groups(rows: Iterable[_Row], rules: Sequence[Rule]) -> list[_Group]:
    """Sort the findings by rule: the worst rules first, then in their order."""
    groups: defaultdict[str, list[tuple[_Row, Finding]]] = defaultdict(list)
    for row in rows:
        for finding in row.findings:
            groups[finding.rule.id].append((row, finding))
    order = {rule.id: place for place, rule in enumerate(rules)}
    made = [_Group(found[0][1].rule, found) for found in groups.values()]
    made.sort(key=lambda group: order.get(group.rule.id, len(order)))
    return sorted(made, key=lambda group: group.rule.level, reverse=True)


def _pictures(
    accounts: Mapping[str, Sequence[AccessToken]], findings: Iterable[Finding], now: datetime
) -> Iterator[_Account]:
    scale = scale_for((token for tokens in accounts.values() for token in tokens), now)
    worst = worst_levels(findings)
    for account, tokens in accounts.items():
        bars = lay_out(tokens, worst, scale)
        yield _Account(account, len(tokens), draw(bars, scale), describe(bars, scale))


def _silent(rules: Iterable[Rule], findings: Iterable[Finding]) -> list[Rule]:
    heard = {finding.rule.id for finding in findings}
    return [rule for rule in rules if rule.id not in heard]


def _next_expiry(rows: Iterable[_Row], now: datetime) -> _Row | None:
    """Find the token that stops working next."""
    ends = [(row.token.expires_at, row) for row in rows if row.token.expires_at and not row.token.is_expired(now)]
    return min(ends, key=lambda item: item[0])[1] if ends else None


def _harmless(value: Any) -> Any:
    # Markup is ours; any other text may be from the API.
    return printable(value) if type(value) is str else value


def _level(level: Level | None) -> str:
    return str(level) if level else "none"


def _percent(place: float) -> str:
    return f"{100 * place:.1f}%"


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _read(name: str) -> str:
    return resources.files("dd_sa_tokens.cli").joinpath(name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """Write the digest by which the page's own policy knows its style and its script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
