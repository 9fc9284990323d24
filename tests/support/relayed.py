"""A server's end that an Acceptor made, and openssl's s_client: what passes between them is the test's."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

from engine_shim import Acceptor, Status
from support.accepted import STREAM, pair_of
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from OpenSSL import SSL
    from typing_extensions import Self

    from support.certificates import Identity


class Relayed:
    """Both ends.

    Args:
        server: The server's Context.
        identity: Whose authority the client believes.
        options: Of s_client.
    """

    def __init__(self, server: SSL.Context, identity: Identity, *options: str) -> None:
        self.near, self.far = pair_of(STREAM)
        self.server = Acceptor(server, handshake=False).accept(self.near.fileno())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            where = f"127.0.0.1:{listener.getsockname()[1]}"
            self.process = subprocess.Popen(
                ["openssl", "s_client", "-connect", where, "-CAfile", str(identity.ca), *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert readable([listener.fileno()], PATIENCE)
            self.client, _ = listener.accept()

    def hear(self) -> None:
        """Wait for the client, and let the server's socket have what it says."""
        assert readable([self.client.fileno()], PATIENCE)
        self.far.send(self.client.recv(1 << 16))

    def speak(self) -> bool:
        """Let the client have what the server's socket holds; whether that was anything."""
        try:
            self.client.sendall(self.far.recv(1 << 18))
        except BlockingIOError:
            return False
        return True

    def shake(self) -> None:
        while self.server.handshake() is not Status.DONE:
            if not self.speak():
                self.hear()
        self.speak()

    def printed(self, text: bytes) -> bool:
        """Read what the client prints, as far as this is long; whether it ends with it."""
        assert self.process.stdout is not None
        output = self.process.stdout.fileno()
        seen = b""
        while text[-1:] not in seen:
            assert readable([output], PATIENCE)
            seen += os.read(output, 1 << 16)
        return seen.endswith(text)

    def say(self, text: bytes) -> None:
        """Type something."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server.close()
        for sock in (self.near, self.far, self.client):
            sock.close()
        self.process.kill()
        self.process.communicate()
