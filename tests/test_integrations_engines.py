"""Engines that do their I/O on a loop, and engines of third parties, under Twisted's reactor and cheroot's workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import engine_shim
from support import leaks
from support.cheroot_site import CherootSite
from support.integration_clients import arrive, client, connect
from support.key_server import KeyServer
from tlsserver import TLSContext
from tlsserver.integrations import blocking_handshake
from tlsserver.integrations.engine_thread import EngineThread
from tlsserver.signers.remote import RemoteSigner
from tlsserver.testing import HELD, Change, Script, ScriptedProvider

pytest.importorskip("twisted.protocols.tls", reason="Twisted cannot use this pyOpenSSL for TLS")

from support.twisted_site import TwistedSite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from support.certificates import Identity

SITES: dict[str, Any] = {"twisted": TwistedSite, "cheroot": CherootSite}
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"

sites = pytest.mark.parametrize("site", SITES)
pytestmark = pytest.mark.usefixtures("no_threads_left", "no_ops_left")


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as made:
        yield made
        counts = made.counts()
        assert (counts.alive, counts.fds_open, counts.orphaned) == (0, 0, 0)


def serve(site: Any, identity: Identity, version: str = "1.3") -> None:
    """Let a client be served."""
    with connect(site, client(identity, version)) as tls:
        tls.sendall(REQUEST)
        got = b""
        while b"hello" not in got.lower():
            got += tls.recv(1000)


def until(condition: Any) -> None:
    leaks.wait_until(condition)
    assert condition()


@sites
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_remote_signer(identity: Identity, site: str, version: str, tmp_path: Path) -> None:
    with KeyServer([identity], tmp_path / "s") as keys, RemoteSigner([keys.address], deadline=20.0) as signer:
        with SITES[site](TLSContext(identity.cert, signer.load_key(identity.cert))) as served:
            for _ in range(3):
                serve(served, identity, version)
        assert len(keys.conversations) == 1
        assert signer.signers()[0].performed == 3


SCRIPTS = {
    "no fds": Script(told=False, pauses=2, fds=0),
    "several fds": Script(told=False, pauses=3, fds=3, change=Change.RENEW),
    "renewed": Script(told=False, pauses=5, fds=1, change=Change.RENEW),
}


@sites
@pytest.mark.parametrize("script", SCRIPTS)
def test_engines_of_others(scripted: ScriptedProvider, identity: Identity, site: str, script: str) -> None:
    context = TLSContext(identity.cert, scripted.load_key(identity.key))
    with SITES[site](context) as served:
        for _ in range(3):
            scripted.script(SCRIPTS[script])
            serve(served, identity)
    assert scripted.counts().pauses


def test_twisted_drains_what_cannot_be_cancelled(scripted: ScriptedProvider, identity: Identity) -> None:
    with TwistedSite(TLSContext(identity.cert, scripted.load_key(identity.key))) as site:
        scripted.script(HELD, HELD)
        for count in (1, 2):
            with arrive(site, identity, "1.3"):
                site.until_parked(1)
            site.until(lambda numbers, count=count: numbers.draining_now == count)  # type: ignore[misc]
        serve(site, identity)
        scripted.complete()
        site.until(lambda numbers: numbers.drained == 1)
        with pytest.MonkeyPatch.context() as patch:
            drain = site.hub.drains.of(site.options.context.engine, "")
            patch.setattr(drain, "is_full", True)
            with pytest.raises(OSError, match="alert internal error"):
                serve(site, identity)
            assert site.statistics().handshakes_refused == 1
        scripted.complete()
        site.until_empty()


def test_twisted_waits_for_what_drains_when_it_stops(
    scripted: ScriptedProvider, identity: Identity, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    monkeypatch.setattr("tlsserver.integrations.twisted_hub._DRAIN_SECONDS", 20.0)
    with TwistedSite(TLSContext(identity.cert, scripted.load_key(identity.key))) as site:
        scripted.script(HELD)
        with arrive(site, identity, "1.3"):
            site.until_parked(1)
            stopping = pool.submit(site.stop)
            site.until(lambda numbers: numbers.draining_now == 1)
            assert not stopping.done()
            scripted.complete()
            stopping.result()
        assert not site.hub.handshakes


def test_twisted_when_jobs_are_short(identity: Identity, pool: ThreadPoolExecutor) -> None:
    """Whoever gets none waits for one that ends."""
    with (
        engine_shim.LatencyEngine(0.01) as engine,
        TwistedSite(TLSContext(identity.cert, engine.load_key(identity.key))) as site,
    ):
        site.run(engine_shim.init_thread, 2, 0)
        for call in [pool.submit(serve, site, identity) for _ in range(8)]:
            call.result()
        site.until_empty()
        numbers = site.statistics()
        assert (numbers.handshakes_completed, numbers.queued_now) == (8, 0)
        assert numbers.parked_max <= 2
        site.run(engine_shim.cleanup_thread)


def test_a_worker_looks_after_what_it_has_left_behind(
    scripted: ScriptedProvider, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking_handshake, "_DRAINING_MOST", 2)
    with CherootSite(TLSContext(identity.cert, scripted.load_key(identity.key)), threads=1) as site:
        scripted.script(HELD, HELD)
        for count in (1, 2):
            with arrive(site, identity, "1.3"):
                until(lambda count=count: len(scripted.waiting()) == count)
            site.until_idle()
        with pytest.raises(OSError, match=r"(?i)eof|reset"):
            serve(site, identity)  # refused: it has too many
        scripted.complete()
        serve(site, identity)
        scripted.complete()
        serve(site, identity)
        assert scripted.counts().alive == 0


def test_the_thread_of_engines_ends_with_its_owner() -> None:
    class Joining(engine_shim.ManualEngine):
        left = False

        def join(self, loop: Any) -> Any:
            self.loop = loop
            return self.leave

        def leave(self) -> None:
            self.left = True

    with Joining() as one, Joining() as other, engine_shim.ManualEngine() as plain:
        threads = EngineThread()
        threads.use([plain])
        threads.use([one, other])
        threads.use([one])
        assert one.loop is other.loop
        threads.close()
        threads.close()
        assert one.left
        assert other.left
        forgotten = EngineThread()
        forgotten.use([one])
        del forgotten
        assert one.loop.is_closed


def test_the_thread_of_engines_may_be_the_one_that_forgets_its_owner(caplog: pytest.LogCaptureFixture) -> None:
    """The garbage collector runs where it likes."""

    class Joining(engine_shim.ManualEngine):
        def join(self, loop: Any) -> Any:
            self.loop = loop

    with Joining() as engine:
        owners = [EngineThread()]
        owners[0].use([engine])
        engine.loop.call_soon_threadsafe(owners.clear)
        until(lambda: engine.loop.is_closed)
    assert not caplog.messages
