"""aiohttp with our TLS: a site on any loop, with aiofastnet and without."""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import WSMsgType, web

from support import web_clients
from support.leaks import wait_until
from support.loop_thread import LOOPS, LoopThread, new_loop
from support.web_clients import NUMBERS, http_client, websocket
from tlsserver import ClientCertificates, TLSContext
from tlsserver.asyncio import SSLContext
from tlsserver.integrations.aiohttp import TLSSite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.certificates import Identity
    from support.client_scene import House

SEEN: list[str] = []
CHUNK = b"chunk" * 4_000


async def told(request: web.Request) -> web.Response:
    assert request.transport is not None
    peer = request.transport.get_extra_info("peercert")
    return web.json_response(
        {
            "secure": request.secure,
            "scheme": request.scheme,
            "version": request.transport.get_extra_info("tls").version,
            "subject": peer["subject"] if peer else None,
            "port": request.transport.get_extra_info("peername")[1],
        }
    )


async def upload(request: web.Request) -> web.Response:
    digest = hashlib.sha256()
    async for data in request.content.iter_any():
        digest.update(data)
    return web.Response(text=digest.hexdigest())


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(50):
        await response.write(CHUNK)
    return response


async def until_gone(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"begun\n")
    try:
        while True:
            await response.write(CHUNK)
    finally:
        SEEN.append("client gone")


async def talk(request: web.Request) -> web.WebSocketResponse:
    made = web.WebSocketResponse()
    await made.prepare(request)
    async for message in made:
        if message.type is WSMsgType.TEXT:
            await made.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await made.send_bytes(message.data)
    return made


def program(make_site: Callable[[web.AppRunner], TLSSite]) -> Callable[[LoopThread], Any]:
    async def run(thread: LoopThread) -> None:
        app = web.Application(client_max_size=1 << 30)
        routes = [web.get("/told", told), web.post("/upload", upload), web.get("/stream", stream)]
        app.add_routes([*routes, web.get("/until-gone", until_gone), web.get("/talk", talk)])
        runner = web.AppRunner(app, shutdown_timeout=5)
        await runner.setup()
        site = make_site(runner)
        await site.start()
        thread.started(runner.addresses[0])
        assert site.name == f"https://127.0.0.1:{site.port}"
        await thread.stop.wait()
        await runner.cleanup()

    return run


def patched(name: str) -> Any:
    """A loop that aiofastnet has made faster."""
    aiofastnet = pytest.importorskip("aiofastnet")
    loop = new_loop(name)
    aiofastnet.patch_loop(loop)
    return loop


@pytest.fixture(scope="module", params=[*LOOPS, "asyncio with aiofastnet"])
def site(request: pytest.FixtureRequest, identity: Identity, house: House) -> Iterator[LoopThread]:
    clients = ClientCertificates("optional", ca_certs=house.root.cert)
    context = TLSContext(identity.cert, identity.key, client_certificates=clients)
    name, _, faster = request.param.partition(" with ")
    make_loop = (lambda: patched(name)) if faster else (lambda: new_loop(name))
    run = program(lambda runner: TLSSite(runner, "127.0.0.1", 0, ssl_context=context))
    with LoopThread(run, make_loop) as running:
        yield running
    assert running.problems == []


@pytest.mark.parametrize("version", NUMBERS)
def test_requests_know_their_connections_tls(site: LoopThread, identity: Identity, house: House, version: str) -> None:
    with http_client(site.port, identity, version, house.good) as client:
        first, second = client.get("/told").json(), client.get("/told").json()
    assert first == second, "kept alive"
    assert (first["secure"], first["scheme"], first["version"]) == (True, "https", f"TLSv{version}")
    assert first["subject"] == [[["commonName", "good"]]]
    with http_client(site.port, identity, version) as client:
        assert client.get("/told").json()["subject"] is None


def test_streams_both_ways(site: LoopThread, identity: Identity) -> None:
    body = bytes(range(256)) * 8_000
    with http_client(site.port, identity) as client:
        assert client.get("/stream").content == CHUNK * 50
        assert client.post("/upload", content=body).text == hashlib.sha256(body).hexdigest()


def test_websockets(site: LoopThread, identity: Identity) -> None:
    with websocket(site.port, identity, path="/talk") as talking:
        for message in ("hello", b"\0" * 100_000):
            talking.send(message)
            assert talking.recv() == message


def test_a_client_that_leaves(site: LoopThread, identity: Identity) -> None:
    SEEN.clear()
    with http_client(site.port, identity) as client, client.stream("GET", "/until-gone") as answer:
        assert next(answer.iter_bytes()).startswith(b"begun\n")
    wait_until(lambda: SEEN)
    assert SEEN == ["client gone"]


def test_curl(site: LoopThread, identity: Identity) -> None:
    said = web_clients.run("curl", "-s", "--cacert", identity.ca, f"https://localhost:{site.port}/told")
    assert '"scheme": "https"' in said


def test_a_socket_of_its_own(identity: Identity) -> None:
    context = SSLContext.from_context(TLSContext(identity.cert, identity.key))

    def make(runner: web.AppRunner) -> TLSSite:
        sock = socket.create_server(("127.0.0.1", 0))
        return TLSSite(runner, ssl_context=context, sock=sock, ssl_handshake_timeout=5)

    with LoopThread(program(make), lambda: new_loop("asyncio")) as site, http_client(site.port, identity) as client:
        assert client.get("/told").json()["secure"]


def test_before_it_listens(identity: Identity) -> None:
    context = TLSContext(identity.cert, identity.key)

    async def run(thread: LoopThread) -> None:
        runner = web.AppRunner(web.Application())
        with pytest.raises(RuntimeError, match=r"runner\.setup\(\)"):
            TLSSite(runner, ssl_context=context)
        await runner.setup()
        site = TLSSite(runner, ssl_context=context)
        assert (site.port, site.name) == (8443, "https://0.0.0.0:8443")
        assert TLSSite(runner, "localhost", 0, ssl_context=context).name == "https://localhost:0"
        await runner.cleanup()
        with pytest.raises(RuntimeError, match="cleaned up"):
            await site.start()
        thread.started(None)

    with LoopThread(run, lambda: new_loop("asyncio")):
        pass


def test_a_context_of_others_is_refused() -> None:
    async def run(thread: LoopThread) -> None:
        runner = web.AppRunner(web.Application())
        await runner.setup()
        plain: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with pytest.raises(TypeError, match=r"ssl is a ssl\.SSLContext: give a tlsserver"):
            await TLSSite(runner, "127.0.0.1", 0, ssl_context=plain).start()
        await runner.cleanup()
        thread.started(None)

    with LoopThread(run, lambda: new_loop("asyncio")):
        pass
