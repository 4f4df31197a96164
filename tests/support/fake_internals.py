"""What tests need to see of the inside of the fake server."""

from __future__ import annotations

from dd_sa_tokens.testing import FakeDatadog


def texts_of(datadog: FakeDatadog) -> str:
    """Return the reprs of a fake and of all that it holds."""
    accounts = datadog._accounts
    records = [record for account in accounts._accounts.values() for record in account.values()]
    service = datadog._service
    return f"{datadog!r} {accounts!r} {records!r} {datadog.tokens!r} {datadog.received!r} {vars(service)!r}"
