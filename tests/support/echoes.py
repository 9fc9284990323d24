"""A client in a process of its own, which asks an echo server again and again: how long others wait meanwhile."""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time
from typing import TYPE_CHECKING

from support.child_server import ChildServer, say
from support.running import PATIENCE

if TYPE_CHECKING:
    from support.certificates import Identity


class Echoes(ChildServer):
    """The client, seen from the process of the test.

    Args:
        port: The server's, on 127.0.0.1.
        identity: The server's.
    """

    def __init__(self, port: int, identity: Identity) -> None:
        super().__init__(__name__, str(port), identity.ca)

    def report(self) -> list[float]:
        """Ask how many seconds each answer took since the last time."""
        found: list[float] = self.ask("report")
        return found


def serve(port: str, ca: str) -> None:
    """Be the client, until standard input ends."""
    context = ssl.create_default_context(cafile=ca)
    took: list[float] = []
    with (
        socket.create_connection(("127.0.0.1", int(port)), PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        say(int(port))
        while True:
            if select.select([sys.stdin], [], [], 0.001)[0]:
                if not sys.stdin.readline():
                    return
                say(took)
                took.clear()
            begun = time.perf_counter()
            tls.sendall(b"ping")
            assert tls.recv(4) == b"ping"
            took.append(time.perf_counter() - begun)
