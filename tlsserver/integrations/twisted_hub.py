"""What the handshakes on one reactor of Twisted's share, from the first of them until that reactor stops."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from tlsserver.config import ServerConfig
from tlsserver.drains import Drains
from tlsserver.integrations.twisted_loop import TwistedLoop
from tlsserver.job_line import JobLine
from tlsserver.jobs import JobQueue
from tlsserver.loop_engines import LoopEngines
from tlsserver.session import READ_SIZE
from tlsserver.stats import Counters
from tlsserver.waitfds import WaitFds

if TYPE_CHECKING:
    from typing import Protocol

    class HandshakeLike(Protocol):
        """What a hub does with `tlsserver.integrations.twisted_handshake.Handshake`."""

        def go_on(self) -> None:
            """Make the next step."""

        def leave(self) -> None:
            """Give up."""


__all__ = ["Hub", "hub_of"]

logger = logging.getLogger(__name__)

# How long steps of handshakes may hold up whoever else is on Twisted's reactor, in each of its turns.
_STEPS_SECONDS = 0.002

# A stopping reactor waits so long for jobs that nobody can cancel; see `tlsserver.service`.
_DRAIN_SECONDS = 1.5


class Hub:
    """The loop, the engines and the handshakes of one reactor of Twisted's. That reactor's thread only.

    Attributes:
        loop: Ours, inside Twisted's.
        counters: What is counted.
        engines: Those that the loop uses.
        drains: The jobs that go on without their connections.
        wait_fds: The wait fds of all parked handshakes.
        jobs: Those that wait for a job.
        buffer: What all sessions may share.
        handshakes: Those that have not ended, and those whose jobs have not.
    """

    def __init__(self, outer: Any) -> None:  # noqa: ANN401 - several interfaces of Twisted's in one
        """Begin without handshakes; the reactor's stopping ends it.

        Args:
            outer: Twisted's reactor.
        """
        self.loop = TwistedLoop(outer)
        self.counters = Counters()
        self.engines = LoopEngines(self.loop)
        self.drains = Drains(ServerConfig().draining_most)
        self.wait_fds = WaitFds(self.loop)
        self.jobs = JobQueue()
        self.buffer = bytearray(READ_SIZE)
        self.handshakes: set[HandshakeLike] = set()
        self._outer = outer
        self._line = JobLine(self.loop, self.jobs, lambda: self.counters.jobs_ended)
        self._ready: deque[HandshakeLike] = deque()
        self.loop.at_end_of_turn(self._end_of_turn)
        outer.addSystemEventTrigger("after", "shutdown", self.close)

    def enqueue(self, handshake: HandshakeLike) -> None:
        """Let a handshake make a step as soon as others on the reactor have had their turn."""
        self._ready.append(handshake)
        self.loop.end_turn_soon()

    def end_turn_soon(self) -> None:
        """A step was made: engines may have something to perform."""
        self.loop.end_turn_soon()

    def _end_of_turn(self) -> None:
        self._serve_ready()
        self._line.serve()
        # Last: an engine may take milliseconds.
        self.engines.take_turns(self.counters.handshakes_in_progress)

    def _serve_ready(self) -> None:
        """Serve those who have something to do, in order; the rest comes next turn."""
        until = time.monotonic() + _STEPS_SECONDS
        try:
            while self._ready:
                self._ready.popleft().go_on()
                if time.monotonic() >= until:
                    break
        finally:
            if self._ready:
                self.loop.hurry()

    def close(self) -> None:
        """End every handshake, wait for the jobs that are not ours to end, and leave the engines. Idempotent."""
        _hubs.pop(self._outer, None)
        if self.loop.is_closed:
            return
        try:
            if not self.loop.is_forked:
                self._drain()
                self.engines.leave()
        finally:
            self.loop.close()

    def _drain(self) -> None:
        until = time.monotonic() + _DRAIN_SECONDS
        for handshake in tuple(self.handshakes):
            handshake.leave()
        while self.handshakes and time.monotonic() < until:
            self.loop.run_turn(max(until - time.monotonic(), 0))
        if self.handshakes:
            logger.error("%d jobs have not ended and are left behind", len(self.handshakes))


# By Twisted's reactor, of which a process mostly has one.
_hubs: dict[Any, Hub] = {}


def hub_of(outer: Any) -> Hub:  # noqa: ANN401 - several interfaces of Twisted's in one
    """Return the hub of a reactor of Twisted's; made at the first call, and anew after a fork.

    Raises:
        ConfigurationError: This platform's selectors cannot be watched by others.
    """
    hub = _hubs.get(outer)
    if hub is None or hub.loop.is_forked:
        hub = _hubs[outer] = Hub(outer)
    return hub
