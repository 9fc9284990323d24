"""One connection to a key server on a loop: what is sent waits here until the socket takes it."""

from __future__ import annotations

import contextlib
from collections import deque
from selectors import EVENT_READ
from typing import TYPE_CHECKING, Any

from engine_shim import ShimError
from tlsserver.signers.remote_tls import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import Loop
    from tlsserver.signers.remote_tls import Channel

__all__ = ["Stream"]


class Stream:
    """Drives a channel. After `close`, and after ``lost`` was called, nothing is called any more.

    Args:
        loop: Whose thread this belongs to.
        fd: The channel's.
        channel: Connected; it becomes the stream's.
        opened: Called when the handshake is done.
        received: Called with what has come.
        lost: Called once, with the reason.
    """

    def __init__(
        self,
        loop: Loop,
        fd: int,
        channel: Channel,
        *,
        opened: Callable[[], object],
        received: Callable[[bytes], object],
        lost: Callable[[str], object],
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._opened = opened
        self._received = received
        self._lost = lost
        self._outgoing: deque[bytes] = deque()  # the first stays the same object until it is gone (SSL_write(3))
        self._queued = 0
        self._read_wants = EVENT_READ
        self._write_wants = 0
        self._is_open = self._is_closed = self._is_held = False
        self._engine_fds: list[Any] = []
        self._registration = loop.add(fd, EVENT_READ, self._ready)
        loop.call_soon(self._shake)

    @property
    def queued(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._queued

    def write(self, data: bytes) -> None:
        """Append what `flush` sends."""
        self._outgoing.append(data)
        self._queued += len(data)

    def flush(self) -> None:
        """Send what can be sent."""
        if not self._outgoing or not self._is_open or self._is_closed or self._write_wants:
            return
        if len(self._outgoing) > 1:
            whole = b"".join(self._outgoing)
            self._outgoing.clear()
            self._outgoing.append(whole)
        self._guarded(self._send)

    def take(self) -> None:
        """Read what has come, without waiting to be told."""
        if self._is_open and not self._is_closed and not self._is_held:
            self._guarded(self._receive)

    def hold(self) -> None:
        """Read no more, until `go_on`."""
        self._is_held = True
        self._watch()

    def go_on(self) -> None:
        """Read again."""
        self._is_held = False
        self._watch()

    def close(self) -> None:
        """Leave: nothing more is sent. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._watch_engine(())
        self._loop.remove(self._registration)
        self._channel.close()
        self._outgoing.clear()

    def abandon(self) -> None:
        """In a forked child: close this process's copy of the socket, and touch nothing else."""
        self._is_closed = True
        with contextlib.suppress(ShimError):  # a paused job is the parent's
            self._channel.close()

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except ChannelError as error:
            self.close()
            self._lost(str(error))
            return
        self._watch()

    def _watch(self) -> None:
        if self._is_closed:
            return
        events = self._write_wants
        if self._is_open and not self._is_held:
            events |= self._read_wants
        elif not self._is_open:
            events = self._read_wants
        self._loop.modify(self._registration, events)

    def _ready(self, events: int) -> None:
        if self._is_closed:
            return
        if not self._is_open:
            self._shake()
            return
        if events & self._write_wants:
            self._write_wants = 0
            self._guarded(self._send)
        if not self._is_closed and not self._is_held and events & self._read_wants:
            self._guarded(self._receive)

    def _shake(self, _events: int = 0) -> None:
        if not self._is_closed and not self._is_open:
            self._guarded(self._handshake)

    def _handshake(self) -> None:
        wanted = self._channel.handshake()
        self._watch_engine(self._channel.wait_fds() if wanted < 0 else ())
        self._read_wants = max(wanted, 0)
        if wanted:
            return
        self._read_wants = EVENT_READ
        self._is_open = True
        self._opened()
        if not self._is_closed:
            self._send()

    def _watch_engine(self, fds: tuple[int, ...]) -> None:
        """The handshake's signature is ours, and its engine tells when it is there."""
        for registration in self._engine_fds:
            self._loop.remove(registration)
        self._engine_fds = [self._loop.add(fd, EVENT_READ, self._shake) for fd in fds]

    def _send(self) -> None:
        outgoing = self._outgoing
        while outgoing:
            chunk = outgoing[0]
            sent = self._channel.write(chunk)
            if not sent:
                self._write_wants = self._channel.wanted
                return
            self._queued -= sent
            if sent == len(chunk):
                outgoing.popleft()
            else:
                outgoing[0] = chunk[sent:]

    def _receive(self) -> None:
        data = self._channel.read()
        if data:
            self._read_wants = EVENT_READ
            self._received(data)
        else:
            self._read_wants = self._channel.wanted or EVENT_READ
