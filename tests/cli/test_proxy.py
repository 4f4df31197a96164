"""The command line behind a proxy: `--proxy`, HTTPS_PROXY and NO_PROXY."""

from __future__ import annotations

import asyncio

import pytest
from support.command_line import Done
from support.replies import reply
from support.servers import RawServer
from typer.testing import CliRunner

from dd_sa_tokens import cli

PASSWORD = "canary7-password"


async def get(*words: str, **env: str) -> Done:
    """Get a token of the site datadoghq.eu, within this process."""
    none = dict.fromkeys(("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"))
    keys = {"DD_ACCESS_TOKEN": "ddsat_0123456789"}
    args = ["get", "sa", "t1", "--site", "datadoghq.eu", "--max-attempts", "1", *words]
    result = await asyncio.to_thread(CliRunner().invoke, cli.app, args, env=none | keys | env)
    assert isinstance(result.exception, SystemExit)
    assert PASSWORD not in result.output
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize("place", ["option", "environment", "both"])
async def test_requests_go_through_the_proxy(server: RawServer, place: str) -> None:
    """The proxy of the option, which wins, or of HTTPS_PROXY gets a CONNECT for the site; what it answers is said."""
    server.script(otherwise=reply(502))
    url = server.url.replace("//", f"//user:{PASSWORD}@")
    words = () if place == "environment" else ("--proxy", url)
    env = {"environment": {"HTTPS_PROXY": url}, "both": {"HTTPS_PROXY": "socks5://other.example"}}.get(place, {})
    done = await get(*words, **env)
    assert [request.line for request in server.requests] == ["CONNECT api.datadoghq.eu:443 HTTP/1.1"]
    assert done.code == 4
    assert f"the proxy refused the connection: 127.0.0.1:{server.port}, it answered 502 Bad Gateway" in done.err


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (("--proxy", f"proxy:{PASSWORD}"), {}, "proxy must begin with http:// or https://"),
        ((), {"HTTPS_PROXY": f"socks5://user:{PASSWORD}@p.example"}, "HTTPS_PROXY must begin with http://"),
    ],
)
async def test_a_bad_proxy_is_a_usage_error(words: tuple[str, ...], env: dict[str, str], said: str) -> None:
    """A proxy that cannot be used ends with code 2, and its password is not shown."""
    done = await get(*words, **env)
    assert done.code == 2
    assert said in done.err
