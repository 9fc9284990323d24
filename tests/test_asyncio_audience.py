"""How protocols are called on asyncio's loops: of both kinds, in which context, and what their errors do."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import pytest

from support.aio import LOOPS, Echo, Site, Told, home, run, turns, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Identity

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.parametrize("loop", LOOPS)]

LONG = bytes(range(256)) * 400


class Buffered(asyncio.BufferedProtocol):
    """Gathers what comes in buffers of one size."""

    def __init__(self, size: int = 1 << 16) -> None:
        self.room = bytearray(size)
        self.received = b""
        self.updates = 0
        self.told: list[Any] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> Any:
        assert sizehint > 0
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.updates += 1
        self.received += self.room[:nbytes]
        self.updated()

    def updated(self) -> None:
        """For those who do more."""

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append(error)


@pytest.mark.parametrize("size", [1, 100, 1 << 16])
def test_buffers(loop: str, identity: Identity, size: int) -> None:
    data = LONG[: min(100 * size, len(LONG))]

    async def main() -> None:
        async with Site(identity, lambda: Buffered(size)) as site:
            protocol, _, writer = await site.open()
            writer.write(data)
            await until(lambda: len(protocol.received) == len(data))
            assert protocol.received == data

    run(loop, main)


class Pausing(Buffered):
    """Stops reading after every buffer."""

    def updated(self) -> None:
        self.transport.pause_reading()


def test_no_buffer_is_filled_while_reading_is_paused(loop: str, identity: Identity) -> None:
    async def main() -> None:
        async with Site(identity, lambda: Pausing(10)) as site:
            protocol, _, writer = await site.open()
            writer.write(LONG[:35])
            for count in range(1, 5):
                await until(lambda count=count: protocol.updates == count)  # type: ignore[misc]
                await turns(3)
                assert len(protocol.received) == min(10 * count, 35)
                protocol.transport.resume_reading()
            assert protocol.received == LONG[:35]

    run(loop, main)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_no_buffer_is_filled_after_the_end(loop: str, identity: Identity, how: str) -> None:
    class Ending(Buffered):
        def updated(self) -> None:
            getattr(self.transport, how)()

    async def main() -> None:
        async with Site(identity, lambda: Ending(10)) as site:
            protocol, reader, writer = await site.open()
            writer.write(LONG[:35])
            assert await reader.read() == b""
            assert protocol.received == LONG[:10]

    run(loop, main)


def test_a_protocol_that_makes_way_in_its_buffer(loop: str, identity: Identity) -> None:
    """What is left of a record is the next protocol's, of whichever kind."""
    told: list[Told] = []

    class Handing(Buffered):
        def updated(self) -> None:
            told.append(Told())
            self.transport.set_protocol(told[0] if len(told) > 0 else None)

    async def main() -> None:
        async with Site(identity, lambda: Handing(10)) as site:
            protocol, _, writer = await site.open()
            writer.write(LONG[:35])
            await until(lambda: told and len(told[0].received) == 25)
            assert (protocol.received, told[0].received) == (LONG[:10], LONG[10:35])
            writer.close()
            await until(lambda: told[0].told == ["eof", "lost"])

    run(loop, main)


def empty(_protocol: Any) -> Any:
    return bytearray()


def fails(_protocol: Any) -> Any:
    raise LookupError("scripted")


def readonly(_protocol: Any) -> Any:
    return b"not writable"


@pytest.mark.parametrize(("buffer", "error"), [(empty, RuntimeError), (fails, LookupError), (readonly, TypeError)])
def test_buffers_that_cannot_be_used(
    loop: str, identity: Identity, buffer: Callable[[Any], Any], error: type[Exception]
) -> None:
    class Bad(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            return buffer(sizehint)

    seen: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        async with Site(identity, lambda: Bad() if len(seen) == 0 and not others else Echo()) as site:
            bad, reader, writer = await site.open()
            others.append(1)
            _, good_reader, good_writer = await site.open()
            writer.write(b"x")
            assert await reader.read() == b""
            good_writer.write(b"well?")
            assert await good_reader.readexactly(5) == b"well?"
            await until(lambda: bad.told)
            assert isinstance(bad.told[0], error)

    others: list[int] = []
    run(loop, main)
    (context,) = seen
    assert isinstance(context["exception"], error)
    assert context["message"] == "Fatal error: protocol.buffer_updated() call failed."
    assert isinstance(context["protocol"], Bad)


METHODS = ("connection_made", "data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost")


@pytest.mark.parametrize("method", METHODS)
def test_errors_of_protocols(loop: str, identity: Identity, method: str) -> None:
    """They are the loop's exception handler's, end their own connection and no other; what was written is sent."""
    seen: list[Any] = []

    class Bad(Told):
        def __getattribute__(self, name: str) -> Any:
            if name != method:
                return super().__getattribute__(name)

            def fail(*args: Any) -> None:
                if name == "connection_made":
                    self.transport = args[0]
                self.transport.write(b"before")
                raise LookupError("scripted")

            return fail

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.set_write_buffer_limits(high=0)
            self.transport.write(bytes(1 << 24))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        async with Site(identity, Bad) as site:
            _, reader, writer = await site.open()
            writer.write(b"x")
            if method == "eof_received":
                await reader.readexactly(1 << 24)
            if method in ("eof_received", "connection_lost"):
                writer.close()
            else:
                got = await reader.read()
                assert method not in ("connection_made", "data_received") or got == b"before"
            await until(lambda: seen and not site.numbers.connections_open)

    run(loop, main)
    (context,) = seen
    assert context["message"] == f"Fatal error: protocol.{method}() call failed."
    assert str(context["exception"]) == "scripted"


def test_a_factory_that_fails(loop: str, identity: Identity) -> None:
    seen: list[Any] = []

    def factory() -> asyncio.BaseProtocol:
        raise LookupError("scripted")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        async with Site(identity, factory) as site:
            reader, _ = await site.connect()
            assert await reader.read() == b""
            await until(lambda: not site.numbers.connections_open)

    run(loop, main)
    (context,) = seen
    assert context["message"] == "Fatal error: protocol.protocol_factory() call failed."


NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="nobody")


class Named(Told):
    """Remembers under which name each call came, and sets another in each."""

    def __init__(self) -> None:
        super().__init__()
        self.names = [NAME.get()]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.names.append(NAME.get())
        NAME.set("made")

    def data_received(self, data: bytes) -> None:
        self.names.append(NAME.get())
        NAME.set(data.decode())

    def connection_lost(self, error: Exception | None) -> None:
        self.names.append(NAME.get())
        super().connection_lost(error)


def test_context_variables(loop: str, identity: Identity) -> None:
    """Each connection has a copy of the context in which the server was made, and keeps it to its end."""

    async def main() -> None:
        NAME.set("server")
        async with Site(identity, Named) as site:
            NAME.set("somebody else")
            first, _, one = await site.open()
            second, _, two = await site.open()
            for protocol, writer, name in ((first, one, b"first"), (second, two, b"second")):
                writer.write(name)
                await until(lambda protocol=protocol: len(protocol.names) == 3)  # type: ignore[misc]
            one.write(b"again")
            await until(lambda: len(first.names) == 4)
            one.close()
            second.transport.abort()  # from a task that has another name
            await asyncio.gather(first.lost, second.lost)
            assert first.names == ["server", "server", "made", "first", "again"]
            assert second.names == ["server", "server", "made", "second"]
            assert NAME.get() == "somebody else"

    run(loop, main)


def test_calls_within_calls_stay_in_their_context(loop: str, identity: Identity) -> None:
    """Two connections that write into each other, beyond their marks."""
    names: list[tuple[str, str]] = []

    class Pair(Named):
        def data_received(self, data: bytes) -> None:
            NAME.set(f"of {len(pairs)}" if not data.startswith(b"go") else NAME.get())
            for pair in pairs:
                pair.transport.set_write_buffer_limits(high=0)
                pair.transport.write(bytes(1 << 23))

        def pause_writing(self) -> None:
            names.append(("pause", NAME.get()))

    pairs: list[Any] = []

    async def main() -> None:
        async with Site(identity, Pair) as site:
            one, _, first = await site.open()
            two, _, _ = await site.open()
            pairs.extend((one, two))
            first.write(b"go")
            await until(lambda: len(names) == 2)
        assert names == [("pause", "made")] * 2

    run(loop, main)


def test_turns_know_no_tasks_variables(loop: str, identity: Identity) -> None:
    """Whoever was the first to use the loop leaves nothing in it, not even what it holds."""

    async def main() -> None:
        NAME.set("the first")
        async with Site(identity) as site:
            await site.connect()
            assert home().reactor.context.get(NAME) is None
            reactor, seen = home().reactor, []
            reactor.call_later(0, lambda: seen.append(NAME.get()))
            reactor.call_soon_threadsafe(lambda: seen.append(NAME.get()))
            await until(lambda: len(seen) == 2)
            assert seen == ["nobody"] * 2

    run(loop, main)
