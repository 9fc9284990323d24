"""Certificates with their keys, for single connections instead of a whole Context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine_shim import linkage
from engine_shim.errors import KeyMismatchError, ShimError
from engine_shim.key import MISMATCH, Key, read_source
from engine_shim.native import check, context_address, ffi, lib, raise_status

if TYPE_CHECKING:
    from pathlib import Path

    from OpenSSL import SSL

    from engine_shim.base import BaseEngine

__all__ = ["Identity"]


class Identity:
    """One or several certificates, each with its chain and its key, no two with one kind of key.

    Fill it on one thread; from when it is used on it must not change, and any thread may use it.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        MemoryError: There is none.
    """

    __slots__ = ("_handle", "_keys")

    def __init__(self) -> None:
        linkage.attach()
        handle = lib.identity_new()
        if handle == ffi.NULL:
            raise_status(lib.SHIM_ERR_MEMORY, "making an Identity")
        self._handle = ffi.gc(handle, lib.identity_free)
        self._keys: tuple[Key, ...] = ()  # a Key of a third party keeps its engine

    @property
    def handle(self) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        """The C half, borrowed."""
        return self._handle

    def add(self, certificate: bytes, key: Key | str | Path | bytes, password: str | bytes | None = None) -> None:
        """Add a certificate.

        Args:
            certificate: PEM: the certificate, then its chain.
            key: In an engine; or a file, or the key itself as PEM or DER: OpenSSL performs it.
            password: Decrypts an encrypted PEM key.

        Raises:
            KeyPasswordError: The key is encrypted, and the password is missing or wrong.
            KeyLoadError: There is no key.
            KeyMismatchError: The key is not the certificate's.
            ShimError: There is no certificate, or one of them cannot be read.
            OSError: The key's file cannot be read.
        """
        if isinstance(key, Key):
            self._keys += (key,)
            status = lib.identity_add(self._handle, ffi.from_buffer(certificate), len(certificate), key.handle)
            what = "certificate"
        else:
            status, what = self._add_plain(certificate, key, password)
        if status == lib.SHIM_ERR_KEY_TYPE:
            raise KeyMismatchError(MISMATCH)
        if status == lib.SHIM_ERR_OPENSSL:
            reason = ffi.string(lib.shim_last_error()).decode(errors="replace")
            message = f"no certificate (PEM) could be read ({reason})"
            raise ShimError(message)
        check(status, what)

    def _add_plain(self, certificate: bytes, key: str | Path | bytes, password: str | bytes | None) -> tuple[int, str]:
        data, secret, what = read_source(key, password)
        given = ffi.NULL if secret is None else ffi.from_buffer(secret)
        status: int = lib.identity_add_plain(
            *(self._handle, ffi.from_buffer(certificate), len(certificate)),
            *(ffi.from_buffer(data), len(data), given, len(secret or b"")),
        )
        return status, what

    def take(self, other: Identity) -> None:
        """Add all certificates of another one, but those with a kind of key that is here already.

        Raises:
            MemoryError: There is none.
        """
        self._keys += other._keys
        check(lib.identity_take(self._handle, other._handle), "taking certificates")

    def use(self, context: SSL.Context) -> None:
        """Make them the certificates of a whole Context, beside those that it has with other kinds of keys.

        Args:
            context: A pyOpenSSL Context that no Connection was made of yet.

        Raises:
            ShimError: OpenSSL refuses one, for example because its key is too weak for the security level.
        """
        check(lib.identity_use_context(self._handle, context_address(context)), "using a certificate")

    @property
    def engines(self) -> tuple[BaseEngine, ...]:
        """The engines that perform its keys; none: OpenSSL does."""
        return tuple(dict.fromkeys(key.engine for key in self._keys))

    def check(self, context: SSL.Context) -> None:
        """Find out whether the connections of a Context take it.

        Raises:
            ShimError: OpenSSL refuses, for example because a key is too weak for the Context's security level.
        """
        check(lib.identity_check(self._handle, context_address(context)), "using a certificate")
