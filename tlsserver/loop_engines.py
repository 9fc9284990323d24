"""The engines that one loop uses: they get their turns there, and may do I/O there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tlsserver.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine_shim import BaseEngine
    from tlsserver.reactor import Reactor

__all__ = ["LoopEngines"]


class LoopEngines:
    """The engines of one loop, from the first connection that may need one to the loop's end. Loop thread only."""

    def __init__(self, reactor: Reactor) -> None:
        """Begin without engines."""
        self._reactor = reactor
        self._turns = Turns(reactor)
        self._joined: dict[BaseEngine, Callable[[], object] | None] = {}

    def use(self, engine: BaseEngine) -> None:
        """Let an engine know of this loop, before the first op that waits here. Idempotent."""
        if engine.needs_turns:
            self._turns.add(engine)
        if engine not in self._joined:
            self._leave([known for known in self._joined if known.closed])
            self._joined[engine] = engine.join(self._reactor)

    def take_turns(self, in_progress: int) -> None:
        """End a turn of the loop.

        Args:
            in_progress: How many handshakes are.
        """
        self._turns.take(in_progress)

    def leave(self) -> None:
        """End what they do on this loop."""
        self._leave(tuple(self._joined))

    def _leave(self, engines: Iterable[BaseEngine]) -> None:
        """One that fails keeps no other from ending."""
        with contextlib.ExitStack() as stack:
            for engine in engines:
                leave = self._joined.pop(engine)
                if leave is not None:
                    stack.callback(leave)
