"""Keys in other processes or on other machines: the client of the keyless protocol (docs/remote-signers.md).

The engine's queue holds requests until a loop takes them; each loop that uses the engine has a pool of its own, with
connections of its own, so nothing is shared between loops but the queue and the numbers.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from engine_shim import KeyLoadError
from tlsserver.errors import ConfigurationError
from tlsserver.signers.base import DEADLINE, Signer
from tlsserver.signers.breaker import Breaker
from tlsserver.signers.remote_address import Address, parse
from tlsserver.signers.remote_link import LinkSettings
from tlsserver.signers.remote_numbers import after_end, none, total
from tlsserver.signers.remote_peer import Peer
from tlsserver.signers.remote_pool import Pool
from tlsserver.signers.remote_tls import ClientTLS, TLSClient

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from engine_shim import Key, Loop
    from tlsserver.signers.remote_job import Job
    from tlsserver.signers.remote_peer import PeerOwner
    from tlsserver.stats import SignerNumbers

    _Servers = list[tuple[Address, TLSClient | None]]

__all__ = ["Address", "ClientTLS", "RemoteSigner"]

_TYPES = ("RSA", "RSA-PSS", "EC", "ED25519")
_MOST_IN_FLIGHT = 1 << 16
_MOST_CONNECTIONS = 64
# Seconds of a turn of the loop, for the answers of all links together.
_TURN_SECONDS = 0.002
_SHORTEST, _LONGEST = 0.001, 3600.0  # more is a mistake in the caller's units


class RemoteSigner(Signer):
    """An engine whose ops key servers perform.

    Args:
        addresses: Of the key servers, each with the same keys: ``unix:/run/signer.sock``, ``host:port``,
            ``[::1]:port``, or ``unix+tls:/run/signer.sock``.
        tls: What is shown to them and expected of them. Only those that have Unix sockets without TLS can do without.
        name: As statistics of engines have it.
        deadline: Seconds for each op, whatever becomes of it; see `engine_shim.SignerEngine`.
        queue_size: Ops that may wait to be taken; see there.
        attempt_timeout: Seconds that one key server has for an answer before another is asked. An answer that comes
            later is used all the same, if it is the first.
        connect_timeout: Seconds for connecting, and as many for the TLS handshake.
        connections: To each key server, for each loop.
        most_in_flight: Requests under way on one connection.
        ping_interval: Seconds without a sound after which a key server is asked whether it is there.
        ping_timeout: Seconds that it has to answer that.
        breaker_failures: So many failures in a row, and a key server is not asked for a while.
        breaker_seconds: For how long.
        peer_uids: Users who may listen at Unix sockets; None: this process's own and root.
        fallback: Private keys of this process that perform what no key server does.

    Raises:
        ConfigurationError: A setting cannot work.
        engine_shim.ShimError: The client's key cannot be read, or is not its certificate's.
    """

    def __init__(
        self,
        addresses: Sequence[str | Address],
        *,
        tls: ClientTLS | None = None,
        name: str = "remote",
        deadline: float = DEADLINE,
        queue_size: int = 1024,
        attempt_timeout: float = 1.0,
        connect_timeout: float = 1.0,
        connections: int = 1,
        most_in_flight: int = 256,
        ping_interval: float = 1.0,
        ping_timeout: float = 1.0,
        breaker_failures: int = 5,
        breaker_seconds: float = 1.0,
        peer_uids: Collection[int] | None = None,
        fallback: Key | Sequence[Key] | None = None,
    ) -> None:
        times = {
            "attempt_timeout": attempt_timeout,
            "connect_timeout": connect_timeout,
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "breaker_seconds": breaker_seconds,
        }
        _check(times, most_in_flight=most_in_flight, connections=connections, breaker_failures=breaker_failures)
        self._servers = _find_servers(addresses, tls)
        self._settings = LinkSettings(
            attempt_timeout=attempt_timeout,
            connect_timeout=connect_timeout,
            most_in_flight=most_in_flight,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            peer_uids=frozenset((os.geteuid(), 0) if peer_uids is None else peer_uids),
            turn_seconds=_TURN_SECONDS / (len(self._servers) * connections),
        )
        self._connections = connections
        self._breaker = (breaker_failures, breaker_seconds)
        super().__init__(name, deadline=deadline, queue_size=queue_size, fallback=fallback)
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._pools: list[Pool] = []  # under the lock
        self._ended = tuple(none(str(one)) for one, _ in self._servers)  # as well

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        """Make a key whose private half is with the key servers; see `engine_shim.SignerEngine.load_key`.

        Raises:
            KeyLoadError: It is not a certificate or public key, or of a type that the protocol does not have.
            OSError: The file cannot be read.
        """
        key = super().load_key(source, password)
        if key.type not in _TYPES:
            raise KeyLoadError(
                f"the keyless protocol has no {key.type} signatures: use a key of type RSA, EC or Ed25519"
            )
        return key

    def join(self, loop: Loop) -> Callable[[], object]:
        """Connect, and answer from now on; see `engine_shim.BaseEngine.join`."""
        pool = Pool(
            loop,
            self.fileno(),
            take=self.take,
            give_up=self.give_up,
            has_fallback=self._has_fallback,
            orphaned=self._adopt,
            make_peers=self._make_peers,
        )
        with self._lock:
            self._pools.append(pool)
        if self.closed:
            pool.post(self._leave, pool)
        return lambda: self._leave(pool)

    def signers(self) -> tuple[SignerNumbers, ...]:
        """Take a snapshot of the numbers of each key server. Any thread."""
        with self._lock:
            ended = self._ended
            living = [[peer.numbers() for peer in pool.peers] for pool in self._pools]
        return tuple(total(one, [of_pool[i] for of_pool in living]) for i, one in enumerate(ended))

    def close(self, timeout: float = 5.0) -> bool:
        """Stop it: what waits for an answer fails, and the loops close their connections."""
        ended = super().close(timeout)
        with self._lock:
            pools = list(self._pools)
        for pool in pools:
            pool.post(self._leave, pool)
        return ended

    def _make_peers(self, loop: Loop, owner: PeerOwner) -> list[Peer]:
        return [
            Peer(
                *(loop, address, client, self._settings),
                connections=self._connections,
                breaker=Breaker(*self._breaker),
                owner=owner,
            )
            for address, client in self._servers
        ]

    def _has_fallback(self, key_id: bytes | None) -> bool:
        return bool(self._fallback) if key_id is None else key_id in self._fallback

    def _leave(self, pool: Pool) -> None:
        """End a pool, on its loop's thread. Idempotent."""
        with self._lock:
            if pool in self._pools:
                self._pools.remove(pool)
                numbers = (peer.numbers() for peer in pool.peers)
                self._ended = tuple(map(after_end, self._ended, numbers))
        pool.close()

    def _adopt(self, jobs: list[Job]) -> None:
        """Give what a pool has left to another one."""
        jobs = [job for job in jobs if job.request.is_open]
        with self._lock:
            pool = self._pools[0] if self._pools else None
        if pool is not None and jobs:
            pool.post(pool.adopt, jobs)
        else:
            for job in jobs:
                self.give_up(job.request, "the loop that asked the signers has ended")

    def _abandon(self) -> None:
        pools = self._pools
        self._begin()
        for pool in pools:
            pool.abandon()


def _check(times: dict[str, float], *, most_in_flight: int, connections: int, breaker_failures: int) -> None:
    for name, seconds in times.items():
        if not _SHORTEST <= seconds <= _LONGEST:
            raise ConfigurationError(f"{name} is {seconds}: give seconds, {_SHORTEST:g} to {_LONGEST:g}")
    numbers = {
        "most_in_flight": (most_in_flight, _MOST_IN_FLIGHT),
        "connections": (connections, _MOST_CONNECTIONS),
        "breaker_failures": (breaker_failures, _MOST_IN_FLIGHT),
    }
    for name, (number, most) in numbers.items():
        if not 1 <= number <= most:
            raise ConfigurationError(f"{name} is {number}: give 1 to {most}")


def _find_servers(addresses: Sequence[str | Address], tls: ClientTLS | None) -> _Servers:
    servers = [] if isinstance(addresses, str) else [parse(one) for one in addresses]
    if not servers:
        raise ConfigurationError("no signer is given: give a list of addresses such as unix:/run/signer.sock")
    if len(set(servers)) < len(servers):
        raise ConfigurationError("an address of a signer is given twice: more connections= does what you want")
    return [(one, _client(one, tls) if one.uses_tls else None) for one in servers]


def _client(address: Address, tls: ClientTLS | None) -> TLSClient:
    if tls is None:
        raise ConfigurationError(
            f"signer {address} is reached by TLS: give a client certificate, its key and authorities"
        )
    return TLSClient(tls, address)


_alive: weakref.WeakSet[RemoteSigner] = weakref.WeakSet()


def _abandon_all() -> None:
    for signer in list(_alive):
        signer._abandon()  # noqa: SLF001 - one mechanism in the classes of one file


os.register_at_fork(after_in_child=_abandon_all)
