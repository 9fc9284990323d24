"""What a client learns of its server that pyOpenSSL has no function for, seen in handshakes in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

from engine_shim import Status, peer
from support.pair import Pair, client_context, server_context

if TYPE_CHECKING:
    from support.certificates import Identity


@pytest.mark.parametrize(("version", "tickets"), [("1.2", 1), ("1.3", 2)])
def test_sessions_are_counted(identity: Identity, version: str, tickets: int) -> None:
    client = client_context(identity, version)
    peer.count_sessions(client)
    with Pair(server_context(identity, None), client, offloaded=False) as pair:
        assert pair.finish() is Status.DONE
        pair.echo()
        assert peer.sessions_seen(client) == tickets
        assert peer.has_ticket(pair.client)
        assert peer.verification(pair.client) == (0, "ok")
        assert peer.renegotiates_securely(pair.client) is (version == "1.2")
        assert peer.staple(pair.client) == b""


def test_a_context_that_counts_nothing(identity: Identity) -> None:
    assert peer.sessions_seen(client_context(identity)) == 0


def test_sessions_that_the_server_keeps(identity: Identity) -> None:
    client = client_context(identity, "1.2")
    client.set_options(SSL.OP_NO_TICKET)
    peer.count_sessions(client)
    with Pair(server_context(identity, None), client, offloaded=False) as pair:
        assert not peer.has_ticket(pair.client)
        assert pair.finish() is Status.DONE
        assert not peer.has_ticket(pair.client)
        assert peer.sessions_seen(client) == 1


def test_an_authority_that_is_not_trusted(identity: Identity) -> None:
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    with Pair(server_context(identity, None), client, offloaded=False) as pair:
        peer.ask_for_staple(pair.client)
        assert pair.finish() is Status.DONE
        number, words = peer.verification(pair.client)
        assert number == 20
        assert "unable to get local issuer certificate" in words
