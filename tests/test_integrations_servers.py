"""What holds under each server of others: keys that are slow hold nobody up, and what is large comes through."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from test_integrations_aiohttp import program

from support import leaks, web_clients
from support.framework_site import hypercorn_site, uvicorn_site
from support.loop_thread import LOOPS, LoopThread, new_loop
from support.web_clients import NUMBERS
from tlsserver import Certificate, TLSContext
from tlsserver.asyncio import SSLContext
from tlsserver.integrations.aiohttp import TLSSite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine_shim import ManualEngine
    from support.certificates import Certificates, Identity

PARKED = 20


def uvicorn(context: TLSContext, loop: str) -> LoopThread:
    return uvicorn_site(loop, context=SSLContext.from_context(context))


def hypercorn(context: TLSContext, loop: str) -> LoopThread:
    return hypercorn_site(loop, ssl_context=SSLContext.from_context(context))


def aiohttp(context: TLSContext, loop: str) -> LoopThread:
    return LoopThread(
        program(lambda runner: TLSSite(runner, "127.0.0.1", 0, ssl_context=context)), lambda: new_loop(loop)
    )


SERVERS: dict[str, Callable[[TLSContext, str], LoopThread]] = {
    "uvicorn": uvicorn,
    "hypercorn": hypercorn,
    "aiohttp": aiohttp,
}


@pytest.fixture(scope="module", autouse=True)
def loops() -> None:
    """The first loop of uvloop opens what the process keeps."""
    for name in LOOPS:
        loop = new_loop(name)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def begin(port: int, identity: Identity, version: str) -> ssl.SSLSocket:
    """Send a ClientHello."""
    made = web_clients.context(identity, version)
    raw = socket.create_connection(("127.0.0.1", port), timeout=leaks.PATIENCE)
    raw.setblocking(False)
    tls = made.wrap_socket(raw, server_hostname="localhost", do_handshake_on_connect=False)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    tls.settimeout(leaks.PATIENCE)
    return tls


def perform(manual: ManualEngine, count: int) -> None:
    """Perform ops until so many were; on the test's thread."""
    for _ in range(count):
        leaks.wait_until(lambda: manual.pending)
        manual.perform()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("version", NUMBERS)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("server", SERVERS)
def test_parked_handshakes_hold_nobody_up(
    identity: Identity, manual: ManualEngine, server: str, loop: str, version: str
) -> None:
    context = TLSContext(identity.cert, manual.load_key(identity.key))
    with SERVERS[server](context, loop) as site, contextlib.ExitStack() as stack:
        first = stack.enter_context(begin(site.port, identity, version))
        perform(manual, 1)
        first.do_handshake()
        tunnels = [stack.enter_context(begin(site.port, identity, version)) for _ in range(PARKED)]
        leaks.wait_until(lambda: manual.pending == PARKED)
        assert manual.pending == PARKED
        assert get(first).startswith(b"HTTP/1.1 200"), "answered while all of them are parked"
        for tunnel in tunnels[::2]:
            tunnel.close()  # these have left: their ops go
        leaks.wait_until(lambda: manual.pending == PARKED // 2)
        perform(manual, PARKED // 2)
        for tunnel in tunnels[1::2]:
            tunnel.do_handshake()
            assert get(tunnel).startswith(b"HTTP/1.1 200")


def get(tls: ssl.SSLSocket) -> bytes:
    """Send a request over a connection that may stay open, and return the beginning of the answer."""
    tls.sendall(b"GET /told HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return tls.recv(4096)


@pytest.mark.parametrize("version", NUMBERS)
def test_the_certificate_that_was_shown_is_told(certificates: Certificates, identity: Identity, version: str) -> None:
    """With a certificate for each name, and also when a session is resumed, in which none is shown."""
    other = certificates.for_names("other-name", "p256", "other.localhost")
    names = Certificate(other.cert, other.key, names=("other.localhost",))
    context = TLSContext(identity.cert, identity.key, certificates=[names])
    made = web_clients.context(identity, version)
    with uvicorn(context, "asyncio") as site:
        for name, shown in (("localhost", identity), ("other.localhost", other)):
            session = None
            for reused in (False, True):
                raw = socket.create_connection(("127.0.0.1", site.port), timeout=leaks.PATIENCE)
                with made.wrap_socket(raw, server_hostname=name, session=session) as tls:
                    told = json.loads(get(tls).partition(b"\r\n\r\n")[2])
                    assert tls.session_reused == reused
                    session = tls.session
                pem = told["tls"]["server_cert"]
                assert ssl.PEM_cert_to_DER_cert(pem) == ssl.PEM_cert_to_DER_cert(shown.cert.read_text())


# HTTP/2 in Python takes some 50 ms for each; its windows are 64 KB.
MEGABYTES = {"--http1.1": 100, "--http2": 16}


@pytest.mark.parametrize(
    ("server", "loop", "option"),
    [("uvicorn", "asyncio", "--http1.1"), ("hypercorn", "uvloop", "--http2"), ("aiohttp", "uvloop", "--http1.1")],
)
def test_a_large_upload(tmp_path: Path, identity: Identity, server: str, loop: str, option: str) -> None:
    content = bytes(range(256)) * 4096 * MEGABYTES[option]
    path = tmp_path / "body"
    path.write_bytes(content)
    context = TLSContext(identity.cert, identity.key, alpn=["h2"] if option == "--http2" else ["http/1.1"])
    with SERVERS[server](context, loop) as site:
        url = f"https://localhost:{site.port}/upload"
        body = ("-H", "Expect:", "--data-binary", f"@{path}")
        said = web_clients.run("curl", "-s", option, "--cacert", identity.ca, *body, url)
    path.unlink()
    assert hashlib.sha256(content).hexdigest() in said
