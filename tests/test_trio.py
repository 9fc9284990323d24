"""TLS streams for trio: its contract for streams, with handshakes that park, and tasks that are cancelled anywhere."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from helpers_server import make_context
from trio.testing import check_two_way_stream

import engine_shim
import tlsserver
from engine_shim import BatchEngine, LatencyEngine, ManualEngine, ThreadEngine
from support.client_authority import Authority
from support.trio_scene import Scene, ask, echo, fill_pool, refused, scene, until, visit
from tlsserver.errors import ConnectionTimeoutError, HandshakeError, TruncatedError
from tlsserver.trio import TLSListener, TLSStream, serve_tls, task_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from support.certificates import Identity

pytestmark = pytest.mark.usefixtures("no_leaks", "jobs_end")

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])

wait_fds = pytest.fixture(scope="module", autouse=True)(fill_pool)


# --- A connection ---


@VERSIONS
@pytest.mark.parametrize("offload", ["off", "latency", "batch", "threads"])
def test_facts_of_a_connection(identity: Identity, version: str, offload: str) -> None:
    make: dict[str, Callable[[], Any]] = {
        "latency": lambda: LatencyEngine(0.005),
        "batch": lambda: BatchEngine(threads=0),
        "threads": lambda: ThreadEngine(1),
    }

    async def main(engine: engine_shim.Engine | None) -> None:
        context = make_context(identity, engine, alpn=["h2", "http/1.1"])
        async with scene(identity, context, version) as house:
            house.client.set_alpn_protocols(["http/1.1"])
            near, far = await house.connect()
            assert (near.tls, near.selected_alpn_protocol(), near.park.parks) == (None, None, 0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo, near)
                assert await ask(far) == b"ping"
                assert near.tls is not None
                assert near.tls.version == f"TLSv{version}"
                assert near.selected_alpn_protocol() == "http/1.1"
                assert near.client_certificate is None
                assert near.socket.getsockname() == house.address
                assert near.park.parks == (0 if offload == "off" else 1)
                await far.aclose()
            await near.aclose()

    if offload == "off":
        trio.run(main, None)
    else:
        with make[offload]() as engine:
            trio.run(main, engine)


@VERSIONS
def test_contract_of_streams(identity: Identity, version: str) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity), version, shutdown_timeout=0.02) as house:

            async def clogged() -> tuple[Any, Any]:
                near, far = await house.open()
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(near.send_all, bytes(20_000_000))
                        await trio.testing.wait_all_tasks_blocked()
                        scope.cancel()
                return near, far

            # Either end may be the one that sends, but only ours is clogged as it has to be.
            await check_two_way_stream(house.open, None)
            await trio.testing.check_one_way_stream(house.open, clogged)

    trio.run(main)


def test_what_was_cancelled_is_not_lost(identity: Identity) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity)) as house:
            near, far = await house.open()
            for _ in range(3):  # those who wait leave nothing behind
                with trio.move_on_after(0.001):
                    await near.receive_some()
            await far.send_all(b"first")
            assert await near.receive_some(2) == b"fi"
            assert await near.receive_some() == b"rst"
            large = bytes(range(256)) * 20_000
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send_all, large)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            got = b""
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send_all, b"end")
                while not got.endswith(b"end"):
                    got += await far.receive_some()
            assert got == large + b"end"
            await trio.aclose_forcefully(near)
            await trio.aclose_forcefully(far)

    trio.run(main)


def test_a_reader_that_pauses_holds_up_its_client(identity: Identity) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity)) as house:
            near, far = await house.open()
            size, got = 30_000_000, 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(far.send_all, bytes(size))
                await trio.testing.wait_all_tasks_blocked()
                assert len(near._stream._unread) < 100_000
                while got < size:
                    got += len(await near.receive_some(1_000_000))
            await trio.aclose_forcefully(far)
            await trio.aclose_forcefully(near)

    trio.run(main)


@pytest.mark.parametrize("lenient", [True, False])
def test_stream_that_ends_without_close_notify(identity: Identity, lenient: bool) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity), https_compatible=lenient) as house:
            near, far = await house.open()
            await near.send_all(b"all is read")  # else its end is a reset
            await far.receive_some()
            await far.send_all(b"data")
            await far.transport_stream.aclose()
            assert await near.receive_some() == b"data"
            if lenient:
                assert await near.receive_some() == b""
            else:
                error = await refused(near.receive_some, trio.BrokenResourceError)
                assert isinstance(error.__cause__, TruncatedError)
            await refused(partial(near.send_all, b"x"), trio.BrokenResourceError)
            await near.aclose()
            assert near.tls is not None

    trio.run(main)


@VERSIONS
def test_half_closed_by_the_client(identity: Identity, version: str) -> None:
    """It has said goodbye and still reads: our answer comes."""

    async def main() -> None:
        async with scene(identity, make_context(identity), version) as house:
            near, far = await house.open()
            far_tls = far._ssl_object
            with pytest.raises(ssl.SSLWantReadError):
                far_tls.unwrap()
            await far.transport_stream.send_all(far._outgoing.read())
            assert await near.receive_some() == b""
            assert await near.receive_some() == b""
            await near.send_all(b"answer")
            await near.aclose()
            got = b""
            while data := await far.transport_stream.receive_some():
                got += data
            assert got
            await far.transport_stream.aclose()

    trio.run(main)


def test_closing_forcefully_is_no_end(identity: Identity) -> None:
    """A client must be able to tell that the answer is not whole."""

    async def main() -> None:
        async with scene(identity, make_context(identity)) as house:
            near, far = await house.open()
            await near.send_all(b"half of it")
            await trio.aclose_forcefully(near)
            assert await far.receive_some() == b"half of it"
            await refused(far.receive_some, trio.BrokenResourceError)
            await trio.aclose_forcefully(far)

    trio.run(main)


def test_closing_waits_for_the_client_but_not_for_ever(identity: Identity) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity), shutdown_timeout=0.05) as house:
            near, far = await house.open()
            begun = trio.current_time()
            await near.aclose()
            assert 0.05 <= trio.current_time() - begun < 5
            await trio.aclose_forcefully(far)

    trio.run(main)


def test_idle_connection(identity: Identity) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity), idle_timeout=0.05) as house:
            near, far = await house.open()
            error = await refused(near.receive_some, trio.BrokenResourceError)
            assert isinstance(error.__cause__, ConnectionTimeoutError)
            await trio.aclose_forcefully(far)

    trio.run(main)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # trio's, of the client's end
def test_forgotten_stream_is_closed(identity: Identity) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity)) as house:
            near, far = await house.open()
            with pytest.warns(ResourceWarning, match="unclosed <tlsserver.trio.TLSStream"):
                del near
            await refused(far.receive_some, trio.BrokenResourceError)
            await trio.aclose_forcefully(far)

    trio.run(main)


def test_client_certificate(identity: Identity, tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    alice = clients.issue("alice")

    async def main() -> None:
        policy = tlsserver.ClientCertificates("required", ca_certs=clients.cert)
        async with scene(identity, make_context(identity, client_certificates=policy)) as house:
            house.client.load_cert_chain(alice.cert, alice.key)
            near, far = await house.open()
            assert near.client_certificate is not None
            assert near.client_certificate.der == alice.der
            await trio.aclose_forcefully(near)
            await trio.aclose_forcefully(far)

    trio.run(main)


# --- Listeners ---


def test_handshakes_in_progress_are_bounded(identity: Identity) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine), max_handshakes=1) as house:
            near, far = await house.say(house.hello())
            second = socket.create_connection(house.address)
            with trio.move_on_after(0.05) as scope:
                await house.listener.accept()
            assert scope.cancelled_caught
            await near.aclose()
            last = await house.listener.accept()
            await last.aclose()
            far.close()
            second.close()

    with ManualEngine() as engine:
        trio.run(main, engine)


def test_new_certificate_for_new_connections(identity: Identity) -> None:
    async def main(engine: LatencyEngine) -> None:
        async with scene(identity, make_context(identity)) as house:
            near, far = await house.open()
            house.listener.context = make_context(identity, engine)
            second, second_far = await house.open()
            assert (near.park.parks, second.park.parks) == (0, 1)
            for stream in (near, far, second, second_far):
                await trio.aclose_forcefully(stream)

    with LatencyEngine(0.001) as engine:
        trio.run(main, engine)


def test_lost_connection_is_no_failure_of_the_server(identity: Identity) -> None:
    async def fail(stream: TLSStream) -> None:
        await stream.receive_some()
        raise trio.BrokenResourceError("something else")

    async def main(handler: Callable[[TLSStream], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            serve: Callable[..., Awaitable[Any]] = partial(
                serve_tls, handler, 0, make_context(identity), host="127.0.0.1", shutdown_timeout=0.05
            )
            (listener,) = await nursery.start(serve)
            house = Scene(listener, identity, None)
            async with await trio.open_tcp_stream(*house.address) as stream:
                far = trio.SSLStream(stream, house.client, server_hostname="localhost")
                await far.send_all(b"x")
                if handler is fail:
                    await trio.sleep_forever()
                await far.receive_some()
            await until(lambda: not task_loop().hub.drivers)
            nursery.cancel_scope.cancel()

    trio.run(main, echo)
    try:
        trio.run(main, fail)
    except BaseException as error:  # noqa: BLE001 - a group, which Python 3.10 does not know
        group: Any = error
        while hasattr(group, "exceptions"):
            (group,) = group.exceptions
        assert str(group) == "something else"


def test_serving(identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with caplog.at_level("INFO", "tlsserver"):
            async with trio.open_nursery() as nursery:
                serve: Callable[..., Awaitable[Any]] = partial(
                    serve_tls, echo, 0, make_context(identity), host="127.0.0.1", https_compatible=True
                )
                (listener,) = await nursery.start(serve)
                house = Scene(listener, identity, None)
                async with await trio.open_tcp_stream(*house.address) as plain:
                    await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
                    assert (await plain.receive_some()).startswith(b"HTTP/1.1 400")
                await visit(house)
                await until(lambda: not task_loop().hub.drivers)
                nursery.cancel_scope.cancel()
        assert "plain HTTP" in caplog.text

    trio.run(main)


def test_mistakes_are_named(identity: Identity) -> None:
    async def main() -> None:
        context: Any = make_context(identity)
        (plain,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        with pytest.raises(tlsserver.ConfigurationError, match="timeout_handshake=0"):
            TLSListener(plain, context, handshake_timeout=0)
        with pytest.raises(TypeError, match="handshake_time"):
            TLSListener(plain, context, handshake_time=1)  # type: ignore[call-arg]
        near, far = trio.testing.memory_stream_pair()
        with pytest.raises(TypeError, match=r"give a trio\.SocketStream"):
            TLSStream(near, context)  # type: ignore[arg-type]
        await plain.aclose()
        await near.aclose()
        await far.aclose()

    trio.run(main)


def test_bad_client(identity: Identity) -> None:
    async def main() -> None:
        async with scene(identity, make_context(identity)) as house:
            near, far = await house.say(b"\x16\x03\x01\x00\x05hello, this is no TLS")
            error = await refused(near.receive_some, trio.BrokenResourceError)
            assert isinstance(error.__cause__, HandshakeError)
            far.close()

    trio.run(main)


def test_run_after_run(identity: Identity) -> None:
    """Each has what it needs, and leaves nothing."""
    context = make_context(identity)

    async def main() -> None:
        async with scene(identity, context) as house:
            near, far = await house.open()
            await trio.aclose_forcefully(near)
            await trio.aclose_forcefully(far)

    for _ in range(3):
        trio.run(main)
