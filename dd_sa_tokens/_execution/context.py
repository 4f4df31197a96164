"""What an error says of its call: what it was about, and how to find out whether it was carried out. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dd_sa_tokens._protocol.operations import Request
from dd_sa_tokens.errors import DatadogError

from .retry import CallState


def in_context(error: DatadogError, request: Request[Any], call: CallState) -> DatadogError:
    """Return the error with what its call was about and, if its outcome is unknown, how to verify that."""
    message, unknown = error.message, call.maybe_applied and not request.operation.safe
    if call.over_budget:
        message += "; not repeated: too many requests fail, and the client's retry budget is spent"
    if unknown:
        message += f"; {how_to_verify(request, call)}"
    return error.with_context(
        message=message,
        operation=request.operation.name,
        service_account_id=request.service_account_id,
        token_id=request.token_id or error.token_id,
        attempts=call.attempts,
        outcome_unknown=unknown,
    )


def how_to_verify(request: Request[Any], call: CallState) -> str:
    """Return how to find out whether a call was carried out."""
    since = datetime.fromtimestamp(call.begun, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return request.how_to_verify.replace("{since}", since, 1)
