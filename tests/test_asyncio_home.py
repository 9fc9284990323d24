"""The end of a loop that has TLS connections in every state, and what several loops, threads and processes share."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import engine_shim
import tlsserver.asyncio as tls_asyncio
from engine_shim import BatchEngine, LatencyEngine, ManualEngine
from support import leaks
from support.aio import LOOPS, Site, Told, home, new_loop, run, server_context, turns, until
from tlsserver.config import ServerConfig

if TYPE_CHECKING:
    from support.certificates import Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]


class Left:
    """A loop that was stopped in the middle: a parked handshake, one that has not begun, and an open connection."""

    def __init__(self, loop: str, identity: Identity, manual: ManualEngine) -> None:
        self.loop = new_loop(loop)
        self.site = Site(identity, Told, engine=manual)
        self.sockets: list[Any] = []
        self.loop.run_until_complete(self._begin(manual))

    async def _begin(self, manual: ManualEngine) -> None:
        await self.site.__aenter__()
        self.opening = asyncio.ensure_future(self.site.connect())
        await until(lambda: manual.pending)
        manual.perform()
        _, self.writer = await self.opening
        await until(lambda: self.site.protocols)
        self.sockets = [await self.site.raw(self.site.hello()), await self.site.raw()]
        await until(lambda: manual.pending and self.site.numbers.connections_open == 3)
        self.writer.transport.abort()

    def closed(self) -> None:
        """The clients see the end."""
        for sock in self.sockets:
            sock.setblocking(True)
            sock.settimeout(leaks.PATIENCE)
            while sock.recv(1 << 16):
                pass
            sock.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING and one.name != "asyncio"]
    caplog.clear()
    return found


@pytest.mark.parametrize("debug", [False, True])
def test_closed_with_everything_open(
    loop: str, identity: Identity, manual: ManualEngine, caplog: pytest.LogCaptureFixture, debug: bool
) -> None:
    left = Left(loop, identity, manual)
    left.loop.set_debug(debug)
    protocol = left.site.protocols[0]
    told = list(protocol.told)
    left.loop.close()
    left.loop.close()
    assert left.loop.is_closed()
    assert warnings(caplog) == ["the event loop is closed with 2 TLS handshakes in progress: they are cancelled"]
    assert manual.pending == 0
    left.closed()
    assert protocol.told == told  # as at the end of asyncio's loops
    protocol.transport.write(b"nobody")
    protocol.transport.close()
    protocol.transport.abort()
    assert protocol.transport.is_closing()


def test_closed_without_connections(loop: str, identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    made = new_loop(loop)
    made.run_until_complete(Site(identity).__aenter__())
    made.close()
    assert warnings(caplog) == []


def test_closing_a_loop_that_runs(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity) as site:
            with pytest.raises(RuntimeError, match="running"):
                asyncio.get_running_loop().close()
            await site.connect()

    run(loop, main)


def test_whoever_waits_is_not_told(loop: str, identity: Identity, manual: ManualEngine) -> None:
    """A client's task is left pending, as asyncio leaves it, and nothing says that its exception was lost."""
    made = new_loop(loop)
    seen: list[str] = []
    made.set_exception_handler(lambda _, context: seen.append(context["message"]))
    site = Site(identity, engine=manual)

    async def begin() -> None:
        await site.__aenter__()
        ours = site.own_client()
        connecting.append(
            asyncio.ensure_future(
                tls_asyncio.open_connection("127.0.0.1", site.port, ssl=ours, server_hostname="localhost")
            )
        )
        await until(lambda: manual.pending)

    connecting: list[Any] = []
    made.run_until_complete(begin())
    made.close()
    connecting[0]._log_destroy_pending = False
    connecting.clear()
    gc.collect()
    assert [one for one in seen if "never retrieved" in one] == []


def test_from_another_thread(loop: str, identity: Identity, manual: ManualEngine) -> None:
    """What is parked can be ended on its own thread alone; what is not, anywhere."""
    left = Left(loop, identity, manual)
    manual.perform()
    left.loop.run_until_complete(turns(5))
    thread = threading.Thread(target=left.loop.close)
    thread.start()
    thread.join()
    assert left.loop.is_closed()
    left.closed()


def test_protocols_that_write_at_the_end(loop: str, identity: Identity) -> None:
    class Writing(Told):
        def connection_lost(self, error: Exception | None) -> None:
            self.transport.write(b"too late")
            self.transport.close()
            self.transport.resume_reading()
            super().connection_lost(error)

    async def main() -> None:
        async with Site(identity, Writing) as site:
            protocol, _, _ = await site.open()
            protocol.transport.abort()
            await protocol.lost

    run(loop, main)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_never_closed(loop: str, identity: Identity) -> None:
    """The garbage collector frees it; asyncio's loop closes itself then."""
    made = new_loop(loop)

    async def main() -> None:
        async with Site(identity) as site:
            await site.connect()

    made.run_until_complete(main())
    if loop == "uvloop":  # has descriptors of its own that only its close() closes
        made.close()
    del made
    gc.collect()


def test_two_loops_in_two_threads(loop: str, identity: Identity) -> None:
    """Each has its own jobs, and one engine serves both."""
    with LatencyEngine(0.005) as engine:
        failed: list[BaseException] = []

        async def main() -> None:
            async with Site(identity, engine=engine) as site:
                await asyncio.gather(*(site.connect() for _ in range(20)))
                await until(lambda: site.numbers.handshakes_completed == 20)

        def work() -> None:
            try:
                made = new_loop(loop)
                made.run_until_complete(main())
                made.close()
            except BaseException as error:  # noqa: BLE001 - shown below
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
            leaks.wait_ended(thread)
        assert not failed, failed


def test_a_fork_in_between(loop: str, identity: Identity, manual: ManualEngine) -> None:
    """The child closes its copies, and the parent goes on."""
    left = Left(loop, identity, manual)
    child = os.fork()
    if not child:
        try:
            home_of_child = left.loop._tlsserver_home  # type: ignore[attr-defined]
            home_of_child._close_loop = int
            home_of_child.close_loop()
            os._exit(0 if home_of_child.reactor.is_closed else 2)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

    async def go_on() -> None:
        manual.perform()
        await until(lambda: not manual.pending)
        for sock in left.sockets:
            sock.close()
        await until(lambda: site.numbers.connections_open == 0)

    site = left.site
    left.loop.run_until_complete(go_on())
    left.loop.close()


def test_engines_that_need_turns(loop: str, identity: Identity) -> None:
    async def main() -> None:
        with BatchEngine(threads=0) as engine:
            async with Site(identity, engine=engine) as site:
                await asyncio.gather(*(site.connect() for _ in range(20)))

    run(loop, main)


def test_the_line_for_jobs_is_the_loops(loop: str, identity: Identity) -> None:
    """Two servers and the clients share one thread's jobs; what waits is served as they end."""

    def work() -> None:
        engine_shim.init_thread(2)
        try:
            run(loop, main)
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    async def main() -> None:
        with LatencyEngine(0.002) as engine:
            config = ServerConfig(timeout_handshake=20)
            sites = [Site(identity, engine=engine, config=config) for _ in range(2)]
            for site in sites:
                await site.__aenter__()
            await asyncio.gather(*(site.connect() for site in sites * 15))
            await until(lambda: all(site.numbers.handshakes_completed == 15 for site in sites))
            assert max(site.numbers.parked_max for site in sites) <= 2
            for site in sites:
                await site.__aexit__()
            assert home()._line is not None

    failed: list[BaseException] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    leaks.wait_ended(thread)
    assert not failed, failed


def test_a_context_for_each_side(loop: str, identity: Identity) -> None:
    async def main() -> None:
        here = asyncio.get_running_loop()
        with pytest.raises(TypeError, match="cannot make connections"):
            await tls_asyncio.create_connection(here, Told, "x", 1, ssl=server_context(identity), server_hostname="x")
        with pytest.raises(TypeError, match="cannot accept connections"):
            await tls_asyncio.start_tls(here, None, Told(), Site(identity).own_client(), server_side=True)  # type: ignore[arg-type]

    run(loop, main)
