"""What decodes a token, and a page of 100. As a script, it lets pyperf time each in processes of their own:

python -m benchmarks.decoders --output decode.json
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any

import attrs

from dd_sa_tokens import _codec

from . import machine
from .answers import BODY, page, token_id
from .machine import Skipped
from .report import say

PAGE = 100
ONE = BODY.replace("<id>", token_id(0)).encode()
MANY = page(PAGE)

_MOMENT = datetime | None
_ATTRIBUTES: dict[str, Any] = {
    "name": str | None,
    "public_portion": str | None,
    "created_at": _MOMENT,
    "modified_at": _MOMENT,
    "last_used_at": _MOMENT,
    "expires_at": _MOMENT,
    "scopes": tuple[str, ...],
}


@attrs.frozen
class Decoder:
    """A way to decode.

    Attributes:
        name: As the tables have it.
        one: Decodes the answer with one token.
        many: Decodes a page.
        token: Gives the token of what `one` returns.
        id: Gives its ID.
        attributes: Gives what holds its other attributes; `None` where it makes no types.
    """

    name: str
    one: Callable[[bytes], Any]
    many: Callable[[bytes], Any]
    token: Callable[[Any], Any]
    id: Callable[[Any], str] = attrgetter("id")
    attributes: Callable[[Any], Any] | None = attrgetter("attributes")

    def check(self) -> None:
        """Make sure that it decodes what the others do, dates included."""
        token = self.token(self.one(ONE))
        assert self.id(token) == token_id(0)
        if self.attributes is not None:
            attributes = self.attributes(token)
            assert attributes.created_at == datetime(2026, 5, 28, 14, 36, 47, 296135, tzinfo=UTC)
            assert attributes.expires_at == datetime(2027, 5, 28, 14, 36, 47, tzinfo=UTC)
            assert list(attributes.scopes) == ["dashboards_read", "monitors_read"]
        self.many(MANY)


def json_alone(module: str) -> Decoder:
    """JSON to dictionaries and no further: what everybody pays at least."""
    machine.require(module)
    loads = __import__(module).loads
    return Decoder(
        f"{module} alone, no types", loads, loads, lambda found: found["data"], lambda token: token["id"], None
    )


def ours() -> Decoder:
    """The package's own, with whichever JSON it has found."""
    json = _codec._loads.__module__.partition(".")[0]
    name = "orjson" if json == "orjson" else "json"
    return Decoder(
        f"dd_sa_tokens, {name}",
        _codec.decode_token,
        _codec.decode_page,
        lambda found: found,
        attributes=lambda token: token,
    )


def ours_without_orjson() -> Decoder:
    """The package's own, as if orjson were not installed; to be made last, since it stays like that."""
    _codec._loads = _codec._loads_strictly
    return ours()


def cattrs_default() -> Decoder:
    """Nested attrs classes and the converter that cattrs makes for orjson, nothing registered."""
    machine.require("orjson")
    from cattrs.preconf.orjson import make_converter

    def record(name: str, **fields: Any) -> Any:
        return attrs.make_class(name, {key: attrs.field(type=kind) for key, kind in fields.items()}, frozen=True)

    attributes = attrs.make_class(
        "Attributes", {key: attrs.field(type=kind, default=None) for key, kind in _ATTRIBUTES.items()}, frozen=True
    )
    owner = record("Relationships", owned_by=record("Owner", data=record("Reference", id=str, type=str)))
    resource = record("Resource", id=str, type=str, attributes=attributes, relationships=owner)
    envelope, listing = record("Envelope", data=resource), record("Listing", data=list[resource])
    loads = make_converter().loads
    return Decoder(
        "cattrs by default, orjson",
        lambda body: loads(body, envelope),
        lambda body: loads(body, listing),
        attrgetter("data"),
    )


def with_msgspec() -> Decoder:
    """Nested structs of msgspec, which reads JSON straight into them."""
    machine.require("msgspec")
    import msgspec

    def record(name: str, **fields: Any) -> Any:
        return msgspec.defstruct(name, list(fields.items()), frozen=True)

    attributes = msgspec.defstruct("Attributes", [(key, kind, None) for key, kind in _ATTRIBUTES.items()], frozen=True)
    owner = record("Relationships", owned_by=record("Owner", data=record("Reference", id=str, type=str)))
    resource = record("Resource", id=str, type=str, attributes=attributes, relationships=owner)
    one = msgspec.json.Decoder(record("Envelope", data=resource)).decode
    many = msgspec.json.Decoder(record("Listing", data=list[resource])).decode
    return Decoder("msgspec", one, many, attrgetter("data"))


def official() -> Decoder:
    """The deserializer of Datadog's client."""
    machine.require("datadog_api_client")

    @cache  # imported at its first use: each of pyperf's processes comes by here, and only two of them need it
    def client() -> tuple[Any, Any, Any]:
        from datadog_api_client import ApiClient, Configuration
        from datadog_api_client.v2.model import list_service_access_tokens_response as many
        from datadog_api_client.v2.model import service_access_token_response as one

        deserialize = ApiClient(Configuration()).deserialize
        return deserialize, (one.ServiceAccessTokenResponse,), (many.ListServiceAccessTokensResponse,)

    def decode_one(body: bytes) -> Any:
        deserialize, one, _ = client()
        return deserialize(body.decode(), one, check_type=True)

    def decode_many(body: bytes) -> Any:
        deserialize, _, many = client()
        return deserialize(body.decode(), many, check_type=True)

    return Decoder("official client", decode_one, decode_many, attrgetter("data"))


DECODERS: list[Callable[[], Decoder]] = [
    lambda: json_alone("orjson"),
    lambda: json_alone("json"),
    ours,
    cattrs_default,
    with_msgspec,
    official,
    ours_without_orjson,
]


def present() -> list[Callable[[], Decoder]]:
    """Return the ways that can be tried here, each checked, and say which cannot."""
    found: list[Callable[[], Decoder]] = []
    plain = _codec._loads
    for make in DECODERS:
        try:
            make().check()
        except Skipped as reason:
            say(f"without a decoder: {reason}")
        else:
            found.append(make)
    _codec._loads = plain
    return found


def main() -> None:
    """Time all of them."""
    import pyperf

    runner = pyperf.Runner(program_args=("-m", "benchmarks.decoders"))
    for make in DECODERS:
        try:
            decoder = make()
        except Skipped:
            continue
        runner.bench_func(f"{decoder.name}/one", decoder.one, ONE)
        runner.bench_func(f"{decoder.name}/page", decoder.many, MANY)


if __name__ == "__main__":
    main()
