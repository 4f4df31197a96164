"""Running pytest inside a test, on files that the test writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
QUIET = ("-q", "-W", "error", "-p", "no:cacheprovider", "--assert=plain")


def run_pytest(directory: Path, *options: str, **files: str) -> str:
    """Run pytest on files, with warnings as errors, and return what it prints.

    Of the installed plugins it loads pytest-asyncio only, unless the options say `no:asyncio`.
    """
    for name, text in files.items():
        (directory / f"{name}.py").write_text(dedent(text), encoding="utf-8")
    if "no:asyncio" not in options:
        settings = ("asyncio_mode=strict", "asyncio_default_fixture_loop_scope=function")
        options = (*options, "-p", "pytest_asyncio.plugin", *(word for value in settings for word in ("-o", value)))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DD_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *QUIET, *options, str(directory)],
        cwd=directory,
        env=env | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr
