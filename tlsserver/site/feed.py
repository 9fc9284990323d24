"""Live counters for any number of viewers, from one timer."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

from tlsserver.protocols.stream import EventStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.protocols.base import Scheduler

INTERVAL = 1.0  # seconds between two samples: also the heartbeat, far below any proxy's idle limit
HISTORY = 60.0  # seconds that a page shows; a new viewer gets them at once
MOST_VIEWERS = 100  # each holds a connection open; more than a demo's audience
_PENDING = 16 * 1024  # about ten samples: what a viewer may be behind before it misses some


class Feed:
    """Sends a sample of the counters to every viewer, once a second while there is one.

    Args:
        statistics: Gives the counters.
    """

    def __init__(self, statistics: Callable[[], dict[str, Any]]) -> None:
        self._statistics = statistics
        self._viewers: list[EventStream] = []
        self._history: deque[tuple[float, int, int]] = deque()
        self._ticking = False

    @property
    def viewers(self) -> int:
        """How many are watching now."""
        return len(self._viewers)

    def subscribe(self, scheduler: Scheduler) -> EventStream | None:
        """Return a stream for one more viewer, None if there are too many.

        It begins with an event "history", a list of `[time, handshakes_completed, parked_now]`; then comes an event
        "sample" each second, the statistics with `time` (the loop's, in seconds).
        """
        if len(self._viewers) >= MOST_VIEWERS:
            return None
        viewer = EventStream(lambda: self._viewers.remove(viewer), max_pending=_PENDING)
        self._viewers.append(viewer)
        sample = self._sample(scheduler.time())
        viewer.send_event(json.dumps(list(self._history)), "history")
        viewer.send_event(json.dumps(sample), "sample")
        if not self._ticking:
            self._ticking = True
            scheduler.call_later(INTERVAL, lambda: self._tick(scheduler))
        return viewer

    def _tick(self, scheduler: Scheduler) -> None:
        self._ticking = bool(self._viewers)
        if not self._ticking:
            return
        scheduler.call_later(INTERVAL, lambda: self._tick(scheduler))
        sample = json.dumps(self._sample(scheduler.time()))
        for viewer in list(self._viewers):
            viewer.send_event(sample, "sample")

    def _sample(self, now: float) -> dict[str, Any]:
        statistics = self._statistics()
        self._history.append((now, statistics["handshakes_completed"], statistics["parked_now"]))
        while self._history[0][0] < now - HISTORY:
            self._history.popleft()
        return {"time": now, **statistics}
