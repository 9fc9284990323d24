"""Which clients may come in: the setting, and what its files come to. A leaf but for the errors.

Facts
- OpenSSL checks revocation only if it is told to, and then refuses whoever's issuer it has no CRL of.
- It trusts what is self-signed, and an intermediate authority only if told to (X509_V_FLAG_PARTIAL_CHAIN). Then a chain
  ends at the first that is trusted, and the CRL that should name this one is verified with its key instead of its
  issuer's: nobody comes in.
- A session resumes without its client proving anything again.

Decision
- All files are read at once, when the context is built, and looked at there: what cannot work is said then, all of it,
  and not to each client. What was read is what verification, the names that clients are told, and the digest of the
  policy (`tlsserver.policy.session_id`) are made of: they cannot differ.
- What is in the CA file is trusted, whoever signed it, as Python does since 3.13; OpenSSL is told so only where an
  issuer is missing, and CRLs are refused there.

Trade-off
- The intermediate authorities whose CRLs are given have to be in the CA file: else nobody knows whose CRLs they are.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from tlsserver.asking import complaint
from tlsserver.errors import ConfigurationError
from tlsserver.policy.authorities import split_der

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tlsserver.client_request import ClientCertificateRequest

__all__ = ["DEPTH_MOST", "MODES", "ClientCertificates", "Trust"]

logger = logging.getLogger(__name__)

MODES = ("optional", "required")

# OpenSSL's own bound.
DEPTH_MOST = 100

_CERTIFICATE = re.compile(rb"-----BEGIN (X509 )?CERTIFICATE-----(.+?)-----END (X509 )?CERTIFICATE-----", re.DOTALL)
_CRL = re.compile(rb"-----BEGIN (X509 )CRL-----(.+?)-----END (X509 )CRL-----", re.DOTALL)
_DER_SEQUENCE = b"\x30"


@dataclass(frozen=True)
class ClientCertificates:
    """Ask clients for a certificate.

    Attributes:
        mode: ``"required"``: nobody comes in without one; ``"optional"``: whoever sends one must send a good one.
        ca_certs: File of the authorities whose clients may come in, PEM or DER; they are named to the client.
        ca_path: Folder with such files, also one of c_rehash; both may be given.
        crls: Files of revocation lists, PEM or DER; with any, every certificate of a chain is looked up, so every
            authority needs one.
        depth: How many intermediate authorities a chain may have. 9 is more than any real one has, and bounds what a
            client can make us verify.
        ca_data: More authorities: PEM as text or bytes, also with revocation lists in it, or as bytes DER.
        verify_flags: More flags of the verification (X509_VERIFY_PARAM_set_flags(3)), numbers of `ssl.VerifyFlags`.
            With VERIFY_CRL_CHECK_LEAF alone only the client's own certificate is looked up in the lists.
        partial_chains: Whether a chain may end at an authority whose issuer is missing; False: only if ``verify_flags``
            say so (VERIFY_X509_PARTIAL_CHAIN), as Python's ssl has it.
        on_verified: Asked about each client whose certificate is good, on full handshakes and on resumptions; it
            answers the request, at once or later. Handshakes run in jobs then. None: OpenSSL's verification is enough.
    """

    mode: Literal["optional", "required"] = "required"
    ca_certs: str | Path | None = None
    ca_path: str | Path | None = None
    crls: Sequence[str | Path] = ()
    depth: int = 9
    ca_data: str | bytes = b""
    verify_flags: int = 0
    partial_chains: bool = True
    on_verified: Callable[[ClientCertificateRequest], object] | None = None

    def files(self) -> tuple[str | Path, ...]:
        """Return what is read, to be looked at for changes: files, and the folder with what is in it."""
        folder = () if self.ca_path is None else (self.ca_path, *_in_folder(Path(self.ca_path)))
        return (*(() if self.ca_certs is None else (self.ca_certs,)), *folder, *self.crls)

    def read(self) -> Trust:
        """Read the files.

        Raises:
            ConfigurationError: Something cannot work; all of it is said at once.
        """
        problems = list(self._wrong_settings())
        authorities = _unique(self._authorities(problems))
        if not authorities and not problems:
            problems.append(f"no certificate of an authority in {self._where()}: put the clients' CA there")
        trust = Trust(tuple(authorities), tuple(_unique(self._revoked(problems))))
        problems.extend(_wrong_crls(trust))
        if problems:
            raise ConfigurationError("; ".join(f"client certificates: {problem}" for problem in problems))
        _warn_of_missing_crls(trust)
        return trust

    def _wrong_settings(self) -> Iterator[str]:
        if self.mode not in MODES:
            yield f"mode {self.mode!r} is not known: choose from {', '.join(MODES)}"
        if self.ca_certs is None and self.ca_path is None and not self.ca_data:
            yield "no authority is given whose clients may come in: give a CA file or folder"
        if not 0 <= self.depth <= DEPTH_MOST:
            what = "is less than 0" if self.depth < 0 else f"is more than {DEPTH_MOST}"
            yield f"depth {self.depth} {what}: give how many intermediate authorities a chain may have"
        if self.on_verified is not None:
            answers = "request.accept() or request.reject()"
            message = complaint(self.on_verified, "on_verified", "ClientCertificateRequest", answers)
            if message is not None:
                yield message

    def _where(self) -> str:
        found = " or ".join(str(path) for path in (self.ca_certs, self.ca_path) if path is not None)
        return found or "the CA data"

    def _authorities(self, problems: list[str]) -> Iterator[_Item]:
        if self.ca_data:
            yield from _given(self.ca_data, _CERTIFICATE, x509.load_der_x509_certificate, problems)
        if self.ca_certs is not None:
            yield from _items(Path(self.ca_certs), _CERTIFICATE, x509.load_der_x509_certificate, "CA file", problems)
        if self.ca_path is None:
            return
        folder = Path(self.ca_path)
        if not folder.is_dir():
            problems.append(f"CA folder {folder}: is no folder that this process may read")
        for path in _in_folder(folder):
            if _CERTIFICATE.search(_bytes_or_none(path)):
                yield from _items(path, _CERTIFICATE, x509.load_der_x509_certificate, "CA file", problems)

    def _revoked(self, problems: list[str]) -> Iterator[_Item]:
        yield from _given(self.ca_data, _CRL, x509.load_der_x509_crl, problems)
        for path in self.crls:
            found = list(_items(Path(path), _CRL, x509.load_der_x509_crl, "CRL", problems))
            yield from found
            if not found and not any(str(path) in problem for problem in problems):
                problems.append(f"CRL {path}: there is none in it: give a file of `openssl crl`, PEM or DER")


@dataclass(frozen=True)
class _Item:
    """A certificate or CRL, where it was found, and parsed."""

    path: Path
    der: bytes
    parsed: Any

    def __hash__(self) -> int:
        return hash(self.der)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Item) and self.der == other.der


@dataclass(frozen=True)
class Trust:
    """What the files of `ClientCertificates` came to.

    Attributes:
        authorities: Each once.
        crls: Each once.
    """

    authorities: tuple[_Item, ...]
    crls: tuple[_Item, ...]

    def rootless(self) -> list[str]:
        """Name the authorities whose own issuers are missing: chains end there, below any root."""
        names = {item.parsed.subject for item in self.authorities}
        return [_name(item) for item in self.authorities if item.parsed.issuer not in names]

    def digest(self) -> bytes:
        """Return a digest of the contents, whatever their files and their order."""
        kinds = (b"authorities", self.authorities), (b"crls", self.crls)
        sums = [(kind, sorted(hashlib.sha256(item.der).digest() for item in items)) for kind, items in kinds]
        return hashlib.sha256(b"".join(kind + b"".join(found) for kind, found in sums)).digest()


def _name(authority: _Item) -> str:
    return str(authority.parsed.subject.rfc4514_string())


def _unique(items: Iterator[_Item]) -> list[_Item]:
    return list(dict.fromkeys(items))


def _in_folder(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _bytes_or_none(path: Path) -> bytes:
    """What lies in a folder may be anything."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _items(path: Path, form: re.Pattern[bytes], load: Any, what: str, problems: list[str]) -> Iterator[_Item]:  # noqa: ANN401 - a loader of cryptography's
    try:
        data = path.read_bytes()
    except OSError as error:
        problems.append(f"{what} {path}: {error.strerror}: give the path of a file that this process may read")
        return
    for number, der in enumerate(_ders(data, form), 1):
        parsed = _parsed(der, load)
        if parsed is None:
            problems.append(f"{what} {path}: entry {number} cannot be read: it is damaged, make it anew")
        else:
            yield _Item(path, der, parsed)


def _given(data: str | bytes, form: re.Pattern[bytes], load: Any, problems: list[str]) -> Iterator[_Item]:  # noqa: ANN401 - a loader of cryptography's
    raw = data.encode("ascii", "replace") if isinstance(data, str) else data
    if form is _CRL and b"-----BEGIN" not in raw:
        return
    try:
        ders = split_der(raw) if b"-----BEGIN" not in raw else list(_ders(raw, form))
    except ConfigurationError as error:
        problems.append(f"CA data: {error}")
        return
    for number, der in enumerate(ders, 1):
        parsed = _parsed(der, load)
        if parsed is None:
            problems.append(f"CA data: entry {number} cannot be read: it is damaged, make it anew")
        else:
            yield _Item(Path("(data)"), der, parsed)


def _parsed(der: bytes, load: Any) -> Any:  # noqa: ANN401 - a loader of cryptography's, and what it makes
    try:
        return load(der)
    except ValueError:
        return None


def _ders(data: bytes, form: re.Pattern[bytes]) -> Iterator[bytes]:
    if b"-----BEGIN" not in data:
        yield from (data,) if data.startswith(_DER_SEQUENCE) else ()
        return
    for found in form.finditer(data):
        yield _decoded(found[2])


def _decoded(text: bytes) -> bytes:
    """Decode base64; what is none comes to nothing, which is no certificate either."""
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""


# Revocation lists


def _wrong_crls(trust: Trust) -> Iterator[str]:
    by_name: dict[x509.Name, list[_Item]] = {}
    for authority in trust.authorities:
        by_name.setdefault(authority.parsed.subject, []).append(authority)
    rootless = trust.rootless()
    if trust.crls and rootless:
        yield f"CRLs cannot be used without the issuer of {rootless[0]}: add its certificate to the CA file"
    for crl in trust.crls:
        problem = _wrong_crl(crl, by_name.get(crl.parsed.issuer, []))
        if problem is not None:
            yield f"CRL {crl.path}: {problem}"


def _wrong_crl(crl: _Item, issuers: list[_Item]) -> str | None:
    name = crl.parsed.issuer.rfc4514_string()
    if not issuers:
        return f"its issuer {name} is not among the authorities: add that certificate to the CA file"
    if not any(_signed(crl, issuer) for issuer in issuers):
        return f"its signature is not that of {name}: get it anew"
    now = dt.datetime.now(dt.timezone.utc)
    begins, ends = _time(crl.parsed, "last_update"), _time(crl.parsed, "next_update")
    if ends is not None and ends <= now:
        return f"it has expired at {ends:%Y-%m-%d %H:%M} UTC, and OpenSSL would refuse every client: get a newer one"
    if begins is not None and begins > now:
        return f"it is not valid before {begins:%Y-%m-%d %H:%M} UTC: set the clock, or wait"
    return None


def _signed(crl: _Item, issuer: _Item) -> bool:
    try:
        return bool(crl.parsed.is_signature_valid(issuer.parsed.public_key()))
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return True  # an algorithm that OpenSSL may know


def _time(crl: Any, name: str) -> dt.datetime | None:  # noqa: ANN401 - a CRL of any release of cryptography
    """Return a time of a CRL; naive ones, of older releases of cryptography, are in UTC."""
    found: dt.datetime | None = getattr(crl, f"{name}_utc") if hasattr(crl, f"{name}_utc") else getattr(crl, name)
    return found if found is None or found.tzinfo else found.replace(tzinfo=dt.timezone.utc)


def _warn_of_missing_crls(trust: Trust) -> None:
    issuers = {crl.parsed.issuer for crl in trust.crls}
    missing = [_name(item) for item in trust.authorities if item.parsed.subject not in issuers]
    if trust.crls and missing:
        logger.warning("no CRL of %s: OpenSSL refuses every client that one of these has issued", " or ".join(missing))
