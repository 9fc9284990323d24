"""An echo server in a process of its own, with an ENGINE that is the default there and unknown to the clients here."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_shim import OpenSSLEngine, counters
from support import apart
from support.memory import TUNABLES, usage
from tlsserver import Server, TLSContext
from tlsserver.protocols.echo import EchoProtocol

if TYPE_CHECKING:
    from typing_extensions import Self

    from support.certificates import Identity


class EngineServer:
    """The server, seen from the clients' process; a context manager.

    Args:
        identity: Its certificate and key.
        engine: Arguments of :class:`engine_shim.OpenSSLEngine`, by name.
        context: Arguments of :class:`tlsserver.TLSContext`, by name.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, identity: Identity, engine: dict[str, Any], context: dict[str, Any]) -> None:
        settings = {"cert": str(identity.cert), "key": str(identity.key), "engine": engine, "context": context}
        self._process = subprocess.Popen(
            apart.command(__name__, "serve", json.dumps(settings)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=apart.environment(**TUNABLES),
        )
        self.address = ("127.0.0.1", self._answer())

    def report(self) -> dict[str, Any]:
        """Ask for its numbers: ``statistics``, ``counters``, ``descriptors`` (how many) and ``allocated`` (bytes)."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, Any] = self._answer()
        return found

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


def serve(settings: str) -> None:
    """Be the server, until standard input ends."""
    given = json.loads(settings)
    allow_many_files()
    with OpenSSLEngine(**given["engine"]) as engine:
        context = TLSContext(given["cert"], engine.load_key(Path(given["key"]).read_bytes()), **given["context"])
        server = Server(context, EchoProtocol, port=0, max_handshakes=10_000)
        _, port = server.listen()
        server.start()
        _say(port)
        for _ in sys.stdin:
            _say(_report(server))
        server.stop(5)
    numbers = counters()
    assert numbers.jobs_started == numbers.jobs_finished, numbers


def allow_many_files() -> None:
    """Raise the limit on open files as far as the system allows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _report(server: Server) -> dict[str, Any]:
    return {
        "statistics": server.statistics().as_dict(),
        "counters": dataclasses.asdict(counters()),
        # Not pathlib: it keeps the names for good (sys.intern), and memory is looked at.
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "allocated": usage().allocated,
    }


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
