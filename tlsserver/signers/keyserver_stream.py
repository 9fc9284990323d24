"""One connection without TLS on our selector loop, as a protocol sees it: asyncio's transport interface over a socket.

Loop thread only. What is written goes to the socket at once, and what it does not take is kept; above a mark the
protocol is told to pause, as asyncio has it.
"""

from __future__ import annotations

import asyncio
import logging
import select
from typing import TYPE_CHECKING, Any

from tlsserver.reactor import EVENT_READ, EVENT_WRITE, Reactor, Timer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["StreamTransport"]

logger = logging.getLogger(__name__)

_READ_SIZE = 16 * 1024  # as much as a TLS record; messages are small, so more would be many in a turn
_HIGH, _LOW = 64 * 1024, 16 * 1024  # as `tlsserver.ServerConfig` has them

# Closing sends what is left; one that does not read it within this time has lost it.
_LINGER = 5.0


class StreamTransport(asyncio.Transport):
    """An open connection. ``connection_made`` is called at once, so that nothing is read before."""

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        protocol: asyncio.Protocol,
        *,
        facts: dict[str, Any],
        on_closed: Callable[[StreamTransport], object],
    ) -> None:
        """Begin to read.

        Args:
            reactor: The loop.
            sock: Connected, non-blocking; it becomes the transport's.
            protocol: What is fed.
            facts: For `get_extra_info`.
            on_closed: Called when all is over.
        """
        super().__init__(facts)
        self._reactor = reactor
        self._socket = sock
        self._protocol = protocol
        self._on_closed = on_closed
        self._unsent = bytearray()
        self._is_reading = True
        self._is_closing = self._is_lost = self._is_paused = self._has_ended = False
        self._linger: Timer | None = None
        self._registration = reactor.add(sock.fileno(), EVENT_READ, self._ready, urgent=True)
        self._guard(protocol.connection_made, self)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Return whether it is being closed, or is closed."""
        return self._is_closing

    def is_reading(self) -> bool:
        """Return whether data is being received."""
        return self._is_reading and not self._is_closing

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are unsent."""
        return len(self._unsent)

    def pause_reading(self) -> None:
        """Stop calling ``data_received``. Idempotent."""
        self._is_reading = False
        self._watch()

    def resume_reading(self) -> None:
        """Go on after `pause_reading`. Idempotent."""
        self._is_reading = True
        self._watch()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send as much as the socket takes now, keep the rest. Dropped if the connection is closing."""
        if self._is_closing or not data:
            return
        self._unsent += data
        if len(self._unsent) == len(data):
            self._send()
        self._watch()
        if len(self._unsent) > _HIGH and not self._is_paused:
            self._is_paused = True
            self._guard(self._protocol.pause_writing)

    def close(self) -> None:
        """Stop reading, send what is unsent, then close; ``connection_lost(None)`` follows."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._unsent:
            self._linger = self._reactor.call_later(_LINGER, self.abort)
            self._watch()
        else:
            self._reactor.call_soon(self._lose, None)

    def abort(self) -> None:
        """Close at once and drop what is unsent; ``connection_lost(None)`` follows."""
        self._is_closing = True
        self._unsent.clear()
        self._reactor.call_soon(self._lose, None)

    def _ready(self, events: int) -> None:
        if events & EVENT_WRITE:
            self._send()
            self._written()
        if events & EVENT_READ and not self._is_closing:
            self._read()
        self._watch()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._guard(self._protocol.data_received, data)
            return
        self._has_ended = True
        if self._has_left():
            self._lose(None)
        elif not self._guard(self._protocol.eof_received):
            self.close()

    def _has_left(self) -> bool:
        """Tell a peer that is gone from one that only sends no more, and still reads."""
        looking = select.poll()
        looking.register(self._socket, 0)
        return bool(looking.poll(0))

    def _send(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._is_closing = True
            self._reactor.call_soon(self._lose, error)  # not within the protocol's own call

    def _written(self) -> None:
        if self._is_paused and len(self._unsent) <= _LOW and not self._is_closing:
            self._is_paused = False
            self._guard(self._protocol.resume_writing)
        if self._is_closing and not self._unsent:
            self._lose(None)

    def _watch(self) -> None:
        if self._is_lost:
            return
        reads = self._is_reading and not self._is_closing and not self._has_ended
        self._reactor.modify(self._registration, (EVENT_READ if reads else 0) | (EVENT_WRITE if self._unsent else 0))

    def _guard(self, call: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - the call's
        """An error of the protocol's costs this connection only."""
        try:
            return call(*args)
        except Exception:
            logger.exception("a protocol failed, and its connection is dropped")
            self.abort()
            return None

    def _lose(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        if self._linger is not None:
            self._linger.cancel()
        self._reactor.remove(self._registration)
        self._socket.close()
        try:
            self._protocol.connection_lost(error)
        except Exception:
            logger.exception("a protocol failed when its connection was lost")
        self._on_closed(self)
