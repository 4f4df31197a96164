"""Keys: where they come from, what is refused of them, and how they are masked in texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import cast, final

from .errors import ConfigurationError
from .models import Secret

_OWN_TOKEN_PREFIXES = ("ddsat_", "ddpat_")
_SHORTEST_KEY = 8  # a shorter "key" is a test's, and masking it would garble every text
_SHORTEST_OTHER = 4  # a proxy's password may be short


@final
class Credentials:
    """The headers that authenticate a request, held so that no repr shows them."""

    __slots__ = ("_headers", "_masked")

    def __init__(self, headers: Mapping[str, Secret]) -> None:
        self._headers = dict(headers)
        self._masked: tuple[Secret, ...] = ()
        parts = {part for value in self.headers().values() for part in (value, value.removeprefix("Bearer "))}
        self._mask(part for part in parts if len(part) >= _SHORTEST_KEY)

    def mask_also(self, secrets: Iterable[str]) -> None:
        """Mask further secrets in texts from outside: the user and the password of a proxy."""
        self._mask(secret for secret in secrets if len(secret) >= _SHORTEST_OTHER)

    def _mask(self, secrets: Iterable[str]) -> None:
        # The longest first: a Bearer header is masked whole, its token where that stands alone.
        masked = {secret.reveal() for secret in self._masked} | set(secrets)
        self._masked = tuple(Secret(secret) for secret in sorted(masked, key=len, reverse=True))

    @property
    def kind(self) -> str:
        """What they are, without a key."""
        if "Authorization" in self._headers:
            return "access token"
        return "API and application key" if "DD-API-KEY" in self._headers else "application key"

    def headers(self) -> dict[str, str]:
        """Return the headers in clear text, to be put on a request and nowhere else."""
        return {name: value.reveal() for name, value in self._headers.items()}

    def redact(self, text: str) -> str:
        """Mask the keys in a text from outside: a server may echo what it was sent."""
        for secret in self._masked:
            text = text.replace(secret.reveal(), "**********")
        return text

    def __repr__(self) -> str:
        return f"<Credentials: {', '.join(self._headers)}>"


def as_secret(key: str | Secret | None) -> Secret | None:
    """Hide a key from tracebacks that show local variables; a value of any type is taken."""
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
        access_token: `DD_ACCESS_TOKEN`, or `DD_BEARER_TOKEN`; sent as a Bearer token.
        environ: Read only where no argument is given; empty variables count as not set.

    Raises:
        ConfigurationError: None, half or both of the two forms are given, or a key is invalid.
    """
    api_key, app_key, access_token = as_secret(api_key), as_secret(app_key), as_secret(access_token)
    names = ("api_key", "app_key", "access_token")
    keys = (api_key, app_key, access_token)
    if keys == (None, None, None):
        names, keys = _from_environment(environ)
    del environ  # it is full of keys, and what is raised below must not show them
    faults = [fault for fault in map(_fault_of_key, names, keys) if fault is not None]
    if faults:
        raise ConfigurationError(faults[0])
    return _choose(names, keys)


def _from_environment(environ: Mapping[str, str]) -> tuple[_Names, _Keys]:
    """Read the variables. A token wins over the key pair, as in Datadog's own tools: an agent's host has an API key."""
    for name in ("DD_ACCESS_TOKEN", "DD_BEARER_TOKEN"):
        token = as_secret(environ.get(name) or None)
        if token is not None:
            return ("DD_API_KEY", "DD_APP_KEY", name), (None, None, token)
    api, app = as_secret(environ.get("DD_API_KEY") or None), as_secret(environ.get("DD_APP_KEY") or None)
    return ("DD_API_KEY", "DD_APP_KEY", "DD_ACCESS_TOKEN"), (api, app, None)


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
