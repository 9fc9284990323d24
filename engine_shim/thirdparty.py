"""What the engines of others have in common: OpenSSL's ENGINEs and loadable providers.

They pause the job by themselves, with wait fds of their own, and nobody can cancel what they do: a connection that
ends meanwhile has to wait for them (it drains).
"""

from __future__ import annotations

import re

from engine_shim.base import EngineStatistics
from engine_shim.engine import Engine

__all__ = ["ThirdPartyEngine", "secret_of", "without_pin"]

# RFC 7512, 2.4: a PKCS #11 URI may carry the PIN itself, which must not get into a message.
_PIN = re.compile(r"(pin-value=)[^;&\s),]*")

# OpenSSL does not tell what an ENGINE or a provider does.
_UNTOLD = EngineStatistics(**dict.fromkeys(EngineStatistics.__dataclass_fields__, 0))


class ThirdPartyEngine(Engine):
    """Base of the engines that OpenSSL runs and the shim does not."""

    @property
    def can_block(self) -> bool:
        """Whether an op outside any job may wait on the calling thread: theirs to decide, and they mostly do."""
        return True

    def statistics(self) -> EngineStatistics:
        """Return zeros: OpenSSL does not tell what they do."""
        return _UNTOLD


def without_pin(text: str) -> str:
    """Hide the PIN that a PKCS #11 URI may carry."""
    return _PIN.sub(r"\1...", text)


def secret_of(password: str | bytes | None) -> bytes | None:
    """Return a password's bytes; what came from the command line and is no UTF-8 comes back as it was."""
    return password.encode(errors="surrogateescape") if isinstance(password, str) else password
