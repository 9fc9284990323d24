"""What a request is in PKCS #11's words: a mechanism, its parameter and its data; and the answer in TLS's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tlsserver.errors import ConfigurationError
from tlsserver.signers.pkcs11_module import pkcs11

if TYPE_CHECKING:
    from engine_shim import SignRequest

__all__ = ["Operation", "answer_of", "check_mechanisms", "operation_of"]

Mechanism = pkcs11.Mechanism

# Each kind of key, as OpenSSL names it, and what the token must have for it: TLS 1.3 signs with RSA-PSS alone, and
# TLS 1.2 with both. Raw RSA is for suites that few have left on, so a token without it will do.
_NEEDED: dict[str, tuple[Mechanism, ...]] = {
    "RSA": (Mechanism.RSA_PKCS, Mechanism.RSA_PKCS_PSS),
    "RSA-PSS": (Mechanism.RSA_PKCS_PSS,),
    "EC": (Mechanism.ECDSA,),
    "ED25519": (Mechanism.EDDSA,),
    "ED448": (Mechanism.EDDSA,),
}

_PSS = {
    "SHA1": (Mechanism.SHA_1, pkcs11.MGF.SHA1),
    "SHA224": (Mechanism.SHA224, pkcs11.MGF.SHA224),
    "SHA256": (Mechanism.SHA256, pkcs11.MGF.SHA256),
    "SHA384": (Mechanism.SHA384, pkcs11.MGF.SHA384),
    "SHA512": (Mechanism.SHA512, pkcs11.MGF.SHA512),
}

# RFC 8017, 9.2, note 1: a DigestInfo without its digest.
_DIGEST_INFO = {
    "SHA1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "SHA224": bytes.fromhex("302d300d06096086480165030402040500041c"),
    "SHA256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "SHA384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "SHA512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


class Operation(NamedTuple):
    """What a token is asked for.

    Attributes:
        mechanism: CKM_...
        parameter: Its parameter, as python-pkcs11 takes it.
        data: What is signed or decrypted.
    """

    mechanism: Mechanism
    parameter: object
    data: bytes


def operation_of(request: SignRequest) -> Operation:
    """Translate a request. The digest is always made here: any token can do the rest.

    Raises:
        LookupError: There is no such mechanism.
    """
    if request.operation == "decrypt":
        return Operation(Mechanism.RSA_X_509, None, request.message)
    name, digest = request.digest_name, request.digest
    if request.algorithm in ("ED25519", "ED448"):
        # PKCS #11 v3.0, 6.3.15: Ed448 has a parameter in any case, Ed25519 as RFC 8410 means it has none.
        return Operation(Mechanism.EDDSA, None if request.algorithm == "ED25519" else (False, None), request.message)
    if name is None or digest is None:
        raise LookupError(f"no mechanism for {request.scheme}")
    if request.algorithm == "EC":
        # FIPS 186-5, 6.4.1: the leftmost bits count; some tokens refuse to see more.
        return Operation(Mechanism.ECDSA, None, digest[: (request.key.bits + 7) // 8])
    if request.padding == "pss":
        return Operation(Mechanism.RSA_PKCS_PSS, (*_PSS[name], request.salt_length), digest)
    return Operation(Mechanism.RSA_PKCS, None, _DIGEST_INFO[name] + digest)


def answer_of(request: SignRequest, raw: bytes) -> bytes:
    """Translate what the token gave: ECDSA from two numbers to DER, a decryption to the modulus's length."""
    if request.operation == "decrypt":
        return raw.rjust(len(request.message), b"\0")
    if request.algorithm != "EC":
        return raw
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def check_mechanisms(token: pkcs11.Token, algorithm: str) -> None:
    """See that a token can do what TLS asks of a kind of key.

    Raises:
        ConfigurationError: It cannot.
    """
    if algorithm not in _NEEDED:
        raise ConfigurationError(f"no PKCS #11 mechanism is known for {algorithm} keys: use RSA, EC or Ed25519")
    offered = token.slot.get_mechanisms()
    missing = [f"CKM_{one.name}" for one in _NEEDED[algorithm] if one not in offered]
    if missing:
        what = f"token {token.label!r} cannot sign as TLS needs it with {algorithm} keys"
        raise ConfigurationError(f"{what}: it has no {' and no '.join(missing)}; use a key of another kind")
