"""cheroot's server when something goes wrong: one connection ends, and never the server."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from support import leaks
from support.cheroot_site import CherootSite
from support.integration_clients import arrive, client, connect
from support.running import PATIENCE
from tlsserver import TLSContext
from tlsserver.integrations import blocking_handshake
from tlsserver.integrations.cheroot_socket import TLSSocket
from tlsserver.testing import HELD, ScriptedProvider
from tlsserver.wire import WaitFdSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from support.certificates import Identity

pytestmark = pytest.mark.usefixtures("no_threads_left", "no_ops_left")
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def until(condition: Callable[[], object]) -> None:
    leaks.wait_until(condition)
    assert condition()


def asked(site: CherootSite, identity: Identity) -> dict[str, Any]:
    """Make one request on a connection of its own."""
    with connect(site, client(identity)) as tls:
        tls.sendall(GET)
        got = b""
        while not got.endswith(b"}"):
            part = tls.recv(1 << 16)
            assert part, got
            got += part
    told: dict[str, Any] = json.loads(got[got.index(b"{") :])
    return told


def test_an_application_that_closes_its_input(identity: Identity) -> None:
    """cheroot looks afterwards whether more was read; what is raised there would stop the whole server."""
    with CherootSite(TLSContext(identity.cert, identity.key)) as site:
        inner = site.server.wsgi_app

        def closing(environ: dict[str, Any], start_response: Any) -> Any:
            answer = inner(environ, start_response)
            environ["wsgi.input"].close()
            return answer

        site.server.wsgi_app = closing
        for _ in range(3):
            assert asked(site, identity)["HTTPS"] == "on"
            site.until_idle()
        assert site.server.ready


def test_what_nobody_expects_costs_one_connection(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """cheroot would answer with 500, and for that begin a second handshake."""
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        raise RuntimeError("unexpected")

    with CherootSite(TLSContext(identity.cert, identity.key)) as site:
        with monkeypatch.context() as patch:
            patch.setattr("tlsserver.integrations.cheroot.shake_hands", fail)
            with socket.create_connection(site.address, PATIENCE) as sock:
                sock.sendall(b"anything")
                site.until_idle()
                until(lambda: calls)
                site.until_idle()
        assert len(calls) == 1
        assert asked(site, identity)["HTTPS"] == "on"
        assert any("unexpected" in error for error in site.errors)


def test_after_the_end_no_handshake_begins() -> None:
    """cheroot's writer flushes once more when it is collected, on any thread."""
    handshakes: list[Any] = []
    ours, theirs = socket.socketpair()
    with theirs:
        closed = TLSSocket(ours, handshakes.append, handshakes.append)  # type: ignore[arg-type]
        closed.close()
        with pytest.raises(OSError, match="closed"):
            closed.send(b"what was left")
        with pytest.raises(OSError, match="closed"):
            closed.recv_into(bytearray(1))
    assert not handshakes


def hold(site: CherootSite, identity: Identity, scripted: ScriptedProvider) -> None:
    """Leave a job with the site's only worker that cannot be cancelled."""
    scripted.script(HELD)
    with arrive(site, identity, "1.3"):
        until(lambda: len(scripted.waiting()) == 1)
    site.until_idle()


def test_a_worker_ends_when_its_jobs_have(
    identity: Identity, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else could resume them: they would stay, with the keys and contexts that they use."""
    monkeypatch.setattr(blocking_handshake, "_END_SECONDS", 20.0)
    with ScriptedProvider() as scripted:
        with CherootSite(TLSContext(identity.cert, scripted.load_key(identity.key)), threads=1) as site:
            hold(site, identity, scripted)
            stopping = pool.submit(site.server.stop)
            until(lambda: not site.server.ready)
            scripted.complete()
            stopping.result(PATIENCE)
        assert scripted.counts().alive == 0


class Endless:
    """A session whose job does not end."""

    def close(self) -> bool:
        return False

    def wait_fds(self) -> WaitFdSet:
        return WaitFdSet((), (), 0)


def test_jobs_that_outlive_their_worker_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And their descriptors stay open, because the jobs may be about to write to them."""
    monkeypatch.setattr(blocking_handshake, "_END_SECONDS", 0.01)
    ours, theirs = socket.socketpair()
    session: Any = Endless()
    worker = threading.Thread(target=lambda: blocking_handshake._of_thread.drain.keep(session, ours))
    worker.start()
    worker.join()
    until(lambda: blocking_handshake._left_behind)
    blocking_handshake.tell_left_behind()
    blocking_handshake.tell_left_behind()
    assert caplog.messages == ["1 jobs have not ended, their threads have: they are left behind"]
    ((_, sock),) = blocking_handshake._forgotten
    with theirs, sock:
        assert sock.fileno() >= 0
    blocking_handshake._forgotten.clear()
