"""Deadlines in a heap. A leaf: no clock, no I/O; what a time means is the owner's business.

Most deadlines are cancelled or pushed back, and cancelling in the middle of a heap is dear. So a cancelled one stays
where it is until it comes up, or until the dead are the majority: then the heap is built anew. The cost per cancelled
deadline stays constant, and the heap below twice the number of the living (plus `_DEAD_TIMERS`).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timer", "Timers"]

# Building anew is not worth while for fewer.
_DEAD_TIMERS = 64


class Timer:
    """A deadline, as its setter holds it.

    Attributes:
        when: The time it is due.
    """

    __slots__ = ("_args", "_callback", "_on_cancel", "when")

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], on_cancel: Callable[[], object]
    ) -> None:
        self.when = when
        self._callback: Callable[..., object] | None = callback
        self._args = args
        self._on_cancel: Callable[[], object] | None = on_cancel

    def cancel(self) -> None:
        """Make sure that it never runs, and let go of the callback. Idempotent."""
        if self._callback is not None:
            self._callback, self._args = None, ()
            if self._on_cancel is not None:
                self._on_cancel()

    def cancelled(self) -> bool:
        """Return whether it was cancelled or has run."""
        return self._callback is None

    def run(self) -> None:
        """Make the call, once, unless it was cancelled."""
        callback, args = self._callback, self._args
        self._callback, self._args = None, ()
        if callback is not None:
            callback(*args)

    def leave(self) -> None:
        """It is not in the heap any more: cancelling it concerns nobody."""
        self._on_cancel = None


class Timers:
    """A heap of deadlines, the earliest first; equal ones in the order in which they were set."""

    __slots__ = ("_dead", "_heap", "_on_cancel", "_serial")

    def __init__(self) -> None:
        self._on_cancel = self._one_died  # one for all
        self._heap: list[tuple[float, int, Timer]] = []
        self._dead = 0
        self._serial = 0

    def __len__(self) -> int:
        """Return how many are kept, dead ones included."""
        return len(self._heap)

    def add(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> Timer:
        """Set a deadline."""
        timer = Timer(when, callback, args, self._on_cancel)
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, timer))
        return timer

    def next_when(self) -> float | None:
        """Return when the first living one is due; None if there is none."""
        while self._heap and self._heap[0][2].cancelled():
            self._pop()
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> list[Timer]:
        """Remove and return those that are due, in order."""
        due: list[Timer] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(self._pop())
        return due

    def clear(self) -> None:
        """Forget them all."""
        self._heap.clear()
        self._dead = 0

    def _pop(self) -> Timer:
        timer = heapq.heappop(self._heap)[2]
        timer.leave()
        self._dead -= timer.cancelled()
        return timer

    def _one_died(self) -> None:
        self._dead += 1
        if self._dead > _DEAD_TIMERS and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].cancelled()]
            heapq.heapify(self._heap)
            self._dead = 0
