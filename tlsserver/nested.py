"""A reactor within another loop: that one waits until its descriptor is readable, and gives it a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlsserver.reactor import Reactor
from tlsserver.selector import new_watchable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.timers import Timer

__all__ = ["NestedReactor"]


class NestedReactor(Reactor):
    """A reactor that never waits by itself.

    It is used between its turns, too: by the tasks of the loop around it. Whatever of that has to happen before the
    other loop wakes up by itself is told to it, by `changed`.
    """

    def __init__(self, changed: Callable[[], object], selector: str = "selectors") -> None:
        """Make one that has no turns yet.

        Args:
            changed: Called when `patience` may have become shorter between two turns.
            selector: Its kind, as of `tlsserver.selector.SELECTORS`.

        Raises:
            ConfigurationError: This platform's selectors cannot be watched by others.
        """
        self._changed = changed
        self._is_in_turn = True  # nobody waits for it yet
        made = new_watchable(selector)
        super().__init__(made)
        self._fileno: int = made.fileno()
        self._is_in_turn = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to do in a turn."""
        return self._fileno

    @property
    def patience(self) -> float | None:
        """How many seconds the next turn may be away, whatever the descriptor says; None: any number."""
        return self._patience(None)

    def run_turn(self, timeout: float | None = 0) -> None:
        """Serve a turn of what is ready, without waiting.

        Raises:
            ForkedProcessError: The reactor was made before a fork, by the parent.
        """
        self._is_in_turn = True
        try:
            super().run_turn(timeout)
        finally:
            self._is_in_turn = False

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - as in asyncio
        """Call it in the next turn."""
        super().call_soon(callback, *args)
        self._used()

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:  # noqa: ANN401 - as in asyncio
        """Call it at a time of this reactor's clock."""
        timer = super().call_at(when, callback, *args)
        self._used()
        return timer

    def hurry(self) -> None:
        """Let the next turn come at once."""
        super().hurry()
        self._used()

    def end_turn_soon(self) -> None:
        """Let there be a turn that ends, for what was done between two."""
        if not self._is_in_turn:
            self.hurry()

    def _used(self) -> None:
        if not self._is_in_turn:
            self._changed()
