"""The protocol above a connection, called as asyncio calls protocols."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tlsserver.asyncio.errors import as_asyncio
from tlsserver.audience import Audience

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

__all__ = ["LoopAudience"]


class LoopAudience(Audience):
    """Calls the protocol in the context of whoever made the connection; errors go to the loop's exception handler.

    A context cannot be entered twice, and a protocol may be called from within a call of its own (a write in
    ``data_received`` may lead to ``pause_writing``): the inner call finds itself in the right context already.
    """

    forgives_truncation = True

    __slots__ = ("_announces", "_context", "_is_inside", "_loop", "_transport", "_waiter")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], asyncio.BaseProtocol],
        peer: object,
        limits: tuple[int, int],
        *,
        context: contextvars.Context,
        waiter: asyncio.Future[asyncio.BaseTransport] | None = None,
        announces: bool = True,
    ) -> None:
        """Prepare for a protocol.

        Args:
            loop: The connection's.
            factory: Makes the protocol, or returns it.
            peer: The other end; its text is for the log.
            limits: The write buffer's marks, ``(low, high)`` in bytes.
            context: What the protocol's context variables begin with.
            waiter: Told of the end of the handshake; None: nobody waits.
            announces: Whether the protocol is told ``connection_made``.
        """
        super().__init__(factory, peer, limits)
        self._loop = loop
        self._context = context
        self._waiter = waiter
        # Who awaits start_tls() has to get the transport before its protocol gets the first data, and may write.
        self.is_deaf = waiter is not None
        self._announces = announces
        self._is_inside = False
        self._transport: Any = None

    def meet(self, transport: asyncio.BaseTransport) -> Exception | None:
        """Make the protocol, tell it ``connection_made``, and whoever waits that the handshake is done."""
        self._transport = transport
        try:
            self.protocol = self._run(self._factory, ())  # type: ignore[assignment]
        except Exception as error:  # noqa: BLE001 - the user's code
            self._report("protocol_factory", error)
            self._wake(error)
            return error
        failed = self.call("connection_made", transport) if self._announces else None
        self._wake(failed)
        return failed

    def receive(self, data: bytes) -> Exception | None:
        """Hand over what has come, to protocols of either kind."""
        protocol: Any = self.protocol
        if _takes_buffers(protocol):
            return self._fill(data)
        return self._try("data_received", protocol.data_received, (data,))[1]

    def _fill(self, data: bytes) -> Exception | None:
        """Fill the buffers that it gives, for as long as it takes them: it may stop reading or make way for another."""
        while _takes_buffers(self.protocol):
            count: Any
            count, error = self._try("buffer_updated", _fill_one, (self.protocol, data))
            if error is not None:
                return error
            data = data[count:]
            if not data:
                return None
            if not self._transport.is_reading():
                self.held = data
                return None
        return self.receive(data)

    def call(self, method: str, *args: object) -> Exception | None:
        """Call a method of the protocol and throw its answer away."""
        return self._try(method, getattr(self.protocol, method), args)[1]

    def ask(self, method: str, *args: object) -> tuple[object, Exception | None]:
        """Call a method of the protocol; return its answer and what it raised."""
        return self._try(method, getattr(self.protocol, method), args)

    def _try(self, name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> tuple[object, Exception | None]:
        try:
            return self._run(method, args), None
        except Exception as error:  # noqa: BLE001 - the user's code
            self._report(name, error)
            return None, error

    def _run(self, method: Callable[..., Any], args: tuple[Any, ...]) -> object:
        if self._is_inside:
            return method(*args)
        self._is_inside = True
        try:
            return self._context.run(method, *args)
        finally:
            self._is_inside = False

    def lose(self, error: BaseException | None) -> None:
        """Tell it ``connection_lost``, once, if it was ever told of the connection."""
        shown = as_asyncio(error, getattr(self._peer, "server_hostname", None))
        self._wake(shown or ConnectionAbortedError("the TLS handshake was aborted"))
        super().lose(shown)
        self._transport = None

    def forsake(self) -> None:
        """The loop is being closed: as at the end of asyncio's, nobody is told of anything any more."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.cancel()
        self.protocol = None

    def _wake(self, error: BaseException | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if error is not None:
            waiter.set_exception(error)
        elif self._transport is not None:
            waiter.set_result(self._transport)

    def _report(self, name: str, error: Exception) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"Fatal error: protocol.{name}() call failed.",
                "exception": error,
                "transport": self._transport,
                "protocol": self.protocol,
            }
        )


def _fill_one(protocol: asyncio.BufferedProtocol, data: bytes) -> int:
    """Copy into one buffer; return how much it took."""
    with memoryview(protocol.get_buffer(len(data))) as room, room.cast("B") as octets:
        count = min(len(octets), len(data))
        octets[:count] = data[:count]
    if not count:
        raise RuntimeError("get_buffer() returned an empty buffer")
    protocol.buffer_updated(count)
    return count


def _takes_buffers(protocol: object) -> bool:
    """As in uvloop, who has no other way to be given data need not say that he is a BufferedProtocol."""
    return isinstance(protocol, asyncio.BufferedProtocol) or not hasattr(protocol, "data_received")
