"""The selector loop: descriptor -> callback, deadlines, and the end of a turn. It knows nothing of TLS.

Facts
- ``select`` returns a list. While its first entries are served, a callback may close the descriptor of a later entry,
  and ``accept`` or an engine may get the same number again at once. epoll drops a closed descriptor silently, the
  selector's own map does not.
- A step of a handshake costs 0.1 to 0.4 ms: with 300 of them ready, whoever comes last waits for 100 ms.
- A signal that arrives just before ``select`` is noted, but its Python handler runs only when ``select`` returns.
- After ``fork`` the child's epoll descriptor is the parent's: what the child registers or removes changes that set.

What it means
- A number does not say whose event it is. A late entry must not reach the new owner, and registering a number that is
  known already is no error: it means that the old owner is gone.
- Serving all that is ready is not fair; what is open must not wait for what only wants to be.
- A wake-up must be bytes in a pipe, so that it is not lost between the decision to sleep and the sleep.

Decision
- `add` returns a `Registration`, the generation: the selector's key carries it, an entry counts only while its
  registration is the one of its descriptor, and a second `add` of a number takes it over.
- Urgent registrations are served first, and all of them. The others wait in a backlog, first come, first served, which
  gets 2 ms of each turn; while there is one, ``select`` does not wait. So neither kind starves the other.
- Those others have a selector of their own, of which the loop's watches the one descriptor, and which is asked when the
  backlog is empty: what is ready is told once, not again in every turn until it is served (with 500 ready, a seventh
  of the time). Where selectors cannot be nested, all are in one.
- One pipe wakes the loop, for other threads and (as the interpreter's wake-up descriptor) for signals.
- The clock of a turn is read once, after ``select``: all of the turn happens "at" that time.
- A callback that raises is logged and loses nobody but itself. ``KeyboardInterrupt`` and ``SystemExit`` end `run`.
- A fork marks the child's reactor: it refuses to run or to change the set, and `close` closes its copies only.

Trade-off
- The one clock makes a deadline late (and one set in a callback early) by at most the length of a turn; deadlines here
  are for people and networks, the turns are milliseconds.
- A backlog's event may be out of date when its time comes: callbacks must bear to be called for nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from tlsserver.errors import ForkedProcessError, ServerStateError
from tlsserver.registration import Registration, is_open, nobody
from tlsserver.selector import EVENT_READ, EVENT_WRITE, SelectorLike, nestable, new_selector
from tlsserver.timers import Timer, Timers
from tlsserver.wakeup import WakePipe

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EVENT_READ", "EVENT_WRITE", "Reactor", "Registration", "Timer"]

logger = logging.getLogger(__name__)

# How long the events that are not urgent may hold a turn. An open connection waits at most so long, and for one event
# more, whatever the number of handshakes.
_BACKLOG_SECONDS = 0.002


class Reactor:
    """A selector loop. Everything but `call_soon_threadsafe` and `stop` belongs to the loop's thread."""

    def __init__(self, selector: SelectorLike | None = None, *, crowd: SelectorLike | None = None) -> None:
        """Make a loop that does not run yet.

        Args:
            selector: Any `selectors.BaseSelector`, or one of selectors2, empty; it becomes the reactor's, and closed
                with it.
                None: selectors2's best one.
            crowd: For those who are not urgent, with a descriptor of its own; it becomes the reactor's. None: another
                of the same kind, or the same one.
        """
        self._selector: SelectorLike = new_selector() if selector is None else selector
        self._registrations: dict[int, Registration] = {}
        self._backlog: OrderedDict[Registration, int] = OrderedDict()  # whose first is found at once, however many went
        self._timers = Timers()
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._hooks: list[Callable[[], object]] = []
        self._now = time.monotonic()
        self._thread: int | None = None
        self._stopping = self._is_hurried = False
        self._is_barred = self._forked = self._closed = False  # barred: either of the others
        self._crowd = crowd or nestable(self._selector) or self._selector
        self._pipe = WakePipe()
        self.add(self._pipe.read_fd, EVENT_READ, self._woken, urgent=True)
        if self._crowd is not self._selector:
            self.add(self._crowd.fileno(), EVENT_READ, self._gather, urgent=True)  # type: ignore[attr-defined]
        _alive.add(self)

    # Descriptors

    def add(self, fd: int, events: int, callback: Callable[[int], object], *, urgent: bool = False) -> Registration:
        """Watch a descriptor; a number that is registered already goes to the new owner.

        Args:
            fd: An open descriptor.
            events: `EVENT_READ`, `EVENT_WRITE`, both, or 0 to watch nothing yet.
            callback: Called with the events that are ready.
            urgent: Whether its events are served first in each turn, and all of them.

        Returns:
            The registration, for `modify` and `remove`.

        Raises:
            OSError: The descriptor cannot be watched (a regular file, not open).
            ForkedProcessError: The reactor belongs to the parent process.
        """
        if self._is_barred:
            self._refuse()
        owner = self._registrations.pop(fd, None)
        if owner is not None:
            self._unwatch(owner)
        registration = Registration(fd, callback, urgent=urgent)
        self._watch(registration, events)
        self._registrations[fd] = registration
        return registration

    def modify(self, registration: Registration, events: int) -> None:
        """Watch for other events; 0 watches nothing, not even errors. No system call if nothing changes.

        Raises:
            ForkedProcessError: The reactor belongs to the parent process.
        """
        if self._is_barred:
            self._refuse()
        if events == registration.events or self._registrations.get(registration.fd) is not registration:
            return
        if events and registration.events:
            self._selector_of(registration).modify(registration.fd, events, registration)
            registration.events = events
        elif events:
            self._watch(registration, events)
        else:
            self._unwatch(registration)

    def make_urgent(self, registration: Registration) -> None:
        """Serve its events first from now on. Idempotent."""
        events = registration.events
        if not registration.urgent and events and self._crowd is not self._selector:
            self._unwatch(registration)
            registration.urgent = True
            self._watch(registration, events)
        registration.urgent = True

    def remove(self, registration: Registration) -> None:
        """Stop watching, before the descriptor is closed. Does nothing if the number has a newer owner. Idempotent.

        Raises:
            ForkedProcessError: The reactor belongs to the parent process.
        """
        if self._is_barred:
            self._refuse()
        self._backlog.pop(registration, None)
        registration.callback = nobody  # its owner knows it: a cycle would keep both until a garbage collection
        if self._registrations.get(registration.fd) is registration:
            del self._registrations[registration.fd]
            self._unwatch(registration)

    def _watch(self, registration: Registration, events: int) -> None:
        if not events:
            return
        selector = self._selector_of(registration)
        try:
            selector.register(registration.fd, events, registration)
        except BaseException:
            # selectors2 keeps the key of a registration that the kernel refused.
            with contextlib.suppress(KeyError):
                selector.unregister(registration.fd)
            raise
        registration.events = events

    def _unwatch(self, registration: Registration) -> None:
        if registration.events:
            registration.events = 0
            self._selector_of(registration).unregister(registration.fd)

    def _selector_of(self, registration: Registration) -> SelectorLike:
        return self._selector if registration.urgent else self._crowd

    # Calls

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - as in asyncio
        """Call it in the next turn, in the order asked for."""
        self._soon.append((callback, args))

    def hurry(self) -> None:
        """Let the next turn come at once: it does not wait for events."""
        self._is_hurried = True

    def end_turn_soon(self) -> None:
        """Something waits for the end of a turn. Here every turn has its end; `LoopReactor` has to ask for one."""

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - as in asyncio
        """Call it on the loop's thread, and wake the loop. Any thread, and signal handlers; it never waits."""
        self._soon.append((callback, args))
        self._pipe.wake()

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:  # noqa: ANN401 - as in asyncio
        """Call it ``delay`` seconds after the beginning of this turn.

        Returns:
            A handle with ``cancel()``.
        """
        return self.call_at(self.time() + delay, callback, *args)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:  # noqa: ANN401 - as in asyncio
        """Call it at a time of this reactor's clock, not before.

        Returns:
            A handle with ``cancel()``.
        """
        return self._timers.add(when, callback, args)

    def at_end_of_turn(self, hook: Callable[[], object]) -> None:
        """Call it at the end of every turn. It must be cheap when there is nothing to do."""
        self._hooks.append(hook)

    def time(self) -> float:
        """Return the time of this turn in seconds (CLOCK_MONOTONIC); outside of a running loop, the time now."""
        return time.monotonic() if self._thread is None else self._now

    @property
    def wakeup_fd(self) -> int:
        """The writing end of the pipe that wakes the loop, for `signal.set_wakeup_fd`."""
        return self._pipe.write_fd

    @property
    def thread_ident(self) -> int | None:
        """The thread that runs the loop (`threading.get_ident`), None while it does not run."""
        return self._thread

    @property
    def is_forked(self) -> bool:
        """Whether this is a child's copy of its parent's reactor."""
        return self._forked

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    # Running

    def run(self) -> None:
        """Run turns until `stop`.

        Raises:
            ForkedProcessError: The reactor was made before a fork, by the parent.
            ServerStateError: It is closed, or runs already.
        """
        if self._is_barred:
            self._refuse()
        if self._thread is not None:
            message = "this reactor runs already"
            raise ServerStateError(message)
        self._now = time.monotonic()
        self._thread = threading.get_ident()
        try:
            while not self._stopping:
                self.run_turn()
        finally:
            self._thread = None
            self._stopping = False

    def run_turn(self, timeout: float | None = None) -> None:
        """Wait for events, at most until the next deadline, and serve one turn of them.

        Args:
            timeout: Wait at most so many seconds; None: as long as it takes.

        Raises:
            ForkedProcessError: The reactor was made before a fork, by the parent.
        """
        if self._is_barred:
            self._refuse()
        ready = self._select(self._patience(timeout))
        self._is_hurried = False
        self._now = time.monotonic()
        self._take(ready)
        for timer in self._timers.take_due(self._now):
            self._call(timer.run, ())
        for _ in range(len(self._soon)):
            self._call(*self._soon.popleft())
        if self._backlog:
            self._serve_backlog()
        for hook in self._hooks:
            self._call(hook, ())

    def _take(self, ready: list[tuple[Any, int]]) -> None:
        """Serve what is urgent, put the rest into the backlog."""
        backlog = self._backlog
        for key, events in ready:
            registration: Registration = key.data
            if registration.urgent:
                self._serve(registration, events)
            else:
                backlog[registration] = events | backlog.get(registration, 0)

    def _woken(self, events: int) -> None:
        self._pipe.drain(events)

    def _gather(self, _events: int) -> None:
        """Some who are not urgent have events: look which, when those of the last time are served."""
        if not self._backlog:
            self._take(self._crowd.select(0))

    def _select(self, timeout: float | None) -> list[tuple[Any, int]]:
        """Wait. Where a closed descriptor fails the whole set (select(2): EBADF) it is left out from then on."""
        try:
            return self._selector.select(timeout)
        except OSError:
            closed = [one for one in self._registrations.values() if one.events and not is_open(one.fd)]
            if not closed:
                raise
        for registration in closed:
            # Told once, as poll(2) does it: whoever waits for it looks what has become of it.
            self._soon.append((registration.callback, (registration.events,)))
            self._unwatch(registration)
        return []

    def _serve(self, registration: Registration, events: int) -> None:
        """Make the callback of an event, if its registration is still the descriptor's and still wants it."""
        wanted = events & registration.events
        if wanted and self._registrations.get(registration.fd) is registration:
            callback = registration.callback
            try:
                callback(wanted)
            except Exception:
                logger.exception("a callback of the loop failed: %r", callback)

    def _serve_backlog(self) -> None:
        """Serve what is not urgent, first come, first served, until its time is up; the rest comes next turn."""
        backlog = self._backlog
        until = time.monotonic() + _BACKLOG_SECONDS
        while backlog:
            self._serve(*backlog.popitem(last=False))
            if time.monotonic() >= until:
                return

    def stop(self) -> None:
        """End `run` after the turn in progress. Any thread, and signal handlers."""
        self._stopping = True
        self._pipe.wake()

    def close(self) -> None:
        """Free the selector and the pipe. Idempotent. In a forked child it closes the child's copies only."""
        if self._closed:
            return
        self._is_barred = self._closed = True
        self._pipe.close()
        self._registrations.clear()
        self._backlog.clear()
        self._timers.clear()
        self._soon.clear()
        self._hooks.clear()
        self._crowd.close()
        self._selector.close()

    def _patience(self, timeout: float | None) -> float | None:
        """Return how long to wait: not at all if work is there, else until the first living deadline."""
        if self._soon or self._backlog or self._stopping or self._is_hurried:
            return 0
        when = self._timers.next_when()
        if when is None:
            return timeout
        due = max(when - self.time(), 0)
        return due if timeout is None else min(due, timeout)

    def _call(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            callback(*args)
        except Exception:
            logger.exception("a callback of the loop failed: %r", callback)

    def _refuse(self) -> None:
        if self._forked:
            message = "this reactor belongs to the parent process: after a fork the child makes its own"
            raise ForkedProcessError(message)
        message = "this reactor is closed"
        raise ServerStateError(message)


_alive: weakref.WeakSet[Reactor] = weakref.WeakSet()


def _mark_forked() -> None:
    for reactor in list(_alive):
        reactor._is_barred = reactor._forked = True  # noqa: SLF001 - one mechanism in the classes of one file
        reactor._pipe.forget_lock()  # noqa: SLF001 - one mechanism in the classes of one file


os.register_at_fork(after_in_child=_mark_forked)
