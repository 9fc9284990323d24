"""What the streams of `tlsserver.trio` and `tlsserver.anyio` show alike: they differ in how bytes are asked for."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.parking import Park
    from tlsserver.task_stream import TaskStream
    from tlsserver.wire import TLSInfo

__all__ = ["StreamFace", "greet"]


class StreamFace:
    """A stream of either, from accept to its end. The errors are those of whose stream it is: trio's, or anyio's."""

    _stream: TaskStream

    async def do_handshake(self) -> None:
        """Wait until the handshake is done. If this is cancelled the connection ends.

        Raises:
            BrokenResourceError: The handshake has failed; ``__cause__`` says why (`tlsserver.errors`).
            ClosedResourceError: The stream was closed.
        """
        await self._stream.do_handshake()

    async def aclose(self) -> None:
        """Send close_notify, wait for the peer's, and close; if cancelled, close at once and without it."""
        await self._stream.aclose()

    @property
    def tls(self) -> TLSInfo | None:
        """What the handshake settled; None before its end."""
        return self._stream.tls

    @property
    def client_certificate(self) -> ClientCertificate | None:
        """The client's certificate, once the handshake is done; None: it has sent none."""
        return self._stream.client_certificate

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended, by either side."""
        return self._stream.is_lost

    @property
    def park(self) -> Park:
        """How often, and for how long, the connection was parked."""
        return self._stream.park

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None:
            stream.forget(self)


FaceT = TypeVar("FaceT", bound=StreamFace)


async def greet(stream: FaceT, handler: Callable[[FaceT], Awaitable[object]], broken: type[Exception]) -> None:
    """Make the handshake, call the handler, and close the stream.

    Args:
        stream: Just accepted.
        handler: Called when the handshake is done.
        broken: What a lost connection raises: that is the end of the connection, and of nothing else.
    """
    async with aclosing(stream):
        try:
            await stream.do_handshake()
            await handler(stream)
        except broken:
            if not stream.is_lost:
                raise
