"""What is counted for each key server. One writer: the loop's thread; read by any."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from tlsserver.stats import Histogram, HistogramSnapshot, SignerNumbers

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Tally", "after_end", "none", "total"]

_COUNTS = ("in_flight", "taken", "performed", "failed", "retries", "fallbacks")
_TIMES = ("queue_seconds", "run_seconds", "total_seconds")
# The best comes first: a key server is up if it is up for one of the loops.
_STATES = ("up", "connecting", "down")
_BREAKERS = ("closed", "half-open", "open")


class Tally:
    """Counts for one address on one loop; see `tlsserver.stats.SignerNumbers` for what each name means.

    Attributes:
        ignored: Answers that came when nobody waited any more.
    """

    __slots__ = ("failed", "fallbacks", "ignored", "performed", "queue", "retries", "run", "taken", "total")

    def __init__(self) -> None:
        self.taken = self.performed = self.failed = self.retries = self.fallbacks = self.ignored = 0
        self.queue = Histogram()
        self.run = Histogram()
        self.total = Histogram()

    def numbers(self, name: str, state: str, breaker: str, in_flight: int) -> SignerNumbers:
        """Take a snapshot."""
        return SignerNumbers(
            name=name,
            state=state,
            breaker=breaker,
            in_flight=in_flight,
            taken=self.taken,
            performed=self.performed,
            failed=self.failed,
            retries=self.retries,
            fallbacks=self.fallbacks,
            queue_seconds=self.queue.snapshot(),
            run_seconds=self.run.snapshot(),
            total_seconds=self.total.snapshot(),
        )


def none(name: str) -> SignerNumbers:
    """Return the numbers of an address that no loop has asked yet."""
    return Tally().numbers(name, "down", "closed", 0)


def total(ended: SignerNumbers, living: Sequence[SignerNumbers]) -> SignerNumbers:
    """Add the numbers of one address on several loops.

    Args:
        ended: Of the loops that have ended, all together.
        living: Of each of the others.
    """
    sum_of_all = reduce(_sum, living, ended)
    if not living:
        return sum_of_all
    state = min((one.state for one in living), key=_STATES.index)
    breaker = min((one.breaker for one in living), key=_BREAKERS.index)
    return replace(sum_of_all, state=state, breaker=breaker)


def after_end(ended: SignerNumbers, last: SignerNumbers) -> SignerNumbers:
    """Add the last numbers of a loop that ends to those of the others that have."""
    return replace(_sum(ended, last), in_flight=0)


def _sum(one: SignerNumbers, other: SignerNumbers) -> SignerNumbers:
    counts: dict[str, Any] = {name: getattr(one, name) + getattr(other, name) for name in _COUNTS}
    times: dict[str, Any] = {name: _added(getattr(one, name), getattr(other, name)) for name in _TIMES}
    return replace(one, **counts, **times)


def _added(one: HistogramSnapshot, other: HistogramSnapshot) -> HistogramSnapshot:
    counts = tuple(map(sum, zip(one.counts, other.counts, strict=True)))
    return HistogramSnapshot(one.bounds, counts, one.count + other.count, one.sum + other.sum)
