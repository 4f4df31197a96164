"""What a session of our own is made with: the proxy and the TLS context that the user wants, and what is refused."""

from __future__ import annotations

import os
import ssl
from typing import cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import attrs

from dd_sa_tokens._credentials import as_secret
from dd_sa_tokens._endpoint import is_host, is_loopback, split_url
from dd_sa_tokens.errors import ConfigurationError, short_repr
from dd_sa_tokens.models import Secret

_EXAMPLE = "http://proxy.example.com:3128"


@attrs.frozen(kw_only=True)
class SessionSettings:
    """What a session of our own is made with.

    Attributes:
        proxy: The proxy's URL; `None` for none.
        ssl_context: How certificates are verified; `None` for the system's authorities.
    """

    proxy: Secret | None = None
    ssl_context: ssl.SSLContext | None = None


def read_settings(
    base_url: str, *, is_borrowed: bool, proxy: Secret | None, ssl_context: object, trust_env: object
) -> SessionSettings:
    """Check the settings, and look the proxy up in the environment if that is wanted.

    Args:
        base_url: Where requests go.
        is_borrowed: Whether a session is borrowed, which has settings of its own.
        proxy: The proxy's URL.
        ssl_context: The TLS context.
        trust_env: Whether the environment may name the proxy, if `proxy` does not.

    Raises:
        ConfigurationError: A setting is invalid, or keys would be sent unprotected; the text names it.
    """
    given = {"proxy": proxy is not None, "ssl_context": ssl_context is not None, "trust_env": trust_env is not False}
    fault = _fault_of_context(ssl_context)
    if is_borrowed and any(given.values()):
        name = next(name for name in given if given[name])
        fault = f"{name} is for a session of the client's own; a borrowed session has its own settings"
    elif not isinstance(trust_env, bool):
        fault = f"trust_env must be True or False, not {short_repr(trust_env)}"
    elif fault is None and proxy is not None:
        fault = _fault_of_proxy("proxy", proxy)
        if fault is None and urlsplit(base_url).scheme == "http":
            fault = "proxy cannot be used with an http base_url: the keys would reach the proxy unencrypted"
    elif fault is None and trust_env:
        name, proxy = _proxy_of_environment(base_url)
        fault = None if proxy is None else _fault_of_proxy(name, proxy)
    if fault is not None:
        raise ConfigurationError(fault)
    return SessionSettings(proxy=proxy, ssl_context=cast("ssl.SSLContext | None", ssl_context))


def _fault_of_context(context: object) -> str | None:
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext):
        return f"ssl_context must be an ssl.SSLContext, not {short_repr(context)}; certificates are always verified"
    if context.verify_mode is ssl.CERT_NONE:
        return "ssl_context must verify certificates, not CERT_NONE; ssl.create_default_context(cafile=...) does"
    if not context.check_hostname:
        # Any holder of any certificate of a trusted authority could read the keys.
        return "ssl_context must check the host's name (check_hostname); ssl.create_default_context(cafile=...) does"
    return None


def _proxy_of_environment(base_url: str) -> tuple[str, Secret | None]:
    """Look up the proxy for a URL by the standard library's rules; return the variable and the proxy.

    Loopback is never reached through a proxy. Plain http is for loopback only, so it never uses one.
    """
    parts = urlsplit(base_url)
    name = "https_proxy" if os.environ.get("https_proxy") else "HTTPS_PROXY"
    if is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc):
        return name, None
    proxy = as_secret(getproxies().get("https") or None)
    if proxy is not None and "://" not in proxy.reveal():  # "proxy:3128", as curl and the standard library take it
        proxy = Secret(f"http://{proxy.reveal()}")
    return name, proxy


def _fault_of_proxy(name: str, proxy: Secret) -> str | None:
    """Return what is wrong with a proxy's URL, or `None`. It is not raised or quoted: the URL may hold a password."""
    url = cast("object", proxy.reveal())
    if not isinstance(url, str):
        return f"{name} must be a str such as {_EXAMPLE}"
    parts = split_url(url)
    if parts is None or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return f"{name} is not a URL; it must look like {_EXAMPLE}, with special characters percent-encoded"
    if parts.scheme not in {"http", "https"} or not is_host(parts.hostname):
        return f"{name} must begin with http:// or https:// and a host, such as {_EXAMPLE}"
    if "?" in url or "#" in url or parts.path not in {"", "/"}:
        return f"{name} must have neither a path, nor a query, nor a fragment; it must look like {_EXAMPLE}"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if ":" in user or not _is_latin1(user + password):
        return f"{name} must have a user without a colon, and only characters of Latin-1 in user and password"
    return None


def _is_latin1(text: str) -> bool:
    return all(ord(character) < 256 for character in text)
