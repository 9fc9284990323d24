"""What a handshake asks about a client's certificate; it is parked until somebody answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine_shim import linkage
from engine_shim.native import context_address, ffi, lib

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = ["ACCEPTED", "ClientQuestion", "ask_about_clients", "ignore_expired_sessions", "split_chain"]

ACCEPTED = 0  # X509_V_OK
_LENGTH_BYTES = 4


class ClientQuestion:
    """Whether a client may come in. Any thread may answer; an answer that is late or second does nothing.

    Args:
        handle: shim.h's ``struct question``, a reference that becomes this object's.
    """

    __slots__ = ("_handle",)

    def __init__(self, handle: Any) -> None:  # noqa: ANN401 - cffi's pointers have no types
        self._handle = ffi.gc(handle, lib.question_free)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates in DER, the client's own first; of a session that is to be resumed, that one alone."""
        out = ffi.new("unsigned char[]", lib.question_chain(self._handle, ffi.NULL, 0))
        lib.question_chain(self._handle, out, len(out))
        return split_chain(bytes(ffi.buffer(out)))

    @property
    def is_resumption(self) -> bool:
        """Whether an earlier session is to be resumed; else OpenSSL has verified the chain just now."""
        return bool(lib.question_is_resumption(self._handle))

    @property
    def verdict(self) -> int | None:
        """The answer; None: there is none yet."""
        verdict: int = lib.question_verdict(self._handle)
        return None if verdict < 0 else verdict

    def answer(self, verdict: int) -> bool:
        """Let the handshake go on.

        Args:
            verdict: `ACCEPTED`, or an X509_V_ERR_* of OpenSSL's (x509_vfy.h), which decides about the alert.

        Returns:
            False: there was an answer already.
        """
        return bool(lib.question_answer(self._handle, verdict))


def ask_about_clients(context: SSL.Context) -> None:
    """Let every handshake with a client's certificate ask (`AsyncSSL.question`); they have to run in jobs.

    Args:
        context: The server's, that no Connection was made of yet. It must keep no sessions itself: those of its own
            cache would resume unasked.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    linkage.attach()
    lib.client_hook_set(context_address(context))


def ignore_expired_sessions(context: SSL.Context) -> None:
    """Resume no session whose client's certificate has expired since.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    linkage.attach()
    lib.client_hook_sessions(context_address(context))


def split_chain(written: bytes) -> tuple[bytes, ...]:
    """Take what peer_chain.h says apart: each certificate's length, and its DER."""
    found, at = [], 0
    while at < len(written):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(written[at:begin], "big")
        found.append(written[begin:at])
    return tuple(found)
