"""One connection: its state, its wire (TLS) and its deadlines. It knows neither selector nor clock.

A driver tells it what happened and when (`readable`, `writable`, `resume`, `expire`, `turn`), asks `watch` what to look
out for, and calls `settle` once at the end of every turn in which the connection was used. Our server and an asyncio
loop are two drivers of this same class.

Facts
- While a job is paused, OpenSSL takes nothing but a repetition of the same call with the same data.
- Closing a socket with unread bytes sends a reset, which can destroy what the peer has not read yet.
- A client that speaks plain HTTP by mistake understands nothing but plain HTTP.

Decision
- `Life.follow` sees every call: an interrupted one is kept there, to be repeated before anything else is called.
- While parked, the socket only tells whether the client is still there: the end of its stream or an error cancels.
- What follows the handshake is in `tlsserver.flow`; the last step, to wherever, is `_end`, once.
- ``connection_lost`` is called in `settle`, so a protocol never meets it inside a call of its own.
- Whoever has waited for a job is looked at once more before it gets one: clients that have given up would otherwise be
  served first, and those who still wait would give up, too.

Trade-off
- While parked we see at once that the client left only as long as it has sent nothing before: bytes in the socket make
  it readable, and watching on would spin. The handshake's deadline covers that case.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tlsserver import state as states
from tlsserver.errors import ConnectionTimeoutError, PeerLeftError, PlainHTTPError, TLSServerError
from tlsserver.flow import Flow
from tlsserver.life import Life
from tlsserver.plain_answer import INTERNAL_ERROR_ALERT, PLAIN_HTTP_ANSWER
from tlsserver.state import Event, State
from tlsserver.watch import Watch
from tlsserver.wire import Peek, Step, TLSInfo, Wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from tlsserver.audience import Audience
    from tlsserver.config import ServerConfig
    from tlsserver.drains import Drain
    from tlsserver.jobs import Place
    from tlsserver.parking import Park
    from tlsserver.stats import Counters

__all__ = ["Connection"]

logger = logging.getLogger(__name__)

_TIMED_OUT_WHERE = {
    Step.WANT_ASYNC: ": its operation is still in the engine",
    Step.WANT_ASYNC_JOB: ": no job was to be had",
    Step.WANT_ANSWER: ": on_client_hello has not answered",
}
_WAITED_FOR = {Step.WANT_ANSWER: "while its question was open"}

# An attribute of an enumeration costs a call before Python 3.12, and a handshake asks for a hundred of them.
_HANDSHAKING, _LINGERING = State.HANDSHAKING, State.LINGERING
_DONE, _WANT_ASYNC_JOB, _WANT_READ, _WANT_WRITE = Step.DONE, Step.WANT_ASYNC_JOB, Step.WANT_READ, Step.WANT_WRITE


class Connection:
    """One end of a TLS connection, from accept to the end. One thread: the loop's.

    Attributes:
        tls: What the handshake settled; None before.
        audience: The protocol and the write buffer's marks.
    """

    __slots__ = (
        "_config",
        "_counters",
        "_deadline_before",
        "_drain",
        "_error",
        "_flow",
        "_handshake_wants",
        "_is_begun",
        "_life",
        "_make_transport",
        "_peer",
        "_started",
        "_touch",
        "_winding_down",
        "_wire",
        "audience",
        "tls",
    )

    def __init__(
        self,
        wire: Wire,
        *,
        config: ServerConfig,
        counters: Counters,
        audience: Audience,
        make_transport: Callable[[Connection], asyncio.BaseTransport],
        touch: Callable[[], None],
        place: Place,
        drain: Drain,
        peer: object,
        now: float,
        hold: Callable[[], None] | None = None,
    ) -> None:
        """Begin with a connection that was just accepted.

        Args:
            wire: Its TLS.
            config: Deadlines and budgets.
            counters: What is counted.
            audience: The protocol, and the manners of calling it.
            make_transport: Called then with this connection, for ``connection_made``.
            touch: Tells the driver that the connection was used from above: `settle` it at the end of this turn.
            place: Its place among those who wait for a job.
            drain: The jobs of its engine that go on without their connections.
            peer: The client; its text is for the log.
            now: The time in seconds.
            hold: Has the driver `uncork` this connection as soon as the loop has done what it is doing; None: what is
                written goes out at once.
        """
        self.tls: TLSInfo | None = None
        self.audience = audience
        self._wire = wire
        self._config = config
        self._counters = counters
        self._make_transport = make_transport
        self._touch = touch
        self._peer = peer
        self._drain = drain
        self._life = Life(wire, counters, place, drain)
        self._flow = Flow(wire, self._life, self.audience, config=config, counters=counters, end=self._end, hold=hold)
        self._started = now
        self._deadline_before = now + config.timeout_handshake  # of handshaking, and of lingering
        self._handshake_wants = _WANT_READ
        self._is_begun = False
        self._winding_down = False
        self._error: BaseException | None = None

    # What the driver asks

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._life.state

    def watch(self) -> Watch:
        """Return what to look out for from now on."""
        state = self._life.state
        if state in states.GONE or self._life.parking.step is not None:
            return self._watch_interrupted()
        if state is _HANDSHAKING or state is _LINGERING:
            write = self._handshake_wants is _WANT_WRITE
            return Watch(not write, write, (), self._deadline_before)
        read, write = self._flow.wants()
        return Watch(read=read, write=write, deadline=self._flow.deadline(), again=self._flow.again)

    def _watch_interrupted(self) -> Watch:
        parking = self._life.parking
        deadlines = [when for when in (self._deadline(), parking.poll_at) if when is not None]
        return Watch(
            read=self._life.state not in states.GONE and not parking.bytes_wait,
            wait_fds=parking.wait_fds,
            deadline=min(deadlines, default=None),
        )

    def _deadline(self) -> float | None:
        if self._life.state in states.GONE:
            return None
        in_flow = self._life.state in states.OPEN or self._life.state in states.CLOSING
        return self._flow.deadline() if in_flow else self._deadline_before

    # What the driver tells

    def readable(self, now: float) -> None:
        """The socket has bytes, its end, or an error."""
        state = self._life.state
        if self._life.parking.step is not None:
            self._look(now)
        elif state is _HANDSHAKING:
            self._begin_or_go_on(now)
        elif state is not _LINGERING:
            self._flow.readable(now)
        elif self._wire.discard():
            self._end(None, now)

    def writable(self, now: float) -> None:
        """The socket takes bytes again."""
        if self._life.state is _HANDSHAKING:
            self._handshake(now)
        else:
            self._flow.writable(now)

    def resume(self, now: float) -> None:
        """A wait fd is readable, or it is first in the line for a job: repeat the interrupted call.

        Harmless at any other time.
        """
        if self._life.state in states.QUEUED:
            self._look(now)
        repeat = self._life.parking.repeat
        if self._life.state is State.DRAINING:
            self._life.end(now)
        elif repeat is not None:
            was_in_handshake = self._life.state in states.HANDSHAKING
            repeat(now)
            if not was_in_handshake and self._life.parking.step is None:
                self._flow.resumed(now)

    def expire(self, now: float) -> None:
        """The deadline of `watch` has passed."""
        parking = self._life.parking
        if parking.poll_at is not None and now >= parking.poll_at and parking.poll(now):
            self.resume(now)
        deadline = self._deadline()
        if deadline is not None and now >= deadline:
            self._timed_out(now)

    def turn(self, now: float) -> None:
        """Go on with what the last turn's budget did not allow."""
        self._flow.turn(now)

    def settle(self, now: float) -> None:
        """At the end of a turn: do what was asked for during it; here the protocol hears of its end."""
        if self.tls is not None:
            self._flow.settle(now)
        if self._life.state in states.GONE:
            self._touch = _nothing
            self.audience.lose(self._error)

    def wind_down(self, now: float) -> None:
        """The server is stopping: finish what is in progress, then close."""
        self._winding_down = True
        if self.state in states.OPEN:
            self._ask_to_finish(now)

    # What the transport asks

    @property
    def park(self) -> Park:
        """How it was parked so far."""
        return self._life.parking.total

    @property
    def buffer_size(self) -> int:
        """Unsent bytes."""
        return self._flow.size

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed, or is closed."""
        return self.state not in states.OPEN

    @property
    def is_calm(self) -> bool:
        """Whether it only waits for what its peer sends: nothing to `settle`, and to `watch` as before, or later."""
        return self._flow.is_calm

    @property
    def is_reading(self) -> bool:
        """Whether the protocol wants data."""
        return self._flow.is_reading

    def write(self, data: bytes, now: float) -> None:
        """Send what the socket takes now, or soon, buffer the rest; dropped unless the connection is open."""
        if not (self._flow.write(data, now) or self._flow.is_calm):
            self._touch()

    def uncork(self, now: float) -> None:
        """Send what was held."""
        self._flow.uncork(now)

    def close(self) -> None:
        """Flush, then close; it begins at the end of this turn."""
        if self.state in states.OPEN:
            self._life.go(Event.CLOSE)
            self._touch()

    def abort(self, now: float, error: BaseException | None = None) -> None:
        """Close at once; ``connection_lost(error)`` is called at the end of this turn."""
        self._flow.uncork(now)
        self._end(error, now)
        self._touch()

    def set_reading(self, *, wanted: bool) -> None:
        """Go on or stop reading."""
        self._flow.set_reading(wanted=wanted)
        self._touch()

    def set_buffer_limits(self, low: int, high: int) -> None:
        """Set the write buffer's marks, in bytes."""
        self.audience.limits = (low, high)
        self._touch()

    # The handshake

    def _begin_or_go_on(self, now: float) -> None:
        if self._drain.is_full and not self._is_begun:
            self._answer_plain(INTERNAL_ERROR_ALERT, Event.REFUSED, now)
        else:
            self._is_begun = True
            self._handshake(now)

    def _handshake(self, now: float) -> None:
        step = self._wire.handshake() if self._life.may_call() else _WANT_ASYNC_JOB
        if self._life.follow(step, self._handshake, now):
            return
        if step is _DONE:
            self._opened(now)
        elif step is _WANT_READ or step is _WANT_WRITE:
            self._handshake_wants = step
        elif step is Step.FAILED:
            self._handshake_failed(self._wire.failure(), now)
        else:
            self._handshake_failed(PeerLeftError(f"the {self._wire.peer} closed the connection"), now)

    def _opened(self, now: float) -> None:
        self.tls = self._wire.info()
        self._life.go(Event.HANDSHAKE_DONE)
        self._counters.handshake_seconds.observe(now - self._started)
        error = self.audience.meet(self._make_transport(self))
        if error is not None:
            self.abort(now, error)
        self._flow.begin(now)
        if self._winding_down and self.state in states.OPEN:
            self._ask_to_finish(now)

    def _look(self, now: float) -> None:
        """While a call is interrupted the socket only tells whether the client is still there."""
        found = self._wire.peek()
        in_handshake = self.state in states.HANDSHAKING
        if found is Peek.BROKEN or (found in (Peek.END, Peek.LAST_BYTES) and in_handshake):
            step = self._life.parking.step or Step.WANT_ASYNC
            doing = _WAITED_FOR.get(step, "while its operation was in the engine")
            error = PeerLeftError(f"the {self._wire.peer} left {doing}")
            (self._handshake_failed if in_handshake else self._end)(error, now)
        elif found is not Peek.NOTHING:
            # Bytes hide the end behind them; and a client that ended its side of an open stream waits for our answer.
            self._life.parking.bytes_wait = True

    def _handshake_failed(self, error: TLSServerError, now: float) -> None:
        # A client's failure is somebody's exception; a server's is nobody's.
        level = logging.INFO if self._wire.peer == "client" else logging.DEBUG
        logger.log(level, "handshake with %s failed: %s", self._peer, error)
        if isinstance(error, PlainHTTPError):
            self._answer_plain(PLAIN_HTTP_ANSWER, Event.ANSWERED_PLAIN, now)
        else:
            # Unread bytes would turn our close into a reset, which can overtake OpenSSL's alert.
            self._wire.discard()
            self._end(error, now)

    def _answer_plain(self, answer: bytes, event: Event, now: float) -> None:
        """Answer around TLS, and wait until the client has read it and leaves."""
        self._wire.answer_plain(answer)
        self._handshake_wants = _WANT_READ
        self._deadline_before = now + self._config.timeout_shutdown
        self._life.go(event)

    # The end

    def _timed_out(self, now: float) -> None:
        if self.state in states.HANDSHAKING:
            step = self._life.parking.step
            where = "" if step is None else _TIMED_OUT_WHERE[step]
            if self._wire.asks:
                where = ": its question is not answered"
            message = f"not finished within {self._config.timeout_handshake:g} s{where}"
            self._handshake_failed(ConnectionTimeoutError(message), now)
        elif self.state is _LINGERING:
            self._end(None, now)
        else:
            self._flow.timed_out(now)

    def _ask_to_finish(self, now: float) -> None:
        if not self.audience.can("close_when_idle"):
            self.close()
            return
        error = self.audience.call("close_when_idle")
        if error is not None:
            self.abort(now, error)

    def _end(self, error: BaseException | None, now: float) -> None:
        """Leave for good. The protocol hears of it in `settle`."""
        state = self._life.state
        if state in states.GONE:
            return
        if error is not None and state not in states.HANDSHAKING:
            logger.debug("connection with %s lost: %s", self._peer, error)
        self._error = error
        self._flow.drop()
        self._life.end(now)


def _nothing() -> None:
    """What is left of a connection's owner once it has ended: so no cycle of references outlives it."""
