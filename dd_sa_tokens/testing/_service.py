"""What happens to each request: it is recorded, checked, counted, carried out and answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import attrs
from aiohttp import web

from ._answers import Answer, RefusedError, error
from ._faults import Fault, FaultQueue
from ._http_server import Pauses
from ._organization import Organization
from ._received import Entry, RequestLog
from ._responses import apply_fault, plain_headers, read_body, replace_answer, respond
from ._routes import Route, find_route
from ._setup import Keys, Settings


@attrs.frozen
class Admission:
    """What is decided about a request before it is carried out.

    Attributes:
        headers: The headers of the answer.
        refusal: The answer, if the request is not carried out.
        fault: The fault that it meets, if any.
    """

    headers: dict[str, str]
    refusal: Answer | None = None
    fault: Fault | None = None


class Service:
    """Handles requests in the server's event loop. Other threads read and change its parts, with the lock.

    Args:
        organization: What the requests are about.
        keys: The keys that are valid from the start.
        settings: The arguments of `FakeDatadog`.

    Attributes:
        requests: How many requests have been received.
        rejected: How many 429s have been sent.
        windows: The rate limits by their names.
        faults: The faults that are still pending.
        log: The requests.
        pauses: The requests that sleep.
        lock: Held around every use of these and of the organization.
    """

    def __init__(self, organization: Organization, keys: Keys, settings: Settings) -> None:
        self.requests = 0
        self.rejected = 0
        self.windows = settings.windows()
        self.faults = FaultQueue()
        self.log = RequestLog()
        self.pauses = Pauses()
        self.lock = threading.RLock()
        self._organization = organization
        self._keys = keys
        self._latency = settings.latency
        self._clock_offset = settings.clock_offset

    def begin(self) -> None:
        """Begin the first windows, which the requests of other clients count against."""
        for window in self.windows.values():
            window.advance(self._now())

    def renew_lock(self) -> None:
        """Replace the lock in a child process. The thread that may have held it is not there."""
        self.lock = threading.RLock()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer a request."""
        with self.lock:
            self.requests += 1
            entry = self.log.add(find_route(request.method, request.rel_url.raw_path))
        if self._latency:
            await self.pauses.sleep(self._latency)
        response = await self._answer(request, entry)
        if request.transport is not None and not request.transport.is_closing():
            entry.status = response.status
        return response

    def _now(self) -> float:
        return time.time() + self._clock_offset

    async def _answer(self, request: web.BaseRequest, entry: Entry) -> web.Response:
        now = self._now()
        with self.lock:
            admission = self._admit(request.headers, entry.route, now)
        headers, fault = admission.headers, admission.fault
        if fault is not None and fault.status is not None:
            return replace_answer(fault, headers)
        if admission.refusal is not None:
            return respond(admission.refusal, headers)
        answer = await self._carry_out(request, entry.route, now)
        return (
            respond(answer, headers)
            if fault is None
            else await apply_fault(fault, request, answer, headers, self.pauses.sleep)
        )

    def _admit(self, request_headers: Mapping[str, str], route: Route, now: float) -> Admission:
        headers = plain_headers(now)
        if not self._knows(request_headers, now):
            return Admission(headers, error(401))
        fault = self.faults.next(route)
        if fault is not None and fault.status is not None:
            self.rejected += fault.status == 429
            return Admission(headers, fault=self.faults.take(route))
        window = self.windows.get(route.operation.limit)
        if window is not None:
            admitted, limits = window.spend(now)
            headers |= limits
            if not admitted:
                self.rejected += 1
                return Admission(headers, error(429))
        # The fault belongs to this request now: others may come while its body is read.
        return Admission(headers, fault=self.faults.take(route))

    async def _carry_out(self, request: web.BaseRequest, route: Route, now: float) -> Answer:
        try:
            body = await read_body(request)
        except RefusedError as refused:
            return refused.answer
        with self.lock:
            return self._organization.answer(route, [*request.query.items()], body, now)

    def _knows(self, headers: Mapping[str, str], now: float) -> bool:
        bearer = headers.get("Authorization")
        if bearer is not None:
            return bearer.startswith("Bearer ") and self._admits(bearer.removeprefix("Bearer "), now)
        app_key = headers.get("DD-APPLICATION-KEY", "")
        if app_key == self._keys.app_key:
            return headers.get("DD-API-KEY") == self._keys.api_key
        # A service access token is enough by itself: the API key beside it is ignored.
        return self._admits(app_key, now)

    def _admits(self, key: str, now: float) -> bool:
        return key == self._keys.access_token or self._organization.accounts.admits(key, now)
