"""Keys: where they come from, what is refused of them, and how they are masked in texts."""

from __future__ import annotations

import inspect
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast, final

from .errors import ConfigurationError
from .models import Secret

Key = str | Callable[[], str | Secret | Awaitable[str | Secret]]
"""A key, or a function, sync or async, that gives it."""

_OWN_TOKEN_PREFIXES = ("ddsat_", "ddpat_")
_SHORTEST_KEY = 8  # a shorter "key" is a test's, and masking it would garble every text
_SHORTEST_OTHER = 4  # a proxy's password may be short
_KEYS_MASKED = 8  # the last ones: an answer that is late may quote an older key
_NAMES = ("api_key", "app_key", "access_token")

_Names = tuple[str, str, str]
_Keys = tuple[Secret | None, Secret | None, Secret | None]  # a function is held in a `Secret`, too: its repr may show


@final
class Credentials:
    """The headers that authenticate a request, held so that no repr shows them.

    Args:
        keys: `api_key`, `app_key` and `access_token`. While one of them is a function, there are no headers until
            `update` gets what the functions gave.

    Attributes:
        functions: The functions among the keys, by the names of the arguments.
        version: How often the headers changed; 0 while there are none.
    """

    __slots__ = ("_headers", "_keys", "_masked", "_on_change", "_others", "_recent", "functions", "version")

    def __init__(self, keys: _Keys) -> None:
        self._keys = dict(zip(_NAMES, keys, strict=True))
        self._headers: dict[str, Secret] = {}
        self._recent: deque[frozenset[Secret]] = deque(maxlen=_KEYS_MASKED)
        self._others: frozenset[Secret] = frozenset()
        self._masked: tuple[Secret, ...] = ()
        self._on_change: list[Callable[[], object]] = []
        self.version = 0
        self.functions = {name: key for name, key in self._keys.items() if key is not None and _is_function(key)}
        if not self.functions:
            self._replace(_headers_of(keys))

    def update(self, given: Mapping[str, Secret]) -> tuple[str, str] | None:
        """Take the keys that the functions gave, by the names of the arguments.

        Returns:
            The argument whose key is invalid, and what is wrong with it, without quoting it; then the headers stay.
            `None` if they are keys.
        """
        for name, key in given.items():
            if (fault := _fault_of_text(name, key)) is not None:
                return name, fault
        keys = cast("_Keys", tuple((self._keys | dict(given)).values()))
        if (fault := _fault_of_form(_NAMES, keys)) is not None:
            return "app_key", fault  # all else about the form was checked when the arguments were read
        if (headers := _headers_of(keys)) != self._headers:
            self._replace(headers)
        return None

    def _replace(self, headers: dict[str, Secret]) -> None:
        self._headers = headers
        self.version += 1
        parts = {part for value in self.headers().values() for part in (value, value.removeprefix("Bearer "))}
        self._recent.append(frozenset(Secret(part) for part in parts if len(part) >= _SHORTEST_KEY))
        self._collect_masked()
        for notify in self._on_change:
            notify()

    def follow(self, on_change: Callable[[], object]) -> None:
        """Call a function now, and each time the headers have changed."""
        self._on_change.append(on_change)
        on_change()

    def mask_also(self, secrets: Iterable[str]) -> None:
        """Mask further secrets in texts from outside: the user and the password of a proxy."""
        self._others |= {Secret(secret) for secret in secrets if len(secret) >= _SHORTEST_OTHER}
        self._collect_masked()

    def _collect_masked(self) -> None:
        # The longest first: a Bearer header is masked whole, its token where that stands alone.
        masked = self._others.union(*self._recent)
        self._masked = tuple(sorted(masked, key=lambda secret: len(secret.reveal()), reverse=True))

    @property
    def kind(self) -> str:
        """What they are, without a key."""
        pair = "API and application key" if self._keys["api_key"] is not None else "application key"
        kind = pair if self._keys["access_token"] is None else "access token"
        return f"{kind} from a function" if self.functions else kind

    def headers(self) -> dict[str, str]:
        """Return the headers in clear text, to be put on a request and nowhere else."""
        return {name: value.reveal() for name, value in self._headers.items()}

    def redact(self, text: str) -> str:
        """Mask the keys in a text from outside: a server may echo what it was sent."""
        for secret in self._masked:
            text = text.replace(secret.reveal(), "**********")
        return text

    def __repr__(self) -> str:
        return f"<Credentials: {', '.join(self._headers or self.functions)}>"


def as_secret(key: object) -> Secret | None:
    """Hide a key, or a function that gives one, from tracebacks that show local variables; any type is taken."""
    return key if key is None or isinstance(key, Secret) else Secret(cast("str", key))


def read_credentials(
    api_key: Key | Secret | None,
    app_key: Key | Secret | None,
    access_token: Key | Secret | None,
    environ: Mapping[str, str] = os.environ,
) -> Credentials:
    """Choose the credentials: the arguments if any is given, else the environment.

    Args:
        api_key: `DD_API_KEY`, or a function that gives the key.
        app_key: `DD_APP_KEY`; a `ddsat_` or `ddpat_` token here needs no API key.
        access_token: `DD_ACCESS_TOKEN`, or `DD_BEARER_TOKEN`; sent as a Bearer token.
        environ: Read only where no argument is given; empty variables count as not set.

    Raises:
        ConfigurationError: None, half or both of the two forms are given, or a key is invalid.
    """
    keys: _Keys = (as_secret(api_key), as_secret(app_key), as_secret(access_token))
    del api_key, app_key, access_token  # what is raised below must not show them
    names: _Names = ("api_key", "app_key", "access_token")
    if keys == (None, None, None):
        names, keys = _from_environment(environ)
    del environ  # it is full of keys, too
    faults = [fault for fault in map(_fault_of_key, names, keys) if fault is not None]
    fault = faults[0] if faults else _fault_of_form(names, keys)
    if fault is not None:
        raise ConfigurationError(fault)
    return Credentials(keys)


def _from_environment(environ: Mapping[str, str]) -> tuple[_Names, _Keys]:
    """Read the variables. A token wins over the key pair, as in Datadog's own tools: an agent's host has an API key."""
    for name in ("DD_ACCESS_TOKEN", "DD_BEARER_TOKEN"):
        token = as_secret(environ.get(name) or None)
        if token is not None:
            return ("DD_API_KEY", "DD_APP_KEY", name), (None, None, token)
    api, app = as_secret(environ.get("DD_API_KEY") or None), as_secret(environ.get("DD_APP_KEY") or None)
    return ("DD_API_KEY", "DD_APP_KEY", "DD_ACCESS_TOKEN"), (api, app, None)


def _fault_of_form(names: _Names, keys: _Keys) -> str | None:
    """Return what is wrong with valid keys together, or `None`, without raising.

    A key function is checked only after it has returned a key.
    """
    (api_name, app_name, token_name), (api, app, token) = names, keys
    if token is not None:
        if api is not None or app is not None:
            return f"give either {token_name}, or {api_name} with {app_name}, not both forms"
        return None
    if app is None:
        missing = f"{app_name} is missing" if api is not None else "no credentials"
        return (
            f"{missing}: give api_key and app_key (DD_API_KEY and DD_APP_KEY), or access_token (DD_ACCESS_TOKEN). "
            "Keys are made in Datadog under Organization Settings"
        )
    if api is None and not _is_function(app) and not app.reveal().startswith(_OWN_TOKEN_PREFIXES):
        return f"{api_name} is missing: {app_name} stands alone only where it is a ddsat_ or ddpat_ token"
    return None


def _headers_of(keys: _Keys) -> dict[str, Secret]:
    """Return the headers for keys that are valid together."""
    api, app, token = keys
    if token is not None:
        return {"Authorization": Secret(f"Bearer {token.reveal()}")}
    pair = {"DD-API-KEY": api, "DD-APPLICATION-KEY": app}
    return {name: key for name, key in pair.items() if key is not None}


def _is_function(key: Secret) -> bool:
    return callable(key.reveal())


def _fault_of_key(name: str, key: Secret | None) -> str | None:
    """Return what is wrong with a key that was given, or `None`, without raising: the frames here hold it."""
    if key is None:
        return None
    if _is_function(key):
        return None if _takes_nothing(key) else f"the function given as {name} must take no arguments"
    return _fault_of_text(name, key)


def _fault_of_text(name: str, key: Secret) -> str | None:
    value = cast("object", key.reveal())
    if not isinstance(value, str) or not value:
        return f"{name} must be a non-empty str, or a function that gives one"
    if not value.isascii() or not value.isprintable() or " " in value:
        return (
            f"{name} must be printable ASCII without whitespace; "
            "a newline at the end of a key that was read from a file is the usual cause"
        )
    return None


def _takes_nothing(function: Secret) -> bool:
    try:
        inspect.signature(cast("Callable[..., Any]", function.reveal())).bind()
    except TypeError:
        return False
    except ValueError:  # a function in C that does not say what it takes
        return True
    return True
