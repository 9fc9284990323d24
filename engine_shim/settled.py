"""What a handshake has settled, as every connection asks once."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

__all__ = ["SETTLED_ROOM", "Settled", "read_settled"]


class Settled(NamedTuple):
    """What a handshake settled, as OpenSSL names it.

    Attributes:
        version: Such as ``"TLSv1.3"``.
        cipher: The cipher suite.
        group: The key exchange's group; None: there is none, or this OpenSSL cannot tell.
        reused: Whether a session was resumed.
        server_name: The name that the client asked for (SNI); None: none.
        alpn: The protocol agreed upon; None: none.
    """

    version: str
    cipher: str
    group: str | None
    reused: bool
    server_name: str | None
    alpn: str | None


# Three of OpenSSL's names, and two of at most 255 bytes from the client (RFC 6066, 7301).
SETTLED_ROOM = 1024


@lru_cache(maxsize=256)
def read_settled(texts: bytes) -> Settled:
    """Read what `async_ssl_settled` has written. Most clients settle the same, so it is read once and shared."""
    # Only the last text may contain a NUL: OpenSSL refuses a server name that does.
    version, cipher, group, reused, server_name, alpn = (
        text.decode("ascii", "backslashreplace") for text in texts[:-1].split(b"\0", 5)
    )
    return Settled(version, cipher, group or None, reused != "", server_name or None, alpn or None)
