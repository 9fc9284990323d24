"""Twisted with handshakes that wait: data, others meanwhile, and leaving at every moment, with clients of others."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

from engine_shim import BatchEngine, ManualEngine, ThreadEngine
from support.clients import Target, client_hello, drain, reset
from support.integration_clients import arrive, client, connect, echoed, read
from support.running import PATIENCE
from tlsserver import TLSContext
from tlsserver.errors import ConnectionTimeoutError

pytest.importorskip("twisted.protocols.tls", reason="Twisted cannot use this pyOpenSSL for TLS")

from support.twisted_site import TwistedSite

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from support.certificates import Identity

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])
pytestmark = pytest.mark.usefixtures("no_ops_left")


@VERSIONS
@pytest.mark.parametrize("offload", [True, False])
def test_echo(identity: Identity, version: str, offload: bool) -> None:
    with ThreadEngine(1) as engine:
        context = TLSContext(identity.cert, engine.load_key(identity.key) if offload else identity.key, alpn=["echo"])
        ours = client(identity, version)
        ours.set_alpn_protocols(["echo"])
        with TwistedSite(context) as site, connect(site, ours) as tls:
            tls.sendall(b"hello")
            assert tls.recv(10) == b"HELLO"
            assert tls.selected_alpn_protocol() == "echo"
            (protocol,) = site.protocols
            handle = protocol.transport.getHandle()
            assert isinstance(handle, SSL.Connection)
            assert (handle.tls.version, handle.client_certificate) == (f"TLSv{version}", None)
            assert protocol.transport.negotiatedProtocol == b"echo"
            assert protocol.transport.getPeerCertificate() is None
            numbers = site.statistics()
            assert (numbers.handshakes_completed, numbers.handshakes_parked) == (1, int(offload))
            tls.unwrap().close()
            site.until(lambda _: site.lost)


@VERSIONS
def test_bulk_both_ways(identity: Identity, version: str) -> None:
    size = 5_000_000
    with TwistedSite(TLSContext(identity.cert, identity.key)) as site, connect(site, client(identity, version)) as tls:
        tls.sendall(b"a" * size)
        assert read(tls, size) == b"A" * size


@VERSIONS
def test_others_are_served_meanwhile(
    identity: Identity, version: str, manual: ManualEngine, pool: ThreadPoolExecutor
) -> None:
    context = TLSContext(identity.cert, manual.load_key(identity.key))
    with TwistedSite(context) as site:
        first, second = (pool.submit(echoed, site, client(identity, version)) for _ in range(2))
        site.until_parked(2)
        site.options.context = TLSContext(identity.cert, identity.key)
        for _ in range(3):
            assert echoed(site, client(identity, version)) == b"HELLO"
        assert site.statistics().parked_now == 2
        manual.wake(0)  # for nothing: it parks again
        assert echoed(site, client(identity, version)) == b"HELLO"
        manual.perform(1)
        manual.perform(0)
        assert {first.result(PATIENCE), second.result(PATIENCE)} == {b"HELLO"}
        site.until_empty()


def test_a_batch_on_the_reactors_thread(identity: Identity, pool: ThreadPoolExecutor) -> None:
    with BatchEngine(threads=0) as engine:
        with TwistedSite(TLSContext(identity.cert, engine.load_key(identity.key))) as site:
            calls = [pool.submit(echoed, site, client(identity)) for _ in range(8)]
            assert [call.result(PATIENCE) for call in calls] == [b"HELLO"] * 8
            site.until_empty()
        assert engine.statistics().performed == 8


# Leaving


def finish(sock: socket.socket) -> None:
    sock.close()


WAYS = {"fin": finish, "rst": reset}


@VERSIONS
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", ["before", "in the hello", "parked", "begun", "delivered", "after"])
def test_leaving(identity: Identity, version: str, way: str, moment: str, manual: ManualEngine) -> None:
    with TwistedSite(TLSContext(identity.cert, manual.load_key(identity.key))) as site:
        hello = client_hello(Target(site.port, identity, version))
        sock = socket.create_connection(site.address, PATIENCE)
        sock.sendall({"before": b"", "in the hello": hello[:50]}.get(moment, hello))
        if moment in ("before", "in the hello"):
            site.until(lambda numbers: numbers.connections_accepted == 1)
        else:
            site.until_parked(1)
        if moment == "begun":
            manual.begin()
        if moment in ("delivered", "after"):
            manual.perform()
        if moment == "after":
            assert sock.recv(1)
        WAYS[way](sock)
        site.until(lambda numbers: numbers.handshakes_failed == 1)
        site.until(lambda _: len(site.lost) == 1)
        site.until_empty()
        assert (manual.pending, manual.begun) == (0, 0)


@pytest.mark.parametrize("method", ["loseConnection", "abortConnection"])
def test_the_application_leaves_while_parked(identity: Identity, method: str, manual: ManualEngine) -> None:
    with TwistedSite(TLSContext(identity.cert, manual.load_key(identity.key))) as site:
        with arrive(site, identity, "1.3") as sock:
            site.until_parked(1)
            (protocol,) = site.protocols
            site.run(getattr(protocol.transport, method))
            site.until_empty()
            drain(sock)
        site.until(lambda _: len(site.lost) == 1)
        assert manual.pending == 0


def test_what_was_written_before_is_sent_before_the_end(
    identity: Identity, manual: ManualEngine, pool: ThreadPoolExecutor
) -> None:
    with TwistedSite(TLSContext(identity.cert, manual.load_key(identity.key))) as site:

        def read() -> bytes:
            with connect(site, client(identity)) as tls:
                return b"".join(iter(lambda: tls.recv(100), b""))

        reading = pool.submit(read)
        site.until_parked(1)
        (protocol,) = site.protocols

        def write_and_leave() -> None:
            protocol.transport.write(b"good")
            protocol.transport.writeSequence([b"b", b"ye"])
            protocol.transport.loseConnection()

        site.run(write_and_leave)
        manual.perform()
        assert reading.result(PATIENCE) == b"goodbye"
        site.until_empty()


def test_the_handshakes_deadline(identity: Identity, manual: ManualEngine) -> None:
    context = TLSContext(identity.cert, manual.load_key(identity.key))
    with TwistedSite(context, timeout_handshake=0.1) as site:
        with arrive(site, identity, "1.3") as parked, socket.create_connection(site.address) as silent:
            drain(parked)
            drain(silent)
        site.until(lambda _: len(site.lost) == 2)
        assert all(isinstance(reason, ConnectionTimeoutError) for reason in site.lost)
        assert any("still in the engine" in str(reason) for reason in site.lost)
        site.until_empty()
        assert manual.pending == 0


@pytest.mark.usefixtures("no_leaks")
def test_the_reactor_stops_while_parked(identity: Identity) -> None:
    with ManualEngine() as manual:
        site = TwistedSite(TLSContext(identity.cert, manual.load_key(identity.key)))
        with site, arrive(site, identity, "1.2") as one, arrive(site, identity, "1.3") as other:
            site.until_parked(2)
            site.stop()
            assert not site.hub.handshakes
            assert site.hub.loop.is_closed
            drain(one)
            drain(other)
        assert manual.pending == 0
        assert len(site.lost) == 2
