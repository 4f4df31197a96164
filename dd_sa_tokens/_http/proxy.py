"""A proxy's address, and its user and password, which are masked like keys: a proxy may quote what it was sent."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote
from urllib.request import getproxies

import aiohttp
from yarl import URL

from .errors import host_and_port
from .private import proxy_of


def address_of(proxy: URL | None) -> str:
    """Return a proxy's host and port, without its user and password; nothing for no proxy."""
    return "" if proxy is None else host_and_port(proxy.raw_host, proxy.port)


def secrets_of_session(session: aiohttp.ClientSession) -> Iterator[str]:
    """Yield what must not show of the proxies that a borrowed session may use, its environment's included."""
    proxy, user_and_password = proxy_of(session)
    if user_and_password is not None:
        yield from _forms_of(*user_and_password)
    urls = [proxy] if proxy is not None else []
    urls += getproxies().values() if session.trust_env else []
    for url in urls:
        yield from secrets_of(url)


def secrets_of(url: str | URL) -> Iterator[str]:
    """Yield what must not show of a proxy's URL: the user, the password, and the forms in which they are sent."""
    try:
        url = URL(url)
    except ValueError:  # of the environment: aiohttp refuses it, too
        return
    yield from (part for part in (url.raw_user, url.raw_password) if part)
    if url.user or url.password:
        yield from _forms_of(url.user or "", url.password or "")


def _forms_of(user: str, password: str) -> Iterator[str]:
    both = f"{user}:{password}"
    yield from (user, password, both, quote(user, safe=""), quote(password, safe=""))
    for encoding in ("latin-1", "utf-8"):  # aiohttp's own, and that of newer proxies
        yield b64encode(both.encode(encoding, "replace")).decode()
