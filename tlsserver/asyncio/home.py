"""What all TLS connections of one asyncio loop share, from the first of them to the loop's end."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from tlsserver import state as states
from tlsserver.asyncio.reactor import LoopReactor
from tlsserver.config import ServerConfig
from tlsserver.drains import Drains
from tlsserver.driver import Hub
from tlsserver.errors import ConfigurationError
from tlsserver.job_line import JobLine
from tlsserver.loop_engines import LoopEngines
from tlsserver.session import READ_SIZE
from tlsserver.stats import Counters

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from tlsserver.driver import Driver
    from tlsserver.listener import Listener

__all__ = ["Home", "home_of"]

logger = logging.getLogger(__name__)

_ATTRIBUTE = "_tlsserver_home"

_WITH_JOB = states.PARKED | {states.State.DRAINING}

# When the loop closes, nobody is left to be served; our engines end a cancelled job at once, a third party's may take
# as long as its operation.
_DRAIN_SECONDS = 1.5
_DRAIN_POLL = 0.05


class Home:
    """Loop thread only.

    Attributes:
        loop: The loop.
        reactor: On it.
        hub: All connections.
        engines: Those that it uses.
        buffer: Every session's, for reading.
        drains: The jobs that go on without their connections, of those that are no server's.
        counters: One for each server, and one for whatever is no server's.
        listeners: Those that accept.
        others: What is counted of connections that are no server's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to use a loop; `home_of` does it once for each."""
        self.loop = loop
        self.reactor = LoopReactor(loop)
        self.hub = Hub(self.reactor)
        self.engines = LoopEngines(self.reactor)
        self.buffer = bytearray(READ_SIZE)
        self.drains = Drains(ServerConfig().draining_most)
        self.others = Counters()
        self.counters: list[Counters] = [self.others]
        self.listeners: set[Listener] = set()
        self._line = JobLine(self.reactor, self.hub.jobs, self._jobs_ended)
        self._close_loop = loop.close
        self._thread: int | None = None  # where the loop ran last: jobs can be resumed there alone
        self._is_closed = self._is_flush_asked_for = False
        self.reactor.at_end_of_turn(self._end_of_turn)

    def hold(self, driver: Driver) -> None:
        """Let a connection's writes wait until the loop has done what it is doing."""
        self.hub.held.append(driver)
        self._ask_for_flush()

    def _ask_for_flush(self) -> None:
        if not self._is_flush_asked_for:
            self._is_flush_asked_for = True
            self.loop.call_soon(self._flush, context=self.reactor.context)

    def _flush(self) -> None:
        self._is_flush_asked_for = False
        try:
            self.hub.flush()
        finally:
            if self.hub.held:
                self._ask_for_flush()

    def _jobs_ended(self) -> int:
        return sum(counters.jobs_ended for counters in self.counters)

    def _end_of_turn(self) -> None:
        self._thread = threading.get_ident()
        self._line.serve()
        self.hub.apply()
        for listener in self.listeners:
            listener.admit()
        self.engines.take_turns(sum(counters.handshakes_in_progress for counters in self.counters))

    def close_loop(self) -> None:
        """Close the loop, behind everything that is open on it.

        Raises:
            RuntimeError: The loop runs.
        """
        # At the interpreter's end nothing can be driven any more; what the shim has at exit it drains by itself.
        if not (self.loop.is_running() or self._is_closed or sys.is_finalizing()):
            self._is_closed = True
            try:
                self._end()
            except Exception:
                logger.exception("what TLS had open on the event loop could not all be closed")
        self._close_loop()

    def _end(self) -> None:
        """Cancel and drain what is parked, drop the rest; as at the end of asyncio's loop no protocol is called."""
        if self.reactor.is_forked:  # the descriptors' parent goes on with them
            self.reactor.close()
            return
        self._tell()
        self.reactor.leave_loop()
        self.hub.flush()
        for listener in tuple(self.listeners):
            listener.close()
        self.listeners.clear()
        self._leave_behind()
        for driver in tuple(self.hub.drivers):
            driver.connection.audience.forsake()  # type: ignore[attr-defined] # one of ours
            driver.abort()
        self._drain()
        self.engines.leave()
        self.reactor.close()

    def _leave_behind(self) -> None:
        """A job can be resumed, and so ended, only where it was started: let go of those of another thread."""
        if self._thread in (None, threading.get_ident()):
            return
        foreign = [driver for driver in self.hub.drivers if driver.connection.state in _WITH_JOB]
        for driver in foreign:
            driver.dispose()
        if foreign:
            logger.error(
                "the event loop is closed on another thread than it ran on: %d paused jobs are left behind",
                len(foreign),
            )

    def _tell(self) -> None:
        handshaking = sum(driver.connection.state in states.HANDSHAKING for driver in self.hub.drivers)
        if handshaking:
            logger.warning(
                "the event loop is closed with %d TLS handshakes in progress: they are cancelled", handshaking
            )

    def _drain(self) -> None:
        until = time.monotonic() + _DRAIN_SECONDS
        self.hub.apply()
        while self.hub.drivers and time.monotonic() < until:
            self.reactor.run_turn(_DRAIN_POLL)
        if self.hub.drivers:
            logger.error(
                "%d jobs have not ended within %.1f s and are left behind", len(self.hub.drivers), _DRAIN_SECONDS
            )


def home_of(loop: asyncio.AbstractEventLoop) -> Home:
    """Return the home of a loop, made at the first call; from then on the loop's ``close`` closes it as well.

    Raises:
        ConfigurationError: The loop cannot be used.
    """
    home: Home | None = getattr(loop, _ATTRIBUTE, None)
    if home is None:
        home = Home(loop)
        try:
            setattr(loop, _ATTRIBUTE, home)
            _replace(loop, "close", home.close_loop)
        except AttributeError:
            home.reactor.close()
            message = (
                f"{type(loop).__name__} takes no attributes, so its end cannot be seen: use asyncio's loop or uvloop"
            )
            raise ConfigurationError(message) from None
    return home


def _replace(loop: Any, name: str, method: Callable[[], object]) -> None:  # noqa: ANN401 - assigning to a method
    setattr(loop, name, method)
