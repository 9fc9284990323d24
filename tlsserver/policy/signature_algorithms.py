"""Signature algorithms: what the server signs with, and what clients may sign with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_shim.handshake_policy import set_signature_algorithms
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
    asked = [name for name in text.split(":") if not name.startswith("?")]
    setter, what = set_signature_algorithms, "signature algorithms"
    names.set_known(setter, context, text, asked=asked, candidates=_CANDIDATES, what=what, marks="?")


def known_signature_algorithms(context: SSL.Context) -> list[str]:
    """Name the algorithms that a Context can use; those that it uses are others afterwards."""
    return names.known(set_signature_algorithms, context, _CANDIDATES)
