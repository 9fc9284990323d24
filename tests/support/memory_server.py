"""An echo server in a process of its own that tells how much memory it holds: the clients' is not counted.

The process runs with `support.memory.TUNABLES`, so that what malloc has handed out is all there is, Python's objects
included.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from engine_shim import Engine, ManualEngine, ThreadEngine
from support.child_server import ChildServer, allow_many_files, say
from support.leaks import wait_until
from support.memory import Usage, usage
from tlsserver import Server, ServerConfig, TLSContext
from tlsserver.protocols.echo import EchoProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity

_IDLE_JOBS = 4

_ENGINES: dict[str, Callable[[], Engine]] = {"threads": ThreadEngine, "manual": ManualEngine}


class MemoryServer(ChildServer):
    """The server, seen from the clients' process.

    Args:
        identity: Its certificate and key.
        engine: "off", "threads" or "manual".
    """

    def __init__(self, identity: Identity, engine: str) -> None:
        super().__init__(__name__, identity.cert, identity.key, engine)

    def idle(self, count: int) -> Usage:
        """Wait until so many connections are open and nothing is in progress, and tell what is in use then."""
        return Usage(*self.ask(["idle", count]))

    def parked(self, count: int) -> Usage:
        """Wait until so many ops of the manual engine are pending, and tell what is in use then."""
        return Usage(*self.ask(["parked", count]))

    def perform(self, count: int) -> Usage:
        """Let the manual engine perform so many ops."""
        return Usage(*self.ask(["perform", count]))


def serve(certificate: str, key: str, engine_name: str) -> None:
    """Be the server, until standard input ends."""
    allow_many_files()
    engine = _ENGINES[engine_name]() if engine_name in _ENGINES else None
    context = TLSContext(certificate, engine.load_key(key) if engine else key)
    # A job, once made, stays: where idle connections are compared, the first ones must have made them all.
    jobs = _IDLE_JOBS if engine_name == "threads" else None
    limits = ServerConfig(port=0, max_handshakes=10_000, timeout_handshake=600, async_jobs=jobs)
    with Server(context, EchoProtocol, config=limits) as server:
        say(server.address[1])
        for line in sys.stdin:
            kind, count = json.loads(line)
            _DO[kind](server, engine, count)
            say(usage())
    if engine is not None:
        engine.close()


def _until_idle(server: Server, _: object, count: int) -> None:
    def is_idle() -> bool:
        numbers = server.statistics()
        return numbers.connections_open == count and not numbers.handshakes_in_progress

    wait_until(is_idle)


def _until_parked(_: object, engine: Any, count: int) -> None:
    wait_until(lambda: engine.pending == count)


def _perform(_: object, engine: Any, count: int) -> None:
    for _one in range(count):
        engine.perform()


_DO: dict[str, Callable[[Server, Any, int], None]] = {
    "idle": _until_idle,
    "parked": _until_parked,
    "perform": _perform,
}
