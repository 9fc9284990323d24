"""Server names (RFC 6066) of a Context, and the questions that its handshakes ask: what `csrc/hello.c` decides by."""

from __future__ import annotations

import enum
from array import array
from typing import TYPE_CHECKING, NamedTuple

from engine_shim import linkage
from engine_shim.errors import ShimError
from engine_shim.native import check, context_address, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Mapping

    from OpenSSL import SSL

    from engine_shim.async_ssl import AsyncSSL
    from engine_shim.identity import Identity

__all__ = [
    "MAIN",
    "BadNameError",
    "HelloTexts",
    "NameTable",
    "Question",
    "QuestionKind",
    "Refusal",
    "is_name",
    "keep_names",
    "refusal_of",
]

# The number of the identity that the Context itself has.
MAIN = int(lib.HELLO_MAIN)

_NOBODY = 0xFFFFFFFF
_FIELD_MOST = 1024  # hello.c, COPY_MOST


class BadNameError(ShimError, ValueError):
    """A name is no host name; `name` is which."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is no host name")
        self.name = name


class QuestionKind(enum.IntEnum):
    """What a handshake that has come to `Status.WANT_CLIENT_HELLO_CB` wants to know."""

    NOTHING = lib.HELLO_NOTHING
    DECISION = lib.HELLO_DECISION  # whose certificates it has, or that it is refused
    IDENTITY = lib.HELLO_IDENTITY  # the identity of this number, which is not loaded


class HelloTexts(NamedTuple):
    """What a client said, as on the wire, without the length in front; empty: it did not."""

    name: bytes
    legacy_version: bytes
    versions: bytes
    ciphers: bytes
    alpn: bytes
    groups: bytes
    signature_algorithms: bytes


class Refusal(NamedTuple):
    """Why a handshake was ended by the ClientHello.

    Attributes:
        alert: Its number (RFC 8446, 6).
        unknown: Whether there is no such name.
    """

    alert: int
    unknown: bool


class NameTable:
    """The names of a Context, and the identities of them that are loaded. Made once; then any thread may use it.

    Args:
        context: A server's Context that no Connection was made of yet.
        names: The identity's number by host name, which may begin with ``*.``; `MAIN`: the Context's own.
        identities: All numbers are below.
        loaded_most: How many of them may be loaded at one time.
        strict: Whether a name that is not here ends the handshake (unrecognized_name); else it is as if none was given.
        asks: Whether each handshake asks for a decision first.

    Raises:
        BadNameError: A name is none.
        LinkageError: OpenSSL cannot be reached.
        MemoryError: There is none.
    """

    def __init__(
        self,
        context: SSL.Context,
        names: Mapping[str, int],
        *,
        identities: int,
        loaded_most: int,
        strict: bool = False,
        asks: bool = False,
    ) -> None:
        linkage.attach()
        self._context = context
        self._address = context_address(context)
        text = _joined(names)
        numbers = ffi.from_buffer("uint32_t[]", array("I", names.values()))
        bad = ffi.new("size_t *", len(names))
        limits = ffi.new("struct hello_limits *", (identities, loaded_most))
        flags = (lib.HELLO_STRICT if strict else 0) | (lib.HELLO_ASKS if asks else 0)
        status = lib.hello_set(self._address, text, len(text), numbers, len(names), limits, flags, bad)
        if status == lib.SHIM_ERR_RANGE and bad[0] < len(names):
            raise BadNameError(list(names)[bad[0]])
        check(status, "setting server names")

    def number_of(self, name: str) -> int | None:
        """Return the number of whom a name stands for; None: nobody."""
        raw = name.encode("ascii", "replace")
        number = int(lib.hello_number_of(self._address, raw, len(raw)))
        return None if number == _NOBODY else number

    def put(self, number: int, identity: Identity) -> None:
        """Keep an identity; another one gives way if there are too many."""
        lib.hello_put(self._address, number, identity.handle)

    @property
    def loaded(self) -> int:
        """How many identities are loaded."""
        return int(lib.hello_loaded(self._address))

    @property
    def table_bytes(self) -> int:
        """What the names take."""
        return int(lib.hello_table_bytes(self._address))


def keep_names(context: SSL.Context) -> None:
    """Let connections know the name that their client has asked for, where there is one certificate for all.

    OpenSSL does not tell it where TLS 1.2 resumes a session.

    Args:
        context: A server's Context that no Connection was made of yet.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        MemoryError: There is none.
    """
    NameTable(context, {}, identities=1, loaded_most=1)


def is_name(name: str) -> bool:
    """Tell whether a table takes a name, which may begin with ``*.``."""
    return name.isascii() and bool(lib.hello_is_name(name.encode(), len(name)))


def _joined(names: Mapping[str, int]) -> bytes:
    """One a line, with a line feed after each.

    Raises:
        BadNameError: A name is not ASCII, or more than a line.
    """
    text = "".join(f"{name}\n" for name in names)
    if not text.isascii() or text.count("\n") != len(names):
        raise BadNameError(next(name for name in names if not name.isascii() or "\n" in name))
    return text.encode()


class Question:
    """What one connection's handshake wants to know. On the connection's thread only, between two of its calls.

    Args:
        tls: The connection, after `Status.WANT_CLIENT_HELLO_CB`.
    """

    __slots__ = ("_tls", "kind", "number")

    def __init__(self, tls: AsyncSSL) -> None:
        self._tls = tls
        number = ffi.new("uint32_t *")
        self.kind = QuestionKind(lib.hello_wants(tls.raw, number))
        self.number = int(number[0])

    def texts(self) -> HelloTexts:
        """Return what the client said, each part up to 1,024 bytes."""
        out = ffi.new("unsigned char[]", _FIELD_MOST)
        raw = self._tls.raw

        def read(field: int) -> bytes:
            return bytes(ffi.buffer(out, lib.hello_copy(raw, field, out, _FIELD_MOST)))

        return HelloTexts(*(read(field) for field in range(lib.HELLO_FIELDS)))

    def give(self, identity: Identity | None) -> bool:
        """Answer with an identity; None: the connection goes on as without a question.

        Returns:
            False if nothing is asked any more.
        """
        handle = ffi.NULL if identity is None else identity.handle
        return bool(lib.hello_give(self._tls.raw, handle) == lib.SHIM_OK)

    def refuse(self, alert: int) -> bool:
        """End the handshake with an alert.

        Returns:
            False if nothing is asked any more.
        """
        return bool(lib.hello_refuse(self._tls.raw, alert) == lib.SHIM_OK)


def refusal_of(tls: AsyncSSL) -> Refusal | None:
    """Return why the ClientHello has ended a handshake; None: it has not."""
    unknown = ffi.new("int *")
    alert = int(lib.hello_refused(tls.raw, unknown))
    return None if alert < 0 else Refusal(alert, bool(unknown[0]))
