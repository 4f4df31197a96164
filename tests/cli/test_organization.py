"""Commands about the whole organization: `accounts`, `list --org`, `get --org` and `audit --org`."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from support.command_line import Done, Terminal, fast, within

from dd_sa_tokens.testing import FakeDatadog


@pytest.fixture
async def datadog() -> AsyncIterator[FakeDatadog]:
    """A fake server with four service accounts of 30 tokens each, some of them leaked."""
    async with FakeDatadog(tokens=30, accounts=4, users=10) as fake:
        yield fake


def records(done: Done) -> list[dict[str, object]]:
    """Return the objects of JSON lines."""
    return [json.loads(line) for line in done.out.splitlines()]


def operations(datadog: FakeDatadog) -> Counter[str]:
    """Return how many requests of each operation the server has received."""
    return Counter(one.operation for one in datadog.received)


# ---- accounts


async def test_accounts_as_jsonl_and_csv(datadog):
    """Each service account is an object on a line, or a row, with the fields of `ServiceAccount`; people are not."""
    done = await within(datadog, "accounts")
    items = records(done)
    assert (done.code, done.err) == (0, "")
    assert sorted(item["id"] for item in items) == sorted(datadog.service_account_ids)
    assert list(items[0]) == ["id", "name", "email", "handle", "disabled", "status", "created_at"]
    done = await fast(datadog, "accounts", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out, newline=""), strict=True))
    assert rows == [{name: "" if value is None else str(value) for name, value in item.items()} for item in items]


@pytest.mark.parametrize("columns", [60, 80, 120])
async def test_accounts_on_a_terminal(datadog, columns):
    """A terminal gets a table with the whole IDs."""
    code, text = await Terminal.show(datadog, "accounts", columns=columns)
    assert code == 0
    for account in datadog.service_account_ids:
        assert account in text
    assert ("Email" in text) == (columns >= 100)


async def test_accounts_filter(datadog):
    """`--filter` gives the accounts that match, or a line that says that there are none."""
    name = records(await within(datadog, "accounts"))[0]["name"]
    items = records(await within(datadog, "accounts", "--filter", str(name)))
    assert name in [item["name"] for item in items]
    done = await within(datadog, "accounts", "--filter", "no such name")
    assert (done.code, done.out, done.err) == (0, "", "there are no service accounts that match\n")


async def test_accounts_are_refused():
    """Without the permission the line names it, and the exit code is 3."""
    async with FakeDatadog(permissions=["org_app_keys_read"]) as datadog:
        done = await within(datadog, "accounts")
    assert (done.code, done.out) == (3, "")
    assert "user_access_read" in done.err


# ---- list


async def test_list_of_the_organization(datadog):
    """`list --org` gives the tokens of all service accounts, and no personal ones, in two requests for 123 rows."""
    items = records(await within(datadog, "list", "--org"))
    assert operations(datadog) == {"list_organization_tokens": 2}
    assert [item["id"] for item in items] == [token.id for token in datadog.tokens]


@pytest.mark.parametrize("org", [True, False])
async def test_leaked_tokens(datadog, org):
    """`--leaked` gives the leaked tokens alone; each says when and where its key was seen, as far as it is known."""
    account = datadog.service_account_id
    items = records(await within(datadog, "list", *(["--org"] if org else [account]), "--leaked"))
    wanted = [token for token in datadog.tokens if token.leak and (org or token.service_account_id == account)]
    assert [item["id"] for item in items] == [token.id for token in wanted] != []
    leaks = {leak.id: leak for leak in datadog.leaks.values()}
    for item in items:
        leak = item["leak"]
        assert isinstance(leak, dict)
        assert leak["source"] == leaks[leak["id"]].source
        assert leak["detected_at"] is not None


async def test_leaks_in_a_table_and_in_csv(datadog):
    """The table has a column with the source of each leak, and CSV has a column for each part of it."""
    source = next(leak.source for leak in datadog.leaks.values() if leak.source)
    done = await within(datadog, "list", "--org", "--leaked", "--format", "table", COLUMNS="300")
    assert "Leaked" in done.out.splitlines()[0]
    assert "Service account" in done.out.splitlines()[0]
    assert source in done.out
    done = await fast(datadog, "list", "--org", "--leaked", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out, newline=""), strict=True))
    assert {row["leak_id"] for row in rows} == {leak.id for leak in datadog.leaks.values()}
    assert source in [row["leak_source"] for row in rows]


@pytest.mark.parametrize("words", [("list",), ("list", "--org", "x"), ("audit",), ("audit", "--org", "x"), ("get",)])
async def test_an_account_or_the_organization(datadog, words):
    """A command needs the ID of a service account or --org, and refuses both."""
    done = await within(datadog, *words)
    assert done.code == 2
    assert "SA_ID" in done.err
    assert datadog.requests == 0


# ---- get


async def test_get_finds_tokens_by_their_ids_alone(datadog, tmp_path):
    """`get --org` finds the tokens of several accounts in the organization's list; an unknown ID has its error."""
    last = datadog.tokens[-1]
    file = tmp_path / "ids.txt"
    file.write_text(f"{datadog.token_ids[3]}\nnope\n{last.id}\n")
    done = await within(datadog, "get", "--org", datadog.token_ids[0], "--ids-from", str(file))
    items = {item["id"]: item for item in records(done)}
    assert list(items) == [datadog.token_ids[0], datadog.token_ids[3], "nope", last.id]
    assert items[last.id]["service_account_id"] == last.service_account_id
    assert items["nope"]["error"]["type"] == "NotFoundError"
    assert done.code == 1
    assert operations(datadog) == {"list_organization_tokens": 2}


async def test_get_reads_a_pipe_and_resumes(datadog, tmp_path):
    """IDs from a pipe are found as well, and a resumed run asks for nothing that its file holds."""
    file, ids = tmp_path / "x.jsonl", "\n".join(datadog.token_ids)
    words = ("get", "--org", "--ids-from", "-", "--output", str(file))
    assert (await fast(datadog, *words, stdin=ids)).code == 0
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == datadog.token_ids
    before = datadog.requests
    assert (await fast(datadog, *words, "--resume", stdin=ids)).code == 0
    assert datadog.requests == before


async def test_get_keeps_what_was_found_before_a_bad_line(datadog):
    """A line that is no ID ends the command with its number, after the tokens of the lines before it."""
    done = await fast(datadog, "get", "--org", "--ids-from", "-", stdin=f"{datadog.token_ids[0]}\n{'x' * 300}\n")
    assert [item["id"] for item in records(done)] == [datadog.token_ids[0]]
    assert done.code == 2
    assert "line 2 has more than 256 characters" in done.err


async def test_get_of_the_organization_has_one_strategy(datadog):
    """`--strategy` is refused with --org."""
    done = await within(datadog, "get", "--org", "x", "--strategy", "get")
    assert done.code == 2
    assert "--strategy" in done.err


# ---- audit


async def test_audit_of_the_organization(datadog, tmp_path):
    """`audit --org` audits the tokens of all service accounts, with leaks first, and names the accounts."""
    items = records(await within(datadog, "audit", "--org"))
    names = {item["id"]: item["name"] for item in records(await within(datadog, "accounts"))}
    leaked = [item for item in items if item["rule"] == "leaked"]
    assert items[: len(leaked)] == leaked
    assert {item["token_id"] for item in leaked} == {token.id for token in datadog.tokens if token.leak}
    assert any("github" in str(item["detail"]) for item in leaked)
    assert {item["service_account_id"]: item["service_account_name"] for item in items} == names
    page = tmp_path / "report.html"
    done = await within(datadog, "audit", "--org", "--output", str(page))
    assert done.code == 0
    assert "4 critical" in done.err
    table = (await within(datadog, "audit", "--org", "--format", "table", COLUMNS="120")).out
    for account, name in names.items():
        assert f"<bdi>{name}</bdi> <code>{account}</code>" in page.read_text(encoding="utf-8")
        assert f"Service account {name} ({account})" in table


async def test_an_audit_of_a_large_organization_takes_few_requests():
    """1,000 tokens of 40 accounts among 6,000 users: 11 pages of tokens, one page of users, and 40 users."""
    async with FakeDatadog(tokens=25, accounts=40, users=5_960) as datadog:
        done = await within(datadog, "audit", "--org", "--format", "csv")
        assert done.code == 0
        assert operations(datadog) <= Counter(
            list_organization_tokens=11, list_service_accounts=1, get_service_account=40
        )


async def test_an_audit_without_names():
    """Where the users' list is refused, the report has IDs, and one line says which permission is missing."""
    async with FakeDatadog(tokens=30, accounts=2, permissions=["org_app_keys_read"]) as datadog:
        done = await within(datadog, "audit", "--org")
    items = records(done)
    assert done.code == 0
    assert {item["service_account_id"] for item in items} == set(datadog.service_account_ids)
    assert {item["service_account_name"] for item in items} == {None}
    (line,) = done.err.splitlines()
    assert line.startswith("the report has IDs instead of some names of service accounts: ")
    assert "user_access_read" in line


async def test_an_audit_that_is_refused():
    """Where the organization's list is refused, the line names the permission, and the exit code is 3."""
    async with FakeDatadog(permissions=["user_access_read"]) as datadog:
        done = await within(datadog, "audit", "--org")
    assert (done.code, done.out) == (3, "")
    assert "org_app_keys_read" in done.err


async def test_an_organization_without_tokens(tmp_path):
    """The report of an organization without tokens is empty, and takes one request."""
    async with FakeDatadog(tokens=0) as datadog:
        done = await within(datadog, "audit", "--org", "--output", str(tmp_path / "report.html"))
        assert done.code == 0
        assert "0 tokens of 0 service accounts" in done.err
        assert operations(datadog) == {"list_organization_tokens": 1}


@pytest.mark.parametrize("org", [True, False])
async def test_fail_on_critical(datadog, org):
    """A leaked token ends `--fail-on critical` with 5, and other findings do not."""
    account = datadog.service_account_id
    scope = ["--org"] if org else [account]
    done = await within(datadog, "audit", *scope, "--fail-on", "critical")
    leaked = [token for token in datadog.tokens if token.leak and (org or token.service_account_id == account)]
    assert done.code == 5
    assert done.err.splitlines()[-1].endswith(f"{len(leaked)} finding{'s' * (len(leaked) != 1)} of level critical")
    async with FakeDatadog([token for token in datadog.tokens if token.leak is None]) as clean:
        done = await within(clean, "audit", *(["--org"] if org else [account]), "--fail-on", "critical")
    assert done.code == 0
