"""Who may take a job next: the line of those who wait for one. A leaf: no TLS, no I/O, no clock.

Facts
- The pool of jobs is the thread's. When it is empty, a call that would run in a job comes to WANT_ASYNC_JOB, and
  OpenSSL tells nobody when a job comes back.
- A handshake needs a job for each of its calls, also for those that never pause: the last one only reads what the
  client answered.

What it means
- Whoever comes at the moment a job comes back would take it away from those who waited for it.
- A handshake that has its signature must not wait behind all who came after it to get one: it would time out.

Decision
- Everybody has a ticket: a handshake the number of its arrival, for as long as it lasts; a call on an open connection
  the next number at the moment it has to wait. The line is sorted by it, and the first of the line tries first.
- While somebody waits, a job is taken directly only with a lower ticket than theirs. So handshakes end in the order of
  their arrival, within the width of the pool, and nobody starves: each new ticket is higher than all before.
- What goes on in a job that it has already needs no new one and never asks.

Trade-off
- The line is a sorted list: joining costs a search and the moving of at most some 10 KB, and nothing at all as long as
  there are jobs for everybody.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JobQueue", "Place"]

_by_ticket = attrgetter("ticket")


class JobQueue:
    """The line of one loop. One thread: the loop's.

    Attributes:
        waiting: The places that wait, lowest ticket first; to be read only, and always the same list.
    """

    __slots__ = ("_drawn", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Place] = []
        self._drawn = 0

    def draw(self) -> int:
        """Return the next ticket, higher than all before."""
        self._drawn += 1
        return self._drawn

    def place(self, retry: Callable[[], object]) -> Place:
        """Give a connection that has just arrived its place.

        Args:
            retry: Makes the call that waits once more; called when its turn has come.
        """
        return Place(self, retry)

    def serve_first(self) -> bool:
        """Let the first of the line try.

        Returns:
            Whether it has left the line, and another waits who may try now.
        """
        if not self.waiting:
            return False
        first, ticket = self.waiting[0], self.waiting[0].ticket
        first.retry()
        return bool(self.waiting) and self.waiting[0].ticket != ticket


class Place:
    """One connection's place in the line.

    Attributes:
        ticket: The lower, the earlier; None while an open connection does not wait.
        retry: Makes the call that waits once more.
        waiting: The line itself: while it is empty, `may_take` need not be asked.
    """

    __slots__ = ("_is_open", "_queue", "_waits", "retry", "ticket", "waiting")

    def __init__(self, queue: JobQueue, retry: Callable[[], object]) -> None:
        self.ticket: int | None = queue.draw()
        self.retry = retry
        self.waiting = queue.waiting
        self._queue = queue
        self._waits = False
        self._is_open = False

    def may_take(self) -> bool:
        """Return whether a job may be taken: nobody waits, or nobody with a lower ticket."""
        if not self.waiting:
            return True
        first = self.waiting[0].ticket
        return self.ticket is not None and first is not None and self.ticket <= first

    def wait(self) -> None:
        """Stand in the line. Idempotent."""
        if self._waits:
            return
        if self.ticket is None:
            self.ticket = self._queue.draw()
        insort(self.waiting, self, key=_by_ticket)
        self._waits = True

    def leave(self) -> None:
        """Stand in the line no more; a handshake keeps its ticket, any other call had one for itself. Idempotent."""
        if self._waits:
            del self.waiting[bisect_left(self.waiting, self.ticket or 0, key=_by_ticket)]
            self._waits = False
        if self._is_open:
            self.ticket = None

    def close(self) -> None:
        """The connection has ended: leave the line, and let go of it."""
        self.leave()
        self.retry = _nothing

    def opened(self) -> None:
        """The handshake is done: its ticket is spent."""
        self._is_open = True
        self.leave()


def _nothing() -> None:
    """What is left to retry for a connection that has ended."""
