"""Engines without threads perform on the loop's thread, at the end of its turns (`engine_shim.BaseEngine.turn`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine_shim import BaseEngine
    from tlsserver.reactor import Reactor

__all__ = ["Turns"]


class Turns:
    """Gives the engines of one loop their turns. Loop thread only.

    A batch with room in it is left for one more turn of the loop, which comes at once: those whose handshakes are in
    progress may join it. It is never left for a second one, and if nobody can join it, not at all. Where there are too
    few handshakes in progress for any batch, nothing is queued: an op is performed when it is asked for.
    """

    def __init__(self, reactor: Reactor) -> None:
        """Begin without engines."""
        self._reactor = reactor
        self._engines: tuple[BaseEngine, ...] = ()
        self._has_waited = False

    def add(self, engine: BaseEngine) -> None:
        """Give turns to this engine as well, until it is closed. Idempotent."""
        if engine not in self._engines:
            self._engines = (*(known for known in self._engines if not known.closed), engine)

    def take(self, in_progress: int) -> None:
        """End a turn of the loop: each engine performs at most one batch.

        Args:
            in_progress: How many handshakes are; those that are not queued yet may join a batch.
        """
        left = 0
        for engine in self._engines:
            left += engine.turn(in_progress, patient=not self._has_waited)
        self._has_waited = left > 0
        if left:
            self._reactor.hurry()
