"""A server with a policy hook for clients, whose loop the test turns by hand."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from helpers_server import Client, Echo, House, client_context

from tlsserver import ClientCertificates, Server, TLSContext

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sized

    from engine_shim import Engine
    from support.certificates import Identity
    from support.client_authority import Holder


class HookSite(House):
    """A server and its clients.

    Args:
        identity: The server's.
        holder: What its clients show.
        version: Of TLS.
        asked: Of the clients.
        engine: Of the server's key; None: none.
        options: Settings of the server.
    """

    def __init__(
        self,
        identity: Identity,
        holder: Holder,
        version: str,
        asked: ClientCertificates | None,
        *,
        engine: Engine | None = None,
        **options: Any,
    ) -> None:
        super().__init__(identity, version=version)
        self.service.close()
        self._version, self._ca = version, identity.ca
        self.context = TLSContext(identity.cert, identity.key, engine=engine, client_certificates=asked)
        self.server = Server(self.context, Echo, port=0, **options)
        self.server.listen()
        assert self.server._service is not None
        self.service = self.server._service
        self.reactor = self.service.reactor
        self.client_context = self._context_of(holder)
        self._session: ssl.SSLSession | None = None

    def _context_of(self, holder: Holder) -> ssl.SSLContext:
        made = client_context(self._ca, self._version)
        made.load_cert_chain(holder.cert, holder.key)
        return made

    def visit(self) -> bool | Exception:
        """Come in with the session of the last visit, take one along: whether it was resumed, or why not."""
        made = self.client(self._session)
        self.until(lambda: made.received == b"HELLO" or made.error or self._greeted(made))
        if made.error is not None:
            return made.error
        self._session = made.tls.session
        made.say_goodbye()
        return bool(made.tls.session_reused)

    def _greeted(self, made: Client) -> bool:
        if made.is_connected and not made.received and not getattr(made, "greeted", False):
            made.greeted = True  # type: ignore[attr-defined]
            made.send(b"hello")
        return False

    def client(self, session: ssl.SSLSession | None = None) -> Client:
        """Connect."""
        made = Client(self.server.address, self.client_context, session)
        self.clients.append(made)
        return made

    def connected_as(self, holder: Holder) -> Client:
        """Connect with another certificate, and finish the handshake; the others stand still meanwhile."""
        made = Client(self.server.address, self._context_of(holder))
        others, self.clients = self.clients, [made]
        self.until(lambda: self._is_in(made))
        self.clients = [*others, made]
        return made

    def _is_in(self, made: Client) -> bool:
        self._greeted(made)
        return made.received == b"HELLO"

    def crowd(self, count: int, asked: Sized) -> None:
        """Connect many clients, fifty at a time, and wait for the question about each.

        Args:
            count: How many.
            asked: Has one item for each that was asked about.
        """
        everybody: list[Client] = []
        while len(everybody) < count:
            self.clients = [self.client() for _ in range(50)]
            everybody += self.clients
            self._until_asked(asked, len(everybody))
        self.clients = everybody

    def _until_asked(self, asked: Sized, count: int) -> None:
        self.until(lambda: len(asked) >= count)

    def close(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            super().close()
