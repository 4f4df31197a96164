"""The result of an audit as text, for a terminal: counts, a timeline of each account, and the findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dd_sa_tokens.audit import Finding

from .audit_result import AuditResult, count, level_name
from .tables import LONGEST_ID, cell
from .text_timeline import LONGEST_NAME, STYLES, level_sign, print_timeline
from .timeline import scale_for

_NARROW = 80  # columns: on a narrower terminal an ID has a line of its own
_SENTENCE = 100  # columns: a longer line of prose is hard to read


def print_audit(console: Console, result: AuditResult, *, limit: int | None = None) -> None:
    """Print the result of an audit.

    Args:
        console: Where to print.
        result: The result.
        limit: The most tokens in the timeline of an account, and the most findings of a rule. The rest is counted.
            `None` for all.
    """
    console.print(Text(result.headline(), style="bold"))
    if result.total:
        levels = [
            Text(f"{level_sign(console, level)} {number} {level_name(level)}", STYLES[level])
            for level, number in result.counts.items()
        ]
        console.print(Text("Tokens by their worst finding:"))
        console.print(Padding(Text("  ").join(levels), (0, 0, 0, 2), expand=False))
    for account in result.unread:  # standard error has the reasons
        console.print(Text.assemble("Not read: service account ", cell(account), style="red"))
    _print_timelines(console, result, limit)
    groups: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in result.findings:
        groups[finding.rule.id].append(finding)
    for findings in groups.values():
        _print_group(console, result, findings, limit)
    if not result.findings:
        console.print(Text("\nNothing was found." if result.total else "\nThere are no tokens."))
    elif limit is not None and max(map(len, groups.values())) > limit:
        console.print(Text("\nAll findings: --format csv. As a page: --output report.html.", style="dim"))


def _print_timelines(console: Console, result: AuditResult, limit: int | None) -> None:
    scale = scale_for((token for tokens in result.accounts.values() for token in tokens), result.now)
    for account, tokens in result.accounts.items():
        console.print()
        if len(result.accounts) > 1 or not tokens:
            console.print(
                Text.assemble("Service account ", cell(result.title(account)), "" if tokens else " has no tokens")
            )
        if tokens:
            print_timeline(console, tokens, result.findings, now=result.now, scale=scale, limit=limit)


def _print_group(console: Console, result: AuditResult, findings: Sequence[Finding], limit: int | None) -> None:
    """Print the findings of a rule."""
    rule = findings[0].rule
    head = Text(f"{level_sign(console, rule.level)} {rule.level}  ", STYLES[rule.level])
    console.print()
    console.print(Text.assemble(head, (rule.title, "bold"), f": {count(len(findings), 'token')}"))
    for sentence in (rule.reason, f"What to do: {rule.advice}"):
        console.print(
            Padding(Text(sentence, style="dim"), (0, 0, 0, 2), expand=False), width=min(console.width, _SENTENCE)
        )
    shown = findings[:limit]
    by_account: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in shown:
        by_account[finding.token.service_account_id or "unknown"].append(finding)
    for account, some in by_account.items():
        if len(result.accounts) > 1:
            console.print(Text.assemble("  Service account ", cell(result.title(account))))
        console.print(_findings_table(some, console.width - 2))
    if len(shown) < len(findings):
        console.print(Text(f"  and {len(findings) - len(shown)} more", style="dim"))


def _findings_table(findings: Sequence[Finding], width: int) -> Padding:
    """Return a table with a line for each finding, or two lines on a narrow terminal: the second has the ID."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    narrow = width < _NARROW
    names = [_name(finding, min(LONGEST_NAME, width // (2 if narrow else 4))) for finding in findings]
    if narrow:
        table.add_column(ratio=1, overflow="fold")
        for name, finding in zip(names, findings, strict=True):
            table.add_row(Text.assemble(name, ": ", cell(finding.detail)))
            table.add_row(Padding(cell(finding.token.id), (0, 0, 0, 2), style="dim"))
    else:
        table.add_column(width=max(name.cell_len for name in names), no_wrap=True)
        table.add_column(width=min(max(len(finding.token.id) for finding in findings), LONGEST_ID), overflow="fold")
        table.add_column(ratio=1, overflow="fold")
        for name, finding in zip(names, findings, strict=True):
            table.add_row(name, cell(finding.token.id), cell(finding.detail))
    return Padding(table, (0, 0, 0, 2), expand=False)


def _name(finding: Finding, width: int) -> Text:
    name = cell(finding.token.name or "no name")
    name.truncate(width, overflow="ellipsis")
    return name
