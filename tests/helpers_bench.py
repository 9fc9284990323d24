"""Servers for the load generator: ours, and some that a load can only fail at."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from typing import TYPE_CHECKING, Any

from support.clients import reset
from support.running import PATIENCE
from tlsserver.bench import Client, Load, Settings, Tally, Target, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Behave = Callable[[socket.socket, int], None]


def target(port: int) -> Target:
    return Target(f"127.0.0.1:{port}", "127.0.0.1", socket.AF_INET, ("127.0.0.1", port), is_loopback=True)


def load(port: int, **settings: Any) -> Load:
    """Make a load that ends soon by itself, whatever happens."""
    made = Settings(**{"count": 20, "concurrency": 4, "duration": PATIENCE, **settings})
    return Load(made, target(port), Client(made), sources(target(port)))


def run(port: int, **settings: Any) -> Tally:
    return load(port, **settings).run()


@contextlib.contextmanager
def behaving(behave: Behave) -> Iterator[int]:
    """Run a server that treats each connection by a rule of its own; gives its port.

    Args:
        behave: Called with the connection and its number; the connection is closed afterwards.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=_accept, args=(listener, behave))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


def _accept(listener: socket.socket, behave: Behave) -> None:
    for number in itertools.count():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(PATIENCE)
            behave(connection, number)


def reset_in_the_middle(connection: socket.socket, _: int) -> None:
    """Wait for the client's hello, then reset."""
    connection.recv(1)
    reset(connection)


def leave_in_the_middle(connection: socket.socket, _: int) -> None:
    """Wait for the whole hello, then close in order."""
    connection.recv(1 << 16)


def say(data: bytes) -> Behave:
    """Answer the client's hello with bytes."""

    def behave(connection: socket.socket, _: int) -> None:
        connection.recv(1 << 16)
        connection.sendall(data)

    return behave
