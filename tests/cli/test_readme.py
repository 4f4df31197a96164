"""The documentation of the command line: its shell blocks run, and its tables agree with the code."""

import re
import subprocess
import sys
from pathlib import Path

import attrs
from support.command_line import ROOT, environment
from support.forking_executable import forking_executable
from typer.main import get_command

from dd_sa_tokens.cli import app
from dd_sa_tokens.cli.exit_codes import ExitCode
from dd_sa_tokens.cli.options import Options

TEXT = (ROOT / "dd_sa_tokens/cli/README.md").read_text(encoding="utf-8")


def test_every_shell_block_runs(tmp_path: Path) -> None:
    """The shell blocks run as they stand, in one shell and in their order, without an error."""
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 8
    env = environment()
    env["PATH"] = f"{tmp_path}:{Path(sys.executable).parent}:{env['PATH']}"
    script = "trap 'kill $FAKE 2> /dev/null || true' EXIT\n" + "\n".join(blocks)
    words = ["bash", "-ec", script]
    with forking_executable(tmp_path):
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "is revoked" in done.stderr  # the rotation


def test_the_exit_codes_are_complete() -> None:
    """The table has each exit code once."""
    table = TEXT.partition("## Exit codes\n")[2]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [code.value for code in ExitCode]


def test_the_options_are_complete() -> None:
    """The table has each option of all commands."""
    table = TEXT.partition("## Options of all commands\n")[2]
    shared = {field.name for field in attrs.fields(Options)}
    flags = {param.opts[-1] for param in get_command(app).params if param.name in shared}
    assert {*re.findall(r"^\| `(--?[\w-]+)", table, re.MULTILINE)} == flags


def test_the_contents_name_the_sections() -> None:
    """The table of contents links each section."""
    sections = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    links = [f"- [{title}](#{re.sub(r'[^a-z -]', '', title.lower()).replace(' ', '-')})" for title in sections]
    assert [line for line in TEXT.splitlines() if line.startswith("- [")] == links
