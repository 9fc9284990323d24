"""A key server that does as it is told: the far end of the protocol, on threads of its own, with blocking sockets.

By default it is honest. A test gives it a script that is called with every request and may do anything instead.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from support.asking import private_key
from support.leaks import PATIENCE
from tlsserver.signers.keyless import Decoder, ErrorCode, Message, Opcode, encode, error, pong, success

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from support.certificates import Identity

    Script = Callable[["Conversation", Message], object]


class Conversation:
    """One connection, as the key server has it.

    Attributes:
        number: Of the connection, from 1.
        server: Whose it is.
        requests: What has come, but for pings.
    """

    def __init__(self, server: KeyServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.number = number
        self.requests: list[Message] = []
        self._socket = sock
        self._lock = threading.Lock()

    def send(self, data: bytes) -> None:
        """Send bytes, whatever they are; nothing happens if nobody is there."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(data)

    def answer(self, request: Message) -> None:
        """Answer as one should."""
        self.send(self.server.answer_to(request))

    def close(self) -> None:
        """Hang up without a word."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Take what comes until the end."""
        decoder = Decoder()
        with contextlib.suppress(OSError), self._socket:
            while data := self._socket.recv(1 << 16):
                for message in decoder.feed(data):
                    assert isinstance(message, Message), message
                    self._take(message)

    def _take(self, message: Message) -> None:
        if message.opcode == Opcode.PING:
            self.server.on_ping(self, message)
            return
        self.requests.append(message)
        self.server.count(message)
        self.server.script(self, message)


class KeyServer:
    """A context manager: it listens until the end of the block.

    Args:
        identities: Whose keys it has.
        path: Where to listen; None: on a TCP port of 127.0.0.1, in TLS.
        tls: Of the TLS; see `server_tls`.
        script: Called with each request; None: it answers.
        on_ping: Called with each ping; None: it answers.
    """

    def __init__(
        self,
        identities: Sequence[Identity],
        path: Path | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        script: Script | None = None,
        on_ping: Script | None = None,
        port: int = 0,
    ) -> None:
        self.keys = {key_id(one): private_key(one) for one in identities}
        self.script = script or Conversation.answer
        self.on_ping = on_ping or (lambda conversation, ping: conversation.send(encode(pong(ping.id), pad=False)))
        self.conversations: list[Conversation] = []
        self.requests: list[Message] = []
        self._path = path
        self._port = port
        self._tls = tls
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._listening: socket.socket | None = None

    @property
    def address(self) -> str:
        """Where it is, in the signer's words."""
        if self._path is not None:
            return f"unix+tls:{self._path}" if self._tls else f"unix:{self._path}"
        return f"localhost:{self._port}"

    def start(self) -> None:
        """Listen, at the same address as before."""
        if self._path is None:
            self._listening = socket.create_server(("127.0.0.1", self._port))
            self._port = self._listening.getsockname()[1]
        else:
            self._path.unlink(missing_ok=True)
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(str(self._path))
            self._listening.listen(128)
        self._run(self._accept, self._listening)

    def stop(self) -> None:
        """End as a process does that is killed: everything is closed, in the middle of whatever it was."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for conversation in self.conversations:
            conversation.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._threads.clear()

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until it holds; looked at whenever a connection or a request has come."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), f"{len(self.requests)} requests have come"

    def count(self, message: Message) -> None:
        """Note a request."""
        with self._changed:
            self.requests.append(message)
            self._changed.notify_all()

    def answer_to(self, request: Message) -> bytes:
        """Make the right answer."""
        key = self.keys.get(request.ski)
        if key is None:
            return encode(error(request.id, ErrorCode.KEY_NOT_FOUND), pad=False)
        return encode(success(request.id, perform(key, request)), pad=False)

    def _run(self, target: Callable[..., object], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="key-server")
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listening.accept()
                if self._listening is not listening:
                    sock.close()
                    return
                self._run(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        if self._tls is not None:
            sock.settimeout(PATIENCE)
            try:
                sock = self._tls.wrap_socket(sock, server_side=True)
            except OSError:
                sock.close()
                return
            sock.settimeout(None)
        with self._changed:
            conversation = Conversation(self, sock, len(self.conversations) + 1)
            self.conversations.append(conversation)
            self._changed.notify_all()
        conversation.serve()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def perform(key: Any, request: Message) -> bytes:
    """Do what a request asks for, with another library."""
    opcode = Opcode(request.opcode)
    if opcode.operation == "decrypt":
        numbers = key.private_numbers()
        plain = pow(int.from_bytes(request.payload, "big"), numbers.d, numbers.public_numbers.n)
        return bytes(plain.to_bytes(key.key_size // 8, "big"))
    if opcode.digest_name is None:
        return bytes(key.sign(request.payload))
    digest: Any = getattr(hashes, opcode.digest_name)()  # cryptography has a class for each
    hashed = utils.Prehashed(digest)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return bytes(key.sign(request.payload, ec.ECDSA(hashed)))
    if opcode.padding == "pkcs1":
        return bytes(key.sign(request.payload, padding.PKCS1v15(), hashed))
    pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
    return bytes(key.sign(request.payload, pss, hashed))


def server_tls(identity: Identity, clients: Path, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Make the TLS of a key server.

    Args:
        identity: The key server's own.
        clients: The authority of its clients.
        version: The only one it speaks; None: any.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    context.load_verify_locations(clients)
    context.verify_mode = ssl.CERT_REQUIRED
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def key_id(identity: Identity) -> bytes:
    certificate = x509.load_pem_x509_certificate(identity.cert.read_bytes())
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
