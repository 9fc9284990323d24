"""The private keys of a key server, and how clients name them."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from engine_shim import KeyLoadError
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from engine_shim import Engine, Key
    from tlsserver.signers.keyless import Message

__all__ = ["KeyRing", "ServedKey", "key_files"]

logger = logging.getLogger(__name__)

# What the keyless protocol has opcodes for.
_TYPES = ("RSA", "RSA-PSS", "EC", "ED25519")
_PEM_KEY = b"PRIVATE KEY-----"
_LOOKED_AT = 1 << 20  # bytes of a file: no key is longer
_OTHERS = 0o077


class ServedKey(NamedTuple):
    """A key that is served.

    Attributes:
        key: In the engine that performs.
        type: As `engine_shim.Key.type` has it.
        ski: How clients name it: SHA-1 of the public key's BIT STRING (RFC 5280, 4.2.1.2 (1)).
        file: Where it was read.
    """

    key: Key
    type: str
    ski: bytes
    file: Path


class KeyRing:
    """The keys by their names; immutable."""

    def __init__(self, keys: Iterable[ServedKey]) -> None:
        """Take the keys; one that comes twice is one."""
        self._by_ski = {one.ski: one for one in keys}
        self._by_digest = {_modulus_digest(one.key): one for one in self if one.type.startswith("RSA")}

    @classmethod
    def load(cls, files: Iterable[Path], password: str | bytes | None, engine: Engine) -> KeyRing:
        """Read keys.

        Args:
            files: A private key each.
            password: Of those that are encrypted.
            engine: Performs them.

        Raises:
            ConfigurationError: A file cannot be read, or the protocol has no signature for such a key.
            engine_shim.KeyLoadError: There is no key in a file, or its password is wrong.
        """
        return cls([_load(file, password, engine) for file in files])

    def find(self, message: Message) -> ServedKey | None:
        """Find the key that a request names, by its SKI or, as old clients do, by the digest of its modulus."""
        if message.ski:
            return self._by_ski.get(message.ski)
        return self._by_digest.get(message.digest)

    def __iter__(self) -> Iterator[ServedKey]:
        return iter(self._by_ski.values())

    def __len__(self) -> int:
        return len(self._by_ski)


def key_files(places: Iterable[Path]) -> list[Path]:
    """Find the files of keys.

    Args:
        places: Files, and folders, of which those files are taken in which a private key stands as PEM.

    Raises:
        ConfigurationError: There is no such file or folder, it cannot be read, or there is no key in a folder.
    """
    found = []
    for place in places:
        try:
            files = _in_folder(place) if place.is_dir() else [place]
        except OSError as error:
            raise _unreadable(place, error) from error
        if not files:
            raise ConfigurationError(f"no private key (PEM) in the files of folder {place}: put some there")
        found += files
    return found


def _in_folder(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and _has_key(file)]


def _has_key(file: Path) -> bool:
    with file.open("rb") as opened:
        return _PEM_KEY in opened.read(_LOOKED_AT)


def _load(file: Path, password: str | bytes | None, engine: Engine) -> ServedKey:
    try:
        mode = file.stat().st_mode
        key = engine.load_key(file, password)
    except KeyLoadError:
        raise
    except OSError as error:
        raise _unreadable(file, error) from error
    if key.type not in _TYPES:
        raise ConfigurationError(
            f"key {file} is of type {key.type}, for which the protocol has no signature: give RSA, EC or Ed25519"
        )
    if mode & _OTHERS:
        logger.warning("private key %s can be read or written by others than its owner: `chmod 600` it", file)
    return ServedKey(key, key.type, key.key_id, file)


def _unreadable(place: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"key {place} cannot be read: {error.strerror}; give another path with --key")


def _modulus_digest(key: Key) -> bytes:
    """Make the older name of an RSA key: of its modulus in upper-case hexadecimal."""
    public = load_der_public_key(key.public_der())
    if not isinstance(public, rsa.RSAPublicKey):
        return b""
    return hashlib.sha256(f"{public.public_numbers().n:X}".encode()).digest()
