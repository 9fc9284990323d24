"""Those who wait for a job, on a loop: when they are let try."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.jobs import JobQueue
    from tlsserver.reactor import Reactor

__all__ = ["JobLine"]

# Connections that wait for a job go on when one of ours ends. Others on this thread may hold jobs as well, and their
# end is not announced: look every 50 ms.
_POLL = 0.05

# How long those who wait for a job may hold a turn: as long as the handshakes that do not (reactor.py). Most take
# their job for a moment only, so one that comes back may serve hundreds of them.
_SECONDS = 0.002


class JobLine:
    """Serves the line of one loop at the end of its turns. Loop thread only."""

    def __init__(self, reactor: Reactor, jobs: JobQueue, ended: Callable[[], int]) -> None:
        """Begin with nobody.

        Args:
            reactor: The loop.
            jobs: The line.
            ended: How many paused jobs have ended so far on this loop.
        """
        self._reactor = reactor
        self._jobs = jobs
        self._ended = ended
        self._seen = 0
        self._is_poll_set = False

    def serve(self) -> None:
        """If a job has ended, let those who wait for one try, in order, until the first that gets none."""
        if not self._jobs.waiting:
            return
        ended = self._ended()
        if self._seen != ended:
            self._seen = ended
            until = time.monotonic() + _SECONDS
            while self._jobs.serve_first():
                if time.monotonic() >= until:
                    self._reactor.call_soon(self._look_again)
                    break
        if self._jobs.waiting and not self._is_poll_set:
            self._is_poll_set = True
            self._reactor.call_later(_POLL, self._poll)

    def _poll(self) -> None:
        self._is_poll_set = False
        self._look_again()

    def _look_again(self) -> None:
        self._seen = -1
