"""One step of OpenSSL: handshake, read, write, shutdown.

With `tlsserver.context` the only file that touches pyOpenSSL objects.

Facts
- pyOpenSSL has no asynchronous mode: its own methods turn WANT_ASYNC into an error without a reason.
  `engine_shim.AsyncSSL` makes the call, asks SSL_get_error, and reads out the wait fds and the error queue, all in one
  step.
- An SSL has one job. While it is paused OpenSSL ignores the arguments of the repeated call and writes into the first
  call's buffer (openssl#12636).
- OpenSSL 3 reports a TCP end without close_notify as an error of its own (reason 294), not as a system error.
- Without read-ahead SSL_read takes one record, at most 16 KiB of data.

What it means
- A buffer that is shared between connections must not be the one of a paused read.
- A reason is a number in the error queue; the queue's text is for the log.

Decision
- All connections of a loop read through one buffer of 16 KiB, copied out at once, unless the engine offloads reads as
  well: then each session has a buffer of its own.
- The reasons that call for a deed (plain HTTP, end of stream, cancelled) are told by number; every other becomes one
  line with the class of whose fault it is: an alert that the peer sent, a failure of the engine, an internal error of
  OpenSSL, and else what the peer sent could not be accepted.

Trade-off
- Copying out costs 1 us a record and saves 16 KiB an idle connection.
"""

from __future__ import annotations

import contextlib
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from OpenSSL import SSL

import engine_shim
from tlsserver import client_request, faults
from tlsserver.addresses import peer_address
from tlsserver.client_certificate import ClientCertificate
from tlsserver.errors import ForkedProcessError, HandshakeError
from tlsserver.questions import maybe_refusal
from tlsserver.wire import Peek, Step, TLSInfo, WaitFdSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.client_hello import ClientHelloRequest
    from tlsserver.errors import TLSServerError
    from tlsserver.questions import Questions

__all__ = ["READ_SIZE", "ContextLike", "Session", "Shared", "Step", "TLSInfo", "engines_of"]

READ_SIZE = 16 * 1024

_DISCARD_SIZE = 64 * 1024
# What one call of `discard` takes at most: a peer that sends without end must not hold the loop.
_DISCARD_ROUNDS = 4

# netinet/tcp.h: struct tcp_info begins with the state, a byte. Unread bytes hide from recv(2) that the peer's FIN has
# come (TCP_CLOSE_WAIT) or its reset (TCP_CLOSE).
_BEHIND_BYTES = {8: Peek.LAST_BYTES, 7: Peek.BROKEN}

_STEPS_BY_STATUS = {
    engine_shim.Status.DONE: Step.DONE,
    engine_shim.Status.WANT_READ: Step.WANT_READ,
    engine_shim.Status.WANT_WRITE: Step.WANT_WRITE,
    engine_shim.Status.CLOSED: Step.CLOSED,
    engine_shim.Status.WANT_ASYNC: Step.WANT_ASYNC,
    engine_shim.Status.WANT_ASYNC_JOB: Step.WANT_ASYNC_JOB,
    engine_shim.Status.WANT_CLIENT_HELLO_CB: Step.WANT_ANSWER,
}
# By number; None: a failure, or the end of the stream.
_STEPS = tuple(_STEPS_BY_STATUS.get(status) for status in engine_shim.Status)


# What the call may be interrupted for by a question, which can be answered at once.
_ASKING = frozenset({Step.WANT_ASYNC, Step.WANT_ANSWER})

# An attribute of an enumeration costs a call before Python 3.12, and a handshake asks for a hundred of them.
_CLOSED, _DONE, _EOF, _FAILED, _WANT_ASYNC = Step.CLOSED, Step.DONE, Step.EOF, Step.FAILED, Step.WANT_ASYNC


class ContextLike(Protocol):
    """What a server needs of a context: `tlsserver.TLSContext` has it. Each attribute only has to be readable."""

    @property
    def pyopenssl(self) -> SSL.Context:
        """The context of OpenSSL, complete."""

    @property
    def offloaded(self) -> bool:
        """Whether private-key operations may pause the handshake."""

    @property
    def async_io(self) -> bool:
        """Whether reads and writes may pause as well."""

    @property
    def engine(self) -> engine_shim.BaseEngine | None:
        """Where the private-key operations run; None: in place."""


def engines_of(context: ContextLike) -> tuple[engine_shim.BaseEngine, ...]:
    """Return all engines that perform keys of a context."""
    own = () if context.engine is None else (context.engine,)
    return getattr(context, "engines", own)


class Shared:
    """What the sessions of one context on one loop have in common, made once."""

    __slots__ = (
        "accept",
        "asks_peer",
        "async_io",
        "buffer",
        "is_client",
        "may_ask",
        "offloaded",
        "on_verified",
        "questions",
    )

    def __init__(self, context: ContextLike, buffer: bytearray, questions: Questions | None = None) -> None:
        """Prepare for connections.

        Args:
            context: Certificates, keys and policy.
            buffer: `READ_SIZE` bytes, which all sessions of one thread may share; not used where reads may pause. Its
                size cannot change any more.
            questions: Answers handshakes; None: the context has none that ask.

        Raises:
            engine_shim.LinkageError: OpenSSL cannot be reached.
        """
        self.offloaded = context.offloaded
        self.async_io = context.async_io
        self.on_verified = getattr(context, "on_verified", None)  # contexts of others have no hook
        # A client's context makes each connection's end by itself: it depends on the server's name.
        self.is_client = hasattr(context, "connect")
        self.accept = None if self.is_client else _acceptor(context).accept
        self.asks_peer = self.is_client or context.pyopenssl.get_verify_mode() != SSL.VERIFY_NONE
        self.buffer = engine_shim.ReadBuffer(buffer)
        self.questions = questions
        self.may_ask = questions is not None or self.on_verified is not None


def _acceptor(context: ContextLike) -> engine_shim.Acceptor:
    return engine_shim.Acceptor(context.pyopenssl, handshake=context.offloaded, io=context.async_io)


class Session:
    """The wire (`tlsserver.wire.Wire`) of OpenSSL: one end of one connection, on the thread that made it.

    Attributes:
        peer_certificate: The peer's, once the handshake is done; None: it has sent none.
        peer: ``"client"`` or ``"server"``: what the other end is.
    """

    __slots__ = (
        "_asked",
        "_buffer",
        "_request",
        "_shared",
        "_socket",
        "_tls",
        "data_takes_job",
        "drained",
        "handshake_takes_job",
        "peer",
        "peer_certificate",
        "received",
        "written",
    )

    def __init__(self, shared: Shared, sock: socket.socket, tls: engine_shim.AsyncSSL | None = None) -> None:
        """Make the SSL of one connection.

        Args:
            shared: What the context's sessions have in common.
            sock: Non-blocking; it stays the caller's, who closes it after this session.
            tls: A client's end, from `tlsserver.ClientContext.connect`; None: a server's is made.

        Raises:
            MemoryError: There is none.
        """
        self._shared = shared
        self._socket = sock
        self.peer_certificate: ClientCertificate | None = None
        self.peer = "server" if shared.is_client else "client"
        self._request: client_request.ClientCertificateRequest | None = None
        self._tls = _accepted(shared, sock) if tls is None else tls
        self._asked: ClientHelloRequest | None = None
        # A paused read owns its buffer until it is resumed, so then it cannot be shared.
        self._buffer = engine_shim.ReadBuffer(bytearray(READ_SIZE)) if shared.async_io else shared.buffer
        self.handshake_takes_job = shared.offloaded
        self.data_takes_job = shared.async_io
        self.received = b""
        self.drained = False
        self.written = 0

    @property
    def tls(self) -> engine_shim.AsyncSSL:
        """What OpenSSL knows of the connection."""
        return self._tls

    @property
    def asks(self) -> bool:
        """Whether the policy hook has not answered yet."""
        return self._request is not None and not self._request.is_answered

    def handshake(self) -> Step:
        """Go on with the handshake (SSL_do_handshake(3))."""
        step = self._step(self._tls.handshake)
        while step in _ASKING and self._shared.may_ask and self._is_answered_at_once(step):
            step = self._step(self._tls.handshake)
        if step is _DONE:
            self._asked = None  # an idle connection does not keep what its client said
        return step

    def _is_answered_at_once(self, step: Step) -> bool:
        return self._hook_has_answered() if step is _WANT_ASYNC else self._hello_is_answered()

    def _hello_is_answered(self) -> bool:
        questions = self._shared.questions
        return questions is not None and questions.answer_now(self._tls)

    def _hook_has_answered(self) -> bool:
        """Put what the paused handshake asks, if it does, to the hook; not on the job's stack, because it is paused."""
        hook = self._shared.on_verified
        if hook is None:
            return False
        question = self._tls.question()
        if question is None:
            return False
        self._request = client_request.put(hook, question, peer_address(self._socket))
        return self._request.is_answered

    def ask(self, resume: Callable[[], object]) -> None:
        """Ask the application; ``resume`` is called when it has answered."""
        # Asked once: a handshake that had to wait for a job meanwhile comes here again.
        questions = self._shared.questions
        if questions is not None and self._asked is None:
            self._asked = questions.ask(self._tls, peer_address(self._socket), resume)

    def read(self) -> Step:
        """Read at most one record into `received` (SSL_read_ex(3))."""
        step = self._step(self._tls.read_into, self._buffer)
        # What was received before is not kept: thousands of connections are idle behind their last request.
        if step is _DONE:
            self.received = self._buffer.first(self._tls.count)
            self.drained = self._tls.drained
        else:
            self.received = b""
        return step

    def write(self, data: bytes | memoryview) -> Step:
        """Send the beginning of the data, `written` bytes of it (SSL_write_ex(3), partial writes)."""
        step = self._step(self._tls.write, data)
        if step is _DONE:
            self.written = self._tls.count
        return step

    def shutdown(self) -> Step:
        """Send close_notify (SSL_shutdown(3)): DONE when it is sent, CLOSED when the peer's was read too."""
        step = self._step(self._tls.shutdown)
        return _CLOSED if step is _DONE and self._tls.count else step

    def _step(self, call: Callable[..., engine_shim.Status], *args: Any) -> Step:  # noqa: ANN401 - the arguments of the call
        try:
            status = call(*args)
        except engine_shim.ForkedError:
            message = "this connection belongs to the parent process: a forked child must not use it"
            raise ForkedProcessError(message) from None
        step = _STEPS[status]
        return step if step is not None else self._failed(status)

    def _failed(self, status: engine_shim.Status) -> Step:
        """Tell the end of the stream from a failure."""
        if status == engine_shim.Status.SYSCALL:
            return _FAILED if self._tls.system_error else _EOF
        return _EOF if faults.is_end(self._tls.errors()) else _FAILED

    def wait_fds(self) -> WaitFdSet:
        """Return the wait fds of the paused job (ASYNC_WAIT_CTX_get_all_fds(3), _get_changed_fds(3))."""
        return WaitFdSet(self._tls.wait_fds(), self._tls.added_fds(), self._tls.wait_serial)

    @property
    def wait_context(self) -> engine_shim.WaitContextView:
        """The wait context of this connection's jobs."""
        return self._tls.wait_context

    def failure(self) -> TLSServerError:
        """Return why the last call failed, in one line; the class says whose fault it is."""
        refusal = maybe_refusal(self._tls) if self._shared.questions is not None else None
        if refusal is not None:
            return refusal
        alert = None if self._request is None else self._request.rejected_with
        if alert is not None:
            return HandshakeError(f"the client is refused by the policy hook, with {alert}")
        return faults.failure(self._tls.errors(), self._tls.system_error, self._tls.verify_error)

    def info(self) -> TLSInfo:
        """Return what the handshake settled, and keep the peer's certificate: it is asked for after the end, too."""
        if self._shared.asks_peer:
            chain = self._tls.peer_chain()
            self.peer_certificate = ClientCertificate(chain) if chain else None
            self._request = None
        return _as_info(self._tls.settled())

    def peek(self) -> Peek:
        """Look at the socket without taking anything out of it (recv(2), MSG_PEEK)."""
        try:
            if not self._socket.recv(1, socket.MSG_PEEK):
                return Peek.END
            return _BEHIND_BYTES.get(_tcp_state(self._socket), Peek.BYTES)
        except BlockingIOError:
            return Peek.NOTHING
        except OSError:
            return Peek.BROKEN

    def discard(self) -> bool:
        """Throw away what the socket has received, within bounds; return whether its end was reached."""
        try:
            for _ in range(_DISCARD_ROUNDS):
                if not self._socket.recv(_DISCARD_SIZE):
                    return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    def answer_plain(self, data: bytes) -> None:
        """Send bytes around TLS and end our side of the stream; a peer that is gone is no error."""
        try:
            self._socket.send(data)
        except OSError:
            return
        self.half_close()

    def half_close(self) -> None:
        """End our side of the stream (shutdown(2)); a peer that is gone is no error."""
        self._end_stream(socket.SHUT_WR)

    def cancel(self) -> None:
        """Cancel the paused call and all later ones."""
        self._tls.cancel()

    def close(self) -> bool:
        """Cancel, unwind the job and free the SSL; False: the job still runs, call again when a wait fd is readable."""
        self._request = None
        if self._asked is not None:
            self._asked.drop()
            self._asked = None
        if self._tls.close():
            return True
        # The peer need not wait for the job; the descriptor stays open, because the job may still write to it.
        self._end_stream(socket.SHUT_RDWR)
        return False

    def _end_stream(self, how: int) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(how)


def _accepted(shared: Shared, sock: socket.socket) -> engine_shim.AsyncSSL:
    if shared.accept is None:
        message = "a client's context cannot accept connections"
        raise TypeError(message)
    return shared.accept(sock.fileno())


@lru_cache(maxsize=256)
def _as_info(settled: engine_shim.Settled) -> TLSInfo:
    """Most clients settle the same, and share it."""
    return TLSInfo(**settled._asdict())


def _tcp_state(sock: socket.socket) -> int:
    """Return the state of a TCP connection (tcp(7), TCP_INFO), 0 of any other."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return 0
