"""The server as its users see it: settings, life and threads. What serves is `tlsserver.service.Service`."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from tlsserver.config import ServerConfig
from tlsserver.drains import Drains
from tlsserver.engine_sums import EngineSums
from tlsserver.errors import ConfigurationError, ForkedProcessError, ServerStateError
from tlsserver.listener import bind
from tlsserver.reactor import Reactor
from tlsserver.selector import SelectorLike, new_selector
from tlsserver.service import Service
from tlsserver.signals import stop_signals
from tlsserver.stats import Counters, Statistics

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from tlsserver.config import ServerOptions
    from tlsserver.session import ContextLike

__all__ = ["Server"]

# The loop has to finish its turn and to drain its jobs; what takes longer is stuck.
_EXIT_SECONDS = 6.0


class Server:
    """A TLS server on one thread. It serves once: to serve again, make another.

    As a context manager it serves on a thread of its own inside the ``with`` block::

        with Server(context, MyProtocol, port=0) as server:
            host, port = server.address
    """

    def __init__(
        self,
        context: ContextLike,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *,
        selector: SelectorLike | str | None = None,
        config: ServerConfig | None = None,
        **options: Unpack[ServerOptions],
    ) -> None:
        """Make a server that does not listen yet.

        Args:
            context: Certificates, keys and policy: a `tlsserver.TLSContext`.
            protocol_factory: Called without arguments after each handshake; returns an `asyncio.Protocol`.
            selector: A selector (any `selectors.BaseSelector`, empty) or the name of one; None: selectors2's best.
            config: The settings; None: the defaults.
            options: Settings by name (``host``, ``port``, ``max_handshakes`` ...), instead of ``config``.

        Raises:
            ConfigurationError: A setting cannot work.
            TypeError: No such setting, or both ``config`` and options.
        """
        if config is not None and options:
            message = "give either config or options, not both"
            raise TypeError(message)
        self._config = ServerConfig(**options) if config is None else config
        self._context = context
        self._factory = protocol_factory
        self._selector = selector
        self._counters = Counters()
        self._drains = Drains(self._config.draining_most)
        self._engines = EngineSums(context)
        self._service: Service | None = None
        self._address: tuple[str, int] | None = None
        self._lock = threading.Lock()
        self._is_claimed = False
        self._ended = threading.Event()
        self._crash: BaseException | None = None
        self._pid = os.getpid()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port.

        Raises:
            ServerStateError: It does not listen yet.
        """
        if self._address is None:
            message = "the server does not listen yet: call listen(), start() or run()"
            raise ServerStateError(message)
        return self._address

    def listen(self) -> tuple[str, int]:
        """Bind and listen; clients can connect, and are served as soon as the server runs. Idempotent.

        Returns:
            Host and port.

        Raises:
            AddressError: The address cannot be listened on.
            ConfigurationError: The selector cannot be had.
        """
        self._check_process()
        with self._lock:
            if self._service is None:
                self._service = self._open()
        return self.address

    def run(self, *, started: Callable[[], object] | None = None) -> None:
        """Serve on this thread until `stop`.

        On the main thread SIGINT and SIGTERM stop it as well, gracefully; a second one stops it at once.

        Args:
            started: Called once, when clients can connect and signals are heeded: the moment to say so.

        Raises:
            AddressError: The address cannot be listened on.
            ConfigurationError: This thread cannot have the jobs that ``async_jobs`` asks for.
            ServerStateError: It runs already, or has run.
        """
        service = self._claim()
        try:
            with stop_signals(service.reactor.wakeup_fd, self._on_signal):
                if started is not None:
                    service.reactor.call_soon(started)
                service.run()
        finally:
            self._finish(service)

    def start(self) -> None:
        """Serve on a thread of its own; returns when clients can connect.

        Raises:
            AddressError: The address cannot be listened on.
            ServerStateError: It runs already, or has run.
        """
        service = self._claim()
        thread = threading.Thread(target=self._serve_on_thread, args=(service,), name="tlsserver", daemon=True)
        # A paused job must be drained before OpenSSL's clean-up, also in a program that forgets to stop its server.
        atexit.register(self._stop_at_exit)
        thread.start()

    def stop(self, graceful: float | None = None) -> None:
        """Stop: accept no more, let handshakes and responses finish, then close. Any thread; idempotent.

        Returns when the server has ended; called on the loop's own thread (by a protocol) it returns at once.

        Args:
            graceful: Seconds to wait for what is in progress, 0 for none; None: ``timeout_graceful_shutdown``.

        Raises:
            ForkedProcessError: The server belongs to the parent process.
            BaseException: What ended the loop of `start`, if it failed.
        """
        self._check_process()
        with self._lock:
            never_ran = not self._is_claimed
            self._is_claimed = True
        service = self._service
        if never_ran:
            if service is not None:
                service.close()
            self._ended.set()
        elif service is not None and not self._ended.is_set():
            self._request_stop(service, graceful)
        if service is None or service.reactor.thread_ident != threading.get_ident():
            self._ended.wait()
            self._raise_crash()

    def swap_context(self, context: ContextLike) -> None:
        """Use another context for new connections; open ones keep theirs. Any thread."""
        self._engines.add(context)
        self._context = context

    def reload(self, make: Callable[[], ContextLike] | None = None) -> None:
        """Make the context anew from its files, and use it for new connections. Any thread.

        The caller waits while files are parsed; the loop does not, unless it is the caller.

        Args:
            make: Makes the next context; None: `tlsserver.TLSContext.replace`, with nothing changed but the files.

        Raises:
            ConfigurationError: A file cannot be used, or the context cannot make the next one; nothing has changed.
            engine_shim.ShimError: The key cannot be read or is not the certificate's; nothing has changed.
        """
        if make is None:
            make = getattr(self._context, "replace", None)
        if make is None:
            message = f"a context of type {type(self._context).__name__} cannot be made anew: give make"
            raise ConfigurationError(message)
        self.swap_context(make())

    def context_files(self) -> tuple[str | Path, ...]:
        """Return the files that the context is made of.

        Raises:
            ConfigurationError: It names none.
        """
        files: tuple[str | Path, ...] = getattr(self._context, "files", ())
        if not files:
            message = f"a context of type {type(self._context).__name__} names no files: say which to look at"
            raise ConfigurationError(message)
        return files

    def statistics(self) -> Statistics:
        """Take a snapshot of the server's numbers. Any thread; it does not wait for the loop.

        The ops are those of the engines of its contexts, which other servers may use as well.
        """
        return self._counters.snapshot(
            self._engines.numbers(),
            draining_by_engine=self._drains.by_name(),
            certificate_expires=getattr(self._context, "expires", None),
            ocsp_expires=getattr(self._context, "ocsp_expires", None),
            signers=self._engines.signers(),
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A forked child leaves the block as well, but the server is its parent's.
        if os.getpid() == self._pid:
            self.stop()

    def _open(self) -> Service:
        listening = bind(self._config.host, self._config.port, self._config.backlog)
        try:
            name = self._selector
            reactor = Reactor(new_selector(name) if isinstance(name, str) else name)
        except BaseException:
            listening.close()
            raise
        host, port = listening.getsockname()[:2]
        self._address = (host, port)
        return Service(
            self._config,
            self._counters,
            listening,
            reactor,
            drains=self._drains,
            current_context=lambda: self._context,
            protocol_factory=self._factory,
        )

    def _claim(self) -> Service:
        """Listen, and make sure that it is served only once."""
        self.listen()
        with self._lock:
            if self._is_claimed or self._service is None:
                message = "a server serves once: make another"
                raise ServerStateError(message)
            self._is_claimed = True
            return self._service

    def _finish(self, service: Service) -> None:
        service.close()
        self._ended.set()
        atexit.unregister(self._stop_at_exit)

    def _serve_on_thread(self, service: Service) -> None:
        """Keep for `stop` what ends the thread."""
        try:
            service.run()
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that stops us
            self._crash = error
        finally:
            self._finish(service)

    def _request_stop(self, service: Service, graceful: float | None) -> None:
        seconds = self._config.timeout_graceful_shutdown if graceful is None else graceful
        service.reactor.call_soon_threadsafe(service.begin_stop, seconds)

    def _on_signal(self, at_once: bool) -> None:
        if self._service is not None:
            self._request_stop(self._service, 0 if at_once else None)

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._pid and self._service is not None and not self._ended.is_set():
            self._request_stop(self._service, 0)
            # A protocol that never returns must not hold the interpreter's end.
            self._ended.wait(_EXIT_SECONDS)

    def _raise_crash(self) -> None:
        crash, self._crash = self._crash, None
        if crash is not None:
            raise crash

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            message = "this server belongs to the parent process: after a fork the child makes its own"
            raise ForkedProcessError(message)
