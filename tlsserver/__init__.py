"""tlsserver: a TLS server framework in which no handshake ever blocks the loop."""

from __future__ import annotations

from tlsserver.client_certificate import ClientCertificate, SubjectAltName
from tlsserver.client_context import ClientContext
from tlsserver.client_hello import ClientHelloRequest
from tlsserver.client_request import ClientCertificateRequest
from tlsserver.config import ServerConfig
from tlsserver.context import TLSContext
from tlsserver.errors import ConfigurationError, EngineError, LocalError, PeerError, TLSServerError
from tlsserver.policy.certificate import Certificate
from tlsserver.policy.check import Problem, check
from tlsserver.policy.client_certificates import ClientCertificates
from tlsserver.policy.settings import ContextSettings
from tlsserver.reload import Reloader
from tlsserver.server import Server
from tlsserver.stats import Statistics

__all__ = [
    "Certificate",
    "ClientCertificate",
    "ClientCertificateRequest",
    "ClientCertificates",
    "ClientContext",
    "ClientHelloRequest",
    "ConfigurationError",
    "ContextSettings",
    "EngineError",
    "LocalError",
    "PeerError",
    "Problem",
    "Reloader",
    "Server",
    "ServerConfig",
    "Statistics",
    "SubjectAltName",
    "TLSContext",
    "TLSServerError",
    "check",
]
