"""The part of a loop that an engine may use which does its I/O there; `tlsserver.reactor.Reactor` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Loop", "LoopTimer"]


class LoopTimer(Protocol):
    """What was asked for at a time."""

    def cancel(self) -> None:
        """Do not do it; nothing happens if it is done already."""


class Loop(Protocol):
    """One thread's loop. All but `call_soon_threadsafe` belong to that thread."""

    def add(self, fd: int, events: int, callback: Callable[[int], object]) -> Any:  # noqa: ANN401 - the loop's own
        """Watch a descriptor for events (`selectors.EVENT_READ`, `EVENT_WRITE`, 0); returns the registration."""

    def modify(self, registration: Any, events: int) -> None:  # noqa: ANN401 - as above
        """Watch for other events."""

    def remove(self, registration: Any) -> None:  # noqa: ANN401 - as above
        """Watch no more; before the descriptor is closed."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - as in asyncio
        """Call at the next turn."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> LoopTimer:  # noqa: ANN401 - as in asyncio
        """Call after so many seconds."""

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - as in asyncio
        """Call at the next turn; any thread."""

    def time(self) -> float:
        """Return the loop's clock, in seconds."""
