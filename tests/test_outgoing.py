"""The write buffer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsserver.outgoing import Outgoing

RECORD = 16 * 1024
SIZES = st.integers(1, 50) | st.integers(RECORD - 2, RECORD + 2) | st.integers(40_000, 50_000)


@given(st.lists(SIZES, max_size=30), st.lists(st.integers(1, RECORD), max_size=60))
def test_nothing_is_lost_doubled_or_reordered(sizes: list[int], takes: list[int]) -> None:
    out = Outgoing()
    pieces = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    whole = b"".join(pieces)
    sent = bytearray()
    todo = list(takes)
    while pieces or out.size:
        if pieces and (not out.size or len(pieces) % 3):
            out.add(pieces.pop(0))
        if out.size:
            offered = out.offer()
            assert out.offer() is offered, "a retry must offer the same"
            count = min(todo.pop(0) if todo else RECORD, len(offered))
            sent += offered[:count]
            out.taken(count)
        assert out.size == len(whole) - len(sent) - sum(map(len, pieces))
    assert sent == whole


def test_small_pieces_are_joined_up_to_what_goes_with_one_call() -> None:
    out = Outgoing()
    for _ in range(160):
        out.add(bytes(1000))
    for left in (95_000, 30_000, 0):
        size = min(65_000, out.size)
        assert len(out.offer()) == size
        out.taken(size)
        assert out.size == left


def test_large_pieces_are_not_copied() -> None:
    out = Outgoing()
    large = bytes(1_000_000)
    out.add(large)
    out.add(b"x")
    assert out.offer() is large
    out.taken(1)
    rest = out.offer()
    assert isinstance(rest, memoryview)
    assert rest.obj is large


def test_what_joins_does_not_join_a_retry() -> None:
    out = Outgoing()
    out.add(b"a")
    first = out.offer()
    out.add(b"b")
    assert out.offer() is first
    out.taken(1)
    assert bytes(out.offer()) == b"b"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_taking_what_was_not_offered(count: int) -> None:
    out = Outgoing()
    out.add(b"a")
    if count == 2:
        out.offer()
    with pytest.raises(ValueError, match="not offered"):
        out.taken(count)


def test_clear() -> None:
    out = Outgoing()
    out.add(b"a")
    out.offer()
    out.clear()
    assert out.size == 0
    out.add(b"b")
    assert bytes(out.offer()) == b"b"
