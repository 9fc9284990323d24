"""The key in a process of its own: `tlsserver serve --offload isolated`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from engine_shim import KeyMismatchError
from engine_shim.key import MISMATCH
from tlsserver.errors import ConfigurationError
from tlsserver.signers.child import SignerChild
from tlsserver.signers.remote import RemoteSigner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine_shim import Key

__all__ = ["IsolatedSigner"]


class IsolatedSigner(RemoteSigner):
    """A `RemoteSigner` that brings its signer along: a child process, which alone reads the private keys.

    It is started before this returns, started anew when it dies, and ends with this process. It is given the paths of
    the keys, so no memory of this process ever holds one. The file of a certificate must not hold its key as well.

    Args:
        keys: Paths of the private keys, PEM or DER.
        password: Of those that are encrypted: ``file:PATH``, ``env:NAME``, ``pass:TEXT`` or the text.
        offload: The engine in the child: ``"auto"``, ``"batch"``, ``"threads"`` or ``"off"``.
        threads: Of that engine; None: its default.
        options: Those of `RemoteSigner`: ``deadline``, ``fallback`` and so on.

    Raises:
        ConfigurationError: A key cannot be used.
        LinkageError: OpenSSL cannot be reached.
    """

    def __init__(
        self,
        keys: Sequence[str | Path],
        *,
        password: str | None = None,
        offload: str = "auto",
        threads: int | None = None,
        **options: Any,  # noqa: ANN401 - RemoteSigner's
    ) -> None:
        if not keys:
            message = "an isolated signer needs a key: give the path of one"
            raise ConfigurationError(message)
        self._child = SignerChild(keys, password=password, offload=offload, threads=threads)
        self._child.start()
        try:
            super().__init__([f"unix:{self._child.socket}"], peer_uids=(os.geteuid(),), name="isolated", **options)
        except BaseException:
            self._child.close()
            raise

    @property
    def child(self) -> SignerChild:
        """The process that has the keys."""
        return self._child

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        """Make the key of a certificate, whose private half the child has; it reads its files again if it has not.

        Raises:
            KeyLoadError: There is no certificate or public key.
            KeyMismatchError: The child has not read the private key that belongs to it.
            OSError: The file cannot be read.
        """
        key = super().load_key(source, password)
        if key.key_id not in self._child.key_ids():
            self._child.reload()
        if key.key_id not in self._child.key_ids():
            raise KeyMismatchError(self._child.complaint or MISMATCH)
        return key

    def close(self, timeout: float = 5.0) -> bool:
        """End it, and the process."""
        ended = super().close(timeout)
        return self._child.close(timeout) and ended
