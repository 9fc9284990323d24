"""One connection on a reactor: it feeds a `Connection` with events and does what its `Watch` asks for.

Everything that a turn did to the connection is applied once, at the end of the turn, in two passes over all connections
that were touched: `release` (the connection settles, what is not watched any more goes), then `acquire` (what is
watched from now on comes). So a connection that changes its mind within a turn costs no system call, and a descriptor's
number that changes hands within a turn is given up before it is taken.

An open connection that only waits for its peer, and still does so when its events have been served, is calm: nothing is
there to apply. Most requests pass that way.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tlsserver.jobs import JobQueue
from tlsserver.reactor import EVENT_READ, EVENT_WRITE, Reactor, Timer
from tlsserver.state import State
from tlsserver.waitfds import WaitFds

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tlsserver.connection import Connection
    from tlsserver.watch import WaitFd

__all__ = ["Driver", "Hub"]

logger = logging.getLogger(__name__)

# An engine's mistake, so a rare case: 10 ms cost it latency and us nothing.
_UNWATCHABLE_POLL = 0.01

# An attribute of an enumeration costs a call before Python 3.12, and a handshake asks for a hundred of them.
_CLOSED = State.CLOSED


class Hub:
    """What the drivers of one loop share.

    Attributes:
        reactor: The loop.
        wait_fds: The wait fds of all parked connections.
        drivers: Every driver whose connection is not closed.
        held: Those whose writes wait until the loop has done what it is doing.
        touched: Those to be applied at the end of this turn.
        jobs: Those that wait for a job.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.wait_fds = WaitFds(reactor)
        self.drivers: set[Driver] = set()
        self.touched: list[Driver] = []
        self.held: list[Driver] = []
        self.jobs = JobQueue()

    def flush(self) -> None:
        """Let the held writes go."""
        held, self.held = self.held, []
        try:
            while held:
                held.pop().flush()
        finally:
            self.held += held  # nothing, unless the loop is being interrupted

    def apply(self) -> None:
        """Apply what this turn did; what that does (a protocol uses another connection) waits for the next turn."""
        if not self.touched:
            return
        now = self.reactor.time()
        touched, self.touched = self.touched, []
        rest = iter(touched)
        wanting: list[Driver] = []
        try:
            wanting.extend(driver for driver in rest if driver.release(now))
        finally:  # a KeyboardInterrupt of one connection is no other's
            self.touched.extend(rest)
            if self.touched:
                self.reactor.hurry()
            try:
                while wanting:
                    wanting[-1].acquire(now)
                    wanting.pop()
            finally:
                for driver in wanting:
                    driver.touch()
            if self.touched:
                self.reactor.hurry()


class Driver:
    """Feeds one connection. Loop thread only.

    Attributes:
        connection: What is fed.
        place: Its place among those who wait for a job.
    """

    __slots__ = (
        "_fds",
        "_hub",
        "_is_calm",
        "_is_touched",
        "_on_closed",
        "_registration",
        "_socket",
        "_timer",
        "_unwatchable",
        "_watch",
        "connection",
        "place",
    )

    def __init__(
        self,
        hub: Hub,
        sock: socket.socket,
        make_connection: Callable[[Driver], Connection],
        on_closed: Callable[[], object],
    ) -> None:
        """Begin to feed a connection.

        Args:
            hub: What the drivers share.
            sock: Non-blocking; it becomes the driver's.
            make_connection: Makes the connection, which calls back `touch`.
            on_closed: Called when all is over.
        """
        self._hub = hub
        self._socket = sock
        self._on_closed = on_closed
        self._fds: tuple[WaitFd, ...] = ()
        self._timer: Timer | None = None
        self._unwatchable: Timer | None = None
        self._is_touched = False
        self._is_calm = False  # it is watched for nothing but the peer's bytes, as a calm connection is
        self.place = hub.jobs.place(self.resume)
        self._registration = hub.reactor.add(sock.fileno(), EVENT_READ, self._ready)
        try:
            self.connection = make_connection(self)
        except BaseException:
            hub.reactor.remove(self._registration)
            raise
        hub.drivers.add(self)
        # It waits for its client, and for nothing else: the registration is there, the deadline is left.
        self._watch = self.connection.watch()
        self._set_timer(self._watch.deadline)

    def touch(self) -> None:
        """The connection was used: apply what it wants at the end of this turn."""
        if not self._is_touched:
            touched = self._hub.touched
            if not touched:  # else a turn was asked for already
                self._hub.reactor.end_turn_soon()
            touched.append(self)
            self._is_touched = True

    def flush(self) -> None:
        """Let its held writes go."""
        self._feed(self.connection.uncork)

    def listen(self) -> None:
        """The protocol is ready for what has come."""
        self.connection.audience.is_deaf = False
        self._feed(self.connection.turn)

    def begin(self) -> None:
        """Begin the handshake: a client speaks first."""
        self._feed(self.connection.writable)

    def wind_down(self) -> None:
        """The server is stopping."""
        self._feed(self.connection.wind_down)

    def abort(self) -> None:
        """Close at once."""
        self._feed(self.connection.abort)

    def resume(self) -> None:
        """A wait fd is readable, or a job may be had."""
        self._feed(self.connection.resume)

    def _ready(self, events: int) -> None:
        if events & EVENT_READ:
            self._feed(self.connection.readable)
        if events & EVENT_WRITE:
            self._feed(self.connection.writable)

    def _due(self) -> None:
        self._timer = None
        deadline = self._watch.deadline
        if deadline is not None and deadline <= self._hub.reactor.time():
            self._feed(self.connection.expire)
            self.touch()  # a calm connection's deadline has moved on without a word: the next is to be set
        else:
            self._set_timer(deadline)

    def _feed(self, tell: Callable[[float], object]) -> None:
        """Tell the connection something."""
        now = self._hub.reactor.time()
        try:
            tell(now)
        except Exception as error:  # noqa: BLE001 - see _failed
            self.touch()
            self._failed(error, now)
        except BaseException:  # KeyboardInterrupt: the loop may go on, and OpenSSL hold what was not read
            self._hub.reactor.call_soon(self._feed, self.connection.turn)
            self.touch()
            raise
        else:
            if not (self._is_calm and self.connection.is_calm):
                self.touch()

    def _failed(self, error: Exception, now: float) -> None:
        """An error of ours (the protocol's are caught further up) costs this connection only."""
        logger.error("a connection failed and is dropped", exc_info=error)
        try:
            self.connection.abort(now)
        except Exception:
            logger.exception("it could not even be closed: its TLS state is left behind")
            self.dispose()

    def release(self, now: float) -> bool:
        """First pass: settle, and give up what is not watched any more.

        Returns:
            Whether there may be something to `acquire`.
        """
        self._is_touched = False
        connection = self.connection
        try:
            connection.settle(now)
        except Exception as error:  # noqa: BLE001 - see _failed
            self._failed(error, now)
        except BaseException:
            self.touch()
            raise
        is_closed = connection.state is _CLOSED
        if connection.tls is not None and not (self._registration.urgent or is_closed):
            self._make_urgent(now)
            is_closed = connection.state is _CLOSED
        if is_closed or self not in self._hub.drivers:
            self.dispose()
            return False
        before, watch = self._watch, connection.watch()
        self._watch = watch
        self._is_calm = connection.is_calm and watch.read and not (watch.write or watch.again or watch.wait_fds)
        fds = watch.wait_fds
        if self._fds and self._fds != fds:
            self._release_fds(fds)
        return before != watch or self._timer is None or watch.again or self._fds != fds

    def _make_urgent(self, now: float) -> None:
        """Whoever has finished the handshake is not held up by those who have not."""
        try:
            self._hub.reactor.make_urgent(self._registration)
        except OSError as error:  # a protocol has closed the socket, or the kernel watches no more
            self._failed(error, now)

    def acquire(self, now: float) -> None:
        """Second pass: watch what is wanted from now on."""
        watch = self._watch
        events = (EVENT_READ if watch.read else 0) | (EVENT_WRITE if watch.write else 0)
        if events != self._registration.events:
            try:
                self._hub.reactor.modify(self._registration, events)
            except OSError as error:  # the same
                self._failed(error, now)
                self.touch()
        if self._fds != watch.wait_fds:
            self._acquire_fds(watch.wait_fds)
        self._set_timer(watch.deadline)
        if watch.again:
            self._hub.reactor.call_soon(self._feed, self.connection.turn)

    def _release_fds(self, wanted: tuple[WaitFd, ...]) -> None:
        for fd in self._fds:
            if fd not in wanted:
                self._hub.wait_fds.remove(fd.number, self.resume)
        self._fds = tuple(fd for fd in self._fds if fd in wanted)

    def _acquire_fds(self, wanted: tuple[WaitFd, ...]) -> None:
        for fd in wanted:
            if fd in self._fds:
                continue
            try:
                self._hub.wait_fds.add(fd.number, self.resume, urgent=self._registration.urgent, serial=fd.serial)
                self._fds += (fd,)
            except OSError as error:
                logger.debug("the engine's wait fd %d cannot be watched, so it is polled: %s", fd.number, error)
                self._poll_unwatchable()

    def _poll_unwatchable(self) -> None:
        if self._unwatchable is None or self._unwatchable.cancelled():
            self._unwatchable = self._hub.reactor.call_later(_UNWATCHABLE_POLL, self.resume)

    def _set_timer(self, deadline: float | None) -> None:
        """Keep a timer due no later than the deadline: an early one looks again, so most deadlines move for free."""
        timer = self._timer
        if deadline is None or (timer is not None and timer.when <= deadline):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._hub.reactor.call_at(deadline, self._due)

    def dispose(self) -> None:
        """Let go of the connection as it is; a job that is paused is left behind. Idempotent."""
        hub = self._hub
        if self not in hub.drivers:
            return
        hub.drivers.discard(self)
        hub.reactor.remove(self._registration)
        self.place.close()
        if self._fds:
            self._release_fds(())
        for timer in (self._timer, self._unwatchable):
            if timer is not None:
                timer.cancel()
        self._socket.close()
        on_closed, self._on_closed = self._on_closed, _nothing
        on_closed()


def _nothing() -> None:
    """What is left to call once all is over: so no cycle of references outlives it."""
