"""Bytes on their way out, in the order written. A leaf: no TLS, no I/O."""

from __future__ import annotations

from collections import deque

__all__ = ["Outgoing"]

# Four TLS records, which go with one system call: each smaller piece costs one of its own.
_MOST = 64 * 1024


class Outgoing:
    """A queue of bytes that is offered piece by piece.

    Small pieces are joined, large ones are never copied. While it is empty, as in most connections at
    most times, it holds no container: an empty deque takes 760 bytes.

    Attributes:
        size: Bytes in the queue.
    """

    __slots__ = ("_first", "_is_offered", "_rest", "size")

    def __init__(self) -> None:
        self._first: bytes | memoryview = b""
        self._rest: deque[bytes] | None = None  # never empty
        self._is_offered = False
        self.size = 0

    def add(self, data: bytes) -> None:
        """Put bytes (at least one) at the end."""
        if not self.size:
            self._first = data
        elif self._rest is None:
            self._rest = deque((data,))
        else:
            self._rest.append(data)
        self.size += len(data)

    def offer(self) -> bytes | memoryview:
        """Return what to send next: the same object until `taken`, because SSL_write(3) wants its retries alike."""
        if not self._is_offered:
            self._is_offered = True
            if self._rest is not None:
                self._join(self._rest)
        return self._first

    def taken(self, count: int) -> None:
        """Remove the first ``count`` bytes of what was offered."""
        offered = self._first
        if not self._is_offered or count > len(offered):
            message = f"{count} bytes taken that were not offered"
            raise ValueError(message)
        self._is_offered = False
        self.size -= count
        if not self.size:
            self._first = b""
        elif count < len(offered):
            self._first = memoryview(offered)[count:]
        else:
            self._first = b"" if self._rest is None else self._next(self._rest)

    def clear(self) -> None:
        """Drop everything."""
        self._first, self._rest, self._is_offered, self.size = b"", None, False, 0

    def _next(self, rest: deque[bytes]) -> bytes:
        piece = rest.popleft()
        if not rest:
            self._rest = None
        return piece

    def _join(self, rest: deque[bytes]) -> None:
        """Let the first piece be as long as pays, if those behind it are short enough."""
        if self.size <= _MOST:
            self._first, self._rest = b"".join((self._first, *rest)), None
            return
        joined, length = [self._first], len(self._first)
        while rest and length + len(rest[0]) <= _MOST:
            length += len(rest[0])
            joined.append(self._next(rest))
        if len(joined) > 1:
            self._first = b"".join(joined)
