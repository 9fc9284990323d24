"""Clients that break the rules, or only try everybody's patience.

Invariant: such a client is told so (an alert, a plain 400) or dropped, its connection leaves nothing behind, and the
server serves the next client, and those that are open, as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

from support.clients import NAME, Target, client_hello, connect, drain, python_context, receive_all
from support.pair import client_context
from support.rough import (
    ALERT,
    CLOSE_NOTIFY,
    DATA,
    DECODE_ERROR,
    FATAL,
    HANDSHAKE,
    HANDSHAKE_FAILURE,
    PROTOCOL_VERSION,
    RECORD_OVERFLOW,
    UNEXPECTED_MESSAGE,
    WARNING,
    Scene,
    alert_in,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


pytest_plugins = ("support.rough_scene",)

VERSIONS = ("1.2", "1.3")


@pytest.fixture
def hello(scene: Scene) -> bytes:
    return client_hello(scene.target())


# What is no TLS.


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100,
        b"\xff" * 100_000,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"EHLO example.org\r\n",
        b"\x16",
        b"\x80\x2e\x01\x03\x01" + bytes(40),
        bytes(range(256)) * 100,
    ],
    ids=["zeros", "ones", "ssh", "smtp", "one byte", "SSLv2 hello", "all bytes"],
)
def test_garbage(scene: Scene, data: bytes) -> None:
    before = scene.site.statistics()
    answer = scene.say(data)
    assert len(answer) <= 7  # nothing, or an alert
    now = scene.site.until(lambda numbers: numbers.connections_open == 1)
    assert now.handshakes_failed == before.handshakes_failed + 1


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT"])
def test_plain_http_gets_a_plain_answer(scene: Scene, method: str) -> None:
    answer = scene.say(f"{method} / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"Connection: close" in head
    assert b"https://" in body
    assert f"Content-Length: {len(body)}".encode() in head


def test_plain_http_that_comes_byte_by_byte(scene: Scene) -> None:
    answer = scene.say(*[bytes([byte]) for byte in b"GET / HTTP/1.1\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_connect_request_of_a_confused_proxy(scene: Scene) -> None:
    assert scene.say(b"CONNECT example.org:443 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")


# Records.


def test_every_truncation_of_a_hello(scene: Scene, hello: bytes) -> None:
    """The end of the stream comes after each of its bytes."""
    before = scene.site.statistics()
    for length in range(len(hello)):
        assert len(scene.say(hello[:length])) <= 7
    now = scene.site.until(lambda numbers: numbers.connections_open == 1)
    assert now.handshakes_failed == before.handshakes_failed + len(hello)
    assert now.handshakes_parked == before.handshakes_parked


def test_oversized_record(scene: Scene) -> None:
    """More than 2^14 + 256 bytes in one record (RFC 8446, section 5.2)."""
    assert alert_in(scene.say(record(HANDSHAKE, b"\x01\x00\xff\xff" + bytes(65_000)))) == RECORD_OVERFLOW


def test_record_of_no_bytes(scene: Scene) -> None:
    """Empty fragments of a handshake message are not allowed (RFC 8446, section 5.1), and never lead anywhere."""
    assert len(scene.say(record(HANDSHAKE, b"") * 1000)) <= 7


@pytest.mark.parametrize("version", VERSIONS)
def test_hello_in_records_of_one_byte(scene: Scene, version: str) -> None:
    """Wasteful and allowed (RFC 8446, section 5.1)."""
    hello = client_hello(scene.target(version))[5:]
    with connect(scene.site.address) as sock:
        sock.sendall(b"".join(record(HANDSHAKE, hello[at : at + 1]) for at in range(len(hello))))
        assert sock.recv(1) == bytes([HANDSHAKE])


def test_hello_of_sixteen_megabytes(scene: Scene) -> None:
    """The length that the message claims is refused before its bytes are gathered."""
    with connect(scene.site.address) as sock:
        sock.sendall(record(HANDSHAKE, b"\x01\xff\xff\xff" + bytes(1000)))
        assert alert_in(drain(sock)) is not None


@pytest.mark.parametrize("kind", [0, 20, DATA, 24, 255])
def test_record_of_another_kind_first(scene: Scene, kind: int) -> None:
    answer = scene.say(record(kind, bytes(32)))
    # 255 looks like the length of a record of SSLv2.
    assert alert_in(answer) in {UNEXPECTED_MESSAGE, RECORD_OVERFLOW, PROTOCOL_VERSION, DECODE_ERROR, None}
    assert len(answer) <= 7


@pytest.mark.parametrize("version", VERSIONS)
def test_byte_by_byte(scene: Scene, version: str) -> None:
    """Each byte in a segment of its own, the whole handshake and the data: slow, and nothing else wrong with it."""
    tls, plain = memory_client(scene.target(version)), connect(scene.site.address)
    with plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not tls.step():
            drip(plain, tls.outgoing.read())
            tls.incoming.write(plain.recv(1 << 16))
        tls.tls.write(b"slow")
        drip(plain, tls.outgoing.read())
        while (got := tls.maybe_read()) is None:
            tls.incoming.write(plain.recv(1 << 16))
        assert got == b"slow"


class MemoryClient:
    """Python's ssl without a socket."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)

    def step(self) -> bool:
        """Go on with the handshake; whether it is done and all was sent."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return not self.outgoing.pending

    def maybe_read(self) -> bytes | None:
        """Return what can be decrypted; None: more bytes are needed."""
        try:
            return self.tls.read(1 << 16)
        except ssl.SSLWantReadError:
            return None


def memory_client(target: Target) -> MemoryClient:
    return MemoryClient(python_context(target))


def drip(sock: socket.socket, data: bytes) -> None:
    for byte in data:
        sock.sendall(bytes([byte]))


# Nothing in common.


@pytest.mark.parametrize(
    ("version", "alerts"),
    [
        (0x0300, {PROTOCOL_VERSION, HANDSHAKE_FAILURE}),  # OpenSSL 3.0 sends the second, in a record of SSL 3.0
        (0x0301, {PROTOCOL_VERSION}),
        (0x0302, {PROTOCOL_VERSION}),
    ],
)
def test_old_version(scene: Scene, version: int, alerts: set[int]) -> None:
    """SSL 3.0, TLS 1.0 and 1.1 are told so (RFC 8996)."""
    old = bytearray(client_hello(scene.target("1.2")))
    old[9:11] = version.to_bytes(2, "big")  # ClientHello.legacy_version; this one has no supported_versions
    assert alert_in(scene.say(bytes(old))) in alerts


def test_no_shared_cipher(scene: Scene) -> None:
    """The server's key is an EC one."""
    hello = client_hello(scene.target("1.2", ciphers="ECDHE-RSA-AES128-GCM-SHA256"))
    assert alert_in(scene.say(hello)) == HANDSHAKE_FAILURE


@pytest.mark.parametrize("version", VERSIONS)
def test_no_shared_application_protocol(scene: Scene, version: str) -> None:
    """RFC 7301, section 3.2."""
    context = python_context(scene.target(version, alpn=("h3", "imap")))
    with connect(scene.site.address) as plain, pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        context.wrap_socket(plain, server_hostname=NAME)


@pytest.mark.parametrize("version", VERSIONS)
def test_renegotiation_is_refused(scene: Scene, version: str) -> None:
    """The client gives up or goes on (TLS 1.3 has none: OpenSSL refuses by itself); the server does nothing."""
    with pyopenssl_client(scene.target(version)) as tls:
        before = scene.site.statistics()
        with contextlib.suppress(SSL.Error):
            tls.renegotiate()
            for _ in range(100):
                tls.do_handshake()
    now = scene.site.until(lambda numbers: numbers.connections_open == 1)
    assert now.handshakes_parked == before.handshakes_parked
    assert now.handshakes_completed == before.handshakes_completed


@contextlib.contextmanager
def pyopenssl_client(target: Target) -> Iterator[SSL.Connection]:
    """Give a client whose handshake the server has finished as well."""
    with connect(target.address) as plain:
        tls = SSL.Connection(client_context(target.identity, target.version), plain)
        tls.set_connect_state()
        tls.do_handshake()
        tls.sendall(b"?")
        assert tls.recv(1) == b"?"
        yield tls


# close_notify, in every state.


@pytest.mark.parametrize("level", [WARNING, FATAL])
def test_close_notify_first(scene: Scene, level: int) -> None:
    assert len(scene.say(record(ALERT, bytes([level, CLOSE_NOTIFY])))) <= 7


def test_close_notify_after_the_hello(scene: Scene, hello: bytes) -> None:
    scene.say(hello + record(ALERT, bytes([WARNING, CLOSE_NOTIFY])))


def test_a_flood_of_warnings(scene: Scene) -> None:
    """Each is harmless, and no handshake ever comes of them."""
    assert len(scene.say(record(ALERT, bytes([WARNING, 90])) * 10_000)) <= 7


@pytest.mark.parametrize("version", VERSIONS)
def test_close_notify_is_answered(scene: Scene, version: str) -> None:
    """What was sent before it is answered, too; then comes the server's own."""
    with pyopenssl_client(scene.target(version)) as tls:
        tls.sendall(b"the last words" * 1000)
        assert not tls.shutdown()
        assert receive_all(tls) == b"the last words" * 1000
        assert tls.shutdown()


@pytest.mark.parametrize("version", VERSIONS)
def test_data_after_close_notify(scene: Scene, version: str) -> None:
    client = memory_client(scene.target(version))
    with connect(scene.site.address) as plain:
        while not client.step():
            plain.sendall(client.outgoing.read())
            client.incoming.write(plain.recv(1 << 16))
        plain.sendall(client.outgoing.read())
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
        plain.sendall(client.outgoing.read() + record(DATA, bytes(64), 0x0303))
        drain(plain)


@pytest.mark.parametrize("version", VERSIONS)
def test_end_of_the_stream_without_close_notify(scene: Scene, version: str) -> None:
    plain = connect(scene.site.address)
    tls = python_context(scene.target(version)).wrap_socket(plain, server_hostname=NAME)
    raw = socket.socket(fileno=tls.detach())
    with raw:
        raw.shutdown(socket.SHUT_WR)
        drain(raw)


@pytest.mark.parametrize("version", VERSIONS)
def test_garbage_after_the_handshake(scene: Scene, version: str) -> None:
    """A record that cannot be decrypted ends the connection (bad_record_mac, unexpected_message)."""
    plain = connect(scene.site.address)
    tls = python_context(scene.target(version)).wrap_socket(plain, server_hostname=NAME)
    with socket.socket(fileno=tls.detach()) as raw:
        raw.sendall(record(DATA, bytes(range(200)), 0x0303))
        drain(raw)
