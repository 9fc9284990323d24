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
from support.running import check_jobs
from support.trio_scene import Scene, ask, echo, echo_and_close, refused, scene, until, until_parked, visit
from tlsserver.errors import ConnectionTimeoutError, HandshakeError, PeerLeftError, TruncatedError
from tlsserver.trio import TLSListener, TLSStream, serve_tls, task_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("no_leaks")

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


@pytest.fixture(scope="module", autouse=True)
def wait_fds(certificates: Certificates) -> None:
    """The pool of wait fds keeps as many as were ever wanted at once: that is no leak."""
    identity = certificates["p256"]

    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house:
            ends = [end for _ in range(3) for end in await house.say(house.hello())]
            await until_parked(3)
            for end in ends:
                await end.aclose() if isinstance(end, TLSStream) else end.close()

    with ManualEngine() as engine:
        trio.run(main, engine)


@pytest.fixture(autouse=True)
def jobs() -> Iterator[None]:
    yield
    check_jobs()


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


# --- Handshakes that park ---


def before(_house: Scene) -> bytes:
    return b""


def in_hello(house: Scene) -> bytes:
    return house.hello()[:50]


def whole_hello(house: Scene) -> bytes:
    return house.hello()


MOMENTS: dict[str, tuple[Callable[[Scene], bytes], tuple[str, ...]]] = {
    "before": (before, ()),
    "in_hello": (in_hello, ()),
    "parked": (whole_hello, ()),
    "begun": (whole_hello, ("begin",)),
    "delivered": (whole_hello, ("perform",)),
}


async def come_to(house: Scene, engine: ManualEngine, moment: str) -> tuple[TLSStream, socket.socket]:
    """Bring a handshake to where something is to happen to it."""
    said, steps = MOMENTS[moment]
    near, far = await house.say(said(house))
    if said is whole_hello:
        await until_parked()
    for step in steps:
        getattr(engine, step)()
    return near, far


@VERSIONS
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("end", ["cancelled", "closed", "client", "reset", "run"])
def test_handshake_that_ends_early(identity: Identity, version: str, moment: str, end: str) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine), version) as house:
            near, far = await come_to(house, engine, moment)
            with far:
                if end == "cancelled":
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(near.do_handshake)
                            scope.cancel()
                    await refused(near.do_handshake, trio.BrokenResourceError)
                elif end == "closed":
                    await near.aclose()
                    await refused(near.do_handshake, trio.ClosedResourceError)
                elif end == "run":
                    near._stream._is_closed = True  # it is not forgotten, but in use when the run ends
                    return
                else:
                    if end == "reset":
                        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    far.close()
                    error = await refused(near.do_handshake, trio.BrokenResourceError)
                    assert isinstance(error.__cause__, PeerLeftError)
            await until(lambda: not task_loop().hub.drivers)
            await near.aclose()

    with ManualEngine() as engine:
        trio.run(main, engine)
        check_jobs() if moment != "begun" else None


def test_cancelled_receive_leaves_the_handshake_alone(identity: Identity) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house:
            near, far = await house.connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(far.send_all, b"after all")
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(near.receive_some)
                        inner.start_soon(near.send_all, b"never")
                        await until_parked()
                        scope.cancel()
                engine.perform()
                assert await near.receive_some() == b"after all"
            await near.send_all(b"answer")
            assert await far.receive_some() == b"answer"
            await trio.aclose_forcefully(near)
            await trio.aclose_forcefully(far)

    with ManualEngine() as engine:
        trio.run(main, engine)


def test_parked_time_counts(identity: Identity) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine), handshake_timeout=0.1) as house:
            near, far = await house.say(house.hello())
            error = await refused(near.do_handshake, trio.BrokenResourceError)
            assert isinstance(error.__cause__, ConnectionTimeoutError)
            assert "still in the engine" in str(error)
            far.close()

    with ManualEngine() as engine:
        trio.run(main, engine)


def test_failed_operation(identity: Identity) -> None:
    async def main(engine: ManualEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house:
            near, far = await house.say(house.hello())
            await until_parked()
            engine.fail()
            error = await refused(near.receive_some, trio.BrokenResourceError)
            assert isinstance(error.__cause__, tlsserver.EngineError)
            far.close()

    with ManualEngine() as engine:
        trio.run(main, engine)


def test_without_enough_jobs(identity: Identity) -> None:
    """Whoever gets none waits for those who have one."""

    async def main(engine: LatencyEngine) -> None:
        async with scene(identity, make_context(identity, engine)) as house, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo_and_close, [house.listener])
            async with trio.open_nursery() as clients:
                for _ in range(6):
                    clients.start_soon(visit, house)
            assert task_loop().counters.parked_max == 1
            nursery.cancel_scope.cancel()

    engine_shim.init_thread(1, 0)
    with LatencyEngine(0.01) as engine:
        trio.run(main, engine)
    engine_shim.cleanup_thread()


def test_question_answered_by_a_task(identity: Identity) -> None:
    async def main(engine: ThreadEngine) -> None:
        send, receive = trio.open_memory_channel[tlsserver.ClientHelloRequest](10)
        given = tlsserver.Certificate(identity.cert, engine.load_key(identity.key))
        context = tlsserver.TLSContext(identity.cert, identity.key, on_client_hello=send.send_nowait)
        async with scene(identity, context) as house, trio.open_nursery() as nursery:
            near, far = await house.connect()
            nursery.start_soon(far.do_handshake)
            request = await receive.receive()
            assert request.server_name == "localhost"
            await trio.testing.wait_all_tasks_blocked()
            request.complete(given)
            await near.do_handshake()
            assert near.park.parks == 2
            await trio.aclose_forcefully(near)
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(far)

    with ThreadEngine(1) as engine:
        trio.run(main, engine)


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
