"""What a load came to."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
BUCKETS_PER_DECADE = 20


@dataclass
class Tally:
    """What is counted; times in seconds.

    Attributes:
        done: How many handshakes have succeeded.
        handshakes: Seconds from connect to the end of each handshake.
        responses: Seconds from connect to the end of each answer.
        resumed: Handshakes that resumed a session.
        errors: Failed connections by kind.
        seconds: How long it took.
        cpu: Seconds of processor time of this process, user and system.
        cipher: Of the first handshake; empty: there was none.
        group: The same; None: none, or this OpenSSL does not tell.
    """

    done: int = 0
    handshakes: array[float] = field(default_factory=lambda: array("d"))
    responses: array[float] = field(default_factory=lambda: array("d"))
    resumed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    cpu: float = 0.0
    cipher: str = ""
    group: str | None = None

    def add(self, other: Tally) -> None:
        """Add what another process counted meanwhile."""
        self.done += other.done
        self.handshakes.extend(other.handshakes)
        self.responses.extend(other.responses)
        self.resumed += other.resumed
        self.errors.update(other.errors)
        self.seconds = max(self.seconds, other.seconds)
        self.cpu += other.cpu
        self.cipher = self.cipher or other.cipher
        self.group = self.group or other.group

    def summary(self) -> Tally:
        """Return what is quick to send: how many, but no latencies."""
        return replace(self, handshakes=array("d"), responses=array("d"))

    @property
    def is_good(self) -> bool:
        """Whether there were handshakes and none failed."""
        return self.done > 0 and not self.errors

    @property
    def rate(self) -> float:
        """Handshakes a second."""
        return self.done / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers under the names that the JSON has."""
        return {
            "seconds": round(self.seconds, 6),
            "handshakes": self.done,
            "errors": dict(self.errors.most_common()),
            "resumed": self.resumed,
            "handshakes_per_second": round(self.rate, 3),
            "cipher": self.cipher,
            "group": self.group,
            "latency_ms": latency(self.handshakes),
            "response_ms": latency(self.responses),
            "client_cpu_us_per_handshake": round(self.cpu / self.done * 1e6, 3) if self.done else None,
            "histogram": histogram(self.handshakes),
            "response_histogram": histogram(self.responses),
        }


def latency(seconds: array[float]) -> dict[str, float] | None:
    """Return mean, percentiles (nearest rank) and maximum in milliseconds; None where there is nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    found = {"mean": math.fsum(ordered) / len(ordered)}
    for name, percent in PERCENTILES.items():
        found[name] = ordered[math.ceil(len(ordered) * percent / 100) - 1]
    found["max"] = ordered[-1]
    return {name: round(value * 1000, 4) for name, value in found.items()}


def histogram(seconds: array[float]) -> list[tuple[float, float, int]]:
    """Return buckets of equal width on a logarithmic scale: from and to in milliseconds, and how many; no empty end."""
    counts = Counter(math.floor(math.log10(max(one, 1e-6) * 1000) * BUCKETS_PER_DECADE) for one in seconds)
    if not counts:
        return []
    return [(_edge(step), _edge(step + 1), counts[step]) for step in range(min(counts), max(counts) + 1)]


def _edge(step: int) -> float:
    return float(round(10.0 ** (step / BUCKETS_PER_DECADE), 6))
