"""What a connection of a probe offers: a leaf."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALPN", "GROUPS", "SUITES_12", "SUITES_13", "VERSIONS", "Offer", "name_of_group"]

VERSIONS = ("1.3", "1.2", "1.1", "1.0")

SUITES_13 = (
    *("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"),
    *("TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"),
)

# What is in use: each kind of key exchange, key and mode once or twice, the weak ones too. `--all` tries the others.
SUITES_12 = (
    *("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    *("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"),
    *("DHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES128-GCM-SHA256"),
    *("ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "ECDHE-RSA-AES128-SHA256"),
    *("AES256-GCM-SHA384", "AES128-GCM-SHA256", "AES128-SHA", "DES-CBC3-SHA"),
)

GROUPS = (
    *("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024"),
    *("X25519", "P-256", "P-384", "P-521", "X448", "ffdhe2048", "ffdhe3072"),
)

ALPN = ("h2", "http/1.1")

_OTHER_NAMES = {
    "prime256v1": "P-256",
    "secp256r1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
    **{name.lower(): name for name in GROUPS},
}


@dataclass(frozen=True)
class Offer:
    """What a connection offers.

    Attributes:
        version: The one version.
        ciphers: Suites up to TLS 1.2, in OpenSSL's form.
        suites: Suites of TLS 1.3.
        groups: Key exchange groups; empty: OpenSSL's own.
        alpn: Application protocols; empty: the extension is not sent.
        tickets: Whether sessions may come as tickets.
        verified: Whether the chain is verified, and an OCSP response asked for.
    """

    version: str
    ciphers: tuple[str, ...] = ("ALL",)
    suites: tuple[str, ...] = SUITES_13
    groups: tuple[str, ...] = ()
    alpn: tuple[str, ...] = ()
    tickets: bool = True
    verified: bool = False


def name_of_group(name: str | None) -> str | None:
    """Return the name of a group as `GROUPS` has it: OpenSSL has several for some."""
    return None if name is None else _OTHER_NAMES.get(name.lower(), name)
