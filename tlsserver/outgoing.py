"""Bytes on their way out, in the order written. A leaf: no TLS, no I/O."""

from __future__ import annotations

from collections import deque

__all__ = ["Outgoing"]

# One TLS record: OpenSSL cuts up what is larger, and each smaller piece costs a record's overhead and a system call.
_RECORD = 16 * 1024


class Outgoing:
    """A queue of bytes that is offered piece by piece.

    Small pieces are joined up to one record, large ones are never copied.

    Attributes:
        size: Bytes in the queue.
    """

    __slots__ = ("_offered", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self._offered: bytes | memoryview | None = None
        self.size = 0

    def add(self, data: bytes) -> None:
        """Put bytes (at least one) at the end."""
        self._pieces.append(data)
        self.size += len(data)

    def offer(self) -> bytes | memoryview:
        """Return what to send next: the same object until `taken`, because SSL_write(3) wants its retries alike."""
        if self._offered is None:
            self._offered = self._next_piece()
        return self._offered

    def taken(self, count: int) -> None:
        """Remove the first ``count`` bytes of what was offered."""
        offered, self._offered = self._offered, None
        if offered is None or count > len(offered):
            message = f"{count} bytes taken that were not offered"
            raise ValueError(message)
        self.size -= count
        if count < len(offered):
            self._pieces.appendleft(memoryview(offered)[count:])

    def clear(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self._offered = None
        self.size = 0

    def _next_piece(self) -> bytes | memoryview:
        pieces = self._pieces
        first = pieces.popleft()
        if not pieces or len(first) + len(pieces[0]) > _RECORD:
            return first
        joined, length = [first], len(first)
        while pieces and length + len(pieces[0]) <= _RECORD:
            length += len(pieces[0])
            joined.append(pieces.popleft())
        return b"".join(joined)
