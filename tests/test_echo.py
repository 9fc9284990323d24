"""The echo protocol: in memory, and over asyncio."""

from __future__ import annotations

import asyncio
import os

from helpers_web import Wire, serve_plain

from tlsserver.protocols.echo import EchoProtocol


def test_sends_back_and_closes_after_the_end() -> None:
    wire = Wire(EchoProtocol()).feed(b"one", b"two")
    assert wire.transport.written == b"onetwo"
    assert wire.eof().transport.closed


def test_does_not_read_what_a_slow_client_will_not_take() -> None:
    wire = Wire(EchoProtocol(), room=4).feed(b"1234", b"5678", b"9")
    assert wire.transport.written == b"12345678"
    assert not wire.transport.reading
    wire.transport.drain()
    wire.settle()
    assert wire.transport.written == b"123456789"


def test_stops_when_the_server_does() -> None:
    protocol = EchoProtocol()
    wire = Wire(protocol)
    protocol.close_when_idle()
    assert wire.transport.closed
    wire.lose()


def test_over_asyncio() -> None:
    data = os.urandom(1_000_000)

    async def talk() -> bytes:
        async with await serve_plain(EchoProtocol) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(data)
            writer.write_eof()
            echoed = await reader.read(-1)
            writer.close()
            await writer.wait_closed()
            return echoed

    assert asyncio.run(talk()) == data
