"""A server that runs while a test looks on: the test waits for turns of its loop, never for time.

`Clock` takes the place of the reactor's clock, so that a deadline passes when the test says so.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import engine_shim
from support import leaks
from tlsserver import Server, Statistics

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from typing_extensions import Self

    from tlsserver.session import ContextLike

PATIENCE = leaks.PATIENCE


class Clock:
    """Stands in for the module ``time`` in `tlsserver.reactor`: the real clock, and what was added to it.

    It holds for every reactor, so a test that moves it has no other server.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        monkeypatch.setattr("tlsserver.reactor.time", self)

    def monotonic(self) -> float:
        """Tell the time in seconds."""
        return time.monotonic() + self._ahead

    def advance(self, seconds: float, site: Running | None = None) -> None:
        """Let time pass, and a server see it that runs on a thread of its own."""
        self._ahead += seconds
        if site is not None:
            site.wake()


class Running:
    """A server on a thread of its own; a context manager.

    Args:
        context: Of the server.
        factory: Of its protocols.
        options: Settings by name; the port is any free one.

    Attributes:
        server: The server.
        port: Where it listens, on 127.0.0.1.
        turns: How many turns its loop has made.
    """

    def __init__(self, context: ContextLike, factory: Callable[[], asyncio.BaseProtocol], **options: Any) -> None:
        self.server = Server(context, factory, **{"port": 0, **options})
        self.turns = 0
        self._turned = threading.Event()

    def __enter__(self) -> Self:
        _, self.port = self.server.listen()
        service = self.server._service
        assert service is not None
        self._reactor = service.reactor
        self._hub = service._hub
        self._reactor.at_end_of_turn(self._end_of_turn)
        before = threading.enumerate()
        self.server.start()
        (self._thread,) = set(threading.enumerate()) - set(before)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(0)
        leaks.wait_ended(self._thread)

    def _end_of_turn(self) -> None:
        self.turns += 1
        self._turned.set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    def wake(self) -> None:
        """Make a turn come."""
        self._reactor.call_soon_threadsafe(_nothing)

    def statistics(self) -> Statistics:
        """Take a snapshot of the server's numbers."""
        return self.server.statistics()

    def connections(self) -> list[Any]:
        """List its connections, of `tlsserver.connection.Connection`; look only while the loop has nothing to do."""
        return [driver.connection for driver in tuple(self._hub.drivers)]

    def until(self, condition: Callable[[Statistics], object]) -> Statistics:
        """Wait for a turn of the loop after which the condition holds for the server's numbers.

        Args:
            condition: Of the numbers, or of anything else that only turns of the loop change.

        Returns:
            The numbers with which it held.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            self._turned.clear()
            numbers = self.statistics()
            if condition(numbers):
                return numbers
            if not self._turned.wait(max(deadline - time.monotonic(), 0)):
                pytest.fail(f"it did not come to that: {numbers}")

    def settle(self) -> None:
        """Wait until the loop has made a whole turn from now on, and has seen what is in the sockets by then."""
        passed = threading.Event()
        self._reactor.call_soon_threadsafe(self._reactor.call_soon, passed.set)
        assert passed.wait(PATIENCE)


def check_jobs() -> None:
    """Fail if a job has not finished, or an op is left once the engines' threads have let go of it."""
    numbers = engine_shim.counters()
    assert numbers.jobs_started == numbers.jobs_finished
    # A thread delivers its op before it gives up its own reference, and nothing tells of that.
    leaks.wait_until(lambda: not engine_shim.counters().ops_alive)
    assert engine_shim.counters().ops_alive == 0


def _nothing() -> None:
    """Being asked for makes a turn come."""
