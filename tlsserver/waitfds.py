"""Who waits for which wait fd. An engine may give one fd to several jobs, so an fd can have several owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsserver.reactor import EVENT_READ, Reactor, Registration

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WaitFds"]


class _Watched:
    """One wait fd and those who wait for it."""

    __slots__ = ("registration", "serial", "waiting")

    registration: Registration

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.waiting: list[Callable[[], object]] = []


class WaitFds:
    """The wait fds that the reactor watches. Loop thread only.

    An fd is watched from its first owner to its last. Each new owner registers it anew, because a number does not tell
    whether it is the descriptor that an earlier owner has (an engine shares one among its jobs) or another one that has
    taken its place: epoll drops a descriptor that is closed, and says nothing. Registering twice does no harm; not
    registering loses the wake-up.

    One with a serial is known when it comes again, and the shim's come again all the time. So it stays registered
    without owners, quiet, until it is closed (which epoll sees) or readable for nobody.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._owners: dict[int, _Watched] = {}
        self._idle: dict[int, _Watched] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def add(self, fd: int, resume: Callable[[], object], *, urgent: bool = False, serial: int = 0) -> None:
        """Call ``resume`` whenever the fd is readable.

        Args:
            fd: The wait fd.
            resume: What to call.
            urgent: Whether its events come before those of handshakes.
            serial: No other descriptor ever has it; 0: that cannot be told.

        Raises:
            OSError: The fd cannot be watched.
        """
        idle = self._idle.pop(fd, None)
        still_watched = idle is not None and idle.registration.events and idle.registration.urgent == urgent
        if idle is None or idle.serial != serial or not still_watched:
            idle = self._watch(fd, serial, urgent=urgent)
        watched = self._owners[fd] = idle
        watched.waiting.append(resume)

    def _watch(self, fd: int, serial: int, *, urgent: bool) -> _Watched:
        """Register it, for the owners that it has already as well."""
        before = self._owners.get(fd)
        watched = _Watched(serial)
        if before is not None:
            watched.waiting = before.waiting
            urgent = urgent or before.registration.urgent
        watched.registration = self._reactor.add(fd, EVENT_READ, lambda _events: self._wake(watched), urgent=urgent)
        return watched

    def remove(self, fd: int, resume: Callable[[], object]) -> None:
        """Stop calling it. Does nothing if it is not an owner."""
        watched = self._owners.get(fd)
        if watched is None or resume not in watched.waiting:
            return
        watched.waiting.remove(resume)
        if watched.waiting:
            return
        del self._owners[fd]
        if watched.serial:
            self._idle[fd] = watched
        else:
            self._reactor.remove(watched.registration)

    def _wake(self, watched: _Watched) -> None:
        if not watched.waiting:
            self._reactor.remove(watched.registration)
        for resume in tuple(watched.waiting):
            resume()
