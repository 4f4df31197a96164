"""vcrpy records and plays requests of the client's own session; a cassette holds no key in any form."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import vcr
from support.calls import CALLS, FAST
from support.keys import ACCESS_TOKEN, ACCOUNT, API_KEY, APP_KEY, CREATED_KEY, KEYS, leaks
from support.replies import any_answer, reply
from support.servers import RawServer

from dd_sa_tokens import AccessToken, CreatedToken, NotFoundError, TokensClient

FORMS: dict[str, dict[str, str]] = {"pair": KEYS, "token": {"access_token": ACCESS_TOKEN}}
READING = {name: call for name, call in CALLS.items() if name not in {"create", "rotate"}}


def shown(value: Any) -> Any:
    """Return what can be compared of a call's value."""
    return (value.token, value.key.reveal()) if isinstance(value, CreatedToken) else value


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
@pytest.mark.parametrize("call", CALLS)
async def test_a_call_is_recorded_and_played(
    server: RawServer, tmp_path: Path, call: str, form: dict[str, str]
) -> None:
    """Playing a cassette gives the values that were recorded, without a server."""
    server.script(otherwise=any_answer())
    cassette = str(tmp_path / "cassette.yaml")
    values: list[Any] = []
    for mode in ("once", "none"):
        with vcr.use_cassette(cassette, record_mode=mode) as tape:
            async with TokensClient(base_url=server.url, retry=FAST, **form) as client:
                values.append(shown(await CALLS[call](client, ACCOUNT, "t1")))
            assert tape.play_count == (0 if mode == "once" else len(tape))
    assert values[0] == values[1]
    assert len(tape) == len(server.requests) > 0


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
@pytest.mark.parametrize("call", READING)
async def test_a_cassette_holds_no_key(server: RawServer, tmp_path: Path, call: str, form: dict[str, str]) -> None:
    """Neither the keys nor a form of them, in base64 or percent-encoded, are in the file or in the tape's memory."""
    server.script(otherwise=any_answer())
    cassette = tmp_path / "cassette.yaml"
    with vcr.use_cassette(str(cassette), record_mode="once") as tape:
        async with TokensClient(base_url=server.url, retry=FAST, **form) as client:
            await READING[call](client, ACCOUNT, "t1")
        memory = repr([vars(request) for request in tape.requests]) + repr(tape.responses)
    for text in (cassette.read_text(), memory):
        assert "access_tokens" in text
        assert leaks(text) == []
        for key in (API_KEY, APP_KEY, ACCESS_TOKEN):
            assert base64.b64encode(key.encode()).decode().rstrip("=") not in text
            assert quote(key) not in text
    assert server.requests[0].headers.keys() & {"dd-api-key", "authorization"}  # and yet it was sent


async def test_a_cassette_of_a_create_holds_the_new_key_only(server: RawServer, tmp_path: Path) -> None:
    """The answer's own secret is recorded, as any body: the keys that signed the request are not."""
    server.script(otherwise=any_answer())
    cassette = tmp_path / "cassette.yaml"
    with vcr.use_cassette(str(cassette), record_mode="once"):
        async with TokensClient(base_url=server.url, **KEYS) as client:
            await client.create_token(ACCOUNT, name="n", scopes=["a"])
    text = cassette.read_text()
    assert CREATED_KEY in text
    assert leaks(text.replace(CREATED_KEY, "")) == []


async def test_an_error_is_recorded_and_played(server: RawServer, tmp_path: Path) -> None:
    """A 404, and a 503 that a retry mends, come out of a cassette as they went in."""
    cassette = str(tmp_path / "cassette.yaml")
    server.script(reply(503), reply(), reply(404))
    for _ in range(2):
        with vcr.use_cassette(cassette, record_mode="once"):
            async with TokensClient(base_url=server.url, retry=FAST, **KEYS) as client:
                assert isinstance(await client.get_token(ACCOUNT, "t1"), AccessToken)
                with pytest.raises(NotFoundError, match="no such"):
                    await client.get_token(ACCOUNT, "t2")
                assert client.stats.retries == 1
    assert len(server.requests) == 3


async def test_many_requests_at_a_time_are_recorded_and_played(server: RawServer, tmp_path: Path) -> None:
    """Fifty gets at a time are played to the IDs that they were recorded for."""
    cassette = str(tmp_path / "cassette.yaml")
    ids = [f"t{number}" for number in range(50)]
    for _ in range(2):
        with vcr.use_cassette(cassette, record_mode="once"):
            async with TokensClient(base_url=server.url, retry=FAST, **KEYS) as client:
                result = await client.get_tokens(ACCOUNT, ids, strategy="get")
        assert [item.unwrap().id for item in result] == ids
    assert len(server.requests) == 50
