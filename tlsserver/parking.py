"""What a connection remembers while its job is paused, or while it waits for one. A leaf: no TLS, no I/O, no clock.

Facts
- A readable wait fd means "try again". Engines of others make theirs readable too early, leave them readable, close one
  and get its number again for the next, or show none at all.
- From here a job that pauses again looks the same whether it has come further or not.

Decision
- Without wait fds the call is repeated after 1 ms, 2 ms ... 50 ms.
- Fds that make the call be repeated in vain again and again are left alone for as long, then watched again. What counts
  is the time between the beginning of watching and the resume: a stuck fd is readable at once.
- Under load a turn of the loop takes longer than 1 ms, and a stuck fd then looks like one that takes its time. So slow
  repetitions count too, a sixteenth each.

Trade-off
- An operation that honestly pauses some dozens of times in one call, each time for less than 1 ms, is held up: by 16 ms
  for the 17th to the 32nd time, by 32 ms for the 33rd to the 48th.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tlsserver.watch import WaitFd
from tlsserver.wire import Step, WaitFdSet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Park", "Parking"]

# A job without wait fds is polled. 1 ms is the selectors' resolution; 50 ms keep 1000 such connections at 20,000 polls
# a second at most, and an operation that takes so long does not notice them.
POLL_FIRST = 0.001
POLL_LAST = 0.05

# Repetitions in vain, counted in sixteenths. One that comes within 1 ms (less than any selector can wait) counts in
# full, and 16 of them are free: an operation in several parts (OpenSSL's dasync engine pauses for each part of a
# record) has fewer in one call, and 16 resumes cost less than 1 ms in all. A slower one, up to 50 ms, counts a
# sixteenth, so a loop that is slowed down to 4 ms a turn by such fds leaves them alone after one second. Beyond 50 ms,
# 20 a second, they cost nothing that matters.
_QUICK = 16
_FREE = 16 * _QUICK
# From here on the waiting time has long reached POLL_LAST.
_VAIN_MOST = 8 * _FREE


class Park(NamedTuple):
    """How a connection was parked so far.

    Attributes:
        parks: How often.
        seconds: How long in total.
    """

    parks: int
    seconds: float


# What every connection has before its first pause. Neither is ever changed: both are replaced.
_NEVER = Park(0, 0.0)
_NO_FDS: dict[int, WaitFd] = {}


class Parking:
    """The interruption of one call, and the sum of those before.

    Attributes:
        step: `Step.WANT_ASYNC`, `Step.WANT_ASYNC_JOB`, `Step.WANT_ANSWER`, or None while nothing is interrupted. While
            it waits for an answer there are no wait fds and no polls: whoever answers resumes it.
        repeat: The call to repeat, with the time as its argument.
        wait_fds: Where the end of the pause shows; none: nowhere, or they are left alone for the moment.
        poll_at: When to call `poll`; None: not needed.
        total: What came before.
        bytes_wait: Bytes lie in the socket; they hide its end.
    """

    __slots__ = (
        "_delay",
        "_fds",
        "_generation",
        "_since",
        "_vain",
        "_watched_since",
        "bytes_wait",
        "poll_at",
        "repeat",
        "step",
        "total",
        "wait_fds",
    )

    def __init__(self) -> None:
        self.step: Step | None = None
        self.repeat: Callable[[float], None] | None = None
        self.wait_fds: tuple[WaitFd, ...] = ()
        self.poll_at: float | None = None
        self.total = _NEVER
        self.bytes_wait = False
        self._since = 0.0
        self._generation = 0  # never used twice: a later pause may meet the same number
        self._forget()

    def _forget(self) -> None:
        self._fds = _NO_FDS
        self._watched_since: float | None = None
        self._delay = POLL_FIRST
        self._vain = 0

    def begin(self, step: Step, repeat: Callable[[float], None], now: float) -> None:
        """A call was interrupted."""
        self.step, self.repeat, self._since = step, repeat, now
        self.bytes_wait = False

    def wait(self, fds: WaitFdSet, now: float) -> None:
        """The call has paused, or was repeated and has paused again: wait for its fds, or until the next poll."""
        self._fds = {number: self._known(number, fds) for number in fds.all}
        if not self._fds:
            self._leave_alone(self._delay, now)
            self._delay = min(self._delay * 2, POLL_LAST)
        elif self._in_vain(now):
            self._leave_alone(min(POLL_FIRST * 2 ** ((self._vain - 1) // _FREE - 1), POLL_LAST), now)
        else:
            self._watch(now)

    def poll(self, now: float) -> bool:
        """`poll_at` has come.

        Returns:
            Whether to repeat the call; if not, its fds are watched again.
        """
        if self._fds:
            self._watch(now)
        return not self._fds

    def _known(self, number: int, fds: WaitFdSet) -> WaitFd:
        """Return the fd as it was, or a new generation of it."""
        known = self._fds.get(number)
        if known is None or number in fds.added:
            self._generation += 1
            known = WaitFd(number, self._generation, fds.serial)
        return known

    def _watch(self, now: float) -> None:
        self.wait_fds, self.poll_at, self._watched_since = tuple(self._fds.values()), None, now

    def _leave_alone(self, delay: float, now: float) -> None:
        self.wait_fds, self.poll_at, self._watched_since = (), now + delay, None

    def _in_vain(self, now: float) -> bool:
        """Count a repetition that has not ended the call.

        Returns:
            Whether its fds have made it too many.
        """
        if self._watched_since is not None:
            seconds = now - self._watched_since
            if seconds >= POLL_LAST:
                self._vain = 0
            else:
                self._vain = min(self._vain + (_QUICK if seconds < POLL_FIRST else 1), _VAIN_MOST)
        return self._vain > _FREE

    def end(self, now: float) -> float | None:
        """The call came to its end.

        Returns:
            How long it was parked, in seconds; None if it only waited for a job.
        """
        parked = self.step is not Step.WANT_ASYNC_JOB
        self.step = self.repeat = self.poll_at = None
        self.wait_fds = ()
        self._forget()
        if not parked:
            return None
        seconds = max(now - self._since, 0.0)
        self.total = Park(self.total.parks + 1, self.total.seconds + seconds)
        return seconds
