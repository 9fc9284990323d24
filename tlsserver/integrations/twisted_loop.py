"""Our loop inside Twisted's: what engines, wait fds and deadlines need, without a second thread.

Facts
- Twisted's epoll reactor keeps a table of descriptors by their numbers. One that is closed while it is in there stays,
  and the next descriptor with that number is never watched. Engines close and reopen their wait fds as they like.
- Twisted serves all that is ready before it looks again; it has no end of a turn, but calls what is due between two.

Decision
- Wait fds are in an epoll of our own, which forgets what is closed; Twisted watches the one descriptor of that epoll.
- A turn of ours is made when that descriptor is readable, when a deadline of ours is due, and soon after somebody has
  asked for one. It never waits.

Trade-off
- A wait fd costs two looks, at Twisted's epoll and at ours, some 10 us a turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from tlsserver.nested import NestedReactor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TwistedLoop"]


@implementer(IReadDescriptor)
class _Descriptor:
    """Our epoll, as Twisted watches it. Its methods have Twisted's names."""

    def __init__(self, fd: int, ready: Callable[[], object]) -> None:
        self._fd = fd
        self._ready = ready

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:  # noqa: N802 - IReadDescriptor's
        self._ready()

    def logPrefix(self) -> str:  # noqa: N802 - ILoggingContext's
        return "tlsserver"

    def connectionLost(self, reason: object) -> None:  # noqa: N802 - IFileDescriptor's
        """Twisted watches nothing any more: it stops, and `TwistedLoop.close` is called next."""


class TwistedLoop(NestedReactor):
    """A reactor whose turns Twisted's makes. The thread of Twisted's reactor only, but for `call_soon_threadsafe`."""

    def __init__(self, outer: Any) -> None:  # noqa: ANN401 - several interfaces of Twisted's in one
        """Begin to be called.

        Args:
            outer: Twisted's reactor (IReactorFDSet, IReactorTime).

        Raises:
            ConfigurationError: This platform's selectors cannot be watched by others.
        """
        self._outer = outer
        self._coming: Any = None
        super().__init__(self._schedule, "selectors2")
        self._descriptor = _Descriptor(self.fileno(), self._turn)
        outer.addReader(self._descriptor)

    def end_turn_soon(self) -> None:
        """Something waits for the end of a turn: let there be one as soon as Twisted has served what is ready now.

        Also in a turn, whose end may be half over: who is told then waits for the next.
        """
        self.hurry()

    def close(self) -> None:
        """Free everything. Idempotent."""
        if not self.is_closed:
            self._outer.removeReader(self._descriptor)
            self._forget_coming()
        super().close()

    def _turn(self) -> None:
        if self._is_in_turn or self.is_closed:
            return
        self._forget_coming()
        try:
            self.run_turn()
        finally:
            if not self.is_closed:
                self._schedule()

    def _schedule(self) -> None:
        """Have a turn made when it is due, if nothing makes one before."""
        patience = self.patience
        if patience is None:
            return
        if self._coming is not None and self._coming.getTime() - self._outer.seconds() <= patience:
            return
        self._forget_coming()
        self._coming = self._outer.callLater(patience, self._turn)

    def _forget_coming(self) -> None:
        call, self._coming = self._coming, None
        if call is not None and call.active():
            call.cancel()
