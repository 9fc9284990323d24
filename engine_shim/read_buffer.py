"""Memory that many connections read through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine_shim.native import ffi

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ReadBuffer"]


class ReadBuffer:
    """Memory that connections of one thread read through, one after the other: its address is looked up once.

    While a read is paused the memory is its own: connections whose reads may pause need one each.

    Attributes:
        memory: As given.
        address: What C is handed.
        size: In bytes.
    """

    __slots__ = ("_view", "address", "memory", "size")

    def __init__(self, memory: Buffer) -> None:
        """Take the address.

        Args:
            memory: Writable; a bytearray cannot be resized for as long as this lives.

        Raises:
            BufferError: It is not writable.
        """
        self.memory = memory
        self.address: Any = ffi.from_buffer(memory, require_writable=True)
        self.size = len(self.address)
        self._view = memoryview(memory).cast("B")

    def first(self, count: int) -> bytes:
        """Copy the first ``count`` bytes."""
        return self._view[:count].tobytes()
