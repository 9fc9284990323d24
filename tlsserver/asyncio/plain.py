"""A context that is an `ssl.SSLContext` by its type alone: nobody can make a connection of it but tlsserver.

Facts
- uvicorn and uvloop want an instance of `ssl.SSLContext`; its C part holds an SSL_CTX that cannot be left out.
- Python's ssl, asyncio and uvloop make connections by ``wrap_socket`` and ``wrap_bio``. aiofastnet takes the SSL_CTX
  out of the C struct; before that it asks for ``_aiofastnet_force_fallback_ssl``.
- A server that is made of an empty SSL_CTX starts, and fails each handshake without saying why. What is raised where a
  connection has been accepted asyncio, uvloop and aiofastnet keep to themselves, and close it.

Decision
- Each of these ways raises one line that says what to do, and logs it, for each context once.
- The SSL_CTX itself has neither certificate nor authorities, and allows TLS from 1.3 to 1.2, which is none: whoever
  gets at it some other way fails, as server and as client, before a byte is sent.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any, NoReturn

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ContextError", "NotPickledError", "NotPlainError", "NotSupportedError", "PlainlessContext"]

logger = logging.getLogger(__name__)

_PROTOCOLS = (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS)

_UNPATCHED = (
    "a tlsserver.asyncio.SSLContext was given to {who}, which cannot use it: run under the loop of "
    "tlsserver.asyncio.new_event_loop() (uvicorn: --loop tlsserver.asyncio:new_event_loop), or serve with "
    "tlsserver.asyncio.create_server()"
)


class ContextError(ssl.SSLError, ConfigurationError):
    """A context cannot be made, or changed, as it was asked for. The message is one line."""

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        # So that str() is the message, as it is of Python's own.
        super().__init__(ssl.SSLErrorNumber.SSL_ERROR_SSL, message)
        if reason is not None:
            self.library, self.reason = "X509", reason


class NotSupportedError(ConfigurationError, NotImplementedError):
    """Something of `ssl.SSLContext` that this context does not have. The message says why, and what to do."""


class NotPlainError(ContextError):
    """Somebody took a `tlsserver.asyncio.SSLContext` for one of Python's own."""

    def __init__(self, who: str) -> None:
        super().__init__(_UNPATCHED.format(who=who))


class NotPickledError(ConfigurationError, TypeError):
    """A context was to be copied or pickled: it has private keys and engines."""


class PlainlessContext(ssl.SSLContext):
    """An `ssl.SSLContext` that Python's ssl, and whoever takes its SSL_CTX, makes no connection of."""

    _has_complained = False

    def __new__(cls, protocol: int = ssl.PROTOCOL_TLS_SERVER, *_args: object, **_options: object) -> Self:
        """Make the C part, and let nothing through it.

        Raises:
            NotSupportedError: The protocol is a single version.
        """
        if protocol not in _PROTOCOLS:
            name = getattr(protocol, "name", protocol)
            raise NotSupportedError(f"protocol {name}: use PROTOCOL_TLS_SERVER or PROTOCOL_TLS_CLIENT and set versions")
        made = super().__new__(cls, protocol)
        base = ssl.SSLContext
        base.minimum_version.__set__(made, ssl.TLSVersion.TLSv1_3)  # type: ignore[attr-defined] # a property
        base.maximum_version.__set__(made, ssl.TLSVersion.TLSv1_2)  # type: ignore[attr-defined] # a property
        base.verify_mode.__set__(made, ssl.CERT_REQUIRED)  # type: ignore[attr-defined] # a property
        return made

    def wrap_socket(self, *_args: object, **_options: object) -> NoReturn:
        """Refuse.

        Raises:
            NotPlainError: Always.
        """
        self._refuse("Python's ssl (SSLContext.wrap_socket)")

    def wrap_bio(self, *_args: object, **_options: object) -> NoReturn:
        """Refuse; asyncio and uvloop call it for each connection.

        Raises:
            NotPlainError: Always.
        """
        self._refuse("a loop or library that uses Python's ssl (SSLContext.wrap_bio)")

    def _wrap_socket(self, *_args: object, **_options: object) -> NoReturn:
        self._refuse("Python's ssl (SSLSocket)")

    def _wrap_bio(self, *_args: object, **_options: object) -> NoReturn:
        self._refuse("Python's ssl (SSLObject)")

    @property
    def _aiofastnet_force_fallback_ssl(self) -> NoReturn:
        """Asked for by aiofastnet before it takes the SSL_CTX."""
        self._refuse("aiofastnet")

    _aiofastnet_force_socket_bio = _aiofastnet_force_fallback_ssl

    def _refuse(self, who: str) -> NoReturn:
        error = NotPlainError(who)
        if not self._has_complained:
            self._has_complained = True
            logger.error("%s", error)
        raise error

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:  # noqa: ANN401 - as the data model has it
        raise NotPickledError("a tlsserver.asyncio.SSLContext cannot be pickled or copied: make one in each process")

    __reduce__ = __reduce_ex__  # type: ignore[assignment] # never called by itself
