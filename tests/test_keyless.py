"""The keyless wire format, against frames that were written by hand."""

from __future__ import annotations

from tlsserver.signers.keyless import Decoder, encode, success


def test_an_answer() -> None:
    frame = bytes.fromhex("01 00 0009 0000002a 11 0001 f0 12 0002 abcd")
    assert encode(success(42, b"\xab\xcd"), pad=False) == frame
    assert Decoder().feed(frame) == [success(42, b"\xab\xcd")]
