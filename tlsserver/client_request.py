"""The policy hook: whether a client whose certificate is good may come in. A leaf but for certificate and errors.

Facts
- OpenSSL's server sends the alert that its verification error stands for (ssl_x509err2alert), and no other: there is
  none that gives access_denied.

Decision
- The handshake is parked until the request is answered, by the hook itself or later, by any thread. Nobody else waits.
- On a resumption the hook is asked as well. Whoever it refuses then makes a full handshake, and is asked about again:
  only there can the alert be sent.
- A hook that raises, or returns a coroutine, which nobody runs, refuses with internal_error: who may come in is not
  known then.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine_shim.questions import ACCEPTED
from tlsserver.asking import ask
from tlsserver.client_certificate import ClientCertificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim.questions import ClientQuestion

__all__ = ["ALERTS", "ClientCertificateRequest", "put"]

logger = logging.getLogger(__name__)

# The alerts of RFC 8446, 6.2, and for each an X509_V_ERR_* (x509_vfy.h) that OpenSSL sends it for.
ALERTS = {
    "certificate_unknown": 999,  # none: OpenSSL sends it for what it has no alert of its own for
    "bad_certificate": 28,  # CERT_REJECTED
    "unsupported_certificate": 26,  # INVALID_PURPOSE
    "certificate_revoked": 23,  # CERT_REVOKED
    "certificate_expired": 10,  # CERT_HAS_EXPIRED
    "unknown_ca": 20,  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    "handshake_failure": 50,  # APPLICATION_VERIFICATION
    "internal_error": 1,  # UNSPECIFIED
}
_BY_ERROR: dict[int | None, str] = {error: alert for alert, error in ALERTS.items()}


class ClientCertificateRequest:
    """Whether a client may come in. Answer with `accept` or `reject`, now or later, on any thread; the first counts.

    An answer to a client that has left meanwhile does nothing. Without an answer the handshake ends at its deadline.

    Attributes:
        resumption: Whether an earlier session is to be resumed; then the certificate's chain is the client's own alone.
        peername: The client's address, as of the socket module; None: it has left.
    """

    def __init__(self, question: ClientQuestion, peername: Any) -> None:  # noqa: ANN401 - its form depends on the family
        self.resumption = question.is_resumption
        self.peername = peername
        self._question = question

    @cached_property
    def certificate(self) -> ClientCertificate:
        """What the client has proved to be."""
        return ClientCertificate(self._question.chain)

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer."""
        return self._question.verdict is not None

    @property
    def rejected_with(self) -> str | None:
        """The alert, if the client is refused."""
        return _BY_ERROR.get(self._question.verdict)

    def accept(self) -> bool:
        """Let the client in.

        Returns:
            False: there was an answer already.
        """
        return self._question.answer(ACCEPTED)

    def reject(self, alert: str = "certificate_unknown") -> bool:
        """Refuse the client.

        Args:
            alert: What it is told: one of `ALERTS`.

        Returns:
            False: there was an answer already.

        Raises:
            ValueError: There is no such alert.
        """
        if alert not in ALERTS:
            message = f"alert {alert!r} cannot be sent here: choose from {', '.join(ALERTS)}"
            raise ValueError(message)
        return self._question.answer(ALERTS[alert])

    def __repr__(self) -> str:
        return f"<ClientCertificateRequest {'answered' if self.is_answered else 'open'} from {self.peername}>"


def put(
    hook: Callable[[ClientCertificateRequest], object], question: ClientQuestion, peername: object
) -> ClientCertificateRequest:
    """Put a question to the hook, on the loop's normal stack.

    Args:
        hook: The application's.
        question: Of a handshake that is paused.
        peername: The client's address; None: it has left.

    Returns:
        What was asked, perhaps answered already.
    """
    request = ClientCertificateRequest(question, peername)
    try:
        ask(hook, request)
    except Exception:
        logger.exception("the hook for client certificates failed: the client %s is refused", request.peername)
        request.reject("internal_error")
    return request
