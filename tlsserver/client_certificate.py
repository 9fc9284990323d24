"""A client's certificate, as the application sees it. A leaf: it knows no connection, so it outlives its own.

Nothing is parsed before it is asked for: a handshake keeps the bytes, some 1 KB for each certificate of the chain.
"""

from __future__ import annotations

import ipaddress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

__all__ = ["ClientCertificate", "SubjectAltName"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class SubjectAltName(NamedTuple):
    """One of the names that a certificate is for (RFC 5280, 4.2.1.6).

    Attributes:
        kind: ``"DNS"``, ``"IP"``, ``"URI"``, ``"email"``, ``"directory"``, ``"OID"`` or ``"other"``.
        value: As text; of ``"directory"`` as in RFC 4514, of ``"other"`` its type's OID, a colon, and its DER in hex.
    """

    kind: str
    value: str


class ClientCertificate:
    """A certificate that a client has proved to have.

    Attributes:
        der: The certificate.
        chain: The verified chain in DER, the client's own first. After a resumption the client's own alone: a session
            keeps no more.
    """

    def __init__(self, chain: tuple[bytes, ...]) -> None:
        """Keep a chain that is not empty."""
        self.der = chain[0]
        self.chain = chain

    @cached_property
    def x509(self) -> x509.Certificate:
        """The same as an object of cryptography's.

        Raises:
            ValueError: cryptography is stricter than OpenSSL, which has accepted it.
        """
        return x509.load_der_x509_certificate(self.der)

    @property
    def subject(self) -> str:
        """Whose it is (RFC 4514), such as ``"CN=alice,O=Example"``."""
        return self.x509.subject.rfc4514_string()

    @cached_property
    def sans(self) -> tuple[SubjectAltName, ...]:
        """The names that it is for; none: it has no such extension."""
        try:
            extension = self.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return ()
        return tuple(_san(name) for name in extension.value)

    def peercert(self) -> dict[str, Any]:
        """Return it as `ssl.SSLSocket.getpeercert` does."""
        found = self.x509
        told = {
            "subject": _as_rdns(found.subject),
            "issuer": _as_rdns(found.issuer),
            "version": found.version.value + 1,
            "serialNumber": _hex(found.serial_number),
            "notBefore": _as_time(found, "not_valid_before"),
            "notAfter": _as_time(found, "not_valid_after"),
        }
        found_names = self._extension(x509.SubjectAlternativeName) or ()
        more: dict[str, tuple[Any, ...]] = {"subjectAltName": tuple(_as_pair(name) for name in found_names)}
        about = tuple(self._extension(x509.AuthorityInformationAccess) or ())
        for kind, oid in _ABOUT.items():
            more[kind] = _uris(one.access_location for one in about if one.access_method == oid)
        points = self._extension(x509.CRLDistributionPoints) or ()
        more["crlDistributionPoints"] = _uris(name for point in points for name in point.full_name or ())
        return {**told, **{name: value for name, value in more.items() if value}}

    def _extension(self, kind: Any) -> Any:  # noqa: ANN401 - a class of cryptography's, and what it makes
        """Return an extension; None: it has none, or one that only OpenSSL can read."""
        try:
            return self.x509.extensions.get_extension_for_class(kind).value
        except (x509.ExtensionNotFound, ValueError):
            return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientCertificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    def __repr__(self) -> str:
        return f"<ClientCertificate {self.subject}>"


_KINDS = {
    x509.DNSName: "DNS",
    x509.IPAddress: "IP",
    x509.UniformResourceIdentifier: "URI",
    x509.RFC822Name: "email",
}


def _san(name: x509.GeneralName) -> SubjectAltName:
    if isinstance(name, x509.DirectoryName):
        return SubjectAltName("directory", name.value.rfc4514_string())
    if isinstance(name, x509.RegisteredID):
        return SubjectAltName("OID", name.value.dotted_string)
    if isinstance(name, x509.OtherName):
        return SubjectAltName("other", f"{name.type_id.dotted_string}:{name.value.hex()}")
    return SubjectAltName(_KINDS[type(name)], str(name.value))


# As Python's ssl has it.

_ABOUT = {"OCSP": AuthorityInformationAccessOID.OCSP, "caIssuers": AuthorityInformationAccessOID.CA_ISSUERS}

# OpenSSL's long names that cryptography's constants do not tell.
_IN_CAPITALS = ("INN", "OGRN", "SNILS")


def _long_name(constant: str) -> str:
    if constant in _IN_CAPITALS:
        return constant
    first, *rest = constant.lower().split("_")
    return first + "".join(word.capitalize() for word in rest)


_LONG_NAMES = {
    oid: _long_name(name) for name, oid in vars(x509.NameOID).items() if isinstance(oid, x509.ObjectIdentifier)
}


def _as_rdns(name: x509.Name) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(tuple((_named(one.oid), str(one.value)) for one in _as_encoded(rdn)) for rdn in name.rdns)


def _as_encoded(rdn: x509.RelativeDistinguishedName) -> list[x509.NameAttribute[Any]]:
    """Put the few that have several parts in the order of their DER (X.690, 11.6), which cryptography forgets."""
    parts = list(rdn)
    return parts if len(parts) == 1 else sorted(parts, key=lambda one: x509.Name([one]).public_bytes())


def _named(oid: x509.ObjectIdentifier) -> str:
    return _LONG_NAMES.get(oid, oid.dotted_string)


def _as_pair(name: x509.GeneralName) -> tuple[str, Any]:
    if isinstance(name, x509.DirectoryName):
        return "DirName", _as_rdns(name.value)
    if isinstance(name, x509.RegisteredID):
        return "Registered ID", _named(name.value)
    if isinstance(name, x509.OtherName):
        return "othername", "<unsupported>"
    if isinstance(name, x509.IPAddress):
        return "IP Address", _as_address(str(name.value))
    return _KINDS[type(name)], str(name.value)


def _as_address(text: str) -> str:
    """Of IPv6 all eight groups, in capitals; a network, which has no place there, as it is."""
    if ":" not in text or "/" in text:
        return text
    packed = ipaddress.IPv6Address(text).packed
    return ":".join(f"{int.from_bytes(packed[at : at + 2], 'big'):X}" for at in range(0, len(packed), 2))


def _uris(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    return tuple(str(name.value) for name in names if isinstance(name, x509.UniformResourceIdentifier))


def _hex(number: int) -> str:
    digits = f"{number:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


def _as_time(certificate: x509.Certificate, name: str) -> str:
    """Return a time of it; older releases of cryptography know UTC by another name."""
    found: dt.datetime = getattr(certificate, f"{name}_utc" if hasattr(certificate, f"{name}_utc") else name)
    return f"{_MONTHS[found.month - 1]} {found.day:2} {found:%H:%M:%S} {found.year} GMT"
