"""What a key server does with a request: refuse it, or hand it to the engine, and tell the client when it is done."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from engine_shim import EngineClosedError, EngineError, KeyUseError, Operations
from tlsserver.signers.keyless import BadMessage, ErrorCode, Message, Opcode, error, pong, success
from tlsserver.signers.seldom import Seldom

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import Operation
    from tlsserver.signers.keyserver_audit import AuditLog
    from tlsserver.signers.keyserver_keys import KeyRing, ServedKey

__all__ = ["Client", "Desk", "DeskNumbers"]


class Client(Protocol):
    """Whoever asks."""

    @property
    def identity(self) -> str:
        """What to call it in the audit log."""

    def finished(self, operation: Operation, answer: Message) -> None:
        """Take the answer to a request that was handed to the engine."""

    def go_on(self) -> None:
        """All answers of this turn are there."""


@dataclass
class DeskNumbers:
    """What a key server has done.

    Attributes:
        signed: Requests answered with a signature or a decryption.
        refused: Requests that were not begun: an unknown key, an opcode that is not allowed, a malformed message.
        failed: Requests that the engine could not perform.
        given_up: Requests whose client has left meanwhile.
        pings: Answered.
    """

    signed: int = 0
    refused: int = 0
    failed: int = 0
    given_up: int = 0
    pings: int = 0


class _Asked(NamedTuple):
    """What an operation is for."""

    client: Client
    number: int
    key: bytes
    operation: str
    begun: float


class _RefusedError(Exception):
    """The request is answered with an error."""

    def __init__(self, code: ErrorCode, outcome: str) -> None:
        super().__init__(outcome)
        self.code = code
        self.outcome = outcome


class Desk:
    """Takes requests of all clients. Loop thread only: the one that calls `open`.

    Attributes:
        ring: The keys; it may be replaced.
        audit: Where requests are noted.
        numbers: What was done.
        asked_for: Called with the name of each key that is asked for.
        seldom: For what clients can cause to be said.
    """

    def __init__(self, ring: KeyRing, audit: AuditLog, *, allow_decrypt: bool = False) -> None:
        """Take no requests yet.

        Args:
            ring: The keys.
            audit: Where requests are noted.
            allow_decrypt: Answer raw RSA decryptions too. Whoever may ask for these can decrypt and sign anything.
        """
        self.ring = ring
        self.audit = audit
        self.numbers = DeskNumbers()
        self.asked_for: Callable[[bytes], object] = lambda _name: None
        self.seldom = Seldom()
        self._allow_decrypt = allow_decrypt
        self._operations: Operations | None = None

    def open(self) -> int:
        """Begin.

        Returns:
            The fd that is readable when `finish` has something to do.

        Raises:
            OSError: No file descriptor is to be had.
        """
        self._operations = Operations()
        return self._operations.fileno()

    def close(self) -> None:
        """Give up what is in the engine."""
        if self._operations is not None:
            self._operations.close()
            self._operations = None

    @property
    def in_progress(self) -> int:
        """Operations in the engine."""
        return 0 if self._operations is None else len(self._operations)

    def take(self, client: Client, message: Message | BadMessage) -> Message | Operation:
        """Take a request.

        Returns:
            The answer, or what will come to one: then `Client.finished` is called.
        """
        begun = time.monotonic()
        if isinstance(message, BadMessage):
            asked = _Asked(client, message.id, b"", "malformed", begun)
            return self._refuse(asked, message.code, message.reason)
        opcode = Opcode.maybe(message.opcode)
        if opcode is Opcode.PING:
            self.numbers.pings += 1
            return pong(message.id, message.payload)
        name = f"opcode {message.opcode:#04x}" if opcode is None else opcode.name
        asked = _Asked(client, message.id, message.ski or message.digest, name, begun)
        try:
            return self._begin(opcode, message, asked)
        except _RefusedError as refused:
            return self._refuse(asked, refused.code, refused.outcome)

    def _refuse(self, asked: _Asked, code: ErrorCode, outcome: str) -> Message:
        self.numbers.refused += 1
        self._note(asked, outcome)
        return error(asked.number, code)

    def _begin(self, opcode: Opcode | None, message: Message, asked: _Asked) -> Operation:
        """Hand a request to the engine, if it may be performed."""
        if opcode is None or opcode.operation is None or opcode is Opcode.RSA_DECRYPT:
            code = ErrorCode.UNEXPECTED_OPCODE if opcode is not None and opcode.is_answer else ErrorCode.BAD_OPCODE
            raise _RefusedError(code, code.reason)
        if opcode is Opcode.RSA_DECRYPT_RAW and not self._allow_decrypt:
            raise _RefusedError(ErrorCode.BAD_OPCODE, "decryption is not allowed")
        served = self.ring.find(message)
        if served is None:
            raise _RefusedError(ErrorCode.KEY_NOT_FOUND, ErrorCode.KEY_NOT_FOUND.reason)
        self.asked_for(served.ski)
        if not opcode.fits(served.type):
            raise _RefusedError(ErrorCode.CRYPTOGRAPHY, f"the key is of type {served.type}")
        if self._operations is None:
            raise _RefusedError(ErrorCode.INTERNAL, "the key server is stopping")
        try:
            return _submit(self._operations, served, opcode, message.payload, asked)
        except KeyUseError as wrong:  # the key fits, so it is the payload's length
            raise _RefusedError(ErrorCode.FORMAT, str(wrong)) from wrong
        except EngineClosedError as closed:
            raise _RefusedError(ErrorCode.INTERNAL, str(closed)) from closed

    def finish(self) -> None:
        """Answer what has finished."""
        if self._operations is None:
            return
        clients: dict[Client, None] = {}  # a set that keeps the order
        for operation in self._operations.take_finished():
            asked: _Asked = operation.token  # type: ignore[assignment] # `take` has put it there
            asked.client.finished(operation, self._answer(operation, asked))
            clients[asked.client] = None
        for client in clients:
            client.go_on()

    def _answer(self, operation: Operation, asked: _Asked) -> Message:
        try:
            answer, outcome = success(asked.number, operation.result()), "ok"
            self.numbers.signed += 1
        except EngineError as failed:
            code = ErrorCode.INTERNAL if isinstance(failed, EngineClosedError) else ErrorCode.CRYPTOGRAPHY
            answer, outcome = error(asked.number, code), str(failed)
            self.numbers.failed += 1
        self._note(asked, outcome)
        return answer

    def give_up(self, operation: Operation) -> None:
        """The client has left."""
        operation.cancel()
        self.numbers.given_up += 1
        self._note(operation.token, "the client has left")  # type: ignore[arg-type] # `take` has put it there

    def _note(self, asked: _Asked, outcome: str) -> None:
        self.audit.add(
            client=asked.client.identity,
            operation=asked.operation,
            key=asked.key,
            outcome=outcome,
            seconds=time.monotonic() - asked.begun,
        )


def _submit(operations: Operations, served: ServedKey, opcode: Opcode, payload: bytes, asked: _Asked) -> Operation:
    if opcode.digest_name is not None:
        return operations.submit_signature(
            served.key,
            opcode.digest_name,
            payload,
            padding=opcode.padding,
            salt_length=opcode.salt_length,
            token=asked,
        )
    if opcode is Opcode.ED25519_SIGN:
        return operations.submit_message(served.key, payload, token=asked)
    return operations.submit_raw_decryption(served.key, payload, token=asked)
