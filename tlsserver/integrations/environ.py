r"""What a WSGI application reads about TLS and the client's certificate: the names that Apache's mod_ssl gives them.

https://httpd.apache.org/docs/2.4/mod/mod_ssl.html#envvars. cheroot's own adapter uses the same names.

Facts
- A value is a native string whose characters are bytes, Latin-1 (PEP 3333). Names in certificates are Unicode.
- What stands in a certificate was written by its authority, and sometimes by its holder: line ends and other control
  characters too. Applications put these values into headers and logs.

Decision
- Text is UTF-8 behind Latin-1, as under Apache and mod_wsgi, and control characters are escaped as RFC 4514 has it
  (``\0A``).
- Names are in the order of RFC 4514, the last first, as mod_ssl has had them since 2.3.11.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.wire import TLSInfo

__all__ = ["printable", "tls_environ"]

# ssl_engine_vars.c: the parts of a name that are told one by one.
_PARTS = {
    x509.NameOID.COUNTRY_NAME: "C",
    x509.NameOID.STATE_OR_PROVINCE_NAME: "ST",
    x509.NameOID.LOCALITY_NAME: "L",
    x509.NameOID.ORGANIZATION_NAME: "O",
    x509.NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    x509.NameOID.COMMON_NAME: "CN",
    x509.NameOID.TITLE: "T",
    x509.ObjectIdentifier("2.5.4.43"): "I",
    x509.NameOID.GIVEN_NAME: "G",
    x509.NameOID.SURNAME: "S",
    x509.ObjectIdentifier("2.5.4.13"): "D",
    x509.NameOID.USER_ID: "UID",
    x509.NameOID.EMAIL_ADDRESS: "Email",
}

# OpenSSL's, where RFC 4514 has none: with them Apache writes whole names.
_SHORT_NAMES = {
    x509.NameOID.EMAIL_ADDRESS: "emailAddress",
    x509.NameOID.GIVEN_NAME: "GN",
    x509.NameOID.SURNAME: "SN",
    x509.NameOID.TITLE: "title",
    x509.NameOID.SERIAL_NUMBER: "serialNumber",
}

_SANS = {"DNS": "SAN_DNS", "email": "SAN_Email"}

# OpenSSL's names of the kinds of keys, as OBJ_nid2ln(3) has them.
_KEYS = (
    (rsa.RSAPublicKey, "rsaEncryption"),
    (ec.EllipticCurvePublicKey, "id-ecPublicKey"),
    (dsa.DSAPublicKey, "dsaEncryption"),
    (ed25519.Ed25519PublicKey, "ED25519"),
    (ed448.Ed448PublicKey, "ED448"),
)

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_SECONDS_A_DAY = 86_400
_PEM_LINE = 64


def tls_environ(info: TLSInfo, certificate: ClientCertificate | None) -> dict[str, str]:
    """Describe a connection and its client.

    Args:
        info: What the handshake settled.
        certificate: The client's, verified; None: it has sent none.

    Returns:
        Variables for the ``environ`` of each request on the connection (PEP 3333): ``HTTPS``, ``SSL_PROTOCOL``,
        ``SSL_CIPHER``, ``SSL_TLS_SNI``, ``SSL_CLIENT_VERIFY``, ``SSL_CLIENT_S_DN`` and so on.
    """
    told = {
        "HTTPS": "on",
        "SSL_PROTOCOL": info.version,
        "SSL_CIPHER": info.cipher,
        "SSL_CIPHER_EXPORT": "false",
        "SSL_COMPRESS_METHOD": "NULL",
        "SSL_SECURE_RENEG": "true",
        "SSL_SESSION_RESUMED": "Resumed" if info.reused else "Initial",
        "SSL_CLIENT_VERIFY": "NONE" if certificate is None else "SUCCESS",
    }
    bits = _bits(info.cipher)
    if bits is not None:
        told["SSL_CIPHER_USEKEYSIZE"] = told["SSL_CIPHER_ALGKEYSIZE"] = str(bits)
    if info.server_name is not None:
        told["SSL_TLS_SNI"] = _native(info.server_name)
    if certificate is not None:
        told.update({f"SSL_CLIENT_{name}": value for name, value in _certificate(certificate)})
    return told


def _bits(cipher: str) -> int | None:
    """Return the length of the key of a suite, by its name; None: unknown."""
    if "CHACHA20" in cipher:
        return 256
    found = re.search(r"(?:AES|CAMELLIA|ARIA)_?(128|192|256)", cipher)
    return None if found is None else int(found[1])


def printable(text: str) -> str:
    """Escape control characters as RFC 4514, 2.4, does; line ends are among them."""
    return _CONTROL.sub(lambda one: f"\\{ord(one[0]):02X}", text)


def _native(text: str) -> str:
    """Return text as PEP 3333 wants it."""
    return printable(text).encode("utf-8", "backslashreplace").decode("latin-1")


def _certificate(certificate: ClientCertificate) -> Iterator[tuple[str, str]]:
    yield "CERT", _pem(certificate.der)
    for place, der in enumerate(certificate.chain[1:]):
        yield f"CERT_CHAIN_{place}", _pem(der)
    yield from _maybe(lambda: _numbers(certificate.x509))
    yield from _maybe(lambda: _names("S", certificate.x509.subject))
    yield from _maybe(lambda: _names("I", certificate.x509.issuer))
    yield from _maybe(lambda: _sans(certificate))


def _maybe(tell: Callable[[], Iterator[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Leave out what cryptography cannot read: it is stricter than OpenSSL, which has verified the certificate.

    The application has its bytes. What cryptography raises is of many classes, and must not cost the request.
    """
    try:
        return list(tell())
    except Exception:  # noqa: BLE001 - see above
        return []


def _numbers(found: x509.Certificate) -> Iterator[tuple[str, str]]:
    begins, ends = _time(found, "not_valid_before"), _time(found, "not_valid_after")
    yield "M_VERSION", str(found.version.value + 1)
    digits = f"{found.serial_number:X}"
    yield "M_SERIAL", digits if len(digits) % 2 == 0 else f"0{digits}"
    yield "V_START", _as_text(begins)
    yield "V_END", _as_text(ends)
    left = (ends - dt.datetime.now(dt.timezone.utc)).total_seconds()
    yield "V_REMAIN", str(max(int(left // _SECONDS_A_DAY), 0))
    yield "A_SIG", found.signature_algorithm_oid._name  # noqa: SLF001 - there is no other way to OpenSSL's name
    yield "A_KEY", _kind_of_key(found)


def _kind_of_key(found: x509.Certificate) -> str:
    try:
        key = found.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "UNKNOWN"
    return next((name for kind, name in _KEYS if isinstance(key, kind)), type(key).__name__)


def _time(found: x509.Certificate, name: str) -> dt.datetime:
    """Return a time of it; older releases of cryptography know UTC by another name."""
    if hasattr(found, f"{name}_utc"):
        when: dt.datetime = getattr(found, f"{name}_utc")
        return when
    return getattr(found, name).replace(tzinfo=dt.timezone.utc)  # type: ignore[no-any-return]


def _as_text(when: dt.datetime) -> str:
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[when.month - 1]
    return f"{month} {when.day:2} {when:%H:%M:%S} {when.year} GMT"


def _names(whose: str, name: x509.Name) -> Iterator[tuple[str, str]]:
    """Return a name as a whole and in parts; of several parts of one kind the first has no number."""
    yield f"{whose}_DN", _native(name.rfc4514_string(_SHORT_NAMES))
    seen: defaultdict[str, int] = defaultdict(int)
    for part in name:
        kind = _PARTS.get(part.oid)
        if kind is not None:
            count, seen[kind] = seen[kind], seen[kind] + 1
            yield f"{whose}_DN_{kind}" + (f"_{count}" if count else ""), _native(str(part.value))


def _sans(certificate: ClientCertificate) -> Iterator[tuple[str, str]]:
    seen: defaultdict[str, int] = defaultdict(int)
    for san in certificate.sans:
        kind = _SANS.get(san.kind)
        if kind is not None:
            yield f"{kind}_{seen[kind]}", _native(san.value)
            seen[kind] += 1


def _pem(der: bytes) -> str:
    text = base64.b64encode(der).decode("ascii")
    lines = [text[at : at + _PEM_LINE] for at in range(0, len(text), _PEM_LINE)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----"])
