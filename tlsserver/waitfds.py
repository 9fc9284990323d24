"""Who waits for which wait fd. An engine may give one fd to several jobs, so an fd can have several owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsserver.reactor import EVENT_READ, Reactor, Registration

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WaitFds"]


class WaitFds:
    """The wait fds that the reactor watches. Loop thread only.

    An fd is watched from its first owner to its last. Each new owner registers it anew, because a number does not tell
    whether it is the descriptor that an earlier owner has (an engine shares one among its jobs) or another one that has
    taken its place: epoll drops a descriptor that is closed, and says nothing. Registering twice does no harm; not
    registering loses the wake-up.
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
        before, waiting = self._owners.get(fd, (None, []))
        urgent = urgent or (before is not None and before.urgent)
        registration = self._reactor.add(fd, EVENT_READ, lambda _events: self._wake(waiting), urgent=urgent)
        self._owners[fd] = registration, waiting
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
