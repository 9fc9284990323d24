"""What is answered around TLS, to those who cannot read it or shall not begin. A leaf."""

from __future__ import annotations

__all__ = ["INTERNAL_ERROR_ALERT", "PLAIN_HTTP_ANSWER"]

_BODY = b"This port speaks TLS: use https:// instead of http://.\n"
PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)

# A fatal alert, internal_error (80), in the clear (RFC 8446, 5.1 and 6.2), which a client understands before any key is
# agreed upon. The record's version is the one that every version of TLS accepts there.
INTERNAL_ERROR_ALERT = bytes([21, 3, 3, 0, 2, 2, 80])
