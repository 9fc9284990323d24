"""Who waits for which wait fd. An engine may give one fd to several jobs, so an fd can have several owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsserver.reactor import EVENT_READ, Reactor, Registration

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WaitFds"]


class WaitFds:
    """The wait fds that the reactor watches. Loop thread only.

    An fd is registered once, with its first owner, and unregistered with its last. Within a turn all removals come
    before all additions: a number that an engine closed and got again is then registered anew.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._owners: dict[int, tuple[Registration, list[Callable[[], object]]]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def add(self, fd: int, resume: Callable[[], object], *, urgent: bool = False) -> None:
        """Call ``resume`` whenever the fd is readable.

        Args:
            fd: The wait fd.
            resume: What to call.
            urgent: Whether its events come before those of handshakes.

        Raises:
            OSError: The fd cannot be watched.
        """
        if fd not in self._owners:
            waiting: list[Callable[[], object]] = []
            registration = self._reactor.add(fd, EVENT_READ, lambda _events: self._wake(waiting))
            self._owners[fd] = registration, waiting
        registration, waiting = self._owners[fd]
        registration.urgent |= urgent
        waiting.append(resume)

    def remove(self, fd: int, resume: Callable[[], object]) -> None:
        """Stop calling it. Does nothing if it is not an owner."""
        registration, waiting = self._owners.get(fd, (None, []))
        if registration is None or resume not in waiting:
            return
        waiting.remove(resume)
        if not waiting:
            del self._owners[fd]
            self._reactor.remove(registration)

    @staticmethod
    def _wake(waiting: list[Callable[[], object]]) -> None:
        for resume in tuple(waiting):
            resume()
