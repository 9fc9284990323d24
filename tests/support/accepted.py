"""A server's end that an Acceptor made, and a client in memory: what passes between them is the test's."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from OpenSSL import SSL

from engine_shim import Acceptor, AsyncSSL, Status
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from typing_extensions import Self

STREAM = socket.SOCK_STREAM
MESSAGES = socket.SOCK_SEQPACKET
VERSIONS = ("1.2", "1.3")

Sockets = tuple[socket.socket, socket.socket]


class Ends:
    """A server's end over a socket, and a client's in memory: what passes between them is the test's."""

    def __init__(self, tls: AsyncSSL, sockets: Sockets, client: SSL.Context) -> None:
        self.server = tls
        self.near, self.far = sockets
        self.client = SSL.Connection(client, None)
        self.client.set_connect_state()

    @classmethod
    def accepted(cls, server: SSL.Context, client: SSL.Context, kind: int = STREAM, *, offloaded: bool = False) -> Self:
        near, far = pair_of(kind)
        return cls(Acceptor(server, handshake=offloaded).accept(near.fileno()), (near, far), client)

    def spoken(self) -> bytes:
        """Let the client go on as far as it can; what it has to say."""
        with suppress(SSL.WantReadError):
            self.client.do_handshake()
        return self.outgoing()

    def outgoing(self) -> bytes:
        try:
            return self.client.bio_read(1 << 16)
        except SSL.WantReadError:
            return b""

    def hear(self, count: int = 1 << 16) -> bytes:
        """Take what has come, one message of it where there are messages."""
        try:
            heard = self.far.recv(count)
        except BlockingIOError:
            return b""
        if heard:
            self.client.bio_write(heard)
        return heard

    def shake(self) -> Status:
        """Go through the handshake, until the server's end says something else than that it waits."""
        while True:
            self.hear()
            if spoken := self.spoken():
                self.far.send(spoken)
            status = self.server.handshake()
            if status not in (Status.WANT_READ, Status.WANT_WRITE):
                self.hear()
                self.spoken()
                return status

    def to_last_step(self) -> bytes:
        """Go on until only the client's Finished is missing, and return that."""
        self.far.send(self.spoken())
        assert readable([self.near.fileno()], PATIENCE)
        assert self.server.handshake() is Status.WANT_READ
        assert readable([self.far.fileno()], PATIENCE)
        self.hear()
        return self.spoken()

    def read(self) -> bytes:
        buffer = bytearray(1 << 15)
        while (status := self.server.read_into(buffer)) is Status.WANT_READ:
            assert readable([self.near.fileno()], PATIENCE)
        assert status is Status.DONE
        return bytes(buffer[: self.server.count])

    def understood(self) -> bytes:
        """Let the client take what has come, and return the data in it."""
        while self.hear():
            self.spoken()
        return self.client.recv(1 << 15)

    def close(self) -> None:
        assert self.server.close()
        self.near.close()
        self.far.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pair_of(kind: int) -> Sockets:
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def tcp_pair() -> Sockets:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far
