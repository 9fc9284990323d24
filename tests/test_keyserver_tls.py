"""The key server over TLS: who gets in, both versions, and Unix sockets beside it on the same loop."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from engine_shim import BatchEngine
from support import keyless_client as keyless
from support.client_authority import SERVER, Authority
from support.keyless_client import KeylessClient, request
from support.keyserver_scene import digest_of, made, public_key, ski
from tlsserver import ClientCertificates, ServerConfig, TLSContext
from tlsserver.client_certificate import ClientCertificate
from tlsserver.listener import bind
from tlsserver.signers.keyserver_access import Allowed, names_of
from tlsserver.signers.keyserver_local import LocalSocket
from tlsserver.signers.keyserver_protocol import KeylessProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.certificates import Certificates
    from support.client_authority import Holder
    from support.keyserver_scene import Scene

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
URI = "spiffe://example/front/1"


class People:
    """An authority, its server, and clients."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "signers")
        local = x509.DNSName("localhost")
        self.server = self.authority.issue("server", usage=SERVER, sans=[local])
        pretender = self.authority.issue("front.example", sans=[x509.DNSName("evil.example")])
        self.pretender = replace(
            pretender, cert=pretender.cert.rename(folder / "evil.pem"), key=pretender.key.rename(folder / "evil.key")
        )
        self.by_cn = self.authority.issue("front.example")
        self.by_dns = self.authority.issue("dns", sans=[x509.DNSName("Front.example"), x509.DNSName("b.example")])
        self.by_uri = self.authority.issue("uri", sans=[x509.UniformResourceIdentifier(URI)])
        self.stranger = Authority(folder, "strangers").issue("front.example")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


class Site:
    """A key server on TLS, and on a Unix socket."""

    def __init__(self, people: People, scene: Scene, port: int) -> None:
        self.scene = scene
        self.port = port
        self._people = people

    def context(self, holder: Holder | None, version: str = "1.3") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._people.authority.cert))
        context.minimum_version = context.maximum_version = VERSIONS[version]
        if holder is not None:
            context.load_cert_chain(holder.cert, holder.key)
        return context

    def client(self, holder: Holder | None, version: str = "1.3") -> KeylessClient:
        sock = socket.create_connection(("127.0.0.1", self.port), keyless.PATIENCE)
        with contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            wrapped = self.context(holder, version).wrap_socket(sock, server_hostname="localhost")
            stack.pop_all()
        return KeylessClient(wrapped)

    def outcome(self, holder: Holder | None, version: str = "1.3") -> str:
        """Ask for a pong: "pong", "closed", or what TLS says."""
        try:
            with self.client(holder, version) as client:
                client.send(request(1, keyless.PING))
                return "closed" if client.answer() is None else "pong"
        except ssl.SSLError as error:
            return str(error.reason)
        except ConnectionError:
            return "closed"


@pytest.fixture
def site(people: People, tmp_path: Path, certificates: Certificates) -> Iterator[Callable[..., Any]]:
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> Site:
            keys = [certificates["p256"].key, certificates["rsa2048"].key]
            scene = stack.enter_context(made(tmp_path, keys, engine=BatchEngine(0), **options))
            clients = ClientCertificates(ca_certs=people.authority.cert)
            context = TLSContext(people.server.cert, people.server.key, client_certificates=clients)
            listening = bind("127.0.0.1", 0, 16)
            port = listening.getsockname()[1]
            scene.server.serve_tls(listening, context, ServerConfig(port=0))
            bound = LocalSocket(scene.path)
            stack.callback(bound.remove)
            scene.server.serve_local(listening=bound.socket)
            stack.enter_context(scene.server)
            return Site(people, scene, port)

        yield start


@pytest.mark.parametrize("version", VERSIONS)
def test_signatures_over_tls(
    site: Callable[..., Site], people: People, certificates: Certificates, tmp_path: Path, version: str
) -> None:
    log = tmp_path / "audit"
    running = site(audit=str(log))
    with running.client(people.by_cn, version) as client:
        client.send(
            b"".join(request(n, 0x15, digest_of("SHA256"), ski(certificates, "p256")) for n in range(64))
            + request(64, keyless.PING)
            + request(65, 0x15, digest_of("SHA256"), bytes(20))
        )
        answers = {one.id: one for one in (client.answer() for _ in range(66)) if one is not None}
    public, scheme = public_key(certificates, "p256"), ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    for n in range(64):
        public.verify(answers[n].payload, digest_of("SHA256"), scheme)
    assert (answers[64].opcode, answers[65].error) == (keyless.PONG, keyless.NO_KEY)
    assert {one.length for one in answers.values()} == {1024}  # which tells nobody an error from a signature
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [one["client"] for one in lines] == ["front.example"] * 65


@pytest.mark.parametrize("version", VERSIONS)
def test_certificates_of_others(site: Callable[..., Site], people: People, version: str) -> None:
    running = site()
    assert running.outcome(None, version) in (
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "closed",
    )
    assert "UNKNOWN_CA" in running.outcome(people.stranger, version)
    assert running.outcome(people.by_dns, version) == "pong"


@pytest.mark.parametrize("version", VERSIONS)
def test_allowed_names(
    site: Callable[..., Site], people: People, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    running = site(allowed=Allowed.parse(["front.example", URI]))
    for holder, expected in (
        (people.by_cn, "pong"),
        (people.by_dns, "pong"),
        (people.by_uri, "pong"),
        (people.pretender, "closed"),  # where an authority has vouched for names, the subject says nothing
        (people.server, "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),  # for servers alone
    ):
        assert expected in running.outcome(holder, version)
    assert "a client that no --allow names is refused: <ClientCertificate CN=front.example>" in caplog.text


def test_names_of_certificates(people: People) -> None:
    def names(holder: Holder) -> list[str]:
        return names_of(ClientCertificate((holder.der,)))

    assert names(people.by_cn) == ["front.example"]
    assert names(people.by_dns) == ["Front.example", "b.example"]
    assert names(people.by_uri) == [URI]
    assert Allowed().certified(ClientCertificate((people.by_uri.der,))) == URI
    assert Allowed.parse([URI.upper()]).certified(ClientCertificate((people.by_uri.der,))) is None
    assert Allowed().certified(ClientCertificate((b"rubbish",))) is None


def test_names_that_deceive(people: People) -> None:
    def named(name: str) -> ClientCertificate:
        return ClientCertificate((people.authority.issue(name).der,))

    kelvin = named("www.ban\u212a")
    assert Allowed.parse(["www.bank"]).certified(kelvin) is None
    assert Allowed().certified(kelvin) == "www.ban\u212a"
    told = Allowed().certified(named("a\n2026 CRITICAL all is lost \x1b[31m"))
    assert told == r"a\n2026 CRITICAL all is lost \x1b[31m"
    assert Allowed.parse(["urn:x:A"]).certified(named("urn:x:a")) is None


class _Door:
    """A transport that knows one thing."""

    is_aborted = False

    def __init__(self, certificate: ClientCertificate) -> None:
        self.facts = {"client_certificate": certificate, "peername": ("192.0.2.1", 5)}

    def get_extra_info(self, name: str) -> object:
        return self.facts.get(name)

    def abort(self) -> None:
        self.is_aborted = True


def test_refused_certificate_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    door = _Door(ClientCertificate((b"rubbish",)))
    protocol: Any = KeylessProtocol(None, lambda _: None, max_pending=1, pad=True)  # type: ignore[arg-type]
    protocol.connection_made(door)
    assert door.is_aborted
    assert "('192.0.2.1', 5), whose certificate cannot be read" in caplog.text


def test_unix_socket_and_tls_share_the_batches(
    site: Callable[..., Site], people: People, certificates: Certificates
) -> None:
    running = site()
    lanes = running.scene.engine.lanes  # type: ignore[attr-defined] # it is a BatchEngine
    data = [request(n, 0x05, digest_of("SHA256"), ski(certificates, "rsa2048")) for n in range(40)]
    with running.scene.client() as near, running.client(people.by_cn) as far:
        for client in (near, far):
            client.send(b"".join(data))
        for client in (near, far):
            answers = [client.answer() for _ in data]
            assert {one.opcode for one in answers if one is not None} == {keyless.SUCCESS}
        assert running.scene.server.statistics().connections == 2
    statistics = running.scene.server.statistics()
    assert (statistics.signed, statistics.engine.performed) == (80, 80)
    if lanes:
        assert statistics.engine.batched >= 64


def test_client_that_reads_nothing(site: Callable[..., Site], people: People, certificates: Certificates) -> None:
    running = site()
    data = request(1, 0x15, digest_of("SHA256"), ski(certificates, "p256")) * 100
    with running.client(people.by_cn) as hog, running.scene.client() as other:
        hog.socket.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):  # a TLS socket cannot say how much it has taken
            while sent < 50_000_000:
                hog.send(data)
                sent += len(data)
        assert sent < 20_000_000
        assert other.ask(keyless.PING).opcode == keyless.PONG
        assert running.scene.server.statistics().in_progress <= 256


def test_stopping_ends_both(site: Callable[..., Site], people: People) -> None:
    running = site()
    with running.scene.client() as near, running.client(people.by_cn) as far:
        for client in (near, far):
            assert client.ask(keyless.PING).opcode == keyless.PONG
        running.scene.server.stop()
        assert near.answer() is None
        assert far.answer() is None
        far.socket.close()
        thread = running.scene.server._thread
        assert thread is not None
        thread.join(keyless.PATIENCE)
        assert not thread.is_alive()


def test_other_certificate(site: Callable[..., Site], people: People) -> None:
    running = site()
    clients = ClientCertificates(ca_certs=people.authority.cert)
    other = people.authority.issue("server2", usage=SERVER, sans=[x509.DNSName("localhost")])
    assert running.outcome(people.by_cn) == "pong"
    context = TLSContext(other.cert, other.key, client_certificates=clients)
    running.scene.server.replace(running.scene.desk.ring, context)
    with running.scene.client() as near:
        assert near.ask(keyless.PING).opcode == keyless.PONG  # a turn of the loop
        assert near.ask(keyless.PING).opcode == keyless.PONG
    with running.client(people.by_cn) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.getpeercert(binary_form=True) == other.der
