"""Signers without another process: one whose test says when it answers, and functions that answer by themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from engine_shim import Key, SignerEngine, ThreadEngine
from support.asking import raw_decryption, sign
from tlsserver.signers.callable import CallableSigner, RequestRefusedError

if TYPE_CHECKING:
    from engine_shim import SignRequest


class LocalSigner(SignerEngine):
    """A signer that has the private keys at hand, in this process, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(deadline=600)
        self._private: dict[bytes, Key] = {}
        self._keys = ThreadEngine(1)

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        private = self._keys.load_key(source, password)
        self._private[private.key_id] = private
        return super().load_key(private.public_der())

    def answer_all(self) -> None:
        while (request := self.take()) is not None:
            request.perform(self._private[request.key_id])

    def close(self, timeout: float = 5.0) -> bool:
        self._private.clear()
        return self._keys.close(timeout) and super().close(timeout)


class FunctionSigner(CallableSigner):
    """A signer that is a function, which has another library's private keys.

    Args:
        answers: False: it never does.
        threads: Of a plain function; None: it is a coroutine function.

    Attributes:
        refuses: Whether it fails from now on.
    """

    def __init__(self, threads: int | None = None, *, answers: bool = True) -> None:
        super().__init__(self._sign if threads else self._sign_later, threads=threads or 1, deadline=600)
        self._private: dict[bytes, Any] = {}
        self._answers = answers
        self.refuses = False

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        with ThreadEngine(1) as threads:  # it knows what is wrong with a key
            key = super().load_key(threads.load_key(source, password).public_der())
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        secret = password.encode() if isinstance(password, str) else password
        read = load_pem_private_key if data.startswith(b"-----") else load_der_private_key
        self._private[key.key_id] = read(data, secret)
        return key

    def _sign(self, request: SignRequest) -> bytes:
        if self.refuses:
            message = "told to fail"
            raise RequestRefusedError(message)
        key = self._private[request.key_id]
        return raw_decryption(request, key) if request.operation == "decrypt" else sign(request, key)

    async def _sign_later(self, request: SignRequest) -> bytes:
        while not self._answers:
            await asyncio.Event().wait()
        return self._sign(request)
