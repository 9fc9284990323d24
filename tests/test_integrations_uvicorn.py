"""uvicorn with our TLS: what its users rely on, through clients that others wrote."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pickle
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from cryptography import x509
from helpers_web import FakeTransport

from support import asgi_app, web_clients
from support.framework_site import uvicorn_site
from support.leaks import PATIENCE
from support.web_clients import NUMBERS, http_client, open_tls, websocket
from tlsserver import TLSContext
from tlsserver.asyncio import SSLContext
from tlsserver.errors import ConfigurationError
from tlsserver.integrations import uvicorn as ours
from tlsserver.integrations.asgi import OfConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity
    from support.client_scene import House
    from support.loop_thread import LoopThread

# uvicorn's ways: loop, parser of HTTP, websockets.
WAYS = {
    "asyncio-httptools": ("asyncio", "httptools", "websockets-sansio"),
    "asyncio-h11": ("asyncio", "h11", "wsproto"),
    "uvloop-httptools": ("uvloop", "httptools", "websockets-sansio"),
}


@pytest.fixture(scope="module", params=WAYS)
def site(request: pytest.FixtureRequest, identity: Identity, house: House) -> Iterator[LoopThread]:
    loop, http, ws = WAYS[request.param]
    files = {"ssl_certfile": identity.cert, "ssl_keyfile": identity.key, "ssl_ca_certs": str(house.root.cert)}
    options: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_OPTIONAL, "http": http, "ws": ws, "lifespan": "on"}
    with uvicorn_site(loop, **files, **options) as running:
        yield running
    assert running.problems == []


@pytest.fixture(autouse=True)
def forget() -> None:
    asgi_app.EVENTS.seen.clear()


@pytest.mark.parametrize("version", NUMBERS)
def test_requests_share_a_connection_and_know_its_tls(site: LoopThread, identity: Identity, version: str) -> None:
    with http_client(site.port, identity, version) as client:
        first, second = client.get("/told").json(), client.get("/told").json()
    assert first == second, "the same port of the client: kept alive"
    assert first["scheme"] == "https"
    tls = first["tls"]
    assert tls["tls_version"] == NUMBERS[version]
    assert tls["cipher_suite"] >> 8 == (0x13 if version == "1.3" else 0xC0)
    shown = x509.load_pem_x509_certificate(tls["server_cert"].encode())
    assert shown == x509.load_pem_x509_certificate(identity.cert.read_bytes())
    assert (tls["client_cert_chain"], tls["client_cert_name"], tls["client_cert_error"]) == ([], None, None)
    assert first["version"] == f"TLSv{version}"


@pytest.mark.parametrize("version", NUMBERS)
def test_a_clients_certificate_reaches_requests_and_websockets(
    site: LoopThread, identity: Identity, house: House, version: str
) -> None:
    alice = house.good
    with http_client(site.port, identity, version, alice) as client:
        told = client.get("/told").json()
    chain = [x509.load_pem_x509_certificate(pem.encode()) for pem in told["tls"]["client_cert_chain"]]
    assert chain[0] == alice.x509
    assert told["tls"]["client_cert_name"] == told["subject"] == "CN=good"
    with websocket(site.port, identity, version, alice) as talk:
        talk.send("told")
        seen = json.loads(talk.recv())
        assert seen["tls"] == {**told["tls"], "cipher_suite": seen["tls"]["cipher_suite"]}
        assert (seen["scheme"], seen["subject"]) == ("wss", "CN=good")
        assert "websocket.http.response" in seen["others"], "the server's own extensions stay"


def test_others_of_the_same_server_do_not_see_it(site: LoopThread, identity: Identity, house: House) -> None:
    with (
        http_client(site.port, identity, holder=house.other) as other,
        http_client(site.port, identity) as nobody,
    ):
        assert [client.get("/told").json()["subject"] for client in (other, nobody, other)] == [
            "CN=other",
            None,
            "CN=other",
        ]


def test_websockets(site: LoopThread, identity: Identity) -> None:
    with websocket(site.port, identity) as talk:
        for message in ("hello", b"\0" * 100_000, "w" * 70_000):
            talk.send(message)
            assert talk.recv() == message
    asgi_app.EVENTS.expect("websocket 1000")


def test_streams_both_ways(site: LoopThread, identity: Identity) -> None:
    body = bytes(range(256)) * 8_000
    with http_client(site.port, identity) as client:
        assert client.get("/stream").content == asgi_app.CHUNK * asgi_app.CHUNKS
        told = client.post("/upload", content=body).text
        assert told == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


def test_curl(site: LoopThread, identity: Identity) -> None:
    url = f"https://localhost:{site.port}/"
    said = web_clients.run("curl", "-sv", "--cacert", identity.ca, url, url)
    assert said.startswith("hellohello")
    assert "Re-using existing connection" in said


@pytest.mark.parametrize("version", NUMBERS)
def test_s_client(site: LoopThread, identity: Identity, version: str) -> None:
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{site.port}",
        f"-tls{version.replace('.', '_')}",
        "-quiet",
    ]
    sent = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    done = subprocess.run(
        [*command, "-CAfile", str(identity.ca), "-verify_return_error"],
        input=sent,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.startswith(b"HTTP/1.1 200")
    assert done.stdout.endswith(b"hello")


def test_a_client_that_leaves(site: LoopThread, identity: Identity) -> None:
    with http_client(site.port, identity) as client, client.stream("GET", "/until-gone") as answer:
        assert next(answer.iter_bytes()) == b"begun\n"
    asgi_app.EVENTS.expect("client gone")
    asgi_app.EVENTS.seen.clear()
    # Not TLS 1.3: unread tickets would make a reset of the end, which may overtake the request.
    with open_tls(site.port, identity, "1.2") as tls:
        tls.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
    asgi_app.EVENTS.expect("upload cut off")


def test_who_leaves_in_the_handshake_or_does_not_speak_tls(site: LoopThread, identity: Identity) -> None:
    for sent in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100):
        with socket.create_connection(("127.0.0.1", site.port)) as raw:
            raw.sendall(sent)
    with http_client(site.port, identity) as client:
        assert client.get("/").text == "hello"


def test_a_stop_lets_requests_and_websockets_end(identity: Identity) -> None:
    files: dict[str, Any] = {"ssl_certfile": identity.cert, "ssl_keyfile": identity.key}
    with uvicorn_site(**files, lifespan="on") as site, websocket(site.port, identity) as talk:
        talk.send("there")
        assert talk.recv() == "there"
        with open_tls(site.port, identity) as tls:
            tls.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
            with http_client(site.port, identity) as client:
                client.get("/")  # the server has read what came before
            site.call(site.stop.set)
            with pytest.raises(Exception, match="1012"):
                talk.recv()
            tls.sendall(b"b")
            answer = b"".join(iter(lambda: tls.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert hashlib.sha256(b"ab").hexdigest().encode() in answer
    assert asgi_app.EVENTS.seen[0] == "lifespan.startup"
    assert asgi_app.EVENTS.seen[-1] == "lifespan.shutdown"


def test_a_context_that_is_given(identity: Identity) -> None:
    context = SSLContext.from_context(TLSContext(identity.cert, identity.key))
    with uvicorn_site(context=context, ws="none") as site, http_client(site.port, identity) as client:
        assert client.get("/told").json()["version"] == "TLSv1.3"


def test_the_factory_fits_uvicorns_own_settings(identity: Identity) -> None:
    config = uvicorn.Config(
        asgi_app.app,
        ssl_certfile=identity.cert,
        ssl_keyfile=identity.key,
        ssl_context_factory=ours.ssl_context,
        loop="tlsserver.asyncio:new_event_loop",
        http="tlsserver.integrations.uvicorn:HTTPProtocol",
        ws="tlsserver.integrations.uvicorn:WebSocketProtocol",
        log_config=None,
    )
    again = pickle.loads(pickle.dumps(config))  # noqa: S301 - as for a worker
    again.load()
    assert isinstance(again.ssl, SSLContext)
    assert again.http_protocol_class.__name__.endswith("WithTLS")
    assert again.ws_protocol_class.__name__.endswith("WithTLS")
    assert again.is_ssl


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [("TLSv1", None), ("ECDHE-ECDSA-AES128-GCM-SHA256", ["ECDHE-ECDSA-AES128-GCM-SHA256"])],
    ids=["what uvicorn once had by default", "a choice"],
)
def test_suites(identity: Identity, setting: str, wanted: list[str] | None) -> None:
    options: dict[str, Any] = {"ssl_certfile": identity.cert, "ssl_keyfile": identity.key, "ssl_ciphers": setting}
    config = ours.Config(asgi_app.app, ssl_version=ssl.PROTOCOL_TLSv1_2, log_config=None, **options)
    config.load()
    assert isinstance(config.ssl, SSLContext)
    names = [suite["name"] for suite in config.ssl.get_ciphers() if not suite["name"].startswith("TLS_")]
    assert names == wanted or (wanted is None and len(names) > 3)
    assert config.ssl.minimum_version is config.ssl.maximum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"ssl_certfile": None}, "give ssl_certfile"), ({"ssl_version": ssl.PROTOCOL_TLSv1_1}, "below 1.2 is not spoken")],
    ids=["no certificate", "an old version"],
)
def test_what_cannot_be_served(identity: Identity, setting: dict[str, Any], words: str) -> None:
    options: dict[str, Any] = {"ssl_certfile": identity.cert, "ssl_keyfile": identity.key, "log_config": None}
    with pytest.raises(ConfigurationError, match=words):
        ours.Config(asgi_app.app, **{**options, **setting}).load()


class Chosen(asyncio.Protocol):
    """What a dispatcher chooses."""

    def __init__(self) -> None:
        self.app: Any = asgi_app.app


class Dispatcher(asyncio.Protocol):
    """As uvicorn's, which chooses by ALPN: it has no application itself."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_protocol(Chosen())


def test_a_dispatcher_hands_the_application_on() -> None:
    class Handed(FakeTransport):
        def set_protocol(self, protocol: Any) -> None:
            self.protocol = protocol

        def get_protocol(self) -> asyncio.BaseProtocol:
            return self.protocol

    transport = Handed(asyncio.Protocol())
    ours.with_tls(Dispatcher)().connection_made(transport)
    assert isinstance(transport.protocol, Chosen)
    assert isinstance(transport.protocol.app, OfConnection)


def test_no_other_names() -> None:
    with pytest.raises(AttributeError, match="QuicProtocol"):
        ours.QuicProtocol  # noqa: B018
