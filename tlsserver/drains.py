"""Jobs that go on without their connections, counted per engine, and where that has to stop. A leaf.

A third party's operation cannot be cancelled: when its connection ends, its job, its stack and its SSL stay until the
operation has ended. An engine that hangs would collect them without bound while clients come, give up and come again.
So when ``most`` of an engine's jobs are there, its new handshakes are refused, until a tenth of the list is free again
(one place, if it is short): less would open and close the door, and write to the log, at every job that ends.

It bounds what new handshakes add. Those in progress when the door closes go on, and may come to the list as well.
"""

from __future__ import annotations

import logging

__all__ = ["Drain", "Drains"]

logger = logging.getLogger(__name__)

_HYSTERESIS = 10


class Drain:
    """The list of one engine. The loop's thread changes it, any thread may read it.

    Attributes:
        name: The engine's.
        now: Jobs that have not ended yet.
        is_full: Whether the engine's new handshakes are refused.
    """

    __slots__ = ("_most", "is_full", "name", "now")

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.now = 0
        self.is_full = False
        self._most = most

    def enter(self) -> None:
        """A connection has ended and its job has not."""
        self.now += 1
        if self.now >= self._most and not self.is_full:
            self.is_full = True
            logger.warning(
                "engine %s: %d operations go on although their connections are gone: its new handshakes are refused"
                " until some have ended",
                self.name,
                self.now,
            )

    def leave(self) -> None:
        """Such a job has ended."""
        self.now -= 1
        if self.is_full and self.now <= self._most - max(self._most // _HYSTERESIS, 1):
            self.is_full = False
            logger.info("engine %s: %d such operations are left: it takes handshakes again", self.name, self.now)


class Drains:
    """The lists of all engines of a server."""

    def __init__(self, most: int) -> None:
        """Begin with none.

        Args:
            most: How many jobs of one engine are too many.
        """
        self._most = most
        # Replaced as a whole, so that other threads may read it at any time. Engines that were swapped out and closed
        # are forgotten when the next one comes.
        self._drains: dict[object, Drain] = {}

    def of(self, engine: object, name: str) -> Drain:
        """Return an engine's list. Loop thread.

        Args:
            engine: The engine itself, so that two of one name are two; None: whatever OpenSSL does by itself.
            name: What it is called in the log and the statistics.
        """
        drain = self._drains.get(engine)
        if drain is None:
            drain = Drain(name, self._most)
            kept = {known: its for known, its in self._drains.items() if its.now or not getattr(known, "closed", False)}
            self._drains = {**kept, engine: drain}
        return drain

    def by_name(self) -> dict[str, int]:
        """Return how many jobs drain now, by the names of their engines. Any thread."""
        counts: dict[str, int] = {}
        for drain in self._drains.values():
            counts[drain.name] = counts.get(drain.name, 0) + drain.now
        return counts
