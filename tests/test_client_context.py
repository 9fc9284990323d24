"""Settings of a client's Context that pyOpenSSL has no function for, seen by what its handshakes do."""

from __future__ import annotations

import select
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

import engine_shim

if TYPE_CHECKING:
    from support.certificates import Identity


@pytest.fixture
def client() -> SSL.Context:
    return SSL.Context(SSL.TLS_CLIENT_METHOD)


@pytest.fixture
def server(identity: Identity) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(identity.cert))
    engine_shim.use_plain_key(context, identity.key)
    return context


def connect(client: SSL.Context, server: SSL.Context) -> engine_shim.AsyncSSL:
    """Do a handshake in memory; give the client's end."""
    ends = SSL.Connection(client), SSL.Connection(server)
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    finished: set[int] = set()
    while len(finished) < 2:
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                finished.add(number)
            except SSL.WantReadError:
                pass
            deliver(end, ends[1 - number])
    return engine_shim.AsyncSSL(ends[0], handshake=False)


def deliver(sender: SSL.Connection, receiver: SSL.Connection) -> None:
    try:
        receiver.bio_write(sender.bio_read(1 << 16))
    except SSL.WantReadError:
        return


@pytest.mark.parametrize(("groups", "chosen"), [("P-384", "secp384r1"), ("P-256:X25519", "prime256v1")])
def test_groups(client: SSL.Context, server: SSL.Context, groups: str, chosen: str) -> None:
    engine_shim.set_groups(client, groups)
    name = connect(client, server).group
    assert name is not None
    assert name.lower() in {chosen, chosen.replace("prime", "secp").replace("v1", "r1")}


@pytest.mark.parametrize("groups", ["no-such-group", ""])
def test_groups_that_are_not_known(client: SSL.Context, groups: str) -> None:
    with pytest.raises(engine_shim.ShimError, match="key exchange groups"):
        engine_shim.set_groups(client, groups)


def test_certificates_are_believed(client: SSL.Context, server: SSL.Context) -> None:
    client.set_verify(SSL.VERIFY_PEER)
    engine_shim.believe_certificates(client)
    assert connect(client, server).group


def test_certificates_are_not_believed_without(client: SSL.Context, server: SSL.Context) -> None:
    client.set_verify(SSL.VERIFY_PEER)
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        connect(client, server)


def send_two(server: SSL.Connection) -> None:
    server.do_handshake()
    server.send(b"one")
    server.send(b"two")


@pytest.mark.parametrize("ahead", [True, False])
def test_read_ahead(client: SSL.Context, server: SSL.Context, ahead: bool) -> None:
    """With it, the record that follows leaves the kernel together with the first."""
    if ahead:
        engine_shim.read_ahead(client)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ends = SSL.Connection(client, ours), SSL.Connection(server, theirs)
        ends[0].set_connect_state()
        ends[1].set_accept_state()
        thread = threading.Thread(target=send_two, args=[ends[1]])
        thread.start()
        ends[0].do_handshake()
        thread.join()
        assert ends[0].recv(3) == b"one"
        assert bool(select.select([ours], [], [], 0)[0]) is not ahead
