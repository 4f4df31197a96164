"""The circuit breaker of a store, with plain numbers for the time."""

from __future__ import annotations

from dd_sa_tokens.fleet.circuit import Circuit


def test_after_a_failure_the_store_is_left_alone_for_a_while() -> None:
    """A store that failed is asked again after 0.1 s, by one request at a time, then less often, every 2 s at last."""
    circuit = Circuit()
    assert circuit.record_failure(0.9, 1.0)
    pauses, now = list[float](), 1.0
    for _ in range(8):
        begun = now
        while not circuit.allows(now):
            now += 0.01
        assert not circuit.allows(now)
        pauses.append(round(now - begun, 1))
        assert not circuit.record_failure(now, now)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_failures_side_by_side_count_once() -> None:
    """Requests that were in flight together, and failed together, are one failure: one message, one pause."""
    circuit = Circuit()
    assert circuit.record_failure(0.9, 1.0)
    assert not circuit.record_failure(0.9, 1.0)
    assert circuit.allows(1.11)


def test_an_answer_ends_the_failures() -> None:
    """An answer closes the circuit; it is news only after a failure."""
    circuit = Circuit()
    assert not circuit.record_success()
    circuit.record_failure(0.0, 0.0)
    assert circuit.allows(0.1)
    assert circuit.record_success()
    assert circuit.allows(0.1)
    assert circuit.allows(0.1)
