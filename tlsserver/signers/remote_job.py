"""A request on its way to a key server, and what became of its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsserver.signers.keyless import Message
from tlsserver.signers.keyless_ops import Opcode

if TYPE_CHECKING:
    from engine_shim import SignRequest

__all__ = ["TRIES", "Job", "message_for"]

# Attempts for one request. A deadline bounds them too, but one that fails at once could be repeated thousands of times.
TRIES = 8


class Job:
    """One request, and where it has been.

    Attributes:
        request: What is asked for.
        key_id: Of its key.
        message: What is sent, but for its number.
        tries: How often it was sent.
        failed: Addresses where it has failed, in a way that may pass.
        refused: Addresses where asking again is of no use.
        reason: Why the last attempt failed.
        last: The address it was sent to last; empty: none.
        is_trial: Whether it decides there about the breaker.
    """

    __slots__ = ("failed", "is_trial", "key_id", "last", "message", "reason", "refused", "request", "tries")

    def __init__(self, request: SignRequest, message: Message) -> None:
        self.request = request
        self.key_id = message.ski
        self.message = message
        self.tries = 0
        self.failed: set[str] = set()
        self.refused: set[str] = set()
        self.reason = self.last = ""
        self.is_trial = False


def message_for(request: SignRequest) -> Message:
    """Say a request in the protocol's words; its number is 0.

    Raises:
        ValueError: The protocol has none for it.
    """
    if request.operation == "decrypt":
        return Message(0, Opcode.RSA_DECRYPT_RAW, request.message, ski=request.key_id)
    opcode = Opcode.for_signature(request.algorithm, request.padding, request.digest_name, request.salt_length)
    payload = request.message if request.digest_name is None else request.digest
    return Message(0, opcode, payload or b"", ski=request.key_id)
