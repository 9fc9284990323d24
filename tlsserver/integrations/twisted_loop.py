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

from tlsserver.errors import ConfigurationError
from tlsserver.reactor import Reactor
from tlsserver.selector import new_selector

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.timers import Timer

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


class TwistedLoop(Reactor):
    """A reactor whose turns Twisted's makes. The thread of Twisted's reactor only, but for `call_soon_threadsafe`."""

    def __init__(self, outer: Any) -> None:  # noqa: ANN401 - several interfaces of Twisted's in one
        """Begin to be called.

        Args:
            outer: Twisted's reactor (IReactorFDSet, IReactorTime).

        Raises:
            ConfigurationError: This platform's selectors cannot be watched by others.
        """
        selector: Any = new_selector()
        if not hasattr(selector, "fileno"):
            selector.close()
            raise ConfigurationError("this platform has neither epoll nor kqueue, so nothing can be nested in Twisted")
        self._outer = outer
        self._coming: Any = None
        self._is_in_turn = False
        super().__init__(selector)
        self._descriptor = _Descriptor(selector.fileno(), self._turn)
        outer.addReader(self._descriptor)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - as in asyncio
        """Call it in the next turn, in the order asked for."""
        super().call_soon(callback, *args)
        self._schedule()

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:  # noqa: ANN401 - as in asyncio
        """Call it at a time of this reactor's clock, not before."""
        timer = super().call_at(when, callback, *args)
        self._schedule()
        return timer

    def hurry(self) -> None:
        """Let the next turn come at once."""
        super().hurry()
        self._schedule()

    def end_turn_soon(self) -> None:
        """Something waits for the end of a turn: let there be one as soon as Twisted has served what is ready now."""
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
        self._is_in_turn = True
        try:
            self.run_turn(0)
        finally:
            self._is_in_turn = False
            if not self.is_closed:
                self._schedule()

    def _schedule(self) -> None:
        """Have a turn made when it is due, if nothing makes one before."""
        if self._is_in_turn:
            return
        patience = self._patience(None)
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
