"""TLS streams for anyio, on asyncio, on uvloop and on trio: the same core as under trio (test_trio.py)."""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute
from anyio.streams.tls import TLSStream as StandardTLSStream
from helpers_server import client_context, make_context

import tlsserver
from engine_shim import LatencyEngine, ManualEngine
from support.client_authority import Authority
from support.running import check_jobs
from tlsserver import anyio as tls
from tlsserver.errors import EngineError, PeerLeftError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("no_leaks")

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest, certificates: Certificates) -> dict[str, Any]:
    """Make the pool of wait fds, which stays, and whatever the loop keeps."""
    chosen = BACKENDS[request.param]
    identity = certificates["p256"]

    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house:
            nears = [(await house.say(house.hello())) for _ in range(5)]
            await until(lambda: engine.pending == 5)
            for near, far in nears:
                await near.aclose()
                far.close()

    with ManualEngine() as engine:
        anyio.run(main, engine, **chosen)
    return chosen


@pytest.fixture
def run(backend: dict[str, Any]) -> Iterator[Callable[..., None]]:
    yield partial(anyio.run, **backend)
    check_jobs()


class Scene:
    """A listener whose streams are the test's."""

    def __init__(self, listener: Any, identity: Identity, context: Any, options: dict[str, Any]) -> None:
        self._socket = extra(listener, SocketAttribute.raw_socket)
        self._context, self._options = context, options
        self.address = self._socket.getsockname()
        self.client = client_context(identity.ca)
        self.client.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # it shall tell a cut from an end

    async def accept(self) -> tls.TLSStream:
        sock = await tls._accept(self._socket)
        sock.setblocking(False)
        return tls.TLSStream(sock, self._context, **self._options)

    async def open(self) -> tuple[tls.TLSStream, StandardTLSStream]:
        plain = await anyio.connect_tcp(*self.address)
        near = await self.accept()
        far = await StandardTLSStream.wrap(plain, hostname="localhost", ssl_context=self.client)
        await near.do_handshake()
        return near, far

    async def say(self, data: bytes) -> tuple[tls.TLSStream, socket.socket]:
        far = socket.create_connection(self.address)
        far.sendall(data)
        return await self.accept(), far

    def hello(self) -> bytes:
        outgoing = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            self.client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
        return outgoing.read()


@asynccontextmanager
async def scene(identity: Identity, context: Any, **options: Any) -> AsyncIterator[Scene]:
    with anyio.fail_after(30):
        multi: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
        (listener,) = multi.listeners
        async with listener:
            yield Scene(listener, identity, context, options)


def extra(of: Any, attribute: Any) -> Any:
    return of.extra_attributes[attribute]()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        turned = anyio.Event()
        tls._loop().reactor.call_later(0.001, turned.set)
        await turned.wait()


async def cut(stream: Any) -> None:
    await anyio.aclose_forcefully(stream)


def test_a_connection(run: Callable[..., None], identity: Identity) -> None:
    async def main(engine: LatencyEngine) -> None:
        async with scene(identity, make_context(identity, engine, alpn=["http/1.1"])) as house:
            house.client.set_alpn_protocols(["http/1.1"])
            near, far = await house.open()
            await far.send(b"first and second")
            assert await near.receive(5) == b"first"
            assert await near.receive() == b" and second"
            await near.send(b"answer")
            assert await far.receive() == b"answer"
            assert near.park.parks == 1
            assert extra(near, TLSAttribute.alpn_protocol) == "http/1.1"
            assert extra(near, TLSAttribute.tls_version) == "TLSv1.3"
            assert extra(near, TLSAttribute.server_side)
            assert extra(near, TLSAttribute.peer_certificate) is None
            assert extra(near, SocketAttribute.local_address) == house.address
            assert extra(near, SocketAttribute.remote_port) == extra(far, SocketAttribute.local_port)
            assert TLSAttribute.ssl_object not in near.extra_attributes
            with pytest.raises(NotImplementedError, match="aclose"):
                await near.send_eof()
            with pytest.raises(ValueError, match="max_bytes"):
                await near.receive(0)
            async with anyio.create_task_group() as group:
                group.start_soon(far.aclose)
                with pytest.raises(anyio.EndOfStream):
                    await near.receive()
                await near.aclose()
            for call in (near.receive, partial(near.send, b"x"), near.do_handshake):
                with pytest.raises(anyio.ClosedResourceError):
                    await call()

    with LatencyEngine(0.001) as engine:
        run(main, engine)


def test_large_both_ways(run: Callable[..., None], identity: Identity) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity)) as house:
            near, far = await house.open()
            size = 5_000_000
            for sender, receiver in ((near, far), (far, near)):
                async with anyio.create_task_group() as group:
                    group.start_soon(sender.send, bytes(size))
                    got = 0
                    while got < size:
                        got += len(await receiver.receive())
            await cut(near)
            await cut(far)

    run(main)


def test_what_was_cancelled_is_not_lost(run: Callable[..., None], identity: Identity) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity)) as house:
            near, far = await house.open()
            with anyio.move_on_after(0.01):
                await near.receive()
            await far.send(b"data")
            assert await near.receive() == b"data"
            async with anyio.create_task_group() as group:
                group.start_soon(near.receive)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(anyio.BusyResourceError):
                    await near.receive()
                group.cancel_scope.cancel()
            await cut(near)
            with pytest.raises(anyio.BrokenResourceError):
                await far.receive()
            await cut(far)

    run(main)


@pytest.mark.parametrize("lenient", [True, False])
def test_stream_that_ends_without_close_notify(run: Callable[..., None], identity: Identity, lenient: bool) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity), https_compatible=lenient) as house:
            near, far = await house.open()
            assert extra(near, TLSAttribute.standard_compatible) is not lenient
            await near.send(b"all is read")
            await far.receive()
            await far.transport_stream.aclose()
            with pytest.raises(anyio.EndOfStream if lenient else anyio.BrokenResourceError) as caught:
                await near.receive()
            assert lenient or isinstance(caught.value.__cause__, TruncatedError)
            await near.aclose()

    run(main)


@pytest.mark.parametrize("end", ["cancelled", "closed", "client", "engine", "run"])
def test_parked_handshake_that_ends(run: Callable[..., None], identity: Identity, end: str) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house:
            near, far = await house.say(house.hello())
            with far:
                await until(lambda: engine.pending)
                if end == "run":
                    near._stream._is_closed = True  # it is not forgotten, but in use when the run ends
                    return
                if end == "cancelled":
                    async with anyio.create_task_group() as group:
                        group.start_soon(near.do_handshake)
                        await anyio.wait_all_tasks_blocked()
                        group.cancel_scope.cancel()
                elif end == "closed":
                    await near.aclose()
                else:
                    engine.fail() if end == "engine" else far.close()
                    with pytest.raises(anyio.BrokenResourceError) as caught:
                        await near.do_handshake()
                    assert isinstance(caught.value.__cause__, EngineError if end == "engine" else PeerLeftError)
            await until(lambda: not tls._loop().hub.drivers)
            await near.aclose()

    with ManualEngine() as engine:
        run(main, engine)


def test_client_certificate(run: Callable[..., None], identity: Identity, tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    alice = clients.issue("alice")

    async def main() -> None:
        policy = tlsserver.ClientCertificates("required", ca_certs=clients.cert)
        async with scene(identity, make_context(identity, client_certificates=policy)) as house:
            house.client.load_cert_chain(alice.cert, alice.key)
            near, far = await house.open()
            assert extra(near, TLSAttribute.peer_certificate_binary) == alice.der
            assert extra(near, TLSAttribute.peer_certificate)["subject"] == ((("commonName", "alice"),),)
            await cut(near)
            await cut(far)

    run(main)


def test_serving(run: Callable[..., None], identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    async def handle(stream: tls.TLSStream) -> None:
        await stream.send(await stream.receive())

    async def visit(address: tuple[str, int], count: int) -> None:
        for _ in range(count):
            far = await anyio.connect_tcp(*address, tls=True, tls_hostname="localhost", ssl_context=trusting)
            await far.send(b"ping")
            assert await far.receive() == b"ping"
            await far.aclose()

    async def main(engine: LatencyEngine) -> None:
        plain: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with tls.TLSListener(plain, make_context(identity, engine), max_handshakes=5) as listener:
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, handle)
                address = extra(listener, SocketAttribute.local_address)
                with socket.create_connection(address) as bad:
                    bad.sendall(b"\x16\x03\x01\x00\x05hello, this is no TLS")
                    async with anyio.create_task_group() as visitors:
                        for _ in range(10):
                            visitors.start_soon(visit, address, 2)
                await until(lambda: not tls._loop().hub.drivers)
                group.cancel_scope.cancel()
            assert tls._loop().counters.parked_max <= 5

    trusting = client_context(identity.ca)
    with LatencyEngine(0.005) as engine, caplog.at_level("INFO", "tlsserver"):
        run(main, engine)
    assert "failed" in caplog.text


def test_accepting_goes_on_when_there_is_room_again(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        calls = 0

        def accept(self) -> tuple[str, None]:
            self.calls += 1
            if self.calls == 1:
                raise OSError(errno.EMFILE, "too many")
            return "accepted", None

    async def main() -> None:
        full: Any = Full()
        accepted: object = await tls._accept(full)
        assert accepted == "accepted"

    monkeypatch.setattr(tls, "_ROOM_SECONDS", 0.001)
    run(main)
    assert "too many" in caplog.text


def test_mistakes_are_named(run: Callable[..., None], identity: Identity) -> None:
    async def main() -> None:
        plain: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with plain:
            with pytest.raises(tlsserver.ConfigurationError, match="timeout_shutdown=-1"):
                tls.TLSListener(plain, make_context(identity), shutdown_timeout=-1)
            with pytest.raises(TypeError, match="nonsense"):
                tls.TLSListener(plain, make_context(identity), nonsense=1)  # type: ignore[call-arg]

    run(main)
