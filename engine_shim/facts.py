"""What a handshake has come to, for those who ask for more than `AsyncSSL.settled` tells; nothing after its `close`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine_shim.native import ffi, lib
from engine_shim.questions import split_chain

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim.async_ssl import AsyncSSL

__all__ = ["Cipher", "cipher", "finished", "own_certificate", "pending", "sent_chain", "shared_ciphers"]

_FINISHED_MOST = 64  # bytes; SHA-384's 48 are the longest


class Cipher(NamedTuple):
    """A cipher suite.

    Attributes:
        name: In OpenSSL's words.
        version: The protocol that it is from.
        bits: Of its secret.
    """

    name: str
    version: str
    bits: int


def cipher(tls: AsyncSSL) -> Cipher | None:
    """Return the suite in use (SSL_get_current_cipher(3)); None: there is none yet."""
    found = _ciphers(tls, lib.FACTS_CIPHER_IN_USE)
    return found[0] if found else None


def shared_ciphers(tls: AsyncSSL) -> list[Cipher]:
    """Return our suites that the client has offered as well, in our order; a client does not learn the server's."""
    theirs = set(_ciphers(tls, lib.FACTS_CIPHERS_PEERS))
    return [one for one in _ciphers(tls, lib.FACTS_CIPHERS_OWN) if one in theirs] if theirs else []


def _ciphers(tls: AsyncSSL, which: int) -> list[Cipher]:
    ssl = tls.raw
    name, version, bits = ffi.new("const char **"), ffi.new("const char **"), ffi.new("int *")
    found: list[Cipher] = []
    while ssl != ffi.NULL and lib.facts_cipher(ssl, which, len(found), name, version, bits):
        found.append(Cipher(ffi.string(name[0]).decode(), ffi.string(version[0]).decode(), int(bits[0])))
    return found


def finished(tls: AsyncSSL, *, peers: bool) -> bytes:
    """Return a Finished message (SSL_get_finished(3)), of which channel bindings are made (RFC 5929).

    Args:
        tls: The connection.
        peers: Whether the one that came; else the one that was sent.
    """
    out = ffi.new("unsigned char[]", _FINISHED_MOST)
    length = 0 if tls.raw == ffi.NULL else lib.facts_finished(tls.raw, peers, out, _FINISHED_MOST)
    return bytes(ffi.buffer(out, length))


def sent_chain(tls: AsyncSSL) -> tuple[bytes, ...]:
    """Return the certificates as the peer has sent them, in DER; a server gets those without the client's own."""
    return _written(tls, lib.facts_sent_chain)


def own_certificate(tls: AsyncSSL) -> bytes | None:
    """Return the certificate that our end has shown (SSL_get_certificate(3)), in DER; None: none.

    After a resumption, in which none is shown, it is the one that this end would show.
    """
    found = _written(tls, lib.facts_own_certificate)
    return found[0] if found else None


def _written(tls: AsyncSSL, write: Callable[..., int]) -> tuple[bytes, ...]:
    length = 0 if tls.raw == ffi.NULL else write(tls.raw, ffi.NULL, 0)
    if not length:
        return ()
    out = ffi.new("unsigned char[]", length)
    write(tls.raw, out, length)
    return split_chain(bytes(ffi.buffer(out)))


def pending(tls: AsyncSSL) -> int:
    """Return how many decrypted bytes wait to be read (SSL_pending(3))."""
    return 0 if tls.raw == ffi.NULL else int(lib.facts_pending(tls.raw))
