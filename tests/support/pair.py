"""A server and a client of one handshake in one thread, over a socket pair: every step is the test's.

The server is an :class:`engine_shim.AsyncSSL`; the client is pyOpenSSL over memory buffers, so it also speaks what
only this OpenSSL knows (ML-DSA).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from OpenSSL import SSL

from engine_shim import AsyncSSL, Key, Status
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from typing_extensions import Self

    from support.certificates import Identity

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
STATIC_RSA = "AES128-GCM-SHA256"


def server_context(identity: Identity, key: Key | None, ciphers: str | None = None) -> SSL.Context:
    """Make a server's Context; without a key in an engine the identity's own file is used."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(identity.cert))
    if ciphers:
        context.set_cipher_list(ciphers.encode())
    if key is None:
        context.use_privatekey_file(str(identity.key))
    else:
        key.use(context)
    return context


def client_context(identity: Identity, version: str | None = None, ciphers: str | None = None) -> SSL.Context:
    """Make a client's Context that trusts the tests' authority and verifies."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(identity.ca))
    context.set_verify(SSL.VERIFY_PEER, None)
    if version:
        context.set_min_proto_version(VERSIONS[version])
        context.set_max_proto_version(VERSIONS[version])
    if ciphers:
        context.set_cipher_list(ciphers.encode())
    return context


class Pair:
    """Both ends of one connection.

    Args:
        server: The server's Context.
        client: The client's Context.
        offloaded: Whether the server's handshake runs in a job.
        io: Whether its reads and writes do.
    """

    def __init__(self, server: SSL.Context, client: SSL.Context, *, offloaded: bool = True, io: bool = False) -> None:
        self.near, self._far = socket.socketpair()
        self.near.setblocking(False)
        self._far.setblocking(False)
        connection = SSL.Connection(server, self.near)
        connection.set_accept_state()
        self.server = AsyncSSL(connection, handshake=offloaded, io=io)
        self.connection = connection
        self.client = SSL.Connection(client, None)
        self.client.set_connect_state()
        self.client_done = False
        self.client_error: SSL.Error | None = None
        self.parks = 0

    def step_client(self) -> None:
        """Let the client take what has come, and answer."""
        with suppress(BlockingIOError, ConnectionError):
            self.client.bio_write(self._far.recv(1 << 16) or b"")
        try:
            if not self.client_done:
                self.client.do_handshake()
                self.client_done = True
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.client_error = error
        self.flush_client()

    def flush_client(self) -> None:
        """Send what the client has to say."""
        with suppress(SSL.WantReadError, SSL.SysCallError, ConnectionError):
            self._far.sendall(self.client.bio_read(1 << 16))

    def until_parked(self) -> Status:
        """Go on until the server's job pauses, or the handshake ends on both sides or fails."""
        while True:
            self.step_client()
            status = self.server.handshake()
            if status is Status.WANT_READ and self.client_error is None:
                continue
            if status is Status.WANT_ASYNC:
                self.parks += 1
            if status is Status.DONE:
                self.step_client()
                if not self.client_done:
                    continue
            return status

    def wait(self) -> None:
        """Wait until a wait fd of the paused job is readable."""
        assert readable(self.server.wait_fds(), PATIENCE), "no wait fd became readable"

    def signalled(self) -> bool:
        """Tell whether a wait fd is readable now."""
        return bool(readable(self.server.wait_fds()))

    def finish(self) -> Status:
        """Run the handshake to its end, waiting wherever it pauses."""
        status = self.until_parked()
        while status is Status.WANT_ASYNC:
            self.wait()
            status = self.until_parked()
        return status

    def echo(self, payload: bytes = b"ping") -> bytes:
        """Send from the client to the server and back; the handshake is done."""
        self.client.send(payload)
        self.flush_client()
        buffer = bytearray(len(payload))
        got = b""
        while len(got) < len(payload):
            assert self.server.read_into(buffer) is Status.DONE
            got += buffer[: self.server.count]
        assert self.server.write(got) is Status.DONE
        self.client.bio_write(self._far.recv(1 << 16))
        return self.client.recv(len(payload))

    def close(self) -> bool:
        """Close both ends; whether the server's job had ended."""
        done = self.server.close()
        self.near.close()
        self._far.close()
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
