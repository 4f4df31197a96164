"""The client's own session: behind a proxy that is given or the environment's, and with an authority of one's own."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.calls import ONCE, Connect
from support.keys import ACCOUNT, API_KEY, KEYS, leaks, remains
from support.proxies import forward
from support.replies import ReceivedRequest, any_answer, reply
from support.servers import RawServer, StartServer
from support.tls import make_authority, trusting

from dd_sa_tokens import ConfigurationError, TokensClient, TransportError
from dd_sa_tokens._credentials import as_secret
from dd_sa_tokens._http import read_settings

HOST = "datadog.example"  # a name that only the proxy can reach
USER, PASSWORD = "proxyuser-canary5", "p@ss/word-canary6-xyz"
ENCODED = "p%40ss%2Fword-canary6-xyz"
SIGNED = b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(autouse=True)
def _no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def start_https(start_server: StartServer) -> tuple[RawServer, ssl.SSLContext]:
    """Start a server that has a certificate for `HOST`; return what trusts it, too."""
    authority, context = make_authority(HOST)
    return await start_server(context, HOST), trusting(authority)


async def start_proxy(start_server: StartServer, context: ssl.SSLContext | None = None) -> tuple[RawServer, list[str]]:
    """Start a proxy; return the heads of the requests that it sees, too."""
    proxy, seen = await start_server(context, "localhost"), list[str]()
    proxy.script(otherwise=forward(seen))
    return proxy, seen


async def test_a_proxy_gets_a_tunnel_and_no_key(start_server: StartServer, connect: Connect) -> None:
    """A proxy sees CONNECT requests, signed with its own user and password, and the server the client's requests."""
    server, context = await start_https(start_server)
    server.script(otherwise=any_answer())
    proxy, seen = await start_proxy(start_server)
    url = proxy.url.replace("//", f"//{USER}:{ENCODED}@")
    client = connect(base_url=server.url, proxy=url, ssl_context=context, concurrency=2)
    result = await client.get_tokens(ACCOUNT, [f"t{number}" for number in range(9)])
    await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert len(result.tokens) == 9
    assert len(seen) <= 2
    assert {text.split("\r\n")[0] for text in seen} == {f"CONNECT {HOST}:{server.port} HTTP/1.1"}
    assert f"Proxy-Authorization: Basic {SIGNED}" in seen[0]
    assert leaks("".join(seen)) == []
    assert "dd-a" not in "".join(seen).lower()
    assert {request.headers["dd-api-key"] for request in server.requests} == {API_KEY}
    assert not any("proxy-authorization" in request.headers for request in server.requests)


async def test_an_https_proxy(start_server: StartServer, connect: Connect) -> None:
    """A proxy may speak TLS itself: the client's TLS goes through it, and the same authorities are trusted for both."""
    authority, proxy_context = make_authority("localhost")
    server, context = await start_https(start_server)
    authority.configure_trust(context)
    proxy, seen = await start_proxy(start_server, proxy_context)
    client = connect(base_url=server.url, proxy=proxy.url, ssl_context=context)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert [text.split(" ")[0] for text in seen] == ["CONNECT"]
    stranger = connect(base_url=server.url, proxy=proxy.url, retry=ONCE)
    with pytest.raises(TransportError, match="certificate is not valid: localhost:"):
        await stranger.get_token(ACCOUNT, "t1")
    assert len(server.requests) == 1
    await asyncio.sleep(0.01)  # the transports close


async def test_an_authority_of_ones_own(start_server: StartServer, connect: Connect) -> None:
    """A context that trusts an authority of one's own reaches its server; a client without it refuses the server."""
    authority, context = make_authority("localhost")
    server = await start_server(context, "localhost")
    client = connect(base_url=server.url, ssl_context=trusting(authority))
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    with pytest.raises(TransportError, match="certificate is not valid"):
        await connect(base_url=server.url).get_token(ACCOUNT, "t1")
    await asyncio.sleep(0.01)  # the transports close


def quote_all(status: int) -> Callable[[ReceivedRequest], Any]:
    """Refuse a CONNECT, and quote all that was sent."""

    async def act(request: ReceivedRequest) -> None:
        quoted = " ".join(request.head.decode().split("\r\n"))
        request.writer.write(f"HTTP/1.1 {status} {quoted} {PASSWORD} {ENCODED}\r\nContent-Length: 0\r\n\r\n".encode())

    return act


@pytest.mark.parametrize("fault", [407, 502, "hang up", "no proxy"])
async def test_a_proxys_password_shows_nowhere(
    start_server: StartServer, connect: Connect, caplog: pytest.LogCaptureFixture, fault: int | str
) -> None:
    """A proxy fails or quotes what it was sent: errors, frames, logs and reprs show neither user nor password."""
    caplog.set_level("DEBUG")
    proxy = await start_server()
    if fault == "no proxy":
        await proxy.stop()
    proxy.script(otherwise=quote_all(fault) if isinstance(fault, int) else reply(502))
    proxy.greeting = b"" if fault == "hang up" else None
    client = connect(base_url=f"https://{HOST}", proxy=proxy.url.replace("//", f"//{USER}:{ENCODED}@"))
    with pytest.raises(TransportError) as caught:
        await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is False
    assert (caught.value.attempts == 1) is (fault == 407)
    texts = dict(remains(caught.value)) | {"log": caplog.text, "client": f"{client!r} {vars(client)}"}
    for where, text in texts.items():
        assert leaks(text, USER, PASSWORD, ENCODED, SIGNED) == [], where


# The environment


@pytest.mark.parametrize(
    ("environ", "base_url", "proxy"),
    [
        ({}, "https://api.datadoghq.com", None),
        ({"HTTPS_PROXY": "http://p.example:3128"}, "https://api.datadoghq.com", "http://p.example:3128"),
        (
            {"https_proxy": "http://a.example", "HTTPS_PROXY": "http://b.example"},
            "https://x.example",
            "http://a.example",
        ),
        ({"HTTPS_PROXY": "u:p@p.example:3128"}, "https://api.datadoghq.com", "http://u:p@p.example:3128"),
        ({"HTTPS_PROXY": ""}, "https://api.datadoghq.com", None),
        ({"HTTP_PROXY": "http://p.example", "ALL_PROXY": "http://p.example"}, "https://api.datadoghq.com", None),
        ({"HTTPS_PROXY": "http://p.example", "NO_PROXY": ".datadoghq.com"}, "https://api.datadoghq.com", None),
        ({"HTTPS_PROXY": "http://p.example", "no_proxy": "*"}, "https://api.datadoghq.com", None),
        ({"HTTPS_PROXY": "http://p.example", "NO_PROXY": "x.example:8443"}, "https://x.example:8443", None),
        ({"HTTPS_PROXY": "http://p.example", "NO_PROXY": "x.example:1"}, "https://x.example:2", "http://p.example"),
        ({"HTTPS_PROXY": "http://p.example", "NO_PROXY": "hq.com"}, "https://api.datadoghq.com", "http://p.example"),
        *[
            ({"HTTPS_PROXY": "http://p.example"}, url, None)
            for url in ("http://localhost:1", "https://localhost", "https://127.0.0.9:1", "http://[::1]:1")
        ],
    ],
)
def test_the_environments_proxy(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], base_url: str, proxy: str | None
) -> None:
    """HTTPS_PROXY and NO_PROXY count as the standard library has it, and never for this machine itself."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    options: dict[str, Any] = {"is_borrowed": False, "proxy": None, "ssl_context": None}
    assert read_settings(base_url, **options, trust_env=True).proxy == as_secret(proxy)
    assert read_settings(base_url, **options, trust_env=False).proxy is None


async def test_the_environments_proxy_is_looked_up_once(
    start_server: StartServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proxy is that of the moment when the client was made; neither a later change nor a `.netrc` file counts."""
    server, context = await start_https(start_server)
    proxy, seen = await start_proxy(start_server)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//{USER}:{ENCODED}@"))
    client = connect(base_url=server.url, trust_env=True, ssl_context=context)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert f"Basic {SIGNED}" in seen[0]
    assert "authorization" not in server.requests[0].headers


async def test_a_proxy_that_is_given_wins_over_the_environment(
    start_server: StartServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `proxy` and `trust_env`, the environment is not asked, not even for NO_PROXY."""
    server, context = await start_https(start_server)
    proxy, seen = await start_proxy(start_server)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    client = connect(base_url=server.url, proxy=proxy.url, trust_env=True, ssl_context=context)
    assert (await client.get_token(ACCOUNT, "t1")).id == "t1"
    assert len(seen) == 1


# Refused at once


def unverified(**settings: Any) -> ssl.SSLContext:
    """Return a context that leaves something out."""
    context = ssl.create_default_context()
    context.check_hostname = False
    for name, value in settings.items():
        setattr(context, name, value)
    return context


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proxy": 3128}, "proxy must be a str such as http://proxy.example.com:3128"),
        ({"proxy": ""}, "proxy must begin with http:// or https://"),
        ({"proxy": "proxy.example.com:3128"}, "proxy must begin with http:// or https://"),
        ({"proxy": f"socks5://{USER}:{PASSWORD}@p.example"}, "proxy must begin with http:// or https://"),
        ({"proxy": f"http://{USER}:{ENCODED}@p.example:port"}, "proxy is not a URL"),
        ({"proxy": f"http://{USER}:pass wörd-canary6@p.example"}, "proxy is not a URL.*percent-encoded"),
        ({"proxy": f"http://{USER}:{ENCODED}@a..example"}, "proxy must begin with http:// or https:// and a host"),
        ({"proxy": f"http://{USER}:{ENCODED}@{'a' * 64}.example"}, "proxy must begin with http:// or https:// and a h"),
        ({"proxy": f"http://{USER}:{ENCODED}@"}, "proxy must begin with http:// or https:// and a host"),
        ({"proxy": f"http://p.example/?{PASSWORD}"}, "neither a path, nor a query"),
        ({"proxy": f"http://p.example/#{USER}"}, "neither a path, nor a query"),
        ({"proxy": f"http://p.example/{USER}"}, "neither a path, nor a query"),
        ({"proxy": f"http://{USER}%3A:{ENCODED}@p.example"}, "a user without a colon"),
        ({"proxy": f"http://{USER}:%E2%82%AC{ENCODED}@p.example"}, "only characters of Latin-1"),
        ({"proxy": f"http://{USER}:{ENCODED}@p.example", "base_url": "http://localhost:1"}, "http base_url"),
        ({"ssl_context": False}, "ssl_context must be an ssl.SSLContext, not False"),
        ({"ssl_context": unverified(verify_mode=ssl.CERT_NONE)}, "ssl_context must verify certificates"),
        ({"ssl_context": unverified()}, "ssl_context must check the host's name"),
        ({"trust_env": "yes"}, "trust_env must be True or False, not 'yes'"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], words: str) -> None:
    """A setting that cannot work, or would send keys unprotected, is refused at once, without quoting a password."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        TokensClient(**KEYS | options)
    for where, text in remains(caught.value):
        assert leaks(text, USER, PASSWORD, ENCODED) == [], where


@pytest.mark.parametrize("host", ["squid_proxy", "p.example.", "a" * 63, "10.0.0.1", "[fd00::1]"])
def test_a_proxy_may_have_any_host_that_can_be_reached(host: str) -> None:
    """Names of containers have underscores, which are in no name of the internet."""
    assert not TokensClient(proxy=f"http://{host}:3128", **KEYS).closed


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_a_bad_proxy_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The error names the variable, and shows nothing of its value."""
    monkeypatch.setenv(name, f"socks5://{USER}:{ENCODED}@p.example")
    with pytest.raises(ConfigurationError, match=f"^{name} must begin with http:// or https://") as caught:
        TokensClient(trust_env=True, **KEYS)
    for where, text in remains(caught.value):
        assert leaks(text, USER, PASSWORD, ENCODED) == [], where


@pytest.mark.parametrize(
    "options", [{"proxy": "http://p.example"}, {"ssl_context": ssl.create_default_context()}, {"trust_env": True}]
)
async def test_settings_beside_a_borrowed_session_are_refused(
    session: aiohttp.ClientSession, options: dict[str, Any]
) -> None:
    """A borrowed session has its own proxy and its own TLS."""
    with pytest.raises(ConfigurationError, match=rf"^{next(iter(options))} is for a session of the client's own"):
        TokensClient(session=session, **KEYS, **options)
