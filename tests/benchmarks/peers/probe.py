"""What a server really does in a handshake: looked at from a client, because a setting may not do what it says."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.crowd import client_context
from benchmarks.peers.processes import PATIENCE

HANDSHAKE, NEW_SESSION_TICKET = 22, 4  # RFC 8446 5.1 and 4
SILENCE = 0.3  # seconds after which nothing more is expected


@dataclass(frozen=True)
class Seen:
    """What came of one handshake.

    Attributes:
        version: Of TLS, as OpenSSL names it.
        cipher: Its suite.
        tickets: Session tickets that came.
        flight: Bytes that the server sent until it was silent: certificate and tickets make most of them.
    """

    version: str
    cipher: str
    tickets: int
    flight: int


def look(address: tuple[str, int], tls: str) -> Seen:
    """Shake hands, and see what comes until the server is silent."""
    tickets = 0

    def message(_: Any, direction: str, __: Any, kind: int, name: int, ___: bytes) -> None:
        nonlocal tickets
        tickets += (direction, kind, name) == ("read", HANDSHAKE, NEW_SESSION_TICKET)

    context = client_context(tls)
    context._msg_callback = message  # type: ignore[attr-defined]
    with socket.create_connection(address, PATIENCE) as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing)
        flight = _exchange(plain, client, incoming, outgoing)
        cipher = client.cipher()
    return Seen(client.version() or "", cipher[0] if cipher else "", tickets, flight)


def _exchange(plain: socket.socket, client: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> int:
    """Carry bytes to and fro until the handshake is done and nothing comes any more; returns how many have come."""
    received, done = 0, False
    while True:
        try:
            client.do_handshake()
            done = True
            client.read(1)
        except ssl.SSLWantReadError:
            pass
        plain.sendall(outgoing.read())
        plain.settimeout(SILENCE if done else PATIENCE)
        try:
            data = plain.recv(1 << 16)
        except TimeoutError:
            if done:
                return received
            raise
        if not data:
            raise ConnectionError("the server has closed the connection")
        received += len(data)
        incoming.write(data)
