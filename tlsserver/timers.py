"""Deadlines in a heap. A leaf: no clock, no I/O; what a time means is the owner's business.

Most deadlines are cancelled or pushed back, and cancelling in the middle of a heap is dear. So a cancelled one stays
where it is until it comes up, or until the heap has doubled since the dead were last thrown out: then they are again.
The cost per deadline stays constant, and the heap below twice the number that ever lived at one time.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timer", "Timers"]

# Throwing out the dead is not worth while for fewer.
_LEAST = 128


class Timer:
    """A deadline, as its setter holds it.

    Attributes:
        when: The time it is due.
    """

    __slots__ = ("_args", "_callback", "when")

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self._callback: Callable[..., object] | None = callback
        self._args = args

    def cancel(self) -> None:
        """Make sure that it never runs, and let go of the callback. Idempotent."""
        self._callback, self._args = None, ()

    def cancelled(self) -> bool:
        """Return whether it was cancelled or has run."""
        return self._callback is None

    def run(self) -> None:
        """Make the call, once, unless it was cancelled."""
        callback, args = self._callback, self._args
        self._callback, self._args = None, ()
        if callback is not None:
            callback(*args)


class Timers:
    """A heap of deadlines, the earliest first; equal ones in the order in which they were set."""

    __slots__ = ("_full", "_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._full = _LEAST  # so long the heap may become before the dead are thrown out
        self._serial = 0

    def __len__(self) -> int:
        """Return how many are kept, dead ones included."""
        return len(self._heap)

    def add(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> Timer:
        """Set a deadline."""
        if len(self._heap) >= self._full:
            self._throw_out()
        timer = Timer(when, callback, args)
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, timer))
        return timer

    def next_when(self) -> float | None:
        """Return when the first living one is due; None if there is none."""
        heap = self._heap
        while heap and heap[0][2].cancelled():
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> list[Timer]:
        """Remove and return those that are due, in order; cancelled ones may be among them."""
        due: list[Timer] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def clear(self) -> None:
        """Forget them all."""
        self._heap.clear()
        self._full = _LEAST

    def _throw_out(self) -> None:
        self._heap = [entry for entry in self._heap if not entry[2].cancelled()]
        heapq.heapify(self._heap)
        self._full = max(2 * len(self._heap), _LEAST)
