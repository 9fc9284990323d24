"""What ASGI applications learn of the TLS of their connection, whichever server runs them.

The extension ``tls`` is https://asgi.readthedocs.io/en/latest/specs/tls.html. Beside it stands ``tlsserver``, with the
same as objects: ``tls`` (`tlsserver.wire.TLSInfo`) and ``client_certificate`` (`tlsserver.ClientCertificate` or None);
``is_closing()`` tells whether the connection is over.

A server of others tells an application nothing of its connection's transport. Where the server makes its tasks from
``connection_made``, that is called in a context of its own (`named`), which all tasks of the connection inherit;
`TLSExtension` then looks there. Addresses would not do: those of a connection that is gone may be those of another.
"""

from __future__ import annotations

import contextlib
import contextvars
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from cryptography import x509

from tlsserver.integrations.environ import printable, tls_environ

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.wire import TLSInfo

    Scope = MutableMapping[str, Any]
    Application = Callable[[Scope, Any, Any], Awaitable[None]]

__all__ = ["OfConnection", "TLSExtension", "cipher_suite", "extension", "named", "wsgi"]

# As they stand in a handshake (RFC 8446, 4.1.2), by OpenSSL's names.
_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

# Python's ssl lists of TLS 1.3 only those suites that are on by default (RFC 8446, B.4).
_NOT_BY_DEFAULT = {"TLS_AES_128_CCM_SHA256": 0x1304, "TLS_AES_128_CCM_8_SHA256": 0x1305}


def extension(
    info: TLSInfo, certificate: ClientCertificate | None = None, server_certificate: bytes | None = None
) -> dict[str, Any]:
    """Make the extension ``tls``.

    Args:
        info: What the handshake settled.
        certificate: The client's; None: it has sent none.
        server_certificate: The one that the client was shown, in DER; None: unknown.

    Returns:
        All keys of the specification, with values that nobody can change. ``client_cert_chain`` is the verified chain,
        after a resumption the client's own certificate alone; ``client_cert_name`` has control characters escaped (RFC
        4514, 2.4), because applications put it into headers and logs, and is None also where cryptography, which is
        stricter than OpenSSL, cannot read the certificate; ``client_cert_error`` is None, because one that is not good
        ends the handshake.
    """
    chain = () if certificate is None else certificate.chain
    return {
        "server_cert": None if server_certificate is None else _pem(server_certificate),
        "client_cert_chain": tuple(map(ssl.DER_cert_to_PEM_cert, chain)),
        "client_cert_name": None if certificate is None else _subject(certificate),
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(info.version),
        "cipher_suite": cipher_suite(info.cipher),
    }


def _subject(certificate: ClientCertificate) -> str | None:
    with contextlib.suppress(ValueError, x509.InvalidVersion):
        return printable(certificate.subject)
    return None


def cipher_suite(name: str) -> int | None:
    """Return the number of a cipher suite (RFC 8446, B.4) by OpenSSL's name; None: unknown."""
    return _cipher_suites().get(name)


class _Connection:
    """What the requests of one connection are told: the same, so it is made once, for the first of them."""

    __slots__ = ("_extensions", "_transport")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._extensions: dict[str, dict[str, Any]] | None = None

    def tell(self, scope: Scope) -> None:
        """Put our extensions beside those of the server; what the application does to them stays with its request."""
        extensions = self._extensions
        if extensions is None:
            extensions = self._extensions = _extensions_of(self._transport)
        if extensions and scope["type"] != "lifespan":
            others = scope.get("extensions")
            told = scope["extensions"] = others.copy() if others else {}
            for name, content in extensions.items():
                told[name] = content.copy()


_connection: contextvars.ContextVar[_Connection | None] = contextvars.ContextVar("connection", default=None)


class OfConnection:
    """An ASGI application as one connection sees it: its requests come with the extensions."""

    __slots__ = ("_app", "_connection")

    def __init__(self, app: Application, transport: asyncio.BaseTransport) -> None:
        """Wrap an application.

        Args:
            app: With the interface of ASGI 3.
            transport: Of the connection; one that is not ours adds nothing.
        """
        self._app = app
        self._connection = _Connection(transport)

    def __call__(self, scope: Scope, receive: Any, send: Any) -> Awaitable[None]:  # noqa: ANN401 - the application's
        """Hand a request on."""
        self._connection.tell(scope)
        return self._app(scope, receive, send)


class TLSExtension:
    """ASGI middleware: requests of connections that were made by a `named` factory come with the extensions."""

    def __init__(self, app: Application) -> None:
        """Wrap an application with the interface of ASGI 3."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401 - the application's
        """Hand a request on."""
        connection = _connection.get()
        if connection is not None:
            connection.tell(scope)
        await self._app(scope, receive, send)


def named(protocol_factory: Callable[[], asyncio.BaseProtocol]) -> Callable[[], asyncio.BaseProtocol]:
    """Let the tasks that a protocol makes in ``connection_made``, and the tasks of these, know the connection.

    Args:
        protocol_factory: Whose protocols take attributes, as those of all classes without ``__slots__`` do.
    """

    def make() -> asyncio.BaseProtocol:
        protocol = protocol_factory()
        connection_made = protocol.connection_made

        def made(transport: asyncio.BaseTransport) -> None:
            del protocol.connection_made  # the class has one; kept, it would be a cycle
            context = contextvars.copy_context()
            context.run(_connection.set, _Connection(transport))
            context.run(connection_made, transport)

        protocol.connection_made = made  # type: ignore[method-assign]
        return protocol

    return make


def _extensions_of(transport: asyncio.BaseTransport) -> dict[str, dict[str, Any]]:
    info: TLSInfo | None = transport.get_extra_info("tls")
    if info is None:
        return {}
    certificate = transport.get_extra_info("client_certificate")
    return {
        "tls": extension(info, certificate, transport.get_extra_info("server_certificate")),
        "tlsserver": {"tls": info, "client_certificate": certificate, "is_closing": transport.is_closing},
    }


class _LeftError(ConnectionResetError):
    """Ours, and nobody's mistake."""


class _Exchange:
    """A request of WSGI: ends its thread's work when nobody takes the answer any more.

    a2wsgi does not: an answer without end would keep one of its few threads for ever, and so would one of which the
    server has refused a part, which a2wsgi no longer takes from the thread. A body that is cut off it takes for a whole
    one, and a query it wants in ASCII.
    """

    def __init__(self, scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401 - the server's
        self.scope = scope
        self.told = (scope.get("extensions") or {}).get("tlsserver", {})
        self.error: Exception | None = None
        self._receive, self._send = receive, send

    @property
    def is_over(self) -> bool:
        """Whether what is sent goes nowhere. Any thread."""
        return self.error is not None or bool(self.told and self.told["is_closing"]())

    async def receive(self) -> Any:  # noqa: ANN401 - ASGI's
        """Receive.

        Raises:
            ConnectionResetError: The client has left; WSGI has no other way to tell.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _LeftError("the client left before the end of its request")
        return message

    async def send(self, message: Any) -> None:  # noqa: ANN401 - ASGI's
        """Send, or keep the first reason why that was refused."""
        if self.error is None:
            try:
                await self._send(message)
            except Exception as error:  # noqa: BLE001 - whatever the server says; it is raised when the thread is free
                self.error = error

    def pieces(self, body: Any) -> Iterator[bytes]:  # noqa: ANN401 - WSGI's
        """Yield an answer's pieces for as long as somebody takes them."""
        try:
            for piece in body:
                if self.is_over:
                    return
                yield piece
        finally:
            getattr(body, "close", lambda: None)()


_EXCHANGE = "tlsserver.exchange"


def wsgi(app: Callable[[dict[str, Any], Any], Any]) -> Application:
    """Make an application of WSGI (PEP 3333) one of ASGI; its environ says what `tlsserver.integrations.environ` tells.

    Args:
        app: Is called on threads of its own.

    Raises:
        ImportError: a2wsgi is not installed.
    """
    from a2wsgi import WSGIMiddleware  # noqa: PLC0415 - only WSGI needs it

    def with_environ(environ: dict[str, Any], start_response: Any) -> Any:  # noqa: ANN401 - WSGI's
        exchange: _Exchange = environ["asgi.scope"][_EXCHANGE]
        environ["asgi.scope"] = exchange.scope
        environ["QUERY_STRING"] = exchange.scope["query_string"].decode("latin-1")
        if exchange.told:
            environ.update(tls_environ(exchange.told["tls"], exchange.told["client_certificate"]))
        return exchange.pieces(app(environ, start_response))

    made: Any = WSGIMiddleware(cast("Any", with_environ))

    async def call(scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401 - the server's
        exchange = _Exchange(scope, receive, send)
        with contextlib.suppress(_LeftError):
            await made({**scope, _EXCHANGE: exchange, "query_string": b""}, exchange.receive, exchange.send)
        error, exchange.error = exchange.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # else it would be in a cycle with this frame

    return call


@lru_cache(maxsize=16)
def _pem(der: bytes) -> str:
    """The server's certificates: few, and shown to all."""
    return ssl.DER_cert_to_PEM_cert(der)


@lru_cache(maxsize=1)
def _cipher_suites() -> dict[str, int]:
    """Ask Python's OpenSSL: pyOpenSSL tells no numbers, and the names are the same in all releases."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return {**_NOT_BY_DEFAULT, **{found["name"]: found["id"] & 0xFFFF for found in context.get_ciphers()}}
