"""Private keys, wrapped: what OpenSSL asks of them is performed by an engine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_shim import linkage
from engine_shim.batches import costs_of
from engine_shim.cached import cached_property
from engine_shim.errors import KeyMismatchError
from engine_shim.native import check, context_address, ffi, lib

if TYPE_CHECKING:
    from OpenSSL import SSL

    from engine_shim.base import BaseEngine, NativeEngine
    from engine_shim.batches import BatchCosts

# rsa.h: how RSA pads a signature, and how long a PSS salt is (RFC 8446, 4.2.3: as long as the digest).
PADDINGS = {"pkcs1": 1, "pss": 6}
SALT_AS_DIGEST = -1
UNSET = -1000  # op.h's OP_UNSET

MISMATCH = "the private key does not belong to the certificate: give the key that the certificate was made for"


def read_source(source: str | Path | bytes, password: str | bytes | None) -> tuple[bytes, bytes | None, str]:
    """Read a private key's bytes, without looking into them.

    Args:
        source: A file's path, or the key itself as PEM or DER bytes.
        password: As the user gave it.

    Returns:
        The key's bytes, the password's, and what to call the key in a message.

    Raises:
        OSError: The file cannot be read.
    """
    # The command line gives bytes that are not UTF-8 as surrogates.
    secret = password.encode(errors="surrogateescape") if isinstance(password, str) else password
    if isinstance(source, bytes):
        return source, secret, "private key"
    return Path(source).read_bytes(), secret, f"private key {source}"


def signature_parameters(digest: str | None, padding: str | None) -> tuple[Any, int, int]:
    """Translate what :meth:`Key.sign` takes into what C takes.

    Args:
        digest: OpenSSL's name of the digest, or None.
        padding: A name of RSA's padding, or None.

    Returns:
        The digest's name for cffi, the padding's number, and the length of the salt.

    Raises:
        ValueError: Unknown padding.
    """
    if padding is not None and padding not in PADDINGS:
        message = f"padding is {padding!r}, it must be one of {', '.join(PADDINGS)}"
        raise ValueError(message)
    name = ffi.NULL if digest is None else digest.encode()
    code = UNSET if padding is None else PADDINGS[padding]
    return name, code, SALT_AS_DIGEST if padding == "pss" else UNSET


class Key:
    """A private key in an engine, made by :meth:`Engine.load_key`. Immutable; keeps its engine alive."""

    def __init__(self, engine: BaseEngine, handle: Any, *, is_public: bool = False) -> None:  # noqa: ANN401 - cffi's pointers have no types
        self._engine = engine
        self._handle = ffi.gc(handle, lib.key_free)
        self._is_public = is_public

    @classmethod
    def identified(cls, engine: BaseEngine, handle: Any) -> Key:  # noqa: ANN401 - cffi's pointers have no types
        """Take over a signer's new key that nobody else has yet, and have its C half know its identifier.

        Each of its requests asks for that one.
        """
        key = cls(engine, handle, is_public=True)
        lib.key_set_id(handle, _key_id(key.public_der()))
        return key

    @property
    def handle(self) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        """The C half, borrowed."""
        return self._handle

    @property
    def engine(self) -> BaseEngine:
        """The engine that performs this key's operations."""
        return self._engine

    @property
    def type(self) -> str:
        """OpenSSL's name of the kind of key: ``RSA``, ``RSA-PSS``, ``EC``, ``ED25519``, ``ML-DSA-65`` and so on."""
        return str(ffi.string(lib.key_type(self._handle)).decode())

    @property
    def bits(self) -> int:
        """Size of the key in bits, as OpenSSL counts them."""
        return int(lib.key_bits(self._handle))

    def public_der(self) -> bytes:
        """Encode the public half.

        Returns:
            A DER SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
        """
        size = lib.key_public_der(self._handle, ffi.NULL, 0)
        out = ffi.new("unsigned char[]", size)
        lib.key_public_der(self._handle, out, size)
        return bytes(ffi.buffer(out))

    @property
    def is_public(self) -> bool:
        """Whether the private half is elsewhere: with the signer that its engine asks."""
        return self._is_public

    @cached_property
    def key_id(self) -> bytes:
        """The subject key identifier: 20 bytes, SHA-1 of the public key's BIT STRING (RFC 5280, 4.2.1.2, method 1)."""
        known = lib.key_id(self._handle)
        return _key_id(self.public_der()) if known == ffi.NULL else bytes(ffi.buffer(known, 20))

    def use(self, context: SSL.Context) -> None:
        """Make this the key of a Context that has the certificate already.

        Args:
            context: A pyOpenSSL Context that no Connection was made of yet.

        Raises:
            KeyMismatchError: The key is not the certificate's.
            ShimError: OpenSSL refused it for another reason.
        """
        pointer = context_address(context)
        certificate = lib.context_certificate(pointer)
        if certificate != ffi.NULL and not lib.key_matches_certificate(self._handle, certificate):
            raise KeyMismatchError(MISMATCH)
        check(lib.key_use(self._handle, pointer), "using a private key")

    def sign(self, data: bytes, *, digest: str | None = "SHA256", padding: str | None = None) -> bytes:
        """Sign outside TLS; blocks until the engine has answered.

        Args:
            data: The message, of any length.
            digest: OpenSSL's name of the digest; None for Ed25519, Ed448 and ML-DSA, which have none.
            padding: For RSA: ``pkcs1`` (the default) or ``pss`` with a salt as long as the digest.

        Returns:
            The signature, in the form that TLS uses (ECDSA: DER).

        Raises:
            NoJobError: The engine cannot block.
            EngineError: The engine is closed, or the operation failed.
            ValueError: Unknown padding.
        """
        name, code, salt = signature_parameters(digest, padding)
        out = ffi.new("unsigned char[]", lib.key_max_size(self._handle))
        length = ffi.new("size_t *", len(out))
        check(lib.key_sign(self._handle, name, code, salt, ffi.from_buffer(data), len(data), out, length), "signing")
        return bytes(ffi.buffer(out, length[0]))

    def decrypt_premaster(self, ciphertext: bytes, *, version: int = 0x0303) -> bytes:
        """Decrypt a TLS 1.2 premaster secret outside TLS; blocks until the engine has answered.

        Args:
            ciphertext: As in a ClientKeyExchange (RFC 5246, 7.4.7.1).
            version: The version that the ClientHello offered.

        Returns:
            48 bytes: the secret, or random ones if the padding or the version is bad; nothing tells which.

        Raises:
            NoJobError: The engine cannot block.
            EngineError: The engine is closed, or the ciphertext is not as long as the key.
        """
        out = ffi.new("unsigned char[]", lib.key_max_size(self._handle))
        length = ffi.new("size_t *", len(out))
        source = ffi.from_buffer(ciphertext)
        check(lib.key_decrypt(self._handle, version, source, len(ciphertext), out, length), "decrypting")
        return bytes(ffi.buffer(out, length[0]))

    @property
    def batch_costs(self) -> BatchCosts | None:
        """What its signatures cost alone and in a batch; None where OpenSSL performs each alone."""
        return costs_of(self._handle)

    def measure_signature(self) -> float:
        """Sign a few times, with OpenSSL, on this thread, and tell what one signature takes at the least.

        It takes three signatures, or up to 32 within 15 ms.

        Returns:
            Seconds; 0 if the key cannot sign.
        """
        return int(lib.key_signature_ns(self._handle)) / 1e9

    def __repr__(self) -> str:
        return f"<Key {self.type} of {self.bits} bits in engine {self._engine.name}>"


def _key_id(spki: bytes) -> bytes:
    """Hash the public key inside a SubjectPublicKeyInfo: SEQUENCE of an algorithm (a SEQUENCE) and a BIT STRING."""
    _, content = _value(spki)
    algorithm_end, _ = _value(content)
    _, bits = _value(content[algorithm_end:])
    behind_unused = bits[1:]  # the first byte counts unused bits
    return hashlib.sha1(behind_unused, usedforsecurity=False).digest()


def _value(der: bytes) -> tuple[int, bytes]:
    """Return where the first value of DER ends, and what it contains."""
    begin, length = 2, der[1]
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[2:begin], "big")
    return begin + length, der[begin : begin + length]


def wrap_context(context: SSL.Context, engine: NativeEngine) -> int:
    """Wrap the private keys of every certificate slot of a Context, so that ``engine`` performs their operations.

    Args:
        context: A pyOpenSSL Context that no Connection was made of yet.
        engine: Where the operations go.

    Returns:
        The number of keys that were wrapped.

    Raises:
        KeyLoadError: A key is of a kind that cannot be wrapped.
        ShimError: OpenSSL refused.
    """
    count = ffi.new("size_t *")
    pointer = context_address(context)
    check(lib.key_wrap_context(engine._handle, pointer, count), "wrapping a Context's keys")  # noqa: SLF001
    return int(count[0])


def use_plain_key(context: SSL.Context, source: str | Path | bytes, password: str | bytes | None = None) -> None:
    """Give a Context a private key that OpenSSL itself performs with: no engine, nothing wrapped.

    Args:
        context: A pyOpenSSL Context that has the certificate already.
        source: A file's path, or the key itself as PEM or DER bytes.
        password: Decrypts an encrypted PEM key.

    Raises:
        KeyPasswordError: The key is encrypted, and the password is missing or wrong.
        KeyLoadError: There is no key.
        KeyMismatchError: The key is not the certificate's.
        LinkageError: OpenSSL cannot be reached.
        OSError: The file cannot be read.
    """
    linkage.attach()
    data, secret, what = read_source(source, password)
    matches = ffi.new("int *")
    given = ffi.NULL if secret is None else ffi.from_buffer(secret)
    pointer = context_address(context)
    check(lib.key_use_plain(pointer, ffi.from_buffer(data), len(data), given, len(secret or b""), matches), what)
    if not matches[0]:
        raise KeyMismatchError(MISMATCH)
