"""Clients that connect, shake hands, and then do nothing: all on one selector, in this process.

Python's ssl, because it is cheap and its OpenSSL is not the one under test.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from typing import TYPE_CHECKING

from benchmarks.peers.processes import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

# What all servers have in common; the client offers nothing else. In TLS 1.2 the groups are also the curves that a
# certificate may have (RFC 8422 5.1), so P-256 must be among them; the first one is chosen.
GROUP = "X25519"
GROUPS = {"1.2": "X25519:P-256", "1.3": GROUP}
CIPHERS = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
AT_ONCE = 64  # handshakes in progress: few enough for any backlog


def client_context(tls: str = "1.3") -> ssl.SSLContext:
    """A client that offers one version and, in TLS 1.3, one group; it does not check the certificate.

    Args:
        tls: "1.2" or "1.3".
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[tls]
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(CIPHERS)
    if tls == "1.3":  # Python can offer one or all, and older ones know no X25519 here; their OpenSSL prefers it
        with contextlib.suppress(ssl.SSLError):
            context.set_ecdh_curve(GROUP)
    return context


class Crowd:
    """The clients; a context manager, which closes them.

    Args:
        address: Of the server.
        context: Of all of them.

    Attributes:
        clients: Those whose handshake is done, or, after `begin`, has begun.
    """

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self._address = address
        self._context = context
        self.clients: list[ssl.SSLSocket] = []

    def connect(self, count: int) -> None:
        """Open so many connections, some at a time.

        Raises:
            OSError: One has failed.
            TimeoutError: Nothing came for `PATIENCE`.
        """
        self._in_turn(count, self._shake)

    def begin(self, count: int) -> None:
        """Open so many, and send only what begins a handshake."""
        self._in_turn(count, self._shake_once)

    def _in_turn(self, count: int, step: Callable[[ssl.SSLSocket], bool]) -> None:
        started = 0
        with selectors.DefaultSelector() as selector:
            while started < count or selector.get_map():
                while started < count and len(selector.get_map()) < AT_ONCE:
                    self._start(selector)
                    started += 1
                ready = selector.select(PATIENCE)
                if not ready:
                    raise TimeoutError(f"{len(selector.get_map())} of {count} handshakes got no further")
                for key, _ in ready:
                    if step(key.data):
                        selector.unregister(key.fd)
                    else:
                        selector.modify(key.fd, selectors.EVENT_READ, key.data)

    def _start(self, selector: selectors.BaseSelector) -> None:
        plain = socket.create_connection(self._address, PATIENCE)
        plain.setblocking(False)
        client = self._context.wrap_socket(plain, do_handshake_on_connect=False)
        self.clients.append(client)
        selector.register(client, selectors.EVENT_WRITE, client)

    @staticmethod
    def _shake(client: ssl.SSLSocket) -> bool:
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    @classmethod
    def _shake_once(cls, client: ssl.SSLSocket) -> bool:
        return not cls._shake(client)

    def alive(self) -> int:
        """How many are still open; what the server has sent, such as tickets, is read."""
        return sum(map(_is_open, self.clients))

    def close(self) -> None:
        """Close all, without a goodbye."""
        for client in self.clients:
            client.close()
        self.clients.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_open(client: ssl.SSLSocket) -> bool:
    try:
        return client.recv(1 << 14) != b""
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False
