"""What is known of a visitor's own connection, as data and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlsserver.client_certificate import ClientCertificate
    from tlsserver.protocols.base import ParkInfo, TLSInfo, Transport


@dataclass(frozen=True)
class Visitor:
    """One connection. What is None is unknown, or was not negotiated.

    Attributes:
        version: TLS version, such as "TLSv1.3".
        cipher: Cipher suite.
        group: Key exchange group.
        alpn: Application protocol.
        server_name: The name that the client asked for.
        resumed: Whether an earlier session was resumed.
        parks: How often the handshake was parked.
        park_seconds: For how long in total.
        engine: Where private-key operations run.
        linkage: How OpenSSL is reached.
        openssl: OpenSSL's version.
        address: The client's address and port.
        client_subject: Whose certificate the client has shown.
        client_sans: The names in it, each with its kind.
    """

    version: str | None
    cipher: str | None
    group: str | None
    alpn: str | None
    server_name: str | None
    resumed: bool | None
    parks: int
    park_seconds: float
    engine: str
    linkage: str
    openssl: str
    address: str | None
    client_subject: str | None = None
    client_sans: tuple[str, ...] = ()

    @classmethod
    def of(cls, transport: Transport, *, engine: str, linkage: str, openssl: str) -> Visitor:
        """Return what `transport` tells."""
        tls: TLSInfo | None = transport.get_extra_info("tls")
        park: ParkInfo | None = transport.get_extra_info("park")
        certificate: ClientCertificate | None = transport.get_extra_info("client_certificate")
        return cls(
            version=tls.version if tls else None,
            cipher=tls.cipher if tls else None,
            group=tls.group if tls else None,
            alpn=tls.alpn if tls else None,
            server_name=tls.server_name if tls else None,
            resumed=tls.reused if tls else None,
            parks=park.parks if park else 0,
            park_seconds=park.seconds if park else 0.0,
            engine=engine,
            linkage=linkage,
            openssl=openssl,
            address=_address(transport.get_extra_info("peername")),
            client_subject=certificate.subject if certificate else None,
            client_sans=tuple(f"{san.kind}:{san.value}" for san in certificate.sans) if certificate else (),
        )

    @property
    def rows(self) -> list[tuple[str, str]]:
        """What the page's table shows: label and value."""
        return [
            ("Protocol", (self.version or "unknown").replace("TLSv", "TLS ")),
            ("Cipher suite", self.cipher or "unknown"),
            ("Key exchange", self._group),
            ("Application", self.alpn or "none negotiated"),
            ("Server name", self.server_name or "none sent"),
            ("Session", {True: "resumed", False: "new", None: "unknown"}[self.resumed]),
            ("Handshake", self._park),
            ("Engine", self.engine),
            ("Linkage", self.linkage),
            ("OpenSSL", self._openssl),
            ("Your address", self.address or "unknown"),
            *(
                [("Your certificate", ", ".join((self.client_subject, *self.client_sans)))]
                if self.client_subject
                else []
            ),
        ]

    @property
    def headline(self) -> str:
        """One sentence on how the handshake went."""
        if self.parks:
            return f"Your handshake waited {milliseconds(self.park_seconds)} for its signature. Nobody else did."
        if self.resumed:
            return "You came back: your session was resumed, and no signature was needed."
        if self.engine == "off":
            return "Your handshake was signed on the loop itself, and everybody else waited."
        return "Your handshake did not have to wait, and nobody waited for it."

    @property
    def keys(self) -> str:
        """One sentence on where private keys are used."""
        if self.engine == "off":
            return "Private keys are used on the loop that serves this page: no engine is set."
        return f"Private keys are used in the engine “{self.engine}”, off the loop that serves this page."

    @property
    def steps(self) -> list[tuple[str, str, bool]]:
        """The handshake's way: name, what happens, and whether it is the parked part."""
        if self.resumed and not self.parks:
            signature = ("Resumed session", "the secret of an earlier visit proves who we are", False)
        elif self.parks:
            time = milliseconds(self.park_seconds)
            signature = (f"Parked for {time}", f"the engine “{self.engine}” signs, the loop serves others", True)
        elif self.engine == "off":
            signature = ("Signed on the loop", "no engine: all other connections wait", False)
        else:
            signature = ("Signed at once", f"the engine “{self.engine}” had its answer ready", False)
        return [
            ("Hello", "your browser says what it can speak", False),
            signature,
            ("Finished", "both ends hold the same keys", False),
        ]

    @property
    def _group(self) -> str:
        if self.group is None:
            return "none" if self.resumed else "unknown"
        return f"{self.group}, post-quantum" if "MLKEM" in self.group.upper() else self.group

    @property
    def _openssl(self) -> str:
        version, _, date = self.openssl.removeprefix("OpenSSL ").partition(" ")
        return f"{version} ({date})" if date else version

    @property
    def _park(self) -> str:
        if not self.parks:
            return "not parked"
        times = {1: "once", 2: "twice"}.get(self.parks, f"{self.parks} times")
        return f"parked {times}, for {milliseconds(self.park_seconds)}"


def milliseconds(seconds: float) -> str:
    """Return a duration with about three digits, such as "1.83 ms"; its space does not break."""
    value = seconds * 1000
    digits = 2 if value < 10 else 1 if value < 100 else 0  # noqa: PLR2004 - powers of ten
    return f"{value:.{digits}f}\u00a0ms"


def _address(peername: object) -> str | None:
    """Return an address of the socket module in words; IPv6 in brackets."""
    if not isinstance(peername, tuple) or len(peername) < 2:  # noqa: PLR2004 - host and port
        return str(peername) if peername else None
    host, port = peername[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
