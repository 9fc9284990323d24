"""cheroot's WSGI server with handshakes that wait: the real framework, and clients of others."""

from __future__ import annotations

import http.client
import json
import logging
import queue
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL import SSL

import engine_shim
from engine_shim import BatchEngine, LatencyEngine, ManualEngine, ThreadEngine
from support import leaks
from support.cheroot_site import CherootSite
from support.clients import Target, client_hello, curl, drain, reset, s_client
from support.integration_clients import arrive, client
from support.naming import asking_context
from support.running import PATIENCE
from tlsserver import Certificate, ClientCertificates, ConfigurationError, TLSContext
from tlsserver.integrations.cheroot import Adapter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

    from support.certificates import Certificates, Identity
    from support.client_scene import House
    from support.naming import Desk

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])
pytestmark = pytest.mark.usefixtures("no_threads_left", "no_ops_left")


@pytest.fixture
def offload(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An engine by its name; None: none."""
    engines: dict[str, Any] = {"threads": lambda: ThreadEngine(1), "turns": lambda: BatchEngine(threads=0)}
    engine: Any = engines[request.param]() if request.param in engines else None
    yield engine
    if engine is not None:
        engine.close()


def connection(site: CherootSite, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("localhost", site.port, context=context, timeout=PATIENCE)


def ask(site: CherootSite, context: ssl.SSLContext) -> dict[str, str]:
    """Make one request on a connection of its own; return the application's environ."""
    made = connection(site, context)
    try:
        told: dict[str, str] = on(made)
        return told
    finally:
        made.close()


def on(made: http.client.HTTPSConnection, body: bytes | None = None) -> Any:
    made.request("GET" if body is None else "POST", "/", body=body)
    answer = made.getresponse().read()
    return json.loads(answer) if body is None else answer


def until(condition: Any) -> None:
    leaks.wait_until(condition)
    assert condition()


@VERSIONS
@pytest.mark.parametrize("offload", ["threads", "turns", "off"], indirect=True)
def test_keep_alive(identity: Identity, version: str, offload: Any) -> None:
    key = identity.key if offload is None else offload.load_key(identity.key)
    with CherootSite(TLSContext(identity.cert, key)) as site:
        made = connection(site, client(identity, version))
        for number in range(10):  # each by any worker
            told = on(made)
            assert (told["HTTPS"], told["wsgi.url_scheme"], told["SSL_PROTOCOL"]) == ("on", "https", f"TLSv{version}")
            assert told["SSL_TLS_SNI"] == "localhost"
            assert on(made, b"x" * number * 1000 + b"!") == b"x" * number * 1000 + b"!"
        made.close()
        site.until_idle()
    assert not site.errors


@VERSIONS
@pytest.mark.parametrize("other", [curl, s_client])
def test_clients_of_others(identity: Identity, version: str, other: Any) -> None:
    """The second offers to resume the session of the first, which another worker has made."""
    with LatencyEngine(0.01) as engine, CherootSite(TLSContext(identity.cert, engine.load_key(identity.key))) as site:
        answers = other(Target(site.port, identity, version), [b"one", b"two"])
        assert [answer.reply.body for answer in answers] == [b"one", b"two"]


@VERSIONS
def test_five_megabytes_both_ways(identity: Identity, version: str) -> None:
    body = bytes(range(256)) * 20_000
    with CherootSite(TLSContext(identity.cert, identity.key)) as site:
        made = connection(site, client(identity, version))
        assert on(made, body) == body
        assert on(made, body) == body
        made.close()


def test_requests_that_openssl_has_read_already(identity: Identity) -> None:
    """No selector shows what came in the same record as the request before."""
    with CherootSite(TLSContext(identity.cert, identity.key)) as site:
        requests = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n" + b"a" * 4000
        with (
            socket.create_connection(site.address, PATIENCE) as sock,
            client(identity).wrap_socket(sock, server_hostname="localhost") as tls,
        ):
            tls.sendall(requests * 4)  # one record of 16 KB, of which cheroot reads 8 at a time
            got = b""
            while got.count(b"a" * 4000) < 4:
                got += tls.recv(1 << 16)


def test_others_are_served_meanwhile(identity: Identity, manual: ManualEngine, pool: ThreadPoolExecutor) -> None:
    with CherootSite(TLSContext(identity.cert, manual.load_key(identity.key))) as site:
        first, second = (pool.submit(ask, site, client(identity)) for _ in range(2))
        until(lambda: manual.pending == 2)
        site.adapter.context = TLSContext(identity.cert, identity.key)
        for _ in range(3):
            assert ask(site, client(identity))["HTTPS"] == "on"
        manual.wake(0)
        manual.perform(1)
        manual.perform(0)
        assert {first.result(PATIENCE)["HTTPS"], second.result(PATIENCE)["HTTPS"]} == {"on"}


def test_workers_share_a_batch(identity: Identity, pool: ThreadPoolExecutor) -> None:
    with BatchEngine(threads=0) as engine:
        with CherootSite(TLSContext(identity.cert, engine.load_key(identity.key)), threads=8) as site:
            calls = [pool.submit(ask, site, client(identity)) for _ in range(16)]
            assert all(call.result(PATIENCE) for call in calls)
        assert engine.statistics().performed == 16


# Leaving

WAYS = {"fin": socket.socket.close, "rst": reset}


@VERSIONS
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", ["before", "in the hello", "parked", "begun", "after"])
def test_leaving(identity: Identity, version: str, way: str, moment: str, manual: ManualEngine) -> None:
    with CherootSite(TLSContext(identity.cert, manual.load_key(identity.key)), threads=1) as site:
        hello = client_hello(Target(site.port, identity, version))
        sock = socket.create_connection(site.address, PATIENCE)
        sock.sendall({"before": b"", "in the hello": hello[:50]}.get(moment, hello))
        if moment in ("before", "in the hello"):
            until(lambda: site.server.requests.idle == 0)
        else:
            until(lambda: manual.pending == 1)
        if moment == "begun":
            manual.begin()
        if moment == "after":
            manual.perform()
            assert sock.recv(1)
        WAYS[way](sock)
        site.until_idle()
        site.adapter.context = TLSContext(identity.cert, identity.key)
        assert ask(site, client(identity))["HTTPS"] == "on"  # by the same, the only worker
        site.until_idle()
        assert (manual.pending, manual.begun) == (0, 0)
    assert not site.errors


def test_the_handshakes_deadline(identity: Identity, manual: ManualEngine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    context = TLSContext(identity.cert, manual.load_key(identity.key))
    with CherootSite(context, timeout_handshake=0.1) as site:
        with arrive(site, identity, "1.3") as parked, socket.create_connection(site.address) as silent:
            drain(parked)
            drain(silent)
        site.until_idle()
        assert manual.pending == 0
        assert "not finished within 0.1 s: its operation is still in the engine" in caplog.text
        assert len([one for one in caplog.messages if "not finished" in one]) == 2
        caplog.clear()  # the records keep their errors, and these what has raised them
    assert not site.errors


def test_the_server_stops_while_parked(identity: Identity, manual: ManualEngine) -> None:
    with CherootSite(TLSContext(identity.cert, manual.load_key(identity.key))) as site:
        site.server.shutdown_timeout = 0.05
        with arrive(site, identity, "1.3") as sock:
            until(lambda: manual.pending == 1)
            begun = time.monotonic()
            site.server.stop()
            assert time.monotonic() - begun < 5
            assert manual.pending == 0
            drain(sock)


@pytest.mark.parametrize(
    ("said", "answer"), [(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "), (b"\x16\x03\x01\x00\x05hello", b"\x15\x03")]
)
def test_no_tls(identity: Identity, said: bytes, answer: bytes) -> None:
    with CherootSite(TLSContext(identity.cert, identity.key)) as site:
        with socket.create_connection(site.address, PATIENCE) as sock:
            sock.sendall(said)
            assert drain(sock).startswith(answer)
        site.until_idle()


def test_a_quiet_client_is_told_so(identity: Identity) -> None:
    """cheroot's own timeout, after the handshake."""
    with CherootSite(TLSContext(identity.cert, identity.key)) as site:
        site.server.timeout = 0.1
        with (
            socket.create_connection(site.address, PATIENCE) as sock,
            client(identity).wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False) as tls,
        ):
            tls.sendall(b"GET / HTTP/1.1\r\n")
            got = b"".join(iter(lambda: tls.recv(4096), b""))  # ends with a close_notify
            assert got.startswith(b"HTTP/1.1 408 ")


# What the context can


@VERSIONS
def test_client_certificates_and_their_hook(
    identity: Identity, house: House, version: str, pool: ThreadPoolExecutor
) -> None:
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    wanted = ClientCertificates("required", house.root.cert, on_verified=asked.put)
    with CherootSite(TLSContext(identity.cert, identity.key, client_certificates=wanted)) as site:
        ours = client(identity, version)
        ours.load_cert_chain(house.good.cert, house.good.key)
        good = pool.submit(ask, site, ours)
        asked.get(timeout=PATIENCE).accept()
        told = good.result(PATIENCE)
        assert (told["SSL_CLIENT_VERIFY"], told["SSL_CLIENT_S_DN"]) == ("SUCCESS", "CN=good")
        assert ssl.PEM_cert_to_DER_cert(told["SSL_CLIENT_CERT"]) == house.good.der
        bad = pool.submit(ask, site, ours)
        asked.get(timeout=PATIENCE).reject()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            bad.result(PATIENCE)


def test_certificates_on_demand(
    certificates: Certificates, identity: Identity, desk: Desk, pool: ThreadPoolExecutor
) -> None:
    shop = certificates["rsa2048"]
    with ThreadEngine(1) as engine, CherootSite(asking_context(identity, desk)) as site:
        asked = pool.submit(ask, site, client(identity))
        request = desk.next()
        assert not engine_shim.job_is_current()
        request.complete(Certificate(shop.cert, engine.load_key(shop.key)))
        assert asked.result(PATIENCE)["HTTPS"] == "on"
        assert engine.statistics().performed == 1
        with arrive(site, identity, "1.3"):
            late = desk.next()
        site.until_idle()
        assert not late.is_open


def test_what_cannot_be_used(identity: Identity) -> None:
    with pytest.raises(ConfigurationError, match=r"^context is a Context: give a tlsserver.TLSContext"):
        Adapter(SSL.Context(SSL.TLS_SERVER_METHOD))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^async_io=True cannot work"):
        Adapter(TLSContext(identity.cert, identity.key, async_io=True))
    with pytest.raises(ConfigurationError, match=r"^timeout_handshake=-1 cannot work"):
        Adapter(TLSContext(identity.cert, identity.key), timeout_handshake=-1)
