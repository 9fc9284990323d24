"""How a connection ends over the socket BIO: the same answers as with OpenSSL's own."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

from engine_shim import Acceptor, AsyncSSL, Status
from support.accepted import STREAM, VERSIONS, Ends, Sockets, pair_of, tcp_pair
from support.pair import client_context, server_context
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity

SYSTEM = 0x80000000  # ERR_SYSTEM_FLAG


@pytest.fixture
def identity(certificates: dict[str, Identity]) -> Identity:
    return certificates["p256"]


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
        # What an alert has met that a client is not there for is one of OpenSSL's own BIO alone: ours takes it first.
        reasons = [error.code for error in ends.server.errors() if not error.code & SYSTEM]
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
