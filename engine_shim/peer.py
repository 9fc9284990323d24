"""What a client learns of its server, and pyOpenSSL has no function for in all its releases.

All are for the client's thread; a Connection must be alive while it is asked about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.native import check, context_address, ffi, lib, ssl_address

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from OpenSSL import SSL

    from engine_shim.async_ssl import AsyncSSL

    IPAddress = IPv4Address | IPv6Address

__all__ = [
    "ask_for_name",
    "ask_for_staple",
    "count_sessions",
    "expect",
    "has_ticket",
    "renegotiates_securely",
    "sessions_seen",
    "staple",
    "verification",
]


def ask_for_name(tls: AsyncSSL, name: bytes) -> None:
    """Tell the server which name is wanted (SNI), before the handshake (RFC 6066, section 3).

    Raises:
        ShimError: OpenSSL refuses: it is longer than 255 bytes.
    """
    check(lib.peer_ask_name(tls.raw, name), "asking for a server name")


def expect(tls: AsyncSSL, who: bytes | IPAddress, *, common_name: bool = True) -> None:
    """Have OpenSSL refuse every certificate that is not for somebody, before the handshake.

    Args:
        tls: The client's end.
        who: A host's name in ASCII, for which a wildcard may stand (RFC 9525, section 6.3), or an address.
        common_name: Whether the subject's common name counts where a certificate has no DNS name, as of old.

    Raises:
        ShimError: OpenSSL refuses it.
    """
    if isinstance(who, bytes):
        status = lib.peer_expect_name(tls.raw, who, common_name)
    else:
        status = lib.peer_expect_ip(tls.raw, who.packed, len(who.packed))
    check(status, "naming whom a certificate must be for")


def ask_for_staple(connection: SSL.Connection) -> None:
    """Ask for an OCSP response, before the handshake (RFC 6066, section 8).

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ShimError: OpenSSL refuses.
    """
    linkage.attach()
    check(lib.peer_ask_staple(ssl_address(connection)), "asking for an OCSP response")


def staple(connection: SSL.Connection) -> bytes:
    """Return the OCSP response that came, in DER; empty: none."""
    out = ffi.new("unsigned char **")
    length = lib.peer_staple(ssl_address(connection), out)
    return bytes(ffi.buffer(out[0], length)) if length else b""


def verification(connection: SSL.Connection) -> tuple[int, str]:
    """Return what the verification of the certificate came to: X509_V_OK (0) or another number, and its words."""
    number = ffi.new("int *")
    words = lib.peer_verify_reason(ssl_address(connection), number)
    return int(number[0]), ffi.string(words).decode(errors="replace")


def renegotiates_securely(connection: SSL.Connection) -> bool:
    """Tell whether the server has said that it knows RFC 5746; TLS 1.3 has no renegotiation."""
    return bool(lib.peer_renegotiates_securely(ssl_address(connection)))


def has_ticket(connection: SSL.Connection) -> bool:
    """Tell whether the session has come as a ticket, and is not kept by the server under an id."""
    return bool(lib.peer_has_ticket(ssl_address(connection)))


def count_sessions(context: SSL.Context) -> None:
    """Count the sessions that servers give to the connections of a Context that has none yet; nothing is cached.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        MemoryError: There is none.
    """
    linkage.attach()
    check(lib.peer_count_sessions(context_address(context)), "counting sessions")


def sessions_seen(context: SSL.Context) -> int:
    """Return how many sessions have come: with TLS 1.3 one for each ticket."""
    return int(lib.peer_sessions(context_address(context)))
