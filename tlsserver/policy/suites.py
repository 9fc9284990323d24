"""Cipher suites: of TLS 1.2 in the language of ciphers(1), of TLS 1.3 by name.

OpenSSL leaves out the names that it does not know, and says so only when none is left: a typing mistake would weaken
or narrow what is offered, unnoticed. So each word of a list that was given is asked for alone, of a Context of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from OpenSSL import SSL

from engine_shim import ShimError
from engine_shim.handshake_policy import set_ciphers, set_ciphersuites
from tlsserver.errors import ConfigurationError
from tlsserver.policy import names
from tlsserver.policy.profiles import INTERMEDIATE_CIPHERS, profile_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply", "ciphers_of", "known_ciphers", "known_ciphersuites"]

_CIPHERSUITES = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
)

# Words of ciphers(1) for which a build may have no suite at all: to exclude or move them is right all the same.
_MAY_BE_EMPTY = (
    "3DES ADH AECDH aDH aDSS aECDH aECDSA aGOST aGOST01 aGOST12 ALL aNULL aPSK ARIA ARIA128 ARIA256 aSRP CAMELLIA "
    "CAMELLIA128 CAMELLIA256 COMPLEMENTOFALL COMPLEMENTOFDEFAULT DES DH DSS EDH eNULL EXP EXPORT EXPORT40 EXPORT56 FZA "
    "GOST89MAC GOST94 IDEA kDH kDHd kDHE kDHEPSK kDHr kECDH kECDHe kECDHEPSK kECDHr kEDH kGOST kGOST18 kPSK kRSA "
    "kRSAPSK kSRP LOW MD5 MEDIUM NULL PSK RC2 RC4 SEED SHA SHA1 SRP SSLv2 SSLv3 TLSv1 TLSv1.0"
)
_COMMAND = re.compile(r"@STRENGTH|@SECLEVEL=[0-5]")


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the suites of TLS 1.2 and TLS 1.3.

    Raises:
        ConfigurationError: A name is unknown; all that are, are named.
    """
    ciphers, ciphersuites = ciphers_of(settings), profile_of(settings).ciphersuites
    if settings.ciphers is not None:
        _check_ciphers(ciphers)
    if settings.ciphersuites is not None:
        ciphersuites = names.text_of(settings.ciphersuites, "suite of TLS 1.3")
        _check_ciphersuites(ciphersuites)
    try:
        set_ciphers(context, ciphers)
        set_ciphersuites(context, ciphersuites)
    except ShimError as error:
        message = f"{error}: no suite is left of it, see `openssl ciphers`"
        raise ConfigurationError(message) from error


def ciphers_of(settings: ContextSettings) -> str:
    """Return the suites of TLS 1.2 in OpenSSL's form, the profile's where none are given.

    Raises:
        ConfigurationError: There is no such profile, or no suite in the list.
    """
    if settings.ciphers is None:
        return profile_of(settings).ciphers
    return ":".join(names.text_of(settings.ciphers, "suite of TLS 1.2").split(";"))


def known_ciphers() -> list[str]:
    """Name the suites of TLS 1.2 that this OpenSSL has for servers with a certificate, the sound ones first."""
    context = _scratch()
    set_ciphers(context, f"{INTERMEDIATE_CIPHERS}:ECDHE:ALL:!aNULL:!PSK:!SRP:!DSS")
    return [name for name in SSL.Connection(context, None).get_cipher_list() if not name.startswith("TLS_")]


def known_ciphersuites() -> list[str]:
    """Name the suites of TLS 1.3 that this OpenSSL has."""
    return [name for name in _CIPHERSUITES if names.takes(set_ciphersuites, _scratch(), name)]


def _check_ciphers(text: str) -> None:
    unknown = [word for word in text.split(":") if word and not _is_known_cipher(word)]
    newer = [word for word in unknown if names.takes(set_ciphersuites, _scratch(), word)]
    hint = f" ({', '.join(newer)}: of TLS 1.3, and set as such)" if newer else ""
    names.refuse("TLS 1.2 suites", unknown, _when_needed(known_ciphers, unknown), hint)


def _check_ciphersuites(text: str) -> None:
    unknown = [name for name in text.split(":") if not names.takes(set_ciphersuites, _scratch(), name)]
    older = [name for name in unknown if names.takes(set_ciphers, _scratch(), name)]
    hint = f" ({', '.join(older)}: of TLS 1.2, and set as such)" if older else ""
    names.refuse("TLS 1.3 suites", unknown, _when_needed(known_ciphersuites, unknown), hint)


def _when_needed(known: Callable[[], list[str]], unknown: list[str]) -> Iterator[str]:
    if unknown:
        yield from known()


def _is_known_cipher(word: str) -> bool:
    if word.startswith("@"):
        return _COMMAND.fullmatch(word) is not None
    bare = word.lstrip("!-+")
    adds_nothing = word[0] in "!-+"
    return names.takes(set_ciphers, _scratch(), bare) or (
        adds_nothing and all(part in _MAY_BE_EMPTY.split() for part in bare.split("+"))
    )


def _scratch() -> SSL.Context:
    return SSL.Context(SSL.TLS_SERVER_METHOD)
