"""The private names of aiohttp that this package reads. Each has a test that fails if aiohttp renames it.

There is no default anywhere here: a name that is gone must raise, not change silently what a user's session does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import aiohttp
from yarl import URL


def middlewares_of(session: aiohttp.ClientSession) -> Sequence[aiohttp.ClientMiddlewareType]:
    """Return a session's own middlewares.

    aiohttp takes the middlewares of a request in place of its session's, and has no public way to name those.
    """
    return session._middlewares  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what this module is for


def proxy_of(session: aiohttp.ClientSession) -> tuple[str | URL | None, tuple[str, str] | None]:
    """Return a session's own proxy, and the user and password that were given beside it.

    aiohttp has no public way to ask for those.
    """
    proxy = session._default_proxy  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what this module is for
    auth = session._default_proxy_auth  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what this module is for
    if auth is None:
        return proxy, None
    user, password, _encoding = cast("tuple[str, str, str]", auth)
    return proxy, (user, password)
