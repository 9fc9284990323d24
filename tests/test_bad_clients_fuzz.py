"""Random bytes, random records and changed hellos.

Every example is one connection with other bytes; what holds for all of them is checked at the end of each.
"""

from __future__ import annotations

import itertools
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.clients import client_hello, connect
from support.rough import HANDSHAKE, Scene, record

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ("support.rough_scene",)

VERSIONS = ("1.2", "1.3")

RANDOM = settings(
    max_examples=150,
    deadline=None,  # the machine's speed is nobody's fault
    derandomize=True,  # a test that fails, fails again
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the server is meant to stay the same
)


@RANDOM
@given(st.lists(st.binary(max_size=400), max_size=5))
def test_random_bytes(scene: Scene, pieces: list[bytes]) -> None:
    scene.say(*pieces)
    scene.site.until(lambda numbers: numbers.connections_open == 1)


@RANDOM
@given(st.lists(st.tuples(st.sampled_from([20, 21, 22, 23]), st.binary(max_size=300)), min_size=1, max_size=5))
def test_random_records(scene: Scene, records: list[tuple[int, bytes]]) -> None:
    scene.say(*[record(kind, payload, 0x0303) for kind, payload in records])
    scene.site.until(lambda numbers: numbers.connections_open == 1)


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Draw some changes: bytes replaced, inserted, removed and repeated, anywhere."""
    edits = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), st.binary(max_size=30)), max_size=6))

    def mutate(data: bytes) -> bytes:
        for where, removed, inserted in edits:
            at = int(where * len(data))
            data = data[:at] + inserted + data[at + removed :]
        return data

    return mutate


@pytest.mark.parametrize("version", VERSIONS)
@RANDOM
@given(mutate=mutations(), framed=st.booleans())
def test_mutations_of_a_hello(scene: Scene, version: str, mutate: Callable[[bytes], bytes], framed: bool) -> None:
    """Framed: the record's length is right, so that the changes get to the handshake message's parser."""
    hello = client_hello(scene.target(version))
    scene.say(record(HANDSHAKE, mutate(hello[5:])) if framed else mutate(hello))
    scene.site.until(lambda numbers: numbers.connections_open == 1)


@RANDOM
@given(cut=st.lists(st.integers(1, 600), max_size=8))
def test_hello_in_any_pieces(scene: Scene, cut: list[int]) -> None:
    """However TCP splits it, it is the same."""
    before = scene.site.statistics()
    hello = client_hello(scene.target("1.2"))
    edges = sorted({0, *(at for at in cut if at < len(hello)), len(hello)})
    with connect(scene.site.address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in itertools.pairwise(edges):
            sock.sendall(hello[start:end])
        assert sock.recv(1) == bytes([HANDSHAKE])
    now = scene.site.until(lambda numbers: numbers.connections_open == 1)
    assert now.handshakes_parked - before.handshakes_parked == (0 if scene.engine is None else 1)
