"""One key server as one loop knows it: its links, how it does, and what was asked of it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from engine_shim import AnswerError, ShimError, WrongAnswerError
from tlsserver.signers.keyless_ops import ErrorCode
from tlsserver.signers.remote_link import Link
from tlsserver.signers.remote_numbers import Tally

if TYPE_CHECKING:
    from engine_shim import Loop
    from engine_shim.loops import LoopTimer
    from tlsserver.signers.breaker import Breaker
    from tlsserver.signers.remote_address import Address
    from tlsserver.signers.remote_job import Job
    from tlsserver.signers.remote_link import LinkSettings
    from tlsserver.signers.remote_tls import TLSClient
    from tlsserver.stats import SignerNumbers

__all__ = ["Peer", "PeerOwner"]

logger = logging.getLogger(__name__)

# Seconds for which who has said that it does not have a key is not asked for it.
_LACK_SECONDS = 10.0
# It may do better the next time.
_PASSING = {None, ErrorCode.READ, ErrorCode.INTERNAL}
# These tell of the key server; others, of the one request. So does every refused decryption: a client chose what to
# decrypt, and must not be able to open the breaker for the others.
_SICK = {*_PASSING, ErrorCode.CRYPTOGRAPHY}


class PeerOwner(Protocol):
    """Who hears what a key server comes to, on the loop's thread."""

    def retry(self, job: Job) -> bool:
        """It has failed here. Returns whether it is tried again."""

    def changed(self) -> None:
        """There may be room, or there is none any more."""


class Peer:
    """See the module.

    Args:
        loop: Whose thread this belongs to.
        address: Of the key server.
        tls: Of its connections; None: none.
        settings: Of its links.
        connections: How many of these.
        breaker: Its own.
        owner: Hears of it.
    """

    def __init__(
        self,
        loop: Loop,
        address: Address,
        tls: TLSClient | None,
        settings: LinkSettings,
        *,
        connections: int,
        breaker: Breaker,
        owner: PeerOwner,
    ) -> None:
        self._loop = loop
        self.name = str(address)
        self.tally = Tally()
        self._breaker = breaker
        self._owner = owner
        self._lacking: dict[bytes, float] = {}  # the loop's time until which it is not asked for the key
        self._trial: LoopTimer | None = None
        self._is_told_down = self._is_told_up = False
        self.links = [Link(loop, address, tls, settings, self) for _ in range(connections)]

    @property
    def state(self) -> str:
        """The best of its links."""
        states = {link.state for link in self.links}
        return next((one for one in ("up", "connecting") if one in states), "down")

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return sum(len(link.in_flight) for link in self.links)

    @property
    def is_hopeless(self) -> bool:
        """Whether nothing can be sent, and nothing tells when it can."""
        return self.state == "down" or self._breaker.state(self._loop.time()) == "open"

    @property
    def room(self) -> int:
        """How many more requests it takes now."""
        if not self._breaker.allows(self._loop.time()):
            return 0
        room = sum(link.room for link in self.links)
        return room if self._breaker.state(self._loop.time()) == "closed" else min(room, 1)

    def lacks(self, key_id: bytes) -> bool:
        """Tell whether it has said of late that it does not have this key."""
        until = self._lacking.get(key_id)
        if until is not None and until <= self._loop.time():
            del self._lacking[key_id]
            return False
        return until is not None

    def send(self, job: Job) -> None:
        """Send a request; there is room, and `flush` comes soon."""
        job.is_trial = self._breaker.begin(self._loop.time())
        self.tally.taken += 1
        if not job.tries:
            self.tally.queue.observe(time.monotonic() - job.request.submitted)
        job.tries += 1
        job.last = self.name
        max(self.links, key=lambda link: link.room).send(job)

    def flush(self) -> None:
        """Let what was sent go out."""
        for link in self.links:
            link.flush()

    def numbers(self) -> SignerNumbers:
        """Take a snapshot; any thread."""
        breaker = self._breaker.state(time.monotonic())
        return self.tally.numbers(self.name, self.state, breaker, self.in_flight)

    def close(self) -> list[Job]:
        """End for good. Returns what was under way."""
        self._stop_waiting()
        return [job for link in self.links for job in link.close()]

    def abandon(self) -> None:
        """In a forked child: close this process's copies of the sockets, and touch nothing else."""
        for link in self.links:
            link.abandon()

    # What links tell

    def link_up(self, link: Link) -> None:
        """See `LinkOwner`."""
        del link
        self._lacking.clear()  # who comes back may have been given more keys
        if not self._is_told_up:
            logger.info("signer %s is up", self.name)
        self._is_told_up, self._is_told_down = True, False
        self._owner.changed()

    def link_lost(self, link: Link, jobs: list[Job], reason: str) -> None:
        """See `LinkOwner`."""
        del link
        if not self._is_told_down:  # once, however often it is tried again
            logger.warning("signer %s: %s; trying again", self.name, reason)
        self._is_told_up, self._is_told_down = False, True
        if jobs:
            self._failed()  # once for all of them
        for job in jobs:
            self._fail(job, reason)
        self._owner.changed()

    def answered(self, job: Job, payload: bytes, sent: float) -> None:
        """See `LinkOwner`."""
        try:
            job.request.complete(payload, final=False)
        except WrongAnswerError:
            self._failed()
            self._fail(job, "its answer is wrong")
        except AnswerError:  # nobody waits any more
            self.tally.ignored += 1
            self._breaker.given_up(is_trial=job.is_trial)
        except ShimError:  # the engine is closed
            self._breaker.given_up(is_trial=job.is_trial)
        else:
            self._performed(job, sent)

    def answered_late(self, job: Job, payload: bytes, sent: float) -> None:
        """See `LinkOwner`."""
        try:
            job.request.complete(payload, final=False)
        except ShimError:  # another one was quicker, or it is wrong, and it is tried again already
            self.tally.ignored += 1
        else:
            self._performed(job, sent)

    def refused(self, job: Job, code: int | None, reason: str) -> None:
        """See `LinkOwner`."""
        if code in _SICK and job.request.operation == "sign":
            self._failed()
        else:
            self._breaker.given_up(is_trial=job.is_trial)
        if code == ErrorCode.KEY_NOT_FOUND:
            self._lacking[job.key_id] = self._loop.time() + _LACK_SECONDS
        self._fail(job, reason, is_final=code not in _PASSING)

    def timed_out(self, job: Job) -> None:
        """See `LinkOwner`."""
        if job.request.is_open:
            self._failed()
        else:
            self._breaker.given_up(is_trial=job.is_trial)
        self._fail(job, "it has not answered in time")

    def has_room(self) -> None:
        """See `LinkOwner`."""
        self._owner.changed()

    def _performed(self, job: Job, sent: float) -> None:
        self._breaker.succeeded()
        self.tally.performed += 1
        self.tally.run.observe(self._loop.time() - sent)
        self.tally.total.observe(max(time.monotonic() - job.request.submitted, 0))

    def _fail(self, job: Job, reason: str, *, is_final: bool = False) -> None:
        self.tally.failed += 1
        (job.refused if is_final else job.failed).add(self.name)
        job.reason = f"signer {self.name}: {reason}"
        if self._owner.retry(job):
            self.tally.retries += 1

    def _failed(self) -> None:
        now = self._loop.time()
        was_closed = self._breaker.state(now) == "closed"
        self._breaker.failed(now)
        if self._breaker.state(now) == "closed":
            return
        if was_closed:
            logger.warning("signer %s has failed too often: asked again in %g s", self.name, self._breaker.seconds)
        self._stop_waiting()
        self._trial = self._loop.call_later(self._breaker.seconds, self._owner.changed)
        self._owner.changed()

    def _stop_waiting(self) -> None:
        if self._trial is not None:
            self._trial.cancel()
            self._trial = None
