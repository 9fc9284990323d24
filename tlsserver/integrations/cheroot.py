"""cheroot: `Adapter` is its ``ssl_adapter``, for WSGI applications under CherryPy's server.

    server = cheroot.wsgi.Server(("127.0.0.1", 8443), application)
    server.ssl_adapter = Adapter(tlsserver.TLSContext("server.pem", engine.load_key("server.key")))

Handshakes are made by cheroot's workers, never by the thread that accepts; see docs/integrations-cheroot.md.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import cheroot
from cheroot.makefile import StreamWriter
from cheroot.ssl import Adapter as BaseAdapter

import engine_shim
from tlsserver.addresses import as_text, peer_address
from tlsserver.errors import TLSServerError
from tlsserver.integrations.blocking_handshake import Opened, Terms, shake_hands, tell_left_behind
from tlsserver.integrations.cheroot_socket import Reader, TLSSocket
from tlsserver.integrations.engine_thread import EngineThread
from tlsserver.integrations.environ import tls_environ
from tlsserver.integrations.handshake_settings import HandshakeSettings

if TYPE_CHECKING:
    import socket

    from tlsserver.context import TLSContext

__all__ = ["Adapter"]

logger = logging.getLogger(__name__)


class Adapter(HandshakeSettings, BaseAdapter):
    """Makes the TLS connections of a `cheroot.server.HTTPServer`. Any thread.

    Args:
        context: Certificates, keys and policy.
        timeout_handshake: From the moment a worker takes the connection to the end of the handshake, in seconds; what
            it waits for an engine counts. 10, as `tlsserver.ServerConfig` has it.

    Raises:
        ConfigurationError: A setting cannot work.
    """

    _why_no_async_io = "workers change between reads and writes"

    def __init__(self, context: TLSContext, *, timeout_handshake: float = 10.0) -> None:
        # The base class only keeps what a context is made of, and has no context yet.
        self.certificate = self.private_key = self.certificate_chain = self.ciphers = self.private_key_password = None
        self._engines = EngineThread()
        self._lock = threading.Lock()
        self._terms: Terms | None = None
        super().__init__(context, timeout_handshake)

    def bind(self, sock: socket.socket) -> socket.socket:
        """Return the listening socket as it is."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[TLSSocket, dict[str, Any]]:
        """Take an accepted connection; cheroot calls this on the thread that accepts, so it only makes two objects.

        Returns:
            What a worker reads, and the variables of its requests, which are complete when the handshake is done.
        """
        environ: dict[str, Any] = self.get_environ()

        def opened(what: Opened) -> None:
            environ.update(tls_environ(what.tls, what.certificate))
            environ["tlsserver.tls"], environ["tlsserver.client_certificate"] = what.tls, what.certificate

        return TLSSocket(sock, self._shake_hands, opened), environ

    def get_environ(self) -> dict[str, Any]:
        """Return the variables that all requests have in common."""
        python = f"Python/{sys.version.split()[0]}"
        return {
            "wsgi.url_scheme": "https",
            "HTTPS": "on",
            "SSL_VERSION_INTERFACE": f"Cheroot/{cheroot.__version__} tlsserver {python}",
            "SSL_VERSION_LIBRARY": engine_shim.attach().openssl_version,
        }

    def makefile(self, sock: Any, mode: str = "r", bufsize: int = -1) -> Any:  # noqa: ANN401 - cheroot's
        """Return what cheroot reads or writes a connection by."""
        return (Reader if "r" in mode else StreamWriter)(sock, mode, bufsize)

    def close(self) -> None:
        """End what engines do for this adapter, after the server has stopped. Idempotent; also done at exit."""
        self._engines.close()
        self._terms = None
        tell_left_behind()

    def _shake_hands(self, sock: socket.socket) -> Opened:
        peer = as_text(peer_address(sock))
        try:
            return shake_hands(self._current_terms(), sock, self._timeout)
        except TLSServerError as error:
            logger.info("handshake with %s failed: %s", peer, error)
            raise

    def _current_terms(self) -> Terms:
        context, terms = self._context, self._terms
        if terms is None or terms.context is not context:
            with self._lock:
                terms = self._terms
                if terms is None or terms.context is not context:
                    terms = self._terms = Terms(context, self._engines)
        return terms
