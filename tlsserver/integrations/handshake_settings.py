"""What users of cheroot and of Twisted say about handshakes, and how it is looked at."""

from __future__ import annotations

from tlsserver.config import ServerConfig
from tlsserver.context import TLSContext
from tlsserver.errors import ConfigurationError

__all__ = ["HandshakeSettings"]


class HandshakeSettings:
    """A context that may be swapped at any time, by any thread, and how long a handshake may take."""

    # Why the host cannot do with a context that offloads reading and writing too.
    _why_no_async_io: str

    def __init__(self, context: TLSContext, timeout_handshake: float) -> None:
        """Look at both.

        Args:
            context: Certificates, keys and policy.
            timeout_handshake: In seconds.

        Raises:
            ConfigurationError: A setting cannot work.
        """
        self._timeout = ServerConfig(timeout_handshake=timeout_handshake).timeout_handshake
        self.context = context

    @property
    def context(self) -> TLSContext:
        """What the next connection begins with. Set it to swap certificates and policy; open connections keep theirs.

        Raises:
            ConfigurationError: It cannot be used here.
        """
        return self._context

    @context.setter
    def context(self, context: TLSContext) -> None:
        if not isinstance(context, TLSContext):
            kind = type(context).__name__
            raise ConfigurationError(f"context is a {kind}: give a tlsserver.TLSContext, perhaps by from_pyopenssl()")
        if context.async_io:
            raise ConfigurationError(f"async_io=True cannot work: {self._why_no_async_io}; leave it out")
        self._context = context
