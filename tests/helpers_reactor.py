"""What the tests of the loop share: every selector there is, and small tools."""

from __future__ import annotations

import selectors
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tlsserver.selector import load_selectors2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsserver.reactor import Reactor

NAMES = ("EpollSelector", "PollSelector", "SelectSelector", "KqueueSelector", "DevpollSelector")
SELECTORS = [
    pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")
    for module in (selectors, load_selectors2())
    for name in NAMES
    if hasattr(module, name)
]


def open_pair() -> tuple[socket.socket, socket.socket]:
    """Make two ends that do not block."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def turns(reactor: Reactor, count: int = 3) -> None:
    """Run turns that do not wait."""
    for _ in range(count):
        reactor.run_turn(0)


class Calls(list[Any]):
    """Remembers what it is called with."""

    def __call__(self, *args: object) -> None:
        self.append(args[0] if len(args) == 1 else args)


def check_descriptors() -> Iterator[None]:
    """Body of a fixture: no descriptor is left open, and none waits for the garbage collector to be closed."""
    before = sorted(Path("/proc/self/fd").iterdir())
    yield
    assert sorted(Path("/proc/self/fd").iterdir()) == before
