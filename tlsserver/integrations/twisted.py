"""Twisted: `ServerOptions` stands wherever a context factory of a server does.

    options = ServerOptions(tlsserver.TLSContext("server.pem", engine.load_key("server.key")))
    reactor.listenSSL(8443, factory, options)

A handshake that waits for its key holds up nobody; see docs/integrations-twisted.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolNegotiationFactory
from zope.interface import implementer

from tlsserver.integrations.handshake_settings import HandshakeSettings
from tlsserver.integrations.twisted_connection import ServerConnection
from tlsserver.integrations.twisted_hub import hub_of
from tlsserver.offers import Offers

if TYPE_CHECKING:
    from tlsserver.context import TLSContext
    from tlsserver.integrations.twisted_hub import Hub

__all__ = ["ServerConnection", "ServerOptions"]


@implementer(IOpenSSLServerConnectionCreator)
class ServerOptions(HandshakeSettings):
    """How a server of Twisted's makes its TLS connections. The thread of the reactor only, but for `context`.

    Args:
        context: Certificates, keys and policy.
        timeout_handshake: From the TCP connection, or `startTLS`, to the end of the handshake, in seconds; what it
            waits for an engine counts. 10, as `tlsserver.ServerConfig` has it.
        reactor: Twisted's; None: the one that is installed when the first client comes.

    Raises:
        ConfigurationError: A setting cannot work.
    """

    _why_no_async_io = "Twisted reads and writes at once"

    def __init__(self, context: TLSContext, *, timeout_handshake: float = 10.0, reactor: Any = None) -> None:  # noqa: ANN401 - several interfaces of Twisted's in one
        self._reactor = reactor
        self._hub: Hub | None = None
        # By the protocols that a factory negotiates; None: none, or the context has its own.
        self._offers: dict[tuple[str, ...] | None, Offers] = {}
        self._derived: dict[tuple[str, ...], tuple[TLSContext, TLSContext]] = {}
        super().__init__(context, timeout_handshake)

    def serverConnectionForTLS(self, protocol: Any) -> ServerConnection:  # noqa: ANN401, N802 - Twisted's TLSMemoryBIOProtocol, and its name
        """Make the server's end of a connection; Twisted calls this.

        Args:
            protocol: A `twisted.protocols.tls.TLSMemoryBIOProtocol`, which has no transport yet.

        Raises:
            ConfigurationError: The context cannot negotiate what the factory offers.
        """
        hub = self._current_hub()
        offer = self._offers_for(hub, self._negotiated(protocol)).current()
        return ServerConnection(hub, offer, protocol, self._timeout)

    def _current_hub(self) -> Hub:
        """Return the reactor's; another than before only in a forked child."""
        if self._reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - it installs the default one

            self._reactor = reactor
        hub = hub_of(self._reactor)
        if hub is not self._hub:
            self._hub = hub
            self._offers.clear()
        return hub

    def _offers_for(self, hub: Hub, protocols: tuple[str, ...] | None) -> Offers:
        offers = self._offers.get(protocols)
        if offers is None:
            offers = self._offers[protocols] = Offers(
                hub.loop,
                hub.engines,
                buffer=hub.buffer,
                counters=hub.counters,
                drains=hub.drains,
                current_context=lambda: self._context_for(protocols),
            )
        return offers

    def _negotiated(self, protocol: Any) -> tuple[str, ...] | None:  # noqa: ANN401 - Twisted's TLSMemoryBIOProtocol
        """Return the protocols that the factory wants to negotiate (ALPN), if the context leaves it to the factory."""
        if self._context.alpn != ():
            return None
        negotiating: Any = IProtocolNegotiationFactory(getattr(protocol.factory, "wrappedFactory", None), None)
        names = () if negotiating is None else negotiating.acceptableProtocols()
        return tuple(name.decode("ascii") for name in names) or None

    def _context_for(self, protocols: tuple[str, ...] | None) -> TLSContext:
        """Return the context, or a copy of it that negotiates these protocols."""
        context = self._context
        if protocols is None:
            return context
        known = self._derived.get(protocols)
        if known is None or known[0] is not context:
            known = self._derived[protocols] = (context, context.replace(alpn=protocols))
        return known[1]
