"""One timer for a connection that waits for one thing at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.protocols.base import Scheduler, TimerHandle


class Deadline:
    """A timer that starts anew only when what it waits for changes.

    So it may be told the same again with every byte that arrives, and a client that sends one now and then gains no
    time by it.

    Args:
        scheduler: Where the timer runs.
        expired: Called with what was waited for, when the time is up.
    """

    __slots__ = ("_expired", "_scheduler", "_timer", "_waiting_for")

    def __init__(self, scheduler: Scheduler, expired: Callable[[str], object]) -> None:
        self._scheduler = scheduler
        self._expired = expired
        self._waiting_for: str | None = None
        self._timer: TimerHandle | None = None

    def wait_for(self, name: str, seconds: float) -> None:
        """Give `name` so many seconds, unless that is what is waited for already."""
        if name == self._waiting_for:
            return
        self.clear()
        self._waiting_for = name
        self._timer = self._scheduler.call_later(seconds, self._expire)

    def clear(self) -> None:
        """Wait for nothing; the same name then has its full time again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._waiting_for = None

    def close(self) -> None:
        """Wait for nothing any more, and let go of the owner: both know each other, and a cycle outlives its use."""
        self.clear()
        self._expired = _nobody

    def _expire(self) -> None:
        name = self._waiting_for
        self._timer = self._waiting_for = None
        if name is not None:
            self._expired(name)


def _nobody(_name: str) -> None:
    """Whom a closed deadline calls."""
