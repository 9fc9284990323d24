"""A second decoder of the keyless format, as plain as can be, and what has to hold for every stream.

It slices and copies, takes a whole stream at once, and shares nothing with the real one. An outcome is what came of a
stream: each message as its request id and its items (None: the body cannot be read), and how the stream ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tlsserver.signers.keyless import HEADER_SIZE, MAX_BODY, Decoder, KeylessError, Message, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

SIZES = {0x01: {32}, 0x03: {4, 16}, 0x04: {20}, 0x05: {4, 16}, 0x11: {1}}
OMITTED_IF_EMPTY = {0x06, 0x12}
PADDING = 0x20


class Outcome(NamedTuple):
    """What came of a stream.

    Attributes:
        messages: Request id and items; None for a body that cannot be read.
        end: ``"end"``; ``"version"`` of another protocol; ``"half"`` a message.
        request_id: Of the frame at the end, where the whole header of it is there.
    """

    messages: list[tuple[int, dict[int, bytes] | None]]
    end: str
    request_id: int | None


def reference(stream: bytes) -> Outcome:
    """Decode a whole stream the plain way."""
    messages: list[tuple[int, dict[int, bytes] | None]] = []
    while len(stream) >= 8:
        request_id = int.from_bytes(stream[4:8], "big")
        if stream[0] != 1:
            return Outcome(messages, "version", request_id)
        length = int.from_bytes(stream[2:4], "big")
        if len(stream) < 8 + length:
            return Outcome(messages, "half", request_id)
        messages.append((request_id, reference_body(stream[8 : 8 + length])))
        stream = stream[8 + length :]
    return Outcome(messages, "half" if stream else "end", None)


def reference_body(body: bytes) -> dict[int, bytes] | None:
    """Take a body apart; None: it cannot be read."""
    items: list[tuple[int, bytes]] = []
    while body:
        length = int.from_bytes(body[1:3], "big")
        if len(body) < 3 + length:
            return None
        items.append((body[0], body[3 : 3 + length]))
        body = body[3 + length :]
    found = dict(items)
    name = found.get(0x02, b"name")
    if len(found) != len(items) or 0x11 not in found or not name or any(not 0x21 <= byte <= 0x7E for byte in name):
        return None
    if any(len(data) not in SIZES.get(tag, {len(data)}) for tag, data in found.items()):
        return None
    return {tag: data for tag, data in found.items() if tag != PADDING and (data or tag not in OMITTED_IF_EMPTY)}


def items_of(message: Message) -> dict[int, bytes]:
    """Give a message's items as the reference has them."""
    own = {
        0x11: bytes((message.opcode,)),
        0x12: message.payload,
        0x04: message.ski,
        0x01: message.digest,
        0x06: message.certificate_id,
        0x02: (message.server_name or "").encode("ascii"),
        0x03: message.client_ip.packed if message.client_ip else b"",
        0x05: message.server_ip.packed if message.server_ip else b"",
    }
    return {**{tag: data for tag, data in own.items() if data}, **dict(message.extra)}


def outcome(pieces: Iterable[bytes]) -> Outcome:
    """Decode a stream in pieces, with the real decoder."""
    decoder = Decoder()
    messages = []
    end, request_id = "end", None
    try:
        for piece in pieces:
            messages += decoder.feed(piece)
            assert len(decoder._buffer) < HEADER_SIZE + MAX_BODY
        decoder.eof()
    except KeylessError as error:
        messages += error.messages
        end, request_id = ("version" if error.code == 0x04 else "half"), error.request_id
    for message in messages:
        check_round_trip(message)
    return Outcome([(one.id, items_of(one) if isinstance(one, Message) else None) for one in messages], end, request_id)


def check_round_trip(message: object) -> None:
    """A message that was decoded can be encoded, and comes back the same."""
    if not isinstance(message, Message) or sum(len(data) + 3 for data in items_of(message).values()) > MAX_BODY - 3:
        return  # with the item of an empty payload it would be too large
    for pad in (False, True):
        assert Decoder().feed(encode(message, pad=pad)) == [message]


def in_pieces(stream: bytes, size: int) -> list[bytes]:
    """Cut a stream."""
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def check_stream(stream: bytes) -> None:
    """However a stream is cut, the decoder makes of it what the reference does."""
    expected = reference(stream)
    for size in (len(stream) or 1, 61, 1 if len(stream) < 200 else 7):
        assert outcome(in_pieces(stream, size)) == expected


def check_body(body: bytes) -> None:
    """Whatever stands in a body, the frame after it is found; of a body too large for a frame, its beginning."""
    body = body[:MAX_BODY]
    after = bytes.fromhex("01 00 0007 00000001 11 0001 f2 12 0000")
    frame = b"\1\0" + len(body).to_bytes(2, "big") + b"\xff\xff\xff\xff" + body
    expected = reference_body(body)
    assert outcome([frame + after]).messages == [(0xFFFFFFFF, expected), (1, {0x11: b"\xf2"})]
