"""An echo server in a process of its own that tells how much memory it holds: the clients' is not counted.

The process runs with `support.memory.TUNABLES`, so that what malloc has handed out is all there is, Python's objects
included.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from engine_shim import Engine, ManualEngine, ThreadEngine
from support import apart
from support.engine_server import allow_many_files
from support.leaks import wait_until
from support.memory import TUNABLES, Usage, usage
from tlsserver import Server, ServerConfig, TLSContext
from tlsserver.protocols.echo import EchoProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from support.certificates import Identity

_IDLE_JOBS = 4

_ENGINES: dict[str, Callable[[], Engine]] = {"threads": ThreadEngine, "manual": ManualEngine}


class MemoryServer:
    """The server, seen from the clients' process; a context manager.

    Args:
        identity: Its certificate and key.
        engine: "off", "threads" or "manual".

    Attributes:
        address: Where it listens.
    """

    def __init__(self, identity: Identity, engine: str) -> None:
        self._process = subprocess.Popen(
            apart.command(__name__, "serve", identity.cert, identity.key, engine),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=apart.environment(**TUNABLES),
        )
        self.address = ("127.0.0.1", self._answer())

    def idle(self, count: int) -> Usage:
        """Wait until so many connections are open and nothing is in progress, and tell what is in use then."""
        return self._ask("idle", count)

    def parked(self, count: int) -> Usage:
        """Wait until so many ops of the manual engine are pending, and tell what is in use then."""
        return self._ask("parked", count)

    def perform(self, count: int) -> Usage:
        """Let the manual engine perform so many ops."""
        return self._ask("perform", count)

    def _ask(self, *question: object) -> Usage:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return Usage(*self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server has ended: {self._process.wait()}"
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            assert self._process.wait(30) == 0


def serve(certificate: str, key: str, engine_name: str) -> None:
    """Be the server, until standard input ends."""
    allow_many_files()
    engine = _ENGINES[engine_name]() if engine_name in _ENGINES else None
    context = TLSContext(certificate, engine.load_key(key) if engine else key)
    # A job, once made, stays: where idle connections are compared, the first ones must have made them all.
    jobs = _IDLE_JOBS if engine_name == "threads" else None
    limits = ServerConfig(port=0, max_handshakes=10_000, timeout_handshake=600, async_jobs=jobs)
    with Server(context, EchoProtocol, config=limits) as server:
        _say(server.address[1])
        for line in sys.stdin:
            kind, count = json.loads(line)
            _DO[kind](server, engine, count)
            _say(usage())
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


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
