"""Data over the socket BIO: records go together, and what the socket does not take is neither lost nor sent twice."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

from engine_shim import Acceptor, ReadBuffer, Status
from support.accepted import MESSAGES, VERSIONS, Ends, tcp_pair
from support.pair import Pair, client_context, server_context
from support.relayed import Relayed
from support.waiting import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity

RECORD = 16 * 1024
TOGETHER = 4 * RECORD
TEXT = bytes(range(256)) * (TOGETHER // 256)


@pytest.fixture
def identity(certificates: dict[str, Identity]) -> Identity:
    return certificates["p256"]


@pytest.fixture(params=VERSIONS)
def ends(identity: Identity, request: pytest.FixtureRequest) -> Iterator[Ends]:
    with Ends.accepted(server_context(identity, None), client_context(identity, request.param)) as ends:
        assert ends.shake() is Status.DONE
        while ends.hear():
            ends.spoken()
        yield ends


def full(ends: Ends | Relayed) -> int:
    """Let the socket take less than four records; how many bytes of zeros are in it."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            count += ends.near.send(bytes(256))
    return count


def without(ends: Ends | Relayed, zeros: int) -> None:
    while zeros:
        zeros -= len(ends.far.recv(zeros))


def said(ends: Ends, count: int) -> bytes:
    """Let the client take so many bytes of data, while the server's end goes on sending."""
    text = b""
    while len(text) < count and ends.hear():
        with suppress(SSL.WantReadError, SSL.ZeroReturnError):
            while True:
                text += ends.client.recv(TOGETHER)
    return text


@pytest.mark.parametrize(("size", "records"), [(1, 1), (RECORD, 1), (RECORD + 1, 2), (TOGETHER, 4), (9 * RECORD, 4)])
def test_records_go_with_one_send(identity: Identity, size: int, records: int) -> None:
    with Ends.accepted(server_context(identity, None), client_context(identity), MESSAGES) as ends:
        assert ends.shake() is Status.DONE
        while ends.hear():
            ends.spoken()
        assert ends.server.write(bytes(size)) is Status.DONE
        assert ends.server.count == min(size, TOGETHER)
        message = ends.hear(2 * TOGETHER)
        assert not ends.hear()
        starts = 0
        while message:
            starts += 1
            assert message[:3] == b"\x17\x03\x03"
            message = message[5 + int.from_bytes(message[3:5], "big") :]
        assert starts == records


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whatever_has_bytes(ends: Ends, kind: type) -> None:
    assert ends.server.write(kind(b"the answer")) is Status.DONE
    assert ends.understood() == b"the answer"


def test_what_the_socket_does_not_take_is_sent_later_and_once(ends: Ends) -> None:
    zeros = full(ends)
    assert [ends.server.write(TEXT) for _ in range(3)] == [Status.WANT_WRITE] * 3
    without(ends, zeros)
    text = b""
    while ends.server.write(TEXT) is Status.WANT_WRITE:
        text += said(ends, 1)
    assert ends.server.count == TOGETHER
    assert ends.server.write(b"the end") is Status.DONE
    assert text + said(ends, TOGETHER + 7 - len(text)) == TEXT + b"the end"


def test_a_shorter_retry_is_told_less(ends: Ends) -> None:
    """What OpenSSL has taken is not forgotten: the rest is told to the next write."""
    zeros = full(ends)
    assert ends.server.write(TEXT) is Status.WANT_WRITE
    without(ends, zeros)
    text = b""
    told = 0
    while told < TOGETHER:
        status = ends.server.write(TEXT[told : told + 10_000])
        told += ends.server.count if status is Status.DONE else 0
        text += said(ends, 1)
    assert text + said(ends, TOGETHER - len(text)) == TEXT


def test_reading_goes_on_while_nothing_can_be_sent(ends: Ends) -> None:
    zeros = full(ends)
    assert ends.server.write(TEXT) is Status.WANT_WRITE
    assert ends.server.read_into(bytearray(10)) is Status.WANT_READ
    ends.client.send(b"the request")
    ends.far.send(ends.outgoing())
    assert ends.read() == b"the request"
    assert ends.server.read_into(bytearray(10)) is Status.WANT_READ
    without(ends, zeros)
    assert not ends.hear(), "a read sends nothing of a write that has to be repeated"
    assert ends.server.write(TEXT) in {Status.DONE, Status.WANT_WRITE}


def test_close_notify_comes_behind_what_is_unsent(ends: Ends) -> None:
    zeros = full(ends)
    assert ends.server.write(TEXT) is Status.WANT_WRITE
    assert ends.server.shutdown() is Status.WANT_WRITE
    without(ends, zeros)
    text = b""
    while ends.server.shutdown() is Status.WANT_WRITE:
        text += said(ends, 1)
    text += said(ends, TOGETHER - len(text))
    assert text == TEXT
    ends.hear()
    with pytest.raises(SSL.ZeroReturnError):
        ends.client.recv(1)


def test_goodbyes_that_cross(ends: Ends) -> None:
    zeros = full(ends)
    assert ends.server.shutdown() is Status.WANT_WRITE
    ends.client.shutdown()
    ends.far.send(ends.outgoing())
    buffer = bytearray(10)
    while (status := ends.server.read_into(buffer)) is Status.WANT_READ:
        pass
    assert status is Status.CLOSED
    assert ends.server.shutdown() is Status.WANT_WRITE
    without(ends, zeros)
    assert ends.server.shutdown() is Status.DONE
    assert ends.server.count == 1, "both goodbyes were said"


def test_a_client_that_is_gone(identity: Identity) -> None:
    near, far = tcp_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    tls = Acceptor(server_context(identity, None), handshake=False).accept(near.fileno())
    with Ends(tls, (near, far), client_context(identity)) as ends:
        assert ends.shake() is Status.DONE
        while ends.server.write(TEXT) is Status.DONE:
            pass
        ends.far.close()  # with bytes unread: a reset
        status = Status.WANT_WRITE
        while status is Status.WANT_WRITE:
            status = ends.server.write(TEXT)
        assert status is Status.SYSCALL
        assert ends.server.system_error in {errno.EPIPE, errno.ECONNRESET}
        assert Status.DONE not in {ends.server.write(TEXT) for _ in range(3)}, "the stream has a hole"


def test_a_read_buffer_that_many_use(ends: Ends, identity: Identity) -> None:
    memory = bytearray(10)
    buffer = ReadBuffer(memory)
    assert (buffer.size, buffer.memory) == (10, memory)
    with pytest.raises(BufferError):
        memory.append(0)
    with Ends.accepted(server_context(identity, None), client_context(identity)) as other:
        assert other.shake() is Status.DONE
        for end, text in ((ends, b"first"), (other, b"the second"), (ends, b"third")):
            end.client.send(text)
            end.far.send(end.outgoing())
            while end.server.read_into(buffer) is Status.WANT_READ:
                pass
            assert buffer.first(end.server.count) == text
    with pytest.raises(BufferError):
        ReadBuffer(b"read only")


@pytest.mark.parametrize("between", ["handshake", "shutdown"])
def test_a_write_is_not_repeated_whatever_comes_in_between(ends: Ends, between: str) -> None:
    zeros = full(ends)
    assert ends.server.write(TEXT) is Status.WANT_WRITE
    assert getattr(ends.server, between)() is Status.WANT_WRITE
    without(ends, zeros)
    text = b""
    while ends.server.write(TEXT) is Status.WANT_WRITE:
        text += said(ends, 1)
    assert ends.server.count == TOGETHER
    assert text + said(ends, TOGETHER - len(text)) == TEXT


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_small_records_that_the_client_asks_for(identity: Identity, version: str) -> None:
    """max_fragment_length (RFC 6066, 4): 128 records, with their headers, are more than a thread's buffer holds."""
    with Relayed(server_context(identity, None), identity, version, "-maxfraglen", "512", "-quiet") as ends:
        ends.shake()
        text = bytes([1]) * TOGETHER
        zeros = full(ends)
        assert ends.server.write(text) is Status.WANT_WRITE
        without(ends, zeros)
        while ends.server.write(text) is Status.WANT_WRITE:
            assert ends.speak()
        assert ends.server.count == TOGETHER
        other = bytes([2]) * 99 + bytes([3])
        while ends.server.write(other) is Status.WANT_WRITE:
            assert ends.speak()
        while ends.speak():
            pass
        assert ends.printed(text + other)


def test_a_key_update_while_nothing_can_be_sent(identity: Identity) -> None:
    """OpenSSL answers before the next record; the one that waits is encrypted already."""
    with Relayed(server_context(identity, None), identity, "-tls1_3") as ends:
        ends.shake()
        text = bytes([1]) * TOGETHER
        zeros = full(ends)
        assert ends.server.write(text) is Status.WANT_WRITE
        ends.say(b"K\n")  # KeyUpdate, and a request for the server's
        ends.hear()
        assert [ends.server.read_into(bytearray(10)) for _ in range(3)] == [Status.WANT_READ] * 3
        without(ends, zeros)
        while ends.server.write(text) is Status.WANT_WRITE:
            assert ends.speak()
        assert ends.server.count == TOGETHER
        assert ends.server.write(bytes([3])) is Status.DONE
        while ends.speak():
            pass
        assert ends.printed(text + bytes([3]))


def test_what_a_read_has_to_say_goes_before_the_next_read(identity: Identity) -> None:
    """A client that asks (here for a renegotiation, which is refused) and does not read is read no further."""
    with Relayed(server_context(identity, None), identity, "-tls1_2") as ends:
        ends.shake()
        zeros = full(ends)
        ends.say(b"R\n")
        ends.hear()
        buffer = bytearray(10)
        statuses = [ends.server.read_into(buffer) for _ in range(4)]
        assert statuses[-2:] == [Status.WANT_WRITE] * 2  # the first one asks nobody
        without(ends, zeros)
        assert ends.server.read_into(buffer) is Status.WANT_READ
        assert ends.far.recv(100)[:3] == bytes([21, 3, 3]), "an alert (RFC 5246, 7.2)"


def test_a_step_takes_a_bounded_part_of_the_socket(identity: Identity) -> None:
    """OpenSSL goes on for as long as there are records that give the caller nothing, and answers them."""
    size = 90_000
    hello = b"\x01" + size.to_bytes(3, "big") + bytes(size)
    pieces = [hello[start : start + RECORD] for start in range(0, len(hello), RECORD)]
    with Ends.accepted(server_context(identity, None), client_context(identity)) as ends:
        ends.far.send(b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces))
        steps = 1
        while ends.server.handshake() is Status.WANT_READ:
            assert readable([ends.near.fileno()]), "the rest is in the socket, which a level-triggered selector tells"
            steps += 1
        assert ends.server.errors(), "zeros are no ClientHello"
        assert steps == 3


def test_one_record_a_step_over_a_socket_of_openssls(identity: Identity) -> None:
    """There OpenSSL may keep the next one, and bind whoever writes to repeat it."""
    with Pair(server_context(identity, None), client_context(identity), offloaded=False) as pair:
        assert pair.finish() is Status.DONE
        assert pair.server.write(TEXT) is Status.DONE
        assert pair.server.count == RECORD
