"""Key servers, a server that asks them, and its clients, each in a process of its own; for load, and for kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from support import apart
from support.asking import private_key
from support.certificates import Identity
from support.child_server import ChildServer, allow_many_files, say
from support.key_server import key_id, perform
from support.leaks import PATIENCE
from support.storm import Storm
from tlsserver import Server, TLSContext
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.signers.keyless import Decoder, Message, Opcode, encode, pong, success
from tlsserver.signers.remote import RemoteSigner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from tlsserver.reactor import Reactor

TICK = 0.002
PACE = 0.002


class KeyProcess:
    """A key server with a latency, at a Unix socket. It takes any number at once.

    Args:
        identity: Whose key it has.
        path: Of its socket.
        milliseconds: From each request to its answer.
    """

    def __init__(self, identity: Identity, path: Path, milliseconds: float) -> None:
        self._command = apart.command(__name__, "serve_keys", identity.cert, identity.key, str(path), str(milliseconds))
        self.address = f"unix:{path}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, env=apart.environment())
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def kill(self) -> None:
        """End it as a crash does."""
        with self._process:
            self._process.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Answering(asyncio.Protocol):
    """One connection of such a key server."""

    def __init__(self, keys: dict[bytes, Any], seconds: float) -> None:
        self._keys = keys
        self._seconds = seconds
        self._decoder = Decoder()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            assert isinstance(message, Message)
            if message.opcode == Opcode.PING:
                self._transport.write(encode(pong(message.id, message.payload), pad=False))
            else:
                asyncio.get_running_loop().call_later(self._seconds, self._answer, message)

    def _answer(self, request: Message) -> None:
        self._transport.write(encode(success(request.id, perform(self._keys[request.ski], request)), pad=False))


def serve_keys(certificate: str, key: str, path: str, milliseconds: str) -> None:
    """Be a key server until somebody ends it."""
    identity = Identity("", Path(certificate), Path(key), Path())
    keys = {key_id(identity): private_key(identity)}

    async def serve() -> None:
        Path(path).unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Answering(keys, float(milliseconds) / 1000), path)
        say("listening")
        await server.serve_forever()

    asyncio.run(serve())


class RemoteSite(ChildServer):
    """An echo server whose key is with key servers.

    Args:
        identity: Its certificate.
        addresses: Of the key servers.
        options: Of the signer.
    """

    def __init__(self, identity: Identity, addresses: Sequence[str], **options: Any) -> None:
        super().__init__(
            __name__, json.dumps({"cert": str(identity.cert), "addresses": list(addresses), "options": options})
        )

    def report(self) -> dict[str, Any]:
        """Ask for its statistics, and for ``stall``: the longest time since the last report that its loop was late."""
        found: dict[str, Any] = self.ask("report")
        return found

    def until_up(self) -> None:
        """Wait until all its key servers are up."""
        give_up = time.monotonic() + 30
        while any(one["state"] != "up" for one in self.report()["signers"]):
            assert time.monotonic() < give_up
        self.report()


class Stall:
    """How late a loop is at the worst."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._due = time.monotonic()
        self.worst = 0.0
        reactor.call_soon_threadsafe(self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        self.worst = max(self.worst, now - self._due)
        self._due = now + TICK
        self._reactor.call_later(TICK, self._tick)


def serve(settings: str) -> None:
    """Be the server, until standard input ends."""
    given = json.loads(settings)
    allow_many_files()
    with RemoteSigner(given["addresses"], **given["options"]) as signer:
        context = TLSContext(given["cert"], signer.load_key(given["cert"]))
        server = Server(context, EchoProtocol, port=0, max_handshakes=10_000)
        _, port = server.listen()
        assert server._service is not None
        stall = Stall(server._service.reactor)
        server.start()
        say(port)
        for _ in sys.stdin:
            say({**server.statistics().as_dict(), "stall": stall.worst})
            stall.worst = 0.0
        server.stop(5)


def client_context() -> ssl.SSLContext:
    """Make a cheap client: it checks the handshake's signature, not the certificate's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Pinger:
    """An open connection on which a byte is due every `PACE` seconds, whether the ones before have come back or not.

    A loop that stands still shows in every byte that it kept waiting.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        plain = socket.create_connection(address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = client_context().wrap_socket(plain)
        self._tls.setblocking(False)
        self._due: deque[float] = deque()
        self.times: list[float] = []

    def run(self, until: IO[str]) -> None:
        """Ping until something can be read there."""
        start, sent = time.perf_counter(), 0
        stopping = False
        while not stopping or self._due:
            next_due = start + sent * PACE
            patience = max(next_due - time.perf_counter(), 0) if not stopping else PATIENCE
            ready, _, _ = select.select([self._tls, *([] if stopping else [until])], [], [], patience)
            stopping = stopping or until in ready
            if self._tls in ready:
                self._receive()
            if time.perf_counter() >= next_due and not stopping:
                self._tls.send(b"x")
                self._due.append(next_due)
                sent += 1

    def _receive(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            data = self._tls.recv(1 << 16)
            now = time.perf_counter()
            self.times += [now - self._due.popleft() for _ in data]

    def close(self) -> None:
        """Leave."""
        self._tls.close()


def storm(port: str, count: str) -> None:
    """Be so many clients that begin at once; say when they are ready, begin when told, and say when each is done."""
    allow_many_files()
    with Storm(("127.0.0.1", int(port)), int(count), client_context()) as clients:
        say("ready")
        sys.stdin.readline()
        say(clients.handshake())
        sys.stdin.readline()


def keep_coming(port: str, rate: str, seconds: str) -> None:
    """Be clients who come at a rate; say how many were served, and what the others met."""
    context = client_context()
    failures: list[str] = []
    start = time.monotonic()
    never = threading.Event()

    def visit(index: int) -> None:
        due = start + index / float(rate)
        never.wait(max(due - time.monotonic(), 0))
        try:
            with (
                socket.create_connection(("127.0.0.1", int(port)), 20) as plain,
                context.wrap_socket(plain) as tls,
            ):
                tls.sendall(b"?")
                assert tls.recv(1) == b"?"
        except OSError as error:
            failures.append(repr(error))

    count = int(float(rate) * float(seconds))
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(visit, range(count)))
    say({"count": count, "failures": failures, "seconds": time.monotonic() - start})
