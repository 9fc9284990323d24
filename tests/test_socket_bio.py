"""The BIO between OpenSSL and the socket of what an Acceptor made: nothing is lost, repeated, reordered or held back.

Messages (SOCK_SEQPACKET) show each send(2) of the server's as it was, and lose what a recv(2) leaves of them.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

from engine_shim import ManualEngine, Status
from support.accepted import MESSAGES, VERSIONS, Ends
from support.pair import client_context, server_context
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Identity

CHANGE_CIPHER_SPEC = bytes([20, 3, 3, 0, 1, 1])  # RFC 8446, D.4: ignored until the client's Finished


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
            other.client.send(bytes(8192))
            other.far.send(other.outgoing())
            assert other.read() == bytes(8192)
            engine.perform()
            assert paused.server.handshake() is Status.WANT_READ
            paused.far.send(CHANGE_CIPHER_SPEC[3:])
            assert paused.shake() is Status.DONE


def test_a_drained_read_is_told_and_the_next_one_asks_the_socket(identity: Identity) -> None:
    with Ends.accepted(server_context(identity, None), client_context(identity), MESSAGES) as ends:
        assert ends.shake() is Status.DONE
        for text in (b"first", b"second"):
            ends.client.send(text)
            ends.far.send(ends.outgoing())
        buffer = bytearray(10)
        seen = [(ends.server.read_into(buffer), ends.server.drained) for _ in range(4)]
    # The handshake's last recv(2) was short, so the first read waits without asking. Then each message is one recv(2).
    assert seen == [
        *((Status.WANT_READ, False), (Status.DONE, True), (Status.DONE, True)),
        (Status.WANT_READ, False),
    ]


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
        assert ends.understood() == b"the answer"


def test_a_handshake_is_not_done_before_its_last_bytes_are_sent(ends: Ends) -> None:
    last = ends.to_last_step()
    zeros = fill(ends.near)
    ends.far.send(last)
    assert [ends.server.handshake() for _ in range(2)] == [Status.WANT_WRITE] * 2
    drain(ends.far, zeros)
    assert ends.server.handshake() is Status.DONE
    assert ends.server.write(b"the answer") is Status.DONE
    assert ends.understood() == b"the answer"


def test_data_does_not_overtake_what_is_unsent(ends: Ends) -> None:
    last = ends.to_last_step()
    zeros = fill(ends.near)
    ends.far.send(last)
    assert ends.server.handshake() is Status.WANT_WRITE
    assert ends.server.write(b"the answer") is Status.WANT_WRITE
    drain(ends.far, zeros)
    assert ends.server.write(b"the answer") is Status.DONE
    assert ends.understood() == b"the answer"


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
