"""The settings: where credentials and the site come from, and everything that is refused before anything is sent."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.internals import headers_held

from dd_sa_tokens import ConfigurationError, RetryPolicy, Site
from dd_sa_tokens._credentials import Credentials, read_credentials
from dd_sa_tokens._endpoint import read_base_url
from dd_sa_tokens.config import Options

API = "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6"
APP = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"
SAT = "ddsat_7Qm2Wc9RkLx4TfYb1NsVdP_secretsecretsecret"
PAT = "ddpat_2HvKz8DnEo5XpGq3UjMaCt_secretsecretsecret"
PAIR = {"DD_API_KEY": API, "DD_APP_KEY": APP}
BOTH = {"DD-API-KEY": API, "DD-APPLICATION-KEY": APP}
BEARER = {"Authorization": f"Bearer {SAT}"}


def credentials(environ: Mapping[str, str] | None = None, **given: str | None) -> Credentials:
    return read_credentials(**({"api_key": None, "app_key": None, "access_token": None} | given), environ=environ or {})


# Credentials


@pytest.mark.parametrize(
    ("given", "environ", "headers"),
    [
        ({"api_key": API, "app_key": APP}, {}, BOTH),
        ({"access_token": SAT}, {}, BEARER),
        ({"access_token": PAT}, {}, {"Authorization": f"Bearer {PAT}"}),
        ({"app_key": SAT}, {}, {"DD-APPLICATION-KEY": SAT}),
        ({"app_key": PAT}, {}, {"DD-APPLICATION-KEY": PAT}),
        ({"api_key": API, "app_key": SAT}, {}, {"DD-API-KEY": API, "DD-APPLICATION-KEY": SAT}),
        ({}, PAIR, BOTH),
        ({}, {"DD_ACCESS_TOKEN": SAT}, BEARER),
        ({}, {"DD_APP_KEY": SAT}, {"DD-APPLICATION-KEY": SAT}),
        ({}, PAIR | {"DD_ACCESS_TOKEN": ""}, BOTH),
        ({}, {"DD_API_KEY": "", "DD_APP_KEY": "", "DD_ACCESS_TOKEN": SAT}, BEARER),
        ({}, PAIR | {"DD_ACCESS_TOKEN": SAT}, BEARER),
        ({}, {"DD_API_KEY": API, "DD_ACCESS_TOKEN": SAT}, BEARER),
        ({}, {"DD_API_KEY": "a key\n", "DD_ACCESS_TOKEN": SAT}, BEARER),
        ({}, {"DD_BEARER_TOKEN": SAT}, BEARER),
        ({}, PAIR | {"DD_BEARER_TOKEN": SAT}, BEARER),
        ({}, {"DD_ACCESS_TOKEN": SAT, "DD_BEARER_TOKEN": PAT}, BEARER),
        ({}, {"DD_ACCESS_TOKEN": "", "DD_BEARER_TOKEN": SAT}, BEARER),
    ],
)
def test_credentials_become_headers(given: dict[str, str], environ: dict[str, str], headers: dict[str, str]) -> None:
    """Either form, from the arguments or the environment, is sent in its own headers and no others.

    In the environment a token wins over the keys: a host with an agent always has an API key.
    """
    assert credentials(environ, **given).headers() == headers


@pytest.mark.parametrize(
    ("given", "environ", "headers"),
    [
        ({"access_token": SAT}, PAIR, BEARER),
        ({"api_key": API, "app_key": APP}, {"DD_ACCESS_TOKEN": SAT}, BOTH),
        ({"api_key": API, "app_key": APP}, {"DD_API_KEY": "other", "DD_APP_KEY": "other"}, BOTH),
        ({"app_key": SAT}, PAIR, {"DD-APPLICATION-KEY": SAT}),
        ({"access_token": SAT}, {"DD_API_KEY": "a key\n"}, BEARER),
    ],
)
def test_arguments_win_over_the_environment_as_a_whole(
    given: dict[str, str], environ: dict[str, str], headers: dict[str, str]
) -> None:
    """Once any credential is an argument, the environment's are neither used, mixed in nor checked."""
    assert credentials(environ, **given).headers() == headers


@pytest.mark.parametrize(
    ("given", "environ", "named"),
    [
        ({}, {}, "api_key and app_key (DD_API_KEY and DD_APP_KEY), or access_token (DD_ACCESS_TOKEN)"),
        ({"api_key": API}, {}, "app_key is missing"),
        ({"api_key": API}, {"DD_APP_KEY": APP}, "app_key is missing"),
        ({"app_key": APP}, {}, "api_key is missing"),
        ({"app_key": APP}, {"DD_API_KEY": API}, "api_key is missing"),
        ({"app_key": "xddsat_not-a-prefix"}, {}, "api_key is missing"),
        ({}, {"DD_API_KEY": API}, "DD_APP_KEY is missing"),
        ({}, {"DD_APP_KEY": APP}, "DD_API_KEY is missing"),
        ({"access_token": SAT, "api_key": API}, {}, "either access_token, or api_key with app_key"),
        ({"access_token": SAT, "app_key": APP}, {}, "either access_token, or api_key with app_key"),
        ({"access_token": SAT, "api_key": API, "app_key": APP}, {}, "either access_token, or api_key with app_key"),
    ],
)
def test_half_or_double_credentials_are_refused_by_name(
    given: dict[str, str], environ: dict[str, str], named: str
) -> None:
    """None, half or both of the two forms: the error names the arguments or variables that it is about."""
    with pytest.raises(ConfigurationError) as caught:
        credentials(environ, **given)
    assert named in str(caught.value)


BAD_KEYS = [
    f"{API}\n",
    f" {API}",
    f"{API} ",
    f"{API[:8]} {API[8:]}",
    f"{API}\r\nX-Evil: 1",
    f"{API}\t",
    f"{API}\0",
    f"{API}\x7f",
    f"{API}é",
    f"{API}\u2028",
    f"{API}\ud800",
]


@pytest.mark.parametrize("bad", BAD_KEYS)
@pytest.mark.parametrize("name", ["api_key", "app_key", "access_token"])
def test_unfit_keys_are_refused_by_name_and_not_shown(name: str, bad: str) -> None:
    """Whitespace, control and non-ASCII characters in a key would break or inject a header; the key is not quoted."""
    pair = {} if name == "access_token" else {"api_key": API, "app_key": APP}
    for arguments, environ, named in (
        (pair | {name: bad}, {}, name),
        ({}, {f"DD_{k.upper()}": v for k, v in (pair | {name: bad}).items()}, f"DD_{name.upper()}"),
    ):
        with pytest.raises(ConfigurationError, match=f"^{named} must be printable ASCII") as caught:
            credentials(environ, **arguments)
        assert API[:8] not in str(caught.value)


@pytest.mark.parametrize("bad", ["", 5, b"bytes", ["list"], True])
@pytest.mark.parametrize("name", ["api_key", "app_key", "access_token"])
def test_keys_that_are_no_text_are_refused_by_name(name: str, bad: object) -> None:
    """An empty argument is a mistake, not a wish to read the environment."""
    with pytest.raises(ConfigurationError, match=f"^{name} must be a non-empty str"):
        credentials(PAIR, **{name: bad})


def test_environment_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `environ` the process's environment counts as it is now, not as it was at import."""
    for name in ("DD_API_KEY", "DD_APP_KEY", "DD_ACCESS_TOKEN", "DD_SITE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DD_ACCESS_TOKEN", SAT)
    monkeypatch.setenv("DD_SITE", "datadoghq.eu")
    assert read_credentials(None, None, None).headers() == BEARER
    assert read_base_url(None, None) == "https://api.datadoghq.eu"


def test_credentials_do_not_show() -> None:
    """The repr names the headers, and neither copies nor vars nor pickles give the keys away."""
    held = credentials(api_key=API, app_key=APP)
    assert repr(held) == "<Credentials: DD-API-KEY, DD-APPLICATION-KEY>"
    assert API not in repr(headers_held(held))
    assert not hasattr(held, "__dict__")
    assert copy.deepcopy(held).headers() == BOTH
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(held)


@pytest.mark.parametrize(
    ("held", "text", "masked"),
    [
        ({"api_key": API, "app_key": APP}, f"bad key {API} and {APP}!", "bad key ********** and **********!"),
        ({"access_token": SAT}, f"Bearer {SAT}, {SAT}", "**********, **********"),
        ({"api_key": API, "app_key": APP}, "nothing to hide", "nothing to hide"),
        ({"api_key": "a", "app_key": "bc"}, "a short test key is no secret", "a short test key is no secret"),
        ({"api_key": "12345678", "app_key": "1234567"}, "12345678 1234567", "********** 1234567"),
    ],
)
def test_redact_masks_the_keys(held: dict[str, str], text: str, masked: str) -> None:
    """A server that echoes a key does not get it into our errors; a key too short to be one is left in peace."""
    assert credentials(**held).redact(text) == masked


# Site and base_url


@pytest.mark.parametrize(
    "site", [*Site, *map(str, Site), "ap9.datadoghq.com", "eu2.datadoghq.eu", "x.us9.ddog-gov.com"]
)
def test_sites_of_datadog_are_accepted(site: str) -> None:
    """All known sites, as enum or text, and subdomains of Datadog's own domains that are newer than this package."""
    assert read_base_url(site, None, {}) == f"https://api.{site}"


def test_known_sites_are_the_documented_ones() -> None:
    """The list in the documentation, and UK1."""
    assert set(Site) == {
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


@pytest.mark.parametrize(
    ("site", "base_url", "environ", "url"),
    [
        (None, None, {}, "https://api.datadoghq.com"),
        (None, None, {"DD_SITE": ""}, "https://api.datadoghq.com"),
        (None, None, {"DD_SITE": "us3.datadoghq.com"}, "https://api.us3.datadoghq.com"),
        (Site.EU1, None, {"DD_SITE": "us3.datadoghq.com"}, "https://api.datadoghq.eu"),
        (Site.EU1, None, {"DD_SITE": "evil.example"}, "https://api.datadoghq.eu"),
        (None, "https://proxy.example", {"DD_SITE": "us3.datadoghq.com"}, "https://proxy.example"),
        (None, "https://proxy.example", {"DD_SITE": "evil.example"}, "https://proxy.example"),
    ],
)
def test_site_precedence(site: str | None, base_url: str | None, environ: dict[str, str], url: str) -> None:
    """`base_url` or `site` win over `DD_SITE`, which wins over US1."""
    assert read_base_url(site, base_url, environ) == url


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "com",
        "example.com",
        "evil-datadoghq.com",
        "datadoghq.com.evil.example",
        "datadoghq.com:443",
        "datadoghq.com/",
        "datadoghq.com/@evil.example",
        "evil.example#.datadoghq.com",
        "evil.example/.datadoghq.com",
        "evil.example?.datadoghq.com",
        "user@us3.datadoghq.com",
        "datadoghq.com\n",
        " datadoghq.com",
        "datadoghq.com.",
        ".datadoghq.com",
        "us3..datadoghq.com",
        "-us3.datadoghq.com",
        "us3-.datadoghq.com",
        "us_3.datadoghq.com",
        f"{'a' * 64}.datadoghq.com",
        "úk1.datadoghq.com",
        "DATADOGHQ.COM",
        "api.datadoghq.com",
        "api.us3.datadoghq.com",
        "app.datadoghq.com",
        "https://datadoghq.com",
        5,
        b"datadoghq.com",
    ],
)
def test_foreign_sites_are_refused_by_name(bad: object) -> None:
    """What is not Datadog's, or no plain host name, gets no keys; the error names the argument or variable."""
    with pytest.raises(ConfigurationError, match=r"^site must be a Datadog site"):
        read_base_url(bad, None, {})
    if isinstance(bad, str) and bad:
        with pytest.raises(ConfigurationError, match=r"^DD_SITE must be a Datadog site"):
            read_base_url(None, None, {"DD_SITE": bad})


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("datadohq.com", "datadoghq.com"),
        ("datadog.eu", "datadoghq.eu"),
        ("US3.DATADOGHQ.COM", "us3.datadoghq.com"),
        ("api.datadoghq.eu", "datadoghq.eu"),
        ("app.datadoghq.com", "datadoghq.com"),
        ("https://app.datadoghq.eu/dashboard", "datadoghq.eu"),
        ("https://us5.datadoghq.com", "us5.datadoghq.com"),
        ("ap1.datadoghq.com.", "ap1.datadoghq.com"),
    ],
)
def test_nearest_site_is_suggested(typo: str, nearest: str) -> None:
    """A near miss is answered with the known site that was probably meant."""
    with pytest.raises(ConfigurationError) as caught:
        read_base_url(typo, None, {})
    assert str(caught.value).endswith(f"did you mean {nearest}?")


def test_nothing_is_suggested_for_what_resembles_no_site() -> None:
    """No site is suggested for a text that resembles none."""
    with pytest.raises(ConfigurationError) as caught:
        read_base_url("zzz", None, {})
    assert "did you mean" not in str(caught.value)


@given(st.text() | st.from_regex(r"[a-z0-9.@/#:\\-]*datadoghq\.com[a-z0-9.@/#:\\-]*"))
def test_no_text_as_a_site_sends_keys_elsewhere(site: str) -> None:
    """For any text, the host that gets the keys is Datadog's, or the text is refused."""
    try:
        url = read_base_url(site, None, {})
    except ConfigurationError:
        return
    host = url.removeprefix("https://")
    assert host.startswith("api.")
    assert host.endswith((".datadoghq.com", ".datadoghq.eu", ".ddog-gov.com"))
    assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://proxy.example", "https://proxy.example"),
        ("https://proxy.example/", "https://proxy.example"),
        ("https://proxy.example:8443/datadog/", "https://proxy.example:8443/datadog"),
        ("https://10.0.0.1", "https://10.0.0.1"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://127.8.9.10", "http://127.8.9.10"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_base_urls_are_accepted(base_url: str, url: str) -> None:
    """https to any host with a path of its own, http to loopback; without the slash at the end."""
    assert read_base_url(None, base_url, {}) == url


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "must begin with https://"),
        ("proxy.example", "must begin with https://"),
        ("//proxy.example", "must begin with https://"),
        ("ftp://proxy.example", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("https://", "must begin with https://"),
        ("https:///path", "must begin with https://"),
        ("https:proxy.example", "must begin with https://"),
        ("https://:443", "must begin with https://"),
        ("https://ho%73t", "must begin with https://"),
        ("https://a_b,c", "must begin with https://"),
        ("http://proxy.example", "must use https"),
        ("http://api.datadoghq.com", "must use https"),
        ("http://10.0.0.1", "must use https"),
        ("http://0.0.0.0", "must use https"),
        ("http://localhost.evil.example", "must use https"),
        ("http://127.0.0.1.evil.example", "must use https"),
        ("http://notlocalhost", "must use https"),
        ("https://user:hunter22@proxy.example", "must not contain credentials"),
        ("https://hunter22@proxy.example", "must not contain credentials"),
        ("https://@proxy.example", "must not contain credentials"),
        ("http://localhost@evil.example", "must not contain credentials"),
        ("https://proxy.example?", "neither a query nor a fragment"),
        ("https://proxy.example/?key=hunter22", "neither a query nor a fragment"),
        ("https://proxy.example/#", "neither a query nor a fragment"),
        ("https://proxy.example#frag", "neither a query nor a fragment"),
        ("https://proxy.example/a/../b", "plain path"),
        ("https://proxy.example/.", "plain path"),
        ("https://proxy.example/%2e%2e/b", "plain path"),
        ("https://proxy.example:port", "is not a URL"),
        ("https://proxy.example:99999", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://[::1]8443", "is not a URL"),
        ("https://proxy.example\n", "is not a URL"),
        ("https://proxy.example/a b", "is not a URL"),
        ("https://proxy.example\\@evil.example", "is not a URL"),
        ("https://pröxy.example", "is not a URL"),
        ("https://proxy.example/\x00", "is not a URL"),
        (b"https://proxy.example", "must be a str"),
        (5, "must be a str"),
    ],
)
def test_unfit_base_urls_are_refused_by_name_and_not_shown(bad: object, why: str) -> None:
    """Credentials, a query, a fragment, plain http to a stranger and what is no URL; it may hold a password."""
    with pytest.raises(ConfigurationError) as caught:
        read_base_url(None, bad, {})
    assert str(caught.value).startswith("base_url ")
    assert why in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_site_and_base_url_exclude_each_other() -> None:
    """A site and a base URL together are refused."""
    with pytest.raises(ConfigurationError, match="either site or base_url"):
        read_base_url(Site.US1, "https://proxy.example", {})


# Numbers

NAN, INF = float("nan"), float("inf")
HUGE = 10**400  # an int that no float can hold
GOOD_OPTIONS = {"concurrency": 50, "timeout": 30.0, "retry": RetryPolicy(), "rate_limit_reserve": 0.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", 1),
        ("concurrency", 10_000),
        ("timeout", 1),
        ("timeout", 0.001),
        ("rate_limit_reserve", 0),
        ("rate_limit_reserve", 0.999),
        ("retry", RetryPolicy(max_attempts=1)),
    ],
)
def test_options_in_range_are_accepted(name: str, value: object) -> None:
    """The limits of the ranges themselves are fine."""
    Options(**(GOOD_OPTIONS | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("concurrency", bad) for bad in (0, -1, 1.0, "5", None, True, NAN)],
        *[("timeout", bad) for bad in (0, -1, NAN, INF, "30", None, True, HUGE)],
        *[("rate_limit_reserve", bad) for bad in (-0.01, 1, 1.5, NAN, INF, "0", None, False, HUGE)],
        *[("retry", bad) for bad in (None, 5, {"max_attempts": 3}, RetryPolicy)],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_options_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    """Each option that cannot be right is named by the error."""
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        Options(**(GOOD_OPTIONS | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("max_attempts", bad) for bad in (0, -1, 2.0, "5", None, True)],
        *[(n, bad) for n in ("initial_backoff", "max_backoff") for bad in (-1, NAN, INF, "1", None, True, HUGE)],
        *[("max_rate_limit_wait", bad) for bad in (-1, NAN, INF, "1", True)],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_retry_policy_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    """A policy that makes no sense is refused when it is made, not when the first retry comes."""
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        RetryPolicy(**{name: value})


def test_retry_policy_is_frozen_data_with_the_documented_defaults() -> None:
    """Policies are immutable, so they can be shared and compared; zeros and no wait limit are allowed."""
    policy = RetryPolicy()
    assert attrs.astuple(policy) == (5, 0.5, 30.0, None)
    assert attrs.evolve(policy, max_attempts=2).max_attempts == 2
    assert RetryPolicy(1, 0, 0, 0) == RetryPolicy(
        max_attempts=1, initial_backoff=0, max_backoff=0, max_rate_limit_wait=0
    )
    with pytest.raises(AttributeError):
        policy.max_attempts = 9
