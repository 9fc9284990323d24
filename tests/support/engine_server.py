"""An echo server in a process of its own, with an ENGINE that is the default there and unknown to the clients here."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_shim import OpenSSLEngine, counters
from support.child_server import ChildServer, allow_many_files, say
from support.memory import usage
from tlsserver import Server, TLSContext
from tlsserver.protocols.echo import EchoProtocol

if TYPE_CHECKING:
    from support.certificates import Identity


class EngineServer(ChildServer):
    """The server, seen from the clients' process.

    Args:
        identity: Its certificate and key.
        engine: Arguments of :class:`engine_shim.OpenSSLEngine`, by name.
        context: Arguments of :class:`tlsserver.TLSContext`, by name.
    """

    def __init__(self, identity: Identity, engine: dict[str, Any], context: dict[str, Any]) -> None:
        settings = {"cert": str(identity.cert), "key": str(identity.key), "engine": engine, "context": context}
        super().__init__(__name__, json.dumps(settings))

    def report(self) -> dict[str, Any]:
        """Ask for its numbers: ``statistics``, ``counters``, ``descriptors`` (how many) and ``allocated`` (bytes)."""
        found: dict[str, Any] = self.ask("report")
        return found


def serve(settings: str) -> None:
    """Be the server, until standard input ends."""
    given = json.loads(settings)
    allow_many_files()
    with OpenSSLEngine(**given["engine"]) as engine:
        context = TLSContext(given["cert"], engine.load_key(Path(given["key"]).read_bytes()), **given["context"])
        server = Server(context, EchoProtocol, port=0, max_handshakes=10_000)
        _, port = server.listen()
        server.start()
        say(port)
        for _ in sys.stdin:
            say(_report(server))
        server.stop(5)
    numbers = counters()
    assert numbers.jobs_started == numbers.jobs_finished, numbers


def _report(server: Server) -> dict[str, Any]:
    return {
        "statistics": server.statistics().as_dict(),
        "counters": dataclasses.asdict(counters()),
        # Not pathlib: it keeps the names for good (sys.intern), and memory is looked at.
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "allocated": usage().allocated,
    }
