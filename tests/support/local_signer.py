"""A signer without another process: the tests' choice of when it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import Key, SignerEngine, ThreadEngine

if TYPE_CHECKING:
    from pathlib import Path


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
