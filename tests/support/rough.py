"""For clients that break the rules: records made by hand, a server to try them on, and a bystander."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from support.clients import NAME, Target, connect, drain, python_context
from support.running import Running, check_jobs
from tlsserver import TLSContext
from tlsserver.protocols.echo import EchoProtocol

if TYPE_CHECKING:
    from typing_extensions import Self

    import engine_shim
    from support.certificates import Identity

# Record types and alerts (RFC 8446, sections 5.1 and 6).
ALERT, HANDSHAKE, DATA = 21, 22, 23
WARNING, FATAL = 1, 2
CLOSE_NOTIFY = 0
UNEXPECTED_MESSAGE = 10
RECORD_OVERFLOW = 22
HANDSHAKE_FAILURE = 40
DECODE_ERROR = 50
PROTOCOL_VERSION = 70
NO_APPLICATION_PROTOCOL = 120


def record(kind: int, payload: bytes, version: int = 0x0301) -> bytes:
    """Frame bytes as one record, of any length that two bytes can say."""
    return bytes([kind]) + version.to_bytes(2, "big") + len(payload).to_bytes(2, "big") + payload


def alert_in(data: bytes) -> int | None:
    """Give the description of the first fatal alert that was sent in the clear."""
    while len(data) >= 7:
        length = int.from_bytes(data[3:5], "big")
        if data[0] == ALERT and length == 2 and data[5] == FATAL:
            return data[6]
        data = data[5 + length :]
    return None


class Bystander:
    """A client with an open connection, which must not notice anything."""

    def __init__(self, target: Target) -> None:
        self._tls = python_context(target).wrap_socket(connect(target.address), server_hostname=NAME)

    def ping(self) -> None:
        """Send something and get it back."""
        self._tls.sendall(b"still there?")
        got = b""
        while len(got) < 12:
            got += self._tls.recv(12)
        assert got == b"still there?"

    def close(self) -> None:
        """Leave."""
        self._tls.close()


class Scene:
    """A server with a bystander, and what tests do to it."""

    def __init__(self, identity: Identity, engine: engine_shim.Engine | None, **options: object) -> None:
        key = identity.key if engine is None else engine.load_key(identity.key)
        alpn = options.pop("alpn", ())
        context = TLSContext(identity.cert, key, alpn=alpn)  # type: ignore[arg-type]
        self.identity = identity
        self.site = Running(context, EchoProtocol, **options)
        self.engine = engine

    def __enter__(self) -> Self:
        self.site.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.site.__exit__()

    def target(self, version: str = "1.3", **offers: object) -> Target:
        """Say how a client is to connect."""
        return Target(self.site.port, self.identity, version, **offers)  # type: ignore[arg-type]

    def say(self, *pieces: bytes) -> bytes:
        """Send bytes, then our end of the stream; return all that the server says until it closes."""
        with connect(self.site.address) as sock:
            with contextlib.suppress(OSError):  # the server may have closed, and reset, before all was sent
                for piece in pieces:
                    sock.sendall(piece)
                sock.shutdown(socket.SHUT_WR)
            return drain(sock)

    def is_well(self) -> None:
        """Fail if anything is left of the bad clients, or a good one is not served."""
        self.site.until(lambda numbers: numbers.connections_open == 0)
        bystander = Bystander(self.target())
        bystander.ping()
        bystander.close()
        now = self.site.until(lambda numbers: numbers.connections_open == 0)
        assert (now.handshakes_in_progress, now.parked_now, now.draining_now) == (0, 0, 0)
        check_jobs()
