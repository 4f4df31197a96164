"""The client's settings, and what is refused of them before anything is sent."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, cast, final
from urllib.parse import SplitResult, urlsplit

import attrs

from .errors import ConfigurationError, shown
from .models import Secret

_DOMAINS = ("datadoghq.com", "datadoghq.eu", "ddog-gov.com")
_SITE = re.compile(rf"(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.)*(?:{'|'.join(map(re.escape, _DOMAINS))})")
_OWN_TOKEN_PREFIXES = ("ddsat_", "ddpat_")
_MANY = 1e9  # seconds: thirty years
_SHORTEST_KEY = 8  # a shorter "key" is a test's, and masking it would garble every text
_HOST = re.compile(r"[A-Za-z0-9.-]+|[0-9a-f:.]+")


class Site(StrEnum):
    """The Datadog sites, by the host name that follows `api.`.

    Source: https://docs.datadoghq.com/getting_started/site/ and the official client's list of servers.
    """

    US1 = "datadoghq.com"
    US3 = "us3.datadoghq.com"
    US5 = "us5.datadoghq.com"
    EU1 = "datadoghq.eu"
    AP1 = "ap1.datadoghq.com"
    AP2 = "ap2.datadoghq.com"
    UK1 = "uk1.datadoghq.com"
    US1_FED = "ddog-gov.com"
    US2_FED = "us2.ddog-gov.com"


def check_number(name: str, value: object, *, least: float = 0.0, above: bool = False, below: float = _MANY) -> None:
    """Refuse what is no number in range.

    Raises:
        ConfigurationError: The value is no number, below `least` (or equal to it if `above`), or not under `below`.
    """
    fits = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (value > least if above else value >= least)
        and value < below
    )
    if not fits:
        limits = f"{'above' if above else 'of at least'} {least:g} and below {below:g}"
        msg = f"{name} must be a number {limits}, not {shown(value)}"
        raise ConfigurationError(msg)


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        msg = f"{name} must be a whole number of at least 1, not {shown(value)}"
        raise ConfigurationError(msg)


@attrs.frozen
class RetryPolicy:
    """How patiently a call is repeated. All times are seconds.

    Before try number n + 1 a call waits a random time between 0 and `initial_backoff * 2 ** (n - 1)`, at most
    `max_backoff` ("full jitter"), unless the answer says for how long.

    Attributes:
        max_attempts: Most requests for one call, the first included; 1 means no retry. 429s whose headers say when
            the quota returns are not counted: those requests were not processed.
        initial_backoff: Longest wait before the second try.
        max_backoff: Longest wait before any try. A `Retry-After` of more than ten times this is not waited for.
        max_rate_limit_wait: Longest time one call may wait for quota, its place in the queue included. A call that
            would wait longer raises `RateLimitError` at once. `None` means as long as it takes: with a quota per hour,
            an hour for each window that those ahead of it in the queue fill.

    Raises:
        ConfigurationError: A value is out of range.
    """

    max_attempts: int = 5
    initial_backoff: float = 0.5
    max_backoff: float = 30.0
    max_rate_limit_wait: float | None = None

    def __attrs_post_init__(self) -> None:
        check_count("max_attempts", self.max_attempts)
        check_number("initial_backoff", self.initial_backoff)
        check_number("max_backoff", self.max_backoff)
        if self.max_rate_limit_wait is not None:
            check_number("max_rate_limit_wait", self.max_rate_limit_wait)


@final
class Credentials:
    """The headers that authenticate a request, held so that no repr shows them."""

    __slots__ = ("_headers", "_keys")

    def __init__(self, headers: Mapping[str, Secret]) -> None:
        self._headers = dict(headers)
        # The longest first: a Bearer header is masked whole, its token where that stands alone.
        parts = {part for value in self.headers().values() for part in (value, value.removeprefix("Bearer "))}
        self._keys = tuple(Secret(part) for part in sorted(parts, key=len, reverse=True) if len(part) >= _SHORTEST_KEY)

    def headers(self) -> dict[str, str]:
        """Return the headers in the clear, to be put on a request and nowhere else."""
        return {name: value.reveal() for name, value in self._headers.items()}

    def redact(self, text: str) -> str:
        """Mask the keys in a text from outside: a server may echo what it was sent."""
        for key in self._keys:
            text = text.replace(key.reveal(), "**********")
        return text

    def __repr__(self) -> str:
        return f"<Credentials: {', '.join(self._headers)}>"


def masked(key: str | Secret | None) -> Secret | None:
    """Hide a key from tracebacks that show local variables, whatever was given for one."""
    return key if key is None or isinstance(key, Secret) else Secret(key)


def read_credentials(
    api_key: str | Secret | None,
    app_key: str | Secret | None,
    access_token: str | Secret | None,
    environ: Mapping[str, str] = os.environ,
) -> Credentials:
    """Choose the credentials: the arguments if any is given, else the environment.

    Args:
        api_key: `DD_API_KEY`.
        app_key: `DD_APP_KEY`; a `ddsat_` or `ddpat_` token here needs no API key.
        access_token: `DD_ACCESS_TOKEN`; sent as a Bearer token.
        environ: Read only where no argument is given; empty variables count as not set.

    Raises:
        ConfigurationError: None, half or both of the two forms are given, or a key cannot be one.
    """
    api_key, app_key, access_token = masked(api_key), masked(app_key), masked(access_token)
    names = ("api_key", "app_key", "access_token")
    keys = (api_key, app_key, access_token)
    if keys == (None, None, None):
        names = ("DD_API_KEY", "DD_APP_KEY", "DD_ACCESS_TOKEN")
        keys = (
            masked(environ.get(names[0]) or None),
            masked(environ.get(names[1]) or None),
            masked(environ.get(names[2]) or None),
        )
    del environ  # it is full of keys, and what is raised below must not show them
    faults = [fault for fault in map(_fault_of_key, names, keys) if fault is not None]
    if faults:
        raise ConfigurationError(faults[0])
    return _choose(names, keys)


_Names = tuple[str, str, str]
_Keys = tuple[Secret | None, Secret | None, Secret | None]


def _choose(names: _Names, keys: _Keys) -> Credentials:
    (api_name, app_name, token_name), (api, app, token) = names, keys
    if token is not None:
        if api is not None or app is not None:
            msg = f"give either {token_name}, or {api_name} with {app_name}, not both forms"
            raise ConfigurationError(msg)
        return Credentials({"Authorization": Secret(f"Bearer {token.reveal()}")})
    if app is None:
        missing = f"{app_name} is missing" if api is not None else "no credentials"
        msg = (
            f"{missing}: give api_key and app_key (DD_API_KEY and DD_APP_KEY), or access_token (DD_ACCESS_TOKEN). "
            "Keys are made in Datadog under Organization Settings"
        )
        raise ConfigurationError(msg)
    if api is not None:
        return Credentials({"DD-API-KEY": api, "DD-APPLICATION-KEY": app})
    if not app.reveal().startswith(_OWN_TOKEN_PREFIXES):
        msg = f"{api_name} is missing: {app_name} stands alone only where it is a ddsat_ or ddpat_ token"
        raise ConfigurationError(msg)
    return Credentials({"DD-APPLICATION-KEY": app})


def _fault_of_key(name: str, key: Secret | None) -> str | None:
    """Say what is wrong with a key, without raising: the frames here hold it."""
    value = "fine" if key is None else cast("object", key.reveal())
    if not isinstance(value, str) or not value:
        return f"{name} must be a non-empty str"
    if not value.isascii() or not value.isprintable() or " " in value:
        return (
            f"{name} must be printable ASCII without whitespace; "
            "a newline at the end of a key that was read from a file is the usual cause"
        )
    return None


def read_base_url(
    site: Site | str | None, base_url: str | Secret | None, environ: Mapping[str, str] = os.environ
) -> str:
    """Choose where requests go, as a URL without a trailing slash.

    Args:
        site: A Datadog site; `DD_SITE` if neither this nor `base_url` is given, `datadoghq.com` without that.
        base_url: Instead of a site: a proxy or a fake server; https, or http on loopback. A path is kept.
        environ: Where `DD_SITE` is looked up.

    Raises:
        ConfigurationError: Both are given, the site is not Datadog's, or the URL is not fit to send keys to.
    """
    base_url = masked(base_url)  # people put passwords into URLs
    name, given = ("DD_SITE", environ.get("DD_SITE") or Site.US1) if site is None else ("site", site)
    del environ  # it holds keys, too, and an error must not show them
    if base_url is None:
        return f"https://api.{_check_site(name, given)}"
    fault = "give either site or base_url, not both" if site is not None else _fault_of_base_url(base_url)
    if fault is not None:
        raise ConfigurationError(fault)
    return base_url.reveal().rstrip("/")


def _check_site(name: str, site: object) -> str:
    if isinstance(site, str) and _SITE.fullmatch(site) and not site.startswith(("api.", "app.")):
        return str(site)
    msg = f"{name} must be a Datadog site such as {Site.US1.value} or {Site.EU1.value}, not {shown(site)}"
    if isinstance(site, str):
        host = (_split_url(site) or SplitResult("", "", "", "", "")).hostname or site
        nearest = get_close_matches(host.lower().removeprefix("app.").removeprefix("api."), list(Site), n=1)
        if nearest:
            msg += f"; did you mean {nearest[0]}?"
    raise ConfigurationError(msg)


def _split_url(url: str) -> SplitResult | None:
    """Split a URL; `None` for one that cannot be split or whose port is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    after_ipv6 = parts.netloc.partition("]")[2]
    return None if after_ipv6 and after_ipv6[0] != ":" else parts  # which some Pythons let pass


def _fault_of_base_url(secret: Secret) -> str | None:  # noqa: PLR0911 - one for each fault
    """Say what is wrong with a URL, without raising and without quoting it: it may hold a password."""
    base_url = cast("object", secret.reveal())
    if not isinstance(base_url, str):
        return "base_url must be a str such as https://datadog-proxy.example.com"
    parts = _split_url(base_url)
    if parts is None or not base_url.isascii() or not base_url.isprintable() or " " in base_url or "\\" in base_url:
        return "base_url is not a URL; it must look like https://datadog-proxy.example.com"
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.hostname or ""):
        return "base_url must begin with https:// and a host, or with http:// and a loopback host"
    if "@" in parts.netloc:
        return "base_url must not contain credentials; they are given as api_key, app_key or access_token"
    if "?" in base_url or "#" in base_url:
        return "base_url must have neither a query nor a fragment"
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        return "base_url must use https: keys would travel in the clear; http is for loopback (localhost, 127.0.0.1)"
    if {".", ".."} & set(parts.path.split("/")) or "%" in parts.path:
        return "base_url must have a plain path, without dot segments and percent escapes"
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_options(*, concurrency: Any, timeout: Any, retry: Any, quota_reserve: Any) -> None:
    """Check the client's other options.

    Raises:
        ConfigurationError: One is out of range; the text names it.
    """
    check_count("concurrency", concurrency)
    check_number("timeout", timeout, above=True)
    check_number("quota_reserve", quota_reserve, below=1.0)
    if not isinstance(retry, RetryPolicy):
        msg = f"retry must be a RetryPolicy, not {type(retry).__name__}"
        raise ConfigurationError(msg)
