"""Nobody takes a `tlsserver.asyncio.SSLContext` for a plain one: each says so in one line, none fails without a word.

Those who would are the real ones: asyncio, uvloop, aiofastnet, http.server, urllib, Python's ssl by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import http.server
import logging
import re
import socket
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import aiofastnet
import pytest
import uvloop

from support.asyncio_contexts import client_of, server_of
from support.ends import PythonEnd
from tlsserver.asyncio import plain
from tlsserver.asyncio.plain import NotPlainError

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity
    from tlsserver.asyncio.context import SSLContext

SAYS = (
    r"^a tlsserver\.asyncio\.SSLContext was given to .*: run under the loop of tlsserver\.asyncio\.new_event_loop\(\)"
)


def refuses() -> Any:
    return pytest.raises(NotPlainError, match=SAYS)


@pytest.fixture
def context(identity: Identity) -> SSLContext:
    return server_of(identity)


NAMES = {True: None, False: "localhost"}


def test_pythons_ssl(context: SSLContext, identity: Identity) -> None:
    near, far = socket.socketpair()
    client = client_of(identity)
    with near, far:
        for one in (context, client):
            with refuses():
                one.wrap_socket(near, server_side=one is context)
            with refuses():
                one.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=one is context)
            with refuses():
                ssl.SSLObject._create(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True, context=one)
            with refuses(), near.dup() as copy:
                ssl.SSLSocket._create(
                    copy, server_side=one is context, server_hostname=NAMES[one is context], context=one
                )
        with refuses():
            client.wrap_socket(far, server_hostname="localhost")


def test_it_is_an_error_of_ssls_and_says_one_line(context: SSLContext) -> None:
    with pytest.raises(ssl.SSLError) as caught:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    assert "\n" not in str(caught.value)


def test_http_server(context: SSLContext) -> None:
    with (
        http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server,
        refuses(),
    ):
        server.socket = context.wrap_socket(server.socket, server_side=True)


def test_urllib_and_http_client(identity: Identity) -> None:
    client = client_of(identity)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(urllib.error.URLError, match="run under the loop of tlsserver"):
            urllib.request.urlopen(f"https://127.0.0.1:{port}/", context=client, timeout=5)
        with (
            refuses(),
            contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, context=client)) as connection,
        ):
            connection.request("GET", "/")


def test_the_ssl_ctx_below_fails_on_both_sides(context: SSLContext, identity: Identity) -> None:
    """Whoever gets at it without asking, as by ctypes, sends nothing, and learns why nothing works."""
    wrap = ssl.SSLContext.__mro__[1]._wrap_bio  # type: ignore[attr-defined] # the C type's
    for one, named in ((context, {"server_side": True}), (client_of(identity), {"server_side": False})):
        plain_in, plain_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        ended = wrap(one, plain_in, plain_out, **named)
        plain_in.write(_hello(identity))
        with pytest.raises(ssl.SSLError, match=r"NO_PROTOCOLS_AVAILABLE|UNSUPPORTED_PROTOCOL|INTERNAL_ERROR|VERSION"):
            ended.do_handshake()
        sent = plain_out.read()
        assert not sent or sent[0] == 21  # nothing but an alert


def _hello(identity: Identity) -> bytes:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        end = PythonEnd(ssl.create_default_context(cafile=identity.ca), near, server_hostname="localhost")
        end.step()
        return far.recv(1 << 16)


def test_the_ssl_ctx_below_has_no_certificate_and_trusts_nobody(context: SSLContext) -> None:
    context.load_verify_locations(context._asked.chains[0].file)
    below = ssl.SSLContext.__mro__[1]
    assert below.cert_store_stats(context)["x509"] == 0  # type: ignore[attr-defined] # the C type's


async def of_the_loop(loop: asyncio.AbstractEventLoop, context: SSLContext) -> Any:
    return await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context)


async def of_aiofastnet(loop: asyncio.AbstractEventLoop, context: SSLContext) -> Any:
    return await aiofastnet.create_server(loop, asyncio.Protocol, "127.0.0.1", 0, ssl=context)


LOOPS: dict[str, tuple[Callable[[], asyncio.AbstractEventLoop], Callable[..., Any]]] = {
    "asyncio": (asyncio.new_event_loop, of_the_loop),
    "uvloop": (uvloop.new_event_loop, of_the_loop),
    "aiofastnet on asyncio": (asyncio.new_event_loop, of_aiofastnet),
    "aiofastnet on uvloop": (uvloop.new_event_loop, of_aiofastnet),
}


class Ear(logging.Handler):
    """Hears what is logged, and tells a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = asyncio.Event()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())
        self.heard.set()


# Loops of others leave the sockets of connections that they could not make to the garbage collector.
others_leave_sockets = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@others_leave_sockets
@pytest.mark.parametrize("name", LOOPS)
def test_servers_on_loops_of_others(name: str, context: SSLContext, identity: Identity) -> None:
    """The first client's coming is logged, with what to do; no client is answered."""
    make, start = LOOPS[name]
    ear, hello = Ear(), _hello(identity)

    async def serve(loop: asyncio.AbstractEventLoop) -> bytes:
        loop.set_exception_handler(lambda _loop, _about: None)
        server = await start(loop, context)
        with socket.create_connection(server.sockets[0].getsockname()) as far:
            far.sendall(hello)
            await ear.heard.wait()
            server.close()
            far.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                return far.recv(1 << 16)
        return b""

    loop = make()
    plain.logger.addHandler(ear)
    try:
        answer = loop.run_until_complete(asyncio.wait_for(serve(loop), 20))
    finally:
        plain.logger.removeHandler(ear)
        loop.close()
        gc.collect()
    assert not answer
    (line,) = ear.told
    assert re.match(SAYS, line)


async def to_the_loop(loop: asyncio.AbstractEventLoop, context: SSLContext, port: int) -> Any:
    return await loop.create_connection(
        asyncio.Protocol, "127.0.0.1", port, ssl=context, server_hostname="localhost", ssl_handshake_timeout=0.05
    )


async def to_aiofastnet(loop: asyncio.AbstractEventLoop, context: SSLContext, port: int) -> Any:
    return await aiofastnet.create_connection(
        loop,
        asyncio.Protocol,
        "127.0.0.1",
        port,
        ssl=context,
        server_hostname="localhost",
        ssl_handshake_timeout=0.05,
    )


CLIENTS: dict[str, tuple[Callable[[], asyncio.AbstractEventLoop], Callable[..., Any]]] = {
    "asyncio": (asyncio.new_event_loop, to_the_loop),
    "uvloop": (uvloop.new_event_loop, to_the_loop),
    "aiofastnet on asyncio": (asyncio.new_event_loop, to_aiofastnet),
    "aiofastnet on uvloop": (uvloop.new_event_loop, to_aiofastnet),
}


@others_leave_sockets
@pytest.mark.parametrize("name", CLIENTS)
def test_clients_on_loops_of_others(name: str, identity: Identity) -> None:
    make, connect = CLIENTS[name]
    told: list[str] = []

    async def come(loop: asyncio.AbstractEventLoop, port: int) -> None:
        loop.set_exception_handler(lambda _, about: told.append(str(about.get("exception"))))
        try:
            await connect(loop, client_of(identity), port)
        except Exception as error:  # noqa: BLE001 - looked at below
            told.append(str(error))

    loop = make()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop.run_until_complete(asyncio.wait_for(come(loop, listener.getsockname()[1]), 20))
    loop.close()
    gc.collect()
    assert any(re.match(SAYS, line) for line in told), told
