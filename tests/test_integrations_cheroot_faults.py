"""cheroot's server when something goes wrong: one connection ends, and never the server."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from support import leaks
from support.cheroot_site import CherootSite
from support.integration_clients import client, connect
from support.running import PATIENCE
from tlsserver import TLSContext
from tlsserver.integrations.cheroot_socket import TLSSocket

if TYPE_CHECKING:
    from collections.abc import Callable

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
        with monkeypatch.context() as patch, socket.create_connection(site.address, PATIENCE) as sock:
            patch.setattr("tlsserver.integrations.cheroot.shake_hands", fail)
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
