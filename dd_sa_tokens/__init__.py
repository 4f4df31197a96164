"""Async SDK for Datadog service access tokens.

async with TokensClient() as client:
    token = await client.get_token(service_account_id, token_id)
    result = await client.get_tokens(service_account_id, token_ids)
"""

from __future__ import annotations

import logging

from ._protocol.codec import converter
from ._ratelimit import RateLimitStore
from ._validation import Sort, Strategy
from ._version import __version__
from .client import TokensClient
from .config import RetryPolicy, Site
from .errors import (
    APIError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    CredentialsError,
    DatadogError,
    DeadlineExceededError,
    ForbiddenError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    RotationError,
    ServerError,
    TransportError,
    UnauthorizedError,
)
from .models import AccessToken, Attempt, ClientStats, CreatedToken, Leak, RateLimit, Secret, ServiceAccount
from .results import BulkResult, SourceError, TokenResult

__all__ = [
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
]

# A program that has not set up logging is quiet: without a handler, Python prints warnings to standard error.
logging.getLogger(__name__).addHandler(logging.NullHandler())
