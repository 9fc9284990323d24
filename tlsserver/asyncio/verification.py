"""Whom a `tlsserver.asyncio.SSLContext` trusts: the names of `ssl.SSLContext` that say so.

What the standard library would say to a value it says itself: a context of its own, without a key, is asked first.
"""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsserver.asyncio.changing import ChangingContext, told_as_ssl_does
from tlsserver.asyncio.plain import ContextError, NotSupportedError
from tlsserver.policy.authorities import read_authorities, refuse_trust_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

__all__ = ["Verification"]

# x509_vfy.h; the last two have no name in Python 3.10's ssl.
_FLAGS = int(
    ssl.VERIFY_CRL_CHECK_LEAF
    | ssl.VERIFY_CRL_CHECK_CHAIN
    | ssl.VERIFY_X509_STRICT
    | ssl.VERIFY_X509_TRUSTED_FIRST
    | 0x40  # VERIFY_ALLOW_PROXY_CERTS
    | 0x80000  # VERIFY_X509_PARTIAL_CHAIN
)


# What OpenSSL looks into of a folder: others in it are not trusted (X509_LOOKUP_hash_dir(3)).
_HASHED = re.compile(r"[0-9a-f]{8}\.r?[0-9]+")


class Verification(ChangingContext):
    """Authorities, and what is verified."""

    def load_verify_locations(
        self,
        cafile: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
        capath: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
        cadata: str | Buffer | None = None,
    ) -> None:
        """Trust authorities, read now; those of a folder as well.

        Args:
            cafile: PEM file of certificates and revocation lists.
            capath: Folder of such files, with the names that ``openssl rehash`` gives them; others are not looked into.
            cadata: Certificates: PEM as text, or DER.

        Raises:
            OSError: A file cannot be read.
            ssl.SSLError: There is no certificate in it.
            TypeError: An argument is of another type, or none is given.
        """
        with self._lock:
            self._refuse_beside_client_certificates()
            self._new_plain().load_verify_locations(cafile, capath, cadata)
            found = list(_read(cafile, capath, cadata))
            self._change(authorities=(*self._asked.authorities, *found))
            self._plain.load_verify_locations(cafile, capath, cadata)  # last: it tells what is trusted

    def load_default_certs(self, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        """Trust the system's authorities: those that Python's ssl trusts.

        Raises:
            TypeError: It is no purpose.
        """
        with self._lock:
            self._refuse_beside_client_certificates()
            if not isinstance(purpose, ssl.Purpose):
                raise TypeError(purpose)
            paths = ssl.get_default_verify_paths()
            # Clients have OpenSSL look into the folder when it is needed; a server's authorities are read and named.
            read = () if self._protocol == ssl.PROTOCOL_TLS_CLIENT else tuple(_read(paths.cafile, None, None))
            self._change(defaults=True, authorities=(*self._asked.authorities, *read))
            self._plain.load_default_certs(purpose)  # last, as above

    def set_default_verify_paths(self) -> None:
        """As `load_default_certs`."""
        self.load_default_certs()

    def cert_store_stats(self) -> dict[str, int]:
        """Count what was loaded: ``x509``, ``x509_ca`` and ``crl``."""
        return self._plain.cert_store_stats()

    def get_ca_certs(self, binary_form: bool = False) -> Any:  # noqa: ANN401 - as in typeshed, by overloads
        """Return the authorities that were loaded, as dicts or in DER."""
        return self._plain.get_ca_certs(binary_form)

    @property
    def verify_mode(self) -> ssl.VerifyMode:
        """Whether the peer's certificate is asked for and verified."""
        if self._is_given:
            return self._given_mode()
        asked = self._asked.client_certificates()
        if asked is not None and self._protocol == ssl.PROTOCOL_TLS_SERVER:
            return ssl.CERT_REQUIRED if asked.mode == "required" else ssl.CERT_OPTIONAL
        return self._asked.verify_mode

    @verify_mode.setter
    def verify_mode(self, value: int) -> None:
        self._refuse_beside_client_certificates()
        self._verify(verify_mode=value)

    def _given_mode(self) -> ssl.VerifyMode:
        if self._client is not None:
            return ssl.CERT_REQUIRED if self._client.verify else ssl.CERT_NONE
        # ssl.h: SSL_VERIFY_PEER 1, SSL_VERIFY_FAIL_IF_NO_PEER_CERT 2.
        mode = 0 if self._server is None else self._server.pyopenssl.get_verify_mode()
        return (ssl.CERT_REQUIRED if mode & 2 else ssl.CERT_OPTIONAL) if mode & 1 else ssl.CERT_NONE

    @property
    def check_hostname(self) -> bool:
        """Whether the server's name is verified; of clients alone."""
        if self._is_given:
            return self._client is not None and self._client.check_hostname
        return self._asked.check_hostname

    @check_hostname.setter
    def check_hostname(self, value: bool) -> None:
        self._verify(check_hostname=value)

    @property
    def verify_flags(self) -> ssl.VerifyFlags:
        """Flags of the verification of certificates."""
        return ssl.VerifyFlags(self._asked.verify_flags)

    @verify_flags.setter
    def verify_flags(self, value: int) -> None:
        self._refuse_beside_client_certificates()
        unknown = int(value) & ~_FLAGS
        if unknown:
            raise NotSupportedError(f"verify_flags {unknown:#x} is not for servers and clients of TLS: leave it out")
        self._verify(verify_flags=value)

    @property
    def hostname_checks_common_name(self) -> bool:
        """Whether the subject's common name counts where a certificate has no DNS name; of clients alone."""
        return self._asked.common_name

    @hostname_checks_common_name.setter
    def hostname_checks_common_name(self, value: bool) -> None:
        self._change(common_name=bool(value))

    @property
    def _host_flags(self) -> int:
        """As the private name of the standard library has it; `hostname_checks_common_name` changes it."""
        plain = self._plain_as_asked()
        plain.hostname_checks_common_name = self._asked.common_name
        return int(plain._host_flags)  # type: ignore[attr-defined] # noqa: SLF001 - private there, too

    def _verify(self, **wanted: Any) -> None:  # noqa: ANN401 - the standard library says what it takes
        """Let the standard library apply its rules between verify_mode and check_hostname."""
        with self._lock:
            plain = self._plain_as_asked()
            for name, value in wanted.items():
                setattr(plain, name, value)
            self._change(
                verify_mode=plain.verify_mode,
                check_hostname=plain.check_hostname,
                verify_flags=int(plain.verify_flags),
            )

    def _plain_as_asked(self) -> ssl.SSLContext:
        plain, asked = self._new_plain(), self._asked
        plain.check_hostname = False
        plain.verify_mode = asked.verify_mode
        plain.check_hostname = asked.check_hostname
        plain.verify_flags = ssl.VerifyFlags(asked.verify_flags)
        return plain

    def _refuse_beside_client_certificates(self) -> None:
        if self._asked.options.get("client_certificates") is not None:
            raise ContextError("client_certificates= was given, which says who is trusted: change that instead")


def _read(cafile: Any, capath: Any, cadata: Any) -> Iterator[bytes]:  # noqa: ANN401 - as the standard library takes them
    with told_as_ssl_does():
        if cafile is not None:
            yield _plain_pem(_path(cafile))
        if capath is not None:
            files = (path for path in _path(capath).iterdir() if _HASHED.fullmatch(path.name) and path.is_file())
            yield from map(_plain_pem, sorted(files))
        if cadata is not None:
            given = cadata if isinstance(cadata, str) else bytes(cadata)
            ders = read_authorities(given)
            yield "".join(map(ssl.DER_cert_to_PEM_cert, ders)).encode()


def _plain_pem(path: Path) -> bytes:
    data = path.read_bytes()
    refuse_trust_settings(data)
    return data


def _path(given: Any) -> Path:  # noqa: ANN401 - as above
    return Path(os.fsdecode(given))
