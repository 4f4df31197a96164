"""The private names of aiohttp that this package reads. Each has a test that fails if aiohttp renames it.

There is no default anywhere here: a name that is gone must raise, not change silently what a user's session does.
"""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp


def middlewares_of(session: aiohttp.ClientSession) -> Sequence[aiohttp.ClientMiddlewareType]:
    """Return a session's own middlewares.

    aiohttp takes the middlewares of a request in place of its session's, and has no public way to name those.
    """
    return session._middlewares  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what this module is for
