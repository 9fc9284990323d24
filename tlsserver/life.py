"""The state of one connection as its calls move it along the table, and the numbers that follow the state.

The only place where jobs are seen to pause and to end: every call of the wire is asked for with `Life.may_call`, and
its outcome passes through `Life.follow`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsserver import state as states
from tlsserver.parking import Parking
from tlsserver.state import INITIAL, TRANSITIONS, Event, State, next_state
from tlsserver.wire import Step, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.drains import Drain
    from tlsserver.jobs import Place
    from tlsserver.stats import Counters

__all__ = ["Life"]

_INTERRUPTED = frozenset({Step.WANT_ASYNC, Step.WANT_ASYNC_JOB, Step.WANT_ANSWER})

_HANDSHAKING = states.HANDSHAKING

# Where a gauge counts connections; most of them are never there.
_GAUGED = states.PARKED | states.QUEUED | {State.LINGERING, State.DRAINING}

# An attribute of an enumeration costs a call before Python 3.12, and a handshake asks for a hundred of them.
_CANCELLED, _ENDED, _HANDSHAKE_DONE, _NO_JOB, _PAUSED, _REFUSED, _RESUMED = (
    Event.CANCELLED,
    Event.ENDED,
    Event.HANDSHAKE_DONE,
    Event.NO_JOB,
    Event.PAUSED,
    Event.REFUSED,
    Event.RESUMED,
)
_DRAINING, _LINGERING, _PARKED = State.DRAINING, State.LINGERING, State.PARKED
_WANT_ANSWER, _WANT_ASYNC, _WANT_ASYNC_JOB = Step.WANT_ANSWER, Step.WANT_ASYNC, Step.WANT_ASYNC_JOB


class Life:
    """State, interruption and gauges of one connection.

    Attributes:
        state: Where it is.
        waiting: The line of those who wait for a job; while it is empty, `may_call` need not be asked.
        parking: The interruption, while there is one, and the sum of those before.
    """

    __slots__ = ("_counters", "_drain", "_place", "_wire", "parking", "state", "waiting")

    def __init__(self, wire: Wire, counters: Counters, place: Place, drain: Drain) -> None:
        self.state = INITIAL
        self.parking = Parking()
        self._wire = wire
        self._counters = counters
        self._place = place
        self.waiting = place.waiting
        self._drain = drain
        counters.handshakes_in_progress += 1

    def go(self, event: Event) -> None:
        """Move along the table; the gauges follow the state and nothing else.

        Raises:
            IllegalTransitionError: The table does not have it; nothing has changed.
        """
        old = self.state
        new = self.state = TRANSITIONS[old].get(event) or next_state(old, event)
        if old in _GAUGED:
            self._leave(old, new)
        if new in _GAUGED:
            self._enter(new)
        if old in _HANDSHAKING and new not in _HANDSHAKING:
            self._count_handshake(event)

    def _enter(self, new: State) -> None:
        counters = self._counters
        if new in states.PARKED:
            counters.parked_now += 1
            counters.parked_max = max(counters.parked_max, counters.parked_now)
        elif new in states.QUEUED:
            counters.queued_now += 1
            self._place.wait()
        elif new is _LINGERING:
            counters.lingering_now += 1
        else:
            counters.draining_now += 1
            counters.draining_max = max(counters.draining_max, counters.draining_now)
            self._drain.enter()

    def _leave(self, old: State, new: State) -> None:
        counters = self._counters
        if old in states.PARKED:
            counters.parked_now -= 1
            counters.jobs_ended += new is not _DRAINING
        elif old in states.QUEUED:
            counters.queued_now -= 1
            if new not in states.QUEUED:
                self._place.leave()
        elif old is _LINGERING:
            counters.lingering_now -= 1
        else:
            counters.draining_now -= 1
            counters.jobs_ended += 1
            counters.drained += 1
            self._drain.leave()

    def _count_handshake(self, event: Event) -> None:
        counters = self._counters
        counters.handshakes_in_progress -= 1
        if event is _HANDSHAKE_DONE:
            counters.handshakes_completed += 1
            self._place.opened()
        elif event is _REFUSED:
            counters.handshakes_refused += 1
        else:
            counters.handshakes_failed += 1

    def may_call(self) -> bool:
        """Return whether the wire may be called; if not, nothing may be called, and it is as if no job was to be had.

        Whoever takes a job while others wait for one takes it from them, unless it is first in their line.
        """
        return not self.waiting or self._outranks()

    def _outranks(self) -> bool:
        if self.parking.step is _WANT_ASYNC:
            return True  # it goes on in the job that it has
        in_handshake = self.state in _HANDSHAKING
        takes_job = self._wire.handshake_takes_job if in_handshake else self._wire.data_takes_job
        return not takes_job or self._place.may_take()

    def follow(self, step: Step, repeat: Callable[[float], None], now: float) -> bool:
        """Keep up with what a call came to.

        Args:
            step: What it came to.
            repeat: How to make the same call again.
            now: The time.

        Returns:
            Whether the call is interrupted, so that nothing but its repetition may follow.
        """
        was = self.parking.step
        if was is None and step not in _INTERRUPTED:
            return False
        if was is not step:
            if was is not None:
                self.go(_RESUMED)
                self._count_park(now)
            if step in _INTERRUPTED:
                self._interrupt(step, repeat, now)
        if step is _WANT_ASYNC:
            self.parking.wait(self._wire.wait_fds(), now)
        return step in _INTERRUPTED

    def end(self, now: float) -> None:
        """Free the wire and leave for good; a job that is not ours to end goes on alone, and `end` is called again."""
        if self._wire.close():
            if self.parking.step is not None:
                self._count_park(now)
            self.go(_ENDED)
            return
        self.parking.wait(self._wire.wait_fds(), now)
        if self.state is not _DRAINING:
            self.go(_CANCELLED)

    def _interrupt(self, step: Step, repeat: Callable[[float], None], now: float) -> None:
        self.parking.begin(step, repeat, now)
        self.go(_NO_JOB if step is _WANT_ASYNC_JOB else _PAUSED)
        if self.state is _PARKED and not self.parking.total.parks:
            self._counters.handshakes_parked += 1
        if step is _WANT_ANSWER:
            self._wire.ask(self._place.retry)

    def _count_park(self, now: float) -> None:
        seconds = self.parking.end(now)
        if seconds is not None:
            self._counters.park_seconds.observe(seconds)
