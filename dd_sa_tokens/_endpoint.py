"""The site or base URL that requests are sent to, and what is refused of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from typing import cast
from urllib.parse import SplitResult, urlsplit

from ._credentials import as_secret
from .config import Site
from .errors import ConfigurationError, short_repr
from .models import Secret

_DOMAINS = ("datadoghq.com", "datadoghq.eu", "ddog-gov.com")
_SITE = re.compile(rf"(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.)*(?:{'|'.join(map(re.escape, _DOMAINS))})")
_LABEL = "[A-Za-z0-9_-]{1,63}"  # containers have names with underscores
_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?|[0-9a-f:.]*:[0-9a-f:.]*")


def read_base_url(
    site: Site | str | None, base_url: str | Secret | None, environ: Mapping[str, str] = os.environ
) -> str:
    """Choose where requests go, as a URL without a trailing slash.

    Args:
        site: A Datadog site; `DD_SITE` if neither this nor `base_url` is given, `datadoghq.com` without that.
        base_url: Instead of a site: a proxy or a fake server; https, or http on loopback. A path is kept.
        environ: Where `DD_SITE` is looked up.

    Raises:
        ConfigurationError: Both are given, the site is not Datadog's, or keys must not be sent to the URL.
    """
    base_url = as_secret(base_url)  # people put passwords into URLs
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
    msg = f"{name} must be a Datadog site such as {Site.US1.value} or {Site.EU1.value}, not {short_repr(site)}"
    if isinstance(site, str):
        host = (split_url(site) or SplitResult("", "", "", "", "")).hostname or site
        nearest = get_close_matches(host.lower().removeprefix("app.").removeprefix("api."), list(Site), n=1)
        if nearest:
            msg += f"; did you mean {nearest[0]}?"
    raise ConfigurationError(msg)


def split_url(url: str) -> SplitResult | None:
    """Split a URL; `None` for one that cannot be split or has an invalid port."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    after_ipv6 = parts.netloc.partition("]")[2]
    return None if after_ipv6 and after_ipv6[0] != ":" else parts  # which some Pythons let pass


def _fault_of_base_url(secret: Secret) -> str | None:  # noqa: PLR0911 - one for each fault
    """Return what is wrong with a URL, or `None`, without raising and without quoting it: it may hold a password."""
    base_url = cast("object", secret.reveal())
    if not isinstance(base_url, str):
        return "base_url must be a str such as https://datadog-proxy.example.com"
    parts = split_url(base_url)
    if parts is None or not base_url.isascii() or not base_url.isprintable() or " " in base_url or "\\" in base_url:
        return "base_url is not a URL; it must look like https://datadog-proxy.example.com"
    if parts.scheme not in {"http", "https"} or not is_host(parts.hostname):
        return "base_url must begin with https:// and a host, or with http:// and a loopback host"
    if "@" in parts.netloc:
        return "base_url must not contain credentials; they are given as api_key, app_key or access_token"
    if "?" in base_url or "#" in base_url:
        return "base_url must have neither a query nor a fragment"
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        return (
            "base_url must use https: http would send the keys unencrypted; http is for loopback (localhost, 127.0.0.1)"
        )
    if {".", ".."} & set(parts.path.split("/")) or "%" in parts.path:
        return "base_url must have a plain path, without dot segments and percent escapes"
    return None


def is_host(name: str | None) -> bool:
    """Return whether a URL's host is a name or an address."""
    return _HOST.fullmatch(name or "") is not None


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
