"""Requests: ops as their signer sees them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from engine_shim.cached import cached_property
from engine_shim.errors import KeyMismatchError
from engine_shim.key import PADDINGS, Key
from engine_shim.native import check, ffi, lib

if TYPE_CHECKING:
    from engine_shim.base import BaseEngine

__all__ = ["SignRequest"]

# OpenSSL has several names for a digest; these are the ones that Python code uses, and hashlib's.
_DIGESTS = {"SHA1": "sha1", "SHA224": "sha224", "SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}

# RFC 8446, 4.2.3. In TLS 1.2 the same numbers do not say which curve it is.
_ECDSA = {
    "SHA1": "ecdsa_sha1",
    "SHA224": "ecdsa_sha224",
    "SHA256": "ecdsa_secp256r1_sha256",
    "SHA384": "ecdsa_secp384r1_sha384",
    "SHA512": "ecdsa_secp521r1_sha512",
}
_UNSAID = {"RSA": "pkcs1", "RSA-PSS": "pss"}  # what OpenSSL does where nobody has said it
_MOST_REASON = 127  # bytes; op.h has one more
_PADDING_NAMES = {number: name for name, number in PADDINGS.items()}


class SignRequest:
    """An op that waits for its answer. Any thread may answer, once, at any time; `SignerEngine.take` gives them.

    Attributes:
        id: Its number; no other request of the engine has it.
        operation: ``"sign"`` or ``"decrypt"``.
        padding: ``"pkcs1"`` or ``"pss"`` (RFC 8017, 8); None where there is none: not RSA, or a raw decryption.
        digest_name: ``"SHA256"`` and so on; None where the message itself is signed (Ed25519, Ed448, ML-DSA), or
            decrypted.
        submitted: When the handshake asked, on time.monotonic().
        deadline: When it fails unless it is answered, on time.monotonic().
    """

    def __init__(self, engine: BaseEngine, handle: Any) -> None:  # noqa: ANN401 - cffi's pointers have no types
        self._engine = engine
        self._handle = ffi.gc(handle, lib.request_free)
        facts = ffi.new("struct request_facts *")
        lib.request_facts(handle, facts)
        self.id: int = facts.id
        self.submitted: float = facts.submitted_ns / 1e9
        self.deadline: float = facts.deadline_ns / 1e9
        self.operation = "sign" if facts.kind == lib.REQUEST_SIGN else "decrypt"
        self.digest_name = _common_name(ffi.string(facts.digest).decode())
        self._length: int = facts.input_length
        self._salt: int = facts.salt_length
        self.padding = _PADDING_NAMES.get(facts.padding) if self.operation == "sign" else None
        if self.padding is None and self.operation == "sign":
            self.padding = _UNSAID.get(self.algorithm)

    @cached_property
    def key(self) -> Key:
        """Its key: the public half."""
        return Key(self._engine, lib.request_key(self._handle), is_public=True)

    @property
    def key_id(self) -> bytes:
        """The key's subject key identifier: 20 bytes (RFC 5280, 4.2.1.2, method 1)."""
        return self.key.key_id

    @cached_property
    def algorithm(self) -> str:
        """The kind of key, as OpenSSL names it: ``RSA``, ``RSA-PSS``, ``EC``, ``ED25519`` and so on."""
        return self.key.type

    @cached_property
    def message(self) -> bytes:
        """What is to be signed, whole; of a decryption the ciphertext, as long as the modulus."""
        out = ffi.new("unsigned char[]", max(self._length, 1))
        lib.request_input(self._handle, out, self._length)
        return bytes(ffi.buffer(out, self._length))

    @property
    def digest(self) -> bytes | None:
        """The message's digest; None where the message itself is signed, or decrypted.

        Raises:
            ValueError: hashlib does not know it. TLS has none such.
        """
        return None if self.digest_name is None else _hash(self.digest_name, self.message).digest()

    @property
    def salt_length(self) -> int | None:
        """How long the salt of a PSS signature is, in bytes; None for any other."""
        if self.padding != "pss" or self.digest_name is None:
            return None
        return self._salt if self._salt >= 0 else _hash(self.digest_name).digest_size

    @property
    def scheme(self) -> str:
        """The signature scheme as TLS names it (RFC 8446, 4.2.3); ``rsa_decrypt`` for a decryption.

        ECDSA's names tell the digest; in TLS 1.2 the curve is the key's, whatever they say. `Key.sign` may ask for a
        digest that TLS has no scheme for: then it is a name of the same form, such as ``ecdsa_sha3-256``.
        """
        if self.operation == "decrypt":
            return "rsa_decrypt"
        digest = _hash_name(self.digest_name or "")
        if self.algorithm == "EC":
            return _ECDSA.get(self.digest_name or "", f"ecdsa_{digest}")
        if self.padding is None:
            return self.algorithm.lower().replace("ml-dsa-", "mldsa")
        family = {"RSA": "rsae", "RSA-PSS": "pss"}[self.algorithm]
        start = "rsa_pkcs1" if self.padding == "pkcs1" else f"rsa_pss_{family}"
        return f"{start}_{digest}"

    @property
    def is_open(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(lib.request_state(self._handle) == lib.SHIM_OK)

    def complete(self, answer: bytes, *, final: bool = True) -> None:
        """Answer. A signature is verified with the public key before the handshake goes on with it.

        Args:
            answer: The signature as TLS has it (ECDSA: DER); of a decryption the number ``c ** d mod n`` as many bytes
                long as the modulus, with its padding, which is looked at here, in constant time.
            final: Whether a wrong answer is the end: the handshake fails. False: the request stays open, for another
                signer to try.

        Raises:
            TypeError: It is not bytes.
            WrongAnswerError: It is not a signature of this message by this key, or not as long as the modulus.
            LateAnswerError: Nobody waits any more: the handshake has ended, the deadline has passed, or the engine is
                closed.
            DoubleAnswerError: It was answered before.
            ForkedError: It was taken in the parent process.
        """
        data = bytes(memoryview(answer))  # bytes(10) would be ten zeros
        check(lib.request_complete(self._handle, ffi.from_buffer(data), len(data), final), self._what)

    def fail(self, reason: str) -> None:
        """Tell that there will be no answer: the handshake fails.

        Args:
            reason: One line for the log; up to 127 bytes of it are kept, and a space for whatever cannot be printed.

        Raises:
            LateAnswerError: See `complete`.
            DoubleAnswerError: See `complete`.
            ForkedError: See `complete`.
        """
        line = "".join(c if c.isprintable() else " " for c in reason).encode()[:_MOST_REASON]
        check(lib.request_fail(self._handle, line.decode(errors="ignore").encode()), self._what)

    def perform(self, key: Key) -> None:
        """Perform it here and now, on this thread and with OpenSSL, and answer.

        Args:
            key: A private key of this process with the same public half, in an engine of any kind but a signer's.

        Raises:
            KeyMismatchError: It is another key, or has no private half.
            OperationFailedError: OpenSSL could not; the handshake fails.
            LateAnswerError: See `complete`.
            DoubleAnswerError: See `complete`.
            ForkedError: See `complete`.
        """
        if key.is_public or key.public_der() != self.key.public_der():
            message = f"{self._what} cannot be performed with this key: give the private key of its certificate"
            raise KeyMismatchError(message)
        check(lib.request_perform(self._handle, key.handle), self._what)

    @property
    def _what(self) -> str:
        return f"request {self.id}"

    def __repr__(self) -> str:
        return f"<SignRequest {self.id}: {self.scheme} by {self.key_id.hex()[:16]}>"


def _common_name(digest: str) -> str | None:
    """Return the digest's usual name; None: there is none."""
    name = digest.upper().replace("SHA2-", "SHA").replace("SHA-", "SHA")
    return name or None


def _hash_name(digest_name: str) -> str:
    return _DIGESTS.get(digest_name, digest_name.lower())


def _hash(digest_name: str, data: bytes = b"") -> hashlib._Hash:
    return hashlib.new(_hash_name(digest_name), data)
