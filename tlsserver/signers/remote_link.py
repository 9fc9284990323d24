"""One connection to a key server, again and again: requests and pings under way, matched to their answers by number.

A link is up from the first pong on, so whoever does not speak the protocol never gets a request. No two messages under
way have one number, so it is always known what an answer is to: a request under way, one that was given up (its answer
may still be right, and somebody may still wait), a ping, or nothing that was asked, which ends the connection.

What an answer costs is its verification, 30 us to 1 ms; so answers are looked at for a bounded time in each turn of the
loop, and meanwhile nothing more is read.
"""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from engine_shim import ShimError
from tlsserver.signers.keyless import BadMessage, Decoder, ErrorCode, KeylessError, Message, Opcode, encode, ping
from tlsserver.signers.remote_connect import Connecting
from tlsserver.signers.remote_stream import Stream
from tlsserver.signers.remote_tls import PlainChannel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from engine_shim import Loop
    from tlsserver.signers.remote_address import Address
    from tlsserver.signers.remote_job import Job
    from tlsserver.signers.remote_tls import TLSClient

__all__ = ["Link", "LinkOwner", "LinkSettings"]

# Bytes that the socket has not taken: above it a link has no room, however many requests it may have under way.
_MOST_QUEUED = 256 * 1024
# Requests that were given up and not yet answered. Above it the connection is given up, too.
_MOST_OWED = 1024
_MOST_PINGS = 8
_LAST_ID = 0xFFFFFFFF
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 1.0  # whoever returns is connected to within it


@dataclass(frozen=True)
class LinkSettings:
    """What all links of a signer have in common; see `tlsserver.signers.remote.RemoteSigner`."""

    attempt_timeout: float
    connect_timeout: float
    most_in_flight: int
    ping_interval: float
    ping_timeout: float
    peer_uids: frozenset[int]
    turn_seconds: float  # of a turn of the loop, for the answers of one link


class LinkOwner(Protocol):
    """Who hears what a link comes to, on the loop's thread. It may send and close in each of these calls."""

    def link_up(self, link: Link) -> None:
        """Requests can be sent."""

    def link_lost(self, link: Link, jobs: list[Job], reason: str) -> None:
        """The connection has ended, or could not be made; these were under way. It connects again by itself."""

    def answered(self, job: Job, payload: bytes, sent: float) -> None:
        """There is an answer to what was sent at that time of the loop's clock."""

    def refused(self, job: Job, code: int | None, reason: str) -> None:
        """There is none; the code is the protocol's, None: the answer could not be read."""

    def timed_out(self, job: Job) -> None:
        """There is none yet. One that comes later is told to `answered_late`."""

    def answered_late(self, job: Job, payload: bytes, sent: float) -> None:
        """There is an answer to what had timed out; it may have been answered by another one."""

    def has_room(self) -> None:
        """There may be room for more."""


class Link:
    """See the module.

    Args:
        loop: Whose thread this belongs to.
        address: Where to.
        tls: Of its connections; None: none.
        settings: See there.
        owner: Hears of it.
    """

    def __init__(
        self,
        loop: Loop,
        address: Address,
        tls: TLSClient | None,
        settings: LinkSettings,
        owner: LinkOwner,
    ) -> None:
        self._loop = loop
        self._address = address
        self._tls = tls
        self._settings = settings
        self._owner = owner
        self.state = "connecting"
        self.in_flight: dict[int, tuple[Job, float]] = {}  # in the order of sending, so the oldest is the first
        self._owed: dict[int, tuple[Job | None, float]] = {}  # None: nobody waits any more
        self._pings: dict[int, float] = {}
        self._inbox: deque[Message | BadMessage] = deque()
        self._failure: str | None = None  # comes when the inbox is empty
        self._next_id = 1
        self._heard = 0.0
        self._delay = _FIRST_DELAY
        self._stream: Stream | None = None
        self._connecting: Connecting | None = None
        self._decoder = Decoder()
        self._timer: Any = None  # the next attempt to connect, or the next look at what is due
        self._up_since = 0.0
        self._is_closed = self._goes_on = False
        loop.call_soon(self._connect)

    # What its owner asks

    @property
    def room(self) -> int:
        """How many more requests it takes now."""
        if self.state != "up" or self._stream is None or self._stream.queued > _MOST_QUEUED:
            return 0
        return self._settings.most_in_flight - len(self.in_flight)

    def send(self, job: Job) -> None:
        """Send a request; there is room, and `flush` comes soon."""
        assert self._stream is not None  # noqa: S101 - there is room
        number = self._new_id()
        self.in_flight[number] = (job, self._loop.time())
        self._stream.write(encode(replace(job.message, id=number), pad=self._address.uses_tls))
        if len(self.in_flight) == 1:
            self._schedule()

    def flush(self) -> None:
        """Let what was sent go out."""
        if self._stream is not None:
            self._stream.flush()

    def close(self) -> list[Job]:
        """End for good. Idempotent. Returns what was under way."""
        self._is_closed = True
        self.state = "down"
        return self._end()

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket, and touch nothing else."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.abandon()
        if self._stream is not None:
            self._stream.abandon()

    # Connecting

    def _connect(self) -> None:
        self._timer = None
        if self._is_closed:
            return
        self._connecting = Connecting(
            self._loop,
            self._address,
            timeout=self._settings.connect_timeout,
            peer_uids=self._settings.peer_uids,
            connected=self._connected,
            failed=self._lost,
        )

    def _connected(self, sock: socket.socket) -> None:
        self._connecting = None
        try:
            self._stream = self._stream_of(sock)
        except (OSError, MemoryError, ShimError) as error:
            sock.close()
            self._lost(f"its connection cannot be used: {error}")
            return
        self._again_in(self._settings.connect_timeout, self._late)

    def _stream_of(self, sock: socket.socket) -> Stream:
        fd = sock.fileno()
        channel = PlainChannel(sock) if self._tls is None else self._tls.channel(sock)
        return Stream(self._loop, fd, channel, opened=self._opened, received=self._received, lost=self._lost)

    def _late(self) -> None:
        self._lost("it cannot be reached: no TLS handshake in time")

    def _opened(self) -> None:
        self._heard = self._loop.time()
        self._ping(self._heard)
        self._schedule()

    def _lost(self, reason: str) -> None:
        """The connection has ended, or could not be made: try again later."""
        if self.state == "up" and self._loop.time() - self._up_since >= _LONGEST_DELAY:
            self._delay = _FIRST_DELAY
        jobs = self._end()
        self.state = "down"
        if not self._is_closed:
            self._again_in(self._delay * random.uniform(0.5, 1), self._connect)  # noqa: S311 - spreads clients, no secret
            self._delay = min(self._delay * 2, _LONGEST_DELAY)
            self._owner.link_lost(self, jobs, reason)

    def _end(self) -> list[Job]:
        """Free what belongs to a connection. Returns what was under way."""
        jobs = [job for job, _ in self.in_flight.values()]
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._stream is not None:
            self._stream.close()
        self._timer = self._connecting = self._stream = self._failure = None
        for held in (self.in_flight, self._owed, self._pings, self._inbox):
            held.clear()
        self._decoder = Decoder()
        self._next_id = 1
        self._goes_on = False
        return jobs

    # Answers

    def _received(self, data: bytes) -> None:
        try:
            self._inbox += self._decoder.feed(data)
        except KeylessError as error:
            self._inbox += error.messages
            self._failure = f"it breaks the protocol: {error.reason}"
        self._take_answers()

    def _take_answers(self) -> None:
        """Look at what has come, until this turn's time is over."""
        until = time.monotonic() + self._settings.turn_seconds
        stream, inbox = self._stream, self._inbox
        while inbox and time.monotonic() < until:
            self._take(inbox.popleft())
            if self._stream is not stream:
                return  # lost meanwhile, and maybe somebody closed us
        if inbox:
            self._later()
        elif self._failure is not None:
            self._lost(self._failure)
            return
        if self.state == "up":
            self._owner.has_room()

    def _later(self) -> None:
        stream = self._stream
        if not self._goes_on and stream is not None:
            self._goes_on = True
            stream.hold()
            self._loop.call_soon(self._go_on, stream)

    def _go_on(self, stream: Stream) -> None:
        if stream is self._stream:
            self._goes_on = False
            stream.go_on()
            self._take_answers()

    def _take(self, message: Message | BadMessage) -> None:
        number = message.id
        if number in self.in_flight and _is_answer(message):
            job, sent = self.in_flight.pop(number)
            self._settle(job, sent, message)
        elif number in self._owed and _is_answer(message):
            late, sent = self._owed.pop(number)
            if late is not None and isinstance(message, Message) and message.opcode == Opcode.SUCCESS:
                self._owner.answered_late(late, message.payload, sent)
        elif number in self._pings and isinstance(message, Message) and message.opcode == Opcode.PONG:
            del self._pings[number]
            if self.state != "up":
                self._up()
        else:
            self._lost(f"it breaks the protocol: message {number} answers nothing that was asked, or not as it should")
            return
        self._heard = self._loop.time()

    def _settle(self, job: Job, sent: float, message: Message | BadMessage) -> None:
        if isinstance(message, BadMessage):
            self._owner.refused(job, None, f"its answer cannot be read: {message.reason}")
        elif message.opcode == Opcode.SUCCESS:
            self._owner.answered(job, message.payload, sent)
        else:
            code = message.payload[0] if len(message.payload) == 1 else None
            self._owner.refused(job, code, ErrorCode.told(message.payload))

    def _up(self) -> None:
        self.state = "up"
        self._up_since = self._loop.time()
        self._owner.link_up(self)

    # What is due by time

    def _look(self) -> None:
        """Give up what takes too long, and ask whether anybody is there."""
        self._timer = None
        stream = self._stream
        if stream is not None:
            stream.take()  # what came while this loop was busy counts
        if self._stream is not stream or stream is None:
            return
        now = self._loop.time()
        self._time_out(now)
        if self._stream is stream:
            self._see_to_pings(now)
        if self._stream is stream:
            self._schedule()

    def _time_out(self, now: float) -> None:
        stream = self._stream
        while self.in_flight and self._stream is stream:
            number, (job, sent) = next(iter(self.in_flight.items()))
            if sent + self._settings.attempt_timeout > now:
                break
            self._owed[number] = self.in_flight.pop(number)
            self._owner.timed_out(job)
        for number, (late, sent) in self._owed.items():
            if late is not None and not late.request.is_open:
                self._owed[number] = (None, sent)
        if len(self._owed) > _MOST_OWED:
            self._lost(f"it has not answered {len(self._owed)} requests")

    def _see_to_pings(self, now: float) -> None:
        asked = self._asked_unheard()
        if self._inbox:
            return  # there is more of it than we can look at
        if asked is not None and now >= asked + self._settings.ping_timeout:
            self._lost("it does not answer a ping")
        elif asked is None and now >= self._heard + self._settings.ping_interval:
            if len(self._pings) >= _MOST_PINGS:
                self._lost("it does not answer pings")
            else:
                self._ping(now)

    def _ping(self, now: float) -> None:
        assert self._stream is not None  # noqa: S101 - it is open
        number = self._new_id()
        self._pings[number] = now
        self._stream.write(encode(ping(number), pad=self._address.uses_tls))
        self._stream.flush()

    def _asked_unheard(self) -> float | None:
        """Return when the last ping was sent, if nothing has been heard since; else None."""
        asked = next(reversed(self._pings.values()), None)
        return asked if asked is not None and self._heard <= asked else None

    def _schedule(self) -> None:
        if self._stream is None:
            return  # lost: it connects again
        asked = self._asked_unheard()
        settings = self._settings
        due = self._heard + settings.ping_interval if asked is None else asked + settings.ping_timeout
        if self.in_flight:
            _, sent = next(iter(self.in_flight.values()))
            due = min(due, sent + settings.attempt_timeout)
        self._again_in(max(due - self._loop.time(), 0.001), self._look)

    def _again_in(self, seconds: float, call: Callable[[], object]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, call)

    def _new_id(self) -> int:
        while True:
            number, self._next_id = self._next_id, self._next_id % _LAST_ID + 1
            if number not in self.in_flight and number not in self._owed and number not in self._pings:
                return number


def _is_answer(message: Message | BadMessage) -> bool:
    return isinstance(message, BadMessage) or message.opcode in (Opcode.SUCCESS, Opcode.ERROR)
