"""The documentation of the audit: each example runs, and the table has the rules."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from support.markdown_blocks import blocks, languages

from dd_sa_tokens.audit import DEFAULT_RULES
from dd_sa_tokens.testing import FakeDatadog

README = Path(__file__).parents[2] / "dd_sa_tokens" / "audit" / "README.md"


async def test_each_example_runs(
    fake_datadog: FakeDatadog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python blocks run in order, as a reader would paste them; only the client's URL is another."""
    monkeypatch.setattr("dd_sa_tokens.TokensClient", fake_datadog.client)
    names: dict[str, Any] = {"service_account_id": fake_datadog.service_account_id}
    for text in blocks(README, "python"):
        code = compile(text, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        outcome = eval(code, names)
        if inspect.iscoroutine(outcome):
            await outcome

    assert capsys.readouterr().out.count("\n") > 50


def test_the_table_has_the_rules() -> None:
    """The table under "The rules" is made of the default rules, in their order."""
    text = README.read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- rules -->\n(.*?)<!-- end of rules -->", text, re.DOTALL)
    rows = [f"| `{rule.id}` | {rule.level} | {rule.title} |" for rule in DEFAULT_RULES]

    assert table.splitlines()[2:] == rows


def test_every_block_is_run() -> None:
    """There are no blocks but examples in Python."""
    assert languages(README) == {"python"}
