"""What the TLS connections of one run of trio or anyio have in common, and the task that drives them.

Facts
- trio and anyio call the same things by the same names. In neither may a task wait for two descriptors at a time.
- A connection whose handshake is parked waits for its wait fds, its client and its deadline at once; others wait in
  line for a job, or for an answer, and a signer may have sockets of its own. `tlsserver.connection` does that for
  callbacks.

Decision
- All connections of a run have one reactor, whose selector is one descriptor. One task waits for it and gives it turns.
  It lives as long as the run does, and drains at its end what is left.
- What other tasks do between two turns they do at once; if it leaves something to be done, the next turn is hurried.

Trade-off
- One more switch of tasks for each turn of the selector. In exchange neither loop registers anything for a task that
  waits for its connection, which is two system calls each time in both.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from tlsserver.config import ServerConfig
from tlsserver.drains import Drains
from tlsserver.driver import Hub
from tlsserver.job_line import JobLine
from tlsserver.loop_engines import LoopEngines
from tlsserver.nested import NestedReactor
from tlsserver.offers import Offer, Offers
from tlsserver.session import READ_SIZE, ContextLike
from tlsserver.stats import Counters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Kit", "TaskLoop"]

logger = logging.getLogger(__name__)

# Our engines end a cancelled job at once; a third party's may take as long as its operation. As for `tlsserver.Server`.
_DRAIN_SECONDS = 1.5

# Contexts in use at one time: one for each listener, and the one before for those who came then. Beyond it they are
# prepared anew, some 50 us each time.
_OFFERS = 64


class Kit(NamedTuple):
    """What trio and anyio both have.

    Attributes:
        event: Makes an event.
        scope: Makes a scope of cancellation, of ``deadline`` and ``shield``.
        now: Tells the time of its deadlines.
        checkpoint: Lets others run, and the cancelled end.
        wait_readable: Waits for a descriptor.
        busy: Raised where two tasks do the same thing to one stream, with what they do.
        broken: Raised where the connection is lost.
        closed: Raised where this end was closed.
    """

    event: Callable[[], Any]
    scope: Callable[..., Any]
    now: Callable[[], float]
    checkpoint: Callable[[], Awaitable[object]]
    wait_readable: Callable[[int], Awaitable[object]]
    busy: Callable[[str], Exception]
    broken: Callable[[str], Exception]
    closed: Callable[[str], Exception]


class TaskLoop:
    """The reactor of one run, and what its connections share. The run's thread only.

    Attributes:
        kit: Of the run.
        reactor: Of its connections.
        hub: Their drivers.
        counters: What is counted.
        is_over: The run has come to its end.
    """

    def __init__(self, kit: Kit) -> None:
        """Begin without connections; a task of the run has to `serve`."""
        self.kit = kit
        self.reactor = NestedReactor(self._changed)
        self.hub = Hub(self.reactor)
        self.counters = Counters()
        self.is_over = False
        self._engines = LoopEngines(self.reactor)
        self._drains = Drains(ServerConfig().draining_most)
        self._line = JobLine(self.reactor, self.hub.jobs, lambda: self.counters.jobs_ended)
        self._offers: OrderedDict[ContextLike, Offers] = OrderedDict()
        self._buffer = bytearray(READ_SIZE)
        self._waiting: Any = None  # the scope in which `serve` waits
        self._turned: Any = None  # an event, while somebody waits for room
        self.reactor.at_end_of_turn(self._end_of_turn)

    def offer(self, context: ContextLike) -> Offer:
        """Return what the connections of a context have in common.

        Raises:
            engine_shim.LinkageError: OpenSSL cannot be reached.
        """
        offers = self._offers.get(context)
        if offers is None:
            offers = self._offers[context] = Offers(
                self.reactor,
                self._engines,
                buffer=self._buffer,
                counters=self.counters,
                drains=self._drains,
                current_context=lambda: context,
            )
        self._offers.move_to_end(context)
        if len(self._offers) > _OFFERS:
            self._offers.popitem(last=False)[1].close()
        return offers.current()

    async def wait_room(self, most: int) -> None:
        """Wait until fewer handshakes are in progress."""
        while self.counters.handshakes_in_progress >= most:
            if self._turned is None:
                self._turned = self.kit.event()
            await self._turned.wait()

    async def serve(self) -> None:
        """Give the reactor its turns, until the run ends and this is cancelled."""
        try:
            while True:
                await self._turn()
        finally:
            with self.kit.scope(shield=True):
                await self._drain()

    async def _turn(self) -> None:
        """Wait until there is something to do, and do it."""
        patience = self.reactor.patience
        if patience == 0:
            await self.kit.checkpoint()
        else:
            until = math.inf if patience is None else self.kit.now() + patience
            with self.kit.scope(deadline=until) as self._waiting:
                await self.kit.wait_readable(self.reactor.fileno())
            self._waiting = None
        self.reactor.run_turn()

    def _changed(self) -> None:
        """The next turn may have to be earlier than `_turn` has thought."""
        patience = self.reactor.patience
        if self._waiting is not None and patience is not None:
            self._waiting.deadline = min(self._waiting.deadline, self.kit.now() + patience)

    def _end_of_turn(self) -> None:
        self._line.serve()
        self.hub.apply()
        if self._turned is not None:
            self._turned.set()
            self._turned = None
        # Last: what the turn was for is done, and sent, before an engine may take milliseconds.
        self._engines.take_turns(self.counters.handshakes_in_progress)

    async def _drain(self) -> None:
        """End what the run has left, and wait for the jobs that are not ours to end."""
        self.is_over = True
        until = self.reactor.time() + _DRAIN_SECONDS
        self.reactor.call_at(until, _nothing)
        for driver in tuple(self.hub.drivers):
            driver.abort()
        while self.hub.drivers and self.reactor.time() < until:
            await self._turn()
        if self.hub.drivers:
            logger.error(
                "%d jobs have not ended within %.1f s and are left behind", len(self.hub.drivers), _DRAIN_SECONDS
            )
        self._engines.leave()
        self.reactor.close()


def _nothing() -> None:
    """What a turn is for that only has to come."""
