"""Private keys on a token: found by the public half, which a certificate has."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from tlsserver.errors import ConfigurationError
from tlsserver.signers.pkcs11_mechanism import Mechanism
from tlsserver.signers.pkcs11_module import pkcs11

if TYPE_CHECKING:
    from engine_shim import Key
    from tlsserver.signers.pkcs11_uri import Pkcs11Uri

__all__ = ["NoKeyError", "WantedKey", "find_private_key", "needs_pin"]

_Attribute = pkcs11.Attribute
_KEY_TYPES = {
    "RSA": pkcs11.KeyType.RSA,
    "RSA-PSS": pkcs11.KeyType.RSA,
    "EC": pkcs11.KeyType.EC,
    "ED25519": pkcs11.KeyType.EC_EDWARDS,
    "ED448": pkcs11.KeyType.EC_EDWARDS,
}
_LONG_LENGTH = 0x80  # X.690, 8.1.3.5
_TRIAL = b"Which key is this?"


class NoKeyError(ConfigurationError):
    """The token does not have the key, or does not show it."""


@dataclass(frozen=True)
class WantedKey:
    """A key that a token should have.

    Attributes:
        key: Its public half, as the engine has it.
        uri: Says its label or id, or neither.
    """

    key: Key
    uri: Pkcs11Uri

    @property
    def template(self) -> dict[pkcs11.Attribute, Any]:
        """What its private object is searched by."""
        wanted = {
            _Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
            _Attribute.KEY_TYPE: _KEY_TYPES[self.key.type],
            _Attribute.LABEL: self.uri.object,
            _Attribute.ID: self.uri.id,
        }
        return {name: value for name, value in wanted.items() if value is not None}


def find_private_key(session: pkcs11.Session, wanted: WantedKey, *, has_pin: bool) -> Any:  # noqa: ANN401 - python-pkcs11 makes the class as it goes
    """Find the private key whose public half is wanted.

    Public halves are compared where the token shows them; where it does not, the key signs something.

    Args:
        session: Logged in, and used by no other thread.
        wanted: Which key.
        has_pin: Whether there was a PIN to log in with, for the message.

    Returns:
        python-pkcs11's object, which belongs to the session.

    Raises:
        NoKeyError: There is none.
        ConfigurationError: It must not sign.
        PKCS11Error: The token fails.
    """
    candidates = list(session.get_objects(wanted.template))
    public = load_der_public_key(wanted.key.public_der())
    for candidate in candidates:
        shown = _shown_public(session, candidate)
        if _is_same(public, shown) if shown is not None else _signs_for(candidate, public):
            return _usable(candidate)
    token = f"token {session.token.label!r}"
    if candidates:
        told = f"with {wanted.uri.describe_key()} is another key" if len(candidates) == 1 else "are other keys"
        raise NoKeyError(f"what {token} has {told} than the certificate's: give the certificate of this key")
    hint = "see pkcs11-tool --list-objects" if has_pin else "or shows none without a PIN: give one"
    kind = wanted.key.type
    raise NoKeyError(f"{token} has no private {kind} key with {wanted.uri.describe_key()}, {hint}")


def needs_pin(private: Any) -> bool:  # noqa: ANN401 - as above
    """Tell whether the PIN goes with each signature (CKA_ALWAYS_AUTHENTICATE)."""
    with contextlib.suppress(pkcs11.PKCS11Error):
        return bool(private[_Attribute.ALWAYS_AUTHENTICATE])
    return False


def _usable(private: Any) -> Any:  # noqa: ANN401 - as above
    if not hasattr(private, "sign"):
        raise ConfigurationError("the private key must not sign (CKA_SIGN is false): make it with that allowed")
    return private


def _shown_public(session: pkcs11.Session, private: Any) -> bytes | None:  # noqa: ANN401 - as above
    """Return the modulus or the point that the token shows; None: it shows neither."""
    name = _Attribute.MODULUS if private.key_type is pkcs11.KeyType.RSA else _Attribute.EC_POINT
    for one in (private, *_public_objects(session, private)):
        with contextlib.suppress(pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive, pkcs11.FunctionFailed):
            value = one[name]
            if value:
                return bytes(value)
    return None


def _public_objects(session: pkcs11.Session, private: Any) -> list[Any]:  # noqa: ANN401 - as above
    """Find the public object of a pair: it has the same id (PKCS #11 v3.0, 4.8)."""
    if not private.id:
        return []
    what = {_Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY, _Attribute.KEY_TYPE: private.key_type}
    return list(session.get_objects({**what, _Attribute.ID: private.id}))


def _is_same(public: Any, shown: bytes) -> bool:  # noqa: ANN401 - cryptography has a class for each kind
    if isinstance(public, rsa.RSAPublicKey):
        return int.from_bytes(shown, "big") == public.public_numbers().n
    if isinstance(public, ec.EllipticCurvePublicKey):
        point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    else:
        point = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    # CKA_EC_POINT is an OCTET STRING; some tokens leave that out. A P-521 point is longer than a short length tells.
    length = bytes([len(point)]) if len(point) < _LONG_LENGTH else bytes([_LONG_LENGTH | 1, len(point)])
    return shown in (point, b"\x04" + length + point)


def _signs_for(private: Any, public: Any) -> bool:  # noqa: ANN401 - as above
    """Let the key sign something, and see whether that is the wanted key's signature."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(_TRIAL)
    try:
        if isinstance(public, rsa.RSAPublicKey):
            signature = _usable(private).sign(_TRIAL, mechanism=Mechanism.SHA256_RSA_PKCS)
            public.verify(signature, _TRIAL, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(public, ec.EllipticCurvePublicKey):
            raw = _usable(private).sign(digest.finalize(), mechanism=Mechanism.ECDSA)
            r, s = (int.from_bytes(part, "big") for part in (raw[: len(raw) // 2], raw[len(raw) // 2 :]))
            public.verify(encode_dss_signature(r, s), _TRIAL, ec.ECDSA(hashes.SHA256()))
        else:
            public.verify(_usable(private).sign(_TRIAL, mechanism=Mechanism.EDDSA), _TRIAL)
    except (InvalidSignature, ConfigurationError):
        return False
    return True
