"""The keyless wire format, against frames that were written by hand from docs/keyless.md."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

import pytest

from support.keyless_reference import in_pieces
from tlsserver.errors import PeerError
from tlsserver.signers.keyless import (
    BadMessage,
    Decoder,
    ErrorCode,
    KeylessError,
    Message,
    Opcode,
    Tag,
    encode,
    error,
    ping,
    pong,
    success,
)

DOCUMENT = (Path(__file__).parent.parent / "docs" / "keyless.md").read_text(encoding="utf-8")

DIGEST = bytes(range(32))
SKI = bytes(range(0xA0, 0xB4))

GOLDEN = {
    "success": (success(42, b"\xab\xcd"), "01 00 0009 0000002a 110001 f0 120002 abcd"),
    "error": (error(42, ErrorCode.KEY_NOT_FOUND), "01 00 0008 0000002a 110001 ff 120001 02"),
    "ping": (ping(0xFFFFFFFF, b"here?"), "01 00 000c ffffffff 110001 f1 120005 68657265 3f"),
    "pong": (pong(0), "01 00 0007 00000000 110001 f2 120000"),
    "request": (
        Message(7, Opcode.EC_SIGN_SHA256, DIGEST, SKI),
        f"01 00 003e 00000007 110001 15 120020 {DIGEST.hex()} 040014 {SKI.hex()}",
    ),
    "everything": (
        Message(
            1,
            Opcode.RSA_PSS_SIGN_SHA512,
            b"p",
            SKI,
            server_name="a.test",
            client_ip=ip_address("192.0.2.1"),
            server_ip=ip_address("2001:db8::5"),
            digest=DIGEST,
            certificate_id=b"cert",
            extra=((0x15, b"span"), (0x99, b"")),
        ),
        (
            f"01 00 0076 00000001 110001 37 120001 70 040014 {SKI.hex()} 010020 {DIGEST.hex()} 030004 c0000201"
            "050010 20010db8000000000000000000000005 020006 612e74657374 060004 63657274 150004 7370616e 990000"
        ),
    ),
}


def frame(body: str, request_id: int = 9, head: str = "01 00") -> bytes:
    data = bytes.fromhex(body)
    return bytes.fromhex(head) + len(data).to_bytes(2, "big") + request_id.to_bytes(4, "big") + data


@pytest.mark.parametrize("name", GOLDEN)
def test_encode(name: str) -> None:
    message, wire = GOLDEN[name]
    assert encode(message, pad=False) == bytes.fromhex(wire)


@pytest.mark.parametrize("name", GOLDEN)
def test_decode(name: str) -> None:
    message, wire = GOLDEN[name]
    assert Decoder().feed(bytes.fromhex(wire)) == [message]


@pytest.mark.parametrize("name", GOLDEN)
def test_padded_to_1024_bytes_with_the_header(name: str) -> None:
    message, wire = GOLDEN[name]
    padded = encode(message, pad=True)
    plain = bytes.fromhex(wire)
    left = 1024 - len(plain) - 3
    assert padded == plain[:2] + b"\x03\xf8" + plain[4:] + b"\x20" + left.to_bytes(2, "big") + bytes(left)
    assert Decoder().feed(padded) == [message]


@pytest.mark.parametrize(
    ("payload", "whole"), [(1005, 1024), (1006, 1024), (1007, 1025), (1008, 1026), (1009, 1024), (1010, 1025)]
)
def test_padding_at_its_limit(payload: int, whole: int) -> None:
    """An item has three bytes at least, so a frame that is one or two bytes short of 1,024 gets longer than that."""
    assert len(encode(success(1, bytes(payload)), pad=True)) == whole


BAD = {
    "no body": ("", "no opcode"),
    "no opcode": ("120000", "no opcode"),
    "opcode of no byte": ("110000", "an opcode of 0 bytes: it has one"),
    "opcode of two bytes": ("110002f1f1", "an opcode of 2 bytes: it has one"),
    "item beyond the body": ("110001f1 120003 0000", "item 0x12 ends 1 bytes beyond the body"),
    "item far beyond the body": ("110001f1 12ffff", "item 0x12 ends 65535 bytes beyond the body"),
    "one byte behind": ("110001f1 00", "the body ends within the head of an item"),
    "two bytes behind": ("110001f1 1200", "the body ends within the head of an item"),
    "opcode twice": ("110001f1 110001f1", "item 0x11 comes twice"),
    "payload twice": ("110001f1 120000 120000", "item 0x12 comes twice"),
    "padding twice": ("110001f1 200000 200000", "item 0x20 comes twice"),
    "unknown item twice": ("110001f1 990000 990000", "item 0x99 comes twice"),
    "short key identifier": (f"11000115 040013 {SKI[1:].hex()}", "item 0x04 of 19 bytes: it has 20"),
    "long key identifier": (f"11000115 040015 00{SKI.hex()}", "item 0x04 of 21 bytes: it has 20"),
    "no key identifier": ("11000115 040000", "item 0x04 of 0 bytes: it has 20"),
    "short digest": (f"11000115 01001f {DIGEST[1:].hex()}", "item 0x01 of 31 bytes: it has 32"),
    "client's address": ("11000115 030005 c000020101", "item 0x03 of 5 bytes: an address has 4 or 16"),
    "server's address": ("11000115 050000", "item 0x05 of 0 bytes: an address has 4 or 16"),
    "name that is empty": ("11000115 020000", "a server name that is not visible ASCII"),
    "name beyond ASCII": ("11000115 020003 61c3a4", "a server name that is not visible ASCII"),
    "name with a line end": ("11000115 020003 610a62", "a server name that is not visible ASCII"),
    "name with a space": ("11000115 020003 612062", "a server name that is not visible ASCII"),
    "name with a delete": ("11000115 020003 617f62", "a server name that is not visible ASCII"),
    "name that ends in a line end": ("11000115 020002 610a", "a server name that is not visible ASCII"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_in_a_body_costs_one_message(name: str) -> None:
    body, reason = BAD[name]
    before, after = success(8, b"before"), success(10, b"after")
    stream = encode(before, pad=False) + frame(body) + encode(after, pad=True)
    assert Decoder().feed(stream) == [before, BadMessage(9, ErrorCode.FORMAT, reason), after]


def test_any_opcode_is_read() -> None:
    """What a server does not know, it has to answer."""
    messages = Decoder().feed(b"".join(frame(f"110001{opcode:02x}") for opcode in range(256)))
    assert messages == [Message(9, opcode) for opcode in range(256)]


def test_minor_versions_are_all_the_same() -> None:
    assert Decoder().feed(frame("110001f1", head="01 ff")) == [ping(9)]


def test_another_version_ends_the_stream() -> None:
    decoder = Decoder()
    with pytest.raises(KeylessError, match=r"version 2 of the keyless protocol where 1 is due") as raised:
        decoder.feed(encode(ping(1), pad=False) + frame("110001f1", request_id=77, head="02 00") + frame("110001f1"))
    assert (raised.value.code, raised.value.request_id) == (ErrorCode.VERSION, 77)
    assert raised.value.messages == (ping(1),)
    with pytest.raises(KeylessError, match="version 2") as again:
        decoder.feed(encode(ping(1), pad=False))
    assert (again.value.request_id, again.value.messages) == (77, ())
    assert isinstance(again.value, PeerError)
    assert not decoder._buffer


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n", b"\xff" * 8, b"\x16\x03\x01\x02\x00\x01\x00\x01", bytes(8)])
def test_other_protocols(rubbish: bytes) -> None:
    with pytest.raises(KeylessError, match="where 1 is due"):
        Decoder().feed(rubbish)


@pytest.mark.parametrize("name", GOLDEN)
def test_cut_anywhere(name: str) -> None:
    message, wire = GOLDEN[name]
    stream = bytes.fromhex(wire)
    for at in range(len(stream) + 1):
        decoder = Decoder()
        assert decoder.feed(stream[:at]) + decoder.feed(stream[at:]) == [message]
        decoder.eof()


@pytest.mark.parametrize(("size", "request_id"), [(1, None), (7, None), (8, 42), (16, 42)])
def test_end_within_a_message(size: int, request_id: int | None) -> None:
    decoder = Decoder()
    assert decoder.feed(encode(success(42, b"\xab\xcd"), pad=False)[:size]) == []
    with pytest.raises(KeylessError, match=f"the stream ended {size} bytes into a message") as raised:
        decoder.eof()
    assert (raised.value.code, raised.value.request_id) == (ErrorCode.READ, request_id)


def test_a_failed_stream_has_no_second_fault() -> None:
    decoder = Decoder()
    with pytest.raises(KeylessError):
        decoder.feed(bytes(9))
    decoder.eof()


def test_the_largest_message() -> None:
    largest = success(1, bytes(65_535 - 4 - 3))
    stream = encode(largest, pad=True)
    assert len(stream) == 8 + 65_535
    decoder = Decoder()
    assert [one for piece in in_pieces(stream, 1000) for one in decoder.feed(piece)] == [largest]


IMPOSSIBLE = {
    "opcode": (Message(1, 256), "opcode 256 of request 1: they are one and four bytes"),
    "id": (Message(2**32, 1), "opcode 1 of request 4294967296: they are one and four bytes"),
    "negative id": (Message(-1, 1), "opcode 1 of request -1: they are one and four bytes"),
    "payload": (success(1, bytes(65_529)), "a message of 65536 bytes: the protocol has room for 65535"),
    "item": (success(1, bytes(65_533)), "an item of 65533 bytes: the protocol has room for 65532"),
    "key identifier": (Message(1, 1, ski=b"short"), "a subject key identifier of 5 bytes: it has 20"),
    "digest": (Message(1, 1, digest=b"short"), "a digest of 5 bytes: it has 32"),
    "name": (
        Message(1, 1, server_name="b\xfccher.example"),
        "visible ASCII only (RFC 6066 section 3), so use its A-label",
    ),
    "empty name": (Message(1, 1, server_name=""), "server name '': visible ASCII only"),
    "line end": (Message(1, 1, server_name="a\n"), "visible ASCII only"),
    "space": (Message(1, 1, server_name="a b"), "visible ASCII only"),
    "item with a field": (Message(1, 1, extra=((0x04, SKI),)), "extra item with tag 0x04: it has a field of its own"),
    "item twice": (Message(1, 1, extra=((0x99, b""), (0x99, b""))), "comes twice"),
    "padding": (Message(1, 1, extra=((0x20, b""),)), "extra item with tag 0x20"),
    "tag": (Message(1, 1, extra=((256, b""),)), "is not a byte"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_encoded(name: str) -> None:
    message, reason = IMPOSSIBLE[name]
    with pytest.raises(ValueError, match=re.escape(reason)):
        encode(message, pad=False)


def test_payloads_are_not_shown() -> None:
    """That of a decryption is the premaster secret."""
    assert "hidden" not in repr(success(1, b"hidden"))


# --- Numbers ---

# The whole protocol: opcode, keys, digest, padding, size of the payload, salt.
SIGNATURES = {
    0x02: ("RSA", "MD5-SHA1", "pkcs1", 36, None),
    0x03: ("RSA", "SHA1", "pkcs1", 20, None),
    0x04: ("RSA", "SHA224", "pkcs1", 28, None),
    0x05: ("RSA", "SHA256", "pkcs1", 32, None),
    0x06: ("RSA", "SHA384", "pkcs1", 48, None),
    0x07: ("RSA", "SHA512", "pkcs1", 64, None),
    0x12: ("EC", "MD5-SHA1", None, 36, None),
    0x13: ("EC", "SHA1", None, 20, None),
    0x14: ("EC", "SHA224", None, 28, None),
    0x15: ("EC", "SHA256", None, 32, None),
    0x16: ("EC", "SHA384", None, 48, None),
    0x17: ("EC", "SHA512", None, 64, None),
    0x18: ("ED25519", None, None, None, None),
    0x35: ("RSA", "SHA256", "pss", 32, 32),
    0x36: ("RSA", "SHA384", "pss", 48, 48),
    0x37: ("RSA", "SHA512", "pss", 64, 64),
}
DECRYPTIONS = (0x01, 0x08)
WITHOUT_KEY = (0x21, 0x22, 0x23, 0x24, 0xF0, 0xF1, 0xF2, 0xFF)


def test_every_opcode() -> None:
    assert sorted(Opcode) == sorted([*SIGNATURES, *DECRYPTIONS, *WITHOUT_KEY])
    assert [Opcode.maybe(value) for value in range(256)] == [
        Opcode(value) if value in set(Opcode) else None for value in range(256)
    ]


@pytest.mark.parametrize("value", SIGNATURES, ids=hex)
def test_signatures(value: int) -> None:
    kind, digest_name, padding, size, salt = SIGNATURES[value]
    opcode = Opcode(value)
    assert (opcode.kind, opcode.digest_name, opcode.padding) == (kind, digest_name, padding)
    assert (opcode.operation, opcode.digest_size, opcode.salt_length, opcode.is_answer) == ("sign", size, salt, False)
    assert Opcode.for_signature(kind, padding, digest_name) is opcode
    assert Opcode.for_signature(kind, padding, digest_name, salt) is opcode


@pytest.mark.parametrize("value", DECRYPTIONS, ids=hex)
def test_decryptions(value: int) -> None:
    opcode = Opcode(value)
    assert (opcode.kind, opcode.digest_name, opcode.padding) == ("RSA", None, None)
    assert (opcode.operation, opcode.digest_size, opcode.salt_length) == ("decrypt", None, None)


def test_opcodes_without_a_key() -> None:
    assert {Opcode(value).operation for value in WITHOUT_KEY} == {None}
    assert {Opcode(value).fits("RSA") for value in WITHOUT_KEY} == {False}
    assert [one for one in Opcode if one.is_answer] == [Opcode.SUCCESS, Opcode.PONG, Opcode.ERROR]


def test_keys_for_pss_alone() -> None:
    assert Opcode.for_signature("RSA-PSS", "pss", "SHA256", 32) is Opcode.RSA_PSS_SIGN_SHA256
    assert [one for one in Opcode if one.fits("RSA-PSS")] == [Opcode(value) for value in (0x35, 0x36, 0x37)]


def test_which_keys_fit() -> None:
    for algorithm in ("RSA", "EC", "ED25519"):
        assert [one for one in Opcode if one.fits(algorithm)] == [one for one in Opcode if one.kind == algorithm]
    assert not [one for one in Opcode if one.fits("ED448")]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("ED448", None, None), "ED448"),
        (("ML-DSA-65", None, None), "ML-DSA-65"),
        (("EC", None, "SHA3-256"), "EC, SHA3-256"),
        (("RSA", "pss", "SHA1"), "RSA, pss, SHA1"),
        (("RSA-PSS", "pkcs1", "SHA256"), "RSA-PSS, pkcs1, SHA256"),
        (("RSA", "pss", "SHA256", 20), "RSA, pss, SHA256 with 20 bytes of salt"),
        (("RSA", None, None), "RSA"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_signatures_that_the_protocol_does_not_have(asked: tuple[str, None, None], told: str) -> None:
    with pytest.raises(ValueError, match=f"the keyless protocol has no signature for {re.escape(told)}:"):
        Opcode.for_signature(*asked)


def test_error_codes() -> None:
    assert {code: code.name for code in ErrorCode} == {
        1: "CRYPTOGRAPHY",
        2: "KEY_NOT_FOUND",
        3: "READ",
        4: "VERSION",
        5: "BAD_OPCODE",
        6: "UNEXPECTED_OPCODE",
        7: "FORMAT",
        8: "INTERNAL",
        9: "CERTIFICATE_NOT_FOUND",
        10: "EXPIRED",
        11: "REMOTE_CONFIGURATION",
    }
    assert all(ErrorCode.told(bytes((code,))) == code.reason for code in ErrorCode)


def test_errors_that_say_nothing() -> None:
    assert ErrorCode.told(b"\x63") == "error 99, which the protocol does not have"
    assert ErrorCode.told(b"\0") == "error 0, which the protocol does not have"
    assert ErrorCode.told(b"") == "an error without a code (0 bytes where one is due)"
    assert ErrorCode.told(b"\1\2") == "an error without a code (2 bytes where one is due)"


# --- The document ---


def rows(heading: str) -> dict[int, str]:
    """Read a table of the document: its numbers, and the words beside them."""
    section = DOCUMENT.partition(f"## {heading}")[2].partition("\n## ")[0]
    return {
        int(number, 16): row.group(2).strip()
        for row in re.finditer(r"^\| ((?:`0x\w\w`,? ?)+) \| (.*?) ?\|$", section, flags=re.MULTILINE)
        for number in re.findall(r"0x\w\w", row.group(1))
    }


def test_the_document_has_every_number() -> None:
    assert sorted(rows("Items")) == sorted(Tag)
    assert sorted(rows("Opcodes")) == sorted(Opcode)
    assert {number: text.split(" |")[0] for number, text in rows("Errors").items()} == {
        code: code.reason for code in ErrorCode
    }


def test_the_worked_example_of_the_document() -> None:
    """The bytes stand in blocks: two digits each, and behind them what they are."""
    blocks = re.findall(r"```text\n((?:[0-9a-f]{2} .*\n)+)```", DOCUMENT)
    request, answer = (
        b"".join(bytes.fromhex(re.split(r" {2,}", line)[0]) for line in block.splitlines()) for block in blocks
    )
    digest = bytes.fromhex("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
    key = bytes.fromhex("5ba93c9db0cff93f52b521d7420e43f6eda2784f")
    assert request == encode(Message(7, Opcode.EC_SIGN_SHA256, digest, key), pad=False)
    assert answer == encode(error(7, ErrorCode.KEY_NOT_FOUND), pad=False)
    assert Decoder().feed(request + answer) == [
        Message(7, Opcode.EC_SIGN_SHA256, digest, key),
        error(7, ErrorCode.KEY_NOT_FOUND),
    ]
