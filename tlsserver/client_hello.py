"""What a client asked for, as a question to the application: which certificate does it get? (RFC 8446, 4.1.2)."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from tlsserver.errors import ConfigurationError, ForkedProcessError, HandshakeGoneError, RequestAnsweredError
from tlsserver.policy.certificate import Certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import BaseEngine, Engine
    from engine_shim.identity import Identity
    from engine_shim.server_names import HelloTexts

__all__ = ["ALERTS", "Answer", "ClientHelloRequest"]

# RFC 8446, 6.2: those that say why a ClientHello is refused.
ALERTS = {
    "handshake_failure": 40,
    "illegal_parameter": 47,
    "access_denied": 49,
    "decode_error": 50,
    "protocol_version": 70,
    "insufficient_security": 71,
    "internal_error": 80,
    "unrecognized_name": 112,
    "no_application_protocol": 120,
}

_VERSIONS = {0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3"}


class Answer(NamedTuple):
    """What a handshake is answered with.

    Attributes:
        identity: Whose certificates it has; None: as without a question.
        engine: Performs their key; None: OpenSSL does.
        alert: It is refused, with this one; None: it is not.
    """

    identity: Identity | None = None
    engine: BaseEngine | None = None
    alert: int | None = None


class ClientHelloRequest:
    """The question of one handshake, which is parked until it is answered. Any thread may answer, once.

    Attributes:
        server_name: The name that the client asked for (SNI), as it wrote it; None: none.
        alpn: The application protocols that it offers.
        versions: Versions of TLS that it offers, such as ``"1.3"``; unknown ones are left out. A client without
            TLS 1.3 may say only which is its newest.
        cipher_suites: Their numbers (IANA's), in its order.
        groups: The numbers of its key exchange groups.
        signature_algorithms: The numbers of its signature algorithms.
        peer: Its address, as ``getpeername`` gives it; None: it has left.
    """

    __slots__ = (
        "__weakref__",
        "_answer",
        "_deliver",
        "_engine",
        "_lock",
        "_pid",
        "alpn",
        "cipher_suites",
        "groups",
        "peer",
        "server_name",
        "signature_algorithms",
        "versions",
    )

    def __init__(
        self,
        texts: HelloTexts,
        peer: object,
        engine: Engine | None,
        deliver: Callable[[Answer], object],
    ) -> None:
        """Ask.

        Args:
            texts: What the client said.
            peer: Its address.
            engine: Loads keys that are given by path.
            deliver: Called with the answer, once, on the thread that answers.
        """
        self.server_name = texts.name.decode("ascii", "backslashreplace") or None
        self.alpn = _strings(texts.alpn)
        self.versions = _versions(texts)
        self.cipher_suites = _numbers(texts.ciphers)
        self.groups = _numbers(texts.groups)
        self.signature_algorithms = _numbers(texts.signature_algorithms)
        self.peer = peer
        self._engine = engine
        self._deliver: Callable[[Answer], object] | None = deliver
        self._answer: Answer | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether the handshake still waits for the answer."""
        return self._answer is None and self._deliver is not None

    def complete(self, certificate: Certificate | None = None) -> None:
        """Let the handshake go on with a certificate. Its files are read here, on this thread, the first time.

        Args:
            certificate: The one that it gets; None: as if there was no ``on_client_hello``.

        Raises:
            RequestAnsweredError: It was answered before.
            HandshakeGoneError: The client has left, or its time was over.
            ConfigurationError: The certificate cannot be used; the handshake still waits.
            ForkedProcessError: It is the parent process's.
        """
        self._check_open()
        if certificate is None:
            self._settle(Answer())
        elif isinstance(certificate, Certificate):
            self._settle(Answer(certificate.identity(self._engine), certificate.engine_of(self._engine)))
        else:
            message = f"complete() takes a tlsserver.Certificate or None, not {type(certificate).__name__}"
            raise ConfigurationError(message)

    def reject(self, alert: str | int = "unrecognized_name") -> None:
        """End the handshake.

        Args:
            alert: Which alert the client gets, by name or number.

        Raises:
            RequestAnsweredError: It was answered before.
            HandshakeGoneError: The client has left, or its time was over.
            ConfigurationError: There is no such alert for a ClientHello; the handshake still waits.
            ForkedProcessError: It is the parent process's.
        """
        self._check_open()
        number = ALERTS.get(alert) if isinstance(alert, str) else alert
        if number not in ALERTS.values():
            message = f"alert {alert!r} cannot answer a ClientHello: choose from {', '.join(ALERTS)}"
            raise ConfigurationError(message)
        self._settle(Answer(alert=number))

    def drop(self) -> None:
        """The handshake has ended without the answer: whoever answers now is told so."""
        with self._lock:
            self._deliver = None

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            message = "this handshake belongs to the parent process"
            raise ForkedProcessError(message)
        if self._answer is not None:
            message = "this request was answered before: answer once"
            raise RequestAnsweredError(message)
        if self._deliver is None:
            message = "the handshake is gone: the client has left, or its time was over"
            raise HandshakeGoneError(message)

    def _settle(self, answer: Answer) -> None:
        with self._lock:
            self._check_open()
            self._answer, deliver, self._deliver = answer, self._deliver, None
        if deliver is not None:
            deliver(answer)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "over"
        return f"<ClientHelloRequest for {self.server_name} from {self.peer}, {state}>"


def _numbers(raw: bytes) -> tuple[int, ...]:
    """Read numbers of two bytes."""
    return tuple(int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw) - 1, 2))


def _strings(raw: bytes) -> tuple[str, ...]:
    """Read strings with a byte of length in front; one that is cut off is left out."""
    found = []
    while raw and len(raw) > raw[0]:
        found.append(raw[1 : 1 + raw[0]].decode("ascii", "backslashreplace"))
        raw = raw[1 + raw[0] :]
    return tuple(found)


def _versions(texts: HelloTexts) -> tuple[str, ...]:
    """Read the extension; without one, the message's own, which is the newest (RFC 8446, 4.2.1)."""
    numbers = _numbers(texts.versions or texts.legacy_version)
    return tuple(_VERSIONS[number] for number in numbers if number in _VERSIONS)
