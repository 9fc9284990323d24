"""The questions of the handshakes of one context on one loop, and how their answers come back.

A handshake that wants to know something only Python can tell holds no job and no stack meanwhile
(docs/decisions/0019). What is asked for here is answered on the loop's thread: at once where a certificate only has to
be loaded, later where the application decides.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from engine_shim.server_names import Question, QuestionKind, refusal_of
from tlsserver.asking import ask
from tlsserver.client_hello import ALERTS, Answer, ClientHelloRequest
from tlsserver.errors import HandshakeError, LocalTLSError, TLSServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import AsyncSSL, BaseEngine
    from tlsserver.policy.server_names import ServerNames
    from tlsserver.stats import Counters

__all__ = ["Questions", "maybe_refusal"]

logger = logging.getLogger(__name__)

_INTERNAL_ERROR = ALERTS["internal_error"]
_ALERT_NAMES = {number: name for name, number in ALERTS.items()}


class Questions:
    """Answers handshakes. Loop thread only.

    Args:
        names: The context's certificates, and whom to ask.
        counters: What is counted.
        post: Calls something on the loop's thread, from any.
        use_engine: Told of each engine whose key an answer brings.
    """

    __slots__ = ("_counters", "_names", "_post", "_use_engine")

    def __init__(
        self,
        names: ServerNames,
        *,
        counters: Counters,
        post: Callable[[Callable[[], object]], object],
        use_engine: Callable[[BaseEngine], object],
    ) -> None:
        self._names = names
        self._counters = counters
        self._post = post
        self._use_engine = use_engine

    def answer_now(self, tls: AsyncSSL) -> bool:
        """Load the certificate that the handshake wants, if that is its question.

        Returns:
            Whether the handshake is to be called again; if not, `ask`.
        """
        question = Question(tls)
        if question.kind is not QuestionKind.IDENTITY:
            return False
        try:
            question.give(self._names.load(question.number))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the files costs this handshake only
            logger.error("a certificate could not be loaded for a client: %s", error)  # noqa: TRY400 - a user's mistake
            question.refuse(_INTERNAL_ERROR)
        return True

    def ask(self, tls: AsyncSSL, peer: object, resume: Callable[[], object]) -> ClientHelloRequest:
        """Ask the application; it may answer at once, but the handshake goes on in a later turn.

        Args:
            tls: Whose handshake it is.
            peer: The client's address.
            resume: Makes the handshake's call once more; the loop's thread.

        Returns:
            What was asked, to be dropped when the connection ends.
        """
        question = Question(tls)

        def deliver(answer: Answer) -> None:
            self._post(lambda: self._apply(question, answer, resume))

        request = ClientHelloRequest(question.texts(), peer, self._names.engine, deliver)
        self._counters.questions_asked += 1
        try:
            self._call(request)
        except Exception as error:  # noqa: BLE001 - it costs this handshake only
            logger.error("on_client_hello failed for %s: %r", request.server_name, error)  # noqa: TRY400 - one line
            if request.is_open:
                request.reject("internal_error")
        return request

    def _call(self, request: ClientHelloRequest) -> None:
        if self._names.on_client_hello is not None:
            ask(self._names.on_client_hello, request)

    def _apply(self, question: Question, answer: Answer, resume: Callable[[], object]) -> None:
        if answer.alert is not None:
            is_taken = question.refuse(answer.alert)
            self._counters.questions_rejected += is_taken
        else:
            if answer.engine is not None:
                self._use_engine(answer.engine)
            is_taken = question.give(answer.identity)
            self._counters.questions_answered += is_taken
        if is_taken:  # else the connection has ended between the answer and now
            resume()


def maybe_refusal(tls: AsyncSSL) -> TLSServerError | None:
    """Return why a handshake ended at the ClientHello, in one line; None: it did not."""
    refusal = refusal_of(tls)
    if refusal is None:
        return None
    name = Question(tls).texts().name.decode("ascii", "backslashreplace")
    if refusal.unknown:
        return HandshakeError(f"no certificate is for the server name {name!r}, and unknown names are refused")
    if refusal.alert == _INTERNAL_ERROR:
        reasons = [error.text for error in tls.errors()]
        return LocalTLSError(f"no certificate could be chosen for {name!r}: {'; '.join(reasons)}")
    alert = _ALERT_NAMES.get(refusal.alert, refusal.alert)
    return HandshakeError(f"the ClientHello for {name!r} was refused: {alert}")
