"""What the connections of one context have in common, and how it is made anew when the context is another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tlsserver.questions import Questions
from tlsserver.session import ContextLike, Shared, engines_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.drains import Drain, Drains
    from tlsserver.loop_engines import LoopEngines
    from tlsserver.policy.server_names import ServerNames
    from tlsserver.reactor import Reactor, Timer
    from tlsserver.stats import Counters

__all__ = ["Offer", "Offers"]


class Offer(NamedTuple):
    """What the connections of one context have in common.

    Attributes:
        context: Certificates, keys and policy.
        shared: For their sessions.
        engine: Its name, None: there is none.
        drain: The jobs of that engine that go on without their connections.
        reactor: The loop.
        clock: Its time.
    """

    context: ContextLike
    shared: Shared
    engine: str | None
    drain: Drain
    reactor: Reactor
    clock: Callable[[], float]


class Offers:
    """Makes the offer of the current context on one loop. Loop thread only."""

    def __init__(
        self,
        reactor: Reactor,
        engines: LoopEngines,
        buffer: bytearray,
        *,
        counters: Counters,
        drains: Drains,
        current_context: Callable[[], ContextLike],
        changed: Callable[[ContextLike], object] | None = None,
    ) -> None:
        """Begin without an offer.

        Args:
            reactor: The loop.
            engines: Those that it uses.
            buffer: `tlsserver.session.READ_SIZE` bytes that all sessions of the loop may share.
            counters: What is counted.
            drains: The jobs that go on without their connections.
            current_context: Tells the context of the next connection.
            changed: Told of each context that is another one.
        """
        self._reactor = reactor
        self._engines = engines
        self._buffer = buffer
        self._counters = counters
        self._drains = drains
        self._current_context = current_context
        self._changed = changed
        self._offer: Offer | None = None
        self._keep_up_timer: Timer | None = None

    def current(self) -> Offer:
        """Return what the next connection begins with; made when the context is another one."""
        context = self._current_context()
        offer = self._offer
        if offer is None or offer.context is not context:
            engine = None if context.engine is None else context.engine.name
            for one in engines_of(context):
                self._engines.use(one)
            drain = self._drains.of(context.engine, engine or "off")
            shared = Shared(context, self._buffer, self._maybe_questions(context))
            offer = self._offer = Offer(context, shared, engine, drain, self._reactor, self._reactor.time)
            self._keep_up()
            if self._changed is not None:
                self._changed(context)
        return offer

    def close(self) -> None:
        """No more connections come: nothing has to be kept up."""
        if self._keep_up_timer is not None:
            self._keep_up_timer.cancel()

    def _keep_up(self) -> None:
        """Let the current context do what is due by time, now and whenever it says."""
        if self._keep_up_timer is not None:
            self._keep_up_timer.cancel()
        keep_up = getattr(self._current_context(), "keep_up", None)
        when = None if keep_up is None else keep_up(self._reactor.time())
        self._keep_up_timer = None if when is None else self._reactor.call_at(when, self._keep_up)

    def _maybe_questions(self, context: ContextLike) -> Questions | None:
        names: ServerNames | None = getattr(context, "server_names", None)
        if names is None:
            return None
        post = self._reactor.call_soon_threadsafe
        return Questions(names, counters=self._counters, post=post, use_engine=self._engines.use)
