"""Small writes wait until the loop has done what it is doing: what becomes of them, whatever comes between."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.aio import LOOPS, VERSIONS, Records, Site, Told, home, run, turns, until
from support.source_tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]

OVERHEAD = {"1.2": 24, "1.3": 17}  # bytes that a record has beyond its data
LONG = bytes(range(256)) * 400


async def records(site: Site, use: Callable[[Any], object], size: int) -> tuple[bytes, list[int]]:
    """Let a protocol write; return what came, and in records of which size."""
    async with Records(site) as client:
        await until(lambda: site.protocols)
        before = len(client.sizes)
        use(site.protocols[-1].transport)
        got = await client.read(size)
        overhead = OVERHEAD[site.version or "1.3"]
        return got, [length - overhead for length in client.sizes[before:] if length - overhead < (1 << 14) + 1]


def head_and_body(transport: Any) -> None:
    transport.write(b"head ")
    transport.writelines([b"and ", bytearray(b"body")])
    assert transport.get_write_buffer_size() == 13


@pytest.mark.parametrize("version", VERSIONS)
def test_one_record(loop: str, identity: Identity, version: str) -> None:
    async def main() -> None:
        async with Site(identity, Told, version=version) as site:
            got, sizes = await records(site, head_and_body, 13)
            assert got == b"head and body"
            assert sizes[-1] == 13

    run(loop, main)


def small_then_long(transport: Any) -> None:
    transport.write(b"head")
    transport.write(LONG)
    transport.write(b"tail")


def nothing_is_held_at_mark_zero(transport: Any) -> None:
    transport.set_write_buffer_limits(high=0)
    for piece in (b"head", LONG, b"tail"):
        transport.write(piece)
    assert transport.get_write_buffer_size() == 0


def many(transport: Any) -> None:
    for byte in b"head" + LONG + b"tail":
        transport.write(bytes([byte]))


@pytest.mark.parametrize("use", [small_then_long, nothing_is_held_at_mark_zero, many])
def test_order(loop: str, identity: Identity, use: Callable[[Any], object]) -> None:
    async def main() -> None:
        async with Site(identity, Told, version="1.3") as site:
            expected = b"head" + LONG + b"tail"
            got, sizes = await records(site, use, len(expected))
            assert len(got) == len(expected)
            assert got == expected
            assert len(sizes) < 20

    run(loop, main)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_ends_behind_held_writes(loop: str, identity: Identity, end: str) -> None:
    """A write that asyncio's own transport would have sent at once is sent."""

    async def main() -> None:
        async with Site(identity, Told, version="1.3") as site:
            async with Records(site) as client:
                await until(lambda: site.protocols)
                transport = site.protocols[0].transport
                transport.write(b"held")
                getattr(transport, end)()
                assert transport.get_write_buffer_size() == (4 if end == "close" else 0)
                assert await client.read(4) == b"held"
                if end == "close":
                    assert await client.read(1) == b""
            await site.protocols[0].lost
            assert site.protocols[0].told[:1] == ["made"]

    run(loop, main)


def test_marks_that_fall_below_what_is_held(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, Told) as site:
            protocol, reader, _ = await site.open()
            protocol.transport.write(b"x" * 100)
            protocol.transport.set_write_buffer_limits(high=10)
            assert await reader.readexactly(100) == b"x" * 100
            await turns(2)
            assert protocol.told in (["made"], ["made", "pause", "resume"])
            protocol.transport.write(b"x" * 100)
            assert await reader.readexactly(100) == b"x" * 100
            assert protocol.told.count("pause") == protocol.told.count("resume")

    run(loop, main)


def test_many_connections_in_one_iteration(loop: str, identity: Identity) -> None:
    """Some of which end meanwhile."""

    async def main() -> None:
        async with Site(identity, Told) as site:
            opened = [await site.open() for _ in range(30)]
            for number, (protocol, _, _) in enumerate(opened):
                protocol.transport.write(b"%02d" % number)
            for protocol, _, _ in opened[::3]:
                protocol.transport.abort()
            for protocol, _, _ in opened[1::3]:
                protocol.transport.close()
            for number, (_, reader, _) in enumerate(opened):
                assert await reader.readexactly(2) == b"%02d" % number
            assert not home().hub.held

    run(loop, main)


def test_written_in_callbacks_of_every_kind(loop: str, identity: Identity) -> None:
    """In connection_made, in data_received, from a task, from a timer, from another connection's callback."""

    class Talking(Told):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(b"made;")

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            for protocol in site.protocols:
                protocol.transport.write(b"data;")

    site = Site(identity, Talking)

    async def main() -> None:
        async with site, Records(site) as client:
            other, reader, _ = await site.open()
            await until(lambda: len(site.protocols) == 2)
            asyncio.get_running_loop().call_later(0, site.protocols[0].transport.write, b"timer;")
            assert await client.read(11) == b"made;timer;"
            await client.send(b"?")
            assert await client.read(5) == b"data;"
            assert await reader.readexactly(10) == b"made;data;"
            site.protocols[0].transport.write(b"task;")
            assert await client.read(5) == b"task;"
            assert other.told == ["made"]

    run(loop, main)


def test_while_reading_and_writing_may_pause(loop: str, identity: Identity) -> None:
    """Ciphers that pause are preferred process-wide, so that is a process of its own."""
    for version in VERSIONS:
        command = [
            sys.executable,
            "-m",
            "support.aio_paused_io",
            loop,
            version,
            str(identity.cert),
            str(identity.key),
            str(identity.ca),
        ]
        done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
