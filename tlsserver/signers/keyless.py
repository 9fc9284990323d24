"""The keyless wire format: messages to bytes, and bytes to messages.

No socket, no clock. docs/keyless.md is the format; `tlsserver.signers.keyless_ops` has its numbers.

A stream is frames, and a frame's length stands in its header: whatever is wrong inside a body, the next frame is still
found. So what is wrong inside costs one message (`BadMessage`), and only what is wrong with the frames costs the stream
(`KeylessError`). A length has 16 bits, so a decoder never holds more than one frame and what it was just fed.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from tlsserver.errors import PeerError
from tlsserver.signers.keyless_ops import ErrorCode, Opcode, Tag

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "HEADER_SIZE",
    "MAX_BODY",
    "PADDED_SIZE",
    "BadMessage",
    "Decoder",
    "ErrorCode",
    "KeylessError",
    "Message",
    "Opcode",
    "Tag",
    "encode",
    "error",
    "ping",
    "pong",
    "success",
]

MAJOR_VERSION: Final = 1
MINOR_VERSION: Final = 0
HEADER_SIZE: Final = 8  # major version, minor version, length of the body, request id
MAX_BODY: Final = 0xFFFF
PADDED_SIZE: Final = 1024  # of header and body together
SKI_SIZE: Final = 20
DIGEST_SIZE: Final = 32

_MAX_OPCODE = 0xFF
_MAX_ID = 0xFFFFFFFF
_MAX_TAG = 0xFF
_OWN_FIELD = frozenset[int](
    {
        *(Tag.OPCODE, Tag.PAYLOAD, Tag.PADDING, Tag.SKI, Tag.DIGEST),
        *(Tag.CLIENT_IP, Tag.SERVER_IP, Tag.SERVER_NAME, Tag.CERTIFICATE_ID),
    }
)
_HEADER = struct.Struct(">BBHI")
_ITEM = struct.Struct(">BH")
_OPCODE_ITEM = struct.Struct(">BHB")
_NAME = re.compile(r"[\x21-\x7e]+")  # a server name is visible ASCII (RFC 6066 section 3); it comes into logs


class KeylessError(PeerError):
    """The stream broke the protocol and cannot go on.

    Attributes:
        code: What to answer with, if anything.
        reason: One line for people.
        request_id: Of the frame that is wrong; None: it did not come that far.
        messages: What stood before it in what was fed last.
    """

    def __init__(
        self,
        code: ErrorCode,
        reason: str,
        request_id: int | None = None,
        messages: tuple[Message | BadMessage, ...] = (),
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.request_id = request_id
        self.messages = messages


@dataclass(frozen=True, slots=True)
class Message:
    """One request or answer. What is empty or None was not in it.

    Attributes:
        id: Chosen by the client, 0 to 2**32 - 1; the answer has it again.
        opcode: Any byte; `Opcode.maybe` finds what it means.
        payload: What the opcode says: a digest, a message, a ciphertext or an answer. Maybe a secret: not in the repr.
        ski: Names the key: SHA-1 of the public key's BIT STRING (RFC 5280 section 4.2.1.2 (1)), 20 bytes.
        server_name: That a TLS client asked for.
        client_ip: Of the TLS client.
        server_ip: That the TLS client connected to.
        digest: Another name for an RSA key, 32 bytes.
        certificate_id: Of deployments that name certificates.
        extra: Every other item but padding: tag and data, in the order on the wire.
    """

    id: int
    opcode: int
    payload: bytes = field(default=b"", repr=False)
    ski: bytes = b""
    server_name: str | None = None
    client_ip: IPv4Address | IPv6Address | None = None
    server_ip: IPv4Address | IPv6Address | None = None
    digest: bytes = b""
    certificate_id: bytes = b""
    extra: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class BadMessage:
    """A frame whose body cannot be read: a server answers it with the code, a client fails the request.

    Attributes:
        id: The request's.
        code: What is wrong, as an error answer says it.
        reason: One line for people.
    """

    id: int
    code: ErrorCode
    reason: str


def success(request_id: int, payload: bytes) -> Message:
    """Make the answer to a request that was performed."""
    return Message(request_id, Opcode.SUCCESS, payload)


def error(request_id: int, code: ErrorCode) -> Message:
    """Make the answer to a request that failed."""
    return Message(request_id, Opcode.ERROR, bytes((code,)))


def ping(request_id: int, payload: bytes = b"") -> Message:
    """Ask whether the other end is there; it answers with the same payload."""
    return Message(request_id, Opcode.PING, payload)


def pong(request_id: int, payload: bytes = b"") -> Message:
    """Answer a ping."""
    return Message(request_id, Opcode.PONG, payload)


# --- Messages to bytes ---


def encode(message: Message, *, pad: bool) -> bytes:
    """Make a frame.

    Args:
        message: What to say.
        pad: Fill it up to `PADDED_SIZE` bytes, so that its length tells an eavesdropper nothing.

    Raises:
        ValueError: It cannot be said: a number or a size that the protocol does not have.
    """
    if not 0 <= message.opcode <= _MAX_OPCODE or not 0 <= message.id <= _MAX_ID:
        raise ValueError(f"opcode {message.opcode} of request {message.id}: they are one and four bytes")
    body = _OPCODE_ITEM.pack(Tag.OPCODE, 1, message.opcode) + b"".join(_items(message))
    if pad and len(body) < PADDED_SIZE - HEADER_SIZE:
        body += _item(Tag.PADDING, bytes(max(0, PADDED_SIZE - HEADER_SIZE - _ITEM.size - len(body))))
    if len(body) > MAX_BODY:
        raise ValueError(f"a message of {len(body)} bytes: the protocol has room for {MAX_BODY}")
    return _HEADER.pack(MAJOR_VERSION, MINOR_VERSION, len(body), message.id) + body


def _item(tag: int, data: bytes) -> bytes:
    if len(data) > MAX_BODY - _ITEM.size:
        raise ValueError(f"an item of {len(data)} bytes: the protocol has room for {MAX_BODY - _ITEM.size}")
    return _ITEM.pack(tag, len(data)) + data


def _items(message: Message) -> Iterator[bytes]:
    # A payload without bytes is said too: old servers insist on the item, and gokeyless takes it.
    yield _item(Tag.PAYLOAD, message.payload)
    if message.ski:
        yield _item(Tag.SKI, _sized("subject key identifier", message.ski, SKI_SIZE))
    if message.digest:
        yield _item(Tag.DIGEST, _sized("digest", message.digest, DIGEST_SIZE))
    if message.client_ip is not None:
        yield _item(Tag.CLIENT_IP, message.client_ip.packed)
    if message.server_ip is not None:
        yield _item(Tag.SERVER_IP, message.server_ip.packed)
    if message.server_name is not None:
        yield _item(Tag.SERVER_NAME, _name(message.server_name))
    if message.certificate_id:
        yield _item(Tag.CERTIFICATE_ID, message.certificate_id)
    if message.extra:
        yield from _extra(message.extra)


def _sized(what: str, data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ValueError(f"a {what} of {len(data)} bytes: it has {size}")
    return data


def _name(name: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise ValueError(f"server name {name!r}: visible ASCII only (RFC 6066 section 3), so use its A-label")
    return name.encode("ascii")


def _extra(extra: tuple[tuple[int, bytes], ...]) -> Iterator[bytes]:
    seen = set(_OWN_FIELD)
    for tag, data in extra:
        if tag in seen or not 0 <= tag <= _MAX_TAG:
            raise ValueError(f"extra item with tag {tag:#04x}: it has a field of its own, comes twice or is not a byte")
        seen.add(tag)
        yield _item(tag, data)


# --- Bytes to messages ---


class _FormatError(Exception):
    """The body of one message is wrong."""


class Decoder:
    """Takes a stream in pieces of any size, and gives its messages. Not thread safe."""

    def __init__(self) -> None:
        self._buffer = bytearray()  # less than one frame between two calls
        self._wanted = HEADER_SIZE  # nothing can be decoded before so many bytes are there
        self._failure: KeylessError | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> list[Message | BadMessage]:
        """Take what came next.

        Args:
            data: Any number of bytes.

        Returns:
            The messages that ended with them, in order.

        Raises:
            KeylessError: Another version of the protocol, or not this protocol. The stream is over: every further call
                raises as well. What came before is in its ``messages``.
        """
        if self._failure is not None:
            raise KeylessError(self._failure.code, self._failure.reason, self._failure.request_id)
        self._buffer += data
        messages: list[Message | BadMessage] = []
        at = 0
        while len(self._buffer) - at >= self._wanted:
            _, _, length, request_id = header = _HEADER.unpack_from(self._buffer, at)
            self._check_version(header, messages)
            end = at + HEADER_SIZE + length
            if end > len(self._buffer):
                self._wanted = end - at
                break
            with memoryview(self._buffer) as view:
                body = bytes(view[at + HEADER_SIZE : end])
            messages.append(_decode(request_id, body))
            self._wanted = HEADER_SIZE
            at = end
        del self._buffer[:at]
        return messages

    def _check_version(self, header: tuple[int, ...], messages: list[Message | BadMessage]) -> None:
        major, _, _, request_id = header
        if major == MAJOR_VERSION:
            return  # whatever the minor one: it is kept for policies, and changes nothing in the format
        self._buffer.clear()
        reason = f"version {major} of the keyless protocol where {MAJOR_VERSION} is due: does the other end speak it?"
        self._failure = KeylessError(ErrorCode.VERSION, reason, request_id)
        raise KeylessError(ErrorCode.VERSION, reason, request_id, tuple(messages))

    def eof(self) -> None:
        """Take the end of the stream.

        Raises:
            KeylessError: It ended within a message.
        """
        left = len(self._buffer)
        if left:
            request_id = _HEADER.unpack_from(self._buffer)[3] if left >= HEADER_SIZE else None
            raise KeylessError(ErrorCode.READ, f"the stream ended {left} bytes into a message", request_id)


def _decode(request_id: int, body: bytes) -> Message | BadMessage:
    try:
        return _message(request_id, _split(body))
    except _FormatError as wrong:
        return BadMessage(request_id, ErrorCode.FORMAT, str(wrong))


def _split(body: bytes) -> dict[int, bytes]:
    items: dict[int, bytes] = {}
    at = 0
    while at < len(body):
        start = at + _ITEM.size
        if start > len(body):
            raise _FormatError("the body ends within the head of an item")
        tag, length = _ITEM.unpack_from(body, at)
        at = start + length
        if at > len(body):
            raise _FormatError(f"item {tag:#04x} ends {at - len(body)} bytes beyond the body")
        if tag in items:
            raise _FormatError(f"item {tag:#04x} comes twice")
        items[tag] = body[start:at]
    return items


def _message(request_id: int, items: dict[int, bytes]) -> Message:
    opcode = _opcode(items)
    payload = items.pop(Tag.PAYLOAD, b"")
    items.pop(Tag.PADDING, None)
    if not items:
        return Message(request_id, opcode, payload)
    return Message(
        request_id,
        opcode,
        payload,
        ski=_taken(items, Tag.SKI, SKI_SIZE),
        server_name=_taken_name(items),
        client_ip=_taken_ip(items, Tag.CLIENT_IP),
        server_ip=_taken_ip(items, Tag.SERVER_IP),
        digest=_taken(items, Tag.DIGEST, DIGEST_SIZE),
        certificate_id=items.pop(Tag.CERTIFICATE_ID, b""),
        extra=tuple(items.items()),
    )


def _opcode(items: dict[int, bytes]) -> int:
    data = items.pop(Tag.OPCODE, None)
    if data is None:
        raise _FormatError("no opcode")
    if len(data) != 1:
        raise _FormatError(f"an opcode of {len(data)} bytes: it has one")
    return data[0]


def _taken(items: dict[int, bytes], tag: Tag, size: int) -> bytes:
    data = items.pop(tag, None)
    if data is None:
        return b""
    if len(data) != size:
        raise _FormatError(f"item {tag:#04x} of {len(data)} bytes: it has {size}")
    return data


def _taken_ip(items: dict[int, bytes], tag: Tag) -> IPv4Address | IPv6Address | None:
    data = items.pop(tag, None)
    if data is None:
        return None
    try:
        return ip_address(data)
    except ValueError:
        raise _FormatError(f"item {tag:#04x} of {len(data)} bytes: an address has 4 or 16") from None


def _taken_name(items: dict[int, bytes]) -> str | None:
    data = items.pop(Tag.SERVER_NAME, None)
    if data is None:
        return None
    name = data.decode("latin-1")
    if not _NAME.fullmatch(name):
        raise _FormatError("a server name that is not visible ASCII")
    return name
