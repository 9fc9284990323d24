"""One client of a key server: its requests, in order as they come, and its answers, as they are ready.

What a client can make us hold is bounded: so many operations (``max_pending``), what one read has brought beyond them,
and the answers to all of that. Beyond it nothing more is read, and the client's own socket fills up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from tlsserver.signers.keyless import BadMessage, Decoder, ErrorCode, KeylessError, Message, Opcode, encode, error
from tlsserver.signers.keyserver_access import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import Operation
    from tlsserver.protocols.base import Transport
    from tlsserver.signers.keyserver_desk import Desk

__all__ = ["KeylessProtocol"]

logger = logging.getLogger(__name__)

# Answers that need no engine (to pings, to rubbish) are sent in pieces: a client that does not read them is seen before
# they have grown.
_SENT_AT_ONCE = 64 * 1024
_REFUSED_AT_ONCE = 64  # in a turn; about a millisecond. The other clients come before the rest of them.
_ANSWER = 64  # bytes, about: what an answer takes beside its payload


class KeylessProtocol(asyncio.Protocol):
    """The server's end of the keyless protocol.

    Args:
        desk: Takes the requests.
        identify: Tells who a client is; None: it may not come in.
        max_pending: Operations of one client that are in the engine at a time.
        pad: Whether answers are padded, so that their length tells nobody what they are.
    """

    def __init__(self, desk: Desk, identify: Callable[[Transport], str | None], *, max_pending: int, pad: bool) -> None:
        self._desk = desk
        self._identify = identify
        self._max_pending = max_pending
        self._pad = pad
        self._decoder = Decoder()
        self._requests: deque[Message | BadMessage] = deque()
        self._pending: set[Operation] = set()
        self._answers: list[Message] = []
        self._is_stuffed = self._is_ending = self._is_due = False
        self.identity = "?"
        self._transport: Transport

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - a `Transport`
        """See who it is, and refuse whoever may not come in."""
        self._transport = transport
        identity = self._identify(transport)
        if identity is None:
            self._is_ending = True
            transport.abort()
            logger.warning("a client that no --allow names is refused: %s", _who(transport))
        else:
            self.identity = identity

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what it asked for."""
        if exc is not None:
            logger.info("client %s is gone: %s", self.identity, exc)
        self._requests.clear()
        while self._pending:
            self._desk.give_up(self._pending.pop())
        self._desk.audit.flush()

    def data_received(self, data: bytes) -> None:
        """Take requests; one that breaks the frames is the last."""
        if self._is_ending:
            return
        try:
            self._requests += self._decoder.feed(data)
        except KeylessError as broken:
            self._requests += broken.messages
            self._requests.append(BadMessage(broken.request_id or 0, broken.code, broken.reason))
            self._is_ending = True
        self.go_on()

    def eof_received(self) -> bool:
        """Send what is still to be answered, then close."""
        self.close_when_idle()
        return True

    def pause_writing(self) -> None:
        """It does not read its answers: nothing more is begun for it."""
        self._is_stuffed = True

    def resume_writing(self) -> None:
        """It does again."""
        self._is_stuffed = False
        self.go_on()

    def close_when_idle(self) -> None:
        """Take no more requests, answer those that are there, then close."""
        self._is_ending = True
        self.go_on()

    def finished(self, operation: Operation, answer: Message) -> None:
        """Keep an answer until `go_on` sends all of this turn."""
        self._pending.discard(operation)
        self._answers.append(answer)

    def go_on(self) -> None:
        """Begin what may be begun, send what is there, and read on if there is room."""
        if self._transport.is_closing():
            return
        self._begin()
        self._send()
        if self._is_ending and not self._requests and not self._pending:
            self._transport.close()
        elif self._is_ending or self._requests or not self._has_room():
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _begin(self) -> None:
        """Begin what may be begun; what is answered without the engine costs the loop its time, and has a bound."""
        size = answered = 0
        while self._requests and self._has_room():
            outcome = self._desk.take(self, self._requests.popleft())
            if not isinstance(outcome, Message):
                self._pending.add(outcome)
                continue
            self._answers.append(outcome)
            size += _ANSWER + len(outcome.payload)
            if size >= _SENT_AT_ONCE:
                self._send()
                size = 0
            answered += 1
            if answered == _REFUSED_AT_ONCE:
                self._go_on_soon()
                return

    def _go_on_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._transport.get_extra_info("reactor").call_soon(self._go_on_now)

    def _go_on_now(self) -> None:
        self._is_due = False
        self.go_on()

    def _has_room(self) -> bool:
        return len(self._pending) < self._max_pending and not self._is_stuffed

    def _send(self) -> None:
        """Send the answers in one piece, but no signature that could not be noted."""
        answers, self._answers = self._answers, []
        if not answers:
            return
        is_noted = self._desk.audit.flush()
        told = (
            one if is_noted or one.opcode != Opcode.SUCCESS else error(one.id, ErrorCode.INTERNAL) for one in answers
        )
        self._transport.write(b"".join(encode(one, pad=self._pad) for one in told))


def _who(transport: Transport) -> str:
    certificate = transport.get_extra_info("client_certificate")
    who = transport.get_extra_info("client") or certificate or transport.get_extra_info("peername")
    try:
        return visible(str(who))
    except ValueError:  # cryptography cannot read the certificate, which OpenSSL has accepted
        return f"{transport.get_extra_info('peername')}, whose certificate cannot be read"
