"""Many TLS clients on one selector, in one thread: all connected first, then all shaking hands at once.

Python's ssl, because it is cheap and its OpenSSL is not the one under test.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from typing import TYPE_CHECKING

from support.running import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import TypeAlias

    from typing_extensions import Self

    # The events that a client waits for; it ends when it has nothing to wait for any more.
    Steps: TypeAlias = Generator[int, None, None]

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Storm:
    """The clients; a context manager, which closes them.

    Args:
        address: Of the server.
        count: How many.
        context: Of all of them; its name is not checked.
        name: The name that they ask for and expect.
    """

    def __init__(self, address: tuple[str, int], count: int, context: ssl.SSLContext, name: str = "localhost") -> None:
        self._context = context
        self._name = name
        plain = [socket.socket() for _ in range(count)]
        for sock in plain:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect_ex(address)
        self._sockets = plain
        self._run([_connected(sock) for sock in plain])
        self.clients = [self._wrap(sock) for sock in plain]
        self._sockets = list(self.clients)

    def _wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        return self._context.wrap_socket(
            sock, do_handshake_on_connect=False, server_hostname=self._name, suppress_ragged_eofs=False
        )

    def handshake(self, payload: bytes = b"?") -> list[float]:
        """Let all begin at once, and each send a little and get it back: only then has the server finished as well.

        Args:
            payload: What each of them sends.

        Returns:
            When each had finished, in seconds since the start, in order.
        """
        start = time.perf_counter()
        return [time.perf_counter() - start for _ in self._each([_greet(client, payload) for client in self.clients])]

    def echo(self, payload: bytes) -> None:
        """Let each of them send the same, and wait for it to come back."""
        self._run([_echo(client, payload) for client in self.clients])

    def close(self) -> None:
        """Close all, without a goodbye."""
        for sock in self._sockets:
            sock.close()

    def _run(self, clients: list[Steps]) -> None:
        for _ in self._each(clients):
            pass

    def _each(self, clients: list[Steps]) -> Iterator[None]:
        """Run all; yields as each of them ends."""
        with selectors.DefaultSelector() as selector:
            waiting = 0
            for sock, client in zip(self._sockets, clients, strict=True):
                selector.register(sock, _WRITE, (sock, client))
                waiting += 1
            while waiting:
                ready = selector.select(PATIENCE)
                assert ready, f"{waiting} clients got no further"
                for key, _ in ready:
                    sock, client = key.data
                    wanted = next(client, 0)
                    if not wanted:
                        selector.unregister(sock)
                        waiting -= 1
                        yield
                    elif wanted != key.events:
                        selector.modify(sock, wanted, key.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connected(sock: socket.socket) -> Steps:
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, "connect")
    yield from ()


def _retried(call: Callable[[], object]) -> Steps:
    while wanted := _wanted(call):
        yield wanted


def _wanted(call: Callable[[], object]) -> int:
    """Make the call; return what it waits for, 0 when it is done."""
    try:
        call()
    except ssl.SSLWantReadError:
        return _READ
    except ssl.SSLWantWriteError:
        return _WRITE
    return 0


def _greet(client: ssl.SSLSocket, payload: bytes) -> Steps:
    yield from _retried(client.do_handshake)
    yield from _echo(client, payload)


def _echo(client: ssl.SSLSocket, payload: bytes) -> Steps:
    yield from _retried(lambda: client.sendall(payload))
    got = bytearray()
    while len(got) < len(payload):
        yield from _retried(lambda: got.extend(client.recv(len(payload) - len(got))))
    assert got == payload
