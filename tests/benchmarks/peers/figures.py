"""From measurements to figures: medians over rounds, and ratios of what ran in the same round.

Facts
- The machine's speed drifts (other work, clock rates), by more than what is to be told apart.
- What runs one after the other within seconds has nearly the same machine.

Decision
- A ratio is taken in each round, of two servers in that round; the median of these is told, with the smallest and the
  largest.
- Where a bound is to be shown, the interval is Student's for the mean of the ratios' logarithms.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Two-sided 95 % quantiles of Student's t, by degrees of freedom (any table); beyond the last the normal one is near.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
NORMAL = 1.96


class Cell(NamedTuple):
    """What was asked for.

    Attributes:
        key: Kind of the certificate's key.
        tls: "1.2" or "1.3".
        concurrency: Connections in progress at any time.
    """

    key: str
    tls: str
    concurrency: int


@dataclass(frozen=True)
class Measurement:
    """One server in one round of a cell.

    Attributes:
        cell: What was asked for.
        server: Name of the server.
        round: Number of the round.
        handshakes: Finished ones.
        errors: Failed connections.
        seconds: How long it took.
        server_cpu: Seconds of CPU time of the server's processes, user and system.
        client_cpu: The same of the load generator.
        others: Cores that were busy with anything else, on average: the more, the less the numbers are worth.
    """

    cell: Cell
    server: str
    round: int
    handshakes: int
    errors: int
    seconds: float
    server_cpu: float
    client_cpu: float
    others: float = 0.0

    @property
    def cost(self) -> float:
        """Microseconds of the server's CPU time for a handshake."""
        return self.server_cpu / self.handshakes * 1e6

    @property
    def rate(self) -> float:
        """Handshakes in a second."""
        return self.handshakes / self.seconds

    @property
    def server_busy(self) -> float:
        """Part of the time that the server worked; above 1 with several threads on several cores."""
        return self.server_cpu / self.seconds

    @property
    def client_busy(self) -> float:
        """The same of the load generator; near 1 it is the bottleneck, and the server waits for it."""
        return self.client_cpu / self.seconds


class Figure(NamedTuple):
    """A number with its spread over the rounds."""

    median: float
    least: float
    most: float


def figure(values: Iterable[float]) -> Figure:
    """Take the median and the spread of at least one value."""
    ordered = sorted(values)
    return Figure(statistics.median(ordered), ordered[0], ordered[-1])


def interval(ratios: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of a ratio; None if there are too few to tell."""
    freedom = len(ratios) - 1
    if freedom < 1:
        return None
    logarithms = [math.log(ratio) for ratio in ratios]
    quantile = STUDENT[freedom - 1] if freedom <= len(STUDENT) else NORMAL
    half = quantile * statistics.stdev(logarithms) / math.sqrt(len(ratios))
    middle = statistics.fmean(logarithms)
    return math.exp(middle - half), math.exp(middle + half)


class Figures:
    """Measurements, by cell and server.

    Args:
        measurements: All rounds.
    """

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._rounds: dict[tuple[Cell, str], dict[int, Measurement]] = {}
        for one in measurements:
            self._rounds.setdefault((one.cell, one.server), {})[one.round] = one

    def cells(self) -> list[Cell]:
        """What was measured, in order."""
        return list(dict.fromkeys(cell for cell, _ in self._rounds))

    def servers(self) -> list[str]:
        """Whose handshakes were measured, in order."""
        return list(dict.fromkeys(server for _, server in self._rounds))

    def of(self, cell: Cell, server: str, value: Callable[[Measurement], float]) -> Figure | None:
        """A number of each round; None: not measured.

        Args:
            cell: Where.
            server: Whose.
            value: Takes it from a measurement.
        """
        rounds = self._rounds.get((cell, server))
        return figure(map(value, rounds.values())) if rounds else None

    def ratios(
        self, cell: Cell, server: str, reference: str, value: Callable[[Measurement], float] = lambda one: one.cost
    ) -> list[float]:
        """Ratios to another server, each of two measurements in one round; empty: there are none."""
        ours, theirs = self._rounds.get((cell, server), {}), self._rounds.get((cell, reference), {})
        return [value(one) / value(theirs[number]) for number, one in ours.items() if number in theirs]
