"""A program: pauses in reading and writing on a loop of asyncio, made by ciphers that pause (test_asyncio_held.py).

It is a process of its own because the ciphers are preferred process-wide, if only while the server's context is made.

`python -m support.aio_paused_io LOOP VERSION CERTIFICATE KEY CA`
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine_shim
from support import aio, leaks
from support.aio import Site, Told, home, turns, until
from support.certificates import Identity
from tlsserver import TLSContext
from tlsserver.testing import AT_ONCE, HELD, SIGNALLED, Change, Kind, Script, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONG = bytes(range(256)) * 200


async def held(scripted: ScriptedProvider, count: int = 1) -> None:
    """Wait until so many operations do."""
    await until(lambda: len(scripted.waiting()) == count)


async def paused_read(scripted: ScriptedProvider, site: Site) -> None:
    """Nothing is delivered while it is paused, and nothing afterwards until the protocol reads on; in order."""
    protocol, _, writer = await site.open()
    scripted.script(HELD, kind=Kind.DECRYPT)
    writer.write(b"first")
    await held(scripted)
    writer.write(b"second")
    protocol.transport.pause_reading()
    scripted.complete()
    await turns(3)
    assert protocol.received == b""
    protocol.transport.resume_reading()
    await until(lambda: protocol.received == b"firstsecond")


async def paused_write(scripted: ScriptedProvider, site: Site) -> None:
    """What is written meanwhile comes behind it, and so does the goodbye."""
    protocol, reader, _ = await site.open()
    transport = protocol.transport
    scripted.script(HELD, kind=Kind.ENCRYPT)
    transport.write(b"first ")
    await held(scripted)
    transport.write(b"second ")
    transport.set_write_buffer_limits(high=10)
    transport.write(b"third")
    await turns(2)
    assert protocol.told == ["made", "pause"]
    transport.close()
    await turns(2)
    scripted.complete()
    assert await reader.read() == b"first second third"
    await protocol.lost
    assert protocol.told[-1] == "lost"


async def held_while_reading_pauses(scripted: ScriptedProvider, site: Site) -> None:
    """A write in one callback, a read that pauses in the next: the write goes out when the read has ended."""
    protocol, reader, writer = await site.open()
    scripted.script(HELD, kind=Kind.DECRYPT)
    writer.write(b"question")
    await held(scripted)
    protocol.transport.write(b"answer")
    await turns(2)
    scripted.complete()
    assert await reader.readexactly(6) == b"answer"
    await until(lambda: protocol.received == b"question")


async def aborted(scripted: ScriptedProvider, site: Site) -> None:
    """The operation goes on without its connection, which is told at once."""
    protocol, _, writer = await site.open()
    scripted.script(HELD, kind=Kind.DECRYPT)
    writer.write(b"lost")
    await held(scripted)
    protocol.transport.abort()
    await protocol.lost
    assert site.numbers.draining_now == 1
    scripted.release_all()
    await until(lambda: not site.numbers.draining_now)


async def stream(scripted: ScriptedProvider, site: Site) -> None:
    """Every record pauses, in every way that there is: no byte is lost, doubled or moved."""
    ways = (
        *(SIGNALLED, Script(told=False, pauses=3), Script(told=False, fds=3, false_wakes=1), Script(told=False, fds=0)),
        *(Script(told=False, pauses=3, change=Change.RENEW), Script(told=False, pauses=3, change=Change.REUSE)),
    )
    protocol, reader, writer = await site.open()
    for kind in (Kind.ENCRYPT, Kind.DECRYPT):
        scripted.script(*ways * 3, kind=kind)
        scripted.default(SIGNALLED, kind)
    for size in (1, 16_384, 16_385, 50_000):
        del protocol.received
        protocol.received = b""
        writer.write(LONG[:size])
        await until(lambda size=size: len(protocol.received) == size)  # type: ignore[misc]
        assert protocol.received == LONG[:size]
        protocol.transport.write(LONG[:size])
        assert await reader.readexactly(size) == LONG[:size]
    for kind in (Kind.ENCRYPT, Kind.DECRYPT):
        scripted.default(AT_ONCE, kind)


SCENARIOS: tuple[Callable[[ScriptedProvider, Site], Awaitable[None]], ...] = (
    *(paused_read, paused_write, held_while_reading_pauses, aborted, stream),
)


def play(loop: str, version: str, identity: Identity, scripted: ScriptedProvider) -> None:
    """Play all, each with a server of its own."""
    key = scripted.engine.load_key(identity.key)
    with scripted.ciphers.prefer():
        context: Any = TLSContext(identity.cert, key, async_io=True)

    async def main() -> None:
        for scenario in SCENARIOS:
            scripted.reset()
            async with Site(identity, Told, version=version, context=context) as site:
                await scenario(scripted, site)
            assert not home().hub.drivers, scenario
            await asyncio.get_running_loop().shutdown_asyncgens()

    aio.run(loop, main)


def main(loop: str, version: str, cert: str, key: str, ca: str) -> None:
    """Play, and see that nothing is left."""
    with ScriptedProvider() as scripted:
        before = leaks.holdings()
        play(loop, version, Identity("p256", Path(cert), Path(key), Path(ca)), scripted)
        numbers = engine_shim.counters()
        assert numbers.jobs_started == numbers.jobs_finished, numbers
        complaint = leaks.complaint(before, leaks.holdings())
        assert not complaint, complaint


if __name__ == "__main__":
    main(*sys.argv[1:])
