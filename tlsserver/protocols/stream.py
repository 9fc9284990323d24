"""Where the bytes of a response come from: an iterator that is pulled, or a stream that is pushed.

`Source` is what a connection sees of either. The connection pulls while the client takes bytes and stops while it does
not, so neither kind can fill the memory: an iterator waits, a pushed stream drops what does not fit.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 64 * 1024
"""Bytes that are taken from a large body at once: a few TLS records, so a stalled client pins little memory."""


class Source(Protocol):
    """A response's body as the connection pulls it."""

    def pull(self) -> bytes | None:
        """Return the next bytes, nothing if there are none yet, None at the end."""

    def close(self) -> None:
        """Give back what the body holds. Harmless when called again."""


class BytesSource:
    """A body that is there already, handed out in pieces."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sent = 0

    def pull(self) -> bytes | None:
        """Return the next piece, None at the end."""
        piece = self._data[self._sent : self._sent + CHUNK]
        self._sent += len(piece)
        return piece or None

    def close(self) -> None:
        """Forget the rest."""
        self._data = b""


NOTHING = BytesSource(b"")
"""The body of a connection that answers nothing at the moment; all share it."""


class IteratorSource:
    """A body that an iterator makes."""

    def __init__(self, iterator: Iterator[bytes]) -> None:
        self._iterator = iterator
        self._closed = False

    def pull(self) -> bytes | None:
        """Return the next bytes, None at the end; empty ones are passed over."""
        return next(filter(None, self._iterator), None)

    def close(self) -> None:
        """Close the iterator, if it can be closed: a generator's `finally` runs, a file is closed."""
        close = None if self._closed else getattr(self._iterator, "close", None)
        self._closed = True
        if close is not None:
            close()


class PushStream:
    """A body that is written to after the handler has returned, from the loop's thread.

    Args:
        on_close: Called once when the stream is over, whoever ended it.
        max_pending: Bytes that may wait for a slow client; what would exceed them is dropped.
    """

    def __init__(self, on_close: Callable[[], object] | None = None, *, max_pending: int = CHUNK) -> None:
        self._on_close = on_close
        self._max_pending = max_pending
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._ended = False
        self._wake: Callable[[], object] | None = None
        self.closed = False

    def send(self, data: bytes) -> bool:
        """Send `data` when the client takes it.

        Returns:
            False if it was dropped: the client is too slow, or the stream has ended.
        """
        if self._ended or self.closed or self._pending_bytes + len(data) > self._max_pending:
            return False
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._notify()
        return True

    def end(self) -> None:
        """Complete the response behind what is pending."""
        self._ended = True
        self._notify()

    def attach(self, wake: Callable[[], object]) -> None:
        """Let the connection know, by `wake`, when there is something to pull."""
        self._wake = wake

    def pull(self) -> bytes | None:
        """Return what is pending, nothing if that is nothing, None after the end."""
        if not self._pending:
            return None if self._ended else b""
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        return data

    def close(self) -> None:
        """Drop what is pending and tell the handler's side that it is over."""
        if self.closed:
            return
        self.closed = True
        self._pending.clear()
        self._wake = None
        if self._on_close is not None:
            self._on_close()

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake()


class EventStream(PushStream):
    """Server-sent events (HTML standard, section 9.2). Answer with `Content-Type: text/event-stream`."""

    def send_event(self, data: str, event: str = "message") -> bool:
        """Send one event.

        Args:
            data: Any text; its lines arrive joined by newlines.
            event: The event's type, on one line.

        Returns:
            False if it was dropped.

        Raises:
            ValueError: `event` has a line break, which would start a field of its own.
        """
        if len(event.splitlines()) != 1:
            raise ValueError(f"an event's type is one line of text, not {event!r}")
        lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return self.send("".join([f"event: {event}\n", *(f"data: {line}\n" for line in lines), "\n"]).encode())

    def send_comment(self, text: str = "") -> bool:
        """Send what clients pass over, to keep the connection alive."""
        return self.send(f": {' '.join(text.split())}\n\n".encode())


def source_of(body: bytes | Iterator[bytes] | PushStream) -> Source:
    """Return the source for a response's body."""
    if isinstance(body, bytes):
        return BytesSource(body)
    return body if isinstance(body, PushStream) else IteratorSource(body)
