"""A client of a key server that shares no code with it: frames as docs/keyless.md has them, over any socket."""

from __future__ import annotations

import itertools
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

PATIENCE = 20.0

# Opcodes.
RSA_DECRYPT, RSA_DECRYPT_RAW, ED25519 = 0x01, 0x08, 0x18
PKCS1 = {"MD5-SHA1": 0x02, "SHA1": 0x03, "SHA224": 0x04, "SHA256": 0x05, "SHA384": 0x06, "SHA512": 0x07}
ECDSA = {name: number + 0x10 for name, number in PKCS1.items()}
PSS = {"SHA256": 0x35, "SHA384": 0x36, "SHA512": 0x37}
SUCCESS, PING, PONG, ERROR = 0xF0, 0xF1, 0xF2, 0xFF

# Codes of errors.
CRYPTOGRAPHY, NO_KEY, VERSION, BAD_OPCODE, UNEXPECTED_OPCODE, FORMAT, INTERNAL = 1, 2, 4, 5, 6, 7, 8


class Answer(NamedTuple):
    """What came back."""

    id: int
    opcode: int
    payload: bytes
    length: int  # of the whole frame

    @property
    def error(self) -> int | None:
        """Its code; None: it is none."""
        return self.payload[0] if self.opcode == ERROR else None


def item(tag: int, data: bytes) -> bytes:
    return struct.pack(">BH", tag, len(data)) + data


def frame(number: int, body: bytes, major: int = 1) -> bytes:
    return struct.pack(">BBHI", major, 0, len(body), number) + body


def request(number: int, opcode: int, payload: bytes = b"", ski: bytes = b"") -> bytes:
    return frame(number, item(0x11, bytes([opcode])) + (item(0x04, ski) if ski else b"") + item(0x12, payload))


class KeylessClient:
    """One connection; a context manager.

    Args:
        sock: Connected; it becomes the client's.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.socket = sock
        self._numbers = itertools.count(1)

    @classmethod
    def local(cls, path: Path | str) -> KeylessClient:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def stuff(self, data: bytes, meanwhile: Callable[[], object], rounds: int = 3) -> int:
        """Send it again and again and read no answer, until the server has taken no more so many times.

        Args:
            data: Requests.
            meanwhile: What to do each time: something that the server has to answer.
            rounds: How many times.

        Returns:
            How many bytes it has taken.
        """
        self.socket.setblocking(False)
        sent = 0
        while rounds:
            taken = self._send_some(data)
            sent += taken
            if not taken:
                meanwhile()
                rounds -= 1
        return sent

    def _send_some(self, data: bytes) -> int:
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    def ask(self, opcode: int, payload: bytes = b"", ski: bytes = b"") -> Answer:
        """Send one request, and wait for its answer."""
        number = next(self._numbers)
        self.send(request(number, opcode, payload, ski))
        answer = self.answer()
        assert answer is not None
        assert answer.id == number
        return answer

    def answer(self) -> Answer | None:
        """Wait for an answer; None: the server has closed the connection."""
        header = self._exactly(8)
        if not header:
            return None
        major, minor, length, number = struct.unpack(">BBHI", header)
        assert (major, minor) == (1, 0)
        items = dict(_items(self._exactly(length)))
        return Answer(number, items[0x11][0], items.get(0x12, b""), 8 + length)

    def _exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            try:
                piece = self.socket.recv(size - len(got))
            except ConnectionError:
                piece = b""
            if not piece:
                assert not got, "half an answer"
                return b""
            got += piece
        return got


def _items(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        tag, length = struct.unpack_from(">BH", body)
        found.append((tag, body[3 : 3 + length]))
        body = body[3 + length :]
    return found
