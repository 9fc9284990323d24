"""What a `tlsserver.asyncio.SSLContext` was asked for, frozen, and what that comes to for the contexts behind it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tlsserver.errors import ConfigurationError
from tlsserver.policy.authorities import without_crls
from tlsserver.policy.client_certificates import ClientCertificates
from tlsserver.policy.settings import ContextSettings

if TYPE_CHECKING:
    from pathlib import Path

    from engine_shim.identity import Identity

__all__ = ["HONOURED_OPTIONS", "Asked", "Chain", "version_of"]

_VERSIONS: dict[ssl.TLSVersion, str] = {ssl.TLSVersion.TLSv1_2: "1.2", ssl.TLSVersion.TLSv1_3: "1.3"}

# What pyOpenSSL's Context is told as it is; versions are told another way, and the rest changes nothing.
HONOURED_OPTIONS = int(ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE)

_MODES: dict[int, Literal["optional", "required"]] = {ssl.CERT_OPTIONAL: "optional", ssl.CERT_REQUIRED: "required"}


def version_of(name: str) -> ssl.TLSVersion:
    """Return a version that tlsserver names.

    Raises:
        ConfigurationError: There is none of that name.
    """
    for version, known in _VERSIONS.items():
        if known == name:
            return version
    raise ConfigurationError(f"TLS version {name!r} is not known: choose from {', '.join(_VERSIONS.values())}")


@dataclass(frozen=True)
class Chain:
    """A certificate with its chain and its key, loaded.

    Attributes:
        file: What it was read from.
        kind: Of its key: a context has one of each kind.
        identity: Both.
    """

    file: str | Path
    kind: str
    identity: Identity


@dataclass(frozen=True)
class Asked:
    """What was asked for.

    Attributes:
        options: Of `tlsserver.TLSContext` and `tlsserver.ClientContext`, as they were given.
        chains: The first is the one that was loaded first.
        authorities: In PEM, with revocation lists, each as it was given.
        defaults: Whether the system's authorities are trusted.
        verify_mode: As in `ssl`, and so are the others.
        check_hostname: See there.
        verify_flags: See there.
        common_name: `ssl.SSLContext.hostname_checks_common_name`.
        minimum: `ssl.SSLContext.minimum_version`; None: the profile's.
        maximum: `ssl.SSLContext.maximum_version`.
        flags: `ssl.SSLContext.options`.
    """

    options: dict[str, Any] = field(repr=False)  # there may be a password among them, in a URL
    verify_mode: ssl.VerifyMode
    check_hostname: bool
    verify_flags: int
    flags: int
    minimum: ssl.TLSVersion | None = None
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
    common_name: bool = True
    defaults: bool = False
    chains: tuple[Chain, ...] = ()
    authorities: tuple[bytes, ...] = ()

    def common(self) -> dict[str, Any]:
        """Return what servers and clients are both told."""
        least = None if self.minimum is None else _VERSIONS[self.minimum]
        most = _VERSIONS.get(self.maximum)
        if self.flags & ssl.OP_NO_TLSv1_2:
            least = "1.3"
        if self.flags & ssl.OP_NO_TLSv1_3:
            most = "1.2"
        return {**self.options, "min_version": least, "max_version": most}

    def servers(self) -> dict[str, Any]:
        """Return the options of a `tlsserver.TLSContext`, without certificate and key.

        What a change can take back is always among them: a context that is made of another one keeps what it is not
        told.
        """
        told = {"num_tickets": ContextSettings.num_tickets, **self.common()}
        told["client_certificates"] = self.client_certificates()
        if self.flags & ssl.OP_NO_TICKET:
            told["num_tickets"] = 0
        return told

    def client_certificates(self) -> ClientCertificates | None:
        """Return what clients are asked for; None: nothing was asked for."""
        given: ClientCertificates | None = self.options.get("client_certificates")
        if given is not None:
            return given
        mode = _MODES.get(self.verify_mode)
        if mode is None:
            return None
        data = b"\n".join(self.authorities)
        if not self.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF:  # which is in VERIFY_CRL_CHECK_CHAIN as well
            data = without_crls(data)
        return ClientCertificates(mode, ca_data=data, verify_flags=self.verify_flags, partial_chains=False)

    def clients(self) -> dict[str, Any]:
        """Return the options of a `tlsserver.ClientContext`, without certificate and key."""
        return {
            **self.common(),
            "ca_data": b"\n".join(self.authorities) or None,
            "default_paths": self.defaults,
            "verify": self.verify_mode != ssl.CERT_NONE,
            "check_hostname": self.check_hostname,
            "check_common_name": self.common_name,
            "verify_flags": self.verify_flags,
        }
