"""What a failed connection is counted as: one short line for each kind."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_shim import OpenSSLError

TIMEOUT = "timeout"
RESET = "reset by the server"
CLOSED = "closed by the server"
NEVER_CLOSED = "not closed by the server in time"

_KINDS = {
    errno.ECONNREFUSED: "refused: nobody listens there",
    errno.ECONNRESET: RESET,
    errno.EPIPE: RESET,
    errno.ETIMEDOUT: TIMEOUT,
    errno.EADDRNOTAVAIL: "no free port on this machine: give --close reset",
    errno.EMFILE: "too many open files: raise `ulimit -n`, or give a lower --concurrency",
}

# The alerts of RFC 8446 6.2 and RFC 5246 7.2, by number; OpenSSL reports a peer's as reason 1000 + number.
ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}
_ALERT_FIRST = 1000
_UNEXPECTED_EOF = 294
_REASON_MASK = 0x7FFFFF


def kind_of_system_error(number: int) -> str:
    """Name what errno says; 0 where the peer left without a word."""
    if number == 0:
        return CLOSED
    return _KINDS.get(number) or os.strerror(number).lower()


def kind_of_tls_error(errors: Sequence[OpenSSLError]) -> str:
    """Name what OpenSSL's error queue says: the peer's alert by its registered name, else OpenSSL's own words."""
    for error in errors:
        reason = error.code & _REASON_MASK
        if reason - _ALERT_FIRST in ALERTS:
            return f"alert {ALERTS[reason - _ALERT_FIRST]}"
        if reason == _UNEXPECTED_EOF:
            return CLOSED
    return f"TLS: {errors[0].text}" if errors else CLOSED
