"""Whose fault it is that a call of OpenSSL failed, in one line.

Facts
- OpenSSL 3 reports a TCP end without close_notify as an error of its own (reason 294), not as a system error.
- A reason is a number in the error queue; the queue's text is for the log.

Decision
- Reasons that call for a deed (plain HTTP, end of stream, cancelled) are told by number; every other becomes one line
  with the class of whose fault it is: an alert that the peer sent, a failure of the engine, an internal error of
  OpenSSL, and else what the peer sent could not be accepted.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from tlsserver.errors import EngineError, HandshakeError, LocalTLSError, PeerError, PeerLeftError, PlainHTTPError

if TYPE_CHECKING:
    from engine_shim import OpenSSLError
    from tlsserver.errors import TLSServerError

__all__ = ["failure", "is_end"]

_PEER_GONE = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)

# openssl/err.h (3.0 and later): the library's number lies above 23 bits of reason.
_REASON_MASK = 0x7FFFFF
_LIBRARY_SHIFT = 23
_LIBRARY_MASK = 0xFF
_LIBRARY_SSL = 20

# openssl/sslerr.h.
_REASON_INTERNAL_ERROR = 0xC0103  # ERR_R_INTERNAL_ERROR
_REASON_INTERNAL_ERROR_OLD = 68
_REASON_VERIFY_FAILED = 134
_REASON_HTTPS_PROXY_REQUEST = 155
_REASON_HTTP_REQUEST = 156
_REASON_UNEXPECTED_EOF = 294
_REASONS_LOCAL = {
    118: "the key cannot make any signature that the client accepts",  # no suitable signature algorithm
    177: "no certificate is set",
    179: "no certificate is set",
}
# The peer's alert N arrives as reason 1000 + N (SSL_AD_REASON_OFFSET).
_ALERT_FIRST, _ALERT_LAST = 1000, 1255


def is_end(errors: tuple[OpenSSLError, ...]) -> bool:
    """Return whether the stream ended without close_notify."""
    return any(_ssl_reason(error.code) == _REASON_UNEXPECTED_EOF for error in errors)


def failure(errors: tuple[OpenSSLError, ...], system_error: int, verify_error: str | None) -> TLSServerError:
    """Tell why a call failed.

    Args:
        errors: OpenSSL's queue, as the call has left it.
        system_error: errno, where the queue is empty.
        verify_error: What is wrong with the peer's certificate; None: nothing.
    """
    if not errors or system_error in _PEER_GONE:
        return _system_failure(system_error)
    return _engine_failure(errors) or _ssl_failure(errors, verify_error)


def _ssl_reason(code: int) -> int:
    """Return the reason of an error of libssl; -1 for one of another library."""
    library = code >> _LIBRARY_SHIFT & _LIBRARY_MASK
    return code & _REASON_MASK if library == _LIBRARY_SSL else -1


def _system_failure(number: int) -> TLSServerError:
    if number in _PEER_GONE:
        return PeerLeftError("the peer reset the connection")
    if number:
        return PeerLeftError(f"the connection broke: {os.strerror(number)}")
    return LocalTLSError("OpenSSL failed without a reason")


def _engine_failure(errors: tuple[OpenSSLError, ...]) -> TLSServerError | None:
    """Find the engine's own entry: libssl puts a less telling one on top of it."""
    for error in errors:
        if error.is_engine:
            return EngineError(error.text)
    return None


def _ssl_failure(errors: tuple[OpenSSLError, ...], verify_error: str | None) -> TLSServerError:
    reasons = [_ssl_reason(error.code) for error in errors]
    text = errors[0].text
    if _REASON_HTTP_REQUEST in reasons or _REASON_HTTPS_PROXY_REQUEST in reasons:
        return PlainHTTPError("plain HTTP was sent to the TLS port")
    if any(_ALERT_FIRST <= reason <= _ALERT_LAST for reason in reasons):
        return PeerError(f"the peer sent an alert: {text}")
    for reason in reasons:
        if reason in _REASONS_LOCAL:
            return LocalTLSError(_REASONS_LOCAL[reason])
    if _REASON_INTERNAL_ERROR in reasons or _REASON_INTERNAL_ERROR_OLD in reasons:
        return LocalTLSError(text)
    return HandshakeError(f"{text}: {verify_error}" if _REASON_VERIFY_FAILED in reasons and verify_error else text)
