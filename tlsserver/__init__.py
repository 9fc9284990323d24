"""tlsserver: a TLS server framework in which no handshake ever blocks the loop."""

from __future__ import annotations

from tlsserver.client_hello import ClientHelloRequest
from tlsserver.config import ServerConfig
from tlsserver.context import TLSContext
from tlsserver.errors import ConfigurationError, EngineError, LocalError, PeerError, TLSServerError
from tlsserver.policy.certificate import Certificate
from tlsserver.reload import Reloader
from tlsserver.server import Server
from tlsserver.stats import Statistics

__all__ = [
    "Certificate",
    "ClientHelloRequest",
    "ConfigurationError",
    "EngineError",
    "LocalError",
    "PeerError",
    "Reloader",
    "Server",
    "ServerConfig",
    "Statistics",
    "TLSContext",
    "TLSServerError",
]
