"""One side of TLS on an asyncio loop: the connections that one context accepts or makes, with the same limits."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

from tlsserver.asyncio.audience import LoopAudience
from tlsserver.asyncio.contexts import source_of
from tlsserver.asyncio.transport import Peer
from tlsserver.connection import Connection
from tlsserver.driver import Driver
from tlsserver.offers import Offers
from tlsserver.session import Session

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from tlsserver.asyncio.home import Home
    from tlsserver.asyncio.terms import Terms
    from tlsserver.drains import Drains
    from tlsserver.session import ContextLike
    from tlsserver.stats import Counters

__all__ = ["Endpoint", "Entrance"]


class Entrance:
    """How the protocols of connections come in: in copies of the context (contextvars) in which this is made.

    Args:
        factory: Makes the protocol, or returns it.
        server_hostname: A client's: whom it wants to talk to.
        waiter: Told of the end of the handshake.
        announces: Whether the protocol is told ``connection_made``.
    """

    __slots__ = ("announces", "context", "factory", "server_hostname", "waiter")

    def __init__(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        server_hostname: str | None = None,
        waiter: asyncio.Future[asyncio.BaseTransport] | None = None,
        announces: bool = True,
    ) -> None:
        self.factory = factory
        self.server_hostname = server_hostname
        self.waiter = waiter
        self.announces = announces
        self.context = contextvars.copy_context()


class Endpoint:
    """Loop thread only.

    Attributes:
        counters: What is counted.
        config: Limits and deadlines.
    """

    def __init__(
        self,
        home: Home,
        terms: Terms,
        counters: Counters,
        drains: Drains,
        *,
        server_side: bool,
        changed: Callable[[ContextLike], object] | None = None,
    ) -> None:
        """Begin without connections.

        Args:
            home: What the loop's connections share.
            terms: Context and limits.
            counters: What is counted.
            drains: The jobs that go on without their connections.
            server_side: Whether it accepts connections, or makes them.
            changed: Told of each context that is another one.

        Raises:
            TypeError: The context is not for that side.
        """
        self.counters = counters
        self.config = terms.config
        self._home = home
        self._context = terms.context
        self._is_client = not server_side
        self._offers = Offers(
            home.reactor,
            home.engines,
            home.buffer,
            counters=counters,
            drains=drains,
            current_context=source_of(terms.context, server_side=server_side),
            changed=changed,
        )

    def prepare(self) -> None:
        """Make what the next connection begins with: a context that cannot work is told before anybody has come.

        Raises:
            ConfigurationError: It cannot.
        """
        self._offers.current()

    def open(
        self,
        sock: socket.socket,
        address: Any,  # noqa: ANN401 - its form depends on the family
        entrance: Entrance,
        on_closed: Callable[[], object],
    ) -> Driver:
        """Begin with a connection.

        Args:
            sock: Connected, non-blocking; it becomes the connection's.
            address: Of the other end.
            entrance: How its protocol comes in.
            on_closed: Called when all is over.
        """

        def make(driver: Driver) -> Connection:
            return self._connection(driver, sock, address, entrance)

        def closed() -> None:
            self.counters.connections_open -= 1
            on_closed()

        driver = Driver(self._home.hub, sock, make, closed)
        self.counters.connections_accepted += 1
        self.counters.connections_open += 1
        if self._is_client:
            driver.begin()
        return driver

    def _connection(
        self,
        driver: Driver,
        sock: socket.socket,
        address: Any,  # noqa: ANN401 - its form depends on the family
        entrance: Entrance,
    ) -> Connection:
        offer = self._offers.current()
        name = entrance.server_hostname
        tls = offer.context.connect(sock, name) if self._is_client else None  # type: ignore[attr-defined]
        session = Session(offer.shared, sock, tls)
        peer = Peer(
            *(offer, session, sock),
            address=address,
            context=self._context,
            server_hostname=name,
            looks_twice=self._home.reactor.tells_once,
        )
        audience = LoopAudience(
            self._home.loop,
            entrance.factory,
            peer,
            self.config.write_buffer_limits,
            context=entrance.context.copy(),
            waiter=entrance.waiter,
            announces=entrance.announces,
        )
        return Connection(
            session,
            config=self.config,
            counters=self.counters,
            audience=audience,
            make_transport=peer.transport,
            touch=driver.touch,
            place=driver.place,
            drain=offer.drain,
            peer=peer,
            now=self._home.reactor.time(),
            hold=lambda: self._home.hold(driver),
        )

    def close(self) -> None:
        """No more connections begin here."""
        self._offers.close()
