"""Profiles: the settings that belong together, by name, after Mozilla's guidelines 5.7.

Facts
- Mozilla has three: *modern* is TLS 1.3 alone; *intermediate* adds TLS 1.2 with forward secrecy and AEAD; *old* adds
  what is broken.
- All suites of the first two are sound. Which is fastest depends on the client: one without AES instructions wants
  ChaCha20, the others AES-128.

Decision
- *intermediate* and *modern*, no *old*. An option that is given goes before the profile's.
- The client's order decides, as Mozilla has it (``ssl_prefer_server_ciphers off``); it is OpenSSL's default.
- Without DHE, which Mozilla's intermediate has at its end: clients that know no ECDHE are gone, it costs many times as
  much, and it wants parameters of its own.
- Groups are Mozilla's, and X25519MLKEM768 before them (tlsserver.policy.groups).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from tlsserver.policy.settings import ContextSettings

__all__ = ["INTERMEDIATE_CIPHERS", "PROFILES", "Profile", "profile_of"]

INTERMEDIATE_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_CIPHERSUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"


@dataclass(frozen=True)
class Profile:
    """What holds where no option says otherwise.

    Attributes:
        min_version: The least version of TLS.
        ciphers: TLS 1.2 suites; those of *modern* are for who lets TLS 1.2 in by an option.
        ciphersuites: TLS 1.3 suites.
    """

    min_version: str
    ciphers: str = INTERMEDIATE_CIPHERS
    ciphersuites: str = _CIPHERSUITES


PROFILES = {"intermediate": Profile(min_version="1.2"), "modern": Profile(min_version="1.3")}


def profile_of(settings: ContextSettings) -> Profile:
    """Return the profile that the settings name.

    Raises:
        ConfigurationError: There is no such profile.
    """
    if settings.profile not in PROFILES:
        message = f"TLS profile {settings.profile!r} is not known: choose from {', '.join(PROFILES)}"
        raise ConfigurationError(message)
    return PROFILES[settings.profile]
