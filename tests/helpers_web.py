"""A connection in memory (transport, clock, and a client's eye for what was written), and the server as a process."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import http.client
import itertools
import json
import re
import signal
import ssl
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import h11

from tlsserver.protocols import http1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path


class FakeTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeScheduler:
    """A loop whose time stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.soon: deque[Callable[[], object]] = deque()
        self._later: list[tuple[float, int, FakeTimer]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object], /) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._later, (self.now + delay, next(self._order), timer))
        return timer

    def turn(self) -> None:
        """Run what is due now, and nothing that this brings about."""
        for _ in range(len(self.soon)):
            self.soon.popleft()()

    def settle(self) -> None:
        while self.soon:
            self.turn()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        self.settle()
        while self._later and self._later[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._later)
            if timer.callback is not None:
                timer.callback()
            self.settle()
        self.now = end

    @property
    def timers(self) -> int:
        return sum(timer.callback is not None for _, _, timer in self._later)


class FakeTransport(asyncio.Transport):
    """Keeps what was written. With `room`, the protocol is paused when more than that is unsent.

    The rules of the real one are asserted: nothing is written to, or asked of, a connection that was closed.
    """

    def __init__(self, protocol: asyncio.Protocol, room: int | None = None, **extra: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.extra = extra
        self.written = bytearray()
        self.writes = 0
        self.unsent = 0
        self.room = room
        self.paused = False
        self.reading = True
        self.closed = False
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after close"
        assert data, "nothing was written"
        self.written += data
        self.writes += 1
        if self.room is not None:
            self.unsent += len(data)
            if self.unsent > self.room and not self.paused:
                self.paused = True
                self.protocol.pause_writing()

    def drain(self) -> int:
        """Let the client take everything; return how many bytes that were."""
        taken, self.unsent = self.unsent, 0
        if self.paused:
            self.paused = False
            self.protocol.resume_writing()
        return taken

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert not self.closed, "paused after close"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.closed, "resumed after close"
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.extra.get(name, default)


class Wire:
    """A protocol, its transport and its loop. What is fed while reading is paused waits, as in the kernel."""

    def __init__(self, protocol: asyncio.Protocol, room: int | None = None, **extra: Any) -> None:
        self.loop = FakeScheduler()
        self.protocol = protocol
        self.transport = FakeTransport(protocol, room, reactor=self.loop, **extra)
        self._kernel: deque[bytes] = deque()
        protocol.connection_made(self.transport)

    def feed(self, *pieces: bytes) -> Wire:
        """Let bytes arrive; an empty piece is the end of the stream."""
        self._kernel.extend(pieces)
        self.settle()
        return self

    def settle(self) -> None:
        self.loop.settle()
        while self._kernel and self.transport.reading and not self.transport.closed:
            piece = self._kernel.popleft()
            if piece:
                self.protocol.data_received(piece)
            elif not self.protocol.eof_received():
                self.transport.close()
            self.loop.settle()

    def eof(self) -> Wire:
        return self.feed(b"")

    def lose(self, error: Exception | None = None) -> None:
        self.transport.closed = True
        self.protocol.connection_lost(error)

    def replies(self, methods: Sequence[str] = ("GET",)) -> list[Reply]:
        return replies(bytes(self.transport.written), methods)

    def reply(self, method: str = "GET") -> Reply:
        (reply,) = self.replies([method])
        return reply


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)


def replies(raw: bytes, methods: Sequence[str]) -> list[Reply]:
    """Read `raw` as the answers to requests with these methods, and nothing else behind them."""
    client = h11.Connection(h11.CLIENT)
    client.receive_data(raw)
    client.receive_data(b"")
    found = []
    for index, method in enumerate(methods):
        client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        found.append(_reply(client))
        if index + 1 < len(methods):
            client.start_next_cycle()
    assert client.trailing_data[0] == b""
    return found


def _reply(client: h11.Connection) -> Reply:
    interim = []
    event = client.next_event()
    while isinstance(event, h11.InformationalResponse):
        interim.append(event.status_code)
        event = client.next_event()
    assert isinstance(event, h11.Response)
    headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
    reply = Reply(event.status_code, headers, interim=interim)
    while isinstance(event := client.next_event(), h11.Data):
        reply.body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return reply


def get(target: str = "/", *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1")


def post(body: bytes, *headers: str) -> bytes:
    return get("/", f"Content-Length: {len(body)}", *headers, method="POST") + body


def request_of(handler: http1.Handler, target: str = "/", *headers: str, method: str = "GET", **extra: Any) -> Reply:
    """Send one request through the whole protocol."""
    return Wire(http1.Http1Protocol(handler), **extra).feed(get(target, *headers, method=method)).reply(method)


class Pieces:
    """A body that counts how far it was pulled, and how often it was closed."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = iter(pieces)
        self.pulled = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self.pieces)
        self.pulled += 1
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed += 1


class Connections:
    """What the server tells about a connection, as the demo site shows it."""

    tls = SimpleNamespace(
        version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        group="X25519MLKEM768",
        alpn="http/1.1",
        reused=False,
        server_name="localhost",
    )
    parked = SimpleNamespace(parks=1, seconds=0.0018)
    not_parked = SimpleNamespace(parks=0, seconds=0.0)


async def serve_plain(factory: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    """Serve over plain TCP with asyncio: the other loop that a protocol must fit."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(factory, "127.0.0.1", 0)


class Serving:
    """A `tlsserver serve` that is running. It has said all that it says at its start."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tlsserver", "serve", "--port=0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if line.startswith("  stop "):
                break
        found = re.search(r"https://\S+:(\d+)/", self.said)
        assert found, self.process.communicate()[1]
        self.port = int(found[1])

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/"

    def connect(self, certificate: str | Path) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(certificate))
        return http.client.HTTPSConnection("localhost", self.port, context=context, timeout=20)

    def get(self, certificate: str | Path, path: str = "/") -> bytes:
        with contextlib.closing(self.connect(certificate)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()

    def connection(self, certificate: str | Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(certificate, "/connection.json"))
        return found

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        errors = self.process.communicate(timeout=30)[1]
        return self.process.returncode, errors


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Serving]:
    served = Serving(*arguments)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()
