"""hypercorn with our TLS: HTTP/2 and HTTP/1.1 by ALPN, websockets, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import pickle
import socket
import ssl
from typing import TYPE_CHECKING

import hypercorn.asyncio
import pytest
from hypercorn.config import Config as HypercornConfig

from support import asgi_app, web_clients
from support.framework_site import hypercorn_site
from support.leaks import PATIENCE
from support.loop_thread import LOOPS, new_loop
from support.web_clients import NUMBERS, http_client, open_tls, websocket
from tlsserver import TLSContext
from tlsserver.asyncio import SSLContext
from tlsserver.config import ServerConfig
from tlsserver.errors import ConfigurationError
from tlsserver.integrations.asgi import TLSExtension
from tlsserver.integrations.hypercorn import Config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Identity
    from support.client_scene import House
    from support.loop_thread import LoopThread


@pytest.fixture(scope="module", params=LOOPS)
def site(request: pytest.FixtureRequest, identity: Identity, house: House) -> Iterator[LoopThread]:
    files = {"certfile": str(identity.cert), "keyfile": str(identity.key), "ca_certs": str(house.root.cert)}
    with hypercorn_site(request.param, **files, verify_mode=ssl.CERT_OPTIONAL) as running:
        yield running
    assert running.problems == []


@pytest.fixture(autouse=True)
def forget() -> None:
    asgi_app.EVENTS.seen.clear()


@pytest.mark.parametrize("version", NUMBERS)
@pytest.mark.parametrize("http", ["1.1", "2"])
def test_requests_know_their_connections_tls(
    site: LoopThread, identity: Identity, house: House, version: str, http: str
) -> None:
    with http_client(site.port, identity, version, house.good, http2=http == "2") as client:
        told = [client.get("/told").json() for _ in range(2)]
    assert told[0] == told[1]
    assert (told[0]["http_version"], told[0]["scheme"], told[0]["subject"]) == (http, "https", "CN=good")
    assert told[0]["tls"]["tls_version"] == NUMBERS[version]
    assert told[0]["tls"]["server_cert"].startswith("-----BEGIN CERTIFICATE-----")


def test_each_connection_is_told_of_itself(site: LoopThread, identity: Identity, house: House) -> None:
    with (
        http_client(site.port, identity, holder=house.other, http2=True) as other,
        http_client(site.port, identity) as nobody,
    ):
        assert [client.get("/told").json()["subject"] for client in (other, nobody, other)] == [
            "CN=other",
            None,
            "CN=other",
        ]


def test_websockets(site: LoopThread, identity: Identity, house: House) -> None:
    with websocket(site.port, identity, holder=house.good) as talk:
        for message in ("hello", b"\0" * 100_000):
            talk.send(message)
            assert talk.recv() == message
        talk.send("told")
        assert json.loads(talk.recv())["subject"] == "CN=good"
    asgi_app.EVENTS.expect("websocket 1006")  # of hypercorn, whatever the client says


@pytest.mark.parametrize("http2", [False, True])
def test_streams_both_ways(site: LoopThread, identity: Identity, http2: bool) -> None:
    body = bytes(range(256)) * 4_000
    with http_client(site.port, identity, http2=http2) as client:
        assert client.get("/stream").content == asgi_app.CHUNK * asgi_app.CHUNKS
        told = client.post("/upload", content=body).text
        assert told == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


def test_h2load(site: LoopThread) -> None:
    assert web_clients.h2load(site.port, requests=200, clients=5, streams=10) == 200


def test_curl_takes_either_protocol(site: LoopThread, identity: Identity) -> None:
    url = f"https://localhost:{site.port}/told"
    for option, version in (("--http2", "2"), ("--http1.1", "1.1")):
        said = web_clients.run("curl", "-s", option, "--cacert", identity.ca, url)
        assert json.loads(said)["http_version"] == version


@pytest.mark.parametrize("http2", [False, True])
def test_a_client_that_leaves(site: LoopThread, identity: Identity, http2: bool) -> None:
    with http_client(site.port, identity, http2=http2) as client, client.stream("GET", "/until-gone") as answer:
        assert next(answer.iter_bytes()) == b"begun\n"
    asgi_app.EVENTS.expect("client gone")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stop_lets_requests_end(identity: Identity, loop: str) -> None:
    files = {"certfile": str(identity.cert), "keyfile": str(identity.key)}
    with hypercorn_site(loop, **files) as site:
        with open_tls(site.port, identity) as tls:
            tls.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
            with http_client(site.port, identity) as client:
                client.get("/")  # the server has read what came before
            site.call(site.stop.set)
            tls.sendall(b"b")
            answer = b"".join(iter(lambda: tls.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200"), answer
    assert asgi_app.EVENTS.seen == ["lifespan.startup", "lifespan.shutdown"]


def test_a_stop_has_an_end(identity: Identity) -> None:
    """Who does not end holds up nobody for longer than `graceful_timeout`."""
    files = {"certfile": str(identity.cert), "keyfile": str(identity.key)}
    with (
        hypercorn_site(**files, graceful_timeout=0.1) as site,
        http_client(site.port, identity) as client,
        client.stream("GET", "/until-gone") as answer,
    ):
        body = answer.iter_bytes()  # which closes the connection when it is dropped
        assert next(body) == b"begun\n"
        site.end()


def test_a_context_that_is_given(identity: Identity) -> None:
    context = SSLContext.from_context(TLSContext(identity.cert, identity.key, alpn=["h2"]))
    with hypercorn_site(ssl_context=context) as site, http_client(site.port, identity, http2=True) as client:
        assert client.get("/told").json()["http_version"] == "2"


def test_hypercorns_own_workers_take_the_settings(identity: Identity) -> None:
    """They ask a Config for its sockets and its context; the application is wrapped by hand."""
    files = {"certfile": str(identity.cert), "keyfile": str(identity.key)}
    app = TLSExtension(asgi_app.app)
    with hypercorn_site(app=app, serve=hypercorn.asyncio.serve, **files) as site:
        with http_client(site.port, identity, http2=True) as client:
            assert client.get("/told").json()["version"] == "TLSv1.3"
        assert site.ask(lambda: site.loop.create_server).__name__ == "create_server"


@pytest.mark.parametrize("loop", LOOPS)
def test_hypercorns_command_copies_a_module(tmp_path: Path, identity: Identity, loop: str) -> None:
    """As docs/integrations.md has it; of a `Config` it would lose the methods."""
    path = tmp_path / "my_config.py"
    path.write_text(
        "from tlsserver.integrations.hypercorn import Config\n"
        f"certfile, keyfile = {str(identity.cert)!r}, {str(identity.key)!r}\n"
        "create_ssl_context = Config.from_mapping(certfile=certfile, keyfile=keyfile).create_ssl_context\n"
    )
    copied = HypercornConfig.from_pyfile(path)
    again = pickle.loads(pickle.dumps(copied.create_ssl_context))  # noqa: S301 - as for a worker
    assert again.__self__.certfile == str(identity.cert)

    async def worker() -> None:
        assert isinstance(copied.create_ssl_context(), SSLContext)
        assert hasattr(asyncio.get_running_loop(), "_tlsserver_hypercorn")

    with contextlib.closing(new_loop(loop)) as running:
        running.run_until_complete(worker())


def test_trio_is_refused(identity: Identity) -> None:
    config = Config.from_mapping(certfile=str(identity.cert), keyfile=str(identity.key))
    with pytest.raises(ConfigurationError, match="trio workers cannot have our TLS; set worker_class to asyncio"):
        config.create_ssl_context()


def test_a_handshake_has_as_long_as_elsewhere(identity: Identity) -> None:
    assert Config().ssl_handshake_timeout == ServerConfig().timeout_handshake
    files = {"certfile": str(identity.cert), "keyfile": str(identity.key)}
    with (
        hypercorn_site(**files, ssl_handshake_timeout=0.05) as site,
        socket.create_connection(("127.0.0.1", site.port), timeout=PATIENCE) as silent,
    ):
        assert silent.recv(1) == b""


def test_without_a_certificate_nothing_is_ours() -> None:
    config = Config.from_mapping(bind=["127.0.0.1:0"])
    assert not config.ssl_enabled
    assert config.create_ssl_context() is None
