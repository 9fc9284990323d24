"""A scripted wire, a protocol that remembers, and a scene that puts a `Connection` between the two."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tlsserver.audience import Audience
from tlsserver.config import ServerConfig
from tlsserver.connection import Connection
from tlsserver.drains import Drain
from tlsserver.errors import HandshakeError, TLSServerError
from tlsserver.jobs import JobQueue
from tlsserver.state import State
from tlsserver.stats import Counters
from tlsserver.transport import Transport
from tlsserver.watch import Watch
from tlsserver.wire import Peek, Step, TLSInfo, WaitFdSet

if TYPE_CHECKING:
    from collections.abc import Callable

INFO = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519", None, reused=False, server_name="localhost")

# What a call comes to when its script has nothing more: an open, silent, patient peer.
_DEFAULTS: dict[str, Any] = {
    "handshake": Step.WANT_READ,
    "read": Step.WANT_READ,
    "write": Step.DONE,
    "shutdown": Step.DONE,
    "close": True,
    "peek": Peek.NOTHING,
    "discard": False,
}


class Taken(NamedTuple):
    """A script's entry for a short write."""

    size: int


class FakeWire:
    """Plays a script, and insists on OpenSSL's contract: a call that OpenSSL would not forgive fails the test.

    A script's entries are Steps; for ``read`` also bytes, for ``write`` also `Taken`; for the rest what they return.
    """

    def __init__(self) -> None:
        self.received = b""
        self.drained = False
        self.written = 0
        self.calls: list[str] = []
        self.sent = bytearray()
        self.plain = b""
        self.answer: Callable[[], object] = lambda: None  # to the question of the handshake, once there is one
        self.fds: tuple[int, ...] = (71,)
        self.added: tuple[int, ...] = ()
        self.handshake_takes_job = True
        self.data_takes_job = True
        self.asks = False
        self.error: TLSServerError = HandshakeError("scripted")
        self.is_closed = False
        self.is_dead = False
        self.is_half_closed = False
        self.peer = "client"
        self._paused: tuple[str, object] | None = None
        self._refused: bytes | None = None
        self._script: dict[str, deque[Any]] = {name: deque() for name in _DEFAULTS}

    def script(self, call: str, *entries: object) -> None:
        """Say what the next calls of one kind come to."""
        self._script[call].extend(entries)

    def _next(self, call: str) -> Any:
        script = self._script[call]
        return script.popleft() if script else _DEFAULTS[call]

    def _call(self, call: str, data: object = None) -> Any:
        assert not self.is_closed, f"{call} after close"
        assert not self.is_dead, f"{call} after a call that ended the stream"
        if self._paused is not None:
            assert self._paused[0] == call, f"{call} while {self._paused[0]} is paused"
            assert self._paused[1] is data, f"{call} repeated with another buffer"
        self.calls.append(call)
        entry = self._next(call)
        self._paused = (call, data) if entry is Step.WANT_ASYNC else None
        self.is_dead = entry is Step.EOF or entry is Step.FAILED
        return entry

    def handshake(self) -> Step:
        return cast("Step", self._call("handshake"))

    def ask(self, resume: Callable[[], object]) -> None:
        self.calls.append("ask")
        self.answer = resume

    def read(self) -> Step:
        entry = self._call("read")
        if isinstance(entry, bytes):
            self.received = entry
            return Step.DONE
        return cast("Step", entry)

    def write(self, data: bytes | memoryview) -> Step:
        assert len(data), "an empty write"
        if self._refused is not None:
            assert bytes(data) == self._refused, "a retry with other data"
        entry = self._call("write", data)
        if entry is Step.DONE:
            entry = Taken(len(data))
        if isinstance(entry, Taken):
            self._refused = None
            self.written = min(entry.size, len(data))
            self.sent += data[: self.written]
            return Step.DONE
        self._refused = bytes(data)
        return cast("Step", entry)

    def shutdown(self) -> Step:
        return cast("Step", self._call("shutdown"))

    def wait_fds(self) -> WaitFdSet:
        assert self._paused is not None, "asked for wait fds while nothing is paused"
        return WaitFdSet(self.fds, self.added)

    def failure(self) -> TLSServerError:
        assert self.is_dead, "asked for a reason when nothing failed"
        return self.error

    def info(self) -> TLSInfo:
        return INFO

    def peek(self) -> Peek:
        return cast("Peek", self._next("peek"))

    def discard(self) -> bool:
        return bool(self._next("discard"))

    def answer_plain(self, data: bytes) -> None:
        self.plain += data

    def half_close(self) -> None:
        self.is_half_closed = True

    def close(self) -> bool:
        assert not self.is_closed, "closed twice"
        self.calls.append("close")
        # Without a paused job there is nothing to wait for.
        self.is_closed = self._paused is None or bool(self._next("close"))
        return self.is_closed


class Recorder(asyncio.Protocol):
    """A protocol that remembers its calls as tuples, and does what ``reactions`` says for a call's name."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.reactions: dict[str, Callable[..., Any]] = {}
        self.transport: Transport | None = None

    def _record(self, name: str, *args: object) -> Any:
        assert ("connection_lost",) not in [event[:1] for event in self.events], f"{name} after connection_lost"
        self.events.append((name, *args))
        reaction = self.reactions.get(name)
        return None if reaction is None else reaction(*args)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("Transport", transport)
        self._record("connection_made")

    def data_received(self, data: bytes) -> None:
        self._record("data_received", data)

    def eof_received(self) -> bool | None:
        return cast("bool | None", self._record("eof_received"))

    def pause_writing(self) -> None:
        self._record("pause_writing")

    def resume_writing(self) -> None:
        self._record("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._record("connection_lost", exc)

    @property
    def names(self) -> list[str]:
        """The calls so far, by name."""
        return [event[0] for event in self.events]

    @property
    def data(self) -> bytes:
        """All that was received."""
        return b"".join(event[1] for event in self.events if event[0] == "data_received")


class Scene:
    """A connection with a fake wire below, a recorder above, and a clock that stands still until it is set."""

    def __init__(self, *, jobs: JobQueue | None = None, drain: Drain | None = None, **options: Any) -> None:
        self.now = 1000.0
        self.wire = FakeWire()
        self.protocol = Recorder()
        self.jobs = JobQueue() if jobs is None else jobs
        self.place = self.jobs.place(self.resume)
        self.drain = Drain("a test's", 3) if drain is None else drain
        self.counters = Counters()
        self.touches = 0
        self.connection = Connection(
            self.wire,
            config=ServerConfig(**options),
            counters=self.counters,
            audience=Audience(self.make_protocol, "a test", ServerConfig(**options).write_buffer_limits),
            make_transport=lambda connection: Transport(connection, self.clock, {}),
            touch=self._touched,
            place=self.place,
            drain=self.drain,
            peer="a test",
            now=self.now,
        )

    def clock(self) -> float:
        return self.now

    def make_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def _touched(self) -> None:
        self.touches += 1

    def state(self) -> State:
        """Where the connection is; a call, so that a type checker does not take it for settled."""
        return self.connection.state

    def stop_reading(self) -> None:
        """For a reaction: stop reading."""
        assert self.protocol.transport is not None
        self.protocol.transport.pause_reading()

    def echo(self, data: bytes) -> None:
        """For a reaction: send the data back."""
        assert self.protocol.transport is not None
        self.protocol.transport.write(data)

    def settle(self) -> None:
        self.connection.settle(self.now)

    def readable(self) -> None:
        """The socket is readable; then the turn ends."""
        assert self.connection.watch().read, "nobody waits for the socket to be readable"
        self.connection.readable(self.now)
        self.settle()

    def writable(self) -> None:
        assert self.connection.watch().write, "nobody waits for the socket to be writable"
        self.connection.writable(self.now)
        self.settle()

    def resume(self) -> None:
        self.connection.resume(self.now)
        self.settle()

    def turn(self) -> None:
        assert self.connection.watch().again, "nobody asked for another turn"
        self.connection.turn(self.now)
        self.settle()

    def expire(self) -> None:
        """Let the deadline come."""
        deadline = self.connection.watch().deadline
        assert deadline is not None, "there is no deadline"
        self.now = max(self.now, deadline)
        self.connection.expire(self.now)
        self.settle()

    def open(self) -> Transport:
        """Do the handshake."""
        self.wire.script("handshake", Step.DONE)
        self.readable()
        assert self.protocol.transport is not None
        return self.protocol.transport

    def park(self) -> None:
        """Do the handshake up to its operation."""
        self.wire.script("handshake", Step.WANT_ASYNC)
        self.readable()

    def written_in_order(self, data: bytes | bytearray) -> bool:
        """Whether the wire has the beginning of the data, and the buffer the rest (unless it was dropped)."""
        size = self.connection.buffer_size
        begins = data.startswith(bytes(self.wire.sent))
        return begins and (size == 0 or len(self.wire.sent) + size == len(data))

    def gauges(self) -> tuple[int, ...]:
        """What must be zero when all is over."""
        counters = self.counters
        return (
            counters.handshakes_in_progress,
            counters.parked_now,
            counters.queued_now,
            counters.draining_now,
            counters.lingering_now,
            self.drain.now,
        )

    def ended(self) -> bool:
        """Whether nothing is left of it, in the wire, in the gauges and in what it waits for."""
        settled = self.connection.watch() == Watch() and self.place not in self.jobs.waiting
        return self.state() is State.CLOSED and self.wire.is_closed and settled and not any(self.gauges())

    def lost(self) -> BaseException | None:
        """What ``connection_lost`` was called with, once; nothing is left."""
        [error] = [event[1] for event in self.protocol.events if event[0] == "connection_lost"]
        assert self.ended()
        assert isinstance(error, BaseException | None)
        return error
