"""The client of Python's ssl, another OpenSSL than the server's, against an AsyncSSL over a socket pair."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

from OpenSSL import SSL

from engine_shim import AsyncSSL, Status
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from support.certificates import Identity

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def python_context(identity: Identity, version: str, key_log: Path | None = None) -> ssl.SSLContext:
    """Make a client's context for one version that trusts the tests' authority."""
    context = ssl.create_default_context(cafile=str(identity.ca))
    context.minimum_version = context.maximum_version = VERSIONS[version]
    if key_log is not None:
        context.keylog_filename = str(key_log)
    return context


class PythonPair:
    """Both ends of one connection; ``perform`` is called whenever the server's job has paused."""

    def __init__(self, server: SSL.Context, client: ssl.SSLContext, *, offloaded: bool = False) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        connection = SSL.Connection(server, self._near)
        connection.set_accept_state()
        self.server = AsyncSSL(connection, handshake=offloaded)
        self._connection = connection
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self._in, self._out, server_hostname="localhost")

    def step_client(self) -> bool:
        """Let the client take what has come, and answer; whether its handshake is done."""
        with contextlib.suppress(BlockingIOError):
            self._in.write(self._far.recv(1 << 16))
        try:
            self.client.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._far.sendall(self._out.read())
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.read(1)  # TLS 1.3: tickets come behind the handshake
        return True

    def finish(self, perform: Callable[[], object] | None = None) -> int:
        """Do the whole handshake; gives how often it was parked."""
        parked, status, done = 0, Status.WANT_READ, False
        while not (done and status is Status.DONE):
            done = self.step_client()
            if status is not Status.DONE:
                status = self.server.handshake()
            assert status is not Status.ERROR, self.server.errors()
            if status is Status.WANT_ASYNC:
                parked += 1
                if perform is not None:
                    perform()
                assert readable(self.server.wait_fds(), PATIENCE)
        self.step_client()
        return parked

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()
        self._near.close()
        self._far.close()
