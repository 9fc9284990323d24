"""The protocol of one connection, and the manners of calling it: in asyncio's order, and never let it harm others."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Audience"]

logger = logging.getLogger(__name__)


class Audience:
    """The protocol above a connection. What a call returns is the exception that the protocol raised, already logged.

    Attributes:
        protocol: The user's protocol, from `meet` until `lose`.
        limits: The write buffer's marks, ``(low, high)`` in bytes.
        held: What was read and the protocol has not taken, because it reads no more.
        forgives_truncation: Whether the end of the TCP stream without close_notify is an end like any other to it.
        writing_paused: Whether it has been told to pause.
        is_deaf: Whether nothing shall be read for it yet; who ends that lets the connection have a `turn`.
    """

    forgives_truncation = False

    __slots__ = ("_factory", "_peer", "held", "is_deaf", "limits", "protocol", "writing_paused")

    def __init__(self, factory: Callable[[], asyncio.BaseProtocol], peer: object, limits: tuple[int, int]) -> None:
        """Prepare for a protocol that is made later.

        Args:
            factory: Makes it, without arguments.
            peer: The client; its text is for the log.
            limits: The write buffer's marks, ``(low, high)`` in bytes.
        """
        self.protocol: asyncio.BaseProtocol | None = None
        self.limits = limits
        self.held = b""
        self.is_deaf = False
        self._factory = factory
        self._peer = peer
        self.writing_paused = False

    def meet(self, transport: asyncio.BaseTransport) -> Exception | None:
        """Make the protocol and tell it ``connection_made``."""
        try:
            self.protocol = self._factory()
        except Exception as error:
            logger.exception("the protocol factory failed: the connection with %s is aborted", self._peer)
            return error
        return self.call("connection_made", transport)

    def call(self, method: str, *args: object) -> Exception | None:
        """Call a method of the protocol and throw its answer away."""
        return self.ask(method, *args)[1]

    def ask(self, method: str, *args: object) -> tuple[object, Exception | None]:
        """Call a method of the protocol; return its answer and what it raised."""
        try:
            return getattr(self.protocol, method)(*args), None
        except Exception as error:
            logger.exception("%s of %r failed: the connection with %s is aborted", method, self.protocol, self._peer)
            return None, error

    def receive(self, data: bytes) -> Exception | None:
        """Hand over what has come; what the protocol does not take is `held`."""
        return self.call("data_received", data)

    def can(self, method: str) -> bool:
        """Return whether the protocol has such a method, beyond those of asyncio."""
        return callable(getattr(self.protocol, method, None))

    def buffered(self, size: int) -> Exception | None:
        """So much is unsent: tell the protocol when a mark is crossed, and only then."""
        low, high = self.limits
        if self.writing_paused:
            if size <= low:
                self.writing_paused = False
                return self.call("resume_writing")
        elif size > high:
            self.writing_paused = True
            return self.call("pause_writing")
        return None

    def lose(self, error: BaseException | None) -> None:
        """Tell it ``connection_lost``, once, if it was ever told of the connection."""
        if self.protocol is None:
            return
        try:
            self.call("connection_lost", error)
        finally:
            self.protocol = None
