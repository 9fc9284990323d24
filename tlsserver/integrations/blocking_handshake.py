"""A handshake on a thread that has nothing else to do: it waits in poll(2), for the client and for the engine.

Facts
- A job is resumed on the thread that began it, and a server of threads gives each request of a connection to any of
  them.
- An engine without threads of its own performs when it is given a turn, on any thread.

Decision
- The handshake, and so every job, begins and ends on one worker. What follows is a Connection of pyOpenSSL's, which any
  thread may use.
- Whoever waits for an engine that needs turns gives it one first: it performs what all workers have queued.
- While the job is paused the socket is watched for the client's leaving (POLLRDHUP), and for nothing else.

Trade-off
- A job that cannot be cancelled stays behind when its client has left. It belongs to the worker, which looks after it
  before each of its next handshakes; a worker that has too many of them refuses handshakes.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import select
import socket
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from OpenSSL import SSL

import engine_shim
from tlsserver.errors import ConnectionTimeoutError, EngineError, PeerLeftError, PlainHTTPError
from tlsserver.integrations.mailbox import Mailbox
from tlsserver.parking import Parking
from tlsserver.plain_answer import PLAIN_HTTP_ANSWER
from tlsserver.questions import Questions
from tlsserver.session import READ_SIZE, Session, Shared, engines_of
from tlsserver.stats import Counters
from tlsserver.wire import Step, TLSInfo

if TYPE_CHECKING:
    from engine_shim import BaseEngine
    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.integrations.engine_thread import EngineThread
    from tlsserver.session import ContextLike

__all__ = ["Opened", "Terms", "shake_hands", "tell_left_behind"]

logger = logging.getLogger(__name__)

# Somebody else on this thread has all jobs, which is not announced.
_JOB_POLL = 0.01

# Jobs of one worker that go on without their clients: an engine that hangs must not collect them without bound.
_DRAINING_MOST = 8

# A thread that ends waits so long for them, as a server that stops does (`tlsserver.service`), and looks again at least
# so often: engines may tell their ends by no descriptor.
_END_SECONDS = 1.5
_END_POLL_MILLISECONDS = 10

_INTERRUPTED = frozenset({Step.WANT_ASYNC, Step.WANT_ASYNC_JOB, Step.WANT_ANSWER})
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL
_EVENTS = {Step.WANT_READ: select.POLLIN, Step.WANT_WRITE: select.POLLOUT}
_WHERE = {Step.WANT_ASYNC: ": its operation is still in the engine", Step.WANT_ANSWER: ": its question is not answered"}


class Terms:
    """What the handshakes of one context have in common. Any thread.

    Attributes:
        context: Certificates, keys and policy.
        shared: For their sessions.
    """

    def __init__(self, context: ContextLike, engines: EngineThread) -> None:
        """Prepare for connections; engines that need a loop have one when this returns."""
        self.context = context
        self.shared = Shared(context, bytearray(READ_SIZE))
        self._engines = engines
        self._names = getattr(context, "server_names", None)
        self._turning: tuple[BaseEngine, ...] = ()
        self._lock = threading.Lock()
        self._keep_up_at: float | None = -math.inf
        for engine in engines_of(context):
            self.use(engine)

    def use(self, engine: BaseEngine) -> None:
        """An answer has brought a key of this engine."""
        self._engines.use((engine,))
        with self._lock:  # of two that come at one time, the one that is lost would get no turns
            if engine.needs_turns and engine not in self._turning:
                self._turning = (*(known for known in self._turning if not known.closed), engine)

    def for_thread(self, mailbox: Mailbox) -> Shared:
        """Return what a session needs whose questions are answered on its own thread."""
        if self._names is None:
            return self.shared
        shared = copy.copy(self.shared)
        shared.questions = Questions(self._names, counters=Counters(), post=mailbox.post, use_engine=self.use)
        return shared

    def turn(self) -> bool:
        """Let engines without threads perform; return whether they have more to do."""
        return sum(engine.turn() for engine in self._turning) > 0

    def keep_up(self) -> None:
        """Let the context do what is due by time."""
        now = time.monotonic()
        if self._keep_up_at is not None and now >= self._keep_up_at:
            with self._lock:
                keep_up = getattr(self.context, "keep_up", None)
                self._keep_up_at = None if keep_up is None else keep_up(now)


class Opened(NamedTuple):
    """What a handshake has come to.

    Attributes:
        connection: Of pyOpenSSL, on the socket; it does not block.
        tls: What was settled.
        certificate: The client's; None: it has sent none.
    """

    connection: SSL.Connection
    tls: TLSInfo
    certificate: ClientCertificate | None


class _Drain:
    """The sessions of one thread whose jobs have not ended. That thread only, which also frees it."""

    def __init__(self) -> None:
        self._left: list[tuple[Session, socket.socket]] = []

    def keep(self, session: Session, sock: socket.socket) -> None:
        """Take over a session, and the descriptor that its job may still write to: nobody else may get its number."""
        self._left.append((session, socket.socket(fileno=sock.detach())))

    def sweep(self) -> None:
        """Let jobs end that can.

        Raises:
            EngineError: Too many are left.
        """
        self._look()
        if len(self._left) >= _DRAINING_MOST:
            raise EngineError("too many operations of the engine go on although their connections are gone")

    def _look(self) -> None:
        waiting, self._left = self._left, []
        for session, sock in waiting:
            if session.close():
                sock.close()
            else:
                self._left.append((session, sock))

    def __del__(self) -> None:
        """The thread ends, and nobody else can resume its jobs: wait for them, within bounds."""
        if not self._left:  # the main thread's goes last, when this module's names may be gone
            return
        until = time.monotonic() + _END_SECONDS
        while self._left and time.monotonic() < until and not sys.is_finalizing():
            poll = select.poll()
            for session, _ in self._left:
                for fd in session.wait_fds().all:
                    poll.register(fd, select.POLLIN)
            poll.poll(_END_POLL_MILLISECONDS)
            self._look()
        _left_behind.extend(self._left)


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.drain = _Drain()


_of_thread = _OfThread()

# Jobs whose threads have ended, with their descriptors: they may be written to, and are never closed.
_left_behind: deque[tuple[Session, socket.socket]] = deque()
_forgotten: list[tuple[Session, socket.socket]] = []


def tell_left_behind() -> None:
    """Log how many jobs have lost their threads. Any thread; one that ends cannot tell it any more."""
    count = 0
    with contextlib.suppress(IndexError):
        while True:
            _forgotten.append(_left_behind.popleft())
            count += 1
    if count:
        logger.error("%d jobs have not ended, their threads have: they are left behind", count)


def shake_hands(terms: Terms, sock: socket.socket, timeout: float) -> Opened:
    """Do the server's part of a handshake; it blocks this thread.

    Args:
        terms: What the context's handshakes have in common.
        sock: Connected, and non-blocking.
        timeout: The most it may take, in seconds.

    Raises:
        TLSServerError: It has failed; the class says whose fault it is. What was unread is gone. Where a job goes on,
            the socket is detached: its descriptor stays open, and is not the caller's any more.
    """
    _of_thread.drain.sweep()
    tell_left_behind()
    terms.keep_up()
    return _Blocking(terms, sock, timeout).run()


class _Blocking:
    """One handshake, on its thread."""

    def __init__(self, terms: Terms, sock: socket.socket, timeout: float) -> None:
        self._terms, self._sock, self._timeout = terms, sock, timeout
        self._deadline = time.monotonic() + timeout
        self._mailbox = Mailbox()
        self._parking = Parking()
        self._is_answered = False
        self._connection = SSL.Connection(terms.context.pyopenssl, sock)
        self._connection.set_accept_state()
        tls = engine_shim.AsyncSSL(self._connection, handshake=terms.shared.offloaded)
        self._session = Session(terms.for_thread(self._mailbox), sock, tls)

    def run(self) -> Opened:
        try:
            while (step := self._step()) is not Step.DONE:
                self._check(step)
                while not self._wait(step):
                    pass
            return Opened(self._connection, self._session.info(), self._session.peer_certificate)
        except PlainHTTPError:
            self._session.discard()
            self._session.answer_plain(PLAIN_HTTP_ANSWER)
            raise
        except BaseException:
            self._session.discard()  # what is unread would make a reset of the end
            raise
        finally:
            self._mailbox.close()
            if not self._session.close():
                _of_thread.drain.keep(self._session, self._sock)

    def _step(self) -> Step:
        """Make one step, and remember what interrupts it."""
        step, now = self._session.handshake(), time.monotonic()
        parking = self._parking
        if parking.step is not None and step is not parking.step:
            parking.end(now)
        if step in _INTERRUPTED and parking.step is None:
            parking.begin(step, _nothing, now)
            if step is Step.WANT_ANSWER:
                self._ask()
        if step is Step.WANT_ASYNC:
            parking.wait(self._session.wait_fds(), now)
        return step

    def _ask(self) -> None:
        self._is_answered = False
        self._mailbox.open()
        self._session.ask(self._answered)

    def _answered(self) -> None:
        self._is_answered = True

    def _check(self, step: Step) -> None:
        if step is Step.FAILED:
            raise self._session.failure()
        if step not in _INTERRUPTED and step not in _EVENTS:
            raise PeerLeftError("the client closed the connection")

    def _wait(self, step: Step) -> bool:
        """Wait for what may end the wait; return whether the call is to be repeated."""
        has_more = step is Step.WANT_ASYNC and self._terms.turn()
        ready = self._poll(step, 0.0 if has_more else self._patience(step))
        now = time.monotonic()
        if step in _INTERRUPTED and ready.pop(self._sock.fileno(), 0) & _GONE:
            raise PeerLeftError("the client left while its handshake was parked")
        if now >= self._deadline:
            raise ConnectionTimeoutError(f"not finished within {self._timeout:g} s{_WHERE.get(step, '')}")
        if step is Step.WANT_ANSWER:
            self._mailbox.run()
            return self._is_answered
        poll_at = self._parking.poll_at
        is_polled = poll_at is not None and now >= poll_at and self._parking.poll(now)
        return bool(ready) or is_polled or step is Step.WANT_ASYNC_JOB

    def _poll(self, step: Step, seconds: float) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._sock, _EVENTS.get(step, select.POLLRDHUP))
        for fd in self._parking.wait_fds:
            poll.register(fd.number, select.POLLIN)
        if self._mailbox.fd is not None:
            poll.register(self._mailbox.fd, select.POLLIN)
        return dict(poll.poll(math.ceil(seconds * 1000)))

    def _patience(self, step: Step) -> float:
        until = self._deadline
        if self._parking.poll_at is not None:
            until = min(until, self._parking.poll_at)
        seconds = max(until - time.monotonic(), 0.0)
        return min(seconds, _JOB_POLL) if step is Step.WANT_ASYNC_JOB else seconds


def _nothing(_now: float) -> None:
    """Whom a loop would have repeat the call: the thread does."""
