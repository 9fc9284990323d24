"""What a load is to be: a leaf."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# As browsers order them: AES-128 first, which costs both ends less than OpenSSL's own first choice.
CIPHERSUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# In TLS 1.2 the list also says which curves a certificate's key may be on (RFC 8422 5.1.1).
GROUPS = {"1.3": "X25519", "1.2": "X25519:P-256:P-384:P-521"}


class Close(Enum):
    """How a connection ends whose handshake has succeeded."""

    ORDERLY = "orderly"
    RESET = "reset"


@dataclass(frozen=True)
class Settings:
    """What a load is to be.

    Attributes:
        tls: The one version of TLS that is offered, "1.2" or "1.3".
        concurrency: Connections in progress at any time.
        duration: Seconds after which no new one begins; None: no bound.
        count: Connections after which no new one begins; None: no bound.
        resume: Whether all but the first offer the latest session.
        request: What is sent after each handshake, to be answered; None: nothing.
        timeout: Seconds from connect to the end of the handshake, and again to the end of the connection.
        close: How connections end.
        server_name: Asked for (SNI); None: none.
        expected_name: Name or address that a certificate must be for, where they are verified.
        ca_certs: PEM file of authorities to verify certificates with; None: they are not verified.
        groups: Key exchange groups, in OpenSSL's form; None: those of `GROUPS`.
        ciphers: Suites of TLS 1.2, in OpenSSL's form; None: OpenSSL's own.
        ciphersuites: Suites of TLS 1.3, in OpenSSL's form.
        alpn: Protocols that are offered; empty: the extension is not sent.
    """

    tls: str = "1.3"
    concurrency: int = 64
    duration: float | None = None
    count: int | None = None
    resume: bool = False
    request: bytes | None = None
    timeout: float = 10.0
    close: Close = Close.ORDERLY
    server_name: str | None = None
    expected_name: str = "localhost"
    ca_certs: Path | None = None
    groups: str | None = None
    ciphers: str | None = None
    ciphersuites: str = CIPHERSUITES
    alpn: tuple[str, ...] = ()
