"""The key server: a process that keeps private keys, and signs for others over the keyless protocol.

One loop serves all of its sockets: Unix sockets (`LocalService`) and TLS (`Service`, the same that serves everything
else). Requests of all clients meet at one desk and go to one engine, so those of different clients share batches.
"""

from __future__ import annotations

import functools
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsserver.drains import Drains
from tlsserver.errors import ConfigurationError, ServerStateError
from tlsserver.reactor import EVENT_READ, Reactor
from tlsserver.service import Service
from tlsserver.signals import stop_signals
from tlsserver.signers.keyserver_access import Allowed
from tlsserver.signers.keyserver_grace import Succession
from tlsserver.signers.keyserver_local import LocalService
from tlsserver.signers.keyserver_protocol import KeylessProtocol
from tlsserver.stats import Counters
from tlsserver.turns import Turns

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from engine_shim import Engine, EngineStatistics
    from tlsserver.config import ServerConfig
    from tlsserver.protocols.base import Transport
    from tlsserver.session import ContextLike
    from tlsserver.signers.keyserver_desk import Desk
    from tlsserver.signers.keyserver_keys import KeyRing

__all__ = ["MAX_PENDING", "KeyServer", "KeyServerStatistics"]

logger = logging.getLogger(__name__)

# Of one client in the engine. 256 fill 32 batches: one client alone can keep the engine busy, and its requests hold at
# most 16 MB (64 KiB each, as the protocol has it; a digest has 32 bytes).
MAX_PENDING = 256

_GRACEFUL = 8.0  # seconds, as `tlsserver.ServerConfig` has it
_LAST_TURNS = 100  # of the loop, for what was aborted to be told so
_TURN = 0.01  # seconds


@dataclass(frozen=True)
class KeyServerStatistics:
    """What a key server has done, and has in hand.

    Attributes:
        connections: Open now.
        signed: Requests answered with a signature or a decryption.
        refused: Requests that were not begun.
        failed: Requests that the engine could not perform.
        given_up: Requests whose client has left meanwhile.
        pings: Answered.
        in_progress: Requests in the engine now.
        engine: What the engine says.
    """

    connections: int
    signed: int
    refused: int
    failed: int
    given_up: int
    pings: int
    in_progress: int
    engine: EngineStatistics


class KeyServer:
    """A key server on one thread. It serves once. As a context manager it serves on a thread of its own."""

    def __init__(
        self, desk: Desk, engine: Engine, *, allowed: Allowed | None = None, max_pending: int = MAX_PENDING
    ) -> None:
        """Make a key server that has nothing to serve yet; `serve_local` and `serve_tls` give it.

        Args:
            desk: Takes the requests.
            engine: Performs them: that of the desk's keys. It stays the caller's.
            allowed: Who may come in; None: the user that this process runs as, and whoever has a certificate.
            max_pending: Requests of one client that are in the engine at a time.

        Raises:
            ConfigurationError: ``max_pending`` is less than 1.
        """
        if max_pending < 1:
            raise ConfigurationError(f"max_pending={max_pending} cannot work: give 1 or more")
        self._desk = desk
        self._engine = engine
        self._allowed = allowed or Allowed()
        self._max_pending = max_pending
        self._reactor = Reactor()
        self._keys = Succession(desk.ring, later=self._reactor.call_later, changed=self._serve_keys)
        desk.asked_for = self._keys.asked_for
        self._turns = Turns(self._reactor)
        self._counters = Counters()
        self._drains = Drains(1)
        self._context: ContextLike | None = None
        self._local: list[LocalService] = []
        self._tls: list[Service] = []
        self._going: set[int] = set()
        self._thread: threading.Thread | None = None
        self._has_run = False
        self._graceful = _GRACEFUL

    # What is served

    def serve_local(self, *, listening: socket.socket | None = None, connected: socket.socket | None = None) -> None:
        """Serve a Unix socket, before `run`: one that listens, or a connected one, whose end is its end."""
        number = self._new_side()
        service = LocalService(
            self._reactor,
            protocol_factory=self._factory(self._local_identity, pad=False),
            ended=functools.partial(self._side_ended, number),
            listening=listening,
            connected=connected,
        )
        self._local.append(service)

    def serve_tls(self, listening: socket.socket, context: ContextLike, config: ServerConfig) -> None:
        """Serve TLS, before `run`.

        Args:
            listening: Bound and listening; it becomes the server's.
            context: Has to ask for certificates; all that is listened on has the same one.
            config: What else there is to set.
        """
        self._context = context
        number = self._new_side()
        service = Service(
            config,
            self._counters,
            listening,
            self._reactor,
            drains=self._drains,
            current_context=self._current_context,
            protocol_factory=self._factory(self._certified_identity, pad=True),
            ended=functools.partial(self._side_ended, number),
        )
        self._tls.append(service)

    def _current_context(self) -> ContextLike:
        if self._context is None:
            raise ServerStateError("no TLS is served")
        return self._context

    def _factory(self, identify: Callable[[Transport], str | None], *, pad: bool) -> Callable[[], KeylessProtocol]:
        return lambda: KeylessProtocol(self._desk, identify, max_pending=self._max_pending, pad=pad)

    def _local_identity(self, transport: Transport) -> str | None:
        return self._allowed.local(transport.get_extra_info("client"))

    def _certified_identity(self, transport: Transport) -> str | None:
        certificate = transport.get_extra_info("client_certificate")
        return None if certificate is None else self._allowed.certified(certificate)

    # Life

    def run(self, *, started: Callable[[], object] | None = None, graceful: float = _GRACEFUL) -> None:
        """Serve on this thread until `stop`; on the main thread SIGINT and SIGTERM stop it as well.

        Args:
            started: Called once, when clients are served and signals are heeded.
            graceful: Seconds that a first signal leaves for what is under way.

        Raises:
            OSError: No file descriptor is to be had.
            ServerStateError: It has run before.
        """
        if self._has_run:
            raise ServerStateError("a key server serves once: make another")
        self._has_run = True
        self._graceful = graceful
        try:
            self._reactor.add(self._desk.open(), EVENT_READ, lambda _events: self._desk.finish(), urgent=True)
            if self._engine.needs_turns:
                self._turns.add(self._engine)
            self._reactor.at_end_of_turn(self._end_of_turn)
            with stop_signals(self._reactor.wakeup_fd, self._on_signal):
                if started is not None:
                    self._reactor.call_soon(started)
                self._reactor.run()
        finally:
            self.close()

    def stop(self, graceful: float = _GRACEFUL) -> None:
        """Accept no more, answer what was asked, then end. Any thread; it does not wait.

        Args:
            graceful: Seconds after which what is left is dropped.
        """
        self._reactor.call_soon_threadsafe(self._begin_stop, graceful)

    def close(self) -> None:
        """Drop what is left, and free everything but keys and engine. Idempotent."""
        if self._reactor.is_closed:
            return
        for local in self._local:
            local.begin_stop()
            local.abort()
        for service in self._tls:
            service.close()
        for _ in range(_LAST_TURNS):
            if not any(local.connections for local in self._local):
                break
            self._reactor.run_turn(_TURN)
        self._desk.close()
        self._desk.audit.flush()
        self._reactor.close()

    def replace(self, ring: KeyRing, context: ContextLike | None = None, *, grace: float = 0.0) -> None:
        """Serve other keys from now on, and show other certificates. Any thread; requests in progress keep theirs.

        Args:
            ring: The keys.
            context: With the certificates; None: they stay.
            grace: Seconds for which the keys before are served as well, from the first request for a new one:
                handshakes have begun with their certificates.
        """
        self._reactor.call_soon_threadsafe(self._replace, ring, context, grace)

    @property
    def ring(self) -> KeyRing:
        """The keys that are served, without those that are only for a while. Loop thread only."""
        return self._keys.ring

    def reopen_audit_log(self) -> None:
        """Write to a file of the same name from now on: the one before may have been moved away. Loop thread only."""
        try:
            self._desk.audit.reopen()
        except ConfigurationError as error:
            logger.error("%s", error)  # noqa: TRY400 - a user's mistake

    def call_soon_threadsafe(self, call: Callable[[], object]) -> None:
        """Call it on the loop's thread. Any thread, and signal handlers."""
        self._reactor.call_soon_threadsafe(call)

    def statistics(self) -> KeyServerStatistics:
        """Take a snapshot of the numbers. Any thread; each is exact."""
        done = self._desk.numbers
        connections = self._counters.connections_open + sum(local.connections for local in self._local)
        return KeyServerStatistics(
            connections,
            done.signed,
            done.refused,
            done.failed,
            done.given_up,
            done.pings,
            self._desk.in_progress,
            self._engine.statistics(),
        )

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run_on_thread, args=(ready,), name="key-server", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _run_on_thread(self, ready: threading.Event) -> None:
        try:
            self.run(started=ready.set)
        finally:
            ready.set()  # whoever waits for a start that has failed

    def _end_of_turn(self) -> None:
        """Last in a turn: what clients have asked for in it is performed together."""
        self._turns.take(self._desk.in_progress)

    def _on_signal(self, at_once: bool) -> None:
        self.stop(0 if at_once else self._graceful)

    def _begin_stop(self, graceful: float) -> None:
        logger.info("stopping: %d requests are under way", self._desk.in_progress)
        for local in self._local:
            local.begin_stop()
        for service in self._tls:
            service.begin_stop(graceful)
        self._reactor.call_later(graceful, self._reactor.stop)

    def _new_side(self) -> int:
        number = len(self._local) + len(self._tls)
        self._going.add(number)
        return number

    def _side_ended(self, number: int) -> None:
        self._going.discard(number)
        if not self._going:
            self._reactor.stop()

    def _replace(self, ring: KeyRing, context: ContextLike | None, grace: float) -> None:
        self._keys.replace(ring, grace)
        if context is not None:
            self._context = context

    def _serve_keys(self, ring: KeyRing) -> None:
        self._desk.ring = ring
