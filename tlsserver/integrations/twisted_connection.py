"""What Twisted drives instead of a Connection of pyOpenSSL's: the same, but for its handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from OpenSSL import SSL

from tlsserver.errors import PeerLeftError, PlainHTTPError, TLSServerError
from tlsserver.integrations.twisted_handshake import Handshake, RefusedError
from tlsserver.plain_answer import INTERNAL_ERROR_ALERT, PLAIN_HTTP_ANSWER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.integrations.twisted_hub import Hub
    from tlsserver.offers import Offer
    from tlsserver.wire import TLSInfo

__all__ = ["ServerConnection"]


class ServerConnection(SSL.Connection):
    """A connection over memory BIOs, as `twisted.protocols.tls` wants it; ``transport.getHandle()`` returns it.

    While its handshake is in progress whatever Twisted asks is answered without OpenSSL, which may have a job paused.

    Attributes:
        tls: What the handshake settled (`tlsserver.TLSInfo`); None: it is not done.
        client_certificate: The client's (`tlsserver.ClientCertificate`); None: there is none, or the handshake is not
            done.
    """

    def __init__(self, hub: Hub, offer: Offer, protocol: Any, timeout: float) -> None:  # noqa: ANN401 - Twisted's TLSMemoryBIOProtocol
        super().__init__(offer.context.pyopenssl, None)
        self.tls: TLSInfo | None = None
        self.client_certificate: ClientCertificate | None = None
        self._around: bytes | None = None  # what is said around TLS, and then nothing more
        self._failure: Callable[[], SSL.Error] | None = None  # not one error: each would keep what has raised it
        self.set_accept_state()
        self._handshake: Handshake | None = Handshake(hub, offer, self, protocol, timeout)

    def do_handshake(self) -> None:
        """Go on with the handshake if it is its turn; else stand in line.

        Raises:
            SSL.WantReadError: It is not done.
            SSL.Error: It has failed.
        """
        handshake = self._handshake
        if handshake is None:
            self._check()
        elif handshake.may_step:
            self._step(handshake)
        else:
            handshake.ask()
            raise SSL.WantReadError

    def _step(self, handshake: Handshake) -> None:
        handshake.may_step = False
        try:
            if not handshake.step():
                raise SSL.WantReadError
        except TLSServerError as error:
            self._handshake = None
            self._fail(error)
        self.tls, self.client_certificate = handshake.tls, handshake.client_certificate
        self._handshake = None

    def _fail(self, error: TLSServerError) -> NoReturn:
        """Tell Twisted, with an error of the form that it looks into."""
        if isinstance(error, PlainHTTPError):
            self._around = PLAIN_HTTP_ANSWER
        if isinstance(error, RefusedError):
            self._around = INTERNAL_ERROR_ALERT
        reason = ("tlsserver", type(error).__name__, str(error))
        self._failure = _end_of_stream if isinstance(error, PeerLeftError) else lambda: SSL.Error([reason])
        raise self._failure() from error

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure()

    def _is_open(self) -> bool:
        """Return whether pyOpenSSL may be asked.

        Raises:
            SSL.Error: The handshake has failed, or was given up.
        """
        self._check()
        return self._handshake is None

    def _give_up(self) -> None:
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.leave()
            self._failure = _end_of_stream

    def recv(self, *args: Any, **kwargs: Any) -> bytes:  # noqa: ANN401 - pyOpenSSL's
        """Return decrypted bytes; see `OpenSSL.SSL.Connection.recv`."""
        if self._is_open():
            return super().recv(*args, **kwargs)
        raise SSL.WantReadError

    def send(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - pyOpenSSL's
        """Encrypt bytes; see `OpenSSL.SSL.Connection.send`."""
        if self._is_open():
            return super().send(*args, **kwargs)
        raise SSL.WantReadError

    def shutdown(self) -> bool:
        """Send close_notify; a handshake in progress is given up instead."""
        self._give_up()
        return False if self._failure is not None else super().shutdown()

    def bio_write(self, buf: Any) -> int:  # noqa: ANN401 - pyOpenSSL's
        """Take bytes that have come."""
        if not buf:
            return 0
        if self._handshake is not None:
            self._handshake.received(len(buf))
        return super().bio_write(buf)

    def bio_read(self, bufsiz: int) -> bytes:
        """Return bytes that are to be sent."""
        if self._around is None:
            return super().bio_read(bufsiz)
        data, self._around = self._around, b""
        if not data:
            raise SSL.WantReadError
        return data

    def bio_shutdown(self) -> None:
        """No more bytes come: the client has left, or Twisted has closed the connection."""
        self._give_up()
        super().bio_shutdown()

    def get_context(self) -> SSL.Context:
        """Return a context that nobody uses: releases of Twisted hang callbacks into it, which are Python's."""
        return SSL.Context(SSL.TLS_SERVER_METHOD)


def _end_of_stream() -> SSL.Error:
    """Return what pyOpenSSL raises where a client has left, and Twisted looks for."""
    return SSL.SysCallError(-1, "Unexpected EOF")
