"""The BIO between OpenSSL and the socket of what an Acceptor made: nothing is lost, repeated, reordered or held back.

Messages (SOCK_SEQPACKET) show each send(2) of the server's as it was, and lose what a recv(2) leaves of them.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

from engine_shim import Acceptor, AsyncSSL, ManualEngine, Status
from support.pair import client_context, server_context
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Self

    from support.certificates import Identity

STREAM = socket.SOCK_STREAM
MESSAGES = socket.SOCK_SEQPACKET
VERSIONS = ("1.2", "1.3")
CHANGE_CIPHER_SPEC = bytes([20, 3, 3, 0, 1, 1])  # RFC 8446, D.4: ignored until the client's Finished

Sockets = tuple[socket.socket, socket.socket]


class Ends:
    """A server's end over a socket, and a client's in memory: what passes between them is the test's."""

    def __init__(self, tls: AsyncSSL, sockets: Sockets, client: SSL.Context) -> None:
        self.server = tls
        self.near, self.far = sockets
        self.client = SSL.Connection(client, None)
        self.client.set_connect_state()

    @classmethod
    def accepted(cls, server: SSL.Context, client: SSL.Context, kind: int = STREAM, *, offloaded: bool = False) -> Self:
        near, far = pair_of(kind)
        return cls(Acceptor(server, handshake=offloaded).accept(near.fileno()), (near, far), client)

    def spoken(self) -> bytes:
        """Let the client go on as far as it can; what it has to say."""
        with suppress(SSL.WantReadError):
            self.client.do_handshake()
        return self.outgoing()

    def outgoing(self) -> bytes:
        try:
            return self.client.bio_read(1 << 16)
        except SSL.WantReadError:
            return b""

    def hear(self, count: int = 1 << 16) -> bytes:
        """Take what has come, one message of it where there are messages."""
        try:
            heard = self.far.recv(count)
        except BlockingIOError:
            return b""
        if heard:
            self.client.bio_write(heard)
        return heard

    def shake(self) -> Status:
        """Go through the handshake, until the server's end says something else than that it waits."""
        while True:
            self.hear()
            if spoken := self.spoken():
                self.far.send(spoken)
            status = self.server.handshake()
            if status not in (Status.WANT_READ, Status.WANT_WRITE):
                self.hear()
                self.spoken()
                return status

    def to_last_step(self) -> bytes:
        """Go on until only the client's Finished is missing, and return that."""
        self.far.send(self.spoken())
        assert readable([self.near.fileno()], PATIENCE)
        assert self.server.handshake() is Status.WANT_READ
        assert readable([self.far.fileno()], PATIENCE)
        self.hear()
        return self.spoken()

    def read(self) -> bytes:
        buffer = bytearray(1 << 15)
        assert self.server.read_into(buffer) is Status.DONE
        return bytes(buffer[: self.server.count])

    def close(self) -> None:
        assert self.server.close()
        self.near.close()
        self.far.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pair_of(kind: int) -> Sockets:
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def tcp_pair() -> Sockets:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


@pytest.fixture
def identity(certificates: dict[str, Identity]) -> Identity:
    return certificates["p256"]


@pytest.fixture(params=VERSIONS)
def ends(identity: Identity, request: pytest.FixtureRequest) -> Iterator[Ends]:
    with Ends.accepted(server_context(identity, None), client_context(identity, request.param)) as ends:
        yield ends


def fill(sock: socket.socket) -> int:
    """Send zeros until the socket is full; how many."""
    count = 0
    for size in (4096, 256, 1):
        with suppress(BlockingIOError):
            while True:
                count += sock.send(bytes(size))
    return count


def drain(sock: socket.socket, count: int) -> None:
    while count:
        count -= len(sock.recv(count))


# Reading


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 64])
def test_split_anywhere(ends: Ends, size: int) -> None:
    """The client's bytes come in pieces, and so do the server's."""
    status = None
    while status is not Status.DONE:
        while ends.hear(size):
            pass
        spoken = ends.spoken()
        for start in range(0, len(spoken), size):
            ends.far.send(spoken[start : start + size])
            while (status := ends.server.handshake()) is Status.WANT_READ and readable([ends.near.fileno()]):
                pass
    while ends.hear(size):
        ends.spoken()
    ends.client.send(b"the request" * 50)
    outgoing = ends.outgoing()
    buffer = bytearray(1024)
    for start in range(0, len(outgoing), size):
        assert ends.server.read_into(buffer) is Status.WANT_READ
        ends.far.send(outgoing[start : start + size])
    assert ends.read() == b"the request" * 50


def test_handshake_and_data_in_one_segment(identity: Identity) -> None:
    with Ends.accepted(server_context(identity, None), client_context(identity, "1.3")) as ends:
        last = ends.to_last_step()
        ends.client.send(b"first")
        ends.client.send(b"second")
        ends.far.send(last + ends.outgoing())
        assert ends.server.handshake() is Status.DONE
        assert not readable([ends.near.fileno()])
        assert (ends.read(), ends.read()) == (b"first", b"second")
        assert ends.server.read_into(bytearray(10)) is Status.WANT_READ


def test_what_was_read_ahead_outlives_a_pause(identity: Identity) -> None:
    """Others use the thread's buffer meanwhile."""
    with ManualEngine() as engine:
        server = server_context(identity, engine.load_key(identity.key))
        client = client_context(identity, "1.3")
        with (
            Ends.accepted(server, client, offloaded=True) as paused,
            Ends.accepted(server_context(identity, None), client) as other,
        ):
            paused.far.send(paused.spoken() + CHANGE_CIPHER_SPEC[:3])
            assert paused.server.handshake() is Status.WANT_ASYNC
            assert not readable([paused.near.fileno()])
            assert other.shake() is Status.DONE
            engine.perform()
            assert paused.server.handshake() is Status.WANT_READ
            paused.far.send(CHANGE_CIPHER_SPEC[3:])
            assert paused.shake() is Status.DONE


def test_after_a_short_read_it_waits_once(identity: Identity) -> None:
    with Ends.accepted(server_context(identity, None), client_context(identity), MESSAGES) as ends:
        assert ends.shake() is Status.DONE
        for text in (b"first", b"second"):
            ends.client.send(text)
            ends.far.send(ends.outgoing())
        buffer = bytearray(10)
        statuses = [ends.server.read_into(buffer) for _ in range(4)]
        assert statuses == [Status.WANT_READ, Status.DONE, Status.WANT_READ, Status.DONE]


def test_long_records(ends: Ends) -> None:
    assert ends.shake() is Status.DONE
    data = bytes(range(256)) * 400
    got = b""
    ends.far.setblocking(True)
    for start in range(0, len(data), 1 << 14):
        ends.client.send(data[start : start + (1 << 14)])
        ends.far.sendall(ends.outgoing())
    buffer = bytearray(1 << 14)
    while len(got) < len(data):
        if ends.server.read_into(buffer) is Status.DONE:
            got += buffer[: ends.server.count]
        else:
            assert readable([ends.near.fileno()], PATIENCE)
    assert got == data


# Writing


def test_one_write_for_the_flight_and_one_for_all_tickets(identity: Identity) -> None:
    with Ends.accepted(server_context(identity, None), client_context(identity, "1.3"), MESSAGES) as ends:
        ends.far.send(ends.spoken())
        assert ends.server.handshake() is Status.WANT_READ
        assert ends.hear()
        ends.far.send(ends.spoken())
        assert ends.server.handshake() is Status.DONE
        tickets = ends.hear()
        assert tickets.count(b"\x17\x03\x03") >= 2  # the default of SSL_CTX_set_num_tickets(3)
        assert not ends.hear()


@pytest.mark.parametrize("certificates_more", [12, 30])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_socket_takes_a_part(tmp_path: Path, identity: Identity, version: str, certificates_more: int) -> None:
    server = server_context(identity, None)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(identity.cert.read_bytes() * (1 + certificates_more))
    server.use_certificate_chain_file(str(chain))
    with Ends.accepted(server, client_context(identity, version)) as ends:
        ends.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        ends.far.send(ends.spoken())
        assert ends.server.handshake() is Status.WANT_WRITE
        assert ends.shake() is Status.DONE
        assert ends.server.write(b"the answer") is Status.DONE
        while ends.hear():
            ends.spoken()
        assert ends.client.recv(100) == b"the answer"


def test_a_handshake_is_not_done_before_its_last_bytes_are_sent(ends: Ends) -> None:
    last = ends.to_last_step()
    zeros = fill(ends.near)
    ends.far.send(last)
    assert [ends.server.handshake() for _ in range(2)] == [Status.WANT_WRITE] * 2
    drain(ends.far, zeros)
    assert ends.server.handshake() is Status.DONE
    assert ends.server.write(b"the answer") is Status.DONE
    ends.hear()
    ends.spoken()
    assert ends.client.recv(100) == b"the answer"


def test_data_does_not_overtake_what_is_unsent(ends: Ends) -> None:
    last = ends.to_last_step()
    zeros = fill(ends.near)
    ends.far.send(last)
    assert ends.server.handshake() is Status.WANT_WRITE
    assert ends.server.write(b"the answer") is Status.WANT_WRITE
    drain(ends.far, zeros)
    assert ends.server.write(b"the answer") is Status.DONE
    ends.hear()
    ends.spoken()
    assert ends.client.recv(100) == b"the answer"


def test_close_notify_waits_for_the_socket(ends: Ends) -> None:
    assert ends.shake() is Status.DONE
    while ends.hear():
        ends.spoken()
    zeros = fill(ends.near)
    assert ends.server.shutdown() is Status.WANT_WRITE
    drain(ends.far, zeros)
    assert ends.server.shutdown() is Status.DONE
    ends.hear()
    with pytest.raises(SSL.ZeroReturnError):
        ends.client.recv(1)


def test_a_failed_handshake_sends_its_alert(ends: Ends) -> None:
    ends.far.send(bytes([22, 3, 1, 0, 4, 1, 0, 0, 0]))  # a ClientHello of no bytes
    assert ends.server.handshake() is Status.ERROR
    assert ends.far.recv(100)[0] == 21  # RFC 8446, 5.1: alert


def test_a_full_socket_does_not_hide_why_a_handshake_failed(ends: Ends) -> None:
    fill(ends.near)
    ends.far.send(bytes([22, 3, 1, 0, 4, 1, 0, 0, 0]))
    assert ends.server.handshake() is Status.ERROR
    assert ends.server.errors()


# The end: the same answers as with OpenSSL's own socket BIO.


def until_told(ends: Ends, call: Callable[[], Status]) -> Status:
    """Wait and repeat, as a loop does."""
    while (status := call()) is Status.WANT_READ:
        assert readable([ends.near.fileno()], PATIENCE)
    return status


def to_the_end(ends: Ends) -> list[Status]:
    """Read until there is nothing more to read."""
    buffer = bytearray(10)
    statuses = [Status.DONE]
    while statuses[-1] is Status.DONE:
        statuses.append(until_told(ends, lambda: ends.server.read_into(buffer)))
    return statuses


def open_it(ends: Ends) -> None:
    """To the end of the handshake and of what follows it: a client that closes with bytes unread sends a reset."""
    assert ends.shake() is Status.DONE
    assert ends.server.write(b".") is Status.DONE
    text = b""
    while not text:
        assert readable([ends.far.fileno()], PATIENCE)
        ends.hear()
        with suppress(SSL.WantReadError):
            text = ends.client.recv(1)


def leave_in_hello(ends: Ends) -> list[Status]:
    ends.far.send(ends.spoken()[:50])
    ends.far.close()
    return [until_told(ends, ends.server.handshake)]


def leave_before_the_flight(ends: Ends) -> list[Status]:
    ends.far.send(ends.spoken())
    ends.far.close()
    return [until_told(ends, ends.server.handshake)]


def leave_before_tickets(ends: Ends) -> list[Status]:
    ends.far.send(ends.to_last_step())
    ends.far.close()
    status = until_told(ends, ends.server.handshake)
    return [status, *(to_the_end(ends) if status is Status.DONE else ())]


def leave_between_records(ends: Ends) -> list[Status]:
    open_it(ends)
    ends.far.close()
    return to_the_end(ends)


def leave_in_a_record(ends: Ends) -> list[Status]:
    open_it(ends)
    ends.client.send(b"all")
    whole = ends.outgoing()
    ends.client.send(b"half")
    ends.far.send(whole + ends.outgoing()[:8])
    ends.far.close()
    return to_the_end(ends)


def say_goodbye(ends: Ends) -> list[Status]:
    open_it(ends)
    ends.client.shutdown()
    ends.far.send(ends.outgoing())
    return [*to_the_end(ends), ends.server.shutdown()]


def reset(ends: Ends) -> list[Status]:
    open_it(ends)
    ends.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.far.close()
    return to_the_end(ends)


ENDINGS = (
    leave_in_hello,
    leave_before_the_flight,
    leave_before_tickets,
    leave_between_records,
    leave_in_a_record,
    say_goodbye,
    reset,
)


def seen(ends: Ends, ending: Callable[[Ends], list[Status]]) -> tuple[list[Status], int, list[int]]:
    with ends:
        statuses = ending(ends)
        reasons = [error.code for error in ends.server.errors()]
        return statuses, ends.server.system_error, reasons


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("sockets", [tcp_pair, lambda: pair_of(STREAM)], ids=["tcp", "unix"])
def test_ends_as_with_openssls_bio(
    identity: Identity, version: str, ending: Callable[[Ends], list[Status]], sockets: Callable[[], Sockets]
) -> None:
    server, client = server_context(identity, None), client_context(identity, version)
    theirs, ours = sockets(), sockets()
    connection = SSL.Connection(server, theirs[0])
    connection.set_accept_state()
    expected = seen(Ends(AsyncSSL(connection, handshake=False), theirs, client), ending)
    assert seen(Ends(Acceptor(server, handshake=False).accept(ours[0].fileno()), ours, client), ending) == expected


def test_send_fails(identity: Identity) -> None:
    with Ends.accepted(server_context(identity, None), client_context(identity)) as ends:
        ends.far.send(ends.spoken())
        ends.near.shutdown(socket.SHUT_WR)
        assert ends.server.handshake() is Status.SYSCALL
        assert ends.server.system_error == errno.EPIPE
