"""Who may ask a key server for signatures: users of this machine by the kernel's word, others by their certificates."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import struct
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.x509.oid import NameOID

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tlsserver.client_certificate import ClientCertificate

__all__ = ["Allowed", "LocalPeer", "group_id", "user_id", "visible"]

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))
_SO_PEERGROUPS = 59  # asm-generic/socket.h; `socket` does not have it
_GROUPS_ROOM = 1024  # bytes, the most that `getsockopt` takes: 256 groups
_LAST_ID = (1 << 32) - 2  # the one above it means "leave it as it is" to setresuid(2) and chown(2)
_LONGEST_ID = 10  # digits
_LONGEST_NAME = 256  # characters of it in logs; DNS names end at 253


@dataclass(frozen=True)
class LocalPeer:
    """Who was at the other end of a Unix socket when it was connected.

    Attributes:
        uid: The effective user.
        groups: The effective group and the supplementary ones.
    """

    uid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, sock: socket.socket) -> LocalPeer:
        """Ask the kernel.

        Raises:
            OSError: It is no Unix socket, or the client has left.
        """
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, gid = _CREDENTIALS.unpack(data)
        more = array("I")
        with contextlib.suppress(OSError):  # more than there is room for: the first one will have to do
            more.frombytes(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_ROOM))
        return cls(uid, frozenset((gid, *more)))


@dataclass(frozen=True)
class Allowed:
    """Who may come in.

    Attributes:
        uids: Users of this machine. Neither these nor groups: the user that this process runs as.
        gids: Groups of this machine.
        names: Names of clients' certificates. None: whoever has a certificate of the authority.
    """

    uids: frozenset[int] = field(default_factory=frozenset)
    gids: frozenset[int] = field(default_factory=frozenset)
    names: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Allowed:
        """Read ``uid:NAME``, ``gid:NAME`` (or their numbers), and names of certificates.

        Raises:
            ConfigurationError: There is no such user or group, or the text is empty.
        """
        uids, gids, names = set(), set(), set()
        for text in texts:
            kind, colon, rest = text.partition(":")
            if not text or (colon and not rest):
                raise ConfigurationError(
                    f"--allow {text!r} names nobody: give uid:NAME, gid:NAME or a certificate's name"
                )
            if kind == "uid" and colon:
                uids.add(user_id(rest))
            elif kind == "gid" and colon:
                gids.add(group_id(rest))
            else:
                names.add(_folded(text))
        return cls(frozenset(uids), frozenset(gids), frozenset(names))

    @property
    def is_of_this_machine(self) -> bool:
        """Whether it says anything about users of this machine."""
        return bool(self.uids or self.gids)

    def local(self, peer: LocalPeer) -> str | None:
        """Return what to call the client in logs; None: it may not come in."""
        uids = self.uids if self.is_of_this_machine else {os.geteuid()}
        return f"uid:{peer.uid}" if peer.uid in uids or self.gids & peer.groups else None

    def certified(self, certificate: ClientCertificate) -> str | None:
        """Return what to call the client in logs; None: it may not come in."""
        try:
            names = names_of(certificate)
        except ValueError:  # stricter than OpenSSL, which has accepted it
            return None
        if not self.names:
            return visible(names[0]) if names else "a client without a name"
        return next((visible(name) for name in names if _folded(name) in self.names), None)


def names_of(certificate: ClientCertificate) -> list[str]:
    """Return the names that an authority has vouched for: DNS and URI, or, where there are none, the common name.

    As for servers (RFC 9525, and RFC 6125 before it): where there are names of their own kinds, the subject is only for
    people, and not every authority looks at it.

    Raises:
        ValueError: cryptography cannot read the certificate.
    """
    names = [san.value for san in certificate.sans if san.kind in ("DNS", "URI")]
    if names:
        return names
    common = certificate.x509.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [str(one.value) for one in common] if len(common) == 1 else []


def visible(name: str) -> str:
    """Make a name fit for a line of a log: an authority may have signed line breaks, or a name without end."""
    told = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in name[:_LONGEST_NAME])
    return told if len(name) <= _LONGEST_NAME else f"{told}..."


def user_id(text: str) -> int:
    """Return the number of a user, by name or number.

    Raises:
        ConfigurationError: There is none.
    """
    if text.isdecimal():
        return _number(text, "user")
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ConfigurationError(f"no user {text!r} on this machine: give a name or a number") from None


def group_id(text: str) -> int:
    """Return the number of a group, by name or number.

    Raises:
        ConfigurationError: There is none.
    """
    if text.isdecimal():
        return _number(text, "group")
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigurationError(f"no group {text!r} on this machine: give a name or a number") from None


def _number(text: str, what: str) -> int:
    if len(text) > _LONGEST_ID or int(text) > _LAST_ID:
        raise ConfigurationError(f"no {what} has the number {text:.20}: the last one is {_LAST_ID}")
    return int(text)


def _folded(name: str) -> str:
    """Host names have no case (RFC 4343); a URI's path has, and is compared as it is.

    Beyond ASCII nothing is folded: there is a second capital K (U+212A), and whoever has it in a name is somebody else.
    """
    return name.lower() if name.isascii() and ":" not in name else name
