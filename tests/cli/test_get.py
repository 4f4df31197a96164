"""`dd-sa-tokens get` and `list`, as real processes against a fake server in the test's loop."""

import asyncio
import csv
import io
import json
import re
import shlex
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
from support.command_line import EXECUTABLE, MODULE, Done, Process, assert_names_option, fast, keys, run, until, within

from dd_sa_tokens import AccessToken
from dd_sa_tokens.cli.io.formats import token_record
from dd_sa_tokens.testing import FakeDatadog

HOSTILE = (
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "[red]markup[/red] [/nothing]",
    '=HYPERLINK("https://x.example")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "two\nlines",
    'quo"te, and a comma',
    "\x9b31mC1",
    "\u202eright to left",
    "\u00fcberwachung \N{ROCKET}",
    "\x00nul",
)
NO_COLOUR = re.compile(r"\x1b\[(?:\d+;)*[349][0-8](?:;\d+)*m")


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    """A fake server with 40 tokens."""
    async with FakeDatadog(tokens=40) as fake:
        yield fake


@pytest.fixture
async def hostile() -> AsyncIterator[FakeDatadog]:
    """A fake server whose tokens have hostile names."""
    tokens = [AccessToken(id=f"t{n}", name=name, scopes=(name, "b")) for n, name in enumerate(HOSTILE)]
    async with FakeDatadog(tokens=tokens) as fake:
        yield fake


def lines_of(path: Path) -> list[dict[str, object]]:
    """Parse a file of JSON lines."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def ids_of(path: Path) -> list[object]:
    """Return the IDs in a file of JSON lines."""
    return [item["id"] for item in lines_of(path)]


async def get(datadog: FakeDatadog, *args: str, **options: str) -> Done:
    """Run `get` with the server's account."""
    return await fast(datadog, "get", datadog.service_account_id, *args, **options)


def same(items: list[dict[str, object]], datadog: FakeDatadog) -> bool:
    """Return whether items are the server's tokens, in any order, with all that is known of leaks."""
    tokens = [attrs.evolve(token, leak=datadog.leaks.get(token.id)) for token in datadog.tokens]
    wanted = {token.id: token_record(token) for token in tokens}
    return len(items) == len(wanted) and {str(item["id"]): item for item in items} == wanted


async def test_a_pipe_gets_jsonl(hostile):
    """Without a terminal each token is a JSON object on a line, and stderr is empty."""
    done = await get(hostile, *hostile.token_ids)
    items = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert same(items, hostile)
    assert list(items[0]) == [
        *("id", "name", "public_portion", "scopes", "created_at", "modified_at", "last_used_at", "expires_at"),
        *("service_account_id", "type", "leak"),
    ]
    assert done.out.replace("\n", "").isprintable()


async def test_json_is_one_array(hostile):
    """The array can be parsed; a failed ID is an object with its error; control characters are escaped."""
    done = await get(hostile, *hostile.token_ids, "nope", "--format", "json", program=MODULE)
    items = json.loads(done.out)
    failed = [item for item in items if "error" in item]
    message = "the API answered 404, no such token or service account"
    assert failed == [{"id": "nope", "error": {"type": "NotFoundError", "status": 404, "message": message}}]
    assert same([item for item in items if "error" not in item], hostile)
    assert done.out.replace("\n", "").isprintable()
    assert done.code == 1
    assert "1 of 15 tokens failed: 1 NotFoundError" in done.err


async def test_csv_is_quoted_and_harmless(hostile):
    """A CSV parser gets every value back; a cell that a spreadsheet would run begins with an apostrophe."""
    done = await get(hostile, *hostile.token_ids, "nope", "=nope", "--format", "csv")
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(done.out, newline=""), strict=True)}
    assert len(rows) == len(HOSTILE) + 2
    for number, name in enumerate(HOSTILE):
        mark = "'" if name[0] in "=+-@\t\r" else ""
        assert rows[f"t{number}"]["name"] == mark + name
        assert rows[f"t{number}"]["scopes"] == f"{mark}{name} b"
        assert rows[f"t{number}"]["error_type"] == ""
    assert rows["nope"] | {"error_message": ""} == dict.fromkeys(rows["nope"], "") | {
        "id": "nope",
        "error_type": "NotFoundError",
        "error_status": "404",
    }
    assert "'=nope" in rows


async def test_table_shows_hostile_names_harmlessly(hostile):
    """In tables and messages control characters are replaced, and markup is plain text."""
    done = await get(hostile, *hostile.token_ids, "n\x1b[31mope", "--format", "table", COLUMNS="160")
    assert (done.out + done.err).replace("\n", "").isprintable()
    assert "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}[0m" in done.out
    assert "[red]markup[/red] [/nothing]" in done.out
    assert "two\N{REPLACEMENT CHARACTER}lines" in done.out
    ids = [line.split()[0] for line in done.out.splitlines() if re.match(r"t\d", line)]
    assert ids == hostile.token_ids  # in the order in which they were asked for


async def test_list_writes_the_objects_of_get(datadog):
    """`list` writes the same objects as `get`, with a filter and an order if asked for."""
    done = await run(datadog, "list", datadog.service_account_id)
    assert same([json.loads(line) for line in done.out.splitlines()], datadog)
    done = await within(datadog, "list", datadog.service_account_id, "--filter", "ci-", "--sort", "-created_at")
    items = [json.loads(line) for line in done.out.splitlines()]
    wanted = [token for token in datadog.tokens if "ci-" in (token.name or "")]
    assert [item["id"] for item in items] == [
        token.id for token in sorted(wanted, key=lambda token: str(token.created_at), reverse=True)
    ]
    done = await within(datadog, "list", datadog.service_account_id, "--filter", "no such", "--format", "json")
    assert (done.code, done.out, done.err) == (0, "[]\n", "there are no tokens that match\n")


async def test_ids_come_from_files_with_comments(datadog, tmp_path):
    """IDs of arguments and of a file are fetched together, by listing if that takes fewer requests."""
    file = tmp_path / "ids"
    first, *rest = datadog.token_ids
    file.write_bytes(b"\xef\xbb\xbf# a comment\r\n\r\n  " + "\r\n".join(rest).encode() + b"\n#end")
    done = await within(datadog, "get", datadog.service_account_id, first, "--ids-from", str(file))
    assert done.code == 0, done.err
    assert same([json.loads(line) for line in done.out.splitlines()], datadog)
    assert datadog.requests == 1  # a page of the list


async def test_ids_stream_through(datadog):
    """A result is written before the next ID arrives; the last ID needs no line break."""
    first, second, *_ = datadog.token_ids
    process = await Process.start(datadog, "get", datadog.service_account_id, "--ids-from", "-", "-vv")
    assert process.process.stdin is not None
    assert process.process.stdout is not None
    process.process.stdin.write(f"# go\n\n{first}\n".encode())
    async with asyncio.timeout(20):
        assert json.loads(await process.process.stdout.readline())["id"] == first
    done = await process.end(second)
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == [second]
    assert done.code == 0
    assert re.search(r"DEBUG GET /api/v2/service_accounts/\S+: 200, attempt 1", done.err)
    assert not any(key in done.err for key in keys(datadog).values())


async def test_exit_code_0_although_an_id_is_given_twice(datadog):
    """An ID that is given twice has two results on standard output."""
    done = await within(datadog, "get", datadog.service_account_id, *datadog.token_ids[:1] * 2)
    assert (done.code, len(done.out.splitlines())) == (0, 2)


@pytest.mark.parametrize("org", [False, True])
async def test_ids_in_upper_case_are_the_same_ids(datadog, tmp_path, org):
    """A file has one line for each ID, in upper or lower case, and a resumed run fetches none of them again."""
    file, ids = tmp_path / "x.jsonl", tmp_path / "ids"
    ids.write_text("\n".join(text for token_id in datadog.token_ids for text in (token_id.upper(), token_id)))
    where = "--org" if org else datadog.service_account_id
    words = ("get", where, "--ids-from", str(ids), "--output", str(file))
    assert (await within(datadog, *words)).code == 0
    assert sorted(map(str, ids_of(file))) == sorted(datadog.token_ids)
    text, before = file.read_text(), datadog.requests
    done = await within(datadog, *words, "--resume")
    assert (done.code, datadog.requests, file.read_text()) == (0, before, text)
    assert "has 40 tokens already; they are not fetched again" in done.err
    words = ("get", where, *map(str.upper, reversed(datadog.token_ids)), "--format", "table")
    table = (await within(datadog, *words)).out
    assert re.findall(r"^[0-9a-f-]{36}", table, re.MULTILINE) == datadog.token_ids[::-1]


async def test_a_failure_in_upper_case_is_replaced(datadog, tmp_path):
    """A resumed run replaces the line of a failed ID that was given in another case."""
    file, (first, *_) = tmp_path / "x.jsonl", datadog.token_ids
    file.write_text(json.dumps({"id": first.upper(), "error": {"type": "ServerError", "status": 503}}) + "\n")
    done = await within(datadog, "get", datadog.service_account_id, first, "--output", str(file), "--resume")
    assert (done.code, ids_of(file)) == (0, [first])


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--ids-from", "-"),
        ("--ids-from", "/nonexistent"),
        ("--ids-from", "/"),
        ("x", "--strategy", "guess"),
        ("x", "--format", "xml"),
        ("x", "--resume"),
        ("x", "--resume", "--output", "x.csv"),
        ("x", "--resume", "--output", "x.jsonl", "--format", "csv"),
        ("x", "--output", "/nonexistent/x.csv"),
        ("x", "--output", "/"),
        ("x", "--site", "example.com"),
        ("x", "--timeout", "nan"),
        ("x", "--concurrency", "0"),
        ("x", "--rate-limit-reserve", "1"),
    ],
    ids=" ".join,
)
async def test_exit_code_2_for_usage(datadog, words):
    """Invalid usage ends with code 2 and the name of the option, before anything is sent or written."""
    done = await within(datadog, "get", datadog.service_account_id, *words, stdin="# nothing\n")
    assert (done.code, done.out, datadog.requests) == (2, "", 0)
    assert_names_option(done.err, next((word for word in words if word.startswith("--")), "TOKEN_ID"))


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"DD_API_KEY": "", "DD_APP_KEY": ""}, "set DD_API_KEY and DD_APP_KEY, or DD_ACCESS_TOKEN"),
        ({"DD_APP_KEY": ""}, "DD_APP_KEY is not set"),
        ({"DD_API_KEY": ""}, "DD_API_KEY is missing"),
        ({"DD_APP_KEY": "canary 0123456789"}, "DD_APP_KEY must be printable ASCII"),
    ],
)
async def test_exit_code_2_without_credentials(datadog, env, said):
    """One line names the variable and where keys are made in Datadog, without a key."""
    done = await within(datadog, "get", datadog.service_account_id, "x", **env)
    assert (done.code, done.out, datadog.requests) == (2, "", 0)
    assert len(done.err.splitlines()) == 1
    assert said in done.err
    assert "Organization Settings > API Keys" in done.err
    assert not any(key in done.err for key in (*keys(datadog).values(), "canary"))


async def test_exit_code_3_for_keys_that_are_refused(datadog):
    """A 401 ends with code 3, and one line with the variables to check and where keys are made."""
    done = await get(datadog, *datadog.token_ids, "--strategy", "get", DD_APP_KEY="canary0123456789")
    assert done.code == 3
    assert len(done.err.splitlines()) == 1
    assert "401" in done.err
    assert "Check DD_API_KEY and DD_APP_KEY" in done.err
    assert "Organization Settings > API Keys" in done.err
    assert "canary" not in done.err


async def test_the_variable_of_a_token_wins_over_the_pair(datadog):
    """DD_BEARER_TOKEN is enough, wins over the pair, and is the variable to check if it is refused."""
    done = await get(datadog, datadog.token_ids[0], DD_BEARER_TOKEN=datadog.access_token, DD_APP_KEY="canary0123456789")
    assert done.code == 0
    done = await get(datadog, datadog.token_ids[0], DD_BEARER_TOKEN="canary0123456789")
    assert done.code == 3
    assert "Check DD_BEARER_TOKEN, and the site" in done.err


async def test_exit_code_3_only_where_all_are_refused(datadog):
    """403 for all IDs is code 3, with the text of the error and no advice about keys; for some IDs it is code 1."""
    ids = datadog.token_ids[:3]
    datadog.fail_next(3, status=403)
    done = await within(datadog, "get", datadog.service_account_id, *ids)
    assert done.code == 3
    assert "403" in done.err
    assert "Organization Settings" not in done.err
    assert [json.loads(line)["error"]["status"] for line in done.out.splitlines()] == [403] * 3
    datadog.fail_next(2, status=403)
    done = await within(datadog, "get", datadog.service_account_id, *ids)
    assert done.code == 1


async def test_exit_code_4_without_a_connection(datadog):
    """Without a connection the code is 4; with other failures as well it is 1."""
    args = ("get", datadog.service_account_id, "a", "b")
    done = await run(datadog, *args, "--max-attempts", "1", url="http://127.0.0.1:9")
    assert done.code == 4
    assert "no connection could be made" in done.err
    datadog.fail_next(2, drop=True)
    done = await within(datadog, *args, "--max-attempts", "1")
    assert done.code == 4
    assert "2 of 2 tokens failed: 2 TransportError" in done.err
    datadog.fail_next(1, drop=True)
    done = await within(datadog, *args, "--max-attempts", "1")
    assert done.code == 1


async def test_a_closed_pipe_ends_it_quietly():
    """With `| head -1` there is one line, an empty stderr, and the shell's code for a broken pipe."""
    async with FakeDatadog(tokens=400) as datadog:
        words = [EXECUTABLE, "list", datadog.service_account_id, "--base-url", datadog.url]
        script = f"{shlex.join(words)} --format json | head -1; echo ${{PIPESTATUS[0]}}"
        done = await run(datadog, "-c", script, program=("bash",))
    assert (done.out, done.err) == ("[\n141\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_and_resumed(datadog, tmp_path, number):
    """Ctrl-C keeps the results so far and ends with 130; the command that it prints fetches the rest."""
    file, ids = tmp_path / "x.jsonl", tmp_path / "ids"
    ids.write_text("\n".join(datadog.token_ids))
    options = ("--ids-from", str(ids), "--output", str(file), "--strategy", "get", "--concurrency", "1")
    datadog.fail_next(5, stall=0.0)
    datadog.fail_next(1, stall=30.0)
    process = await Process.start(datadog, "get", datadog.service_account_id, *options)
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") == 5)
    process.signal(number)
    done = await process.end()
    assert done.code == 130
    assert len(done.err.splitlines()) == 1
    assert len(ids_of(file)) == 5
    hint = shlex.split(done.err.partition("Resume: ")[2])
    assert hint[0] == "dd-sa-tokens"
    before = datadog.requests
    done = await run(datadog, *hint[1:-2])  # the helper adds the base URL
    assert done.code == 0, done.err
    assert same(lines_of(file), datadog)
    assert datadog.requests == before + 35


async def test_killed_at_any_moment_and_resumed(tmp_path):
    """After several kills and resumed runs the file has every ID once, and few IDs were requested twice."""
    async with FakeDatadog(tokens=150, latency=0.005) as datadog:
        file = tmp_path / "x.jsonl"
        options = ("--ids-from", "-", "--output", str(file), "--resume", "--concurrency", "4")
        ids = "\n".join([*datadog.token_ids, *datadog.token_ids[:30]])
        moments = (1, 40, 41, 110)
        for moment in moments:
            process = await Process.start(datadog, "get", datadog.service_account_id, *options)
            ending = asyncio.ensure_future(process.process.communicate(ids.encode()))
            await until(lambda moment=moment: file.exists() and file.read_bytes().count(b"\n") >= moment)
            process.signal(signal.SIGKILL)
            await ending
        done = await run(datadog, "get", datadog.service_account_id, *options, stdin=ids)
        assert done.code == 0, done.err
        assert same(lines_of(file), datadog)
        # At each kill, at most 4 requests in flight and 4 results that were not written yet.
        assert datadog.requests <= 150 + len(moments) * 8
        assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("cut", range(1, 60, 7))
async def test_a_half_written_line_is_repaired(datadog, tmp_path, cut):
    """For a last line that was cut off anywhere, only its ID is fetched again."""
    file, (first, second, *_) = tmp_path / "x.jsonl", datadog.token_ids
    line = json.dumps({"id": second, "name": "half"})
    file.write_text(json.dumps({"id": first}) + "\n" + line[: min(cut, len(line) - 1)])
    options = ("--output", str(file), "--resume")
    done = await within(datadog, "get", datadog.service_account_id, first, second, *options)
    assert done.code == 0, done.err
    assert ids_of(file) == [first, second]
    assert datadog.requests == 1


async def test_resume_tries_again_what_failed(datadog, tmp_path):
    """A failed ID is fetched again and its old line removed; other lines stay; each ID has one line."""
    file, (first, second, third, *_) = tmp_path / "x.jsonl", datadog.token_ids
    error = {"type": "ServerError", "status": 503, "message": "m"}
    there = [
        {"id": "another", "name": "kept"},
        {"id": "another failure", "error": error},
        {"id": second, "error": error},
        {"no": "id"},
        {"id": first, "name": "kept"},
        {"id": "gone", "error": error},
    ]
    file.write_text("".join(json.dumps(item) + "\n" for item in there)[:-1])  # without its last line break
    file.chmod(0o640)
    (tmp_path / ".x.jsonl.rewritten").write_text("left by a run that was killed")
    ids = (first, second, third, third, "gone")
    done = await within(datadog, "get", datadog.service_account_id, *ids, "--output", str(file), "--resume")
    items = lines_of(file)
    assert done.code == 1
    assert "1 of 3 tokens failed" in done.err
    assert items[:4] == [there[0], there[1], there[3], there[4]]
    assert sorted(str(item["id"]) for item in items[4:]) == sorted([second, third, "gone"])
    assert [item["error"]["status"] for item in items[4:] if "error" in item] == [404]
    assert datadog.requests == 3
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]
    done = await within(datadog, "get", datadog.service_account_id, first, "--output", str(file), "--resume")
    assert (done.code, datadog.requests) == (0, 3)
    assert lines_of(file) == items


@pytest.mark.parametrize(
    "text", ["id,name\nx,y\n", "[]\n", '[\n{"id": "x"}\n]\n', "a secret without a line break", "\x00\x01\n", "5\n{"]
)
async def test_a_file_of_something_else_is_left_alone(datadog, tmp_path, text):
    """A file of something else is refused with code 2, and unchanged, by --append and --resume."""
    file = tmp_path / "x.jsonl"
    file.write_text(text)
    for more in ("--append", "--resume"):
        done = await within(datadog, "get", datadog.service_account_id, "x", "--output", str(file), more)
        assert (done.code, file.read_text(), datadog.requests) == (2, text, 0)
        assert "line 1" in done.err


async def test_only_append_and_resume_add_lines(datadog, tmp_path):
    """A second run replaces a jsonl file; --append adds its lines; --resume leaves one line for each ID."""
    file, (first, second, *_) = tmp_path / "x.jsonl", datadog.token_ids
    args = ("get", datadog.service_account_id, "--output", str(file))
    assert (await within(datadog, *args, first, first)).err == ""
    file.chmod(0o640)
    assert (await within(datadog, *args, second)).err == ""
    assert ids_of(file) == [second]
    assert (await within(datadog, *args, first, "--append")).err == ""
    assert (await within(datadog, *args, first, "--append")).err == ""
    assert ids_of(file) == [second, first, first]
    await within(datadog, *args, first, second, "--resume")
    assert sorted(map(str, ids_of(file))) == sorted([first, second])
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


async def test_a_replacing_run_can_be_resumed(datadog, tmp_path):
    """A run that replaces a file leaves it unchanged when it is killed, and --resume completes the new one."""
    file, beside = tmp_path / "x.jsonl", tmp_path / "x.jsonl.partial"
    file.write_text('{"id": "old"}\n')
    args = ("get", datadog.service_account_id, *datadog.token_ids, "--output", str(file), "--strategy", "get")
    datadog.fail_next(5, stall=0.0)
    datadog.fail_next(1, stall=30.0)
    process = await Process.start(datadog, *args, "--concurrency", "1")
    await until(lambda: beside.exists() and beside.read_bytes().count(b"\n") == 5)
    process.signal(signal.SIGKILL)
    await process.process.wait()
    assert file.read_text() == '{"id": "old"}\n'
    before = datadog.requests
    done = await run(datadog, *args, "--resume")
    assert done.code == 0, done.err
    assert "x.jsonl.partial has 5 tokens already" in done.err
    assert same(lines_of(file), datadog)
    assert datadog.requests == before + 35
    assert list(tmp_path.iterdir()) == [file]
    datadog.fail_next(1, stall=30.0)
    process = await Process.start(datadog, *args)
    await until(lambda: datadog.requests > before + 35)
    process.signal(signal.SIGINT)
    assert (await process.end()).code == 130
    assert same(lines_of(file), datadog)


async def test_a_file_is_replaced_as_a_whole(datadog, tmp_path):
    """The old file stays until the end, or after an interruption beside the results so far; permissions are kept."""
    file = tmp_path / "x.json"
    file.write_text("old")
    file.chmod(0o604)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    args = ("get", datadog.service_account_id, *datadog.token_ids[:3], "--output", str(link), "--concurrency", "1")
    datadog.fail_next(2, stall=0.0)
    datadog.fail_next(1, stall=30.0)
    process = await Process.start(datadog, *args)
    await until(lambda: datadog.requests == 3)
    assert file.read_text() == "old"
    process.signal(signal.SIGINT)
    done = await process.end()
    assert done.code == 130
    assert file.read_text() == "old"
    assert "x.json is unchanged; the results so far are in x.json.partial" in done.err
    partial = tmp_path / "x.json.partial"
    assert [item["id"] for item in json.loads(partial.read_text())] == datadog.token_ids[:2]
    partial.unlink()
    done = await within(datadog, *args)
    assert [item["id"] for item in json.loads(file.read_text())] == datadog.token_ids[:3]
    assert file.stat().st_mode & 0o777 == 0o604
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, file]
