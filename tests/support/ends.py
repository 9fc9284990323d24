"""Two ends of one TLS connection in one thread, over a socket pair: each ours, or Python's own.

Every step is taken here, so that no test waits for more than a wait fd.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

from engine_shim import Acceptor, AsyncSSL, Status
from support.waiting import PATIENCE, readable
from tlsserver.wire import TLSInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsserver import ClientContext, TLSContext

_ENDED = (Status.DONE, Status.ERROR, Status.SYSCALL, Status.CLOSED)


class OurEnd:
    """One of ours.

    Args:
        tls: Before its handshake.
        sock: Its socket.
        engines: Those of its context, whose turns are taken here.
    """

    def __init__(self, tls: AsyncSSL, sock: socket.socket, engines: Any = ()) -> None:
        self.tls = tls
        self._sock = sock
        self._engines = engines
        self.status: Status | None = None
        self.parks = 0

    @property
    def done(self) -> bool:
        return self.status is Status.DONE

    @property
    def ended(self) -> bool:
        return self.status in _ENDED

    @property
    def error(self) -> str:
        """Why it failed, in OpenSSL's words."""
        return "; ".join(filter(None, (self.tls.verify_error, *(one.text for one in self.tls.errors()))))

    def step(self) -> None:
        """Go on with the handshake as far as it goes without the other end."""
        self.status = self.tls.handshake()
        while self.status is Status.WANT_ASYNC:
            self.parks += 1
            for engine in self._engines:
                if engine.needs_turns:
                    engine.turn()
            assert readable(self.tls.wait_fds(), PATIENCE)
            self.status = self.tls.handshake()

    def send(self, data: bytes) -> None:
        assert self.tls.write(data) is Status.DONE

    def receive(self) -> bytes:
        buffer = bytearray(1 << 14)
        while (status := self.tls.read_into(buffer)) is Status.WANT_READ:
            assert readable([self._sock.fileno()], PATIENCE)
        return bytes(buffer[: self.tls.count]) if status is Status.DONE else b""

    def info(self) -> TLSInfo:
        """What the handshake settled, as connections have it."""
        found = self.tls.settled()
        return TLSInfo(found.version, found.cipher, found.group, found.alpn, found.reused, found.server_name)

    def close(self) -> None:
        self.tls.close()


class PythonEnd:
    """One of Python's ssl.

    Args:
        context: A plain one.
        sock: Its socket.
        named: Arguments of ``wrap_bio``.
    """

    def __init__(self, context: ssl.SSLContext, sock: socket.socket, **named: Any) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, **named)
        self._sock = sock
        self.done = False
        self.error = ""

    @property
    def ended(self) -> bool:
        return self.done or bool(self.error)

    def step(self) -> None:
        """Go on with the handshake."""
        self._pull()
        try:
            self.tls.do_handshake()
            self.done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = str(error)
        self._push()

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self._push()

    def receive(self) -> bytes:
        while (data := self._read()) is None:
            assert readable([self._sock.fileno()], PATIENCE)
            self._pull()
        return data

    def _read(self) -> bytes | None:
        try:
            return bytes(self.tls.read(1 << 14))
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLError as error:
            self.error = str(error)
            return b""

    def _pull(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            data = self._sock.recv(1 << 16)
            self._in.write(data) if data else self._in.write_eof()

    def _push(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._sock.sendall(self._out.read())

    def close(self) -> None:
        """There is nothing to give back."""


def our_server(context: TLSContext, sock: socket.socket) -> OurEnd:
    acceptor = Acceptor(context.pyopenssl, handshake=context.offloaded, io=context.async_io)
    return OurEnd(acceptor.accept(sock.fileno()), sock, context.engines)


def our_client(context: ClientContext, sock: socket.socket, name: str | None) -> OurEnd:
    return OurEnd(context.connect(sock, name), sock, context.engines)


@contextlib.contextmanager
def shaken(
    server: Any, client: Any, name: str | None = "localhost", *, session: ssl.SSLSession | None = None
) -> Iterator[tuple[Any, Any]]:
    """Shake hands, until both ends are done or one has failed.

    Args:
        server: A context: one of tlsserver's own, or Python's, or ours that looks like it.
        client: The same.
        name: Of the server, for the client.
        session: What Python's client resumes.
    """
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        ends = _server_end(server, near), _client_end(client, far, name, session)
        try:
            for _ in range(20):
                for end in reversed(ends):
                    if not end.ended:
                        end.step()
            yield ends
        finally:
            for end in ends:
                end.close()


def _server_end(context: Any, sock: socket.socket) -> Any:
    if hasattr(context, "server_context"):
        context = context.server_context()
    if isinstance(context, ssl.SSLContext):
        return PythonEnd(context, sock, server_side=True)
    return our_server(context, sock)


def _client_end(context: Any, sock: socket.socket, name: str | None, session: ssl.SSLSession | None) -> Any:
    if hasattr(context, "client_context"):
        context = context.client_context()
    if isinstance(context, ssl.SSLContext):
        return PythonEnd(context, sock, server_hostname=name, session=session)
    return our_client(context, sock, name)


def works(server: Any, client: Any, name: str | None = "localhost") -> bool:
    """Tell whether both ends come in and can talk: a client of TLS 1.3 learns of its refusal later."""
    with shaken(server, client, name) as (near, far):
        if not (near.done and far.done):
            return False
        far.send(b"ping")
        near.send(b"pong")
        return (near.receive(), far.receive()) == (b"ping", b"pong")
