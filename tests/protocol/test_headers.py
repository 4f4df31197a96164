"""Rate-limit headers and Retry-After, read with care."""

from __future__ import annotations

import math
import time
from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.requests import (
    NOW,
    REQUEST,
    plain,
    rate_limit_of,
    reply,
    retry_after_of,
)

from dd_sa_tokens import (
    RateLimit,
    RateLimitError,
)
from dd_sa_tokens._protocol.interpret import interpret
from dd_sa_tokens._protocol.responses import Failure

DAY = 86_400


# Rate-limit headers


@pytest.mark.parametrize(
    ("raw", "reset"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("007", 7.0),
        ("7.25", 7.25),
        ("7.", 7.0),
        ("7, 7", 7.0),
        ("7,7", 7.0),
        ("3, 7", 7.0),
        ("86400", 86_400.0),
        ("", None),
        ("-1", None),
        ("+7", None),
        ("1e3", None),
        ("0x10", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("7 s", None),
        ("7, soon", None),
        ("7,", None),
        (".5", None),
        ("\u0667", None),
        ("7\n7", None),
        ("86401", None),
        ("9" * 30, None),
        ("7" + " " * 500, None),
    ],
)
def test_reset_is_read_with_care(raw: str, reset: float | None) -> None:
    """Zero, fractions and a header sent twice are values; junk, negatives and delays over a day are no header."""
    rate = rate_limit_of(reply(X_RateLimit_Limit="5", X_RateLimit_Reset=raw))
    assert rate == RateLimit(limit=5, reset=reset)


@pytest.mark.parametrize(
    ("seconds", "date", "reset"),
    [
        (1_790_000_010, None, 6.75),
        (1_790_000_010, 1_790_000_000, 10.0),
        (1_790_000_010, 1_790_000_009, 1.0),
        (1_790_000_010, 1_790_000_010, 0.0),
        (1_790_000_010, 1_790_000_011, None),
        (1_790_000_010, 1_790_000_010 - DAY, float(DAY)),
        (1_790_000_010, 1_790_000_009 - DAY, None),
    ],
)
def test_a_unix_time_is_read_against_the_answer_s_date(seconds: int, date: int | None, reset: float | None) -> None:
    """A reset too large to be a delay is a time on the server's clock; the local one counts only without `Date`."""
    headers = {"X-RateLimit-Limit": "5", "X-RateLimit-Reset": str(seconds)}
    if date is not None:
        headers["Date"] = formatdate(date, usegmt=True)
    assert rate_limit_of(reply(headers=headers)) == RateLimit(limit=5, reset=reset)


@pytest.mark.parametrize(
    ("name", "raw", "rate"),
    [
        ("Limit", "100", RateLimit(limit=100)),
        ("Limit", "100, 60", RateLimit(limit=60)),
        ("Remaining", "42", RateLimit(remaining=42)),
        ("Remaining", "0", RateLimit(remaining=0)),
        ("Remaining", "9, 3", RateLimit(remaining=3)),
        ("Remaining", "4.9", RateLimit(remaining=4)),
        ("Period", "3600", RateLimit(period=3600.0)),
        ("Period", "10, 60", RateLimit(period=60.0)),
        ("Period", "0.5", RateLimit(period=0.5)),
        ("Period", "86400", RateLimit(period=86_400.0)),
        ("Name", "tokens_v2", RateLimit(name="tokens_v2")),
        ("Limit", "many", None),
        ("Limit", "-1", None),
        ("Limit", "0", None),
        ("Remaining", "-1", None),
        ("Period", "0", None),
        ("Period", "86401", None),
        ("Period", "-10", None),
        ("Name", "", None),
        ("Reset", "never", None),
        ("Reset", "99999999999", None),
    ],
)
def test_each_header_alone(name: str, raw: str, rate: RateLimit | None) -> None:
    """Each header counts by itself; the careful one of two; and where nothing usable was said, there is no limit."""
    assert rate_limit_of(reply(headers={f"x-ratelimit-{name.lower()}": raw})) == rate


def test_no_headers_are_no_rate_limit() -> None:
    """An answer without rate-limit headers gives no rate limit."""
    assert rate_limit_of(reply(Date="Mon, 01 Jun 2026 00:00:00 GMT", Retry_After="5")) is None


# Retry-After

SENT = 1_790_000_000


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("120", 120.0),
        ("0.5", 0.5),
        ("5, 5", 5.0),
        ("0", None),
        ("-5", None),
        ("", None),
        ("soon", None),
        ("1e3", None),
        (formatdate(SENT + 30, usegmt=True), 30.0),
        (formatdate(SENT, usegmt=True), None),
        (formatdate(SENT - 30, usegmt=True), None),
        ("Mon, 21 Sep 2026 16:13:50 +0200", 30.0),
        ("Fri, 99 Zzz 2026 00:00:00 GMT", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(raw: str, seconds: float | None) -> None:
    """A number or an HTTP date read against the answer's own; what is over or junk is no header."""
    answer = reply(503, Date=formatdate(SENT, usegmt=True), Retry_After=raw)
    assert retry_after_of(answer) == seconds


def test_retry_after_date_counts_from_the_local_clock_without_a_date() -> None:
    """Without `Date` the time of arrival stands in."""
    assert retry_after_of(reply(503, Retry_After=formatdate(SENT + 30, usegmt=True))) == SENT + 30 - NOW


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "XXX-05:30"])
def test_http_dates_are_utc_in_any_local_timezone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The obsolete asctime form, which names no zone, is UTC by RFC 9110, and so is the usual one."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        moment = time.gmtime(SENT + 30)
        for raw in (time.asctime(moment), formatdate(SENT + 30, usegmt=True)):
            assert retry_after_of(reply(503, Date=formatdate(SENT, usegmt=True), Retry_After=raw)) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


# Random headers

numberish = st.text(alphabet="0123456789.,-+ eE", max_size=12)
dateish = st.from_regex(
    r"([A-Z][a-z]{2}, )?[0-9]{1,2} (Jan|Jun|Dec|Zzz) [0-9]{1,5} "
    r"[0-9]{1,2}[:.][0-9]{1,2}([:.][0-9]{1,2}){0,2}( (GMT|EST|Z|[+-][0-9]{1,9}))?",
    fullmatch=True,
)
anything = st.text() | numberish | dateish | st.integers().map(str) | st.floats().map(str)
NAMES = [
    *(f"X-RateLimit-{part}" for part in ("Limit", "Period", "Remaining", "Reset", "Name")),
    "Retry-After",
    "Date",
    "X-Request-Id",
]


@given(st.dictionaries(st.sampled_from(NAMES), anything), st.sampled_from([200, 403, 429, 503]))
@example({"Retry-After": "1 Jan 0001 00:00:00", "Date": "1 Jan 9999 00:00:00 -2300"}, 503)
@example({"Retry-After": "Wed, 3 Apr 2002 12.34.56.78+0800", "Date": "17 June , 2022"}, 503)
@example({"Date": "1 Jan 2020 00:00:00 +99999999999999999999", "X-RateLimit-Reset": "99999999999999999999"}, 429)
def test_any_headers_give_values_in_range(headers: dict[str, str], status: int) -> None:
    """No text in any header raises, and what is read is finite, not negative, and no longer than a day."""
    answer = reply(status, headers=headers)
    rate = rate_limit_of(answer)
    assert rate != RateLimit()
    if rate is not None:
        assert rate.limit is None or rate.limit >= 1
        assert rate.remaining is None or rate.remaining >= 0
        assert rate.period is None or 0 < rate.period <= DAY
        assert rate.reset is None or 0 <= rate.reset <= DAY
        assert rate.name is None or 0 < len(rate.name) <= 100
    wait = retry_after_of(answer)
    assert wait is None or (wait > 0 and math.isfinite(wait))
    outcome = interpret(REQUEST, answer, plain)
    assert isinstance(outcome, Failure)
    if status == 429:
        assert isinstance(outcome.error, RateLimitError)
        assert outcome.error.retry_after is None or 0 <= outcome.error.retry_after <= DAY
