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
import errno
import os
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import engine_shim
from tlsserver.errors import (
    EngineError,
    ForkedProcessError,
    HandshakeError,
    LocalTLSError,
    PeerError,
    PeerLeftError,
    PlainHTTPError,
    TLSServerError,
)
from tlsserver.questions import maybe_refusal
from tlsserver.wire import Peek, Step, TLSInfo, WaitFdSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from OpenSSL import SSL

    from tlsserver.client_hello import ClientHelloRequest
    from tlsserver.questions import Questions

__all__ = ["READ_SIZE", "ContextLike", "Session", "Shared", "Step", "TLSInfo", "engines_of"]

READ_SIZE = 16 * 1024

_DISCARD_SIZE = 64 * 1024
# What one call of `discard` takes at most: a peer that sends without end must not hold the loop.
_DISCARD_ROUNDS = 4

# netinet/tcp.h: struct tcp_info begins with the state, a byte. Unread bytes hide from recv(2) that the peer's FIN has
# come (TCP_CLOSE_WAIT) or its reset (TCP_CLOSE).
_BEHIND_BYTES = {8: Peek.LAST_BYTES, 7: Peek.BROKEN}

# openssl/err.h (3.0 and later): the library's number lies above 23 bits of reason.
_REASON_MASK = 0x7FFFFF
_LIBRARY_SHIFT = 23
_LIBRARY_MASK = 0xFF
_LIBRARY_SSL = 20

# openssl/sslerr.h.
_REASON_INTERNAL_ERROR = 0xC0103  # ERR_R_INTERNAL_ERROR
_REASON_INTERNAL_ERROR_OLD = 68
_REASON_HTTPS_PROXY_REQUEST = 155
_REASON_HTTP_REQUEST = 156
_REASON_UNEXPECTED_EOF = 294
_REASONS_LOCAL = {
    118: "the key cannot make any signature that the client accepts",  # no suitable signature algorithm
    177: "no certificate is set",
    179: "no certificate is set",
}
# The peer's alert N arrives as reason 1000 + N (SSL_AD_REASON_OFFSET).
_ALERT_FIRST, _ALERT_LAST = 1000, 1255

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

    __slots__ = ("accept", "async_io", "buffer", "offloaded", "questions")

    def __init__(self, context: ContextLike, buffer: bytearray, questions: Questions | None = None) -> None:
        """Prepare for connections.

        Args:
            context: Certificates, keys and policy.
            buffer: `READ_SIZE` bytes, which all sessions of one thread may share; not used where reads may pause.
            questions: Answers handshakes; None: the context has none that ask.

        Raises:
            engine_shim.LinkageError: OpenSSL cannot be reached.
        """
        self.offloaded = context.offloaded
        self.async_io = context.async_io
        self.accept = engine_shim.Acceptor(context.pyopenssl, handshake=self.offloaded, io=self.async_io).accept
        self.buffer = memoryview(buffer)
        self.questions = questions


class Session:
    """The wire (`tlsserver.wire.Wire`) of OpenSSL: the server's end of one connection, on the thread that made it."""

    __slots__ = (
        "_asked",
        "_buffer",
        "_questions",
        "_socket",
        "_tls",
        "data_takes_job",
        "handshake_takes_job",
        "received",
        "written",
    )

    def __init__(self, shared: Shared, sock: socket.socket) -> None:
        """Make the SSL of one accepted connection.

        Args:
            shared: What the context's sessions have in common.
            sock: Non-blocking; it stays the caller's, who closes it after this session.

        Raises:
            MemoryError: There is none.
        """
        self._socket = sock
        self._tls = shared.accept(sock.fileno())
        self._questions = shared.questions
        self._asked: ClientHelloRequest | None = None
        # A paused read owns its buffer until it is resumed, so then it cannot be shared.
        self._buffer = memoryview(bytearray(READ_SIZE)) if shared.async_io else shared.buffer
        self.handshake_takes_job = shared.offloaded
        self.data_takes_job = shared.async_io
        self.received = b""
        self.written = 0

    def handshake(self) -> Step:
        """Go on with the handshake (SSL_do_handshake(3))."""
        step = self._step(self._tls.handshake)
        while step is Step.WANT_ANSWER and self._questions is not None and self._questions.answer_now(self._tls):
            step = self._step(self._tls.handshake)
        if step is Step.DONE:
            self._asked = None  # an idle connection does not keep what its client said
        return step

    def ask(self, resume: Callable[[], object]) -> None:
        """Ask the application; ``resume`` is called when it has answered."""
        # Asked once: a handshake that had to wait for a job meanwhile comes here again.
        if self._questions is not None and self._asked is None:
            self._asked = self._questions.ask(self._tls, _peer_of(self._socket), resume)

    def read(self) -> Step:
        """Read at most one record into `received` (SSL_read_ex(3))."""
        step = self._step(self._tls.read_into, self._buffer)
        # What was received before is not kept: thousands of connections are idle behind their last request.
        self.received = self._buffer[: self._tls.count].tobytes() if step is Step.DONE else b""
        return step

    def write(self, data: bytes | memoryview) -> Step:
        """Send the beginning of the data, `written` bytes of it (SSL_write_ex(3), partial writes)."""
        step = self._step(self._tls.write, data)
        if step is Step.DONE:
            self.written = self._tls.count
        return step

    def shutdown(self) -> Step:
        """Send close_notify (SSL_shutdown(3)): DONE when it is sent, CLOSED when the peer's was read too."""
        step = self._step(self._tls.shutdown)
        return Step.CLOSED if step is Step.DONE and self._tls.count else step

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
            return Step.FAILED if self._tls.system_error else Step.EOF
        reasons = [_ssl_reason(error.code) for error in self._tls.errors()]
        return Step.EOF if _REASON_UNEXPECTED_EOF in reasons else Step.FAILED

    def wait_fds(self) -> WaitFdSet:
        """Return the wait fds of the paused job (ASYNC_WAIT_CTX_get_all_fds(3), _get_changed_fds(3))."""
        return WaitFdSet(self._tls.wait_fds(), self._tls.added_fds(), self._tls.wait_serial)

    @property
    def wait_context(self) -> engine_shim.WaitContextView:
        """The wait context of this connection's jobs."""
        return self._tls.wait_context

    def failure(self) -> TLSServerError:
        """Return why the last call failed, in one line; the class says whose fault it is."""
        errors = self._tls.errors()
        refusal = maybe_refusal(self._tls) if self._questions is not None else None
        if refusal is not None:
            return refusal
        if not errors:
            return _system_failure(self._tls.system_error)
        return _engine_failure(errors) or _ssl_failure(errors)

    def info(self) -> TLSInfo:
        """Return what the handshake settled."""
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


def _ssl_reason(code: int) -> int:
    """Return the reason of an error of libssl; -1 for one of another library."""
    library = code >> _LIBRARY_SHIFT & _LIBRARY_MASK
    return code & _REASON_MASK if library == _LIBRARY_SSL else -1


def _system_failure(number: int) -> TLSServerError:
    if number in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
        return PeerLeftError("the peer reset the connection")
    if number:
        return PeerLeftError(f"the connection broke: {os.strerror(number)}")
    return LocalTLSError("OpenSSL failed without a reason")


def _peer_of(sock: socket.socket) -> Any:  # noqa: ANN401 - its form depends on the family
    """Return the client's address; None when it has left."""
    try:
        return sock.getpeername()
    except OSError:
        return None


def _engine_failure(errors: tuple[engine_shim.OpenSSLError, ...]) -> TLSServerError | None:
    """Find the engine's own entry: libssl puts a less telling one on top of it."""
    for error in errors:
        if error.is_engine:
            return EngineError(error.text)
    return None


def _ssl_failure(errors: tuple[engine_shim.OpenSSLError, ...]) -> TLSServerError:
    reasons = [_ssl_reason(error.code) for error in errors]
    text = errors[0].text
    if _REASON_HTTP_REQUEST in reasons or _REASON_HTTPS_PROXY_REQUEST in reasons:
        return PlainHTTPError("plain HTTP was sent to the TLS port")
    if any(_ALERT_FIRST <= reason <= _ALERT_LAST for reason in reasons):
        return PeerError(f"the peer sent an alert: {text}")
    for reason in reasons:
        if reason in _REASONS_LOCAL:
            return LocalTLSError(_REASONS_LOCAL[reason])
    if _REASON_INTERNAL_ERROR in reasons or _REASON_INTERNAL_ERROR_OLD in reasons:
        return LocalTLSError(text)
    return HandshakeError(text)
