"""TLS clients that others wrote, behind one interface: each sends requests to a server and says how it went.

Every request has a connection of its own and asks for its end; each but the first offers to resume the session of the
one before. All clients verify the certificate and its name, where they can.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers_web import Reply, replies
from OpenSSL import SSL

from support.pair import client_context
from support.running import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from support.certificates import Identity

NAME = "localhost"

_SSL_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class Target:
    """What a client is to do.

    Attributes:
        port: On 127.0.0.1.
        identity: The server's; the client trusts its authority.
        version: The only TLS version that the client offers, "1.2" or "1.3".
        ciphers: The TLS 1.2 suites that it offers; empty: its own choice.
        alpn: The protocols that it offers.
    """

    port: int
    identity: Identity
    version: str
    ciphers: str = ""
    alpn: tuple[str, ...] = ()

    @property
    def address(self) -> tuple[str, int]:
        """The same as a socket's address."""
        return ("127.0.0.1", self.port)


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    Attributes:
        version: TLS version that the client says it spoke, such as "TLSv1.3".
        reply: The response.
    """

    version: str
    reply: Reply


def request(body: bytes) -> bytes:
    """Make a POST whose response is the last."""
    head = f"POST /up HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def answer(version: str, raw: bytes) -> Answer:
    """Read the bytes of one response, and nothing else behind them."""
    (reply,) = replies(raw, ["POST"])
    return Answer(version, reply)


def connect(address: tuple[str, int]) -> socket.socket:
    """Open a TCP connection that blocks, with a bound that OpenSSL sees as well: it uses the descriptor directly."""
    sock = socket.create_connection(address)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(PATIENCE), 0))
    return sock


def python_context(target: Target) -> ssl.SSLContext:
    """Make a context of Python's ssl."""
    context = ssl.create_default_context(cafile=target.identity.ca)
    context.minimum_version = context.maximum_version = _SSL_VERSIONS[target.version]
    if target.ciphers:
        context.set_ciphers(target.ciphers)
    if target.alpn:
        context.set_alpn_protocols(list(target.alpn))
    return context


def python_ssl(target: Target, bodies: Sequence[bytes]) -> list[Answer]:
    """Be Python's ssl module."""
    context = python_context(target)
    session = None
    answers = []
    for body in bodies:
        with (
            connect(target.address) as plain,
            # A stream that ends without close_notify is an error.
            context.wrap_socket(plain, server_hostname=NAME, session=session, suppress_ragged_eofs=False) as tls,
        ):
            tls.sendall(request(body))
            raw = read_all(tls)
            # In TLS 1.3 it comes after the handshake.
            session = tls.session
            answers.append(answer(tls.version() or "none", raw))
    return answers


def read_all(tls: ssl.SSLSocket) -> bytes:
    """Read until the server's close_notify; anything else is an error."""
    return b"".join(iter(lambda: tls.recv(1 << 16), b""))


def pyopenssl(target: Target, bodies: Sequence[bytes]) -> list[Answer]:
    """Be pyOpenSSL, with the OpenSSL of the server under test."""
    context = client_context(target.identity, target.version, target.ciphers or None)
    if target.alpn:
        context.set_alpn_protos([name.encode() for name in target.alpn])
    session = None
    answers = []
    for body in bodies:
        with connect(target.address) as plain:
            tls = SSL.Connection(context, plain)
            tls.set_tlsext_host_name(NAME.encode())
            if session is not None:
                tls.set_session(session)
            tls.set_connect_state()
            tls.do_handshake()
            tls.sendall(request(body))
            raw = receive_all(tls)
            session = tls.get_session()
            answers.append(answer(tls.get_protocol_version_name(), raw))
            tls.shutdown()
    return answers


def receive_all(tls: SSL.Connection) -> bytes:
    """Read until the server's close_notify; anything else is an error."""
    raw = bytearray()
    with contextlib.suppress(SSL.ZeroReturnError):
        while True:
            raw += tls.recv(1 << 16)
    return bytes(raw)


def s_client(target: Target, bodies: Sequence[bytes]) -> list[Answer]:
    """Be the openssl command."""
    with tempfile.TemporaryDirectory() as folder:
        session = Path(folder) / "session.pem"
        return [_s_client(target, body, session) for body in bodies]


def _s_client(target: Target, body: bytes, session: Path) -> Answer:
    verify: list[str | Path] = ["-CAfile", target.identity.ca, "-verify_return_error", "-verify_hostname", NAME]
    offers = [f"-tls{target.version.replace('.', '_')}", "-servername", NAME]
    if target.ciphers:
        offers += ["-cipher", target.ciphers]
    if target.alpn:
        offers += ["-alpn", ",".join(target.alpn)]
    sessions: list[str | Path] = ["-sess_out", session]
    if session.exists():
        sessions += ["-sess_in", session]
    # -ign_eof: wait for the server's end, and take no byte of the request for a command.
    connect_to = ["-connect", f"127.0.0.1:{target.port}", "-brief", "-ign_eof"]
    raw, told = _run(["openssl", "s_client", *connect_to, *verify, *offers, *sessions], request(body))
    assert "Verification: OK" in told, told
    return answer(_found(r"^Protocol version: (\S+)", told), raw)


def curl(target: Target, bodies: Sequence[bytes]) -> list[Answer]:
    """Be curl; one process sends all requests, because its sessions live in memory only."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["curl"]
        for index, body in enumerate(bodies):
            Path(folder, f"{index}.up").write_bytes(body)
            command += ["--next"] if index else []
            command += [*_curl_options(target), "--data-binary", f"@{folder}/{index}.up", "-o", f"{folder}/{index}"]
            command += [f"https://{NAME}:{target.port}/up"]
        _, told = _run(command, b"")
        raw = [Path(folder, str(index)).read_bytes() for index in range(len(bodies))]
    versions = re.findall(r"SSL connection using (\S+)", told)
    assert len(versions) == len(bodies), told
    return [answer(version, one) for version, one in zip(versions, raw, strict=True)]


def _curl_options(target: Target) -> list[str]:
    options = ["--silent", "--show-error", "--verbose", "--include", "--http1.1", "--noproxy", "*"]
    options += ["--cacert", str(target.identity.ca), "--resolve", f"{NAME}:{target.port}:127.0.0.1"]
    options += [f"--tlsv{target.version}", "--tls-max", target.version, "-H", "Connection: close"]
    return options + (["--ciphers", target.ciphers] if target.ciphers else [])


def _run(command: Sequence[str | Path], data: bytes) -> tuple[bytes, str]:
    """Run a client that must succeed; return its output, and what it told beside it."""
    done = subprocess.run(list(map(str, command)), input=data, capture_output=True, timeout=PATIENCE, check=False)
    told = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{told}\n{done.stdout[:400]!r}"
    return done.stdout, told


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match, text
    return match[1]


CLIENTS: dict[str, Callable[[Target, Sequence[bytes]], list[Answer]]] = {
    "s_client": s_client,
    "curl": curl,
    "ssl": python_ssl,
    "pyopenssl": pyopenssl,
}


def client_hello(target: Target) -> bytes:
    """Record what Python's ssl says first; a server takes it any number of times."""
    outgoing = ssl.MemoryBIO()
    tls = python_context(target).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


class Crowd:
    """Clients that speak raw bytes over TCP, blocking; they know nothing of TLS, so they are cheap.

    Args:
        address: Of the server.
        count: How many connect at once.
    """

    def __init__(self, address: tuple[str, int], count: int) -> None:
        self.sockets = [connect(address) for _ in range(count)]

    def send(self, data: bytes) -> None:
        """Let each send the same."""
        for sock in self.sockets:
            sock.sendall(data)

    def receive(self, least: int = 1) -> None:
        """Wait until each has received something."""
        for sock in self.sockets:
            assert len(sock.recv(least, socket.MSG_WAITALL)) == least

    def finish(self) -> None:
        """Leave in good order (FIN)."""
        for sock in self.sockets:
            sock.close()

    def reset(self) -> None:
        """Leave with a reset (RST): no linger, no goodbye."""
        for sock in self.sockets:
            reset(sock)

    def wait_closed(self) -> None:
        """Read until the server has closed each connection, in whatever way."""
        for sock in self.sockets:
            drain(sock)
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()


def reset(sock: socket.socket) -> None:
    """Close a socket with a reset (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def drain(sock: socket.socket) -> bytes:
    """Read until the other end has closed; a reset is an end as well."""
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(1 << 16):
            got += data
    return bytes(got)
