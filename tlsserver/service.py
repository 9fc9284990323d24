"""What exists while a server serves: loop, listener and connections. All of it belongs to the loop's thread."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

import engine_shim
from tlsserver.addresses import as_text, own_address
from tlsserver.audience import Audience
from tlsserver.connection import Connection
from tlsserver.driver import Driver, Hub
from tlsserver.errors import ConfigurationError
from tlsserver.job_line import JobLine
from tlsserver.listener import Listener, room
from tlsserver.loop_engines import LoopEngines
from tlsserver.offers import Offers
from tlsserver.session import READ_SIZE, ContextLike, Session
from tlsserver.transport import Transport

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from tlsserver.config import ServerConfig
    from tlsserver.drains import Drains
    from tlsserver.offers import Offer
    from tlsserver.reactor import Reactor
    from tlsserver.stats import Counters

__all__ = ["Service"]

logger = logging.getLogger(__name__)

# How long the loop waits while jobs drain that announce their end to nobody.
_DRAIN_POLL = 0.05

# Our engines end a cancelled job at once; a third party's may take as long as its longest operation. With nobody left
# to serve it may use up the graceful time, up to 5 s: the longest honest operations of HSMs take less. It has 1.5 s in
# any case: with 8, the default of what is graceful, that stays below the 10 after which container runtimes kill.
_DRAIN_SECONDS = 5.0
_DRAIN_LEAST = 1.5


class _Client:
    """Who has connected. Thousands of these are idle at one time: what they have in common is in the offer."""

    __slots__ = ("address", "offer", "session", "socket")

    def __init__(self, offer: Offer, sock: socket.socket, address: Any, session: Session) -> None:  # noqa: ANN401 - its form depends on the family
        self.offer = offer
        self.socket = sock
        self.address = address
        self.session = session

    def __str__(self) -> str:
        """Return the address as the log shows it."""
        return as_text(self.address)

    def transport(self, connection: Connection) -> Transport:
        return Transport(connection, self.offer.clock, self)

    def get(self, name: str, default: Any) -> Any:  # noqa: ANN401 - its type depends on the name
        """Return what `Transport.get_extra_info` tells about the client."""
        fact = _FACTS.get(name)
        return default if fact is None else fact(self)


_FACTS: dict[str, Callable[[_Client], Any]] = {
    "peername": lambda client: client.address,
    "sockname": lambda client: own_address(client.socket),
    "socket": lambda client: client.socket,
    "reactor": lambda client: client.offer.reactor,
    "engine": lambda client: client.offer.engine,
    "wait_context": lambda client: client.session.wait_context,
    "client_certificate": lambda client: client.session.peer_certificate,
    "peercert": lambda client: _peercert(client.session),
}


class Service:
    """One listening socket and its connections on one reactor."""

    def __init__(
        self,
        config: ServerConfig,
        counters: Counters,
        listening: socket.socket,
        reactor: Reactor,
        *,
        drains: Drains,
        current_context: Callable[[], ContextLike],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        ended: Callable[[], object] | None = None,
    ) -> None:
        """Begin to listen; `run` serves.

        Args:
            config: The settings.
            counters: What is counted.
            listening: Bound and listening; it becomes the service's.
            reactor: The loop; it becomes the service's, too, unless `ended` is given.
            drains: The jobs that go on without their connections.
            current_context: Tells the context of the next connection.
            protocol_factory: Makes the protocol of each connection.
            ended: The loop has others to serve: instead of stopping it this is called, at the end of every turn once
                all is over, and somebody else runs it and closes it.
        """
        self.reactor = reactor
        self._owns_reactor = ended is None
        self._ended = reactor.stop if ended is None else ended
        self._config = config
        self._counters = counters
        self._factory = protocol_factory
        self._hub = Hub(reactor)
        self._engines = LoopEngines(reactor)
        self._line = JobLine(reactor, self._hub.jobs, lambda: counters.jobs_ended)
        self._listener = Listener(
            listening, reactor, accepted=self._accepted, room=self._room, budget=config.accept_budget
        )
        self._offers = Offers(
            reactor,
            self._engines,
            bytearray(READ_SIZE),
            counters=counters,
            drains=drains,
            current_context=current_context,
        )
        self._on_closed = self._closed  # one for all
        self._has_bound_jobs = False
        self._stopping, self._graceful_until = False, 0.0
        self._drain_until: float | None = None  # None: `_drain` has not begun
        reactor.at_end_of_turn(self._end_of_turn)

    def run(self) -> None:
        """Serve until `begin_stop` has come to its end, then leave nothing behind.

        Raises:
            ConfigurationError: This thread's pool of jobs cannot be bounded.
        """
        try:
            self._bound_jobs()
            self._offers.current()  # its engines may have somebody to connect to before the first client comes
            self.reactor.run()
        finally:
            self.close()

    def _bound_jobs(self) -> None:
        """The pool is the thread's: the bound is set where the loop runs, and `close` takes it away again."""
        jobs = self._config.async_jobs
        if jobs is None:
            return
        try:
            engine_shim.init_thread(jobs, 0)
        except engine_shim.ShimError as error:
            advice = (
                "serve on a thread that has no paused job" if isinstance(error, engine_shim.BusyError) else "give fewer"
            )
            message = f"async_jobs={jobs} cannot be had here: {error}: {advice}"
            raise ConfigurationError(message) from error
        self._has_bound_jobs = True

    def begin_stop(self, graceful: float) -> None:
        """Accept no more, and finish what is in progress; a later call can only shorten the time.

        Args:
            graceful: Seconds after which what is still open is aborted.
        """
        if not self._stopping:
            self._stopping = True
            if graceful > 0:
                self._listener.accept_waiting(self._config.backlog)
            self._listener.close()
            open_now = len(self._hub.drivers) - self._counters.draining_now
            logger.info("stopping: %d connections to finish within %g s", open_now, graceful)
            for driver in tuple(self._hub.drivers):
                driver.wind_down()
        until = time.monotonic() + graceful
        self._graceful_until = min(until, self._graceful_until or until)
        if graceful > 0:
            self.reactor.call_later(graceful, self._give_up)
        else:
            self._give_up()

    def close(self) -> None:
        """Abort what is left, wait for the jobs that are not ours to end, and free everything. Idempotent.

        In a forked child only the child's copies of the loop's descriptors are closed.
        """
        try:
            if not self.reactor.is_forked and not self.reactor.is_closed:
                self._stopping = True
                self._listener.close()
                self._drain()
                self._engines.leave()
                self._offers.close()
        finally:
            if self._owns_reactor:
                self.reactor.close()
            self._free_jobs()

    def _free_jobs(self) -> None:
        """Jobs that are left behind, and those of others on this thread, need their pool: then it stays (BusyError)."""
        if self._has_bound_jobs and not self.reactor.is_forked:
            self._has_bound_jobs = False
            with contextlib.suppress(engine_shim.BusyError):
                engine_shim.cleanup_thread()

    def _drain(self) -> None:
        begun = time.monotonic()
        self._drain_until = begun + min(max(self._graceful_until - begun, _DRAIN_LEAST), _DRAIN_SECONDS)
        self._abort_all()
        self._hub.apply()
        while self._hub.drivers and time.monotonic() < self._drain_until:
            self.reactor.run_turn(_DRAIN_POLL)
        if self._hub.drivers:
            count, seconds = len(self._hub.drivers), time.monotonic() - begun
            logger.error("%d jobs have not ended within %.1f s and are left behind", count, seconds)

    def _give_up(self) -> None:
        """The time is over, or shall be. While `_drain` turns the reactor, that must not be stopped: it would spin."""
        if self._drain_until is None:
            self._abort_all()
            self._ended()
        else:
            self._drain_until = min(self._drain_until, time.monotonic() + _DRAIN_LEAST)

    def _abort_all(self) -> None:
        for driver in tuple(self._hub.drivers):
            driver.abort()

    # Connections

    def _room(self) -> int:
        return room(self._config, self._counters, len(self._hub.drivers))

    def _accepted(self, sock: socket.socket, address: Any) -> None:  # noqa: ANN401 - its form depends on the family
        def make(driver: Driver) -> Connection:
            return self._make_connection(driver, sock, address)

        Driver(self._hub, sock, make, self._on_closed)
        self._counters.connections_accepted += 1
        self._counters.connections_open += 1

    def _closed(self) -> None:
        self._counters.connections_open -= 1

    def _make_connection(self, driver: Driver, sock: socket.socket, address: Any) -> Connection:  # noqa: ANN401 - its form depends on the family
        offer = self._offers.current()
        session = Session(offer.shared, sock)
        client = _Client(offer, sock, address, session)
        return Connection(
            session,
            config=self._config,
            counters=self._counters,
            audience=Audience(self._factory, client, self._config.write_buffer_limits),
            make_transport=client.transport,
            touch=driver.touch,
            place=driver.place,
            drain=offer.drain,
            peer=client,
            now=self.reactor.time(),
        )

    # Turns

    def _end_of_turn(self) -> None:
        self._line.serve()
        self._hub.apply()
        if not self._stopping:
            self._listener.admit()
        elif self._drain_until is None and len(self._hub.drivers) == self._counters.draining_now:
            self._ended()  # nobody is left but jobs that drain, and `_drain` waits for those
        # Last: what the turn was for is done, and sent, before an engine may take milliseconds.
        self._engines.take_turns(self._counters.handshakes_in_progress)


def _peercert(session: Session) -> dict[str, Any] | None:
    return None if session.peer_certificate is None else session.peer_certificate.peercert()
