"""What users of asyncio's TLS expect to catch, and still ours: each class here is both.

Frameworks tell a TLS failure from others by the standard library's classes (`ssl.SSLError`,
`ssl.SSLCertVerificationError`, `ConnectionAbortedError`); whose fault it is, our classes tell.
"""

from __future__ import annotations

import ssl

from tlsserver.errors import (
    ConnectionTimeoutError,
    EngineError,
    HandshakeError,
    LocalTLSError,
    PeerError,
    PeerLeftError,
    TLSServerError,
)

__all__ = [
    "CertificateRefusedError",
    "EngineFailedError",
    "HandshakeFailedError",
    "HandshakeTimeoutError",
    "LocalFailedError",
    "PeerFailedError",
    "PeerResetError",
    "as_asyncio",
]

_VERIFY_FAILED = "certificate verify failed"
# OpenSSL does not tell for which name it was asked.
_MISMATCHES = ("hostname mismatch", "ip address mismatch")


class _OpenSSLShape(ssl.SSLError):
    """The attributes that the standard library gives its errors.

    Attributes:
        library: ``"SSL"``.
        reason: Such as ``"CERTIFICATE_VERIFY_FAILED"``.
    """

    library = "SSL"
    reason = ""

    @classmethod
    def of(cls, text: str) -> _OpenSSLShape:
        """Make one of a line of text."""
        made = cls(ssl.SSL_ERROR_SSL, text)
        made.reason = text.partition(":")[0].strip().replace(" ", "_").upper()
        return made


class HandshakeFailedError(HandshakeError, _OpenSSLShape):
    """The peer sent what cannot be accepted."""


class CertificateRefusedError(HandshakeError, _OpenSSLShape, ssl.SSLCertVerificationError):
    """The peer's certificate is not accepted.

    Attributes:
        verify_message: Why, in OpenSSL's words.
        verify_code: Always 0: which of X509_V_ERR_* it was is in the words.
    """

    verify_code = 0
    verify_message = ""

    @classmethod
    def of(cls, text: str) -> CertificateRefusedError:
        """Make one of a line of text."""
        made = cls(ssl.SSL_ERROR_SSL, text)
        made.reason = "CERTIFICATE_VERIFY_FAILED"
        made.verify_message = text.partition(": ")[2]
        return made


class PeerFailedError(PeerError, _OpenSSLShape):
    """The peer sent an alert, or broke the protocol."""


class LocalFailedError(LocalTLSError, _OpenSSLShape):
    """OpenSSL failed for a reason of ours."""


class EngineFailedError(EngineError, _OpenSSLShape):
    """The engine could not do a private-key operation."""


class HandshakeTimeoutError(ConnectionTimeoutError, ConnectionAbortedError):
    """The handshake was not finished in time, parked time included."""


class PeerResetError(PeerLeftError, ConnectionResetError):
    """The peer closed or reset its connection."""


# The first that fits.
_SHAPES: tuple[tuple[type[TLSServerError], type[_OpenSSLShape]], ...] = (
    (HandshakeError, HandshakeFailedError),
    (EngineError, EngineFailedError),
    (LocalTLSError, LocalFailedError),
)


def as_asyncio(error: BaseException | None, server_hostname: str | None = None) -> BaseException | None:
    """Return the error in a class that asyncio's users know; what is no failure of TLS stays as it is.

    Args:
        error: As a connection has it.
        server_hostname: A client's: whom it wanted to talk to.
    """
    if not isinstance(error, TLSServerError) or isinstance(error, _OpenSSLShape):
        return error
    text = str(error)
    if isinstance(error, ConnectionTimeoutError):
        return HandshakeTimeoutError(text)
    if isinstance(error, PeerLeftError):
        return PeerResetError(text)
    if text.startswith(_VERIFY_FAILED):
        if text.lower().endswith(_MISMATCHES):
            text = f"{text}, certificate is not valid for {server_hostname!r}"
        return CertificateRefusedError.of(text)
    for kind, shape in _SHAPES:
        if isinstance(error, kind):
            return shape.of(text)
    return PeerFailedError.of(text) if isinstance(error, PeerError) else error
