"""Key servers, a server that asks them, and its clients, each in a process of its own; for load, and for kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
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
from support.key_server import key_id, perform, server_tls
from support.leaks import PATIENCE
from support.storm import Storm
from tlsserver import Server, TLSContext
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.signers.keyless import Decoder, Message, Opcode, encode, pong, success
from tlsserver.signers.remote import ClientTLS, RemoteSigner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from tlsserver.reactor import Reactor

TICK = 0.002
PACE = 0.002
PAUSE = 0.01
NEVER = threading.Event()
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class KeyProcess:
    """A key server with a latency. It takes any number at once.

    Args:
        identity: Whose key it has.
        place: The path of its Unix socket, or the authority of its clients: then it speaks TLS, at a TCP port.
        milliseconds: From each request to its answer.
    """

    def __init__(self, identity: Identity, place: Path, milliseconds: float) -> None:
        self._identity = identity
        self._place = place
        self._milliseconds = milliseconds
        self._port = 0
        self.start()

    @property
    def address(self) -> str:
        """Where it is, in the signer's words."""
        return f"localhost:{self._port}" if self._port else f"unix:{self._place}"

    def start(self) -> None:
        """Start it, where it was before, and wait until it listens."""
        arguments = (self._identity.cert, self._identity.key, self._place, str(self._milliseconds), str(self._port))
        command = apart.command(__name__, "serve_keys", *arguments)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=apart.environment())
        assert self._process.stdout is not None
        self._port = json.loads(self._process.stdout.readline())

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


def serve_keys(certificate: str, key: str, place: str, milliseconds: str, port: str) -> None:
    """Be a key server until somebody ends it; say the port first, 0 of a Unix socket."""
    identity = Identity("", Path(certificate), Path(key), Path())
    keys = {key_id(identity): private_key(identity)}
    by_tcp = Path(place).suffix == ".pem"
    if not by_tcp:
        Path(place).unlink(missing_ok=True)

    def answering() -> Answering:
        return Answering(keys, float(milliseconds) / 1000)

    async def listen() -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if by_tcp:
            tls = server_tls(identity, Path(place))
            return await loop.create_server(answering, "127.0.0.1", int(port), ssl=tls)
        return await loop.create_unix_server(answering, place)

    async def serve() -> None:
        server = await listen()
        name = server.sockets[0].getsockname()
        say(name[1] if isinstance(name, tuple) else 0)
        await server.serve_forever()

    asyncio.run(serve())


class RemoteSite(ChildServer):
    """An echo server whose key is with key servers.

    Args:
        identity: Its certificate.
        addresses: Of the key servers.
        tls: Of `ClientTLS`: its fields.
        options: Of the signer.
    """

    def __init__(
        self, identity: Identity, addresses: Sequence[str], *, tls: dict[str, str] | None = None, **options: Any
    ) -> None:
        given = {"cert": str(identity.cert), "addresses": list(addresses), "tls": tls, "options": options}
        super().__init__(__name__, json.dumps(given))
        self._worst = 0.0

    def report(self) -> dict[str, Any]:
        """Ask for its statistics."""
        found: dict[str, Any] = self.ask("report")
        self._worst = max(self._worst, found["stall"])
        return found

    def until(self, condition: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        """Wait until the numbers of its signers are such; returns them."""
        give_up = time.monotonic() + PATIENCE
        signers: list[dict[str, Any]] = []
        while not signers or not condition(signers):
            assert time.monotonic() < give_up, signers
            NEVER.wait(PAUSE)  # each report takes the interpreter from the loop for a moment
            signers = self.report()["signers"]
        return signers

    def until_up(self) -> None:
        """Wait until all its key servers are up."""
        self.until(lambda signers: all(one["state"] == "up" for one in signers))
        self.stall()

    def stall(self) -> float:
        """Tell how late its loop was at the worst since this was asked last, in seconds."""
        self.report()
        worst, self._worst = self._worst, 0.0
        return worst


class Stall:
    """How late a loop is at the worst by its own fault: what it waited for a CPU is taken off."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._due = math.inf
        self._waited = 0.0
        self.worst = 0.0
        reactor.call_soon_threadsafe(self._tick)

    def _tick(self) -> None:
        now, waited = time.monotonic(), waited_for_a_cpu()
        self.worst = max(self.worst, now - self._due - (waited - self._waited))
        self._due, self._waited = now + TICK, waited
        self._reactor.call_later(TICK, self._tick)


def waited_for_a_cpu() -> float:
    """Tell for how many seconds this thread could have run, and did not (proc(5), schedstat)."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def serve(settings: str) -> None:
    """Be the server, until standard input ends."""
    given = json.loads(settings)
    allow_many_files()
    tls = given["tls"] and ClientTLS(**given["tls"])
    with RemoteSigner(given["addresses"], tls=tls, **given["options"]) as signer:
        context = TLSContext(given["cert"], signer.load_key(given["cert"]))
        server = Server(context, EchoProtocol, port=0, max_handshakes=10_000)
        _, port = server.listen()
        assert server._service is not None
        stall = Stall(server._service.reactor)
        gc.collect()
        gc.freeze()  # as `tlsserver serve` does: a collection of all modules takes 40 ms
        server.start()
        say(port)
        for _ in sys.stdin:
            say({**server.statistics().as_dict(), "stall": stall.worst})
            stall.worst = 0.0
        server.stop(5)


def client_context(version: str = "1.3") -> ssl.SSLContext:
    """Make a cheap client: it checks the handshake's signature, not the certificate's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


class Crowd:
    """Clients in a process of their own; a context manager.

    Args:
        function: `storm` or `keep_coming`.
        arguments: Of it.

    Attributes:
        output: Readable when they are done.
    """

    def __init__(self, function: Callable[..., None], *arguments: object) -> None:
        self._process = subprocess.Popen(
            apart.command(__name__, function.__name__, *map(str, arguments)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=apart.environment(),
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout
        assert self.answer() == "ready"

    def begin(self) -> None:
        """Let them begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("begin\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for what they say."""
        return json.loads(self.output.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


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
            watched: list[Any] = [self._tls] if stopping else [self._tls, until]
            ready, _, _ = select.select(watched, [], [], patience)
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


def storm(port: str, count: str, version: str) -> None:
    """Be so many clients that begin at once; say when each was done, in seconds since then. They stay until the end."""
    allow_many_files()
    with Storm(("127.0.0.1", int(port)), int(count), client_context(version)) as clients:
        say("ready")
        sys.stdin.readline()
        say(clients.handshake())
        sys.stdin.readline()


def keep_coming(port: str, rate: str, seconds: str, version: str) -> None:
    """Be clients who come at a rate; say how many there were, what some met instead of service, and the slowest."""
    context = client_context(version)
    failures: list[str] = []
    took: list[float] = []

    def visit(due: float) -> None:
        NEVER.wait(max(due - time.monotonic(), 0))
        try:
            with (
                socket.create_connection(("127.0.0.1", int(port)), 20) as plain,
                context.wrap_socket(plain) as tls,
            ):
                tls.sendall(b"?")
                assert tls.recv(1) == b"?"
        except OSError as error:
            failures.append(repr(error))
        took.append(time.monotonic() - due)

    count = int(float(rate) * float(seconds))
    with ThreadPoolExecutor(64) as pool:
        say("ready")
        sys.stdin.readline()
        start = time.monotonic()
        list(pool.map(visit, [start + index / float(rate) for index in range(count)]))
    say({"count": count, "failures": failures, "seconds": time.monotonic() - start, "slowest": max(took)})
