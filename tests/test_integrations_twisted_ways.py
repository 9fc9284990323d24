"""Twisted with handshakes that wait: what a context can, and Twisted's own ways."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL import SSL

from engine_shim import LatencyEngine, ManualEngine, ThreadEngine
from support.clients import drain
from support.integration_clients import arrive, client, connect, echoed, read
from support.naming import asking_context
from support.running import PATIENCE
from tlsserver import Certificate, ClientCertificates, ConfigurationError, TLSContext

pytest.importorskip("twisted.protocols.tls", reason="Twisted cannot use this pyOpenSSL for TLS")

from twisted.internet.interfaces import IHandshakeListener, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from support.twisted_site import Shouter, Shouters, TwistedSite
from tlsserver.integrations.twisted import ServerOptions

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from support.certificates import Certificates, Identity
    from support.client_scene import House
    from support.naming import Desk

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])
pytestmark = pytest.mark.usefixtures("no_ops_left")


def test_reload(certificates: Certificates, identity: Identity) -> None:
    other = certificates["rsa2048"]
    with TwistedSite(TLSContext(identity.cert, identity.key)) as site, connect(site, client(identity)) as before:
        site.options.context = TLSContext(other.cert, other.key)
        with connect(site, client(identity)) as after:
            assert before.getpeercert(binary_form=True) != after.getpeercert(binary_form=True)
            for tls in (before, after):
                tls.sendall(b"still")
                assert tls.recv(10) == b"STILL"


@VERSIONS
def test_client_certificates_and_their_hook(identity: Identity, house: House, version: str) -> None:
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    wanted = ClientCertificates("required", house.root.cert, on_verified=asked.put)
    with TwistedSite(TLSContext(identity.cert, identity.key, client_certificates=wanted)) as site:
        for holder, verdict in ((house.good, "accept"), (house.other, "reject")):
            ours = client(identity, version)
            ours.load_cert_chain(holder.cert, holder.key)
            sock = socket.create_connection(site.address, PATIENCE)
            with ours.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False) as tls:
                tls.settimeout(0.001)
                while asked.empty():
                    with contextlib.suppress(TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                        tls.do_handshake()
                request = asked.get()
                assert request.peername == tls.getsockname()
                getattr(request, verdict)()
                tls.settimeout(PATIENCE)
                if verdict == "accept":
                    tls.do_handshake()
                    tls.sendall(b"hello")
                    assert tls.recv(5) == b"HELLO"
                    (protocol,) = site.protocols
                    assert protocol.transport.getHandle().client_certificate.subject == "CN=good"
                    assert protocol.transport.getPeerCertificate() is not None
                else:
                    with pytest.raises(ssl.SSLError, match="certificate unknown"):  # noqa: PT012 - the version says where
                        tls.do_handshake()
                        tls.recv(1)
        site.until_empty()


def test_what_comes_while_parked_is_bounded(identity: Identity, house: House, pool: ThreadPoolExecutor) -> None:
    """A client of TLS 1.3 sends data at once; while its certificate is looked at they wait in the kernel."""
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    wanted = ClientCertificates("required", house.root.cert, on_verified=asked.put)
    ours = client(identity, "1.3")
    ours.load_cert_chain(house.good.cert, house.good.key)
    with TwistedSite(TLSContext(identity.cert, identity.key, client_certificates=wanted)) as site:

        def upload() -> int:
            with connect(site, ours) as tls:
                tls.sendall(b"x" * 3_000_000)
                return len(read(tls, 3_000_000))

        uploading = pool.submit(upload)
        request = asked.get(timeout=PATIENCE)
        (handshake,) = site.hub.handshakes
        site.until(lambda _: handshake._stopped)
        assert handshake._unread < 1_000_000
        request.accept()
        assert uploading.result(PATIENCE) == 3_000_000


def test_certificates_on_demand(
    certificates: Certificates, identity: Identity, desk: Desk, pool: ThreadPoolExecutor
) -> None:
    shop = certificates["rsa2048"]
    with ThreadEngine(1) as engine, TwistedSite(asking_context(identity, desk)) as site:
        first = pool.submit(echoed, site, client(identity))
        request = desk.next()
        assert request.server_name == "localhost"
        request.complete(Certificate(shop.cert, engine.load_key(shop.key)))
        assert first.result(PATIENCE) == b"HELLO"
        refused = pool.submit(echoed, site, client(identity))
        desk.next().reject("unrecognized_name")
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            refused.result(PATIENCE)
        with arrive(site, identity, "1.3"):
            late = desk.next()
        site.until_empty()
        assert not late.is_open
        assert engine.statistics().performed == 1


# Twisted's own ways


@implementer(IProtocolNegotiationFactory)
class Negotiating(Shouters):
    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802 - Twisted's name
        return [b"shout", b"whisper"]


@pytest.mark.parametrize(("own", "expected"), [((), "shout"), (("whisper",), "whisper")])
def test_the_factory_negotiates(identity: Identity, own: tuple[str, ...], expected: str) -> None:
    site = TwistedSite(TLSContext(identity.cert, identity.key, alpn=own), Negotiating())
    ours = client(identity)
    ours.set_alpn_protocols(["whisper", "shout"])
    with site:
        for _ in range(2):
            with connect(site, ours) as tls:
                assert tls.selected_alpn_protocol() == expected
        (made,) = site.options._offers
        assert made == (None if own else ("shout", "whisper"))


class Upgrading(Protocol):
    """Speaks TLS when it is asked to."""

    options: ServerOptions
    transport: Any

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        self.transport.write(data.upper())
        if data == b"starttls":
            self.transport.startTLS(self.options)


def test_start_tls(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    with LatencyEngine(0.01) as engine:
        factory = Factory.forProtocol(Upgrading)
        site = TwistedSite(TLSContext(identity.cert, engine.load_key(identity.key)), factory)
        monkeypatch.setattr(Upgrading, "options", site.options, raising=False)
        monkeypatch.setattr("twisted.protocols.tls._get_default_clock", lambda: site.reactor, raising=False)
        with site:
            plain = site.reactor.listenTCP(0, factory, interface="127.0.0.1")
            with socket.create_connection(("127.0.0.1", plain.getHost().port), PATIENCE) as sock:
                sock.sendall(b"starttls")
                assert sock.recv(100) == b"STARTTLS"
                with client(identity).wrap_socket(sock, server_hostname="localhost") as tls:
                    tls.sendall(b"inside")
                    assert tls.recv(100) == b"INSIDE"
            assert site.statistics().handshakes_parked == 1


@pytest.mark.parametrize(
    ("said", "answer"), [(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "), (b"\x16\x03\x01\x00\x05hello", b"\x15\x03")]
)
def test_no_tls(identity: Identity, said: bytes, answer: bytes) -> None:
    with TwistedSite(TLSContext(identity.cert, identity.key)) as site:
        with socket.create_connection(site.address, PATIENCE) as sock:
            sock.sendall(said)
            assert drain(sock).startswith(answer)
        site.until(lambda _: site.lost)
        assert isinstance(site.lost[0], SSL.Error)
        site.until_empty()


@implementer(IHandshakeListener)
class Failing(Shouter):
    """Raises as soon as TLS is there, so in a turn of ours and not of Twisted's."""

    error: type[BaseException]

    def handshakeCompleted(self) -> None:  # noqa: N802 - Twisted's name
        raise self.error("of the application")


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_protocol_that_raises_costs_its_own_connection(
    identity: Identity, error: type[BaseException], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: Twisted keeps every error of a protocol from its reactor."""
    monkeypatch.setattr(Failing, "error", error, raising=False)
    factory = Shouters()
    with TwistedSite(TLSContext(identity.cert, identity.key), factory) as site, connect(site, client(identity)) as tls:
        factory.kind = Failing
        with pytest.raises((ssl.SSLError, ConnectionError)), connect(site, client(identity)) as other:  # noqa: PT012
            other.sendall(b"?")
            raise ConnectionError(other.recv(1))
        site.until(lambda _: site.lost)
        assert str(site.lost[0]) == "of the application"
        assert "of the application" in caplog.text
        tls.sendall(b"still")
        assert tls.recv(10) == b"STILL"


def test_a_turn_that_is_broken_off_is_followed_by_another(identity: Identity) -> None:
    """What stands in line must not wait until somebody else asks for a turn."""
    came = threading.Event()
    with TwistedSite(TLSContext(identity.cert, identity.key)) as site:

        def interrupt() -> None:
            raise KeyboardInterrupt

        def call() -> None:
            site.hub.loop.call_soon(interrupt)
            site.hub.loop.call_soon(came.set)

        site.run(call)
        assert came.wait(PATIENCE)


def test_what_comes_while_parked_stays_bounded_when_reading_was_resumed(
    identity: Identity, manual: ManualEngine
) -> None:
    with TwistedSite(TLSContext(identity.cert, manual.load_key(identity.key))) as site:
        with arrive(site, identity, "1.3") as sock:
            site.until_parked(1)
            (handshake,) = site.hub.handshakes
            (protocol,) = site.protocols
            sock.settimeout(PATIENCE)
            sock.sendall(b"x" * 100_000)
            site.until(lambda _: handshake._stopped)
            site.run(protocol.transport.resumeProducing)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.send(b"x" * 100_000)
            site.until(lambda _: not site.run(protocol_reads, site, protocol))
            assert handshake._unread < 1_000_000
        site.run(protocol.transport.abortConnection)
        site.until_empty()


def protocol_reads(site: TwistedSite, protocol: Shouter) -> bool:
    return any(getattr(reader, "protocol", None) is protocol.transport for reader in site.reactor.getReaders())


# Settings


def test_what_cannot_be_used(identity: Identity) -> None:
    with pytest.raises(ConfigurationError, match=r"^context is a Context: give a tlsserver.TLSContext"):
        ServerOptions(SSL.Context(SSL.TLS_SERVER_METHOD))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^async_io=True cannot work"):
        ServerOptions(TLSContext(identity.cert, identity.key, async_io=True))
    with pytest.raises(ConfigurationError, match=r"^timeout_handshake=0 cannot work"):
        ServerOptions(TLSContext(identity.cert, identity.key), timeout_handshake=0)
