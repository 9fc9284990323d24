"""One handshake under Twisted: its steps, its wait fds and its deadline, until it is done or given up.

Facts
- `TLSMemoryBIOProtocol` asks its connection to go on whenever bytes have come, from Twisted's turn, however many others
  have bytes as well. Its ``dataReceived(b"")`` asks once more, and goes on with all that follows the handshake.

Decision
- When Twisted asks, nothing is done but to stand in line (`Hub.enqueue`); the step is made when the line is served,
  which takes 2 ms of each turn. So open connections never wait for hundreds of handshakes.
- While the job is paused nothing is asked of OpenSSL: what the client sends waits in the memory BIO, up to a bound, and
  beyond it in the kernel.
- A handshake that is given up is cancelled and unwound at once. Where the job cannot be cancelled it drains: the SSL
  stays, and the hub keeps it, until the job has ended.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import engine_shim
from tlsserver.errors import ConnectionTimeoutError, EngineError, PeerLeftError, TLSServerError
from tlsserver.life import Life
from tlsserver.session import Session
from tlsserver.state import Event, State
from tlsserver.wire import Step, TLSInfo

if TYPE_CHECKING:
    import socket

    from OpenSSL import SSL

    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.integrations.twisted_hub import Hub
    from tlsserver.offers import Offer
    from tlsserver.reactor import Timer
    from tlsserver.watch import WaitFd

__all__ = ["Handshake", "RefusedError"]

logger = logging.getLogger(__name__)

# An engine's mistake, so a rare case: 10 ms cost it latency and us nothing.
_UNWATCHABLE_POLL = 0.01

# What a client may send while nobody reads: more than any flight of a handshake has, but uploads that follow it.
_UNREAD_MOST = 64 * 1024

_TIMED_OUT_WHERE = {
    Step.WANT_ASYNC: ": its operation is still in the engine, or its question is not answered",
    Step.WANT_ASYNC_JOB: ": no job was to be had",
    Step.WANT_ANSWER: ": on_client_hello has not answered",
}


class RefusedError(EngineError):
    """Too many jobs of the engine drain."""


class _Transport:
    """What a session asks of its socket, asked of Twisted's transport, which is there only later."""

    def __init__(self, protocol: Any) -> None:  # noqa: ANN401 - Twisted's TLSMemoryBIOProtocol
        self._protocol = protocol

    def getpeername(self) -> Any:  # noqa: ANN401 - as of sockets
        peer = self._protocol.transport.getPeer()
        return (peer.host, peer.port) if hasattr(peer, "port") else getattr(peer, "name", None)

    def shutdown(self, how: int) -> None:
        """Twisted closes the socket by itself."""


class Handshake:
    """The server's end of one handshake. The thread of Twisted's reactor only.

    Attributes:
        may_step: Whether OpenSSL may be called now: it is this handshake's turn.
        tls: What it settled; None: it is not done.
        client_certificate: The client's, when it is done; None: it has sent none.
    """

    __slots__ = (
        "_deadline",
        "_fds",
        "_hub",
        "_is_begun",
        "_is_queued",
        "_life",
        "_offer",
        "_place",
        "_poll",
        "_protocol",
        "_session",
        "_started",
        "_stopped",
        "_timeout",
        "_unread",
        "client_certificate",
        "may_step",
        "tls",
    )

    def __init__(self, hub: Hub, offer: Offer, connection: SSL.Connection, protocol: Any, timeout: float) -> None:  # noqa: ANN401 - Twisted's TLSMemoryBIOProtocol
        """Begin to wait for the client.

        Args:
            hub: What the handshakes of the reactor share.
            offer: What the connections of the context share.
            connection: Its SSL, with memory BIOs.
            protocol: Who is to be told to go on.
            timeout: Seconds until it is given up.
        """
        self.tls: TLSInfo | None = None
        self.client_certificate: ClientCertificate | None = None
        self.may_step = self._is_begun = self._is_queued = False
        self._hub, self._offer, self._protocol = hub, offer, protocol
        tls = engine_shim.AsyncSSL(connection, handshake=offer.shared.offloaded)
        self._session = Session(offer.shared, cast("socket.socket", _Transport(protocol)), tls)
        self._place = hub.jobs.place(self._wake)
        self._life = Life(self._session, hub.counters, self._place, offer.drain)
        self._fds: tuple[WaitFd, ...] = ()
        self._poll: Timer | None = None
        self._unread = 0
        self._stopped = False  # the transport reads no more
        self._started = hub.loop.time()
        self._timeout = timeout
        self._deadline = hub.loop.call_later(timeout, self._expire)
        hub.counters.connections_accepted += 1
        hub.handshakes.add(self)

    def __str__(self) -> str:
        """Return the client's address."""
        return str(_Transport(self._protocol).getpeername())

    # What the connection tells

    def received(self, length: int) -> None:
        """Bytes have come, and wait in the memory BIO."""
        self._unread += length
        if self._unread > _UNREAD_MOST:
            self._stopped = True  # once more, if the application has resumed it meanwhile
            self._protocol.transport.pauseProducing()

    def ask(self) -> None:
        """Stand in line for a step, if there is anything to do."""
        if self._unread and not self._is_queued and self._life.parking.step is None:
            self._is_queued = True
            self._hub.enqueue(self)

    def step(self) -> bool:
        """Go on, as far as it gets.

        Returns:
            Whether the handshake is done.

        Raises:
            TLSServerError: It has failed, and is over.
        """
        now = self._hub.loop.time()
        self._read_on()
        if not self._is_begun and self._offer.drain.is_full:
            self._refuse()
        self._is_begun = True
        step = self._session.handshake() if self._life.may_call() else Step.WANT_ASYNC_JOB
        is_interrupted = self._life.follow(step, _nothing, now)
        self._watch()
        self._hub.end_turn_soon()
        if is_interrupted or step in (Step.WANT_READ, Step.WANT_WRITE):
            return False
        if step is not Step.DONE:
            error = self._session.failure() if step is Step.FAILED else PeerLeftError("the client has left")
            self._failed(error)
        self._done(now)
        return True

    def leave(self) -> None:
        """Give up, if it is not over: cancel, and unwind the job. Idempotent."""
        if self._life.state not in (State.CLOSED, State.DRAINING):
            self._end()

    # Steps

    def go_on(self) -> None:
        """Let Twisted go on, and with it the handshake."""
        self._is_queued = False
        if self._life.state in (State.CLOSED, State.DRAINING):
            return
        self.may_step = True
        try:
            self._protocol.dataReceived(b"")
        except BaseException as error:
            # As Twisted's reactor does it for whatever a protocol raises: it costs this connection only.
            logger.exception("the protocol of %s failed", self._protocol)
            _abort(self._protocol, error)
        finally:
            self.may_step = False

    def _wake(self) -> None:
        """A wait fd is readable, a question is answered, a job may be had, or it is time to look."""
        if self._life.state is State.DRAINING:
            self._end()
        else:
            self.go_on()

    def _read_on(self) -> None:
        self._unread = 0
        if self._stopped:
            self._stopped = False
            self._protocol.transport.resumeProducing()

    def _refuse(self) -> None:
        self._life.go(Event.REFUSED)
        self._end()
        raise RefusedError("too many operations of the engine go on although their connections are gone")

    def _failed(self, error: TLSServerError) -> None:
        logger.info("handshake with %s failed: %s", self, error)
        self._end()
        raise error

    def _done(self, now: float) -> None:
        self.tls = self._session.info()
        self.client_certificate = self._session.peer_certificate
        self._life.go(Event.HANDSHAKE_DONE)
        self._hub.counters.handshake_seconds.observe(now - self._started)
        # The rest needs no job, and is pyOpenSSL's.
        self._end()

    def _expire(self) -> None:
        step = self._life.parking.step
        where = "" if step is None else _TIMED_OUT_WHERE[step]
        error = ConnectionTimeoutError(f"the handshake was not finished within {self._timeout:g} s{where}")
        logger.info("handshake with %s failed: %s", self, error)
        _abort(self._protocol, error)
        self.leave()

    def _end(self) -> None:
        """Free what is the handshake's; where its job goes on, come again."""
        self._deadline.cancel()
        self._life.end(self._hub.loop.time())
        self._watch()
        if self._life.state is State.CLOSED:
            self._place.close()
            self._hub.handshakes.discard(self)

    # What is watched

    def _watch(self) -> None:
        """Watch the wait fds that there are now."""
        parking = self._life.parking
        self._release(parking.wait_fds)
        if self._poll is not None:
            self._poll.cancel()
        self._poll = None if parking.poll_at is None else self._hub.loop.call_at(parking.poll_at, self._look)
        for fd in parking.wait_fds:
            if fd not in self._fds:
                self._acquire(fd)

    def _release(self, wanted: tuple[WaitFd, ...]) -> None:
        for fd in self._fds:
            if fd not in wanted:
                self._hub.wait_fds.remove(fd.number, self._wake)
        self._fds = tuple(fd for fd in self._fds if fd in wanted)

    def _acquire(self, fd: WaitFd) -> None:
        try:
            self._hub.wait_fds.add(fd.number, self._wake, serial=fd.serial)
            self._fds += (fd,)
        except OSError as error:
            logger.debug("the engine's wait fd %d cannot be watched, so it is polled: %s", fd.number, error)
            self._poll = self._hub.loop.call_later(_UNWATCHABLE_POLL, self._wake)

    def _look(self) -> None:
        """The time to poll has come: repeat the call, or watch fds again that were left alone."""
        self._poll = None
        if self._life.parking.poll(self._hub.loop.time()):
            self._wake()
        else:
            self._watch()


def _abort(protocol: Any, error: BaseException) -> None:  # noqa: ANN401 - Twisted's TLSMemoryBIOProtocol
    """Close a connection at once; its protocol hears the reason."""
    from twisted.python.failure import Failure  # noqa: PLC0415 - the rest of this module can do without Twisted

    protocol.failVerification(Failure(error))  # type: ignore[no-untyped-call]


def _nothing(_now: float) -> None:
    """Whom `Life` would have repeat the call: the protocol does."""
