"""What a load came to."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter

import pytest

from tlsserver.bench.tally import Tally, histogram, latency


def milliseconds(*values: float) -> array[float]:
    return array("d", [value / 1000 for value in values])


def test_percentiles_are_values_that_were_measured() -> None:
    found = latency(milliseconds(*range(1000, 0, -1)))
    assert found == {"mean": 500.5, "p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999, "max": 1000}


def test_percentiles_of_one() -> None:
    assert set((latency(milliseconds(7)) or {}).values()) == {7}


def test_nothing_has_no_percentiles() -> None:
    assert latency(milliseconds()) is None
    assert histogram(milliseconds()) == []


def test_histogram_holds_all_and_has_no_gap() -> None:
    values = [0.0004, 0.31, 1, 1.0001, 5, 99, 1234]
    buckets = histogram(milliseconds(*values))
    assert sum(count for _, _, count in buckets) == len(values)
    assert all(end == start for (_, end, _), (start, _, _) in itertools.pairwise(buckets))
    assert buckets[0][2] == buckets[-1][2] == 1
    for value in values[1:]:
        assert any(start * 0.999 <= value <= end * 1.001 and count for start, end, count in buckets)


def test_adding() -> None:
    total = Tally()
    total.add(Tally(done=1, handshakes=array("d", [1]), errors=Counter(a=1), seconds=2, cpu=1, cipher="X", group="G"))
    total.add(
        Tally(done=2, handshakes=array("d", [2, 3]), responses=array("d", [4]), resumed=1, seconds=1, cpu=2, cipher="Y")
    )
    assert total == Tally(3, array("d", [1, 2, 3]), array("d", [4]), 1, Counter(a=1), 2, 3, "X", "G")
    assert total.rate == 1.5
    assert total.as_dict()["client_cpu_us_per_handshake"] == 1e6


@pytest.mark.parametrize(("done", "errors", "good"), [(1, {}, True), (1, {"x": 1}, False), (0, {}, False)])
def test_good(done: int, errors: dict[str, int], good: bool) -> None:
    assert Tally(done=done, errors=Counter(errors)).is_good is good


def test_of_nothing() -> None:
    numbers = Tally().as_dict()
    assert numbers["handshakes_per_second"] == 0
    assert numbers["client_cpu_us_per_handshake"] is None


def test_a_summary_is_small() -> None:
    summary = Tally(done=2, handshakes=array("d", [1, 2]), responses=array("d", [3])).summary()
    assert (summary.done, len(summary.handshakes), len(summary.responses)) == (2, 0, 0)
