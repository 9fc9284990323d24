"""The data of one connection after its handshake: reading, writing, and saying goodbye.

Facts
- A read may want to write and the other way round (key update, renegotiation).
- After WANT_WRITE the same bytes must be offered again (SSL_write(3)); what was queued behind them may not be merged
  in.
- OpenSSL may hold data when the socket has none left; no selector reports that.

Decision
- Each direction remembers what it waits for. A read that has used up its budget asks for another turn (`again`), a
  write waits for the socket, which is writable still.
- The protocol is called between calls of OpenSSL, never inside one; it may write, close or abort at any moment.
- Closing: flush, close_notify, FIN, then read on (and throw away) until the peer's close_notify or the deadline.
- A peer's close_notify is its half of the goodbye: the protocol may go on writing, if it says so in ``eof_received``.
- Small writes may be held until the end of what the loop is doing: head and body of an answer then are one record, one
  system call and one segment. A send costs more than all else that a small answer needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsserver import state as states
from tlsserver.errors import ConnectionTimeoutError, PeerLeftError, TLSServerError, TruncatedError
from tlsserver.outgoing import Outgoing
from tlsserver.state import Event, State
from tlsserver.wire import Step, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.audience import Audience
    from tlsserver.config import ServerConfig
    from tlsserver.life import Life
    from tlsserver.stats import Counters

__all__ = ["Flow"]

# Where data may flow: the handshake is done and nothing is interrupted.
_FLOWING = frozenset({State.OPEN, State.CLOSING})

# One TLS record: what is longer fills records of its own.
_HELD_MOST = 16 * 1024

# An attribute of an enumeration costs a call before Python 3.12, and a handshake asks for a hundred of them.
_CLOSE = Event.CLOSE
_CLOSING, _OPEN = State.CLOSING, State.OPEN
_CLOSED, _DONE, _EOF, _FAILED = Step.CLOSED, Step.DONE, Step.EOF, Step.FAILED
_WANT_ASYNC_JOB, _WANT_READ, _WANT_WRITE = Step.WANT_ASYNC_JOB, Step.WANT_READ, Step.WANT_WRITE


class Flow:
    """Both directions of an open connection.

    Attributes:
        again: A read has more to do, whatever the socket says.
        is_held: What is unsent waits for `uncork` alone.
        is_reading: False while the protocol wants no data.
    """

    __slots__ = (
        "_audience",
        "_config",
        "_counters",
        "_end",
        "_goodbye_deadline",
        "_hold",
        "_last_activity",
        "_life",
        "_notified",
        "_out",
        "_peer_closed",
        "_read_wants",
        "_wire",
        "_write_wants",
        "again",
        "is_held",
        "is_reading",
    )

    def __init__(
        self,
        wire: Wire,
        life: Life,
        audience: Audience,
        *,
        config: ServerConfig,
        counters: Counters,
        end: Callable[[BaseException | None, float], None],
        hold: Callable[[], None] | None,
    ) -> None:
        """Prepare for the end of the handshake.

        Args:
            wire: The connection's TLS.
            life: Its state.
            audience: Its protocol.
            config: Budgets and deadlines.
            counters: What is counted.
            end: Ends the connection, with the reason and the time.
            hold: Asks for `uncork`, as soon as the loop has done what it is doing; None: nothing is held.
        """
        self.again = False
        self.is_reading = True
        self.is_held = False
        self._wire = wire
        self._life = life
        self._audience = audience
        self._config = config
        self._counters = counters
        self._end = end
        self._hold = hold
        self._out = Outgoing()
        self._read_wants = _WANT_READ
        self._write_wants = _DONE  # DONE: nothing, it can go on at once
        self._peer_closed = False  # the peer's close_notify was read
        self._notified = False  # ours was sent
        self._last_activity = 0.0
        self._goodbye_deadline = 0.0

    @property
    def size(self) -> int:
        """Unsent bytes."""
        return self._out.size

    @property
    def is_calm(self) -> bool:
        """Whether nothing is under way but waiting for the peer's bytes."""
        audience = self._audience
        return (
            self._life.state is _OPEN
            and (not self._out.size or self.is_held)
            and self.is_reading
            and not self.again
            and self._read_wants is _WANT_READ
            and self._write_wants is _DONE
            and not (self._peer_closed or audience.is_deaf or audience.writing_paused)
        )

    def wants(self) -> tuple[bool, bool]:
        """Return whether to wait until the socket is readable, and until it is writable."""
        reads = self._read_wants if self._may_read() else None
        writes = self._write_wants if self._may_write() else None
        return (
            reads is _WANT_READ or writes is _WANT_READ,
            reads is _WANT_WRITE or writes is _WANT_WRITE,
        )

    def deadline(self) -> float | None:
        """Return when `timed_out` should be called: after idling, or after waiting for the peer's goodbye."""
        if self._notified:
            return self._goodbye_deadline
        idle = self._config.timeout_idle
        return None if idle is None else self._last_activity + idle

    # What the driver tells

    def begin(self, now: float) -> None:
        """The handshake is done."""
        self._last_activity = now
        self.turn(now)  # the first request often lies in the handshake's last segment, and in OpenSSL already

    def readable(self, now: float) -> None:
        """The socket has bytes, its end, or an error."""
        if self._write_wants is _WANT_READ:
            self._flush(now)
        self._pull(now)

    def writable(self, now: float) -> None:
        """The socket takes bytes again."""
        self._last_activity = now  # its peer has read some
        if self._read_wants is _WANT_WRITE:
            self._pull(now)
        self._flush(now)

    def turn(self, now: float) -> None:
        """Go on reading."""
        self.again = False
        self._pull(now)

    def resumed(self, now: float) -> None:
        """An interrupted call has ended: the other direction had to stand still, and OpenSSL may hold data."""
        # A write that waits for the socket, or for its next turn's budget, is not what stood still.
        if self._write_wants is not _WANT_WRITE:
            self._flush(now)
        self.again = True

    def settle(self, now: float) -> None:
        """At the end of a turn: begin to close if that was asked for, and keep the write buffer's marks."""
        if self._life.state is _CLOSING and self._write_wants is _DONE:
            self._flush(now)
        self._keep_marks(now)

    def timed_out(self, now: float) -> None:
        """The deadline has passed."""
        # After our goodbye everything is sent, and how the peer goes does not matter any more.
        self._end(None if self._notified else ConnectionTimeoutError("idle for too long"), now)

    # What the transport asks

    def write(self, data: bytes, now: float) -> bool:
        """Send what the socket takes now, buffer the rest; dropped unless the connection is open. True: it is held."""
        state = self._life.state
        if state is _OPEN and self._hold is not None and self._is_kept(data, self._hold):
            return True
        if state not in states.OPEN:
            return False
        was_free = not self._out.size or self.is_held
        self._out.add(data)
        if was_free:
            self._flush(now)
        if self._out.size:
            self._keep_marks(now)
        return False

    def _is_kept(self, data: bytes, hold: Callable[[], None]) -> bool:
        """Keep what is written until `uncork`, if it is little and nothing else is under way; return whether it was."""
        unsent = self._out.size
        size = unsent + len(data)
        if size > _HELD_MOST or size > self._audience.limits[1]:
            return False
        if not self.is_held:
            if unsent or self._write_wants is not _DONE:
                return False
            self._out.add(data)
            self.is_held = True
            hold()
        else:
            self._out.add(data)
        return True

    def uncork(self, now: float) -> None:
        """Send what is held."""
        if self.is_held:
            self._flush(now)

    def set_reading(self, *, wanted: bool) -> None:
        """Go on or stop reading."""
        # OpenSSL may hold data that no selector tells of.
        self.again = self.again or (wanted and not self.is_reading)
        self.is_reading = wanted

    def drop(self) -> None:
        """The connection ends: forget what is unsent, and whom to tell of an end."""
        self._out.clear()
        self.is_held = False
        self._end = _nobody
        self._hold = None

    # Reading

    def _may_read(self) -> bool:
        """Whether a read would be of use: somebody wants data, or we wait for the peer's close_notify."""
        wanted = self.is_reading or self._life.state is not _OPEN
        return wanted and not self._peer_closed and not self._audience.is_deaf

    def _can_pull(self) -> bool:
        state = self._life.state
        wanted = self.is_reading if state is _OPEN else state is _CLOSING
        return wanted and not (self._peer_closed or self._audience.is_deaf)

    def _pull(self, now: float) -> None:
        if self._audience.held:
            self._deliver_held(now)
        if self._can_pull():
            self._read_on(now)

    def _read_on(self, now: float) -> None:
        """Read, or repeat the interrupted read, until nothing is left, the budget is spent, or nobody wants data."""
        budget, wire, life = self._config.read_budget, self._wire, self._life
        while budget > 0:
            step = wire.read() if not life.waiting or life.may_call() else _WANT_ASYNC_JOB
            if life.follow(step, self._read_on, now):
                return
            if step is not _DONE:
                self._read_stopped(step, now)
                return
            data, wire.received = wire.received, b""  # idle connections keep no request
            count = len(data)
            budget -= count
            self._last_activity = now
            self._counters.bytes_received += count
            if life.state is _OPEN:
                self._received(data, now)
            if wire.drained:
                self._read_wants = _WANT_READ
                return
            if not self._can_pull():
                return
        self.again = True

    def _received(self, data: bytes, now: float) -> None:
        if self.is_reading:
            self._obey(self._audience.receive(data), now)
        else:  # a call that was paused when the protocol stopped reading
            self._audience.held = data

    def _deliver_held(self, now: float) -> None:
        if self.is_reading and self._life.state is _OPEN:
            held, self._audience.held = self._audience.held, b""
            self._obey(self._audience.receive(held), now)

    def _read_stopped(self, step: Step, now: float) -> None:
        if step is _WANT_READ or step is _WANT_WRITE:
            self._read_wants = step
        elif self._notified:
            self._end(None, now)
        elif step is _CLOSED or (step is _EOF and self._audience.forgives_truncation):
            self._peer_closed = True
            self._offer_half_close(now, may_write=step is _CLOSED)
        elif step is _EOF:
            self._end(TruncatedError(f"the {self._wire.peer} ended the stream without close_notify"), now)
        else:
            self._end(self._wire.failure(), now)

    def _offer_half_close(self, now: float, *, may_write: bool) -> None:
        if self._life.state is _OPEN:
            keeps_open, error = self._audience.ask("eof_received")
            self._obey(error, now)
            # OpenSSL takes a stream that is cut off for an attack, and writes no more.
            if not (keeps_open and may_write) and self._life.state is _OPEN:
                self._life.go(_CLOSE)

    # Writing

    def _may_write(self) -> bool:
        return self._out.size > 0 or (self._life.state is _CLOSING and not self._notified)

    def _flush(self, now: float) -> None:
        self.is_held = False
        if self._life.state in _FLOWING:
            self._write_on(now)

    def _write_on(self, now: float) -> None:
        """Send what is buffered (or repeat the interrupted write), within the budget; closing, then say goodbye."""
        budget, out, life = self._config.write_budget, self._out, self._life
        while out.size:
            if budget <= 0:
                self._write_wants = _WANT_WRITE
                return
            step = self._wire.write(out.offer()) if not life.waiting or life.may_call() else _WANT_ASYNC_JOB
            if life.follow(step, self._write_on, now):
                return
            if step is not _DONE:
                self._write_stopped(step, now)
                return
            count = self._wire.written
            out.taken(count)
            self._last_activity = now
            self._counters.bytes_sent += count
            budget -= count
        self._write_wants = _DONE
        if self._life.state is _CLOSING and not self._notified:
            self._say_goodbye(now)

    def _write_stopped(self, step: Step, now: float) -> None:
        if step is _WANT_READ or step is _WANT_WRITE:
            self._write_wants = step
        else:
            self._end(self._left(step), now)

    def _left(self, step: Step) -> TLSServerError:
        # After an end without close_notify OpenSSL writes nothing more, and gives no reason.
        if step is _FAILED and not self._peer_closed:
            return self._wire.failure()
        return PeerLeftError(f"the {self._wire.peer} left before all was sent")

    def _say_goodbye(self, now: float) -> None:
        step = self._wire.shutdown() if self._life.may_call() else _WANT_ASYNC_JOB
        if self._life.follow(step, self._say_goodbye, now):
            return
        if step is _DONE:
            self._notified = True
            # While reading was paused the client's close_notify may have come; what OpenSSL holds, no event tells.
            self.again = self.again or not self.is_reading
            self._goodbye_deadline = now + self._config.timeout_shutdown
            # A client that ignores close_notify waits for FIN.
            self._wire.half_close()
        elif step is _WANT_READ or step is _WANT_WRITE:
            self._write_wants = step
        else:
            # Everything was sent, and the peer has said goodbye or is gone.
            self._end(None, now)

    # The protocol

    def _keep_marks(self, now: float) -> None:
        if self._life.state not in states.GONE:
            self._obey(self._audience.buffered(self._out.size), now)

    def _obey(self, error: BaseException | None, now: float) -> None:
        """A protocol that raised has ended its own connection, and nobody else's."""
        if error is not None:
            self.uncork(now)  # what it has written before
            self._end(error, now)


def _nobody(_error: BaseException | None, _now: float) -> None:
    """Who hears of an end that is not the first."""
