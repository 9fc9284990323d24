"""End to end: every client, TLS version, kind of key and engine, on the linkage of the Python that runs the tests."""

from __future__ import annotations

import itertools
import random
import select
import socket
import ssl
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

import engine_shim
from support.certificates import ML_DSA
from support.clients import CLIENTS, NAME, Answer, Target, python_context
from support.pair import STATIC_RSA
from support.running import PATIENCE, Running
from support.storm import Storm
from tlsserver import ServerConfig, TLSContext
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.protocols.http1 import Request, Response, protocol_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

    from support.certificates import Certificates
    from tlsserver.transport import Transport

VERSIONS = ("1.2", "1.3")
KINDS = ("rsa2048", "rsa4096", "p256", "p384", "ed25519")
OFFLOADS: dict[str, Callable[[], engine_shim.Engine | None]] = {
    "off": lambda: None,
    "threads": lambda: engine_shim.ThreadEngine(threads=2),
    "latency": lambda: engine_shim.LatencyEngine(0.01),
    "batch": lambda: engine_shim.BatchEngine(1),
    "batch-by-turns": lambda: engine_shim.BatchEngine(0),
}

# A handshake alone has no batch to wait for, and does not pause.
PERFORMED_BY_THE_LOOP = {"off", "batch-by-turns"}

# A few records up, more than the socket's buffers down, and every value of a byte in both.
UP = bytes(itertools.islice(itertools.cycle(range(256)), 5_000))
DOWN = bytes(itertools.islice(itertools.cycle(range(251)), 200_000))

CROWD = 300  # connections at once; both ends are in this process, so twice as many descriptors


def answer(request: Request) -> Response:
    """Send back what was sent, and much more; the headers tell what the server thinks of the connection."""
    tls = request.transport.get_extra_info("tls")
    headers = (
        ("X-Version", tls.version),
        ("X-Reused", str(tls.reused)),
        ("X-ALPN", str(tls.alpn)),
        ("X-Cipher", tls.cipher),
        ("X-Parks", str(request.transport.get_extra_info("park").parks)),
    )
    return Response(headers=headers, body=request.body + DOWN)


class Sites:
    """The servers of this module, each made when first asked for, and the engines that they share."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._engines: dict[str, engine_shim.Engine | None] = {}
        self._running: dict[tuple[str, ...], Running] = {}

    def get(self, kind: str, offload: str, ciphers: str = "", alpn: Sequence[str] = ()) -> Running:
        name = (kind, offload, ciphers, *alpn)
        if name not in self._running:
            self._running[name] = self._start(kind, self._engine(offload), ciphers, alpn)
        return self._running[name]

    def _engine(self, offload: str) -> engine_shim.Engine | None:
        if offload not in self._engines:
            self._engines[offload] = OFFLOADS[offload]()
        return self._engines[offload]

    def _start(self, kind: str, engine: engine_shim.Engine | None, ciphers: str, alpn: Sequence[str]) -> Running:
        identity = self._certificates[kind]
        key = identity.key if engine is None else engine.load_key(identity.key)
        context = TLSContext(identity.cert, key, ciphers=ciphers or None, alpn=alpn)
        return Running(context, protocol_factory(answer)).__enter__()

    def close(self) -> None:
        for site in self._running.values():
            site.__exit__()
        for engine in self._engines.values():
            if engine is not None:
                engine.close()


@pytest.fixture(scope="module")
def sites(certificates: Certificates) -> Iterator[Sites]:
    found = Sites(certificates)
    yield found
    found.close()


class Change:
    """How far a server's numbers moved on."""

    def __init__(self, site: Running) -> None:
        self._site = site
        self._before = site.statistics()

    def check(self, *, handshakes: int, parks: int, ops: int) -> None:
        """Compare; the connections are closed, so nothing can follow."""
        now = self._site.until(lambda numbers: numbers.connections_open == 0)
        before = self._before
        assert now.handshakes_completed - before.handshakes_completed == handshakes
        assert now.handshakes_failed == before.handshakes_failed
        assert now.handshakes_parked - before.handshakes_parked == parks
        assert now.park_seconds.count - before.park_seconds.count == parks
        assert now.ops_performed - before.ops_performed == ops
        assert now.ops_cancelled == before.ops_cancelled
        assert now.parked_now == 0


def check_exchange(got: Answer, target: Target, sent: bytes, *, parks: int, reused: bool = False) -> None:
    """Compare what the client saw with what was sent, and what both ends say of the connection."""
    assert got.version == f"TLSv{target.version}"
    assert got.reply.status == 200
    assert got.reply.headers["x-version"] == f"TLSv{target.version}"
    assert got.reply.headers["x-reused"] == str(reused)
    assert got.reply.headers["x-parks"] == str(parks)
    assert got.reply.body == sent + DOWN


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("client", CLIENTS)
def test_exchange(
    client: str, version: str, *, offload: str, kind: str, sites: Sites, certificates: Certificates
) -> None:
    site = sites.get(kind, offload)
    parks = 0 if offload in PERFORMED_BY_THE_LOOP else 1
    target = Target(site.port, certificates[kind], version)
    change = Change(site)
    (got,) = CLIENTS[client](target, [UP])
    check_exchange(got, target, UP, parks=parks)
    change.check(handshakes=1, parks=parks, ops=int(offload != "off"))


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("client", CLIENTS)
def test_resumption_does_not_park(
    client: str, version: str, offload: str, sites: Sites, certificates: Certificates
) -> None:
    site = sites.get("rsa2048", offload)
    parks = 0 if offload in PERFORMED_BY_THE_LOOP else 1
    target = Target(site.port, certificates["rsa2048"], version)
    change = Change(site)
    first, second = CLIENTS[client](target, [UP, UP[:100]])
    check_exchange(first, target, UP, parks=parks)
    check_exchange(second, target, UP[:100], parks=0, reused=True)
    change.check(handshakes=2, parks=parks, ops=int(offload != "off"))


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("client", CLIENTS)
def test_static_rsa_parks_for_the_decryption(
    client: str, offload: str, sites: Sites, certificates: Certificates
) -> None:
    site = sites.get("rsa2048", offload, ciphers=STATIC_RSA)
    parks = 0 if offload in PERFORMED_BY_THE_LOOP else 1
    target = Target(site.port, certificates["rsa2048"], "1.2", ciphers=STATIC_RSA)
    change = Change(site)
    (got,) = CLIENTS[client](target, [UP])
    check_exchange(got, target, UP, parks=parks)
    assert got.reply.headers["x-cipher"] == STATIC_RSA
    change.check(handshakes=1, parks=parks, ops=int(offload != "off"))


@pytest.mark.parametrize("kind", ["rsa-pss", "p521", "ed448"])
@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("client", CLIENTS)
def test_rarer_keys(
    client: str, version: str, *, offload: str, kind: str, sites: Sites, certificates: Certificates
) -> None:
    site = sites.get(kind, offload)
    parks = 0 if offload in PERFORMED_BY_THE_LOOP else 1
    target = Target(site.port, certificates[kind], version)
    (got,) = CLIENTS[client](target, [UP])
    check_exchange(got, target, UP, parks=parks)


@pytest.mark.skipif(not ML_DSA, reason="this OpenSSL has no ML-DSA")
@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("kind", ML_DSA or ["ml-dsa"])
def test_post_quantum_keys(kind: str, offload: str, sites: Sites, certificates: Certificates) -> None:
    """Only the client of this OpenSSL knows them, and only TLS 1.3 does."""
    site = sites.get(kind, offload)
    parks = 0 if offload in PERFORMED_BY_THE_LOOP else 1
    target = Target(site.port, certificates[kind], "1.3")
    change = Change(site)
    (got,) = CLIENTS["pyopenssl"](target, [UP])
    check_exchange(got, target, UP, parks=parks)
    change.check(handshakes=1, parks=parks, ops=int(offload != "off"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("client", CLIENTS)
def test_alpn(client: str, version: str, sites: Sites, certificates: Certificates) -> None:
    """It is chosen by C code that runs on the job's stack. curl offers http/1.1 by itself."""
    site = sites.get("p256", "threads", alpn=["http/1.1"])
    target = Target(site.port, certificates["p256"], version, alpn=("h2", "http/1.1"))
    (got,) = CLIENTS[client](target, [UP])
    check_exchange(got, target, UP, parks=1)
    assert got.reply.headers["x-alpn"] == "http/1.1"


@pytest.mark.parametrize("client", ["ssl", "pyopenssl"])
def test_client_that_does_not_trust_the_certificate(client: str, sites: Sites, certificates: Certificates) -> None:
    """The clients do verify, so the other tests of this file mean something."""
    site = sites.get("p256", "threads")
    stranger = certificates.issue("stranger", "p256")
    distrusting = Target(site.port, replace(stranger, ca=stranger.cert), "1.3")
    before = site.statistics()
    with pytest.raises((ssl.SSLCertVerificationError, SSL.Error)):
        CLIENTS[client](distrusting, [UP])
    now = site.until(lambda numbers: numbers.connections_open == 0)
    assert now.handshakes_completed == before.handshakes_completed
    assert now.handshakes_failed == before.handshakes_failed + 1


class WatchedEcho(EchoProtocol):
    """Notes the most bytes that its transport ever held for it."""

    _transport: Transport  # ours tells more than a protocol asks of it

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._notes.most = max(self._notes.most, self._transport.get_write_buffer_size())

    def pause_writing(self) -> None:
        self._notes.pauses += 1
        super().pause_writing()


@dataclass
class Notes:
    most: int = 0
    pauses: int = 0


@pytest.mark.parametrize("offload", ["off", "threads"])
@pytest.mark.parametrize("version", VERSIONS)
def test_many_megabytes_both_ways_at_once(version: str, offload: str, certificates: Certificates) -> None:
    """A client that only writes is stopped; when it reads as well, all comes back; the server never holds much."""
    identity = certificates["p256"]
    notes = Notes()
    with ExitStack() as stack:
        engine = stack.enter_context(engine_shim.ThreadEngine()) if offload == "threads" else None
        key = identity.key if engine is None else engine.load_key(identity.key)
        site = stack.enter_context(Running(TLSContext(identity.cert, key), lambda: WatchedEcho(notes)))
        stream = stack.enter_context(Stream(Target(site.port, identity, version)))
        stream.write_until_stopped(random.Random(8443).randbytes(STREAM_BYTES), site)
        assert notes.pauses >= 1
        stream.pump()
        assert stream.got == stream.data
        site.until(lambda numbers: numbers.bytes_sent == len(stream.data))
    assert notes.most <= ServerConfig.write_buffer_high + ServerConfig.read_budget


# What the kernel holds for the server is at most tcp_rmem and tcp_wmem together (6 + 4 MiB by default, 32 + 4 MiB on
# machines tuned for long fat networks), and this for a client that says so: what goes beyond the server has to stop.
CLIENT_BUFFER = 65536
STREAM_BYTES = 40_000_000


class Stream:
    """A client that sends much and gets it back, without blocking."""

    def __init__(self, target: Target) -> None:
        plain = socket.socket()
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            plain.setsockopt(socket.SOL_SOCKET, option, CLIENT_BUFFER)
        plain.connect(target.address)
        self._tls = python_context(target).wrap_socket(plain, server_hostname=NAME)
        self._tls.setblocking(False)
        self.got = bytearray()
        self.data = b""
        self._sent = 0

    def write_until_stopped(self, data: bytes, site: Running) -> None:
        """Write and do not read, until the server takes nothing more."""
        self.data = data
        stopped = -1
        while stopped != self._sent:
            stopped = self._sent
            self._write()
            site.settle()
        assert 0 < self._sent < len(data)

    def _write(self) -> None:
        with suppress(ssl.SSLWantWriteError):
            while self._sent < len(self.data):
                self._sent += self._tls.send(memoryview(self.data)[self._sent : self._sent + 65536])

    def _read(self) -> None:
        with suppress(ssl.SSLWantReadError):
            while len(self.got) < len(self.data):
                self.got += self._tls.recv(65536)

    def pump(self) -> None:
        """Write the rest and read all, each as the socket allows."""
        while len(self.got) < len(self.data):
            waits = [self._tls] if self._sent < len(self.data) else []
            assert any(select.select([self._tls], waits, [], PATIENCE))
            self._read()
            self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tls.close()


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("version", VERSIONS)
def test_hundreds_of_connections_at_once(version: str, offload: str, certificates: Certificates) -> None:
    """All are open at the same time, each has parked once, and each gets back what is its own."""
    identity = certificates["p256"]
    with ExitStack() as stack:
        engine = OFFLOADS[offload]()
        if engine is not None:
            stack.enter_context(engine)
        key = identity.key if engine is None else engine.load_key(identity.key)
        site = stack.enter_context(Running(TLSContext(identity.cert, key), EchoProtocol))
        context = python_context(Target(site.port, identity, version))
        storm = stack.enter_context(Storm(site.address, CROWD, context, NAME))
        storm.handshake()
        storm.echo(UP)
        now = site.statistics()
        assert now.connections_open == now.handshakes_completed == CROWD
        assert now.handshakes_parked == now.park_seconds.count == (0 if engine is None else CROWD)
        assert now.bytes_received == CROWD * (len(UP) + 1)
        storm.close()
        site.until(lambda numbers: numbers.connections_open == 0)
