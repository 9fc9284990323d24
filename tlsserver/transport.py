"""What a protocol talks to: asyncio's transport interface over a `Connection`.

Loop thread only, as in asyncio; from elsewhere use ``transport.get_extra_info("reactor").call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tlsserver.audience import Audience
    from tlsserver.parking import Park
    from tlsserver.wire import TLSInfo

__all__ = ["Transport"]

BytesLike = bytes | bytearray | memoryview


class ConnectionLike(Protocol):
    """What the transport needs of `tlsserver.connection.Connection`; times are the loop's, in seconds."""

    tls: TLSInfo | None
    audience: Audience

    @property
    def park(self) -> Park:
        """How it was parked so far."""

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed, or is closed."""

    @property
    def is_reading(self) -> bool:
        """Whether the protocol wants data."""

    @property
    def buffer_size(self) -> int:
        """Unsent bytes."""

    def write(self, data: bytes, now: float) -> None:
        """Send, and buffer what cannot be sent now."""

    def close(self) -> None:
        """Flush, then close."""

    def abort(self, now: float) -> None:
        """Close at once."""

    def set_reading(self, *, wanted: bool) -> None:
        """Go on or stop reading."""

    def set_buffer_limits(self, low: int, high: int) -> None:
        """Set the write buffer's marks."""


class Facts(Protocol):
    """What `Transport.get_extra_info` knows beyond the connection itself; a dict will do."""

    def get(self, name: str, default: Any, /) -> Any:  # noqa: ANN401 - its type depends on the name
        """Return the fact of that name, or the default."""


class Transport(asyncio.Transport):
    """An open TLS connection, as a protocol sees it: https://docs.python.org/3/library/asyncio-protocol.html."""

    __slots__ = ("_clock", "_connection")

    def __init__(self, connection: ConnectionLike, clock: Callable[[], float], extra: Facts) -> None:
        """Wrap a connection.

        Args:
            connection: Its handshake is done.
            clock: The loop's time.
            extra: For `get_extra_info`.
        """
        super().__init__()
        self._connection = connection
        self._clock = clock
        self._extra: Facts = extra

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - its type depends on the name
        """Return a fact about the connection.

        Args:
            name: ``peername``, ``sockname`` (addresses), ``socket`` (for addresses and options only: reading or writing
                it breaks the TLS stream), ``tls`` (`TLSInfo`), ``server_name`` (str or None), ``park`` (`Park`),
                ``client_certificate`` (`tlsserver.ClientCertificate` or None), ``peercert`` (the same as a dict, as of
                `ssl.SSLSocket.getpeercert`, or None), ``engine`` (the engine's name or None), ``reactor`` (the loop;
                its ``call_later`` schedules), ``wait_context`` (`engine_shim.WaitContextView`: what OpenSSL waits for).
            default: The answer for any other name.
        """
        if name == "park":
            return self._connection.park
        tls = self._connection.tls
        if name == "tls":
            return tls
        if name == "server_name":
            return None if tls is None else tls.server_name
        return self._extra.get(name, default)

    def write(self, data: BytesLike) -> None:
        """Send as much as the socket takes now, buffer the rest. Dropped if the connection is closing.

        Raises:
            TypeError: It is not bytes-like.
        """
        if type(data) is not bytes:
            data = _as_bytes(data)
        if data:
            self._connection.write(data, self._clock())

    def writelines(self, list_of_data: Iterable[BytesLike]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return False: TLS before 1.3 has no half-closed state, so protocols must not build on it."""
        return False

    def write_eof(self) -> None:
        """Not supported.

        Raises:
            NotImplementedError: Always.
        """
        message = "a TLS stream cannot be half closed: call close()"
        raise NotImplementedError(message)

    def close(self) -> None:
        """Stop reading, send what is buffered, say close_notify, and close; ``connection_lost(None)`` follows."""
        self._connection.close()

    def abort(self) -> None:
        """Close at once and drop what is buffered; ``connection_lost(None)`` follows at the end of the turn."""
        self._connection.abort(self._clock())

    def is_closing(self) -> bool:
        """Return whether the connection is being closed, or is closed."""
        return self._connection.is_closing

    def pause_reading(self) -> None:
        """Stop calling ``data_received``. Idempotent."""
        self._connection.set_reading(wanted=False)

    def resume_reading(self) -> None:
        """Go on after `pause_reading`. Idempotent."""
        self._connection.set_reading(wanted=True)

    def is_reading(self) -> bool:
        """Return whether data is being received."""
        return self._connection.is_reading and not self._connection.is_closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the sizes at which the protocol's ``pause_writing`` and ``resume_writing`` are called.

        Args:
            high: Unsent bytes above which to pause; None: 64 KiB, or four times ``low``.
            low: Unsent bytes at or below which to go on; None: a quarter of ``high``.

        Raises:
            ValueError: Not ``high >= low >= 0``.
        """
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            message = f"high ({high}) must be at least low ({low}), and low at least 0"
            raise ValueError(message)
        self._connection.set_buffer_limits(low, high)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return ``(low, high)``."""
        return self._connection.audience.limits

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are unsent."""
        return self._connection.buffer_size

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol take over. It is not told ``connection_made``."""
        self._connection.audience.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol.

        Raises:
            RuntimeError: The connection is lost.
        """
        protocol = self._connection.audience.protocol
        if protocol is None:
            message = "the connection is lost: it has no protocol any more"
            raise RuntimeError(message)
        return protocol


def _as_bytes(data: object) -> bytes:
    """Copy: the caller may change its buffer as soon as write() returns, and a paused write must not see that."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    message = f"write() takes bytes, bytearray or memoryview, not {type(data).__name__}"
    raise TypeError(message)
