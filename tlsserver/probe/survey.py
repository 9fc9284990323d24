"""What to ask a server, one connection after the other.

Facts. A handshake tells the one thing that both ends have agreed upon, and not what else the server would have taken.

Decision. Everything is offered, what was chosen is taken out of the offer, and so on until the server refuses: as many
connections as there are things accepted, and one. Connections and time are bounded; what the bounds left out is said.

Trade-off. A server that chooses by other rules (by load, say) is seen as it was while it was asked.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tlsserver import certificates, ocsp
from tlsserver.bench.failures import TIMEOUT
from tlsserver.probe.client import NotOfferedError, RefusedError, UnreachableError, groups_known, suites_known
from tlsserver.probe.offer import ALPN, SUITES_12, SUITES_13, VERSIONS, Offer, name_of_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tlsserver.certificates import Described
    from tlsserver.probe.client import Client, Seen

__all__ = ["LONGEST", "MOST", "MOST_OF_ALL", "Findings", "make_survey"]

# A few dozen connections are what one page of a browser makes. One that takes everything accepts some 25 suites of the
# short list and groups; of OpenSSL's 130 suites and more, with all versions, some 200 can be accepted.
MOST = 60
MOST_OF_ALL = 240
LONGEST = 60.0  # seconds
_NO_ISSUER = (2, 20, 21)  # X509_V_ERR_...: of unknown authorities, and of chains that lack a certificate


@dataclass(frozen=True)
class Version:
    """One version of TLS.

    Attributes:
        accepted: None: not known, for it could not be offered or the probe was over.
        reason: Why not, else None.
        suites: Accepted ones, in the order in which they were chosen.
        order: Whose preference counts, ``"server"`` or ``"client"``; None where this was not to be seen.
    """

    accepted: bool | None
    reason: str | None = None
    suites: tuple[str, ...] = ()
    order: str | None = None


@dataclass(frozen=True)
class Verified:
    """What the verification of the chain came to.

    Attributes:
        ok: Whether a client that trusts these authorities would accept it for this name.
        name: What it has to be for.
        reason: Why not, else None.
    """

    ok: bool
    name: str
    reason: str | None


@dataclass(frozen=True)
class Resumption:
    """How sessions of one version resume.

    Attributes:
        tickets: How many came with one handshake.
        by_ticket: Whether one was taken back.
        by_id: The same of a session that the server keeps (TLS 1.2); None: does not exist, or was not asked.
    """

    tickets: int
    by_ticket: bool
    by_id: bool | None = None


@dataclass(frozen=True)
class Staple:
    """The OCSP response that came with the handshake.

    Attributes:
        status: ``"good"``, ``"revoked"``, ``"unknown"``, or why it is no answer.
        this_update: In ISO 8601, UTC.
        next_update: The same.
        reason: What is wrong with it, else None.
    """

    status: str
    this_update: str | None
    next_update: str | None
    reason: str | None


@dataclass(frozen=True)
class Findings:
    """What a server has shown.

    Attributes:
        target: As it was named.
        server_name: What was asked for (SNI); None: nothing.
        connections: How many it took.
        complete: Whether the bounds left nothing out.
        handshake_seconds: Of the first handshake that succeeded, without connect.
        versions: By name.
        groups: Accepted ones, in the order in which they were chosen.
        alpn: Accepted protocols of those that were offered.
        certificates: The chain as sent.
        verified: Whether it can be believed.
        resumption: By version.
        ocsp: The response that came with the handshake; None: none.
        secure_renegotiation: RFC 5746; None: there was no handshake of TLS 1.2 or older.
    """

    target: str
    server_name: str | None
    connections: int
    complete: bool
    handshake_seconds: float
    versions: dict[str, Version]
    groups: tuple[str, ...]
    alpn: tuple[str, ...]
    certificates: tuple[Described, ...]
    verified: Verified
    resumption: dict[str, Resumption]
    ocsp: Staple | None
    secure_renegotiation: bool | None

    def as_dict(self) -> dict[str, Any]:
        """Return the same for JSON."""
        return asdict(self)


def make_survey(
    client: Client, target: str, *, server_name: str | None, expected: str, everything: bool = False
) -> Findings:
    """Ask a server for everything.

    Args:
        client: Makes the connections.
        target: What to call it.
        server_name: What the client asks for (SNI).
        expected: What the certificate should be for.
        everything: Every suite that OpenSSL has, in every version.

    Raises:
        UnreachableError: Nobody listens, or nobody who speaks TLS.
    """
    asked = _Questions(client, MOST_OF_ALL if everything else MOST)
    first = _first_handshakes(asked)
    newest = next(iter(first.seen))
    main = first.seen[newest]
    versions = {name: _with_suites(asked, name, found, everything) for name, found in first.versions.items()}
    groups = _groups(asked, newest, versions[newest]) if newest in ("1.3", "1.2") else ()
    older = [seen.is_safe for name, seen in first.seen.items() if name != "1.3"]
    return Findings(
        target=target,
        server_name=server_name,
        handshake_seconds=round(main.seconds, 6),
        versions=versions,
        groups=groups,
        alpn=_eliminate(ALPN, lambda left: _settled(asked(Offer(newest, alpn=tuple(left))), "alpn")),
        certificates=tuple(certificates.describe(one, _now()) for one in main.certificates),
        verified=_verified(main, expected),
        resumption={
            name: _resumption(asked, name, seen) for name, seen in first.seen.items() if name in ("1.3", "1.2")
        },
        ocsp=_staple(main),
        secure_renegotiation=older[0] if older else None,
        # Last: they are counted meanwhile.
        connections=asked.count,
        complete=asked.is_complete,
    )


class _Questions:
    """Connections, counted and bounded."""

    def __init__(self, client: Client, most: int) -> None:
        self._client = client
        self._most = most
        self._until = time.monotonic() + LONGEST
        self.count = 0
        self.is_complete = True
        self.reason: str | None = None

    def __call__(self, offer: Offer, resumed: Seen | None = None) -> Seen | None:
        """Do a handshake; None: there was none, and `reason` says why."""
        if self.count >= self._most or time.monotonic() >= self._until:
            self.is_complete = False
            self.reason = "not tried: the probe's bounds are reached"
            return None
        self.count += 1
        try:
            return self._client.connect(offer, resumed, until=self._until)
        except NotOfferedError as error:
            self.count -= 1  # OpenSSL has refused before a byte was sent
            self.reason = str(error)
        except (RefusedError, UnreachableError) as error:
            self.reason = str(error)
            self.is_complete = self.is_complete and self.reason != TIMEOUT and not isinstance(error, UnreachableError)
            if isinstance(error, UnreachableError) and self.count == 1:
                raise
        return None


@dataclass(frozen=True)
class _First:
    versions: dict[str, Version]
    seen: dict[str, Seen]


def _first_handshakes(asked: _Questions) -> _First:
    """Do one handshake with each version, everything offered.

    Raises:
        UnreachableError: None of them succeeds.
    """
    versions: dict[str, Version] = {}
    seen: dict[str, Seen] = {}
    for name in VERSIONS:
        found = asked(Offer(name, verified=True))
        if found is not None:
            seen[name] = found
            versions[name] = Version(True, suites=(found.settled.cipher,))
        else:
            is_known = (
                asked.reason is not None and "cannot offer" not in asked.reason and "not tried" not in asked.reason
            )
            versions[name] = Version(False if is_known else None, asked.reason)
    if not seen:
        reasons = dict.fromkeys((one.reason or "").removeprefix("TLS: ") for one in versions.values())
        raise UnreachableError("no TLS: " + "; ".join(filter(None, reasons)))
    return _First(versions, seen)


def _with_suites(asked: _Questions, name: str, found: Version, everything: bool) -> Version:
    """Find the suites of a version; of old ones only on demand, for that they are accepted says enough."""
    if not found.accepted or (name in ("1.1", "1.0") and not everything):
        return found
    known = SUITES_13 if name == "1.3" else suites_known()
    tried = known if everything else tuple(one for one in (SUITES_13 if name == "1.3" else SUITES_12) if one in known)

    def choose(left: Sequence[str]) -> str | None:
        offer = Offer(name, suites=tuple(left)) if name == "1.3" else Offer(name, ciphers=tuple(left))
        return _settled(asked(offer), "cipher")

    suites = _eliminate(tried, choose) or found.suites
    order = None
    if len(suites) > 1:
        order = {suites[0]: "server", suites[-1]: "client"}.get(choose(suites[::-1]) or "")
    return replace(found, suites=suites, order=order)


def _groups(asked: _Questions, version: str, found: Version) -> tuple[str, ...]:
    """Find the groups. In TLS 1.2 only suites that have one are offered."""
    ephemeral = tuple(one for one in found.suites if one.startswith(("ECDHE", "DHE")))
    if version == "1.2" and not ephemeral:
        return ()
    offer = Offer(version, ciphers=ephemeral or ("ALL",))
    return _eliminate(
        groups_known(), lambda left: name_of_group(_settled(asked(replace(offer, groups=tuple(left))), "group"))
    )


def _eliminate(candidates: Sequence[str], choose: Callable[[Sequence[str]], str | None]) -> tuple[str, ...]:
    """Offer candidates until the server takes none of what is left; return what it took, in that order."""
    left = list(candidates)
    taken: list[str] = []
    while left and (chosen := choose(tuple(left))) in left:
        left.remove(chosen)
        taken.append(chosen)
    return tuple(taken)


def _settled(seen: Seen | None, name: str) -> str | None:
    return None if seen is None else getattr(seen.settled, name)


def _resumption(asked: _Questions, name: str, seen: Seen) -> Resumption:
    tickets = seen.sessions if name == "1.3" else int(seen.has_ticket)
    by_ticket = bool(tickets) and _resumes(asked, Offer(name), seen)
    if name == "1.3":
        return Resumption(tickets, by_ticket)
    offer = Offer(name, tickets=False)
    kept = asked(offer)
    return Resumption(tickets, by_ticket, kept is not None and _resumes(asked, offer, kept))


def _resumes(asked: _Questions, offer: Offer, seen: Seen) -> bool:
    again = asked(offer, seen)
    return again is not None and again.settled.reused


def _verified(seen: Seen, expected: str) -> Verified:
    number, words = seen.verified
    if number == 0:
        return Verified(True, expected, None)
    last = seen.certificates[-1] if seen.certificates else None
    if number in _NO_ISSUER and last is not None and not certificates.is_self_issued(last):
        issuer = certificates.describe(last, _now()).issuer
        words = f"the chain ends before its issuer {issuer!r}, which is neither sent nor trusted here"
    return Verified(False, expected, words)


def _staple(seen: Seen) -> Staple | None:
    if not seen.staple:
        return None
    try:
        found = ocsp.read(seen.staple)
    except ValueError as error:
        return Staple("unreadable", None, None, str(error))
    reason = found.complaint(seen.certificates, _now()) if seen.certificates else None
    return Staple(found.status, _iso(found.this_update), _iso(found.next_update), reason)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _now() -> datetime:
    return datetime.now(timezone.utc)
