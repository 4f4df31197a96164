"""What an error says, so that a person can act: the host, the header, the status, the content type; and no key."""

from __future__ import annotations

import asyncio
import base64
import codecs
import json
import re
import socket
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from support.calls import CALLS, FAST, ONCE, Connect
from support.keys import ACCOUNT, API_KEY, CREATED_KEY, leaks, remains
from support.payloads import resource
from support.replies import Responder, any_answer, hang_up, raw, reply, reset
from support.servers import RawServer, StartServer

from dd_sa_tokens import APIError, DatadogError, InvalidResponseError, TokensClient, TransportError

BODY = json.dumps({"data": resource("t1")}).encode()


async def failure(client: TokensClient, kind: type[DatadogError] = TransportError, call: str = "get") -> DatadogError:
    """Return the error of a call that has to fail; no key may be left of it."""
    with pytest.raises(kind) as caught:
        await CALLS[call](client, ACCOUNT, "t1")
    for where, text in remains(caught.value):
        assert leaks(text) == [], where
    return caught.value


def lines(*extra: bytes) -> bytes:
    """Return a head with these lines, and a good body."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", f"Content-Length: {len(BODY)}".encode(), *extra, b"", BODY])


MALFORMED: dict[str, tuple[bytes, str]] = {
    "a header of 9,000 bytes": (lines(b"X-Long: " + b"a" * 9000), "too long"),
    "a name of 9,000 bytes": (lines(b"X" * 9000 + b": a"), "too long"),
    "a status line of 9,000 bytes": (b"HTTP/1.1 200 " + b"O" * 9000 + b"\r\n\r\n", "too long"),
    "a doubled Content-Length": (lines(f"Content-Length: {len(BODY)}".encode()), "Content-Length"),
    "a space before a colon": (lines(b"X-Space : a"), "X-Space|header"),
    "a header without a colon": (lines(b"no colon"), "header|colon"),
    "a length and chunks": (lines(b"Transfer-Encoding: chunked"), "Content-Length|Transfer-Encoding"),
    "a length that is no number": (lines().replace(f": {len(BODY)}".encode(), b": many"), "Content-Length"),
    "no HTTP": (b"220 mail.example ESMTP\r\n\r\n", ""),
    "a header with a NUL": (lines(b"X-Nul: a\x00b"), "X-Nul|header"),
    "a header that echoes a key": (lines(b"X-Echo : " + API_KEY.encode()), "header|X-Echo"),
}


@pytest.mark.parametrize("call", ["get", "create", "list", "revoke"])
@pytest.mark.parametrize(("answer", "says"), MALFORMED.values(), ids=list(MALFORMED))
async def test_an_answer_that_cannot_be_parsed_is_not_retried(
    server: RawServer, connect: Connect, answer: bytes, says: str, call: str
) -> None:
    """A malformed answer would come again: one request, and the error says what is wrong with it."""
    server.script(otherwise=raw(answer))
    error = await failure(connect(), call=call)
    assert "not valid HTTP" in str(error)
    assert re.search(says, str(error)), str(error)
    assert error.attempts == 1
    assert len(server.requests) == 1
    assert error.outcome_unknown is (call in {"create", "revoke"})


# No JSON


HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"
NO_JSON: dict[str, tuple[Responder, str]] = {
    "a page, and its type": (reply(200, HTML, {"Content-Type": "text/html; charset=utf-8"}), "text/html"),
    "a page without a type": (reply(200, HTML), "looks like HTML"),
    "a page behind spaces": (reply(200, b"\n\n  " + HTML), "looks like HTML"),
    "a page behind a BOM": (reply(200, codecs.BOM_UTF8 + HTML), "looks like HTML"),
    "XML": (reply(200, b"<?xml version='1.0'?><a/>", {"Content-Type": "application/xml"}), "application/xml"),
    "a text": (reply(200, b"OK", {"Content-Type": "text/plain"}), "text/plain"),
    "nothing": (reply(200, b""), "empty"),
    "a cut body without a length": (raw(b"HTTP/1.1 200 OK\r\n\r\n" + BODY[:-9]), "cut short"),
    "another encoding": (reply(200, BODY.decode().encode("utf-16")), "not JSON"),
    "a type that is a key": (reply(200, HTML, {"Content-Type": f"text/{API_KEY}"}), "HTML"),
}


@pytest.mark.parametrize(("act", "says"), NO_JSON.values(), ids=list(NO_JSON))
async def test_a_success_that_is_no_json_says_what_it_is(
    server: RawServer, connect: Connect, act: Responder, says: str
) -> None:
    """A 200 that is a page, a text, or cut short is not asked for again, and the error says what it looks like."""
    server.script(otherwise=act)
    error = await failure(connect(), InvalidResponseError)
    assert says in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", ["get", "list", "create", "update"])
async def test_a_byte_order_mark_is_accepted(server: RawServer, connect: Connect, call: str) -> None:
    """A BOM before the JSON is skipped."""

    async def act(request: Any) -> None:
        answer = resource("new", key=CREATED_KEY) if call == "create" else resource("t1")
        body = {"data": [answer], "meta": {"page": {"total_filtered_count": 1}}} if call == "list" else {"data": answer}
        await reply(201 if call == "create" else 200, codecs.BOM_UTF8 + json.dumps(body).encode())(request)

    server.script(otherwise=act)
    assert await CALLS[call](connect(), ACCOUNT, "t1")


# Compression


@pytest.mark.parametrize("own", [None, "br", "zstd", "*", "identity"])
@pytest.mark.parametrize("call", CALLS)
async def test_what_can_always_be_decoded_is_accepted(
    server: RawServer, connect: Connect, call: str, own: str | None
) -> None:
    """Each request accepts gzip and deflate, with any library installed and any default of a borrowed session."""
    server.script(otherwise=any_answer())
    headers = {"Accept-Encoding": own} if own else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        await CALLS[call](connect(session=session), ACCOUNT, "t1")
        await CALLS[call](connect(), ACCOUNT, "t1")
    assert {request.headers["accept-encoding"] for request in server.requests} == {"gzip, deflate"}


# No connection


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("borrowed", [False, True])
async def test_a_refused_connection_names_host_port_and_reason(connect: Connect, borrowed: bool) -> None:
    """Host, port, and what the operating system says."""
    port = _free_port()
    async with aiohttp.ClientSession() as session:
        client = connect(base_url=f"http://127.0.0.1:{port}", session=session if borrowed else None)
        text = str(await failure(client))
    assert f"127.0.0.1:{port}" in text
    assert "Connection refused" in text


async def test_an_ipv6_address_has_brackets(connect: Connect) -> None:
    """An IPv6 address and its port are written as in a URL."""
    text = str(await failure(connect(base_url="http://[::1]:9", retry=ONCE)))
    assert "no connection could be made: [::1]:9, " in text


CUT_OFF = "the connection was closed during the TLS handshake (ClientConnectorError)"


async def test_a_server_that_hangs_up_during_the_handshake(connect: Connect) -> None:
    """A server that reads the first message of TLS and hangs up: the error says so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        where = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        text = str(await failure(connect(base_url=f"https://{where}", retry=ONCE)))
    assert f"no connection could be made: {where}, {CUT_OFF}" in text


async def test_a_proxy_that_hangs_up_during_the_handshake(start_server: StartServer, connect: Connect) -> None:
    """A proxy that opens a tunnel and hangs up: the error says so."""
    proxy = await start_server()
    proxy.script(otherwise=raw(b"HTTP/1.1 200 OK\r\n\r\n"))
    text = str(await failure(connect(base_url="https://datadog.example", proxy=proxy.url, retry=ONCE)))
    assert f"no connection could be made: datadog.example:443, {CUT_OFF}" in text


class NoHost(aiohttp.abc.AbstractResolver):
    """A resolver that knows no host."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def close(self) -> None:
        pass


async def test_an_unknown_host_names_host_port_and_reason(connect: Connect) -> None:
    """A name that cannot be resolved is named, with its port and the resolver's words."""
    connector = aiohttp.TCPConnector(resolver=NoHost())
    async with aiohttp.ClientSession(connector=connector) as session:
        error = await failure(connect(base_url="https://api.nowhere.example", session=session, retry=FAST))
    assert "api.nowhere.example:443" in str(error)
    assert "Name or service not known" in str(error)
    assert error.attempts == FAST.max_attempts


async def test_an_unreachable_network_names_host_port_and_reason(connect: Connect) -> None:
    """An address that the system refuses to connect to is named, with its words."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("203.0.113.7", 0))) as session:
        text = str(await failure(connect(base_url="http://127.0.0.1:9", session=session)))
    assert "127.0.0.1:9" in text
    assert "ssign" in text  # "Cannot assign requested address"


# A proxy


USER, PASSWORD = "proxy-user", "proxy@password-3f9a"
WAYS = ["in the URL", "proxy_auth", "in the environment"]
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def proxied(proxy: RawServer, way: str, monkeypatch: pytest.MonkeyPatch) -> aiohttp.ClientSession:
    """Return a session with a proxy that wants a user and a password."""
    url = proxy.url.replace("://", f"://{USER}:{quote(PASSWORD)}@")
    if way == "in the URL":
        return aiohttp.ClientSession(proxy=url)
    if way == "in the environment":
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, url)
            monkeypatch.setenv(name.lower(), url)
        monkeypatch.setenv("no_proxy", "")
        return aiohttp.ClientSession(trust_env=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is still in use
        return aiohttp.ClientSession(proxy=proxy.url, proxy_auth=aiohttp.BasicAuth(USER, PASSWORD))


def hides_the_proxy_s_password(error: BaseException) -> None:
    for where, text in remains(error):
        assert PASSWORD not in text, where
        assert quote(PASSWORD) not in text, where
        assert BASIC not in text, where


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("status", "tries"), [(407, 1), (502, 5), (503, 5), (403, 5)])
async def test_a_proxy_that_refuses_the_tunnel(
    start_server: StartServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    tries: int,
    way: str,
) -> None:
    """The number is named; a 407 is not retried; nothing was sent; the proxy's password does not show."""
    proxy = await start_server()
    proxy.script(otherwise=reply(status))
    async with proxied(proxy, way, monkeypatch) as session:
        error = await failure(connect(base_url="https://localhost:1", session=session), call="create")
    assert str(status) in str(error)
    assert error.attempts == tries
    assert error.outcome_unknown is False
    assert proxy.requests[0].headers["proxy-authorization"] == f"Basic {BASIC}"
    hides_the_proxy_s_password(error)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [407, 403, 400])
async def test_a_proxy_that_echoes_its_password(
    start_server: StartServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, status: int, way: str
) -> None:
    """A proxy's answer to a plain request may quote it: the user and password are masked, also in base64."""
    proxy = await start_server()

    async def echo(request: Any) -> None:
        said = request.headers["proxy-authorization"]
        words = {
            "errors": [
                f"wrong: {said}",
                base64.b64decode(said.removeprefix("Basic ")).decode(),
                PASSWORD,
                quote(PASSWORD),
            ]
        }
        await reply(status, words, {"X-Request-Id": said, "X-RateLimit-Name": said})(request)

    proxy.script(otherwise=echo)
    async with proxied(proxy, way, monkeypatch) as session:
        client = connect(session=session)
        error = await failure(client, APIError)
        assert BASIC not in repr(client.rate_limit)
    assert str(status) in str(error)
    assert len(proxy.requests) == 1
    assert "wrong" in str(error)
    hides_the_proxy_s_password(error)


NO_TUNNEL: dict[str, tuple[Responder, str]] = {
    "hangs up": (hang_up(), "the proxy closed the connection without an answer: "),
    "resets": (reset(), "the connection to the proxy failed: "),
    "garbage": (raw(b"220 mail.example ESMTP\r\n\r\n"), "the proxy's answer is not valid HTTP: "),
    "refuses": (reply(502), "the proxy refused the connection: "),
}


@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize(("act", "says"), NO_TUNNEL.values(), ids=list(NO_TUNNEL))
async def test_a_proxy_that_opens_no_tunnel_is_named(
    start_server: StartServer, connect: Connect, act: Responder, says: str, borrowed: bool
) -> None:
    """The error is about the proxy, not about the server: it has host and port of the proxy, and not its password."""
    proxy = await start_server()
    proxy.script(otherwise=act)
    url = proxy.url.replace("://", f"://{USER}:{quote(PASSWORD)}@")
    async with aiohttp.ClientSession(proxy=url) as session:
        options: dict[str, Any] = {"session": session} if borrowed else {"proxy": url}
        client = connect(base_url="https://datadog.example", retry=ONCE, **options)
        error = await failure(client, call="create")
    assert f"{says}127.0.0.1:{proxy.port}" in str(error)
    assert error.outcome_unknown is False
    hides_the_proxy_s_password(error)


async def test_a_proxy_that_cannot_be_reached_is_named(connect: Connect) -> None:
    """Host and port of the proxy, and the reason, without its password."""
    port = _free_port()
    async with aiohttp.ClientSession(proxy=f"http://{USER}:{quote(PASSWORD)}@127.0.0.1:{port}") as session:
        error = await failure(connect(base_url="https://localhost:1", session=session))
    assert f"127.0.0.1:{port}" in str(error)
    assert "refused" in str(error)
    hides_the_proxy_s_password(error)


# 403 and 404


PERMISSIONS = {"get": "service_account_write", "create": "service_account_write", "revoke": "service_account_write"}


@pytest.mark.parametrize("call", PERMISSIONS)
async def test_a_403_names_the_permission(server: RawServer, connect: Connect, call: str) -> None:
    """The error says which permission the operation needs, not how keys are made."""
    server.script(otherwise=reply(403, {"errors": ["Forbidden"]}))
    text = str(await failure(connect(), APIError, call))
    assert PERMISSIONS[call] in text
    assert "Organization Settings" not in text


NOT_FOUND: dict[str, tuple[Callable[[], object], str]] = {
    "Datadog's words": (lambda: {"errors": ["Not Found"]}, "no such"),
    "its number": (lambda: {"errors": ["404"]}, "no such"),
    "words that say more": (lambda: {"errors": ["the service account is disabled"]}, "the service account is disabled"),
    "no words": (lambda: b"", "no such"),
    "a page": (lambda: HTML, "no such"),
}


@pytest.mark.parametrize(("body", "says"), NOT_FOUND.values(), ids=list(NOT_FOUND))
@pytest.mark.parametrize(
    ("call", "what"), [("get", "token"), ("create", "service account"), ("list", "service account")]
)
async def test_a_404_says_what_there_is_not(
    server: RawServer, connect: Connect, body: Callable[[], object], says: str, call: str, what: str
) -> None:
    """ "No such token" or "no such service account", and the API's own words where they say more."""
    server.script(otherwise=reply(404, body()))
    text = str(await failure(connect(), APIError, call))
    assert f"no such {what}" in text or f"no such token or {what}" in text
    assert says in text
    assert "Not Found: 'Not Found'" not in text
