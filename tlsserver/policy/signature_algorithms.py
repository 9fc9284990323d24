"""Signature algorithms: what the server signs with, and what clients may sign with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim import ShimError
from engine_shim.handshake_policy import set_signature_algorithms
from tlsserver.errors import ConfigurationError
from tlsserver.policy import names

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply", "known_signature_algorithms"]

_DIGESTS = ("sha256", "sha384", "sha512")
_CANDIDATES = (
    *("ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384", "ecdsa_secp521r1_sha512", "ed25519", "ed448"),
    *(f"{scheme}_{digest}" for scheme in ("rsa_pss_rsae", "rsa_pss_pss", "rsa_pkcs1") for digest in _DIGESTS),
    *("mldsa44", "mldsa65", "mldsa87"),
)


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the algorithms, if they are named; else they are OpenSSL's.

    Raises:
        ConfigurationError: A name is unknown; all that are, are named.
    """
    if settings.signature_algorithms is None:
        return
    text = names.text_of(settings.signature_algorithms, "signature algorithm")
    unknown = [name for name in text.split(":") if not name.startswith("?") and not _takes(context, name)]
    if unknown:
        names.refuse("signature algorithms", unknown, known_signature_algorithms(context))
    try:
        set_signature_algorithms(context, text)
    except ShimError as error:
        message = f"{error}: name each once, without the marks of newer ones (?)"
        raise ConfigurationError(message) from error


def known_signature_algorithms(context: SSL.Context) -> list[str]:
    """Name the algorithms that a Context can use; those that it uses are others afterwards."""
    return [name for name in _CANDIDATES if _takes(context, name)]


def _takes(context: SSL.Context, text: str) -> bool:
    try:
        set_signature_algorithms(context, text)
    except ShimError:
        return False
    return True
