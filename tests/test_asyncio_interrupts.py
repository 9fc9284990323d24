"""KeyboardInterrupt in a protocol ends the loop, which may go on: nothing that others wait for is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from support.aio import LOOPS, Site, Told, new_loop, until

if TYPE_CHECKING:
    from engine_shim import ManualEngine
    from support.certificates import Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]


class Scene:
    """A server whose protocols are interrupted once, and another one with a client that waits for its handshake."""

    def __init__(self, identity: Identity, manual: ManualEngine, method: str) -> None:
        fuse = [1]

        class Interrupted(Told):
            def __getattribute__(self, name: str) -> Any:
                if name != method or not fuse:
                    return super().__getattribute__(name)
                return interrupt

        def interrupt(*_: object) -> None:
            fuse.clear()
            raise KeyboardInterrupt

        self.method = method
        self.manual = manual
        self.others = Site(identity, engine=manual)
        self.site = Site(identity, Interrupted)

    async def begin(self) -> None:
        await self.others.__aenter__()
        await self.site.__aenter__()

    async def act(self) -> None:
        """Come to where it is interrupted."""
        self.waiting = asyncio.ensure_future(self.others.connect())
        reader, writer = await self.site.connect()
        writer.write(b"x" * 40_000)
        await until(lambda: self.site.protocols)
        transport = self.site.protocols[0].transport
        if self.method == "pause_writing":
            transport.write(bytes(1 << 24))
        elif self.method == "connection_lost":
            transport.abort()
        await reader.read()

    async def go_on(self) -> None:
        """Whoever waited gets what he waited for, and what was not read is read."""
        await until(lambda: self.manual.pending)
        self.manual.perform()
        reader, writer = await self.waiting
        writer.write(b"well?")
        assert await reader.readexactly(5) == b"well?"
        if self.method == "data_received":
            await until(lambda: len(self.site.protocols[0].received) >= 20_000)
        await self.site.__aexit__()
        await self.others.__aexit__()


@pytest.mark.parametrize("method", ["connection_made", "data_received", "connection_lost", "pause_writing"])
def test_keyboard_interrupts(loop: str, identity: Identity, manual: ManualEngine, method: str) -> None:
    scene = Scene(identity, manual, method)
    made = new_loop(loop)
    made.run_until_complete(scene.begin())
    task = made.create_task(scene.act())
    with pytest.raises(KeyboardInterrupt):
        made.run_until_complete(task)
    task.cancel()
    made.run_until_complete(asyncio.wait([task]))
    made.run_until_complete(asyncio.wait_for(scene.go_on(), 20))
    made.close()
