"""An audit in text, for a terminal: counts, the timeline of each account, and the findings, the worst first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dd_sa_tokens.audit import Finding

from .audited import Audit, count, sum_up
from .picture import SIGNS
from .tables import cell
from .text_timeline import STYLES, print_timeline
from .timeline import scale_for

_NARROW = 80  # columns: below that, an ID stands on a line of its own
_WIDEST_NAME = 32
_LONGEST_ID = 36  # a UUID
_WIDEST = 140
_SENTENCE = 100  # columns: a longer line is hard to read


def print_audit(console: Console, audit: Audit, *, limit: int | None = None) -> None:
    """Print an audit.

    Args:
        console: Where to print.
        audit: The audit.
        limit: The most tokens to show in an account's timeline, and the most findings of a rule; what is left out is
            counted. `None` for all.
    """
    console.print(Text(sum_up(audit), style="bold"))
    if audit.total:
        levels = [(f"{_sign(console, level)} {number} {level or 'without findings'}", STYLES[level])
                  for level, number in audit.counts.items()]  # fmt: skip
        console.print(Text("   ").join(Text(*level) for level in levels))
    for account in audit.unread:  # the reasons are on stderr
        console.print(Text.assemble("Not read: service account ", cell(account), style="red"))
    _print_timelines(console, audit, limit)
    groups: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in audit.findings:
        groups[finding.rule.id].append(finding)
    for found in groups.values():
        _print_group(console, audit, found, limit)
    if not audit.findings:
        console.print(Text("\nNothing was found." if audit.total else "\nThere are no tokens."))
    elif limit is not None and max(map(len, groups.values())) > limit:
        console.print(Text("\nAll findings: --format csv. To look at: --output report.html.", style="dim"))


def _sign(console: Console, level: object) -> str:
    sign = next(sign for each, sign in SIGNS.items() if each == level)
    return "*" if console.options.ascii_only else sign


def _print_timelines(console: Console, audit: Audit, limit: int | None) -> None:
    scale = scale_for((token for tokens in audit.accounts.values() for token in tokens), audit.now)
    for account, tokens in audit.accounts.items():
        console.print()
        if len(audit.accounts) > 1 or not tokens:
            console.print(Text.assemble("Service account ", cell(account), "" if tokens else " has no tokens"))
        if tokens:
            print_timeline(console, tokens, audit.findings, now=audit.now, scale=scale, limit=limit)


def _print_group(console: Console, audit: Audit, found: Sequence[Finding], limit: int | None) -> None:
    """Print what a rule found."""
    rule = found[0].rule
    head = Text(f"{_sign(console, rule.level)} {rule.level}  ", STYLES[rule.level])
    console.print()
    console.print(Text.assemble(head, (rule.title, "bold"), f": {count(len(found), 'token')}"))
    for sentence in (rule.reason, f"What to do: {rule.advice}"):
        console.print(
            Padding(Text(sentence, style="dim"), (0, 0, 0, 2), expand=False), width=min(console.width, _SENTENCE)
        )
    shown = found[:limit]
    by_account: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in shown:
        by_account[finding.token.service_account_id or "unknown"].append(finding)
    for account, some in by_account.items():
        if len(audit.accounts) > 1:
            console.print(Text.assemble("  Service account ", cell(account)))
        console.print(_findings_table(some, min(console.width, _WIDEST) - 2))
    if len(shown) < len(found):
        console.print(Text(f"  and {len(found) - len(shown)} more", style="dim"))


def _findings_table(findings: Sequence[Finding], width: int) -> Padding:
    """Return a line for each finding; where it is narrow, the IDs are on lines of their own."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    narrow = width < _NARROW
    names = [_name(finding, min(_WIDEST_NAME, width // (2 if narrow else 4))) for finding in findings]
    if narrow:
        table.add_column(ratio=1, overflow="fold")
        for name, finding in zip(names, findings, strict=True):
            table.add_row(Text.assemble(name, ": ", cell(finding.detail)))
            table.add_row(Padding(cell(finding.token.id), (0, 0, 0, 2), style="dim"))
    else:
        table.add_column(width=max(name.cell_len for name in names), no_wrap=True)
        table.add_column(width=min(max(len(finding.token.id) for finding in findings), _LONGEST_ID), overflow="fold")
        table.add_column(ratio=1, overflow="fold")
        for name, finding in zip(names, findings, strict=True):
            table.add_row(name, cell(finding.token.id), cell(finding.detail))
    return Padding(table, (0, 0, 0, 2), expand=False)


def _name(finding: Finding, width: int) -> Text:
    name = cell(finding.token.name or "no name")
    name.truncate(width, overflow="ellipsis")
    return name
