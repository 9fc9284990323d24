"""TLS for trio: streams and listeners whose handshakes never hold up the run, whatever engine has the key.

They take the places of `trio.SSLStream` and `trio.SSLListener`, with a `tlsserver.TLSContext` instead of an
`ssl.SSLContext`. Needs trio: ``pip install tlsserver[trio]``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from tlsserver.task_face import StreamFace, greet
from tlsserver.task_loop import Kit, TaskLoop
from tlsserver.task_stream import StreamOptions, TaskStream, settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import Unpack

    from tlsserver.session import ContextLike

__all__ = ["StreamOptions", "TLSListener", "TLSStream", "open_tls_listeners", "serve_tls", "task_loop"]

_KIT = Kit(
    event=trio.Event,
    scope=trio.CancelScope,
    now=trio.current_time,
    checkpoint=trio.lowlevel.checkpoint,
    wait_readable=trio.lowlevel.wait_readable,
    busy=lambda doing: trio.BusyResourceError(f"another task is already {doing} this stream"),
    broken=trio.BrokenResourceError,
    closed=trio.ClosedResourceError,
)
_loops: trio.lowlevel.RunVar[TaskLoop] = trio.lowlevel.RunVar("tlsserver")


def task_loop() -> TaskLoop:
    """Return what drives the TLS connections of this run; made with the first."""
    try:
        return _loops.get()
    except LookupError:
        loop = TaskLoop(_KIT)
        _loops.set(loop)
        trio.lowlevel.spawn_system_task(loop.serve, name="tlsserver")
        return loop


class TLSStream(StreamFace, trio.abc.Stream):
    """The server's end of a TLS connection, on the socket itself: a `trio.abc.Stream`.

    The handshake goes on by itself as soon as the client speaks; sending and receiving wait for it. A task may be
    cancelled anywhere: what it has not received stays for the next, what it has begun to send is sent. Only
    `do_handshake` and `aclose` end the connection when they are cancelled, and with it what an engine has in hand.

    Args:
        transport_stream: The connection. Its socket becomes the TLS stream's: it is of no more use by itself.
        context: What the handshake is made with.
        options: See `StreamOptions`.

    Raises:
        TypeError: It is no `trio.SocketStream`, or there is no such option.
        ConfigurationError: A setting cannot work.
    """

    def __init__(
        self, transport_stream: trio.SocketStream, context: ContextLike, **options: Unpack[StreamOptions]
    ) -> None:
        if not isinstance(transport_stream, trio.SocketStream):
            raise TypeError(f"a TLSStream is on a socket itself: give a trio.SocketStream, not {transport_stream!r}")
        taken = transport_stream.socket
        family, kind, protocol = taken.family, taken.type, taken.proto
        # Out of trio's hands: it would watch it as well.
        sock = socket.socket(family, kind, protocol, fileno=taken.detach())
        sock.setblocking(False)  # the descriptor is so already; now its object knows
        try:
            self._stream = TaskStream(task_loop(), _KIT, sock, context, **options)
        except BaseException:
            sock.close()
            raise

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes; none: the peer has sent close_notify.

        Args:
            max_bytes: The most to return; None: what is there.

        Raises:
            trio.BrokenResourceError: The connection is lost, or the handshake has failed.
            trio.BusyResourceError: Another task is receiving.
            trio.ClosedResourceError: The stream was closed.
            ValueError: ``max_bytes`` is less than 1.
        """
        return await self._stream.receive(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send it all, and wait until the kernel has it.

        If the task is cancelled meanwhile, all of it is sent nevertheless, or nothing.

        Raises:
            trio.BrokenResourceError: The connection is lost, or the handshake has failed.
            trio.BusyResourceError: Another task is sending.
            trio.ClosedResourceError: The stream was closed.
            TypeError: It is not bytes-like.
        """
        await self._stream.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until nothing is left to be sent. The errors are those of `send_all`."""
        await self._stream.wait_can_send()

    @property
    def socket(self) -> socket.socket:
        """The socket, for addresses and options only: reading or writing it breaks the TLS stream."""
        return self._stream.socket

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol agreed upon (RFC 7301); None: none, or the handshake is not done."""
        return None if self.tls is None else self.tls.alpn


class TLSListener(trio.abc.Listener[TLSStream]):
    """Accepts TLS connections.

    Args:
        transport_listener: Accepts connections.
        context: What the next connection begins with.
        max_handshakes: Handshakes of this run in progress at which accepting waits for some to end; as for
            `tlsserver.Server`, they bound the memory that strangers can take.
        options: See `StreamOptions`.

    Raises:
        TypeError: There is no such option.
        ConfigurationError: A setting cannot work.

    Attributes:
        context: May be replaced at any time, by one of new certificates: connections keep the one they began with.
        transport_listener: As given.
    """

    def __init__(
        self,
        transport_listener: trio.SocketListener,
        context: ContextLike,
        *,
        max_handshakes: int = 1000,
        **options: Unpack[StreamOptions],
    ) -> None:
        settings(**options)  # a mistake shows here, and not with the first connection
        self.context = context
        self.transport_listener = transport_listener
        self._max_handshakes = max_handshakes
        self._options = options

    async def accept(self) -> TLSStream:
        """Wait for a connection; its handshake has not begun.

        Raises:
            trio.ClosedResourceError: The listener was closed.
            OSError: As of `trio.SocketListener.accept`.
        """
        await task_loop().wait_room(self._max_handshakes)
        return TLSStream(await self.transport_listener.accept(), self.context, **self._options)

    async def aclose(self) -> None:
        """Stop listening."""
        await self.transport_listener.aclose()


async def open_tls_listeners(
    port: int,
    context: ContextLike,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    max_handshakes: int = 1000,
    **options: Unpack[StreamOptions],
) -> list[TLSListener]:
    """Listen for TLS connections, like `trio.open_tcp_listeners`.

    Args:
        port: The port; 0: any free one.
        context: What handshakes are made with.
        host: The address; None: all of this machine.
        backlog: As for `trio.open_tcp_listeners`.
        max_handshakes: As for `TLSListener`.
        options: See `StreamOptions`.

    Raises:
        OSError: It cannot be listened there.
    """
    return [
        TLSListener(listener, context, max_handshakes=max_handshakes, **options)
        for listener in await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    ]


async def serve_tls(
    handler: Callable[[TLSStream], Awaitable[object]],
    port: int,
    context: ContextLike,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    max_handshakes: int = 1000,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[list[TLSListener]] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[StreamOptions],
) -> None:
    """Serve TLS connections until cancelled, like `trio.serve_ssl_over_tcp`.

    Args:
        handler: Called, in a task of its own, with each stream whose handshake is done; the stream is closed when it
            returns. Handshakes that fail, and connections that are lost, are logged, and nothing else comes of them:
            the handler may let their `trio.BrokenResourceError` pass.
        port: The port; 0: any free one.
        context: What handshakes are made with.
        host: The address; None: all of this machine.
        backlog: As for `trio.open_tcp_listeners`.
        max_handshakes: As for `TLSListener`.
        handler_nursery: Where the handlers run; None: one of this function's.
        task_status: Is told the listeners, for ``nursery.start``.
        options: See `StreamOptions`.

    Raises:
        OSError: It cannot be listened there.
    """

    async def serve(stream: TLSStream) -> None:
        await greet(stream, handler, trio.BrokenResourceError)

    listeners = await open_tls_listeners(
        port, context, host=host, backlog=backlog, max_handshakes=max_handshakes, **options
    )
    await trio.serve_listeners(serve, listeners, handler_nursery=handler_nursery, task_status=task_status)
