"""One TLS connection, for tasks that wait for it: what `tlsserver.trio` and `tlsserver.anyio` have in common.

It is the protocol of its connection: it keeps what comes in, and wakes the tasks that wait. So nothing is half done
where a task is cancelled: bytes that nobody has taken stay, and bytes that were handed over are sent.
"""

from __future__ import annotations

import asyncio
import operator
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypedDict

from tlsserver.addresses import as_text, peer_address
from tlsserver.audience import Audience
from tlsserver.config import ServerConfig
from tlsserver.connection import Connection
from tlsserver.driver import Driver
from tlsserver.errors import TruncatedError
from tlsserver.session import ContextLike, Session
from tlsserver.state import OPEN
from tlsserver.transport import Transport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from typing_extensions import Unpack

    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.parking import Park
    from tlsserver.task_loop import Kit, TaskLoop
    from tlsserver.wire import TLSInfo

__all__ = ["StreamOptions", "TaskStream", "settings"]

# Bytes that nobody has taken at which reading stops: four records, as `tlsserver.config` has it for writing.
_MOST_UNREAD = 64 * 1024


class StreamOptions(TypedDict, total=False):
    """The settings of a stream, by name. Times in seconds.

    Attributes:
        handshake_timeout: From accept to the end of the handshake, parked time included; 10.
        shutdown_timeout: How long to wait for the peer's close_notify after ours; 5.
        idle_timeout: A connection with no byte either way is ended; None, the default: never.
        https_compatible: A peer that ends its TCP stream without close_notify has come to its end like any other, as
            most HTTP clients do; False, the default: the connection is broken, because data may be missing.
    """

    handshake_timeout: float
    shutdown_timeout: float
    idle_timeout: float | None
    https_compatible: bool


@lru_cache(maxsize=64)
def settings(
    *,
    handshake_timeout: float = 10.0,
    shutdown_timeout: float = 5.0,
    idle_timeout: float | None = None,
    https_compatible: bool = False,
) -> tuple[ServerConfig, bool]:
    """Look at the fields of `StreamOptions`.

    Returns:
        What a connection needs, and whether an end without close_notify is one like any other.

    Raises:
        ConfigurationError: A setting cannot work.
        TypeError: There is no such setting.
    """
    config = ServerConfig(
        timeout_handshake=handshake_timeout, timeout_shutdown=shutdown_timeout, timeout_idle=idle_timeout
    )
    return config, https_compatible


class _Alone:
    """Lets one task in at a time."""

    __slots__ = ("_busy", "_doing", "_is_taken")

    def __init__(self, busy: Callable[[str], Exception], doing: str) -> None:
        self._busy = busy
        self._doing = doing
        self._is_taken = False

    def __enter__(self) -> None:
        if self._is_taken:
            raise self._busy(self._doing)
        self._is_taken = True

    def __exit__(self, *_: object) -> None:
        self._is_taken = False


class TaskStream(asyncio.Protocol):
    """A connection, from accept to its end. The run's thread only.

    Attributes:
        connection: The connection.
        is_lost: It has ended.
        peer: The other end's address.
        socket: Its socket, for addresses and options only.
    """

    def __init__(
        self, loop: TaskLoop, kit: Kit, sock: socket.socket, context: ContextLike, **options: Unpack[StreamOptions]
    ) -> None:
        """Begin; the handshake waits for the client.

        Args:
            loop: Drives it.
            kit: Of those who use it.
            sock: Connected, non-blocking; it becomes the stream's.
            context: What the handshake is made with.
            options: See `StreamOptions`.

        Raises:
            ConfigurationError: A setting cannot work.
            MemoryError: There is none.
            OSError: The socket cannot be watched.
        """
        self.socket = sock
        self._loop = loop
        self._kit = kit
        self._config, self._lenient = settings(**options)
        self._transport: asyncio.BaseTransport | None = None
        self._unread = bytearray()
        self._news: Any = None  # an event, while somebody waits
        self._is_ended = False  # the peer has said that it is done
        self._is_full = False  # not all is sent
        self.is_lost = False
        self._is_closed = False
        self._error: BaseException | None = None
        self._receiving = _Alone(self._kit.busy, "receiving from")
        self._sending = _Alone(self._kit.busy, "sending to")
        self.peer = peer_address(sock)
        self._offer = loop.offer(context)
        self._session = Session(self._offer.shared, sock)
        self._driver = Driver(loop.hub, sock, self._connect, self._gone)
        self.connection = self._driver.connection
        loop.counters.connections_accepted += 1
        loop.counters.connections_open += 1

    def _connect(self, driver: Driver) -> Connection:
        # It is told of the end of its handshake, whichever: so it is there from the beginning.
        audience = Audience(lambda: self, as_text(self.peer), (0, 0))
        audience.protocol = self
        reactor = self._loop.reactor
        return Connection(
            self._session,
            config=self._config,
            counters=self._loop.counters,
            audience=audience,
            make_transport=lambda connection: Transport(connection, reactor.time, self),
            touch=driver.touch,
            place=driver.place,
            drain=self._offer.drain,
            peer=as_text(self.peer),
            now=reactor.time(),
        )

    # What the connection tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Keep what has come."""
        self._unread += data
        if len(self._unread) >= _MOST_UNREAD:
            self.connection.set_reading(wanted=False)
        self._wake()

    def eof_received(self) -> bool:
        """The peer has said that it is done; this end may go on."""
        self._is_ended = True
        self._wake()
        return True

    def pause_writing(self) -> None:
        """Not all is sent."""
        self._is_full = True

    def resume_writing(self) -> None:
        """All is sent."""
        self._is_full = False
        self._wake()

    def connection_lost(self, error: BaseException | None) -> None:
        """The connection has ended."""
        self.is_lost = True
        self._error = error
        self._wake()

    def _gone(self) -> None:
        self._loop.counters.connections_open -= 1
        if not self.is_lost:
            self.connection_lost(None)

    # What tasks wait for

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    async def _until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds, or the connection is over; a checkpoint in any case."""
        if condition() or self._is_over:
            await self._kit.checkpoint()
        while not (condition() or self._is_over):
            if self._news is None:
                self._news = self._kit.event()
            await self._news.wait()

    @property
    def _is_over(self) -> bool:
        return self.is_lost or self._is_closed

    def _complain(self) -> None:
        if self._is_closed:
            raise self._kit.closed("this stream was closed")
        if self.is_lost:
            made = self._transport is not None
            reason = self._error or ("it is closed" if made else "the client was answered without TLS")
            raise self._kit.broken(
                f"{'the connection' if made else 'the handshake'} has failed: {reason}"
            ) from self._error

    # What tasks do

    async def do_handshake(self) -> None:
        """Wait until the handshake is done. If the task is cancelled meanwhile, the connection ends."""
        try:
            await self._until(lambda: self._transport is not None)
        except BaseException:
            self.abort()
            raise
        if self._transport is None or self._is_closed:
            self._complain()

    async def receive(self, most: int | None) -> bytes:
        """Wait for bytes, and take up to ``most``; none: the peer has ended its side."""
        if most is not None and operator.index(most) < 1:
            raise ValueError(f"max_bytes is {most}: give 1 or more")
        with self._receiving:
            await self._until(lambda: self._unread or self._is_ended)
            if self._unread and not self._is_closed:
                return self._take(most)
            if not self._is_closed and self._has_ended:
                return b""
            self._complain()
            return b""

    @property
    def _has_ended(self) -> bool:
        if self.is_lost and self._transport is not None:
            return self._error is None or (self._lenient and isinstance(self._error, TruncatedError))
        return self._is_ended

    def _take(self, most: int | None) -> bytes:
        taken = bytes(self._unread if most is None else self._unread[:most])
        del self._unread[: len(taken)]
        if len(self._unread) < _MOST_UNREAD and not self.connection.is_reading and not self.is_lost:
            self.connection.set_reading(wanted=True)
        return taken

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it, after what was not sent before."""
        with self._sending:
            piece = data if type(data) is bytes else memoryview(data).tobytes()
            await self._until(self._can_send)
            self._complain()
            if piece:
                self.connection.write(piece, self._loop.reactor.time())
            if self._is_full:
                await self._until(self._can_send)
                self._complain()

    async def wait_can_send(self) -> None:
        """Wait until nothing is left to be sent."""
        with self._sending:
            await self._until(self._can_send)
            self._complain()

    def _can_send(self) -> bool:
        return self._transport is not None and not self._is_full

    async def aclose(self) -> None:
        """Send what is left and close_notify, and wait for the peer's; at once, and without it, if cancelled."""
        self._is_closed = True
        self._wake()
        try:
            await self._kit.checkpoint()
            if self.connection.state in OPEN:
                self.connection.close()
            else:
                self.abort()
            while not self.is_lost:
                self._news = self._news or self._kit.event()
                await self._news.wait()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """End the connection at once."""
        if not self.is_lost:
            self.connection.abort(self._loop.reactor.time())

    def forget(self, face: object) -> None:
        """Nobody has the stream any more, as its users know it. Any thread, and while garbage is collected."""
        if not (self._is_over or self._loop.is_over):
            self._loop.reactor.call_soon_threadsafe(self.abort)
            warnings.warn(f"unclosed {face!r}", ResourceWarning, source=face, stacklevel=3)

    # Facts

    @property
    def tls(self) -> TLSInfo | None:
        """What the handshake settled."""
        return self.connection.tls

    @property
    def park(self) -> Park:
        """How it was parked so far."""
        return self.connection.park

    @property
    def client_certificate(self) -> ClientCertificate | None:
        """The client's, once the handshake is done."""
        return self._session.peer_certificate

    def get(self, name: str, default: Any) -> Any:  # noqa: ANN401 - its type depends on the name
        """Return what `Transport.get_extra_info` tells about the peer."""
        return {"peername": self.peer, "socket": self.socket}.get(name, default)
