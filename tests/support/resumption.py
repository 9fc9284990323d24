"""Clients that come back: one handshake at a time, with the session of an earlier one, over memory or a socket."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from OpenSSL import SSL
from OpenSSL._util import lib

from engine_shim import Status
from support.pair import Pair
from support.waiting import PATIENCE

if TYPE_CHECKING:
    from engine_shim import ManualEngine

__all__ = ["Met", "connect", "meet"]


class Met(NamedTuple):
    """What came of a handshake.

    Attributes:
        reused: Whether it resumed a session.
        session: To come back with.
    """

    reused: bool
    session: SSL.Session


def meet(
    server: SSL.Context, client: SSL.Context, session: SSL.Session | None = None, engine: ManualEngine | None = None
) -> Met:
    """Make a handshake in memory, and exchange a few bytes: tickets of TLS 1.3 come after it.

    Args:
        server: Of a Context with a key that is on the loop, or in the engine.
        client: The client's; the same one as that of the session.
        session: Of an earlier handshake.
        engine: Performs the server's key, when it is asked.
    """
    with Pair(server, client, offloaded=engine is not None) as pair:
        if session is not None:
            pair.client.set_session(session)
        status = pair.until_parked()
        while status is Status.WANT_ASYNC:
            assert engine is not None
            engine.perform()
            status = pair.until_parked()
        assert status is Status.DONE, pair.server.errors()
        pair.echo()
        made = left(pair.client)
        return Met(pair.server.reused, made)


def connect(address: tuple[str, int], client: SSL.Context, session: SSL.Session | None = None) -> Met:
    """Make a handshake over TCP with a server that answers a request of HTTP/1.1."""
    # Blocking, which pyOpenSSL asks for: a socket with a timeout does not block. The kernel has the patience.
    with socket.create_connection(address, PATIENCE) as sock:
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(PATIENCE * 1000))
        connection = SSL.Connection(client, sock)
        connection.set_connect_state()
        if session is not None:
            connection.set_session(session)
        connection.do_handshake()
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536)
        made = left(connection)
        return Met(bool(lib.SSL_session_reused(connection._ssl)), made)


def left(connection: SSL.Connection) -> SSL.Session:
    """Say goodbye, without which OpenSSL does not resume (SSL_free(3)), and keep the session."""
    with suppress(SSL.WantReadError):
        connection.shutdown()
    made = connection.get_session()
    assert made is not None
    return made
