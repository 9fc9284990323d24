"""What a connection remembers while its job is paused, or while it waits for one. A leaf: no TLS, no I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tlsserver.wire import Step

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Park", "Parking"]

# A job without wait fds is polled. 1 ms is the selectors' resolution; 50 ms keep 1000 such connections at 20,000 polls
# a second at most, and an operation that takes so long does not notice them.
POLL_FIRST = 0.001
POLL_LAST = 0.05


class Park(NamedTuple):
    """How a connection was parked so far.

    Attributes:
        parks: How often.
        seconds: How long in total.
    """

    parks: int
    seconds: float


class Parking:
    """The interruption of one call, and the sum of those before.

    Attributes:
        step: `Step.WANT_ASYNC`, `Step.WANT_ASYNC_JOB`, or None while nothing is interrupted.
        repeat: The call to repeat, with the time as its argument.
        wait_fds: Where the end of the pause shows; none: poll.
        poll_at: When to repeat although nothing shows; None: not needed.
        total: What came before.
        bytes_wait: Bytes lie in the socket; they hide its end.
    """

    __slots__ = ("_delay", "_since", "bytes_wait", "poll_at", "repeat", "step", "total", "wait_fds")

    def __init__(self) -> None:
        self.step: Step | None = None
        self.repeat: Callable[[float], None] | None = None
        self.wait_fds: tuple[int, ...] = ()
        self.poll_at: float | None = None
        self.total = Park(0, 0.0)
        self.bytes_wait = False
        self._since = 0.0
        self._delay = POLL_FIRST

    def begin(self, step: Step, repeat: Callable[[float], None], now: float) -> None:
        """A call was interrupted."""
        self.step, self.repeat, self._since = step, repeat, now
        self.bytes_wait = False
        self._delay = POLL_FIRST

    def wait(self, wait_fds: tuple[int, ...], now: float) -> None:
        """Wait for these; without any, until the next poll, each one twice as far away as the last."""
        self.wait_fds = wait_fds
        self.poll_at = None
        if not wait_fds:
            self.poll_at = now + self._delay
            self._delay = min(self._delay * 2, POLL_LAST)

    def end(self, now: float) -> float | None:
        """The call came to its end.

        Returns:
            How long it was parked, in seconds; None if it only waited for a job.
        """
        parked = self.step is Step.WANT_ASYNC
        self.step = self.repeat = self.poll_at = None
        self.wait_fds = ()
        if not parked:
            return None
        seconds = max(now - self._since, 0.0)
        self.total = Park(self.total.parks + 1, self.total.seconds + seconds)
        return seconds
