"""The whole life of tokens as a state machine: all operations in any order, with faults and cancellations anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import attrs
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.cancelling import cancelled_at, check_nothing_left
from support.scripted import ScriptedDatadog

from dd_sa_tokens import (
    AccessToken,
    CreatedToken,
    DatadogError,
    NotFoundError,
    RetryPolicy,
    RotationError,
    TokensClient,
)

QUICK = RetryPolicy(max_attempts=2, initial_backoff=0.001, max_backoff=0.001)
FAULTS: list[dict[str, Any]] = [
    {},
    {"drop": True},
    {"truncate": True},
    {"status": 503},
    {"status": 403},
    {"status": 429, "headers": {"Retry-After": "0.002"}},
]


@attrs.frozen
class Trouble:
    """What a call meets: faults for its first requests, and where it is cancelled."""

    faults: list[dict[str, Any]]
    cancelled_at: tuple[int, ...]


TROUBLE = st.builds(
    Trouble,
    st.lists(st.sampled_from([{}, {}, *FAULTS]), max_size=5),
    st.just(()) | st.tuples(st.integers(1, 12)) | st.tuples(st.integers(1, 12), st.integers(1, 15)),
)
WHICH = st.integers(0, 20)


class VaultError(Exception):
    """The secret could not be stored."""


class Lifecycle(RuleBasedStateMachine):
    """Calls a client, and compares the server with what the client said.

    Attributes:
        live: What the server should hold, by ID, in the order in which it was made.
        gone: The IDs of tokens that were revoked.
        kept: The IDs of the tokens whose secret was handed on. Those from the start count.
        names: How many names were given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.datadog = ScriptedDatadog(tokens=4)
        self.live = {token.id: token for token in self.datadog.tokens}
        self.gone = ["00000000-0000-4000-8000-000000000000"]
        self.kept = set(self.live)
        self.names = 0
        self.runner.run(self.datadog.__aenter__())
        keys = {"api_key": self.datadog.api_key, "app_key": self.datadog.app_key}
        self.client = TokensClient(base_url=self.datadog.url, retry=QUICK, **keys)
        self.account = self.datadog.service_account_id

    def teardown(self) -> None:
        self.runner.run(self.client.close())
        self.runner.run(self.datadog.__aexit__())
        self.runner.close()

    def call(self, coroutine: Coroutine[Any, Any, Any], trouble: Trouble) -> tuple[Any, BaseException | None]:
        """Make a call in trouble; return its value and its error. Without trouble, an error has to be a 404."""

        async def run() -> tuple[Any, BaseException | None]:
            for fault in trouble.faults:
                self.datadog.fail_next(**(fault or {"stall": 0.0}))
            ending = await cancelled_at(coroutine, *trouble.cancelled_at)
            self.datadog.calm_down()
            check_nothing_left(self.client)
            return ending.value, ending.error

        value, error = self.runner.run(run())
        assert isinstance(error, DatadogError | asyncio.CancelledError | None)
        if not any(trouble.faults) and not trouble.cancelled_at:
            assert isinstance(error, NotFoundError | RotationError | None)
        return value, error

    def which(self, number: int) -> str:
        """Choose a token: most often one that lives."""
        token_ids = [*self.live, *self.gone[-2:]]
        return token_ids[number % len(token_ids)]

    def new_name(self) -> str:
        self.names += 1
        return f"name {self.names}"

    def held(self) -> dict[str, AccessToken]:
        """Return what the server holds."""
        return {token.id: token for token in self.datadog.tokens}

    def made(self) -> list[str]:
        """Return the IDs of what the server has made since the last call."""
        return [token_id for token_id in self.held() if token_id not in self.live]

    def catch_up(self) -> None:
        """Take over what the server holds, once it is clear that it may."""
        held = self.held()
        self.gone += [token_id for token_id in self.live if token_id not in held]
        self.live = held

    @rule(trouble=TROUBLE)
    def create(self, trouble: Trouble) -> None:
        """A create that returned has made one token, one that raised none; only where it says so that is not known."""
        name = self.new_name()
        value, error = self.call(self.client.create_token(self.account, name=name, scopes=["a", "b"]), trouble)
        made = self.made()
        assert len(made) <= 1
        assert all(self.held()[token_id].name == name for token_id in made)
        if error is None:
            assert made == [value.token.id]
            assert self.datadog.keys[value.token.id] == value.key.reveal()
            assert self.datadog.works(value.token.id)
            self.kept.add(value.token.id)
        elif isinstance(error, DatadogError):
            assert error.outcome_unknown or not made
            assert not error.outcome_unknown or f"or later and named {name!r}" in str(error)
        self.catch_up()

    @rule(which=WHICH, trouble=TROUBLE)
    def get(self, which: int, trouble: Trouble) -> None:
        """A get gives the token as it is, and a 404 only for what is gone."""
        token_id = self.which(which)
        value, error = self.call(self.client.get_token(self.account, token_id), trouble)
        assert error is not None or value == self.live[token_id]
        assert not isinstance(error, NotFoundError) or token_id not in self.live

    @rule(trouble=TROUBLE)
    def list(self, trouble: Trouble) -> None:
        """A list gives all tokens as they are."""

        async def listed() -> Any:
            return [token async for token in self.client.list_tokens(self.account)]

        value, error = self.call(listed(), trouble)
        assert error is not None or value == [*self.live.values()]

    @rule(which=WHICH, rename=st.booleans(), trouble=TROUBLE)
    def update(self, which: int, rename: bool, trouble: Trouble) -> None:
        """An update that returned holds; one that raised has changed nothing, unless it says that this is not known."""
        token_id = self.which(which)
        wanted: dict[str, Any] = {"name": self.new_name()} if rename else {"scopes": (self.new_name(),)}
        value, error = self.call(self.client.update_token(self.account, token_id, **wanted), trouble)
        before, now = self.live.get(token_id), self.held().get(token_id)
        if error is None:
            assert value == now
        elif isinstance(error, NotFoundError):
            assert before is None
        elif isinstance(error, DatadogError) and not error.outcome_unknown:
            assert now == before
        if now is not None and now != before:
            assert before is not None
            assert now == attrs.evolve(before, modified_at=now.modified_at, **wanted)
            self.live[token_id] = now
        assert error is not None or value.modified_at is not None

    @rule(which=WHICH, trouble=TROUBLE)
    def revoke(self, which: int, trouble: Trouble) -> None:
        """A revoke that returned holds; one that raised has not, unless it says that this is not known."""
        token_id = self.which(which)
        _, error = self.call(self.client.revoke_token(self.account, token_id), trouble)
        if error is None:
            assert token_id in self.live or trouble.faults  # a 404 after a lost answer is a success
            assert token_id not in self.held()
        elif isinstance(error, NotFoundError):
            assert token_id not in self.live
        elif isinstance(error, DatadogError) and not error.outcome_unknown:
            assert (token_id in self.held()) == (token_id in self.live)
        if token_id not in self.held():
            self.live.pop(token_id, None)
            self.gone.append(token_id)

    @rule(which=WHICH, pauses=st.integers(0, 2), fails=st.booleans(), trouble=TROUBLE)
    def rotate(self, which: int, pauses: int, fails: bool, trouble: Trouble) -> None:
        """A rotation that returned leaves the new token alone; however it ends, a stored token works, and what lives
        beside it is reported.
        """
        token_id = self.which(which)
        stored: set[str] = set()

        async def store(created: CreatedToken) -> None:
            for _ in range(pauses):
                await asyncio.sleep(0)
            if fails:
                raise VaultError
            stored.add(created.token.id)

        value, error = self.call(self.client.rotate_token(self.account, token_id, store=store), trouble)
        made, before, held = self.made(), self.live.get(token_id), self.held()
        assert len(made) <= 1
        if token_id in self.kept and before is not None:
            assert token_id in held or stored & held.keys()
        if error is None:
            assert made == [value.id] == [*stored]
            assert token_id not in held
            assert self.datadog.works(value.id)
        elif isinstance(error, RotationError):
            check_told(error, token_id, made, held)
        elif isinstance(error, DatadogError):
            assert made == []
            assert held.get(token_id) == before
        else:
            check_noted(error, token_id, made, held)
        self.kept |= stored
        self.catch_up()

    @invariant()
    def the_server_holds_what_was_said(self) -> None:
        """Nothing lives that no call has answered for, nothing has gone or changed by itself."""
        assert self.held() == self.live


def check_told(error: RotationError, token_id: str, made: list[str], held: dict[str, AccessToken]) -> None:
    """See that a RotationError says what is so."""
    assert error.old_id == token_id
    if error.old_works is not None:
        assert token_id in held
        assert error.old_works is not held[token_id].is_expired()
    if error.new_id is None:
        assert not made or (error.new_works is None and "created at" in str(error))
    else:
        assert made in ([], [error.new_id])
        assert error.new_works is None or error.new_works == bool(made)
        assert error.new_id in str(error)


def check_noted(error: BaseException, token_id: str, made: list[str], held: dict[str, AccessToken]) -> None:
    """See that a cancellation says what was left."""
    notes = "\n".join(getattr(error, "__notes__", []))
    if made:
        assert token_id in notes
        assert made[0] in notes or "created at" in notes
        assert token_id in held or "works and is stored" in notes or "was complete" in notes


TestLifecycle = Lifecycle.TestCase
# Without shrinking: it would take minutes, and the steps are few.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
TestLifecycle.settings = settings(max_examples=40, stateful_step_count=15, deadline=None, phases=PHASES)
