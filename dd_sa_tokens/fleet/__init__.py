"""One rate limit for many processes: a window that all clients of an organization share, kept in Redis.

Datadog's limits are per organization. A few clients share one well by the headers alone; dozens need a common count.

    from dd_sa_tokens import TokensClient
    from dd_sa_tokens.fleet import RedisStore

    async with RedisStore("redis://localhost:6379/0", organization="acme") as store:
        async with TokensClient(rate_limit_store=store) as client:
            result = await client.get_tokens(service_account_id, token_ids)

All clients whose stores have the same Redis, organization and prefix, and whose site is the same, are one client to
the rate limit. Each takes permits in batches, so few requests wait for Redis: with plenty left, one round trip serves
ten requests or more. Unspent permits are given back when a client is idle or closed. A client that dies keeps at most
its last batch, until the window ends.

What happens without Redis?
---------------------------
Clients use only the headers of their own answers, as they do without a store. No call fails. A silent Redis delays a
call by about 0.2 s, and a busy one, which still answers others, by up to about 1.2 s. One WARNING says that the store
is unavailable, one INFO that it is available again. It is tried again after 0.1 s, then less often, every 2 s at last.
A wrong password is treated alike, since a store must not stop a service.

What is in Redis?
-----------------
A hash for each limit, named `{prefix:organization:https://api.datadoghq.com}:name/limit/period`, whose window ends on
Redis' own clock. It holds counts and times, and expires two periods after it was last used. Redis 5 or newer.
"""

from __future__ import annotations

try:
    import redis as _redis
except ImportError as _error:
    _message = "dd_sa_tokens.fleet needs redis-py, the extra redis; from a clone: pip install '.[redis]'"
    raise ImportError(_message) from _error

from dd_sa_tokens._ratelimit.store import Lease, LeaseRequest, WindowView

from .redis_store import RedisStore

__all__ = ["Lease", "LeaseRequest", "RedisStore", "WindowView"]

del _redis
