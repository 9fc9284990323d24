"""The numbers of the keyless protocol, and what each stands for.

They are those of Cloudflare's key server, gokeyless. docs/keyless.md has the table, and tells where the two differ.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["ErrorCode", "Opcode", "Tag"]

_DIGEST_SIZES = {"MD5-SHA1": 36, "SHA1": 20, "SHA224": 28, "SHA256": 32, "SHA384": 48, "SHA512": 64}


class Tag(enum.IntEnum):
    """What an item of a message is."""

    DIGEST = 0x01  # SHA-256 of the RSA modulus in upper-case hexadecimal
    SERVER_NAME = 0x02
    CLIENT_IP = 0x03
    SKI = 0x04  # subject key identifier: names the key
    SERVER_IP = 0x05
    CERTIFICATE_ID = 0x06
    OPCODE = 0x11
    PAYLOAD = 0x12
    CUSTOM_FUNCTION = 0x13
    EXTRA = 0x14
    TRACE_SPAN = 0x15
    REQUEST_CONTEXT = 0x16
    COMPLIANCE_REGION = 0x17
    PADDING = 0x20


class _Row(NamedTuple):
    """What one opcode does with a key."""

    kind: str | None = None
    digest_name: str | None = None
    padding: str | None = None


class Opcode(enum.IntEnum):
    """What a message asks for, or how it answers."""

    RSA_DECRYPT = 0x01  # the answer is unpadded by old servers, raw by gokeyless
    RSA_SIGN_MD5_SHA1 = 0x02
    RSA_SIGN_SHA1 = 0x03
    RSA_SIGN_SHA224 = 0x04
    RSA_SIGN_SHA256 = 0x05
    RSA_SIGN_SHA384 = 0x06
    RSA_SIGN_SHA512 = 0x07
    RSA_DECRYPT_RAW = 0x08
    EC_SIGN_MD5_SHA1 = 0x12
    EC_SIGN_SHA1 = 0x13
    EC_SIGN_SHA224 = 0x14
    EC_SIGN_SHA256 = 0x15
    EC_SIGN_SHA384 = 0x16
    EC_SIGN_SHA512 = 0x17
    ED25519_SIGN = 0x18  # the payload is the message, whole
    SEAL = 0x21
    UNSEAL = 0x22
    RPC = 0x23
    CUSTOM = 0x24
    RSA_PSS_SIGN_SHA256 = 0x35
    RSA_PSS_SIGN_SHA384 = 0x36
    RSA_PSS_SIGN_SHA512 = 0x37
    SUCCESS = 0xF0
    PING = 0xF1
    PONG = 0xF2
    ERROR = 0xFF

    @property
    def kind(self) -> str | None:
        """The keys that can do it: ``"RSA"``, ``"EC"`` or ``"ED25519"``; None for what needs no key."""
        return _ROWS.get(self, _NO_KEY).kind

    @property
    def digest_name(self) -> str | None:
        """Which digest the payload is, such as ``"SHA256"`` or ``"MD5-SHA1"``; None: it is none."""
        return _ROWS.get(self, _NO_KEY).digest_name

    @property
    def padding(self) -> str | None:
        """``"pkcs1"`` or ``"pss"`` of an RSA signature, else None."""
        return _ROWS.get(self, _NO_KEY).padding

    @property
    def operation(self) -> str | None:
        """``"sign"`` or ``"decrypt"``; None for what needs no key."""
        if self.kind is None:
            return None
        return "decrypt" if self in (Opcode.RSA_DECRYPT, Opcode.RSA_DECRYPT_RAW) else "sign"

    @property
    def is_answer(self) -> bool:
        """Whether only a server may send it."""
        return self in (Opcode.SUCCESS, Opcode.PONG, Opcode.ERROR)

    @property
    def digest_size(self) -> int | None:
        """How long the payload has to be, in bytes; None: of any length."""
        return None if self.digest_name is None else _DIGEST_SIZES[self.digest_name]

    @property
    def salt_length(self) -> int | None:
        """Of a PSS signature, in bytes: always the digest's, as in TLS (RFC 8446 4.2.3); else None."""
        return self.digest_size if self.padding == "pss" else None

    def fits(self, algorithm: str) -> bool:
        """Tell whether a key can do it.

        Args:
            algorithm: As `engine_shim.Key.type` has it, such as ``"RSA-PSS"``.
        """
        return self.kind is not None and (algorithm == self.kind or (algorithm == "RSA-PSS" and self.padding == "pss"))

    @classmethod
    def maybe(cls, value: int) -> Opcode | None:
        """Find the opcode of a number; None: there is none."""
        return cls._value2member_map_.get(value)  # type: ignore[return-value] # Enum's own map, of its own members

    @classmethod
    def for_signature(
        cls, algorithm: str, padding: str | None, digest_name: str | None, salt_length: int | None = None
    ) -> Opcode:
        """Find what asks for a signature.

        Args:
            algorithm: The key's type: ``"RSA"``, ``"RSA-PSS"``, ``"EC"`` or ``"ED25519"``.
            padding: ``"pkcs1"``, ``"pss"`` or None.
            digest_name: Such as ``"SHA256"``; None for Ed25519.
            salt_length: Of PSS, in bytes; None: that of the digest.

        Raises:
            ValueError: The protocol has no such signature.
        """
        kind = "RSA" if algorithm == "RSA-PSS" and padding == "pss" else algorithm
        found = _SIGNATURES.get((kind, padding, digest_name))
        if found is None or salt_length not in (None, found.salt_length):
            asked = ", ".join(str(one) for one in (algorithm, padding, digest_name) if one is not None)
            salt = "" if salt_length is None else f" with {salt_length} bytes of salt"
            raise ValueError(f"the keyless protocol has no signature for {asked}{salt}: use a key of another type")
        return found


_NO_KEY = _Row()
_ROWS = {
    Opcode.RSA_DECRYPT: _Row("RSA"),
    Opcode.RSA_DECRYPT_RAW: _Row("RSA"),
    Opcode.RSA_SIGN_MD5_SHA1: _Row("RSA", "MD5-SHA1", "pkcs1"),
    Opcode.RSA_SIGN_SHA1: _Row("RSA", "SHA1", "pkcs1"),
    Opcode.RSA_SIGN_SHA224: _Row("RSA", "SHA224", "pkcs1"),
    Opcode.RSA_SIGN_SHA256: _Row("RSA", "SHA256", "pkcs1"),
    Opcode.RSA_SIGN_SHA384: _Row("RSA", "SHA384", "pkcs1"),
    Opcode.RSA_SIGN_SHA512: _Row("RSA", "SHA512", "pkcs1"),
    Opcode.RSA_PSS_SIGN_SHA256: _Row("RSA", "SHA256", "pss"),
    Opcode.RSA_PSS_SIGN_SHA384: _Row("RSA", "SHA384", "pss"),
    Opcode.RSA_PSS_SIGN_SHA512: _Row("RSA", "SHA512", "pss"),
    Opcode.EC_SIGN_MD5_SHA1: _Row("EC", "MD5-SHA1"),
    Opcode.EC_SIGN_SHA1: _Row("EC", "SHA1"),
    Opcode.EC_SIGN_SHA224: _Row("EC", "SHA224"),
    Opcode.EC_SIGN_SHA256: _Row("EC", "SHA256"),
    Opcode.EC_SIGN_SHA384: _Row("EC", "SHA384"),
    Opcode.EC_SIGN_SHA512: _Row("EC", "SHA512"),
    Opcode.ED25519_SIGN: _Row("ED25519"),
}
_SIGNATURES = {(one.kind, one.padding, one.digest_name): one for one in _ROWS if one.operation == "sign"}


class ErrorCode(enum.IntEnum):
    """Why a request failed: the one byte of an error answer."""

    CRYPTOGRAPHY = 0x01
    KEY_NOT_FOUND = 0x02
    READ = 0x03
    VERSION = 0x04
    BAD_OPCODE = 0x05
    UNEXPECTED_OPCODE = 0x06
    FORMAT = 0x07
    INTERNAL = 0x08
    CERTIFICATE_NOT_FOUND = 0x09
    EXPIRED = 0x0A
    REMOTE_CONFIGURATION = 0x0B

    @property
    def reason(self) -> str:
        """A few words for people."""
        return _REASONS[self]

    @staticmethod
    def told(payload: bytes) -> str:
        """Say what the payload of an error answer means, known or not."""
        if len(payload) != 1:
            return f"an error without a code ({len(payload)} bytes where one is due)"
        try:
            return ErrorCode(payload[0]).reason
        except ValueError:
            return f"error {payload[0]}, which the protocol does not have"


_REASONS = {
    ErrorCode.CRYPTOGRAPHY: "the operation with the key failed",
    ErrorCode.KEY_NOT_FOUND: "no such key",
    ErrorCode.READ: "reading failed",
    ErrorCode.VERSION: "another version of the protocol",
    ErrorCode.BAD_OPCODE: "unknown opcode",
    ErrorCode.UNEXPECTED_OPCODE: "opcode of an answer in a request",
    ErrorCode.FORMAT: "malformed message",
    ErrorCode.INTERNAL: "internal error",
    ErrorCode.CERTIFICATE_NOT_FOUND: "no such certificate",
    ErrorCode.EXPIRED: "the sealing key has expired",
    ErrorCode.REMOTE_CONFIGURATION: "the remote key server is not set up rightly",
}
