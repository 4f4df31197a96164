"""What it costs to turn a response body into typed tokens: one token, and a page of 100."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import partial
from operator import attrgetter, itemgetter
from types import GenericAlias
from typing import Any

import attrs

from . import internals
from .machine import installed
from .payloads import PAGE_SIZE, page_body, token_body, token_id
from .report import Column, Report, Row, Table
from .timing import Sample, Stopwatch, interleave, median

ONE = token_body(token_id(0))
PAGE = page_body(0, PAGE_SIZE)

_TEXTS = ("2026-05-28T14:36:47.296135Z", "2027-05-28T14:36:47Z")
_CREATED_AT, _EXPIRES_AT = map(datetime.fromisoformat, _TEXTS)
_ATTRIBUTES: dict[str, Any] = {
    **dict.fromkeys(("name", "public_portion"), str | None),
    **dict.fromkeys(("created_at", "modified_at", "last_used_at", "expires_at"), datetime | None),
    "scopes": tuple[str, ...],
}


@attrs.frozen
class Decoder:
    """A way to decode."""

    name: str
    one: Callable[[bytes], Any]  # decodes the response with one token
    page: Callable[[bytes], Any]
    read: Callable[[Any], Any] = attrgetter("data.id", "data.attributes.created_at", "data.attributes.expires_at")
    """Returns the ID, and the dates of creation and expiry, of what `one` returns."""
    dates: tuple[object, object] = (_CREATED_AT, _EXPIRES_AT)  # that it gives
    context: Callable[[], AbstractContextManager[None]] = nullcontext  # what must be open meanwhile

    def check(self) -> None:
        """Check that it decodes what the others do."""
        with self.context():
            self.page(PAGE)
            assert self.read(self.one(ONE)) == (token_id(0), *self.dates)


def json_only(module: str) -> Decoder:
    """JSON to dictionaries: the minimum that every client pays."""
    loads = __import__(module).loads

    def read(found: Any) -> tuple[str, ...]:
        attributes = found["data"]["attributes"]
        return found["data"]["id"], attributes["created_at"], attributes["expires_at"]

    return Decoder(f"{module} only, no types", loads, loads, read, _TEXTS)


def ours(context: Callable[[], AbstractContextManager[None]] = nullcontext) -> Decoder:
    """The package's own decoder."""
    with context():
        name = f"dd_sa_tokens, {internals.json_module()}"
    read = attrgetter("id", "created_at", "expires_at")
    return Decoder(name, internals.decode_token, internals.decode_page, read, context=context)


def _nested(make: Callable[..., Any]) -> Any:
    """Return the classes of a response with one token and of a page; `make` takes a name, fields, and `optional`."""
    owner = make("Owner", {"data": make("Reference", {"id": str, "type": str})})
    relationships = make("Relationships", {"owned_by": owner})
    attributes = make("Attributes", _ATTRIBUTES, optional=True)
    resource = make("Resource", {"id": str, "type": str, "attributes": attributes, "relationships": relationships})
    return make("Envelope", {"data": resource}), make("Listing", {"data": GenericAlias(list, resource)})


def cattrs_default() -> Decoder:
    """Nested attrs classes and the converter that cattrs makes for orjson, with nothing registered."""
    from cattrs.preconf.orjson import make_converter

    def record(name: str, fields: dict[str, Any], *, optional: bool = False) -> Any:
        default = None if optional else attrs.NOTHING
        members = {key: attrs.field(type=kind, default=default) for key, kind in fields.items()}
        return attrs.make_class(name, members, frozen=True)

    one, page = _nested(record)
    loads = make_converter().loads
    return Decoder("cattrs default, orjson", lambda body: loads(body, one), lambda body: loads(body, page))


def with_msgspec() -> Decoder:
    """Nested structs of msgspec, which reads JSON straight into them."""
    import msgspec

    def record(name: str, fields: dict[str, Any], *, optional: bool = False) -> Any:
        default = None if optional else msgspec.NODEFAULT
        return msgspec.defstruct(name, [(key, kind, default) for key, kind in fields.items()], frozen=True)

    one, page = _nested(record)
    return Decoder("msgspec", msgspec.json.Decoder(one).decode, msgspec.json.Decoder(page).decode)


def official() -> Decoder:
    """The deserializer of Datadog's client."""
    from datadog_api_client import ApiClient, Configuration
    from datadog_api_client.v2.model.list_service_access_tokens_response import ListServiceAccessTokensResponse
    from datadog_api_client.v2.model.service_access_token_response import ServiceAccessTokenResponse

    deserialize = ApiClient(Configuration()).deserialize

    def decoder(response_type: Any) -> Callable[[bytes], Any]:
        return lambda body: deserialize(body.decode(), (response_type,), check_type=True)

    return Decoder("official client", decoder(ServiceAccessTokenResponse), decoder(ListServiceAccessTokensResponse))


DECODERS: dict[str, tuple[Callable[[], Decoder], tuple[str, ...]]] = {
    "orjson": (partial(json_only, "orjson"), ("orjson",)),
    "json": (partial(json_only, "json"), ()),
    "dd_sa_tokens": (ours, ()),
    # Without orjson this would be the same as the one before.
    "dd_sa_tokens without orjson": (partial(ours, internals.without_orjson), ("orjson",)),
    "cattrs": (cattrs_default, ("orjson",)),
    "msgspec": (with_msgspec, ("msgspec",)),
    "official client": (official, ("datadog_api_client",)),
}
"""What makes each decoder, and the modules that it needs."""


def _sample(decode: Callable[[bytes], Any], body: bytes, context: Any, seconds: float) -> Sample:
    """Decode a body for about so long."""
    with context():
        with Stopwatch() as watch:
            decode(body)
        repeats = max(int(seconds / watch.sample(1).wall), 1)
        with Stopwatch() as watch:
            for _ in range(repeats):
                decode(body)
    return watch.sample(repeats)


def run(*, quick: bool) -> Report:
    """Check and time all decoders."""
    rounds, seconds = (1, 0.001) if quick else (25, 0.02)
    decoders = [make() for name, (make, needs) in DECODERS.items() if installed(name, needs)]
    for one in decoders:
        one.check()
    cases = {
        (one.name, kind): partial(_sample, decode, body, one.context, seconds)
        for one in decoders
        for kind, decode, body in (("one", one.one, ONE), ("page", one.page, PAGE))
    }
    micros = {case: median(samples, "wall") * 1e6 for case, samples in interleave(cases, rounds).items()}
    rows: list[Row] = [
        {"decoder": one.name, "one_us": micros[one.name, "one"], "page_us": micros[one.name, "page"] / PAGE_SIZE}
        for one in decoders
    ]
    columns = [
        Column("decoder", "decoder"),
        Column("one_us", "one token", ",.1f", " µs"),
        Column("page_us", f"a token of a page of {PAGE_SIZE}", ",.1f", " µs"),
    ]
    conditions = [f"Medians of {rounds} rounds of {seconds * 1e3:g} ms each. A body of {len(ONE)} bytes."]
    return Report("decode", conditions, [Table(columns, sorted(rows, key=itemgetter("one_us")))])
