"""A server of Twisted's on a reactor of its own, which runs on a thread: Twisted's global one could run only once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import blockingCallFromThread
from twisted.logger import globalLogBeginner
from twisted.protocols.tls import TLSMemoryBIOFactory

import engine_shim
from support import leaks
from tlsserver.integrations.twisted import ServerOptions
from tlsserver.integrations.twisted_hub import hub_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from tlsserver import Statistics, TLSContext


# Until somebody says where to, Twisted keeps what it logs, and with it all factories and protocols.
globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)


class Shouter(Protocol):
    """Sends back what it gets, in upper case; and tells the site what happens."""

    site: TwistedSite
    transport: Any

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        self.site.protocols.append(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        assert not engine_shim.job_is_current()
        self.transport.write(data.upper())

    def connectionLost(self, reason: Any = None) -> None:  # noqa: N802 - Twisted's name
        self.site.lost.append(reason.value)


class Shouters(Factory):
    """Makes shouters. No class of its own for each site: zope.interface would keep that."""

    site: TwistedSite
    kind: type[Shouter] = Shouter

    def buildProtocol(self, addr: object) -> Shouter:  # noqa: ARG002, N802 - Twisted's
        protocol = self.kind()
        protocol.site = self.site
        return protocol


class TwistedSite:
    """A context manager.

    Args:
        context: Of the server.
        factory: Of its protocols; None: `Shouter`.
        options: Of `ServerOptions`.

    Attributes:
        options: What the server has in the place of a context factory.
        reactor: Twisted's.
        port: Where it listens, on 127.0.0.1.
        protocols: The shouters, in the order in which they have come.
        lost: Why their connections have ended.
    """

    def __init__(self, context: TLSContext, factory: Any = None, **options: Any) -> None:
        self.reactor: Any = EPollReactor()  # type: ignore[no-untyped-call]
        self.options = ServerOptions(context, reactor=self.reactor, **options)
        self.protocols: list[Shouter] = []
        self.lost: list[BaseException] = []
        self._factory: Any = factory or Shouters()
        if isinstance(self._factory, Shouters):
            self._factory.site = self
        self._thread = threading.Thread(target=self.reactor.run, kwargs={"installSignalHandlers": False})

    def __enter__(self) -> Self:
        options: Any = self.options
        wrapped = TLSMemoryBIOFactory(options, False, self._factory, clock=self.reactor)
        self._listening = self.reactor.listenTCP(0, wrapped, backlog=1024, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port
        self._thread.start()
        self.hub = self.run(hub_of, self.reactor)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the reactor, whatever is in progress. Idempotent."""
        if self._thread.is_alive():
            self.reactor.callFromThread(self.reactor.stop)
            self._thread.join(leaks.PATIENCE)
            leaks.wait_ended(self._thread)
            # Of the reactor itself, which expects to live as long as its process.
            self.reactor._poller.close()
            for reader in self.reactor._internalReaders:
                reader.connectionLost(None)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call something on the reactor's thread; return what it returns."""
        return blockingCallFromThread(self.reactor, call, *args)

    def statistics(self) -> Statistics:
        """Take a snapshot of the numbers."""
        numbers: Statistics = self.hub.counters.snapshot()
        return numbers

    def until(self, condition: Callable[[Statistics], object]) -> Statistics:
        """Wait until it holds for the numbers, or for anything else; return them."""
        leaks.wait_until(lambda: condition(self.statistics()))
        numbers = self.statistics()
        if not condition(numbers):
            pytest.fail(f"it did not come to that: {numbers}")
        return numbers

    def until_parked(self, count: int) -> None:
        """Wait until so many handshakes are parked."""
        self.until(lambda numbers: numbers.parked_now == count)

    def until_empty(self) -> None:
        """Wait until no handshake is in progress, and no job is left."""
        self.until(lambda numbers: not numbers.handshakes_in_progress and not self.hub.handshakes)
        numbers = engine_shim.counters()
        assert numbers.jobs_started == numbers.jobs_finished
