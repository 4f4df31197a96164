"""Where requests go, and what goes along: hostile IDs, redirects, borrowed sessions, proxies, the environment, TLS."""

from __future__ import annotations

import asyncio
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from support.calls import CALLS, ONCE, Connect
from support.keys import ACCESS_TOKEN, ACCOUNT, API_KEY, APP_KEY, KEYS, leaks
from support.proxies import forward
from support.replies import ReceivedRequest, any_answer, reply
from support.servers import RawServer, StartServer
from support.tls import make_authority, trusting

from dd_sa_tokens import APIError, InvalidArgumentError, TokensClient, TransportError

Call = Callable[[TokensClient, str, str], Coroutine[Any, Any, Any]]

EACH_CALL = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
EACH_CREDENTIAL = pytest.mark.parametrize(
    "credentials", [KEYS, {"access_token": ACCESS_TOKEN}, {"app_key": ACCESS_TOKEN}], ids=["pair", "bearer", "app key"]
)

# What each call sends to a server that answers it: the method, and whether it is about one token or the collection.
SENT: dict[str, list[tuple[str, bool]]] = {
    "get": [("GET", True)],
    "get_many": [("GET", True)],
    "stream": [("GET", True)],
    "list": [("GET", False)],
    "create": [("POST", False)],
    "update": [("PATCH", True)],
    "revoke": [("DELETE", True)],
    "rotate": [("GET", True), ("POST", False), ("DELETE", True)],
}


# IDs

PIECES = [
    *(
        "..",
        ".",
        "/",
        "\\",
        "%",
        "%2f",
        "%2F",
        "%2e%2e",
        "%00",
        "%252e",
        "?",
        "#",
        "&",
        "=",
        ";",
        ":",
        "@",
        "+",
        " ",
        "*",
    ),
    *(
        "//",
        "https://evil.example/",
        "[::1]",
        "|",
        "^",
        "`",
        "{",
        "}",
        "<",
        '"',
        "'",
        "\t",
        "\r\n",
        "\x00",
        "\x7f",
        "\x85",
    ),
    *(
        "é",
        "e\u0301",
        "\u2028",
        "\u200b",
        "\u202e",
        "\uff0f",
        "\u2215",
        "\ufeff",
        "😀",
        "\ud800",
        "\udfff",
        "a",
        "access_tokens",
    ),
]
IDS = (
    st.text(max_size=12)
    | st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
    | st.text(min_size=250, max_size=260)
)


def is_sendable(value: str) -> bool:
    """Return whether an ID can be a path segment, by other code than the client's."""
    odd = {"Cc", "Cs"} & {unicodedata.category(character) for character in value}
    return 0 < len(value) <= 256 and value not in {".", ".."} and not odd


def check_path(target: str, account: str, token_id: str | None) -> None:
    """See that the target is the documented path, with the IDs as themselves and nothing else."""
    assert target.isascii()
    path, _, query = target.partition("?")
    assert (token_id is None) or not query
    assert "#" not in target
    start, segments = path.split("/")[:4], path.split("/")[4:]
    assert start == ["", "api", "v2", "service_accounts"]
    assert [unquote(segment, errors="strict") for segment in segments] == [
        account,
        "access_tokens",
        *([] if token_id is None else [token_id]),
    ]
    assert all(re.fullmatch(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+", segment) for segment in segments)
    assert not {"..", "."} & {*segments}


def test_any_id_is_refused_or_one_segment_of_the_path() -> None:
    """Each call refuses a text as an ID before anything is sent, or the server sees exactly that text."""
    with asyncio.Runner() as runner:
        server = RawServer()
        runner.run(server.start())
        server.script(otherwise=any_answer())
        client = TokensClient(base_url=server.url, retry=ONCE, **KEYS)

        @settings(max_examples=150, deadline=None)
        @given(account=IDS, token_id=IDS)
        def check(account: str, token_id: str) -> None:
            for name, call in CALLS.items():
                server.requests.clear()
                about_one = SENT[name][0][1]
                if not is_sendable(account) or (about_one and not is_sendable(token_id)):
                    with pytest.raises(InvalidArgumentError):
                        runner.run(call(client, account, token_id))
                    assert server.requests == []
                    continue
                runner.run(call(client, account, token_id))
                assert [request.line.split(" ")[0] for request in server.requests] == [
                    method for method, _ in SENT[name]
                ]
                for request, (_, one) in zip(server.requests, SENT[name], strict=True):
                    check_path(request.target, account, token_id if one else None)

        try:
            check()
        finally:
            runner.run(client.close())
            runner.run(server.stop())


# Redirects


@EACH_CALL
@pytest.mark.parametrize("borrowed", [False, True])
async def test_no_call_follows_a_redirect(
    server: RawServer, start_server: StartServer, connect: Connect, call: Call, borrowed: bool
) -> None:
    """Each kind of redirect is one error for the caller, and the other host gets no request."""
    elsewhere = await start_server()
    async with aiohttp.ClientSession() as session:
        client = connect(session=session) if borrowed else connect()
        for number, status in enumerate((301, 302, 303, 307, 308), 1):
            server.script(reply(status, b"", Location=f"{elsewhere.url}/api/v2/x"))
            with pytest.raises(TransportError, match="redirects are not followed"):
                await call(client, ACCOUNT, "t1")
            assert len(server.requests) == number
    assert elsewhere.connections == 0


async def test_the_last_step_of_a_rotation_follows_no_redirect(
    server: RawServer, start_server: StartServer, connect: Connect
) -> None:
    """Nor are the later requests of a call, which would carry a body along, or revoke something elsewhere."""
    elsewhere = await start_server()
    away = reply(307, b"", Location=f"{elsewhere.url}/api/v2/x")
    server.script(any_answer(), away, any_answer(), any_answer(), away)
    for _ in range(2):
        with pytest.raises(Exception, match="redirects are not followed"):
            await CALLS["rotate"](connect(), ACCOUNT, "t1")
    assert elsewhere.connections == 0


# Borrowed sessions


def comparable(request: ReceivedRequest) -> tuple[str, bytes, dict[str, str]]:
    """Return the parts of a request that must be the same through any session."""
    return request.line, request.body, request.headers


async def plain(server: RawServer, call: Call, credentials: dict[str, str]) -> list[tuple[str, bytes, dict[str, str]]]:
    """Return what a call sends over the client's own session."""
    async with TokensClient(base_url=server.url, retry=ONCE, **credentials) as client:
        await call(client, ACCOUNT, "a/b")
    sent = [comparable(request) for request in server.requests]
    server.requests.clear()
    return sent


@contextmanager
def deprecated() -> Iterator[None]:
    """Let a session be made in a way that aiohttp is going to drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def boom(*_: object) -> Any:
    raise AssertionError


async def raise_theirs(_: aiohttp.ClientResponse) -> None:
    raise ZeroDivisionError


def somebody_elses(url: str = "http://127.0.0.1") -> dict[str, dict[str, Any]]:
    """Return the options of sessions that were made for something else, by what is odd about them."""
    with deprecated():
        auth = aiohttp.BasicAuth("user", "password")
    return {
        "credentials": {
            "headers": CIMultiDict(
                [
                    ("authorization", "Bearer another"),
                    ("Authorization", "Basic YTpi"),
                    ("dd-api-key", "another"),
                    ("DD-API-KEY", "a third"),
                    ("Dd-Application-Key", "another"),
                ]
            )
        },
        "auth": {"auth": auth},
        "auth of this host": {"auth": auth, "base_url": f"{url}/x/"},
        "framing": {
            "headers": CIMultiDict(
                [
                    ("Content-Length", "3"),
                    ("content-length", "5"),
                    ("Transfer-Encoding", "chunked"),
                    ("Content-Encoding", "gzip"),
                    ("Content-Type", "text/plain"),
                    ("Host", "evil.example"),
                ]
            )
        },
        "what it takes": {"headers": {"Accept": "text/html", "User-Agent": "another", "user-agent": "a third"}},
        "base_url": {"base_url": "https://evil.example/elsewhere/"},
        "raise_for_status": {"raise_for_status": True},
        "raise_for_status of its own": {"raise_for_status": raise_theirs},
        "json": {"json_serialize": boom},
        "timeout": {"timeout": aiohttp.ClientTimeout(total=0.001, connect=0.001, sock_connect=0.001, sock_read=0.001)},
        "no automatic headers": {"skip_auto_headers": ["User-Agent", "Content-Type", "Accept"]},
    }


ODDITIES = list(somebody_elses())


@EACH_CALL
@EACH_CREDENTIAL
@pytest.mark.parametrize("oddity", ODDITIES)
async def test_a_request_is_the_same_through_any_session(
    server: RawServer, call: Call, credentials: dict[str, str], oddity: str
) -> None:
    """Over any borrowed session each call sends what it sends over a session of the client's own."""
    server.script(otherwise=any_answer(0.003 if oddity == "timeout" else 0))
    expected = await plain(server, call, credentials)
    with deprecated():
        session = aiohttp.ClientSession(**somebody_elses(server.url)[oddity])
    async with session:
        client = TokensClient(base_url=server.url, session=session, retry=ONCE, **credentials)
        await call(client, ACCOUNT, "a/b")
    assert [comparable(request) for request in server.requests] == expected
    heads = [request.head for request in server.requests]
    assert all(head.lower().count(b"\r\ndd-a") + head.lower().count(b"\r\nauthorization") <= 2 for head in heads)
    assert all(head.lower().count(b"\r\ncontent-length") <= 1 for head in heads)


@EACH_CALL
async def test_a_session_s_own_cookies_and_headers_go_along(server: RawServer, call: Call) -> None:
    """What is neither about credentials nor about the message is the session's business, and is added."""
    server.script(otherwise=any_answer())
    expected = await plain(server, call, KEYS)
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(headers={"X-Tenant": "blue"}, cookies={"a": "b"}, cookie_jar=jar) as session:
        await call(TokensClient(base_url=server.url, session=session, retry=ONCE, **KEYS), ACCOUNT, "a/b")
    for (line, body, headers), request in zip(expected, server.requests, strict=True):
        assert comparable(request) == (line, body, headers | {"x-tenant": "blue", "cookie": "a=b"})


@EACH_CREDENTIAL
@pytest.mark.parametrize("by_default", [False, True])
async def test_a_netrc_file_adds_no_credentials(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, credentials: dict[str, str], by_default: bool
) -> None:
    """The password that a `.netrc` file has for the host is not sent, not even by a session that reads such files."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"{'default' if by_default else 'machine 127.0.0.1'} login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    expected = await plain(server, CALLS["get"], credentials)
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.get(server.url) as response:
            assert response.status == 200
        assert server.requests.pop().headers["authorization"].startswith("Basic ")
        client = TokensClient(base_url=server.url, session=session, retry=ONCE, **credentials)
        await client.get_token(ACCOUNT, "a/b")
    assert [comparable(request) for request in server.requests] == expected


@EACH_CALL
@EACH_CREDENTIAL
async def test_a_session_s_middlewares_neither_see_nor_replace_the_keys(
    server: RawServer, call: Call, credentials: dict[str, str]
) -> None:
    """A session's middlewares see each request, but not its keys, and those that they put there are not sent."""
    server.script(otherwise=any_answer())
    expected = await plain(server, call, credentials)
    seen: list[str] = []

    async def signs(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        seen.append(f"{request.method} {request.headers}")
        request.headers["Authorization"] = "Bearer another"
        request.headers["DD-API-KEY"] = "another"
        return await handler(request)

    async with aiohttp.ClientSession(middlewares=[signs]) as session:
        await call(TokensClient(base_url=server.url, session=session, retry=ONCE, **credentials), ACCOUNT, "a/b")
    assert [text.split(" ")[0] for text in seen] == [line.split(" ")[0] for line, _, _ in expected]
    assert leaks("".join(seen)) == []
    assert [comparable(request) for request in server.requests] == expected


@EACH_CREDENTIAL
async def test_a_session_s_traces_see_no_key_before_the_headers_are_sent(
    server: RawServer, credentials: dict[str, str]
) -> None:
    """Trace configs run; they see the keys among the headers that go out, and not when a request starts or ends."""
    seen: dict[str, str] = {}
    traces = aiohttp.TraceConfig()

    def watch(name: str) -> Any:
        async def hook(_session: Any, _context: Any, params: Any) -> None:
            seen[name] = repr({key: repr(getattr(params, key)) for key in dir(params) if not key.startswith("_")})

        return hook

    for name in ("on_request_start", "on_request_headers_sent", "on_request_end"):
        getattr(traces, name).append(watch(name))
    async with aiohttp.ClientSession(trace_configs=[traces]) as session:
        await TokensClient(base_url=server.url, session=session, retry=ONCE, **credentials).get_token(ACCOUNT, "t1")
    assert leaks(seen.pop("on_request_headers_sent"))
    assert sorted(seen) == ["on_request_end", "on_request_start"]
    assert leaks(repr(seen)) == []


@EACH_CALL
@pytest.mark.parametrize("oddity", ["raise_for_status", "raise_for_status of its own", "base_url", "json", "auth"])
async def test_errors_are_ours_through_any_session(server: RawServer, call: Call, oddity: str) -> None:
    """An error answer is the client's error with its status and words, even if the session would raise its own."""
    with deprecated():
        session = aiohttp.ClientSession(**somebody_elses(server.url)[oddity])
    async with session:
        client = TokensClient(base_url=server.url, session=session, retry=ONCE, **KEYS)
        for status in (400, 404, 500):
            server.script(reply(status))
            with pytest.raises(APIError) as caught:
                await call(client, ACCOUNT, "t1")
            assert (caught.value.status, caught.value.errors) == (status, (f"words about {status}",))
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None


async def test_a_session_that_contradicts_itself_is_an_error(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where aiohttp refuses to send anything, since the session has an Authorization twice, no key is in the error."""
    (tmp_path / "netrc").write_text("default login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer another"}, trust_env=True) as session:
        client = TokensClient(base_url=server.url, session=session, **KEYS)
        with pytest.raises(TransportError, match="ValueError") as caught:
            await client.get_token(ACCOUNT, "t1")
    assert caught.value.attempts == 1
    assert server.requests == []


# Proxies


@EACH_CALL
async def test_a_proxy_through_a_borrowed_session(
    server: RawServer, start_server: StartServer, connect: Connect, call: Call
) -> None:
    """A session with a proxy sends each request to it, whole, with the path as it was encoded."""
    proxy = await start_server()
    seen: list[str] = []
    proxy.script(otherwise=forward(seen))
    server.script(otherwise=any_answer())
    expected = await plain(server, call, KEYS)
    async with aiohttp.ClientSession(proxy=proxy.url) as session:
        await call(connect(session=session, retry=ONCE), ACCOUNT, "a/b")
    assert [comparable(request) for request in server.requests] == expected
    assert seen[0].split(" ")[1].startswith(f"{server.url}/api/v2/service_accounts/{ACCOUNT}/access_tokens")


async def test_a_proxy_of_an_https_host_sees_no_key(start_server: StartServer, connect: Connect) -> None:
    """To an https host a proxy gets a tunnel to open, and neither keys nor paths."""
    authority, context = make_authority("localhost")
    server = await start_server(context, "localhost")
    proxy = await start_server()
    seen: list[str] = []
    proxy.script(otherwise=forward(seen))
    connector = aiohttp.TCPConnector(ssl=trusting(authority))
    async with aiohttp.ClientSession(proxy=proxy.url, connector=connector) as session:
        assert (await connect(base_url=server.url, session=session).get_token(ACCOUNT, "t1")).id == "t1"
    assert [text.split("\r\n")[0] for text in seen] == [f"CONNECT localhost:{server.port} HTTP/1.1"]
    assert leaks("".join(seen)) == []
    assert server.requests[0].headers["dd-api-key"] == API_KEY


@pytest.mark.parametrize(("status", "words"), [(None, "the proxy could not be reached"), (403, "the proxy refused")])
async def test_a_proxy_that_does_not_help(
    start_server: StartServer, connect: Connect, status: int | None, words: str
) -> None:
    """A proxy that is not there or refuses is a `TransportError` about the proxy, after which nothing is unsure."""
    proxy = await start_server()
    proxy.script(otherwise=reply(status or 500))
    if status is None:
        await proxy.stop()
    async with aiohttp.ClientSession(proxy=proxy.url) as session:
        client = connect(base_url="https://localhost:1", session=session, retry=ONCE)
        with pytest.raises(TransportError, match=words) as caught:
            await client.create_token(ACCOUNT, name="n", scopes=["a"])
    assert caught.value.outcome_unknown is False


# The environment


async def test_the_environment_names_no_proxy(
    server: RawServer, start_server: StartServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's own session does not go through a proxy that the environment names."""
    proxy = await start_server()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server.script(otherwise=any_answer())
    for call in CALLS.values():
        await call(connect(), ACCOUNT, "t1")
    assert proxy.connections == 0


ALONE = """
import asyncio, sys
from dd_sa_tokens import RetryPolicy, TokensClient

async def main():
    once = RetryPolicy(max_attempts=1)
    async with TokensClient(base_url=sys.argv[1], access_token="ddpat_0123456789", retry=once) as client:
        return (await client.get_token("account", "t1")).id

try:
    print(asyncio.run(main()))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


async def alone(url: str, **environ: str) -> str:
    """Return what a get gives in a process of its own, which reads the environment anew."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", ALONE, url),
        env={"PYTHONPATH": str(Path(__file__).parents[2])} | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_no_environment_variable_switches_the_certificate_check_off(
    start_server: StartServer, tmp_path: Path
) -> None:
    """An untrusted certificate is refused, even with the variables set that switch the check off elsewhere."""
    authority, context = make_authority("localhost")
    server = await start_server(context, "localhost")
    ours = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ours)
    said = await alone(
        server.url,
        PYTHONHTTPSVERIFY="0",
        CURL_CA_BUNDLE="",
        REQUESTS_CA_BUNDLE=ours,
        NODE_TLS_REJECT_UNAUTHORIZED="0",
        GIT_SSL_NO_VERIFY="1",
        AIOHTTP_NO_EXTENSIONS="1",
        DD_SKIP_SSL_VALIDATION="true",
        SSL_CERT_DIR=str(tmp_path / "nothing"),
    )
    assert said.startswith("TransportError: the server's TLS certificate is not valid: ")
    assert server.requests == []


async def test_the_environment_can_only_say_whom_to_trust(start_server: StartServer, tmp_path: Path) -> None:
    """SSL_CERT_FILE, which OpenSSL itself reads, names other authorities; names and dates are checked as ever."""
    authority, context = make_authority("localhost")
    server = await start_server(context, "localhost")
    ours = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ours)
    trusted, wrong_name = await asyncio.gather(
        alone(server.url, SSL_CERT_FILE=ours),
        alone(server.url.replace("localhost", "127.0.0.1"), SSL_CERT_FILE=ours),
    )
    assert trusted == "t1\n"
    assert "IP address mismatch" in wrong_name
    assert len(server.requests) == 1


# TLS


@pytest.mark.parametrize(
    ("issued_for", "ended", "trusted", "words"),
    [
        ("localhost", False, False, "self-signed certificate|unable to get local issuer"),
        ("other.example", False, True, "Hostname mismatch"),
        ("localhost", True, True, "certificate has expired"),
    ],
    ids=["untrusted", "wrong host", "expired"],
)
@EACH_CALL
async def test_a_bad_certificate_is_refused_with_the_reason(
    start_server: StartServer, connect: Connect, call: Call, issued_for: str, ended: bool, trusted: bool, words: str
) -> None:
    """A certificate of an unknown authority, for another host or out of date ends a call at once, and it says why."""
    authority, context = make_authority(issued_for, ended=ended)
    server = await start_server(context, "localhost")
    connector = aiohttp.TCPConnector(ssl=trusting(authority) if trusted else True)
    async with aiohttp.ClientSession(connector=connector) as session:
        client = connect(base_url=server.url, **({"session": session} if trusted else {}))
        with pytest.raises(TransportError, match=words) as caught:
            await call(client, ACCOUNT, "t1")
        assert "the server's TLS certificate is not valid: localhost:" in str(caught.value)
        assert (caught.value.attempts, caught.value.outcome_unknown) == (1, False)
        assert leaks(str(caught.value)) == []
        assert caught.value.__context__ is None
        await asyncio.sleep(0.01)  # the transports close
    assert server.requests == []
    assert APP_KEY not in str(vars(caught.value))
