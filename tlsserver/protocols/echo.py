"""Sends back what it receives, no faster than the peer takes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlsserver.protocols.base import Transport


class EchoProtocol(asyncio.Protocol):
    """RFC 862 over one connection. A peer that does not read is not read from, so memory stays bounded."""

    _transport: Transport

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - a `Transport`
        """Remember where to write to."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Send `data` back."""
        self._transport.write(data)

    def eof_received(self) -> bool:
        """Let the transport send the rest and close."""
        return False

    def pause_writing(self) -> None:
        """The peer reads slower than it writes: take nothing more from it."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer caught up."""
        self._transport.resume_reading()

    def close_when_idle(self) -> None:
        """There is no request to wait for: what was received has been queued."""
        self._transport.close()
