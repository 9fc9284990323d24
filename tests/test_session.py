"""Which failure is whose fault, and how it is told; the steps themselves are in test_server.py."""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING

import pytest
from helpers_server import make_context

from engine_shim import OpenSSLError, Status
from support.waiting import PATIENCE, readable
from tlsserver.errors import EngineError, HandshakeError, LocalTLSError, PeerError, PeerLeftError, PlainHTTPError
from tlsserver.session import READ_SIZE, Session, Shared
from tlsserver.wire import Peek, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates

LIB_SSL = 20 << 23
CASES = [
    pytest.param(LIB_SSL | 156, 0, PlainHTTPError, "peer", id="http request"),
    pytest.param(LIB_SSL | 155, 0, PlainHTTPError, "peer", id="https proxy request"),
    pytest.param(LIB_SSL | 1048, 0, PeerError, "peer", id="alert unknown ca"),
    pytest.param(LIB_SSL | 267, 0, HandshakeError, "peer", id="wrong version number"),
    pytest.param(LIB_SSL | 118, 0, LocalTLSError, "local", id="no suitable signature algorithm"),
    pytest.param(LIB_SSL | 0xC0103, 0, LocalTLSError, "local", id="internal error"),
    pytest.param(129 << 23 | 105, 8, EngineError, "engine", id="the engine"),
    pytest.param(6 << 23 | 156, 0, HandshakeError, "peer", id="another library's reason 156"),
]


class FakeTLS:
    """What AsyncSSL says after a failed step."""

    verify_error = None

    def __init__(self, status: Status, *errors: OpenSSLError, system_error: int = 0) -> None:
        self._status = status
        self._errors = errors
        self.system_error = system_error
        self.count = 0

    def handshake(self) -> Status:
        return self._status

    def errors(self) -> tuple[OpenSSLError, ...]:
        return self._errors

    def close(self) -> bool:
        return False


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far


@pytest.fixture
def session(certificates: Certificates, ends: tuple[socket.socket, socket.socket]) -> Iterator[Session]:
    made = Session(Shared(make_context(certificates["p256"]), bytearray(READ_SIZE)), ends[0])
    yield made
    made._tls.close()


def fail(session: Session, tls: FakeTLS) -> Step:
    session._tls = tls  # type: ignore[assignment]
    return session.handshake()


@pytest.mark.parametrize(("code", "ours", "kind", "fault"), CASES)
def test_whose_fault(session: Session, code: int, ours: int, kind: type[Exception], fault: str) -> None:
    assert fail(session, FakeTLS(Status.ERROR, OpenSSLError(code, "the reason", ours))) is Step.FAILED
    failure = session.failure()
    assert type(failure) is kind
    assert failure.fault == fault
    assert "\n" not in str(failure)


def test_the_engines_entry_counts_most(session: Session) -> None:
    """libssl puts its own entries on top of it."""
    entries = [OpenSSLError(129 << 23 | 105, "the operation failed", 8), OpenSSLError(LIB_SSL | 0xC0103, "internal", 0)]
    for order in (entries, entries[::-1]):
        fail(session, FakeTLS(Status.ERROR, *order))
        assert str(session.failure()) == "the operation failed"


@pytest.mark.parametrize(
    ("tls", "step"),
    [
        (FakeTLS(Status.SYSCALL), Step.EOF),
        (FakeTLS(Status.SYSCALL, system_error=errno.ECONNRESET), Step.FAILED),
        (FakeTLS(Status.ERROR, OpenSSLError(LIB_SSL | 294, "unexpected eof while reading", 0)), Step.EOF),
        (FakeTLS(Status.ERROR), Step.FAILED),
        (FakeTLS(Status.WANT_X509_LOOKUP), Step.FAILED),
        (FakeTLS(Status.CLOSED), Step.CLOSED),
        (FakeTLS(Status.WANT_ASYNC_JOB), Step.WANT_ASYNC_JOB),
    ],
)
def test_steps(session: Session, tls: FakeTLS, step: Step) -> None:
    assert fail(session, tls) is step


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ECONNRESET, PeerLeftError, "reset"),
        (errno.EPIPE, PeerLeftError, "reset"),
        (errno.ETIMEDOUT, PeerLeftError, "timed out"),
        (0, LocalTLSError, "without a reason"),
    ],
)
def test_errors_of_the_system(session: Session, number: int, kind: type[Exception], text: str) -> None:
    fail(session, FakeTLS(Status.SYSCALL, system_error=number))
    failure = session.failure()
    assert type(failure) is kind
    assert text in str(failure)


# Around TLS


def test_peek_takes_nothing(session: Session, ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    assert session.peek() is Peek.NOTHING
    far.send(b"x")
    assert [session.peek(), session.peek()] == [Peek.BYTES, Peek.BYTES]
    near.recv(1)
    far.close()
    assert session.peek() is Peek.END


@pytest.mark.parametrize(("linger", "found"), [(False, Peek.LAST_BYTES), (True, Peek.BROKEN)])
def test_peek_sees_the_end_behind_the_bytes(certificates: Certificates, linger: bool, found: Peek) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
    with near, far:
        near.setblocking(False)
        session = Session(Shared(make_context(certificates["p256"]), bytearray(READ_SIZE)), near)
        far.send(b"unread")
        assert readable([near.fileno()], PATIENCE)
        assert session.peek() is Peek.BYTES
        if linger:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        poll = select.poll()
        poll.register(near, select.POLLRDHUP)
        assert poll.poll(10_000)
        assert session.peek() is found
        assert session.close()


def test_peek_at_a_broken_socket(session: Session, ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    near.send(b"unread")
    far.close()
    assert session.peek() is Peek.BROKEN


def test_discard_is_bounded(session: Session, ends: tuple[socket.socket, socket.socket]) -> None:
    _, far = ends
    assert not session.discard()
    far.send(b"x")
    far.shutdown(socket.SHUT_WR)
    assert session.discard()


def test_answering_a_client_that_is_gone(session: Session, ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].close()
    session.answer_plain(b"x")
    session.half_close()


def test_a_job_that_still_runs_does_not_hold_the_client(
    session: Session, ends: tuple[socket.socket, socket.socket]
) -> None:
    near, far = ends
    session._tls.close()
    fail(session, FakeTLS(Status.ERROR))
    assert session.close() is False
    assert far.recv(1) == b""
    assert near.fileno() >= 0, "the job may still write to the descriptor, so the number must not go to another"


def test_sessions_share_a_buffer_only_where_no_read_pauses(
    certificates: Certificates, ends: tuple[socket.socket, socket.socket]
) -> None:
    shared = bytearray(READ_SIZE)
    plain = make_context(certificates["p256"])
    offloading = make_context(certificates["p256"], async_io=True)
    assert Session(Shared(plain, shared), ends[0])._buffer.memory is shared
    assert Session(Shared(offloading, shared), ends[0])._buffer.memory is not shared
