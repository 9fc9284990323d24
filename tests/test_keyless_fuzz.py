"""Whatever bytes come, in whatever pieces: what a second, plain decoder makes of them, and never more memory.

`make fuzz` runs all of this for longer.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.keyless_reference import check_body, check_stream, in_pieces, outcome, reference
from tlsserver.signers.keyless import HEADER_SIZE, MAX_BODY, Decoder, Message, Opcode, Tag, encode, success

FUZZ = Path(__file__).parent / "fuzz"
SEEDS = sorted((FUZZ / "keyless-seeds").iterdir())
LONGER = int(os.environ.get("FUZZ_EXAMPLES", "0"))

RANDOM = settings(
    max_examples=LONGER or 200,
    deadline=None,  # the machine's speed is nobody's fault
    derandomize=not LONGER,  # a test that fails, fails again
    print_blob=True,
)

addresses = st.one_of(st.none(), st.ip_addresses())
payloads = st.one_of(st.binary(max_size=600), st.integers(0, 65_000).map(bytes))
extra_tags = st.integers(0, 255).filter(lambda tag: tag not in {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x11, 0x12, 0x20})
messages = st.builds(
    Message,
    id=st.integers(0, 0xFFFFFFFF),
    opcode=st.one_of(st.sampled_from(Opcode), st.integers(0, 255)),
    payload=payloads,
    ski=st.one_of(st.just(b""), st.binary(min_size=20, max_size=20)),
    server_name=st.one_of(st.none(), st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)),
    client_ip=addresses,
    server_ip=addresses,
    digest=st.one_of(st.just(b""), st.binary(min_size=32, max_size=32)),
    certificate_id=st.binary(max_size=20),
    extra=st.dictionaries(extra_tags, st.binary(max_size=20), max_size=3).map(lambda items: tuple(items.items())),
)

# Frames that are nearly right: their length is, and their items mostly.
tags = st.one_of(st.sampled_from(Tag), st.integers(0, 255))
items = st.builds(
    lambda tag, data, off: bytes((tag,)) + max(0, len(data) + off).to_bytes(2, "big") + data,
    tags,
    st.one_of(st.binary(max_size=40), st.sampled_from([bytes(size) for size in (1, 4, 16, 20, 32)])),
    st.sampled_from([0] * 12 + [1, -1, 60_000]),
)
bodies = st.lists(items, max_size=6).map(b"".join)
frames = st.builds(
    lambda version, body, request_id: version + len(body).to_bytes(2, "big") + request_id + body,
    st.sampled_from([b"\1\0"] * 15 + [b"\1\7", b"\2\0", b"\0\1"]),
    bodies,
    st.binary(min_size=4, max_size=4),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Some frames in a row, perhaps with some bytes of them replaced, removed or put in."""
    raw = b"".join(draw(st.lists(st.one_of(frames, messages.map(lambda one: encode(one, pad=False))), max_size=5)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=4)) + raw[at + draw(st.integers(0, 4)) :]
    return raw


@RANDOM
@given(st.lists(messages, max_size=4), st.booleans(), st.integers(1, 2000))
def test_round_trip(sent: list[Message], pad: bool, size: int) -> None:
    decoder = Decoder()
    stream = b"".join(encode(message, pad=pad) for message in sent)
    assert [one for piece in in_pieces(stream, size) for one in decoder.feed(piece)] == sent
    decoder.eof()


@RANDOM
@given(st.binary(max_size=200))
def test_random_streams(stream: bytes) -> None:
    check_stream(stream)


@RANDOM
@given(bodies | st.binary(max_size=60))
def test_random_bodies(body: bytes) -> None:
    check_body(body)


@RANDOM
@given(st.data())
def test_streams_that_are_nearly_right(data: st.DataObject) -> None:
    stream = data.draw(streams())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert outcome(pieces) == reference(stream)


# --- Lengths ---

REQUEST = encode(Message(7, Opcode.EC_SIGN_SHA256, bytes(32), bytes(20), extra=((0x15, b"span"),)), pad=False)
LENGTHS = {"body": 2, "opcode": 9, "payload": 13, "key identifier": 48, "extra": 71}


@pytest.mark.parametrize("field", LENGTHS)
def test_every_length(field: str) -> None:
    """Each of the lengths of a frame takes each value that it can have, and two frames follow."""
    at = LENGTHS[field]
    behind = encode(success(8, b"next"), pad=False) * 2
    for length in [*range(300), *range(300, 0xFFFF, 251), 0xFFFD, 0xFFFE, 0xFFFF]:
        stream = REQUEST[:at] + length.to_bytes(2, "big") + REQUEST[at + 2 :] + behind
        assert outcome([stream]) == reference(stream)


@pytest.mark.parametrize("at", range(len(REQUEST)))
def test_four_gigabytes_everywhere(at: int) -> None:
    """No reading of any four bytes as a length makes the decoder wait for more than a frame."""
    stream = REQUEST[:at] + b"\xff" * 4 + REQUEST[at + 4 :]
    check_stream(stream)
    check_stream(stream + bytes(MAX_BODY))


# --- Memory ---


def peak(pieces: list[bytes]) -> int:
    """Feed the pieces three times, and measure the most memory that it took beside them, in bytes."""
    decoder = Decoder()
    tracemalloc.start()
    try:
        for _ in range(3):
            for piece in pieces:
                decoder.feed(piece)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LARGEST = encode(success(1, bytes(MAX_BODY - 7)), pad=False)


@pytest.mark.parametrize(
    ("pieces", "limit"),
    [
        ([LARGEST[at : at + 10_000] for at in range(0, len(LARGEST), 10_000)], 4 * len(LARGEST)),
        ([LARGEST * 4], 16 * len(LARGEST)),
        (in_pieces(LARGEST, 1), 4 * len(LARGEST)),
        ([REQUEST[:-1], REQUEST[-1:] + REQUEST[:5], REQUEST[5:]], 20_000),
        # An empty body cannot be read: eight bytes of the stream become a `BadMessage` of a few hundred.
        ([b"\1\0\0\0\0\0\0\1" * 1000], 1000 * 500),
    ],
    ids=["pieces", "several at once", "single bytes", "across frames", "bodies without anything"],
)
def test_memory_is_bounded(pieces: list[bytes], limit: int) -> None:
    assert peak(pieces) < limit


def test_what_is_held_is_less_than_a_frame() -> None:
    decoder = Decoder()
    for piece in in_pieces(LARGEST * 3, 4096):
        decoder.feed(piece)
        assert len(decoder._buffer) < HEADER_SIZE + MAX_BODY
    assert sys.getsizeof(decoder._buffer) < 1000


# --- atheris ---


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: path.stem)
def test_what_was_found_before(seed: Path) -> None:
    data = seed.read_bytes()
    check_stream(data)
    check_body(data)


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: it has no wheel for this platform")
def test_fuzzed_with_coverage(tmp_path: Path) -> None:
    """It finds its way to all of the decoder's lines, and no case fails."""
    options = ["-runs=10000", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, str(FUZZ / "keyless.py"), *options, str(tmp_path), str(FUZZ / "keyless-seeds")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 10000 runs" in done.stderr
    covered = [int(found) for found in re.findall(r"DONE +cov: (\d+)", done.stderr)]
    assert covered, done.stderr[-3000:]
    assert covered[0] > 50  # otherwise the decoder was not instrumented
