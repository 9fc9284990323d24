"""What a context is told, part by part. Each part is a module with one function, ``apply(context, settings)``.

To add a part: a field in `tlsserver.policy.settings`, a module, and a line in `PARTS`. What a part decides during a
handshake it decides in C: no Python frame may stand on a job's stack (decision 4 of the design).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsserver.policy import (
    alpn,
    client_hook,
    clients,
    groups,
    identity,
    key_log,
    session_id,
    session_limits,
    signature_algorithms,
    staple,
    suites,
    tickets,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["PARTS", "apply"]

# In this order: a key is checked against its certificate with the suites and versions that are there.
PARTS: tuple[Callable[[SSL.Context, ContextSettings], None], ...] = (
    versions.apply,
    suites.apply,
    groups.apply,
    signature_algorithms.apply,
    session_limits.apply,
    alpn.apply,
    session_id.apply,
    tickets.apply,  # they live as long as sessions do, so these are limited before
    clients.apply,
    identity.apply,
    staple.apply,  # of the certificate that is there
    client_hook.apply,  # takes away a cache of sessions that session_limits has given
    key_log.apply,  # last: what cannot work makes no file
)


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Tell a new context everything.

    Raises:
        ConfigurationError: A file or a setting cannot work.
        engine_shim.ShimError: A key cannot be read or is not the certificate's.
    """
    for part in PARTS:
        part(context, settings)
