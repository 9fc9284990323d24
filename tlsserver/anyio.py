"""TLS for anyio, on asyncio and on trio: streams and listeners whose handshakes never hold up the loop.

They take the places of `anyio.streams.tls.TLSStream` and `TLSListener`, with a `tlsserver.TLSContext` instead of an
`ssl.SSLContext`. Needs anyio: ``pip install tlsserver[anyio]``.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import sys
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from tlsserver.task_face import StreamFace, greet
from tlsserver.task_loop import Kit, TaskLoop
from tlsserver.task_stream import StreamOptions, TaskStream, settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from typing_extensions import Unpack

    from tlsserver.session import ContextLike

__all__ = ["StreamOptions", "TLSListener", "TLSStream"]

logger = logging.getLogger(__name__)

_KIT = Kit(
    event=anyio.Event,
    scope=anyio.CancelScope,
    now=anyio.current_time,
    checkpoint=anyio.lowlevel.checkpoint,
    wait_readable=anyio.wait_readable,
    busy=anyio.BusyResourceError,
    broken=anyio.BrokenResourceError,
    closed=anyio.ClosedResourceError,
)
_loops: anyio.lowlevel.RunVar[TaskLoop] = anyio.lowlevel.RunVar("tlsserver")
_tasks: set[asyncio.Task[None]] = set()  # the loops of asyncio keep none of their tasks

# What accept(2) fails with when there is no room for one more; as trio, it is tried again after 100 ms.
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_ROOM_SECONDS = 0.1

_RECEIVE_SIZE = 65536  # what anyio's streams return at most, if they are not told


def _loop() -> TaskLoop:
    """Return what drives the TLS connections of this run; made with the first."""
    if _is_on_trio():
        from tlsserver.trio import task_loop  # noqa: PLC0415 - only where there is a trio

        return task_loop()
    try:
        return _loops.get()
    except LookupError:
        loop = TaskLoop(_KIT)
        _loops.set(loop)
        task = asyncio.get_running_loop().create_task(loop.serve(), name="tlsserver")
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        return loop


def _is_on_trio() -> bool:
    """Tell whether this is a task of trio's; asyncio's loop may be around it (trio's guest mode)."""
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


class TLSStream(StreamFace, anyio.abc.ByteStream):
    """The server's end of a TLS connection, on the socket itself.

    The handshake goes on by itself as soon as the client speaks; sending and receiving wait for it. A task may be
    cancelled anywhere: what it has not received stays for the next, what it has begun to send is sent. Only
    `do_handshake` and `aclose` end the connection when they are cancelled, and with it what an engine has in hand.

    Args:
        sock: A connected non-blocking socket; it becomes the stream's.
        context: What the handshake is made with.
        options: See `StreamOptions`.

    Raises:
        ConfigurationError: A setting cannot work.
        TypeError: There is no such option.
    """

    def __init__(self, sock: socket.socket, context: ContextLike, **options: Unpack[StreamOptions]) -> None:
        self._stream = TaskStream(_loop(), _KIT, sock, context, **options)
        self._lenient = options.get("https_compatible", False)

    async def receive(self, max_bytes: int = _RECEIVE_SIZE) -> bytes:
        """Receive bytes, at least one.

        Raises:
            anyio.EndOfStream: The peer has sent close_notify.
            anyio.BrokenResourceError: The connection is lost, or the handshake has failed.
            anyio.BusyResourceError: Another task is receiving.
            anyio.ClosedResourceError: The stream was closed.
            ValueError: ``max_bytes`` is less than 1.
        """
        received = await self._stream.receive(max_bytes)
        if not received:
            raise anyio.EndOfStream
        return received

    async def send(self, item: bytes) -> None:
        """Send it all, and wait until the kernel has it; if cancelled meanwhile all of it is sent, or nothing.

        Raises:
            anyio.BrokenResourceError: The connection is lost, or the handshake has failed.
            anyio.BusyResourceError: Another task is sending.
            anyio.ClosedResourceError: The stream was closed.
            TypeError: It is not bytes-like.
        """
        await self._stream.send(item)

    async def send_eof(self) -> None:
        """Not supported, as in `anyio.streams.tls.TLSStream`: TLS before 1.3 has no half-closed state.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a TLS stream cannot be half closed: call aclose()")

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of `anyio.abc.SocketAttribute`, and of `anyio.streams.tls.TLSAttribute` what needs no `ssl` object."""
        sock = self._stream.socket
        return {
            SocketAttribute.family: lambda: sock.family,
            SocketAttribute.local_address: sock.getsockname,
            SocketAttribute.local_port: lambda: sock.getsockname()[1],
            SocketAttribute.raw_socket: lambda: sock,
            SocketAttribute.remote_address: lambda: self._stream.peer,
            SocketAttribute.remote_port: lambda: self._stream.peer[1],
            TLSAttribute.alpn_protocol: lambda: self.tls and self.tls.alpn,
            TLSAttribute.peer_certificate: lambda: self.client_certificate and self.client_certificate.peercert(),
            TLSAttribute.peer_certificate_binary: lambda: self.client_certificate and self.client_certificate.der,
            TLSAttribute.server_side: lambda: True,
            TLSAttribute.standard_compatible: lambda: not self._lenient,
            TLSAttribute.tls_version: lambda: self.tls and self.tls.version,
        }


class TLSListener(anyio.abc.Listener[TLSStream]):
    """Accepts TLS connections.

    Args:
        listener: Of `anyio.create_tcp_listener` or `anyio.create_unix_listener`; its sockets accept.
        context: What the next connection begins with.
        max_handshakes: Handshakes of this run in progress at which accepting waits for some to end; as for
            `tlsserver.Server`, they bound the memory that strangers can take.
        options: See `StreamOptions`.

    Raises:
        ConfigurationError: A setting cannot work.
        TypeError: There is no such option.

    Attributes:
        context: May be replaced at any time, by one of new certificates: connections keep the one they began with.
        listener: As given.
    """

    def __init__(
        self,
        listener: anyio.abc.Listener[Any],
        context: ContextLike,
        *,
        max_handshakes: int = 1000,
        **options: Unpack[StreamOptions],
    ) -> None:
        settings(**options)  # a mistake shows here, and not with the first connection
        self.context = context
        self.listener = listener
        listeners = getattr(listener, "listeners", [listener])
        self._sockets = [one.extra_attributes[SocketAttribute.raw_socket]() for one in listeners]
        self._max_handshakes = max_handshakes
        self._options = options

    async def serve(self, handler: Callable[[TLSStream], Any], task_group: anyio.abc.TaskGroup | None = None) -> None:
        """Call the handler, in a task of its own, with each stream whose handshake is done, until cancelled.

        The stream is closed when the handler returns. Handshakes that fail, and connections that are lost, are logged,
        and nothing else comes of them: the handler may let their `anyio.BrokenResourceError` pass.

        Args:
            handler: A coroutine function.
            task_group: Where the handlers run; None: one of this method's.
        """
        async with anyio.create_task_group() as group:
            for sock in self._sockets:
                group.start_soon(self._serve, sock, handler, task_group or group)

    async def _serve(self, sock: Any, handler: Callable[[TLSStream], Any], group: anyio.abc.TaskGroup) -> None:  # noqa: ANN401 - of either loop
        while True:
            await _loop().wait_room(self._max_handshakes)
            accepted = await _accept(sock)
            try:
                accepted.setblocking(False)
                stream = TLSStream(accepted, self.context, **self._options)
            except BaseException:
                accepted.close()
                raise
            group.start_soon(greet, stream, handler, anyio.BrokenResourceError)

    async def aclose(self) -> None:
        """Stop listening."""
        await self.listener.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the listener."""
        return self.listener.extra_attributes


async def _accept(sock: socket.socket) -> socket.socket:
    while (accepted := await _try_accept(sock)) is None:
        pass
    return accepted


async def _try_accept(sock: socket.socket) -> socket.socket | None:
    """Accept; None: try again."""
    try:
        return sock.accept()[0]
    except (BlockingIOError, ConnectionAbortedError):
        await anyio.wait_readable(sock)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        logger.error("accepting failed, it is tried again in %g s: %s", _ROOM_SECONDS, error)  # noqa: TRY400 - one line
        await anyio.sleep(_ROOM_SECONDS)
    return None
