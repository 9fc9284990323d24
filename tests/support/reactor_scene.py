"""The loop on each selector, as a plugin of its tests: ``pytest_plugins = ("support.reactor_scene",)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers_reactor import SELECTORS, check_descriptors, open_pair

from tlsserver.reactor import Reactor

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator


@pytest.fixture
def descriptors() -> Iterator[None]:
    yield from check_descriptors()


@pytest.fixture(params=SELECTORS)
def reactor(request: pytest.FixtureRequest) -> Iterator[Reactor]:
    made = Reactor(request.param())
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = open_pair()
    with near, far:
        yield near, far
