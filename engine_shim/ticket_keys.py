"""Keys of session tickets (RFC 5077; RFC 8446, 4.6.1) that several Contexts, loops and processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.native import check, context_address, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from OpenSSL import SSL

__all__ = ["TICKET_KEY_BYTES", "TicketKeys"]

# nginx's forms: name (16), HMAC (32), AES-256 (32); and name (16), AES-128 (16), HMAC (16).
TICKET_KEY_BYTES = (80, 48)

_NAME_BYTES = 16


class TicketKeys:
    """A ring of keys: the first encrypts tickets, all decrypt, and what another than the first decrypts is renewed.

    It may be changed at any time, by any thread, while handshakes use it: each has the keys before or those after. The
    keys lie in C, are wiped when the last handshake has let go of them, and are never handed out. Processes that are
    forked have the same keys, also those that `rotate` makes.
    """

    def __init__(self, keys: Sequence[bytes | bytearray] = ()) -> None:
        """Begin with these keys; without any, with a random one.

        Args:
            keys: As for `set`.

        Raises:
            LinkageError: OpenSSL cannot be reached.
            ShimError: OpenSSL has no random numbers.
            ValueError: See `set`.
        """
        linkage.attach()
        out = ffi.new("struct ticket_keys **")
        check(lib.ticket_keys_new(out), "making ticket keys")
        self._handle = ffi.gc(out[0], lib.ticket_keys_free)
        if keys:
            self.set(keys)

    @property
    def names(self) -> tuple[bytes, ...]:
        """The 16 bytes by which tickets name each key; no secrets."""
        out = ffi.new(f"unsigned char[{_NAME_BYTES * lib.TICKET_KEYS_MOST}]")
        count = lib.ticket_keys_names(self._handle, out, len(out))
        named = bytes(ffi.buffer(out, count * _NAME_BYTES))
        return tuple(named[at : at + _NAME_BYTES] for at in range(0, len(named), _NAME_BYTES))

    def set(self, keys: Sequence[bytes | bytearray]) -> None:
        """Replace them all.

        Args:
            keys: In nginx's forms, 80 or 48 bytes each (`TICKET_KEY_BYTES`); the first encrypts. They are copied:
                whoever gave a bytearray can wipe it.

        Raises:
            ValueError: None, too many, a key of another length, or two of one name. Nothing has changed.
        """
        _refuse(keys)
        joined = bytearray().join(keys)
        try:
            lengths = ffi.new("size_t[]", [len(key) for key in keys])
            check(lib.ticket_keys_set(self._handle, ffi.from_buffer(joined), lengths, len(keys)), "ticket keys")
        finally:
            joined[:] = bytes(len(joined))

    def rotate(self, keep: int) -> None:
        """Put a random key first.

        Args:
            keep: How many of those that were there before stay.

        Raises:
            ShimError: OpenSSL refuses.
            ValueError: They would be too many.
        """
        if not 0 <= keep < lib.TICKET_KEYS_MOST:
            message = f"cannot keep {keep} ticket keys: 0 to {lib.TICKET_KEYS_MOST - 1}"
            raise ValueError(message)
        check(lib.ticket_keys_rotate(self._handle, keep), "rotating ticket keys")

    def use(self, context: SSL.Context) -> None:
        """Make these the keys of a Context that no Connection was made of yet.

        Raises:
            ShimError: OpenSSL refuses.
        """
        address = context_address(context)
        check(lib.ticket_keys_use(self._handle, address), "using ticket keys")

    def __repr__(self) -> str:
        return f"<TicketKeys {' '.join(name.hex() for name in self.names)}>"


def _refuse(keys: Sequence[bytes | bytearray]) -> None:
    if not 1 <= len(keys) <= lib.TICKET_KEYS_MOST:
        message = f"{len(keys)} ticket keys cannot work: give 1 to {lib.TICKET_KEYS_MOST}"
        raise ValueError(message)
    for number, key in enumerate(keys, 1):
        if len(key) not in TICKET_KEY_BYTES:
            message = f"ticket key {number} has {len(key)} bytes: it must have 80 (AES-256) or 48 (AES-128)"
            raise ValueError(message)
    if len({bytes(key[:_NAME_BYTES]) for key in keys}) < len(keys):
        message = "two ticket keys have the same name, which is the first 16 bytes: give each once"
        raise ValueError(message)
