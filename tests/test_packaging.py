"""What is published: the wheel, built from the tracked files and installed somewhere else. No network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from importlib.metadata import Distribution, PathDistribution
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.internals import base_python

from dd_sa_tokens import __version__

REPOSITORY = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Run a command and return what it prints; what went wrong otherwise."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "COV"))
    } | environ
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_tracked_files(to: Path) -> Path:
    """Copy the repository's tracked files, or all of them where there is no git (an unpacked sdist)."""
    if (REPOSITORY / ".git").exists():
        names = run("git", "ls-files", "-z", cwd=REPOSITORY).split("\0")
        for name in filter(None, names):
            if (REPOSITORY / name).is_file():
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, to / name)
    else:
        shutil.copytree(REPOSITORY, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    return to


def pip() -> list[str]:
    """Return the command that runs pip: an environment made as the README says borrows that of its own Python."""
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    return [base_python(), "-m", "pip", "--python", sys.executable]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tracked files."""
    source = copy_tracked_files(tmp_path_factory.mktemp("source"))
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source, cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, and nothing else, into a directory of its own."""
    target = tmp_path_factory.mktemp("target")
    options = ("--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", "--quiet", "--target", target)
    run(*pip(), "install", *options, wheel, cwd=target)
    return target


@pytest.fixture(scope="module")
def metadata(installed: Path) -> Distribution:
    """Read the installed metadata."""
    (info,) = installed.glob("*.dist-info")
    return PathDistribution(info)


def requirements(metadata: Distribution) -> dict[str, set[str]]:
    """Return the names of the required packages by extra; those of the package itself under ""."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for line in metadata.requires or []:
        requirement = Requirement(line)
        extra = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))
        found[extra[1] if extra else ""].add(requirement.name)
    return dict(found)


def test_the_wheels_name(wheel: Path) -> None:
    """One wheel fits every platform and carries the package's version."""
    assert wheel.name == f"dd_sa_tokens-{__version__}-py3-none-any.whl"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module, the type marker and the license are in the wheel; tests and benchmarks are not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = run("git", "ls-files", "dd_sa_tokens", cwd=REPOSITORY).split() if (REPOSITORY / ".git").exists() else []

    assert {name.split("/")[0] for name in names} == {"dd_sa_tokens", f"dd_sa_tokens-{__version__}.dist-info"}
    assert {name for name in tracked if (REPOSITORY / name).is_file()} <= names
    assert "dd_sa_tokens/py.typed" in names
    assert f"dd_sa_tokens-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_installed_package_works_elsewhere(installed: Path, tmp_path: Path) -> None:
    """Installed, it is imported from another directory, with its version, its type marker and a working client."""
    code = """
import dd_sa_tokens, importlib.metadata, pathlib
package = pathlib.Path(dd_sa_tokens.__file__).parent
dd_sa_tokens.TokensClient(access_token="ddpat_0123456789")
print(package.parent)
print(dd_sa_tokens.__version__, importlib.metadata.version("dd-sa-tokens"))
print((package / "py.typed").exists())
"""

    printed = run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()

    assert Path(printed[0]).samefile(installed)
    assert printed[1:] == [f"{__version__} {__version__}", "True"]


def test_the_fake_is_published(installed: Path, tmp_path: Path) -> None:
    """Users' own tests can import `FakeDatadog` from the installed package, without any extra."""
    code = "from dd_sa_tokens.testing import FakeDatadog; FakeDatadog(tokens=3)"

    run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))


def test_the_reports_parts_are_published(installed: Path, tmp_path: Path) -> None:
    """The installed package has the template, the style and the script of the audit's report, and can make one."""
    code = (
        "import datetime; from dd_sa_tokens.cli.report.audit_result import run_audit; "
        "from dd_sa_tokens.cli.report.html import render_report; "
        "print(render_report(run_audit({}, now=datetime.datetime.now(datetime.UTC), rules=())))"
    )

    page = run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))

    assert page.startswith("<!doctype html>")
    assert {f"report.{kind}" for kind in ("html.j2", "css", "js")} <= {
        path.name for path in (installed / "dd_sa_tokens" / "cli" / "report").iterdir()
    }


def test_the_command_is_published(installed: Path, metadata: Distribution, tmp_path: Path) -> None:
    """`dd-sa-tokens` and `python -m dd_sa_tokens` both answer from the installed package."""
    (script,) = metadata.entry_points.select(group="console_scripts")
    code = (
        f"import sys; sys.argv = ['dd-sa-tokens', '--help']; from {script.module} import {script.attr}; {script.attr}()"
    )

    assert script.name == "dd-sa-tokens"
    for arguments in (["-c", code], ["-m", "dd_sa_tokens", "--help"]):
        assert "demo" in run(sys.executable, *arguments, cwd=tmp_path, PYTHONPATH=str(installed))


def test_what_is_required(metadata: Distribution) -> None:
    """The runtime dependencies are exactly four; everything else is an extra."""
    required = requirements(metadata)

    assert required[""] == {"aiohttp", "attrs", "cattrs", "tenacity"}
    assert required["cli"] == {"typer", "rich", "jinja2"}
    assert required["redis"] == {"redis"}
    assert required["speed"] == {"orjson", "uvloop"}
    assert set(required) == {"", "cli", "redis", "speed", "dev", "peers"}


def test_the_rest_of_the_metadata(metadata: Distribution) -> None:
    """Name, Python version, extras, license and README are what the package index shows."""
    about = metadata.metadata

    assert about["Name"] == "dd-sa-tokens"
    assert about["Version"] == __version__
    assert about["Requires-Python"] == ">=3.11"
    assert about["License-Expression"] == "MIT"
    assert set(about.get_all("Provides-Extra") or []) == {"cli", "redis", "speed", "dev", "peers"}
    assert "Typing :: Typed" in (about.get_all("Classifier") or [])
    assert about["Description-Content-Type"] == "text/markdown"
    assert str(about.get_payload()).startswith("# dd_sa_tokens")
