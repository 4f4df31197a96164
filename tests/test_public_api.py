"""The public contract: names, signatures, values and errors that users and outside code depend on."""

from __future__ import annotations

import enum
import inspect
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, get_args

import attrs
import pytest

import dd_sa_tokens
from dd_sa_tokens import (
    AccessToken,
    APIError,
    Attempt,
    BulkResult,
    ClientStats,
    CreatedToken,
    DatadogError,
    Leak,
    RateLimit,
    RetryPolicy,
    Secret,
    ServiceAccount,
    Site,
    Sort,
    Strategy,
    TokenResult,
    TokensClient,
)
from dd_sa_tokens.config import NOT_GIVEN

CONTRACT = {
    "APIError",
    "AccessToken",
    "Attempt",
    "BadRequestError",
    "BulkResult",
    "ClientClosedError",
    "ClientStats",
    "ConfigurationError",
    "ConflictError",
    "CreatedToken",
    "CredentialsError",
    "DatadogError",
    "DeadlineExceededError",
    "ForbiddenError",
    "InvalidArgumentError",
    "InvalidResponseError",
    "Leak",
    "NotFoundError",
    "RateLimit",
    "RateLimitError",
    "RateLimitStore",
    "RequestTimeoutError",
    "RetryPolicy",
    "RotationError",
    "Secret",
    "ServerError",
    "ServiceAccount",
    "Site",
    "Sort",
    "SourceError",
    "Strategy",
    "TokenResult",
    "TokensClient",
    "TransportError",
    "UnauthorizedError",
    "__version__",
    "converter",
}

ERRORS: dict[str, tuple[str, ...]] = {
    "DatadogError": ("Exception",),
    "InvalidArgumentError": ("DatadogError", "ValueError"),
    "ConfigurationError": ("InvalidArgumentError",),
    "ClientClosedError": ("DatadogError",),
    "CredentialsError": ("DatadogError",),
    "DeadlineExceededError": ("DatadogError", "TimeoutError"),
    "TransportError": ("DatadogError",),
    "RequestTimeoutError": ("TransportError", "TimeoutError"),
    "InvalidResponseError": ("DatadogError",),
    "RotationError": ("DatadogError",),
    "SourceError": ("DatadogError",),
    "APIError": ("DatadogError",),
    "BadRequestError": ("APIError",),
    "UnauthorizedError": ("APIError",),
    "ForbiddenError": ("APIError",),
    "NotFoundError": ("APIError",),
    "ConflictError": ("APIError",),
    "RateLimitError": ("APIError",),
    "ServerError": ("APIError",),
}

TOKEN = AccessToken(id="t1", name="deploy", scopes=("dashboards_read",), expires_at=datetime(2030, 1, 1, tzinfo=UTC))
VALUES: list[Any] = [
    TOKEN,
    Leak("l1", datetime(2026, 1, 1, tzinfo=UTC), "a repository"),
    ServiceAccount(id="sa"),
    CreatedToken(TOKEN, Secret("s3cret")),
    RateLimit(limit=100),
    Attempt(operation="get_token"),
    ClientStats(requests=1),
    RetryPolicy(),
    TokenResult("t1", TOKEN),
]

REQUIRED = inspect.Parameter.empty
BULK = {"strategy": "auto", "deadline": None, "include_leak": False}
OPTIONS = dict.fromkeys(("timeout", "retry", "rate_limit_reserve", "concurrency"), NOT_GIVEN)
LIST = {"filter": None, "sort": None, "leaked_only": False, "include_leak": False, "page_size": 100}
SIGNATURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what may be given by position, and by keyword only
    "get_token": ({"service_account_id": REQUIRED, "token_id": REQUIRED}, {"include_leak": False}),
    "get_tokens": ({"service_account_id": REQUIRED, "token_ids": REQUIRED}, BULK),
    "stream_tokens": ({"service_account_id": REQUIRED, "token_ids": REQUIRED}, BULK),
    "find_tokens": ({"token_ids": REQUIRED}, {"include_leak": False}),
    "list_tokens": ({"service_account_id": REQUIRED}, LIST),
    "list_organization_tokens": ({}, {"service_account_ids": ()} | LIST),
    "list_service_accounts": ({}, {"service_account_ids": (), "filter": None}),
    "get_service_account": ({"service_account_id": REQUIRED}, {}),
    "create_token": ({"service_account_id": REQUIRED}, {"name": REQUIRED, "scopes": REQUIRED, "expires_at": None}),
    "update_token": ({"service_account_id": REQUIRED, "token_id": REQUIRED}, {"name": None, "scopes": None}),
    "revoke_token": ({"service_account_id": REQUIRED, "token_id": REQUIRED}, {}),
    "rotate_token": (
        {"service_account_id": REQUIRED, "token_id": REQUIRED},
        {"store": REQUIRED, "expires_at": None},
    ),
    "with_options": ({}, OPTIONS),
    "close": ({}, {}),
}
PROPERTIES = {"closed", "rate_limit", "stats"}


def parameters(function: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a method's parameters, without self, into those by position and those by keyword only, with defaults."""
    given = [item for item in inspect.signature(function).parameters.values() if item.name != "self"]
    assert {item.kind for item in given} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    by_keyword = [item for item in given if item.kind is inspect.Parameter.KEYWORD_ONLY]
    return (
        {item.name: item.default for item in given if item not in by_keyword},
        {item.name: item.default for item in by_keyword},
    )


def test_all_is_sorted_and_complete() -> None:
    """`__all__` is sorted and holds exactly the names of the contract."""
    assert dd_sa_tokens.__all__ == sorted(dd_sa_tokens.__all__)
    assert set(dd_sa_tokens.__all__) == CONTRACT


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_every_name_can_be_imported_and_is_documented(name: str) -> None:
    """Each public name is there, and has a docstring of its own where it can have one."""
    thing = getattr(dd_sa_tokens, name)

    if inspect.isclass(thing):
        assert inspect.cleandoc(vars(thing)["__doc__"] or "")


@pytest.mark.parametrize(
    "cls", [TokensClient, AccessToken, BulkResult, TokenResult, Secret], ids=lambda cls: cls.__name__
)
def test_every_public_member_is_documented(cls: type) -> None:
    """Methods and properties that users call have docstrings."""
    members = {
        name: member
        for name, member in vars(cls).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }

    assert members
    assert [name for name, member in members.items() if not member.__doc__] == []


def test_the_clients_options() -> None:
    """The client's options are keyword-only and have the contract's defaults."""
    positional, keywords = parameters(TokensClient.__init__)

    assert positional == {}
    assert keywords == {
        "api_key": None,
        "app_key": None,
        "access_token": None,
        "site": None,
        "base_url": None,
        "session": None,
        "proxy": None,
        "ssl_context": None,
        "trust_env": False,
        "concurrency": 50,
        "timeout": 30.0,
        "retry": RetryPolicy(),
        "rate_limit_reserve": 0.0,
        "rate_limit_store": None,
        "on_attempt": None,
    }


def test_every_member_has_its_contract() -> None:
    """A new public method or property fails here until it is in `SIGNATURES` or `PROPERTIES`."""
    assert {name for name in vars(TokensClient) if not name.startswith("_")} == SIGNATURES.keys() | PROPERTIES


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_the_methods_parameters(name: str) -> None:
    """Each method takes what the contract says, in that order, with those defaults."""
    positional, keywords = parameters(getattr(TokensClient, name))

    assert list(positional.items()) == list(SIGNATURES[name][0].items())
    assert keywords == SIGNATURES[name][1]


STREAMS: dict[str, tuple[Any, ...]] = {  # with arguments
    "stream_tokens": ("account", []),
    "list_tokens": ("account",),
    "list_organization_tokens": (),
    "list_service_accounts": (),
}
AWAITED = SIGNATURES.keys() - STREAMS.keys() - {"with_options"}


@pytest.mark.parametrize("name", [*sorted(AWAITED), "__aenter__", "__aexit__"])
def test_what_is_awaited(name: str) -> None:
    """Calls that give one answer are coroutine functions."""
    assert inspect.iscoroutinefunction(getattr(TokensClient, name))


async def test_a_stream_is_an_async_generator() -> None:
    """Streams and lists are async generators, not awaited, so `aclose()` and `aclosing` work."""
    async with TokensClient(access_token="ddpat_x", base_url="http://127.0.0.1:1") as client:
        for name, arguments in STREAMS.items():
            items = getattr(client, name)(*arguments)
            assert inspect.isasyncgen(items)
            await items.aclose()


@pytest.mark.parametrize("name", sorted(PROPERTIES))
def test_what_is_looked_at(name: str) -> None:
    """The state, the rate limit and the counters are read-only properties."""
    member = getattr(TokensClient, name)

    assert isinstance(member, property)
    assert member.fset is None


def test_a_fresh_clients_properties() -> None:
    """Before any request the rate limit is unknown and all counters are zero; making a client needs no loop."""
    client = TokensClient(access_token="ddpat_x")

    assert client.rate_limit is None
    assert client.stats == ClientStats(requests=0, retries=0, rate_limited=0, rate_limit_wait_seconds=0.0)


def test_every_value_has_its_contract() -> None:
    """A new public attrs class fails here until `VALUES` has a value of it."""
    public = {getattr(dd_sa_tokens, name) for name in dd_sa_tokens.__all__}

    assert {type(value) for value in VALUES} == {cls for cls in public if inspect.isclass(cls) and attrs.has(cls)}


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen_slotted_attrs(value: Any) -> None:
    """Values are attrs classes that cannot be changed and hold nothing but their fields."""
    assert attrs.has(type(value))
    assert not hasattr(value, "__dict__")
    field = attrs.fields(type(value))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, field, getattr(value, field))
    with pytest.raises(AttributeError):
        value.something_else = 1
    assert value == attrs.evolve(value)


def test_a_bulk_result_has_no_room_for_more() -> None:
    """A bulk result, too, is slotted."""
    with pytest.raises(AttributeError):
        BulkResult().something_else = 1


def test_the_fields_of_the_values() -> None:
    """The values have the contract's fields."""
    assert {cls.__name__: [field.name for field in attrs.fields(cls)] for cls in map(type, VALUES)} == {
        "AccessToken": [
            "id",
            "name",
            "public_portion",
            "scopes",
            "created_at",
            "modified_at",
            "last_used_at",
            "expires_at",
            "service_account_id",
            "type",
            "leak",
        ],
        "Leak": ["id", "detected_at", "source"],
        "ServiceAccount": ["id", "name", "email", "handle", "disabled", "status", "created_at"],
        "CreatedToken": ["token", "key"],
        "RateLimit": ["limit", "period", "remaining", "reset", "name"],
        "Attempt": [
            "operation",
            "service_account_id",
            "token_id",
            "number",
            "status",
            "error",
            "seconds",
            "waited",
            "rate_limit",
        ],
        "ClientStats": ["requests", "retries", "rate_limited", "rate_limit_wait_seconds"],
        "RetryPolicy": ["max_attempts", "initial_backoff", "max_backoff", "max_rate_limit_wait"],
        "TokenResult": ["token_id", "token", "error"],
    }


def test_names_of_strategies_and_sorts() -> None:
    """`Strategy` and `Sort` are literal types: a program can list their names for a menu or an argument parser."""
    assert get_args(Strategy) == ("auto", "get", "list")
    names = ("name", "created_at", "expires_at", "last_used_at", "leaked")
    assert get_args(Sort) == tuple(sort for name in names for sort in (name, f"-{name}"))


def test_only_ids_are_required() -> None:
    """A leak and a service account need an ID only; the rest is `None`; dates need a time zone."""
    assert attrs.astuple(Leak("l1")) == ("l1", None, None)
    assert attrs.astuple(ServiceAccount(id="sa")) == ("sa", None, None, None, None, None, None)
    with pytest.raises(ValueError, match="detected_at must be timezone-aware"):
        Leak("l1", datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="created_at must be timezone-aware"):
        ServiceAccount(id="sa", created_at=datetime(2026, 1, 1))


def test_the_retry_policys_defaults() -> None:
    """By default a call makes five attempts, with backoffs of 0.5 to 30 s, and waits for any rate limit."""
    assert attrs.asdict(RetryPolicy()) == {
        "max_attempts": 5,
        "initial_backoff": 0.5,
        "max_backoff": 30.0,
        "max_rate_limit_wait": None,
    }


def test_the_sites() -> None:
    """`Site` has the sites of Datadog's documentation, and each is a str: its host name."""
    assert issubclass(Site, str)
    assert issubclass(Site, enum.Enum)
    assert {str(site) for site in Site} == {
        "datadoghq.com",
        "us3.datadoghq.com",
        "us5.datadoghq.com",
        "datadoghq.eu",
        "ap1.datadoghq.com",
        "ap2.datadoghq.com",
        "uk1.datadoghq.com",
        "ddog-gov.com",
        "us2.ddog-gov.com",
    }
    assert Site.US1 == "datadoghq.com"
    assert Site.EU1 == "datadoghq.eu"


def test_the_error_tree() -> None:
    """Each error has the bases that the contract draws, and no public error is missing from the tree."""
    public = {name: getattr(dd_sa_tokens, name) for name in dd_sa_tokens.__all__}
    tree = {
        name: tuple(base.__name__ for base in thing.__bases__)
        for name, thing in public.items()
        if inspect.isclass(thing) and issubclass(thing, BaseException)
    }

    assert tree == ERRORS


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_error_carries_its_context_and_pickles(name: str) -> None:
    """Each error says what it was about, in attributes and text, and comes out of a pickle as it went in."""
    cls: type[DatadogError] = getattr(dd_sa_tokens, name)
    error = cls(
        "oh no", operation="get_token", service_account_id="sa", token_id="t1", attempts=3, outcome_unknown=True
    )

    for duplicate in (error, pickle.loads(pickle.dumps(error))):
        assert type(duplicate) is cls
        assert (duplicate.operation, duplicate.service_account_id, duplicate.token_id) == ("get_token", "sa", "t1")
        assert (duplicate.attempts, duplicate.outcome_unknown) == (3, True)
        for part in ("oh no", "get_token", "sa", "t1", "3 attempts", "unknown"):
            assert part in str(duplicate)


def test_api_errors_carry_the_answer() -> None:
    """`APIError` has the answer's status, words, rate limit, delay and request ID."""
    error = APIError("no", status=418, errors=("teapot",), rate_limit=RateLimit(5), retry_after=1.5, request_id="r-1")

    assert (error.status, error.errors, error.rate_limit) == (418, ("teapot",), RateLimit(5))
    assert (error.retry_after, error.request_id) == (1.5, "r-1")


def test_importing_the_package_is_light() -> None:
    """`import dd_sa_tokens` pulls in neither the command line, nor the fake server, nor the audit."""
    code = """
import sys, dd_sa_tokens
heavy = {"typer", "rich", "jinja2", "uvloop", "aiohttp.web", "dd_sa_tokens.testing", "dd_sa_tokens.audit"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["testing", "audit"])
def test_modules_of_their_own(name: str) -> None:
    """`dd_sa_tokens.testing` and `dd_sa_tokens.audit` are imported by name, and documented."""
    module = import_module(f"dd_sa_tokens.{name}")

    assert module.__doc__
    assert module.__all__ == sorted(module.__all__)
    assert all(hasattr(module, public) for public in module.__all__)
