"""The key servers as one loop knows them: takes requests while there is room for them, and gives each to one.

Requests wait in the engine's bounded queue, not here: they are taken only when somebody can be sent them. What waits
here has failed once already and is to be sent again; it was under way, so its number is bounded as well.
"""

from __future__ import annotations

import os
import time
from collections import deque
from selectors import EVENT_READ
from typing import TYPE_CHECKING, Any

from engine_shim import ShimError
from tlsserver.signers.remote_job import TRIES, Job, message_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine_shim import Loop, SignRequest
    from tlsserver.signers.remote_peer import Peer, PeerOwner

__all__ = ["Pool"]

# Seconds of a turn for taking requests and sending them; the rest comes in the next turn.
_TURN_SECONDS = 0.002
# Seconds after which requests that wait here are looked at, though nothing has happened: some may have expired.
_SWEEP_SECONDS = 0.5
# Requests that wait here, above which no more are taken: there is room, but not for those that come.
_MOST_WAITING = 256


class Pool:
    """See the module. Belongs to the loop's thread.

    Args:
        loop: Which.
        fd: Readable while a request can be taken; a copy of it becomes the pool's.
        take: Takes one; None: there is none.
        give_up: Called with what nobody answers, and why.
        has_fallback: Tells whether this process has the key with this identifier, too; None: any.
        orphaned: Called with what is left when the pool is closed.
        make_peers: Makes the key servers.
    """

    def __init__(
        self,
        loop: Loop,
        fd: int,
        *,
        take: Callable[[], SignRequest | None],
        give_up: Callable[[SignRequest, str], object],
        has_fallback: Callable[[bytes | None], bool],
        orphaned: Callable[[list[Job]], object],
        make_peers: Callable[[Loop, PeerOwner], Sequence[Peer]],
    ) -> None:
        self._loop = loop
        self._take = take
        self._give_up = give_up
        self._has_fallback = has_fallback
        self._orphaned = orphaned
        self._waiting: deque[Job] = deque()
        self._unseen = 0  # those of them that were not looked at since something has changed
        self._is_closed = self._is_due = False
        self._sweep: Any = None
        self._fd = os.dup(fd)  # whoever else watches the engine's on this loop does not take it from us
        self._registration: Any = loop.add(self._fd, 0, self._arrived)
        self.peers = tuple(make_peers(loop, self))
        self._turn = 0

    # Called from outside

    def post(self, call: Callable[..., object], *args: object) -> None:
        """Call it on the loop's thread; any thread."""
        self._loop.call_soon_threadsafe(call, *args)

    def adopt(self, jobs: list[Job]) -> None:
        """Take over what another pool has left."""
        if self._is_closed:
            self._orphaned(jobs)
            return
        for job in jobs:
            self.retry(job)

    def close(self) -> None:
        """End for good. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._loop.remove(self._registration)
        os.close(self._fd)
        jobs = [*self._waiting, *(job for peer in self.peers for job in peer.close())]
        self._waiting.clear()
        self._orphaned(jobs)

    def abandon(self) -> None:
        """In a forked child: close this process's copies of the descriptors, and touch nothing else."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self._fd)
            for peer in self.peers:
                peer.abandon()

    # What key servers tell

    def retry(self, job: Job) -> bool:
        """See `PeerOwner`."""
        if not job.request.is_open:
            return False
        if job.tries >= TRIES or all(self._is_useless(peer, job) for peer in self.peers):
            self._let_go(job, job.reason)
            return False
        self._waiting.append(job)
        self.changed()
        return True

    def changed(self) -> None:
        """See `PeerOwner`."""
        self._unseen = len(self._waiting)
        self._go_on()

    def _go_on(self) -> None:
        if not self._is_due and not self._is_closed:
            self._is_due = True
            self._loop.call_soon(self._pump)

    # Giving requests to key servers

    def _arrived(self, _events: int) -> None:
        self._pump()

    def _pump(self) -> None:
        self._is_due = False
        if self._is_closed:
            return
        until = time.monotonic() + _TURN_SECONDS
        self._serve_waiting(until)
        self._serve_queue(until)
        for peer in self.peers:
            peer.flush()
        self._watch()

    def _serve_waiting(self, until: float) -> None:
        """Each of them once: who finds no place waits for the next change, and costs nothing meanwhile."""
        while self._unseen and self._waiting:
            self._unseen -= 1
            job = self._waiting.popleft()
            if job.request.is_open:
                self._place(job)
            if time.monotonic() >= until:
                self._go_on()
                return

    def _serve_queue(self, until: float) -> None:
        while self._takes() and time.monotonic() < until:
            try:
                request = self._take()
            except ShimError:  # the engine is closed
                self.close()
                return
            if request is None:
                return
            self._accept(request)

    def _accept(self, request: SignRequest) -> None:
        try:
            job = Job(request, message_for(request))
        except (ValueError, LookupError) as error:
            self._give_up(request, str(error))
            return
        self._place(job)

    def _place(self, job: Job) -> None:
        """Send it, or let it wait, or give it up."""
        useful = [peer for peer in self.peers if not self._is_useless(peer, job)]
        free = [peer for peer in useful if peer.room > 0]
        if free:
            self._turn += 1  # whoever is as good takes turns
            first = self._turn % len(free)
            min(free[first:] + free[:first], key=lambda peer: (peer.name in job.failed, peer.in_flight)).send(job)
        elif not useful:
            self._let_go(job, job.reason or f"no signer has the key {job.key_id.hex()}")
        elif all(peer.is_hopeless for peer in useful) and self._has_fallback(job.key_id):
            self._let_go(job, job.reason or "no signer is there")
        else:
            self._waiting.append(job)

    def _is_useless(self, peer: Peer, job: Job) -> bool:
        return peer.name in job.refused or peer.lacks(job.key_id)

    def _let_go(self, job: Job, reason: str) -> None:
        if self._has_fallback(job.key_id):
            last = next((peer for peer in self.peers if peer.name == job.last), self.peers[0])
            last.tally.fallbacks += 1
        self._give_up(job.request, reason)

    def _takes(self) -> bool:
        """Whether a request that is taken now can be sent now, or performed by somebody else."""
        if self._is_closed or len(self._waiting) >= _MOST_WAITING:
            return False
        return any(peer.room > 0 for peer in self.peers) or (
            self._has_fallback(None) and all(peer.is_hopeless for peer in self.peers)
        )

    def _watch(self) -> None:
        if self._is_closed:
            return
        self._loop.modify(self._registration, EVENT_READ if self._takes() else 0)
        if self._waiting and self._sweep is None:
            self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        self.changed()
