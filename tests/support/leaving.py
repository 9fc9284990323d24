"""Clients that leave before, while and after their handshake is parked: where they are to leave, and how.

A `Scene` is a server and an engine; each of its cycles takes a batch of clients to one of the `MOMENTS`, lets them
leave in one of the `WAYS`, and ends when the server is done with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

import engine_shim
from engine_shim import LatencyEngine, ManualEngine, ThreadEngine
from support import leaks
from support.clients import Crowd, Target, client_hello, reset
from support.memory import alive
from support.running import Clock, Running
from tlsserver import TLSContext
from tlsserver.connection import Connection
from tlsserver.driver import Driver
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from support.certificates import Identity
    from support.storm import Storm

HANDSHAKE_OVER = 11.0  # seconds: past the handshake's deadline, short of the idle one


class Scene:
    """A server, its engine, and clients that come in batches and leave.

    Attributes:
        crowd: The clients of this batch.
        base: The server's numbers before it.
    """

    def __init__(
        self, identity: Identity, engine: engine_shim.Engine, version: str, clock: Clock | None = None
    ) -> None:
        self.identity = identity
        self.engine = engine
        self._clock = clock
        self._context = TLSContext(identity.cert, engine.load_key(identity.key))
        self.site = Running(self._context, EchoProtocol, max_handshakes=10_000)
        self._version = version

    def __enter__(self) -> Self:
        self.site.__enter__()
        self.target = Target(self.site.port, self.identity, self._version)
        self.hello = client_hello(self.target)
        return self

    def __exit__(self, *_: object) -> None:
        self.site.__exit__()

    def cycle(self, moment: Callable[[Scene], None], way: Callable[[Scene], None], count: int) -> None:
        """Let a batch of clients come, and leave in one way at one moment; wait until they are gone."""
        self.base = self.site.statistics()
        with Crowd(self.site.address, count) as self.crowd:
            moment(self)
            way(self)
            self.until_gone()

    def fill_jobs(self, count: int) -> None:
        """Let so many be parked at one time: OpenSSL keeps as many jobs as were ever wanted at once."""
        with ManualEngine() as engine:
            self.site.server.swap_context(TLSContext(self.identity.cert, engine.load_key(self.identity.key)))
            self.cycle(parked, fin, count)
        self.site.server.swap_context(self._context)

    def let_pass(self, seconds: float) -> None:
        """Let time pass on the server, once it has accepted all and seen what they sent."""
        assert self._clock is not None
        self.until_accepted()
        self.site.settle()
        self._clock.advance(seconds, self.site)

    def until_accepted(self) -> None:
        """Wait until every client of this batch was accepted."""
        came = self.base.connections_accepted + len(self.crowd.sockets)
        self.site.until(lambda numbers: numbers.connections_accepted == came)

    def until_gone(self) -> None:
        """Wait until every client of this batch was accepted and is gone."""
        came = self.base.connections_accepted + len(self.crowd.sockets)
        self.site.until(lambda numbers: numbers.connections_accepted == came and not numbers.connections_open)

    def until_parked(self) -> None:
        """Wait until the handshake of every client has been parked."""
        parks = self.base.handshakes_parked + len(self.crowd.sockets)
        self.site.until(lambda numbers: numbers.handshakes_parked == parks)


_KINDS = (Connection, Driver, Session, engine_shim.AsyncSSL, SSL.Connection)

# What other tests still hold, and what they left in hand.
_others: list[object] = []
_others_hold = (0, 0)


def _in_hand() -> tuple[int, int]:
    numbers = engine_shim.counters()
    return numbers.jobs_started - numbers.jobs_finished, numbers.ops_alive


def forget_others() -> None:
    """Let `check_gone` speak of this test only: what is alive now belongs to others."""
    global _others_hold  # noqa: PLW0603 - of the one process that is looked at
    _others[:] = alive(*_KINDS)
    _others_hold = _in_hand()


def _left() -> list[object]:
    known = {id(other) for other in _others}
    return [one for one in alive(*_KINDS) if id(one) not in known]


def check_gone() -> None:
    """Fail if a connection is left: the objects, the SSLs, the jobs."""
    # The loop lets go of a connection just after it has counted it as closed.
    leaks.wait_until(lambda: not _left())
    left = _left()
    assert not left, left
    # A thread delivers its op before it gives up its own reference, and nothing tells of that.
    leaks.wait_until(lambda: _in_hand() == _others_hold)
    assert _in_hand() == _others_hold


# The moments: each takes a batch to where it is to leave.


def before(scene: Scene) -> None:
    """They have said nothing."""
    scene.until_accepted()


def in_hello(scene: Scene) -> None:
    """They have said half of what they had to say."""
    scene.crowd.send(scene.hello[: len(scene.hello) // 2])


def parked(scene: Scene) -> None:
    """Their ops are in the engine's queue."""
    scene.crowd.send(scene.hello)
    scene.until_parked()


def begun(scene: Scene) -> None:
    """Their ops are being performed."""
    parked(scene)
    assert isinstance(scene.engine, ManualEngine)
    for _ in scene.crowd.sockets:
        scene.engine.begin()


def delivered(scene: Scene) -> None:
    """The answers come as they leave: either may be seen first."""
    parked(scene)
    assert isinstance(scene.engine, ManualEngine)
    for _ in scene.crowd.sockets:
        scene.engine.perform()


def after(scene: Scene) -> None:
    """They have begun to read the server's flight, and owe theirs."""
    delivered(scene)
    scene.crowd.receive()


def at_once(scene: Scene) -> None:
    """They do not wait for anything: where the handshake is by then is anybody's guess."""
    scene.crowd.send(scene.hello)


def flight(scene: Scene) -> None:
    """A real engine has answered."""
    scene.crowd.send(scene.hello)
    scene.crowd.receive()


# The ways to leave.


def fin(scene: Scene) -> None:
    """They close."""
    scene.crowd.finish()


def rst(scene: Scene) -> None:
    """They reset."""
    scene.crowd.reset()


def silence(scene: Scene) -> None:
    """They say nothing any more, until the server has enough of it."""
    scene.let_pass(HANDSHAKE_OVER)
    scene.crowd.wait_closed()


def hidden_fin(scene: Scene) -> None:
    """They send something and close: while parked the server cannot see the end behind the bytes."""
    scene.crowd.send(b"\x17\x03\x03\x00\x10" + bytes(16))
    scene.crowd.finish()
    scene.let_pass(HANDSHAKE_OVER)


MOMENTS = (before, in_hello, parked, begun, delivered, after)
REAL_MOMENTS = (at_once, parked, flight)
WAYS = (fin, rst, silence, hidden_fin)
REAL_ENGINES: dict[str, Callable[[], engine_shim.Engine]] = {
    "threads": lambda: ThreadEngine(threads=2),
    "latency": lambda: LatencyEngine(0.005),
}


# The ways in which clients leave that have finished the handshake.


def close_without_goodbye(storm: Storm) -> None:
    """They close."""
    storm.close()


def reset_all(storm: Storm) -> None:
    """They reset."""
    for client in storm.clients:
        reset(client)


def say_goodbye(storm: Storm) -> None:
    """They send close_notify, wait for the server's, and close."""
    for client in storm.clients:
        client.setblocking(True)
        client.unwrap().close()


REAL_WAYS = (close_without_goodbye, reset_all, say_goodbye)
