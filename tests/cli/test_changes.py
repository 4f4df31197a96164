"""`dd-sa-tokens create`, `update`, `revoke` and `rotate`, against a fake server in the test's loop."""

import asyncio
import json
import re
import shlex
import signal
import sys
from base64 import b64encode, encodebytes, urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from support.command_line import EXECUTABLE, Done, Terminal, keys, run, within

from dd_sa_tokens import AccessToken, Secret, TokensClient
from dd_sa_tokens.cli.commands import rotate
from dd_sa_tokens.cli.commands.rotate import copy_masked, terminate
from dd_sa_tokens.cli.io.console import Messages
from dd_sa_tokens.cli.io.formats import token_record
from dd_sa_tokens.cli.io.masking import SecretMask
from dd_sa_tokens.testing import FakeDatadog

ESCAPE = "\x1b[31m"


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    """A fake server with five tokens; the first has a hostile name."""
    names = (f"ci {ESCAPE}[bold]prod", "b", "c", "d", "e")
    tokens = [AccessToken(id=f"t{n}", name=name, scopes=("dashboards_read",)) for n, name in enumerate(names)]
    async with FakeDatadog(tokens=tokens) as fake:
        yield fake


async def change(datadog: FakeDatadog, name: str, *args: str) -> Done:
    """Run a command within this process, with the server's account."""
    return await within(datadog, name, datadog.service_account_id, *args)


async def works(datadog: FakeDatadog, secret: str) -> bool:
    """Return whether a secret is accepted."""
    async with TokensClient(base_url=datadog.url, access_token=secret) as client:
        return bool(await client.get_tokens(datadog.service_account_id, datadog.token_ids[:1]))


def store(code: str) -> str:
    """Return a store command that runs some Python."""
    return shlex.join([sys.executable, "-c", code])


async def test_create_prints_the_secret_alone(datadog):
    """stdout gets only the secret; stderr says that it is shown once, and does not have it."""
    args = ("--name", "new", "--scope", "dashboards_read", "--scope", "logs_read_data", "--expires-in", "90d")
    done = await run(datadog, "create", datadog.service_account_id, *args)
    made = datadog.tokens[-1]
    assert done.code == 0
    assert re.fullmatch(r"ddsat_\w+\n", done.out)
    assert await works(datadog, done.out.strip())
    assert (made.name, made.scopes) == ("new", ("dashboards_read", "logs_read_data"))
    assert made.expires_at is not None
    assert abs(made.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)
    assert len(done.err.splitlines()) == 1
    assert "this once, and cannot be read again" in done.err
    assert done.out.strip() not in done.err
    assert f"expires at {made.expires_at:%Y-%m-%d}" in done.err


async def test_create_as_json(datadog):
    """`--format json` gives the token's flat fields and the secret as `key`, on one line."""
    args = ("--name", "new", "--scope", "x", "--expires-at", "2027-03-01T12:00", "--format", "json")
    done = await change(datadog, "create", *args)
    item = json.loads(done.out)
    key = item.pop("key")
    assert item == token_record(datadog.tokens[-1])
    assert item["expires_at"] == "2027-03-01T12:00:00Z"
    assert await works(datadog, key)
    assert key not in done.err
    done = await change(datadog, "create", "--name", "new", "--scope", "x")
    assert "never expires" in done.err


@pytest.mark.parametrize(
    "args",
    [
        ("--name", "x"),
        ("--scope", "x"),
        ("--name", "", "--scope", "x"),
        ("--name", "x", "--scope", ""),
        ("--name", "x", "--scope", "x", "--expires-in", "90"),
        ("--name", "x", "--scope", "x", "--expires-in", "0d"),
        ("--name", "x", "--scope", "x", "--expires-in", "999999w"),
        ("--name", "x", "--scope", "x", "--expires-at", "tomorrow"),
        ("--name", "x", "--scope", "x", "--expires-at", "2020-01-01"),
        ("--name", "x", "--scope", "x", "--expires-at", "2030-01-01", "--expires-in", "1d"),
        ("--name", "x", "--scope", "x", "--format", "csv"),
    ],
    ids=" ".join,
)
async def test_invalid_creates(datadog, args):
    """An invalid create ends with code 2, and nothing is sent."""
    done = await change(datadog, "create", *args)
    assert (done.code, done.out, datadog.requests) == (2, "", 0)


async def test_create_whose_secret_is_lost(datadog):
    """If the secret cannot be written, stderr names its token and the command to revoke it."""
    script = f"{EXECUTABLE} create $0 --name new --scope x --base-url {datadog.url} >/dev/full; true"
    done = await run(datadog, "-c", script, datadog.service_account_id, program=("bash",))
    made = datadog.tokens[-1]
    assert made.name == "new"
    assert f"dd-sa-tokens revoke {datadog.service_account_id} {made.id}" in done.err
    assert "cannot write to standard output" in done.err
    assert made.public_portion is not None
    assert made.public_portion not in done.err


@pytest.mark.parametrize("fault", [{"drop": True}, {"truncate": True}, {"status": 503}, {"status": 201, "body": b"{}"}])
async def test_create_without_an_answer(datadog, fault):
    """If it is unknown whether a token was created, the message has a command to look for it, and the code is 1."""
    datadog.fail_next(1, **fault)
    done = await change(datadog, "create", "--name", "new", "--scope", "x")
    assert (done.code, done.out) == (1, "")
    assert f"(dd-sa-tokens list {datadog.service_account_id} --sort=-created_at)" in done.err
    assert "list_tokens" not in done.err
    assert re.search("look for a token .*named 'new'", done.err)


@pytest.mark.parametrize(("command", "more"), [("update", ("--name", "x")), ("revoke", ("--yes",)), ("rotate", ())])
async def test_other_changes_without_an_answer(datadog, command, more):
    """If it is unknown whether a token was changed, the advice is a command as well."""
    if command == "rotate":
        more = ("--store-command", "true")
        datadog.fail_next(1, stall=0.0)  # reading the old token
    datadog.fail_next(1, drop=True)
    done = await change(datadog, command, "t1", *more, "--max-attempts", "1")
    assert (done.code, done.out) == (1, "")
    look = "list" if command == "rotate" else "get"
    assert f"dd-sa-tokens {look} {datadog.service_account_id}" in done.err
    assert not re.search(r"get_token|list_tokens", done.err)


async def test_update_prints_the_token_as_it_is_now(datadog):
    """Only the given fields change, and the token is written in the formats of `get`."""
    done = await change(datadog, "update", "t1", "--name", "=b", "--format", "csv")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1].startswith("t1,'=b,")
    done = await change(datadog, "update", "t1", "--scope", "x", "--scope", "y")
    assert json.loads(done.out) == token_record(datadog.tokens[1])
    assert (datadog.tokens[1].name, datadog.tokens[1].scopes) == ("=b", ("x", "y"))
    assert (await change(datadog, "update", "nope", "--name", "x")).code == 1
    assert (await change(datadog, "update", "t1")).code == 2


async def test_revoke_with_yes(datadog):
    """With --yes there is no question; an ID that fails does not stop the others; stdout is empty."""
    done = await change(datadog, "revoke", "t1", "nope", "t2", "t2", "--yes")
    assert (done.code, done.out) == (1, "")
    assert datadog.token_ids == ["t0", "t3", "t4"]
    assert done.err.splitlines()[0] == "revoked t1"
    assert "404" in done.err
    assert (await change(datadog, "revoke", "t3", "--yes")).code == 0


async def test_revoke_of_an_id_in_two_cases():
    """The ID of a token in upper case is the same token: it is revoked once."""
    async with FakeDatadog(tokens=2) as fake:
        token_id = fake.token_ids[0]
        done = await within(fake, "revoke", fake.service_account_id, token_id, token_id.upper(), "--yes")
        assert (done.code, len(done.err.splitlines()), fake.requests) == (0, 1, 1)


async def test_revoke_does_not_ask_without_a_terminal(datadog):
    """Without --yes and a terminal nothing is revoked, and the code is 2."""
    done = await run(datadog, "revoke", datadog.service_account_id, "t1", stdin="y\n")
    assert (done.code, datadog.requests) == (2, 0)
    assert "--yes" in done.err


@pytest.mark.parametrize(("answer", "code", "left"), [("y\r", 0, 3), ("n\r", 1, 5), ("\r", 1, 5), ("\x03", 130, 5)])
async def test_revoke_asks_at_a_terminal(datadog, answer, code, left):
    """The question names the tokens without escapes; any answer but yes revokes nothing, and Ctrl-C ends it."""
    words = (EXECUTABLE, "revoke", datadog.service_account_id, "t0", "t1", "--base-url", datadog.url)
    screen = Terminal(*words, columns=200, **keys(datadog))
    await asyncio.to_thread(screen.read, "(n)")
    shown = screen.text
    if answer == "\x03":
        await asyncio.sleep(0.3)  # let the process begin to wait for the answer
        screen.process.send_signal(signal.SIGINT)
    else:
        screen.type(answer)
    assert await asyncio.to_thread(screen.end) == code
    assert len(datadog.token_ids) == left
    assert "(t0), 'b' (t1)?" in shown
    assert "[bold]prod" in shown
    assert ESCAPE not in shown


async def test_refused_keys_are_explained_once(datadog):
    """If the keys are refused, one line has advice, and the code is 3."""
    for args in (
        ("revoke", "t1", "t2", "--yes"),
        ("update", "t1", "--name", "x"),
        ("create", "--name", "x", "--scope", "y"),
    ):
        name, *rest = args
        done = await within(datadog, name, datadog.service_account_id, *rest, DD_API_KEY="canary0123456789")
        assert done.code == 3, done.err
        assert done.err.count("Organization Settings > API Keys") == 1
        assert "canary" not in done.err


async def test_rotate_hands_the_secret_to_a_command(datadog, tmp_path):
    """The new secret is the command's whole input; its output goes to stderr, with the secret masked."""
    file = tmp_path / "secret"
    code = (
        "import sys, os; key = sys.stdin.read(); open(sys.argv[1], 'w').write(key); print('stored', key); "
        "assert key not in str(sys.argv) + str(os.environ)"
    )
    command = f"{store(code)} {file}"
    done = await run(datadog, "rotate", datadog.service_account_id, "t1", "--store-command", command, "-vv")
    secret = file.read_text()
    assert done.code == 0, done.err
    assert re.fullmatch(r"ddsat_\w+", secret)
    assert await works(datadog, secret)
    assert json.loads(done.out) == token_record(datadog.tokens[-1])
    assert "t1" not in datadog.token_ids
    assert "stored **********\n" in done.err
    assert "has replaced t1, which is revoked" in done.err
    assert secret not in done.out + done.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (store("import sys; sys.stdin.read(); sys.exit(3)"), f"{sys.executable} ended with status 3"),
        (store("import os; os.kill(os.getpid(), 9)"), f"{sys.executable} was ended by signal 9"),
        ("false", "false ended with status 1"),
        ("/", "/ could not be run: Permission denied"),
    ],
)
async def test_rotate_is_rolled_back_if_the_command_fails(datadog, command, said, monkeypatch):
    """If the command fails, the rotation is rolled back: the old token stays, and the message says so and why."""
    monkeypatch.setattr("shutil.which", lambda name: name)
    before = datadog.tokens
    done = await change(datadog, "rotate", "t1", "--store-command", command)
    assert (done.code, done.out) == (1, "")
    assert f"the rotation was rolled back: {said}. Now the new token is revoked, and the old one works" in done.err
    assert datadog.tokens == before


@pytest.mark.parametrize("command", ["", "no-such-program x", "sh -c 'x"])
async def test_rotate_looks_for_the_command_first(datadog, command):
    """A command that does not exist is a usage error, before anything is changed."""
    done = await change(datadog, "rotate", "t1", "--store-command", command)
    assert (done.code, datadog.requests) == (2, 0)


async def test_a_store_command_that_does_not_end(monkeypatch):
    """A store command that ignores SIGTERM is killed."""
    monkeypatch.setattr(rotate, "END_WITHIN", 0.3)
    pipe = asyncio.subprocess.PIPE
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    await process.stdout.readline()
    await terminate(process)
    assert await process.wait() == -9


@pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("n\n", 2), ("", 2)])
async def test_revoke_asks(monkeypatch, answer, left):
    """An ID that does not exist is reported before the question, which is about the others."""
    monkeypatch.setattr(Messages, "can_ask", True)
    async with FakeDatadog(tokens=2) as fake:
        args = ("revoke", fake.service_account_id, fake.token_ids[0], "nope")
        done = await within(fake, *args, stdin=answer)
        assert done.code == 1
        assert "404" in done.err.split("Revoke ")[0]
        assert len(fake.token_ids) == left
        done = await within(fake, "revoke", fake.service_account_id, "nope")
        assert "Revoke" not in done.err
        assert "nothing was revoked" in done.err


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_masking_does_not_depend_on_pieces(size, capfdbinary):
    """The secret is masked in output that arrives in any pieces, and the rest is copied unchanged."""
    output = asyncio.StreamReader()
    output.feed_data(b"ab abc abcabcd\x00\nabcabcabcd abc")
    output.feed_eof()
    await copy_masked(output, Secret("abcabcd"), size)
    assert capfdbinary.readouterr().err == b"ab abc **********\x00\nabc********** abc\n"


CANARY = "ddsat_Canary/k+y~0123456789abcdef?ghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ENCODED = {
    "plain": CANARY,
    "lines": f"{CANARY[:30]}\n    {CANARY[30:]}",
    "percent": quote(CANARY, safe=""),
    "lower-percent": quote(CANARY, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3F", "%3f"),
    "base64": b64encode(CANARY.encode()).decode(),
    "base64-of-more": b64encode(f"user:{CANARY}@".encode()).decode(),
    "base64-url": urlsafe_b64encode(f"?{CANARY}".encode()).decode(),
    "base64-lines": encodebytes(CANARY.encode()).decode(),
    "base64-crlf": encodebytes(f"k={CANARY}".encode()).decode().replace("\n", "\r\n  "),
}


@pytest.mark.parametrize("size", [1, 7, 50, 4096])
@pytest.mark.parametrize("name", ENCODED)
async def test_the_secret_is_masked_in_each_encoding(capfdbinary, name, size):
    """Percent-encoded and base64 forms are masked, too, wherever the pieces of the output end."""
    text = ENCODED[name]
    output = asyncio.StreamReader()
    output.feed_data(f"stored dd {text}\nd {text} and done\n".encode())
    output.feed_eof()
    await copy_masked(output, Secret(CANARY), size)
    shown = capfdbinary.readouterr().err.decode()
    assert shown.count("**********") == 2
    assert shown.startswith("stored dd ")
    assert shown.endswith(" and done\n")
    words = re.sub(r"\s", "", shown)
    flat = re.sub(r"\s", "", text)
    assert not any(flat[at : at + 8] in words for at in range(len(flat) - 7))


def test_whitespace_is_not_held_back_for_ever():
    """A beginning of the secret before much whitespace is shown before the command ends."""
    mask = SecretMask(Secret(CANARY))
    assert mask.feed(b"dds") == b""
    assert mask.feed(b"\n" * 20_000) == b"dds" + b"\n" * 20_000
    assert mask.end() == b""
