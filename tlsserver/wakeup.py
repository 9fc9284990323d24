"""The pipe that wakes a loop: bytes in it are not lost between the decision to sleep and the sleep. A leaf."""

from __future__ import annotations

import contextlib
import os
import threading

__all__ = ["WakePipe"]

_READ_SIZE = 4096


class WakePipe:
    """One loop's pipe. Any thread may wake; the rest is the loop's.

    Attributes:
        read_fd: Readable when the loop was woken.
        write_fd: Where a byte wakes it, for `signal.set_wakeup_fd`.
    """

    def __init__(self) -> None:
        """Make it, non-blocking at both ends."""
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_closed = False
        self.forget_lock()

    def forget_lock(self) -> None:
        """In a forked child: a thread that the child does not have may have held the parent's lock."""
        # It keeps `close` from giving the number to a stranger between the question and the write; it is re-entrant
        # because a signal handler may interrupt its holder.
        self._lock = threading.RLock()

    def wake(self) -> None:
        """Wake the loop; nothing happens once it is closed. Any thread, and signal handlers; it never waits."""
        # A full pipe wakes the loop as well as one more byte would.
        with self._lock, contextlib.suppress(BlockingIOError):
            if not self._is_closed:
                os.write(self.write_fd, b"\0")

    def drain(self, _events: int = 0) -> None:
        """Take the bytes out: the loop is awake."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.read_fd, _READ_SIZE)

    def close(self) -> None:
        """Free both ends. Idempotent."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self.read_fd)
                os.close(self.write_fd)
