"""A listening server on an asyncio loop: `asyncio.Server`'s interface over our listener and connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.trsock import TransportSocket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsserver import state as states
from tlsserver.asyncio.endpoint import Endpoint, Entrance
from tlsserver.drains import Drains
from tlsserver.engine_sums import EngineSums
from tlsserver.listener import Listener, room
from tlsserver.stats import Counters

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from tlsserver.asyncio.home import Home
    from tlsserver.asyncio.terms import Terms
    from tlsserver.driver import Driver
    from tlsserver.stats import Statistics

__all__ = ["Server"]


class Server(asyncio.AbstractServer):
    """A TLS server on an asyncio loop, from `tlsserver.asyncio.create_server`. Loop thread only."""

    def __init__(
        self,
        home: Home,
        sockets: Sequence[socket.socket],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        terms: Terms,
    ) -> None:
        """Make a server that does not accept yet.

        Args:
            home: What the loop's connections share.
            sockets: Bound; they become the server's.
            protocol_factory: Makes the protocol of each connection.
            terms: Context and limits.

        Raises:
            TypeError: The context cannot accept connections.
            ConfigurationError: It cannot work.
        """
        self._home = home
        self._sockets: tuple[socket.socket, ...] | None = tuple(sockets)
        self._paths: dict[Path, int] = {}
        self._config = terms.config
        self._counters = Counters()
        self._drains = Drains(terms.config.draining_most)
        self._engines = EngineSums()
        self._endpoint = Endpoint(
            *(home, terms, self._counters, self._drains), server_side=True, changed=self._engines.add
        )
        self._endpoint.prepare()
        self._entrance = Entrance(protocol_factory)
        self._listeners: list[Listener] = []
        self._drivers: set[Driver] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._forever: asyncio.Future[None] | None = None
        home.counters.append(self._counters)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"

    # asyncio.Server

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The listening sockets; none after `close`."""
        return tuple(TransportSocket(sock) for sock in self._sockets or ())

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._home.loop

    def is_serving(self) -> bool:
        """Return whether it accepts connections."""
        return bool(self._listeners)

    async def start_serving(self) -> None:
        """Accept connections. Idempotent.

        Raises:
            RuntimeError: The server is closed.
        """
        self.listen()

    async def serve_forever(self) -> None:
        """Accept connections until the task is cancelled, then close.

        Raises:
            RuntimeError: It is closed, or somebody else does so already.
        """
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        self.listen()
        self._forever = self._home.loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Accept no more; what is open stays open. Idempotent."""
        sockets, self._sockets = self._sockets, None
        if sockets is None:
            return
        for listener in self._listeners:
            self._home.listeners.discard(listener)
            listener.close()
        self._listeners.clear()
        for sock in sockets:
            sock.close()
        for path, inode in self._paths.items():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:  # else another server has taken the name
                    path.unlink()
        self._endpoint.close()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()
        self._maybe_ended()

    async def wait_closed(self) -> None:
        """Wait until the server and all of its connections are closed, as asyncio does since Python 3.12."""
        if self._sockets is None and not self._drivers:
            return
        waiter = self._home.loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def close_clients(self) -> None:
        """Close all connections: what is buffered is sent; handshakes are given up. As in Python 3.13."""
        for driver in tuple(self._drivers):
            if driver.connection.state in states.HANDSHAKING:
                driver.abort()
            else:
                driver.connection.close()

    def abort_clients(self) -> None:
        """Close all connections at once. As in Python 3.13."""
        for driver in tuple(self._drivers):
            driver.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        await self.wait_closed()

    # Beyond it

    def statistics(self) -> Statistics:
        """Take a snapshot of the server's numbers. Any thread.

        The ops are those of the engines of its contexts, which other servers may use as well.
        """
        return self._counters.snapshot(
            self._engines.numbers(), draining_by_engine=self._drains.by_name(), signers=self._engines.signers()
        )

    def remove_at_close(self, path: str | bytes) -> None:
        """Remove a Unix socket's path when the server closes; not one in the abstract namespace (unix(7))."""
        if path and path[:1] not in ("\0", b"\0"):
            where = Path(os.fsdecode(path))
            self._paths[where] = where.stat().st_ino

    def listen(self) -> None:
        """Accept connections. Idempotent.

        Raises:
            RuntimeError: The server is closed.
            OSError: A socket cannot listen (listen(2)).
        """
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        if self._listeners:
            return
        for sock in self._sockets:
            sock.listen(self._config.backlog)
            listener = Listener(
                sock,
                self._home.reactor,
                accepted=self._accepted,
                room=self._room,
                budget=self._config.accept_budget,
            )
            self._listeners.append(listener)
            self._home.listeners.add(listener)

    def _room(self) -> int:
        return room(self._config, self._counters, len(self._drivers))

    def _accepted(self, sock: socket.socket, address: Any) -> None:  # noqa: ANN401 - its form depends on the family
        driver: Driver | None = None

        def closed() -> None:
            if driver is not None:
                self._drivers.discard(driver)
            self._maybe_ended()

        driver = self._endpoint.open(sock, address, self._entrance, closed)
        self._drivers.add(driver)

    def _maybe_ended(self) -> None:
        if self._sockets is not None or self._drivers:
            return
        with contextlib.suppress(ValueError):
            self._home.counters.remove(self._counters)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
