"""The READMEs: every example in Python and every shell command runs, apart from those that install something.

This module runs those of README.md, benchmarks/README.md and tests/README.md. The READMEs within the package have tests
beside the tests of their part: see `RUN_BY`.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from aiohttp.test_utils import TestClient, TestServer
from support.cancelling import our_tasks
from support.internals import replace_base_url
from support.nested_pytest import run_pytest
from support.waiting import until

from benchmarks import report
from benchmarks.__main__ import PARTS
from benchmarks.redis_server import RedisServer, find_redis_server
from dd_sa_tokens._endpoint import read_base_url
from dd_sa_tokens.testing import FakeDatadog

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
BENCHMARKS = report.README
TESTS = REPOSITORY / "tests" / "README.md"
GATE = REPOSITORY / ".ci" / "run"

RUN_BY = {
    README: "test_readme.py",
    BENCHMARKS: "test_readme.py",
    TESTS: "test_readme.py",
    REPOSITORY / "dd_sa_tokens/audit/README.md": "audit/test_audit_readme.py",
    REPOSITORY / "dd_sa_tokens/cli/README.md": "cli/test_readme.py",
    REPOSITORY / "dd_sa_tokens/testing/README.md": "testing/test_testing_readme.py",
}
"""Which test runs the blocks of which README; no block runs twice."""

INSTALLS = re.compile(r"\b(pip|pipx|uv)\b.* install\b")


@attrs.frozen
class Block:
    """A fenced block.

    Attributes:
        language: The language that stands behind its fence.
        line: The number of its first line.
        text: Its content.
        heading: The heading that it stands under.
    """

    language: str
    line: int
    text: str
    heading: str


def read_blocks(page: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page in these languages; in all languages if none is given."""
    blocks: list[Block] = []
    heading, language, begun, lines = "", None, 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```") and language is None:
            language, begun, lines = line.strip("` ").split(" ")[0], number + 1, []
        elif line.startswith("```") and language is not None:
            blocks.append(Block(language, begun, "\n".join(lines), heading))
            language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    assert language is None, f"the block of {page} that begins at line {begun} does not end"
    return [block for block in blocks if not languages or block.language in languages]


def commands(page: Path) -> list[Block]:
    """Return the shell blocks of a page that do not install anything."""
    return [block for block in read_blocks(page, "sh") if not INSTALLS.search(block.text)]


def is_test(block: Block) -> bool:
    """Return whether an example is a test, for pytest to run."""
    return re.search(r"^(async )?def test_", block.text, re.MULTILINE) is not None


def run_shell(text: str, cwd: Path, **env: str) -> str:
    """Run commands as they stand, with the Python of the tests in place of `.venv`, and return what they print."""
    programs = Path(sys.executable).parent
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DD_", "PYTEST_", "COV_"))}
    env = kept | {"PATH": f"{programs}:{kept['PATH']}"} | env
    text = text.replace(".venv/bin/", f"{programs}/")
    done = subprocess.run(["bash", "-euc", text], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


async def run_example(block: Block, names: dict[str, Any], redis_url: str | None) -> None:
    """Run an example of README.md, with a Redis server of the tests if there is one."""
    source = "\n" * (block.line - 1) + block.text  # so that tracebacks show the README's line numbers
    if redis_url is not None:
        source = source.replace("redis://localhost:6379/0", redis_url)
    code = compile(source, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, names)
    else:
        # In a thread, where it can have a loop of its own, as `asyncio.run` wants.
        await asyncio.to_thread(exec, code, names)


def assert_printed(shown: Block, printed: str) -> None:
    """See that a block of output is what was printed, apart from digits: dates and IDs differ from run to run."""
    pattern = re.sub(r"\d", r"\\d", re.escape(shown.text))
    assert re.fullmatch(pattern, printed.rstrip("\n")), f"README.md:{shown.line} shows something else than\n{printed}"


@pytest.fixture
async def datadog(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fake Datadog server whose keys are in the environment, and to which all clients send."""
    async with FakeDatadog(tokens=60, rate_limit=(100, 10.0)) as datadog:
        monkeypatch.setenv("DD_API_KEY", datadog.api_key)
        monkeypatch.setenv("DD_APP_KEY", datadog.app_key)

        def elsewhere(site: Any = None, base_url: str | None = None, **more: Any) -> str:
            """Check what was given as ever, and then go to the fake; a fake that the example made itself is fine."""
            url = read_base_url(site, base_url, **more)
            return url if base_url is not None and url.startswith("http://127.0.0.1:") else datadog.url

        replace_base_url(monkeypatch, elsewhere)
        yield datadog


@pytest.fixture
def redis_url() -> Iterator[str | None]:
    """The URL of a Redis server; `None` where there is none."""
    binary = find_redis_server()
    if binary is None:
        yield None
        return
    server = RedisServer(binary)
    server.start()
    yield server.url
    server.stop()


async def test_every_example_runs(
    datadog: FakeDatadog, redis_url: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every Python block of README.md runs by itself, as a reader would paste it, and prints what is shown below it."""
    blocks = read_blocks(README, "python", "text")
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language == "text" or is_test(block):
            continue
        service_account_id, token_ids = datadog.service_account_id, datadog.token_ids
        monkeypatch.setattr(sys, "argv", ["fetch.py", service_account_id, *token_ids[:2], str(UUID(int=0))])
        names = {
            "__name__": "__main__",
            "service_account_id": service_account_id,
            "token_ids": token_ids,
            "token_id": token_ids[0],
        }
        try:
            async with asyncio.timeout(20):
                await run_example(block, names, redis_url)
        except Exception as error:
            error.add_note(f"in the example at README.md:{block.line}")
            raise
        printed = capsys.readouterr().out
        if after is not None and after.language == "text":
            assert_printed(after, printed)
    assert datadog.rejected == 0
    assert {"get_token", "list_tokens", "create_token", "update_token", "revoke_token"} <= {
        request.operation for request in datadog.received
    }


async def test_the_service_runs(datadog: FakeDatadog) -> None:
    """The service of README.md answers while its job reads the tokens, counts, and leaves nothing when it ends."""
    (block,) = (block for block in read_blocks(README, "python") if "web.Application()" in block.text)
    names = {"__name__": "service", "service_account_id": datadog.service_account_id, "token_ids": datadog.token_ids}
    await run_example(block, names, None)
    app: Any = names["app"]
    async with TestClient(TestServer(app)) as browser:
        await until(lambda: any(request.operation == "list_tokens" for request in datadog.received))
        for token in datadog.tokens[:3]:
            async with browser.get(f"/tokens/{token.id}") as response:
                assert await response.json() == {"name": token.name}
        async with browser.get("/metrics") as response:
            assert await response.text() == (
                'datadog_attempts_total{operation="list_tokens",result="ok"} 1\n'
                'datadog_attempts_total{operation="get_token",result="ok"} 3\n'
            )
        view = app[names["HANDLERS"]]
    assert view.closed
    assert our_tasks() == set()


def test_every_example_test_passes(tmp_path: Path) -> None:
    """Every pytest example of README.md passes as it stands, in a file of its own, with warnings as errors."""
    files = {f"test_readme_{block.line}": block.text for block in read_blocks(README, "python") if is_test(block)}
    assert files

    printed = run_pytest(tmp_path, **files)

    assert f"{len(files)} passed" in printed, printed


def test_every_example_has_sound_types(tmp_path: Path) -> None:
    """Mypy and basedpyright, both strict, find nothing in any Python block of README.md, each in a function."""
    lines = [""] * len(README.read_text(encoding="utf-8").splitlines())  # so that line numbers are the README's
    for block in read_blocks(README, "python"):
        text = block.text.splitlines()
        lines[block.line - 2] = f"async def example_{block.line}() -> None:"
        lines[block.line - 1 : block.line - 1 + len(text)] = [f"    {line}".rstrip() for line in text]
    assert lines[0] == ""
    lines[0] = "service_account_id = token_id = ''; token_ids = ['']"
    example = tmp_path / "README_md.py"
    example.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"include": ["."], "extraPaths": [str(REPOSITORY)], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")

    for checker in (
        ["mypy", "--strict", "--no-error-summary", str(example)],
        ["basedpyright", "--warnings", "--pythonpath", sys.executable, "--project", str(tmp_path)],
    ):
        words = [str(Path(sys.executable).parent / checker[0]), *checker[1:]]
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_runs(tmp_path: Path, fake_datadog: FakeDatadog) -> None:
    """The shell commands of README.md run in one shell and in their order; only keys and base URL are others."""
    text = "\n".join(block.text for block in commands(README))
    for name in ("api_key", "app_key", "access_token"):
        assert f"DD_{name.upper()}=..." in text
        text = text.replace(f"DD_{name.upper()}=...", f"DD_{name.upper()}={getattr(fake_datadog, name)}")

    run_shell(text, tmp_path, DD_SA_TOKENS_BASE_URL=fake_datadog.url, SA_ID=fake_datadog.service_account_id)

    written = {path.name for path in tmp_path.iterdir()}
    assert written == set(re.findall(r"--output (\S+)", text))
    assert len(written) >= 2


def test_setting_up_is_two_commands() -> None:
    """Under "Set up" there are exactly two commands, of one line each: the demo, and then the tests."""
    demo, tests = (block.text for block in read_blocks(README, "sh") if block.heading.startswith("Set up"))

    assert "\n" not in demo + tests
    assert demo.endswith(" && .venv/bin/dd-sa-tokens demo")
    assert tests.endswith(" && .venv/bin/python -m pytest -n 4 --dist worksteal")


def test_the_benchmarks_commands_run(tmp_path: Path) -> None:
    """One part is measured here, in its quick form, and drawing changes no figure. The next test has the others."""
    _, one_part, draw = (block.text for block in commands(BENCHMARKS))
    assert draw.endswith(" --draw")
    copy = shutil.copytree(BENCHMARKS.parent, tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    environ = {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)}

    printed = run_shell(f"{one_part} --quick", tmp_path, **environ)
    run_shell(draw, tmp_path, **environ)

    assert one_part.split()[-1] in printed
    assert (copy / "README.md").read_text(encoding="utf-8") == BENCHMARKS.read_text(encoding="utf-8")


@pytest.mark.skipif(not GATE.exists(), reason="the gate is not part of the sdist")
def test_the_gate_runs_all_benchmarks() -> None:
    """The command that runs all benchmarks takes too long for a test: the gate runs it."""
    quick = commands(BENCHMARKS)[0].text

    assert quick.removeprefix(".venv/bin/") in GATE.read_text(encoding="utf-8").splitlines()


def test_the_commands_about_tests_run() -> None:
    """The first command is README.md's. Each further one finds tests; it only collects them, since they run anyway."""
    everything, *lines = [line for block in commands(TESTS) for line in block.text.splitlines()]
    assert any(block.text.endswith(everything) for block in read_blocks(README, "sh"))
    assert all(line.startswith(".venv/bin/python -m pytest tests/") for line in lines)

    # In one process, where pytest and the libraries are imported once.
    code = "import sys, pytest\nfor line in sys.argv[1:]: pytest.main([*line.split()[3:], *COLLECT.split()])"
    options = "COLLECT = '--collect-only --no-cov --assert=plain -p no:cacheprovider'"
    printed = run_shell(f'.venv/bin/python -c "{options}; exec({code!r})" {shlex.join(lines)}', REPOSITORY)

    assert len(re.findall(r"\d+(?:/\d+)? tests collected", printed)) == len(lines), printed


def test_every_block_is_run() -> None:
    """Each README has a test that runs its blocks, and no block is in a language that its test does not run."""
    pages = [page for pattern in ("README.md", "*/README.md", "*/*/README.md") for page in REPOSITORY.glob(pattern)]
    assert {page for page in pages if not page.relative_to(REPOSITORY).parts[0].startswith(".")} == set(RUN_BY)
    for page, test in RUN_BY.items():
        assert (REPOSITORY / "tests" / test).is_file()
        languages = {block.language for block in read_blocks(page)}
        assert languages <= ({"python", "sh", "text"} if page not in {BENCHMARKS, TESTS} else {"sh", "text"})
    assert "python" not in {block.language for block in read_blocks(REPOSITORY / "dd_sa_tokens/cli/README.md")}


def test_the_readme_is_short() -> None:
    """README.md has at most 300 lines."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("page", RUN_BY, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Each relative link leads to a file and a heading that exist; each picture has a text for who does not see it."""
    for text, path, anchor in re.findall(r"\[([^]]*)\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert text
        assert target.exists(), f"{page}: {path}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page}: #{anchor}"


def test_each_test_that_is_named_exists() -> None:
    """Every test that tests/README.md names as proof is there, under that name."""
    named = set(re.findall(r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?`", TESTS.read_text(encoding="utf-8")))
    assert named
    for file, name in named:
        source = (REPOSITORY / "tests" / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^(?:async def|def|class) {name}\b|^{name} = ", source, re.MULTILINE), name


def test_the_figures_are_those_of_the_results() -> None:
    """The benchmarks' tables have all parts, and the figures at the top of README.md are in these tables."""
    text = BENCHMARKS.read_text(encoding="utf-8")
    reports = report.load(report.RESULTS)
    assert re.findall(r"<!-- figures: (\w+) -->", text) == list(PARTS)
    assert {one.part for one in reports} == set(PARTS)
    assert text == report.with_figures(text, reports)
    table = README.read_text(encoding="utf-8").split("|---|---:", 1)[1].split("\n\n")[0]
    figures = [cell.strip() for row in table.splitlines()[1:] for cell in row.split("|")[2:-1]]
    assert len(figures) >= 12
    for figure in figures:
        assert figure == "not measured" or re.search(rf"\| +{re.escape(figure)} +\|", text), figure
