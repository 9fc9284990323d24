"""What can go wrong, sorted by whose fault it is: ours (local), the peer's or the engine's.

A leaf: imports nothing of this package. The fault is the class, so a caller writes ``except PeerError`` and means it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AddressError",
    "ConfigurationError",
    "ConnectionTimeoutError",
    "EngineError",
    "ForkedProcessError",
    "HandshakeError",
    "HandshakeGoneError",
    "IllegalTransitionError",
    "LocalError",
    "LocalTLSError",
    "PeerError",
    "PeerLeftError",
    "PlainHTTPError",
    "ProblemsError",
    "RequestAnsweredError",
    "ServerStateError",
    "TLSServerError",
    "TruncatedError",
    "error_for_fault",
]


class TLSServerError(Exception):
    """Root of everything that tlsserver raises or hands to ``connection_lost``.

    Attributes:
        fault: ``"local"``, ``"peer"`` or ``"engine"``: who has to change something.
    """

    fault: ClassVar[str] = "local"


class LocalError(TLSServerError):
    """This side did something wrong: the configuration, the program or the machine."""


class ConfigurationError(LocalError, ValueError):
    """A setting cannot work. The message is one line: what, why, and what to do."""


class ProblemsError(ConfigurationError):
    """Several settings cannot work.

    Attributes:
        problems: One line each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class AddressError(ConfigurationError):
    """The address cannot be listened on (in use, not allowed, not of this machine)."""


class ServerStateError(LocalError, RuntimeError):
    """A call that does not fit the server's life, such as starting it twice."""


class ForkedProcessError(LocalError, RuntimeError):
    """Something made before ``os.fork`` was used in the child, which must make its own."""


class IllegalTransitionError(LocalError, RuntimeError):
    """An event that the connection's state does not allow: a bug in the caller. Nothing was changed."""


class RequestAnsweredError(LocalError, RuntimeError):
    """A `tlsserver.ClientHelloRequest` was answered twice; the first answer holds."""


class HandshakeGoneError(LocalError, RuntimeError):
    """A `tlsserver.ClientHelloRequest` was answered after its handshake had ended: nobody waits for it."""


class LocalTLSError(LocalError):
    """OpenSSL failed for a reason of ours, such as a certificate that no cipher can use."""


class PeerError(TLSServerError, ConnectionError):
    """The other end broke the rules or went away."""

    fault = "peer"


class HandshakeError(PeerError):
    """The handshake failed because of what the peer sent, or did not send."""


class PlainHTTPError(HandshakeError):
    """The peer spoke plain HTTP to the TLS port."""


class PeerLeftError(PeerError):
    """The peer closed or reset its connection."""


class TruncatedError(PeerLeftError):
    """The TCP stream ended without close_notify, so data may be missing (RFC 8446, section 6.1)."""


class ConnectionTimeoutError(PeerError, TimeoutError):
    """A deadline passed while we waited for the peer."""


class EngineError(TLSServerError):
    """The engine could not do a private-key operation."""

    fault = "engine"


_BY_FAULT: dict[str, type[TLSServerError]] = {"local": LocalTLSError, "peer": PeerError, "engine": EngineError}


def error_for_fault(fault: str, reason: str) -> TLSServerError:
    """Make the error whose class says whose fault it is.

    Args:
        fault: ``"local"``, ``"peer"`` or ``"engine"``.
        reason: One line for people.

    Returns:
        An exception to raise or to hand to ``connection_lost``.
    """
    return _BY_FAULT[fault](reason)
