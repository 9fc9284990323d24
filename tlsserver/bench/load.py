"""The load: a closed loop of connections on one thread.

Facts
- The generator must cost less than the server that it measures: a server in C needs 250 to 500 us for a handshake, and
  the client's half of TLS 1.3 with P-256 takes OpenSSL most of that already.
- On loopback the server's SYN-ACK is there when connect(2) returns, although it says EINPROGRESS.
- Closing a socket with unread bytes in it, such as session tickets, resets the connection (RFC 1122 4.2.2.13); not if
  the peer's FIN has come after them, because then there is nothing left to reset.
- Of two ends that close in order, the first keeps the port for a minute (TIME_WAIT); see `addresses`.

What it means
- One registration with epoll for each connection, edge-triggered, and none changed on the way: a step does all that can
  be done. The handshake begins right after connect, without asking whether it may.
- After the handshake we say goodbye at once (close_notify and FIN) and wait for the server's FIN, which epoll reports
  without a read. Tickets stay unread, and nobody is reset.

Decision
- Each open connection is a `Visit` whose `step` is called with what epoll saw. Python objects per connection: socket,
  Connection, AsyncSSL, visit; none of them in a cycle, so the garbage collector has nothing to do and is off.
- The first connection reads to the end, and so do all that resume (a ticket has to be read to be used): what a server
  says after the handshake, such as that it wants a certificate, is an error then.
- The clock ends the beginning of connections, not the connections: what is in progress ends by itself, so that the
  server has worked for nothing that is not counted.

Trade-off
- A server that fails after the handshake is noticed on the first connection only.
"""

from __future__ import annotations

import errno
import gc
import select
import socket
import struct
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import h11

from engine_shim import Status
from tlsserver.bench import failures
from tlsserver.bench.addresses import bind_source
from tlsserver.bench.answer import Answer
from tlsserver.bench.settings import Close
from tlsserver.bench.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from OpenSSL.SSL import Session

    from tlsserver.bench.addresses import Target
    from tlsserver.bench.client import Client, Tunnel
    from tlsserver.bench.settings import Settings

TICK = 0.1  # seconds between looks at the clock; a timeout is late by this at most
# Failures without a single success after which nothing more is tried.
HOPELESS = 100
_REFUSED = 400  # RFC 9110 15.5: from here on the answer is an error
_READ_SIZE = 16 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)
_WATCHED = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Visit:
    """One connection, from connect to close."""

    __slots__ = ("answer", "begun", "deadline", "reads", "sock", "step", "tunnel")

    def __init__(self, sock: socket.socket, tunnel: Tunnel, begun: float, deadline: float) -> None:
        self.sock = sock
        self.tunnel = tunnel
        self.begun = begun
        self.deadline = deadline
        self.reads = False
        self.answer: Answer | None = None
        self.step: Callable[[Visit, int], None]


class Load:
    """A load that is about to run, once.

    Args:
        settings: What it is to be.
        target: Where it goes.
        client: The TLS of its connections.
        sources: Addresses to come from (`tlsserver.bench.addresses.sources`).
        watch: Called about ten times a second with the tally so far.
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        client: Client,
        sources: Iterator[tuple[str, int] | None],
        watch: Callable[[Tally], None] | None = None,
    ) -> None:
        self._settings = settings
        self._target = target
        self._client = client
        self._sources = sources
        self._watch = watch
        self._tally = Tally()
        self._open: dict[int, Visit] = {}
        self._sessions: deque[Session] = deque(maxlen=settings.concurrency)
        self._buffer = bytearray(_READ_SIZE)
        self._view = memoryview(self._buffer)
        self._begun = 0
        self._stopped = False

    def stop(self) -> None:
        """Drop what is in progress, within a tick; for signal handlers and other threads."""
        self._stopped = True

    def run(self) -> Tally:
        """Run to the end.

        Returns:
            What came of it.
        """
        cpu, start = time.process_time(), time.perf_counter()
        self._ends = start + (self._settings.duration or float("inf"))
        with select.epoll() as self._epoll, _no_garbage_collection():
            try:
                self._loop(start)
            finally:
                for visit in list(self._open.values()):
                    self._end(visit)
        self._tally.cpu = time.process_time() - cpu
        if self._watch is not None:
            self._watch(self._tally)
        return self._tally

    def _loop(self, start: float) -> None:
        next_tick = 0.0
        while not self._stopped:
            now = time.perf_counter()
            self._tally.seconds = now - start
            if now >= next_tick:
                next_tick = now + TICK
                self._tick(now)
            self._fill(now)
            if not self._open and not self._may_begin(now):
                return
            for descriptor, mask in self._epoll.poll(TICK if self._open else 0):
                visit = self._open[descriptor]
                visit.step(visit, mask)

    def _tick(self, now: float) -> None:
        for visit in [visit for visit in self._open.values() if visit.deadline < now]:
            late_goodbye = visit.step == self._await_end
            self._fail(visit, failures.NEVER_CLOSED if late_goodbye else failures.TIMEOUT)
        if self._watch is not None:
            self._watch(self._tally)

    def _fill(self, now: float) -> None:
        """Begin as many as there is room for; each of them at most once, for it may fail at once."""
        # What the others resume comes from the first.
        wanted = 1 if self._settings.resume and not self._sessions and self._begun <= 1 else self._settings.concurrency
        for _ in range(wanted - len(self._open)):
            if not self._may_begin(now):
                return
            self._begin()

    def _may_begin(self, now: float) -> bool:
        return now < self._ends and self._begun != self._settings.count and not self._is_hopeless()

    def _is_hopeless(self) -> bool:
        tally = self._tally
        return not tally.done and sum(tally.errors.values()) >= max(HOPELESS, self._settings.concurrency)

    def _begin(self) -> None:
        source = next(self._sources)
        self._begun += 1
        try:
            sock = socket.socket(self._target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._tally.errors[failures.kind_of_system_error(error.errno or 0)] += 1
            return
        if source is not None:
            bind_source(sock, source)
        begun = time.perf_counter()
        number = sock.connect_ex(self._target.address)
        if number not in (0, errno.EINPROGRESS):
            self._tally.errors[failures.kind_of_system_error(number)] += 1
            sock.close()
            return
        visit = Visit(sock, self._client.connect(sock, self._session()), begun, begun + self._settings.timeout)
        visit.step = self._shake_hands
        visit.reads = self._settings.resume or self._begun == 1
        descriptor = sock.fileno()
        self._open[descriptor] = visit
        self._epoll.register(descriptor, _WATCHED)
        self._shake_hands(visit, 0)

    def _session(self) -> Session | None:
        """Take the latest session, but leave the last one: others can use it as well."""
        sessions = self._sessions
        if not sessions:
            return None
        return sessions.pop() if len(sessions) > 1 else sessions[0]

    def _shake_hands(self, visit: Visit, mask: int) -> None:
        status = visit.tunnel.handshake()
        if status is Status.DONE:
            self._shaken(visit, mask)
        elif status is Status.WANT_WRITE:  # not connected yet
            self._epoll.modify(visit.sock.fileno(), _WATCHED | select.EPOLLOUT)
        elif status is not Status.WANT_READ:
            self._fail(visit, visit.tunnel.failure(status))

    def _shaken(self, visit: Visit, mask: int) -> None:
        tally = self._tally
        tally.done += 1
        tally.handshakes.append(time.perf_counter() - visit.begun)
        if visit.tunnel.reused:
            tally.resumed += 1
        if not tally.cipher:
            tally.cipher, tally.group = visit.tunnel.cipher, visit.tunnel.group
        if self._settings.request is None:
            self._say_goodbye(visit, mask)
        else:
            self._ask(visit, self._settings.request, mask)

    def _ask(self, visit: Visit, request: bytes, mask: int) -> None:
        visit.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        status = visit.tunnel.write(request)
        if status is not Status.DONE:
            self._fail(visit, visit.tunnel.failure(status))
            return
        visit.answer = Answer()
        visit.step = self._listen
        self._listen(visit, mask)

    def _listen(self, visit: Visit, mask: int) -> None:
        """Read what has come of the answer."""
        tunnel, answer = visit.tunnel, visit.answer
        assert answer is not None  # noqa: S101 - set with this step
        try:
            while not answer.is_complete:
                status = tunnel.read_into(self._buffer)
                if status is Status.WANT_READ:
                    return
                answer.feed(bytes(self._view[: tunnel.count]) if status is Status.DONE else b"")
                if status is not Status.DONE and not answer.is_complete:
                    self._fail(visit, tunnel.failure(status))
                    return
        except h11.RemoteProtocolError as error:
            self._fail(visit, f"no HTTP: {error}")
            return
        if answer.status >= _REFUSED:
            self._fail(visit, f"answered {answer.status}")
            return
        self._tally.responses.append(time.perf_counter() - visit.begun)
        self._say_goodbye(visit, mask)

    def _say_goodbye(self, visit: Visit, mask: int) -> None:
        if self._settings.close is Close.RESET:
            visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._end(visit)
            return
        visit.deadline = time.perf_counter() + self._settings.timeout
        visit.step = self._await_end
        visit.tunnel.shutdown()
        try:
            visit.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the server was quicker
            mask |= select.EPOLLHUP
        self._await_end(visit, mask)

    def _await_end(self, visit: Visit, mask: int) -> None:
        if visit.reads:
            status = self._read_out(visit.tunnel)
            if status is Status.ERROR and (kind := visit.tunnel.failure(status)) != failures.CLOSED:
                self._fail(visit, kind)
                return
        if mask & _ENDED:
            self._end(visit)

    def _read_out(self, tunnel: Tunnel) -> Status:
        while (status := tunnel.read_into(self._buffer)) is Status.DONE:
            pass
        return status

    def _fail(self, visit: Visit, kind: str) -> None:
        self._tally.errors[kind] += 1
        self._end(visit)

    def _end(self, visit: Visit) -> None:
        if self._settings.resume and (session := visit.tunnel.session) is not None:
            self._sessions.append(session)
        del self._open[visit.sock.fileno()]
        visit.tunnel.close()
        visit.sock.close()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
