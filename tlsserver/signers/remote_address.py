"""Where a key server listens: what an address may look like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address

from tlsserver.errors import ConfigurationError

__all__ = ["Address", "parse"]

_FORMS = "write unix:/run/signer.sock, unix+tls:/run/signer.sock, host:port or [::1]:port"
_LONGEST_PATH = 107  # unix(7): sun_path has 108 bytes, with the zero at its end
_LAST_PORT = 65535
_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[^\s\[\]]+)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Address:
    """One key server's address.

    Attributes:
        path: Of its Unix socket; None: it is reached by TCP. With ``@`` first it is an abstract one (unix(7)).
        host: Its name or IP address; None: it has a Unix socket.
        port: Its TCP port.
        uses_tls: Whether TLS is spoken there; always by TCP.
    """

    path: str | None = None
    host: str | None = None
    port: int = 0
    uses_tls: bool = False

    @property
    def unix_name(self) -> str:
        """The Unix socket's name as the kernel has it."""
        path = self.path or ""
        return f"\0{path[1:]}" if path.startswith("@") else path

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix+tls:{self.path}" if self.uses_tls else f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


def parse(text: str | Address) -> Address:
    """Read an address.

    Args:
        text: ``unix:/run/signer.sock``, ``unix+tls:/run/signer.sock`` (gokeyless speaks TLS there), ``host:port`` or
            ``[::1]:port``.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(text, Address):
        return text
    scheme, colon, path = text.partition(":")
    if colon and scheme in ("unix", "unix+tls"):
        return _unix(text, path, uses_tls=scheme == "unix+tls")
    found = _HOST_AND_PORT.fullmatch(text)
    port = int(found["port"]) if found else 0
    if found is None or not 0 < port <= _LAST_PORT or not _is_host(found["ipv6"], found["host"]):
        raise ConfigurationError(f"signer {text!r} is no address: {_FORMS}")
    return Address(host=found["ipv6"] or found["host"], port=port, uses_tls=True)


def _is_host(ipv6: str | None, name: str | None) -> bool:
    try:
        return bool(IPv6Address(ipv6) if ipv6 is not None else (name or "").encode("idna"))
    except ValueError:  # UnicodeError is one
        return False


def _unix(text: str, path: str, *, uses_tls: bool) -> Address:
    length = len(path.encode())
    if "\0" in path or not path.strip("@") or length > _LONGEST_PATH:
        why = f"its path has {length} bytes where {_LONGEST_PATH} are the most" if length > _LONGEST_PATH else "no path"
        raise ConfigurationError(f"signer {text!r} is no address ({why}): {_FORMS}")
    return Address(path=path, uses_tls=uses_tls)
