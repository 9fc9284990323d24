"""A reactor whose turns are callbacks of an asyncio loop.

Facts
- asyncio serves all that is ready in one iteration. With 500 handshakes ready, each of which takes 0.1 to 0.4 ms, an
  open connection would wait for 100 ms.
- asyncio has no end of an iteration; what `call_soon` is given comes first in the next one.
- A descriptor that was closed and whose number came back looks like the old one to asyncio's selector, which then makes
  no system call: the kernel's set has lost it, and its events never come.
- uvloop's timers count in whole milliseconds and may be early by half of one. After an error of a descriptor (a reset)
  it calls the reader once and watches no more, as libuv does: who stops before the end is never told of it.

Decision
- Open connections are watched by the loop itself (``add_reader``, ``add_writer``). Handshakes, wait fds and
  listening sockets are in a selector of our own, of which the loop watches the one descriptor: they get 2 ms of each
  iteration, and cost asyncio one callback, not one each.
- Where the loop is not asyncio's own (`tells_once`), connections look once more before they take a socket for drained.
- A turn of the reactor is one callback. It is asked for by whoever leaves something for its end, and by the first
  deadline, the only timer that the loop has of ours.
- Turns run in an empty context (contextvars), so that no task's variables get into another's connections.
- When the loop closes, the reactor leaves it and can go on by itself, for as long as jobs have to be drained.

Trade-off
- Something that a callback leaves for the end of the turn comes one iteration later, behind a look at the descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from time import monotonic
from typing import TYPE_CHECKING, Any

from tlsserver.errors import ConfigurationError
from tlsserver.reactor import EVENT_READ, EVENT_WRITE, Reactor
from tlsserver.selector import SelectorLike, new_watchable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tlsserver.reactor import Registration, Timer

__all__ = ["LoopReactor", "LoopSelector"]


class LoopSelector:
    """An asyncio loop as a selector: the loop makes the callbacks of registrations itself, so `select` finds nothing.

    An event of this iteration whose registration is gone meanwhile is cancelled by the loop.

    Args:
        loop: Has ``add_reader`` and ``add_writer``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[int, tuple[int, Any]] = {}

    def register(self, fileobj: int, events: int, data: Any = None) -> None:  # noqa: ANN401 - as in selectors
        """Watch a descriptor.

        Raises:
            OSError: It cannot be watched.
        """
        try:
            self._change(fileobj, 0, events, data)
        except BaseException:
            self._change(fileobj, events, 0, data)
            raise
        self._watched[fileobj] = events, data

    def modify(self, fileobj: int, events: int, data: Any = None) -> None:  # noqa: ANN401 - as in selectors
        """Watch it for other events."""
        self._change(fileobj, self._watched[fileobj][0], events, data)
        self._watched[fileobj] = events, data

    def unregister(self, fileobj: int) -> None:
        """Stop watching it."""
        events, data = self._watched.pop(fileobj)
        self._change(fileobj, events, 0, data)

    def select(self, timeout: float | None = None) -> list[tuple[Any, int]]:
        """Return nothing."""
        del timeout
        return []

    def get_map(self) -> Mapping[Any, Any]:
        """Return what is registered."""
        return self._watched

    def close(self) -> None:
        """Forget everything."""
        self._watched.clear()

    def _change(self, fd: int, before: int, after: int, data: Registration) -> None:
        gone, new = before & ~after, after & ~before
        if gone & EVENT_READ:
            self._loop.remove_reader(fd)
        if gone & EVENT_WRITE:
            self._loop.remove_writer(fd)
        if new & EVENT_READ:
            self._loop.add_reader(fd, data.callback, EVENT_READ)
        if new & EVENT_WRITE:
            self._loop.add_writer(fd, data.callback, EVENT_WRITE)


class LoopReactor(Reactor):
    """A reactor on an asyncio loop, on the loop's thread. Nobody runs it: the loop does.

    Attributes:
        context: What turns run in: an empty one.
        tells_once: Whether the loop may tell of a descriptor's error once and then no more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to use a loop.

        Args:
            loop: It need not run yet.

        Raises:
            ConfigurationError: This machine's selectors cannot be watched, or the loop watches no descriptors.
        """
        self._loop = loop
        self.context = contextvars.Context()
        self._is_asked_for = self._has_left = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        crowd = new_watchable()
        self.tells_once = not isinstance(loop, asyncio.SelectorEventLoop)
        try:
            self.context.run(super().__init__, LoopSelector(loop), crowd=crowd)
        except NotImplementedError as error:
            self.close()
            message = f"{type(loop).__name__} cannot watch descriptors: use a selector loop of asyncio, or uvloop"
            raise ConfigurationError(message) from error

    # No turn has a time of its own: there are callbacks between them.
    time = staticmethod(monotonic)

    # Asking for turns

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - as in asyncio
        """Call it in the next turn, which comes soon."""
        super().call_soon(callback, *args)
        self.end_turn_soon()

    def hurry(self) -> None:
        """Let the next turn come at once."""
        self.end_turn_soon()

    def end_turn_soon(self) -> None:
        """Have a turn, if none is asked for yet."""
        if not self._is_asked_for and not self._has_left:
            self._is_asked_for = True
            self._loop.call_soon(self._turn_asked_for, context=self.context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:  # noqa: ANN401 - as in asyncio
        """Call it at a time of this reactor's clock (CLOCK_MONOTONIC), not before."""
        timer = super().call_at(when, callback, *args)
        self._set_alarm()
        return timer

    def leave_loop(self) -> None:
        """Let go of the loop, which is about to be closed: from now on `run_turn` waits for events by itself."""
        if self._has_left:
            return
        self._has_left = True
        if self._alarm is not None:
            self._alarm.cancel()
        watched = [one for one in self._registrations.values() if one.urgent and one.events]
        alone: SelectorLike = type(self._crowd)()
        for registration in watched:
            self._selector.unregister(registration.fd)
            with contextlib.suppress(OSError):  # somebody has closed it
                alone.register(registration.fd, registration.events, registration)
        self._selector = alone

    # Turns

    def _turn_asked_for(self) -> None:
        self._is_asked_for = False
        self._turn()

    def _turn_due(self) -> None:
        self._alarm = None
        self._turn()

    def _turn(self) -> None:
        if self._has_left:
            return
        try:
            self.run_turn(0)
        except BaseException:  # KeyboardInterrupt of a protocol: the loop may go on
            self.end_turn_soon()
            raise
        if self._backlog:
            self.end_turn_soon()
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Have the loop call no later than the first deadline; too early does no harm."""
        when = self._timers.next_when()
        if when is None or self._has_left or (self._alarm is not None and self._alarm_at <= when):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        delay = max(when - self.time(), 0.0)
        self._alarm = self._loop.call_later(delay, self._turn_due, context=self.context)

    def _woken(self, events: int) -> None:
        super()._woken(events)
        self.end_turn_soon()

    def _gather(self, events: int) -> None:
        """Look who is ready; they are served in the turn that comes first in the next iteration, and in no other."""
        super()._gather(events)
        if self._backlog:
            self.end_turn_soon()
