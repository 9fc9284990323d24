"""Self-signed certificates: any, for `tlsserver gen-cert`, and the one for localhost that `serve` makes itself.

The certificate for localhost is kept in the user's state folder (XDG Base Directory specification), so a browser asks
only once whether to trust it. It is renewed `RENEW` before it expires, and made anew if it cannot be used. Two
processes that start together end up with the same one: a lock is held while it is looked at and made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tlsserver.errors import ConfigurationError
from tlsserver.own_python import own_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PrivateKey: TypeAlias = (
    "rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey"
)

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
LIFETIME = timedelta(days=90)
RENEW = timedelta(days=7)
_CLOCK_SKEW = timedelta(hours=1)  # a client whose clock is a little behind accepts a certificate just made
_COMMON_NAME_LENGTH = 64  # RFC 5280, appendix A.1: ub-common-name-length

KEY_TYPES: dict[str, Callable[[], PrivateKey]] = {
    "rsa:2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa:3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa:4096": lambda: rsa.generate_private_key(65537, 4096),
    "ec:p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec:p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ec:p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}
"""How to make a key of each kind. To add one, add a row."""


@dataclass(frozen=True)
class Generated:
    """A certificate and its key, in PEM; the key is not encrypted."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class LocalCertificate:
    """The certificate for localhost.

    Attributes:
        certificate: Path of the certificate.
        key: Path of its key; only its owner can read it.
        made: Whether it was made just now.
    """

    certificate: Path
    key: Path
    made: bool


def generate(names: Sequence[str], key_type: str = "ec:p256", lifetime: timedelta = LIFETIME) -> Generated:
    """Make a key and a self-signed server certificate (RFC 5280) for it.

    Args:
        names: Host names, which may begin with "*.", and IP addresses; at least one.
        key_type: One of `KEY_TYPES`.
        lifetime: How long it is valid, from now.

    Raises:
        ConfigurationError: There is no such kind of key, a name cannot stand in a certificate, or it would last too
            long.
    """
    if key_type not in KEY_TYPES:
        raise ConfigurationError(f"key type {key_type!r} is unknown: choose one of {', '.join(KEY_TYPES)}")
    key = KEY_TYPES[key_type]()
    # RFC 8410, section 3: Ed25519 and Ed448 bring their own digest.
    digest = hashes.SHA256() if isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)) else None
    certificate = _builder(names, key, lifetime).sign(key, digest)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Generated(certificate.public_bytes(Encoding.PEM), key_pem)


def local_certificate(folder: Path | None = None) -> LocalCertificate:
    """Return the certificate for localhost; make it if there is none that can be used.

    Args:
        folder: Where it is kept; by default `state_folder()`.

    Raises:
        ConfigurationError: The folder cannot be written to.
    """
    folder = state_folder() if folder is None else folder
    certificate, key = folder / "localhost.crt", folder / "localhost.key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder):
            is_usable = _is_usable(certificate, key)
            if not is_usable:
                generated = generate(LOCAL_NAMES)
                write_private(key, generated.key)
                write_atomically(certificate, generated.certificate, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"no certificate for localhost can be kept in {folder}: {error.strerror}; "
            "set XDG_STATE_HOME to a folder that can be written to, or give --ssl-certfile and --ssl-keyfile"
        ) from error
    return LocalCertificate(certificate, key, made=not is_usable)


def made_elsewhere() -> LocalCertificate:
    """Do what `local_certificate` does in a process of its own: the memory of this one never has the key.

    Raises:
        ConfigurationError: The folder cannot be written to, or there is no Python to start.
    """
    done = subprocess.run(own_python(_MAKE), capture_output=True, text=True, errors="replace", check=False)
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise ConfigurationError(f"no certificate for localhost can be made: {done.stderr.strip()[-200:]}") from None
    if isinstance(told, str):
        raise ConfigurationError(told)
    certificate, key, made = told
    return LocalCertificate(Path(certificate), Path(key), made=made)


def _tell() -> None:
    """Be that process."""
    try:
        found = local_certificate()
    except ConfigurationError as error:
        print(json.dumps(str(error)))  # noqa: T201 - to the other one
    else:
        print(json.dumps([str(found.certificate), str(found.key), found.made]))  # noqa: T201 - as well


_MAKE = "from tlsserver.local_certificate import _tell; _tell()"


def state_folder() -> Path:
    """Return the folder for what tlsserver keeps between runs: `$XDG_STATE_HOME/tlsserver`, by default in the home."""
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    # The specification: a relative path is invalid and to be ignored.
    return (base if base.is_absolute() else Path.home() / ".local" / "state") / "tlsserver"


def fingerprint(pem: bytes) -> str:
    """Return the SHA-256 fingerprint of the first certificate, as browsers and `openssl x509 -fingerprint` show it.

    Raises:
        ValueError: There is no certificate in `pem`.
    """
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    return hashlib.sha256(der).digest().hex(":").upper()


def write_private(path: Path, data: bytes) -> None:
    """Write `data` so that it is never readable for others than its owner. Replaces what is there.

    Raises:
        OSError: It cannot be written.
    """
    write_atomically(path, data, 0o600)


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """Write a file that appears complete and with its mode, or not at all.

    Raises:
        OSError: It cannot be written; nothing was changed.
    """
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # readable for its owner alone
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel lets go of it when the descriptor is closed, even by a crash."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _is_usable(certificate: Path, key: Path) -> bool:
    """Return whether both files are there, belong together and are valid long enough."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError):  # TypeError: the key is encrypted
        return False
    now = datetime.now(timezone.utc)
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    belongs = found.public_key().public_bytes(*spki) == private.public_key().public_bytes(*spki)
    return belongs and not_after(found) - RENEW > now and key.stat().st_mode & 0o077 == 0


def not_after(certificate: x509.Certificate) -> datetime:
    """Return until when `certificate` is valid, with its time zone."""
    # cryptography has the first since 42, and from then on warns of the other.
    aware: datetime | None = getattr(certificate, "not_valid_after_utc", None)
    return certificate.not_valid_after.replace(tzinfo=timezone.utc) if aware is None else aware


def _builder(names: Sequence[str], key: PrivateKey, lifetime: timedelta) -> x509.CertificateBuilder:
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    now = datetime.now(timezone.utc)
    common_name = names[0] if len(names[0]) <= _COMMON_NAME_LENGTH else "tlsserver"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    try:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + lifetime)
        )
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"a certificate cannot be valid for {lifetime.days} days: give fewer") from error
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (alternatives, False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(key), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (identifier, False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder


def _general_name(name: str) -> x509.GeneralName:
    """Return `name` as the kind of name that it is.

    Raises:
        ConfigurationError: It is neither an address nor a host name in ASCII.
    """
    try:
        return x509.IPAddress(ip_address(name.strip("[]")))
    except ValueError:
        pass
    labels = name.removeprefix("*.").split(".")
    if not all(label.isascii() and label.replace("-", "").replace("_", "").isalnum() for label in labels):
        raise ConfigurationError(
            f"{name!r} is neither a host name nor an IP address; write a name with other letters in its xn-- form"
        )
    return x509.DNSName(name)


def _key_usage(key: PrivateKey) -> x509.KeyUsage:
    """Signatures; with RSA also the key transport of TLS 1.2 (RFC 5246, section 7.4.2)."""
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=isinstance(key, rsa.RSAPrivateKey),
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
