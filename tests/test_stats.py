"""What a server counts."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from tlsserver.stats import SECONDS_BOUNDS, Counters, EngineNumbers, Histogram, Statistics

ISSUED = (
    *("handshakes_completed", "handshakes_failed", "handshakes_parked", "parked_now", "parked_max"),
    *("ops_performed", "ops_cancelled", "connections_open"),
)


def test_the_names_that_users_know() -> None:
    assert set(ISSUED) <= {field.name for field in dataclasses.fields(Statistics)}


def test_a_snapshot_is_frozen_and_apart() -> None:
    counters = Counters()
    counters.handshakes_completed = 3
    counters.park_seconds.observe(0.2)
    snapshot = counters.snapshot(EngineNumbers(ops_performed=5, ops_cancelled=1))
    counters.handshakes_completed += 1
    counters.park_seconds.observe(0.2)
    assert (snapshot.handshakes_completed, snapshot.ops_performed, snapshot.ops_cancelled) == (3, 5, 1)
    assert snapshot.park_seconds.count == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.handshakes_completed = 0  # type: ignore[misc]


def test_as_dict_survives_json() -> None:
    counters = Counters()
    counters.handshake_seconds.observe(1e9)
    values = counters.snapshot().as_dict()
    assert json.loads(json.dumps(values)) == values
    assert set(values) == {field.name for field in dataclasses.fields(Statistics)}
    assert values["handshake_seconds"]["counts"][-1] == 1


def test_bounds_are_named_ascending_and_inclusive() -> None:
    assert list(SECONDS_BOUNDS) == sorted(set(SECONDS_BOUNDS))
    for at, bound in enumerate(SECONDS_BOUNDS):
        histogram = Histogram()
        histogram.observe(bound)
        histogram.observe(math.nextafter(bound, math.inf))
        counts = histogram.snapshot().counts
        assert (counts[at], counts[at + 1]) == (1, 1)


def test_a_histogram_adds_up() -> None:
    histogram = Histogram()
    values = [0.0, 0.00015, 0.003, 0.003, 70.0]
    for value in values:
        histogram.observe(value)
    snapshot = histogram.snapshot()
    assert snapshot.count == sum(snapshot.counts) == len(values)
    assert snapshot.sum == pytest.approx(sum(values))
    assert len(snapshot.counts) == len(snapshot.bounds) + 1
    assert snapshot.counts[0] == snapshot.counts[-1] == 1
