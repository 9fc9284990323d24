"""An echo server of Twisted's in a process of its own: a loop that no client in this process holds up."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver

from engine_shim import LatencyEngine, counters
from support.child_server import ChildServer, allow_many_files, say
from tlsserver import TLSContext
from tlsserver.integrations.twisted import ServerOptions
from tlsserver.integrations.twisted_hub import hub_of

if TYPE_CHECKING:
    from support.certificates import Identity

_reactor: Any = reactor


class TwistedChild(ChildServer):
    """The server, seen from the clients' process.

    Args:
        identity: Its certificate and key.
        seconds: The latency of its key.
    """

    def __init__(self, identity: Identity, seconds: float) -> None:
        super().__init__(__name__, identity.cert, identity.key, str(seconds))

    def report(self) -> dict[str, Any]:
        """Ask for its numbers: ``handshakes``, ``in_progress``, ``jobs`` (paused) and ``descriptors`` (how many)."""
        found: dict[str, Any] = self.ask("report")
        return found


class _Echo(Protocol):
    transport: Any

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        self.transport.write(data)


class _Questions(LineReceiver):
    """Standard input: each line is answered, and its end is the server's."""

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:  # noqa: ARG002, N802 - Twisted's name
        numbers, jobs = hub_of(_reactor).counters, counters()
        report = {"handshakes": numbers.handshakes_completed, "in_progress": numbers.handshakes_in_progress}
        report |= {"parked_max": numbers.parked_max, "jobs": jobs.jobs_started - jobs.jobs_finished}
        say(report | {"descriptors": len(os.listdir("/proc/self/fd"))})  # noqa: PTH208 - as in engine_server.py

    def connectionLost(self, reason: Any = None) -> None:  # noqa: ARG002, N802 - Twisted's name
        _reactor.stop()


def serve(certificate: str, key: str, seconds: str) -> None:
    """Be the server, until standard input ends."""
    allow_many_files()
    with LatencyEngine(float(seconds), threads=2) as engine:
        options: Any = ServerOptions(TLSContext(certificate, engine.load_key(key)))
        factory: Any = Factory.forProtocol(_Echo)
        listening = _reactor.listenSSL(0, factory, options, backlog=1024, interface="127.0.0.1")
        say(listening.getHost().port)
        standard: Any = StandardIO  # its types are those of Windows
        standard(_Questions(), stdin=sys.stdin.fileno(), stdout=os.open(os.devnull, os.O_WRONLY))
        _reactor.run()
    numbers = dataclasses.asdict(counters())
    assert numbers["jobs_started"] == numbers["jobs_finished"], numbers
