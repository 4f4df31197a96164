"""OpenTelemetry's instrumentation of aiohttp sees the client's requests, and no key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.calls import Connect
from support.keys import ACCESS_TOKEN, ACCOUNT, KEYS, leaks
from support.replies import reply
from support.servers import RawServer


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """The spans of all sessions that are made during the test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    AioHttpClientInstrumentor().instrument(tracer_provider=provider)
    yield exporter
    AioHttpClientInstrumentor().uninstrument()


@pytest.mark.parametrize(
    "keys",
    [KEYS, {"access_token": ACCESS_TOKEN}, {"access_token": lambda: ACCESS_TOKEN}],
    ids=["pair", "token", "function"],
)
async def test_each_request_is_a_span_without_a_key(
    server: RawServer, connect: Connect, spans: InMemorySpanExporter, keys: dict[str, str]
) -> None:
    """Eight requests over the client's own session, one of them a retry, are eight spans without a key."""
    server.script(reply(503))
    await connect(**{"api_key": None, "app_key": None} | keys).get_tokens(
        ACCOUNT, [f"t{number}" for number in range(7)]
    )
    finished = spans.get_finished_spans()
    assert len(finished) == len(server.requests) == 8
    assert {span.name for span in finished} == {"GET"}
    assert leaks("".join(span.to_json() for span in finished)) == []
    assert all("traceparent" in request.headers for request in server.requests)
