"""What a probe has found, as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsserver.certificates import Described
    from tlsserver.probe.survey import Findings, Resumption, Version

__all__ = ["lines"]

_OLD = ("1.1", "1.0")  # forbidden since RFC 8996


def lines(found: Findings) -> Iterator[str]:
    """Give the lines of a table."""
    for label, text in _rows(found):
        yield f"{label:<15}{_printable(text)}".rstrip()


def _printable(text: str) -> str:
    """Return what a terminal shows and does not obey: much of it is the server's."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def _rows(found: Findings) -> Iterator[tuple[str, str]]:
    asked = f", asked for {found.server_name}" if found.server_name else ", without a server name"
    yield "target", found.target + asked
    yield "handshake", f"{found.handshake_seconds * 1000:.1f} ms"
    for name, version in found.versions.items():
        yield f"TLS {name}", _version(name, version)
        yield from (("", f"  {suite}") for suite in version.suites[1:])
    yield "groups", ", ".join(found.groups) or "none of those that were offered"
    yield "ALPN", ", ".join(found.alpn) or "none of h2, http/1.1"
    yield from _chain(found)
    for name, resumption in found.resumption.items():
        yield "resumption", f"TLS {name}: {_resumption(name, resumption)}"
    yield from _ocsp(found)
    if found.secure_renegotiation is not None:
        yield "renegotiation", f"{'secure (RFC 5746)' if found.secure_renegotiation else 'NOT SECURED: no RFC 5746'}"
    yield "probe", f"{found.connections} connections" + ("" if found.complete else "; NOT COMPLETE: bounds or timeouts")


def _version(name: str, version: Version) -> str:
    if not version.accepted:
        return f"{'unknown' if version.accepted is None else 'no'}: {version.reason}"
    order = {"server": ", the server's order", "client": ", the client's order"}.get(version.order or "", "")
    return f"{version.suites[0]}{order}{', OLD: not to be used any more (RFC 8996)' if name in _OLD else ''}"


def _chain(found: Findings) -> Iterator[tuple[str, str]]:
    for number, one in enumerate(found.certificates):
        yield ("certificate", _certificate(one)) if number == 0 else ("chain", _certificate(one))
        if number == 0:
            yield "", f"  for {', '.join(one.names) or 'no name'}"
            yield "", f"  SHA-256 {one.sha256}"
    verified = found.verified
    yield "verified", f"yes, for {verified.name}" if verified.ok else f"NO, for {verified.name}: {verified.reason}"


def _certificate(one: Described) -> str:
    until = (
        f"{one.valid_until[:10]} ({one.days_left} days left)"
        if one.days_left >= 0
        else f"{one.valid_until[:10]}: EXPIRED"
    )
    issuer = "itself" if one.self_issued else one.issuer
    return f"{one.subject}, {one.key}, from {one.valid_from[:10]} to {until}, {one.signature} by {issuer}"


def _resumption(name: str, found: Resumption) -> str:
    tickets = f"{found.tickets} ticket{'s'[: found.tickets != 1]}"
    said = f"{tickets}, {'taken back' if found.by_ticket else 'not taken back'}" if found.tickets else "no tickets"
    if name == "1.3":
        return said
    return f"{said}; {'ids too' if found.by_id else 'no ids'}"


def _ocsp(found: Findings) -> Iterator[tuple[str, str]]:
    if found.ocsp is None:
        yield "OCSP", "no response came with the handshake"
        return
    times = f", of {found.ocsp.this_update}, until {found.ocsp.next_update or 'it is replaced'}"
    yield "OCSP", found.ocsp.status + (times if found.ocsp.this_update else "")
    if found.ocsp.reason:
        yield "", f"  NOT USABLE: {found.ocsp.reason}"
