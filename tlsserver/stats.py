"""What a server counts. A leaf: the loop's thread writes `Counters`, everybody else reads a frozen `Statistics`.

The numbers are plain integers that only the loop's thread changes, so a snapshot from another thread needs no lock:
each number is exact, while two numbers of one snapshot may differ by the one event that is being counted at that
moment.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, fields
from typing import Any

__all__ = [
    "SECONDS_BOUNDS",
    "Counters",
    "EngineNumbers",
    "Histogram",
    "HistogramSnapshot",
    "SignerNumbers",
    "Statistics",
]

# 1-2-5 steps: three buckets a decade tell 120 us (an ECDSA signature) from 1.5 ms (RSA-4096) and from 200 ms (a remote
# signer) without a choice of buckets by the user. The last bound is above every default timeout.
SECONDS_BOUNDS: tuple[float, ...] = (
    *(0.0001, 0.0002, 0.0005),
    *(0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0),
    *(10.0, 20.0, 50.0),
)


@dataclass(frozen=True)
class HistogramSnapshot:
    """A histogram as it was at one moment.

    Attributes:
        bounds: Upper bounds in seconds, inclusive, ascending.
        counts: Plain counts, not cumulative: ``counts[i]`` values lie in ``(bounds[i-1], bounds[i]]``; the one more
            entry at the end counts the values above the last bound.
        count: How many values, the sum of ``counts``.
        sum: Their sum in seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    count: int
    sum: float

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON-able types, under the attributes' names."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "count": self.count, "sum": self.sum}


class Histogram:
    """Counts of durations in fixed buckets. One writer: the loop's thread."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        self._counts[bisect.bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self._sum += seconds

    def snapshot(self) -> HistogramSnapshot:
        """Return a frozen copy."""
        counts = tuple(self._counts)
        return HistogramSnapshot(SECONDS_BOUNDS, counts, sum(counts), self._sum)


class Counters:
    """What the loop's thread counts while it runs; see `Statistics` for what each name means.

    ``jobs_ended`` (paused jobs that came to their end) drives the queue of connections that wait for a job;
    ``lingering_now`` (clients that were answered around TLS and have not left) counts for admission.
    """

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "connections_accepted",
        "connections_open",
        "drained",
        "draining_max",
        "draining_now",
        "handshake_seconds",
        "handshakes_completed",
        "handshakes_failed",
        "handshakes_in_progress",
        "handshakes_parked",
        "handshakes_refused",
        "jobs_ended",
        "lingering_now",
        "park_seconds",
        "parked_max",
        "parked_now",
        "questions_answered",
        "questions_asked",
        "questions_rejected",
        "queued_now",
    )

    def __init__(self) -> None:
        self.connections_accepted = 0
        self.connections_open = 0
        self.handshakes_completed = 0
        self.handshakes_failed = 0
        self.handshakes_in_progress = 0
        self.handshakes_parked = 0
        self.parked_now = 0
        self.parked_max = 0
        self.queued_now = 0
        self.draining_now = 0
        self.draining_max = 0
        self.drained = 0
        self.handshakes_refused = 0
        self.jobs_ended = 0
        self.lingering_now = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.questions_asked = 0
        self.questions_answered = 0
        self.questions_rejected = 0
        self.park_seconds = Histogram()
        self.handshake_seconds = Histogram()

    def snapshot(
        self,
        engines: EngineNumbers | None = None,
        *,
        draining_by_engine: dict[str, int] | None = None,
        certificate_expires: float | None = None,
        ocsp_expires: float | None = None,
        signers: tuple[SignerNumbers, ...] = (),
    ) -> Statistics:
        """Return a frozen copy; what is not counted here comes from the caller. Any thread."""
        own = {field.name: getattr(self, field.name) for field in fields(Statistics) if field.name in self.__slots__}
        own["park_seconds"] = self.park_seconds.snapshot()
        own["handshake_seconds"] = self.handshake_seconds.snapshot()
        own.update(vars(engines or EngineNumbers()), draining_by_engine=draining_by_engine or {})
        own.update(certificate_expires=certificate_expires, ocsp_expires=ocsp_expires, signers=signers)
        return Statistics(**own)


@dataclass(frozen=True)
class EngineNumbers:
    """What the engines of a server have done, all together; see `Statistics` for what each name means."""

    ops_performed: int = 0
    ops_cancelled: int = 0
    batches: int = 0
    ops_batched: int = 0
    ops_recomputed: int = 0
    turn_seconds_max: float = 0.0


_NO_TIMES = HistogramSnapshot(SECONDS_BOUNDS, (0,) * (len(SECONDS_BOUNDS) + 1), 0, 0.0)


@dataclass(frozen=True)
class SignerNumbers:
    """One of those who answer requests for private-key operations: a key server, a token, a function.

    Attributes:
        name: Which one.
        state: ``"up"``; ``"connecting"``; ``"down"``: nobody is there.
        breaker: ``"closed"``: it is asked; ``"open"``: it has failed too often in a row; ``"half-open"``: on trial.
        in_flight: Now: requests that it has.
        taken: Requests that it got.
        performed: Those that it answered well.
        failed: How often it did not: refused, wrong, too late, or not asked because its breaker is open. A request that
            is tried again may be here more than once, and among the performed ones as well.
        retries: How often a request was given to another one, or once more.
        fallbacks: Requests that a local key performed instead: each is among the failed, none among the performed.
        queue_seconds: From the handshake's asking until somebody took it.
        run_seconds: From there to the answer.
        total_seconds: Both.
    """

    name: str
    state: str = "up"
    breaker: str = "closed"
    in_flight: int = 0
    taken: int = 0
    performed: int = 0
    failed: int = 0
    retries: int = 0
    fallbacks: int = 0
    queue_seconds: HistogramSnapshot = _NO_TIMES
    run_seconds: HistogramSnapshot = _NO_TIMES
    total_seconds: HistogramSnapshot = _NO_TIMES

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON-able types, under the attributes' names."""
        return _as_dict(self)


@dataclass(frozen=True)
class Statistics:
    """A server's numbers at one moment, since it was made.

    Attributes:
        connections_accepted: TCP connections accepted.
        connections_open: Now: accepted and not yet freed; those that drain are still among them.
        handshakes_completed: TLS handshakes that reached application data.
        handshakes_failed: Handshakes that did not: failed, timed out, or the client left.
        handshakes_refused: Handshakes that were not begun, because too many jobs of their engine drain; not among the
            failed ones. ``connections_accepted`` is the sum of completed, failed, refused and in progress.
        handshakes_in_progress: Now: begun and neither completed nor failed.
        handshakes_parked: Handshakes that were parked at least once.
        parked_now: Now: connections whose job is paused.
        parked_max: The most of them at one time.
        queued_now: Now: connections that wait for a job to be had.
        draining_now: Now: closed connections whose job has not ended yet. After the server has ended: those that it had
            to leave behind.
        draining_max: The most of them at one time.
        drained: Those whose job has ended since.
        draining_by_engine: Now, by the names of the engines of the connections so far (engines of one name together);
            ``"off"`` is what OpenSSL does without an engine.
        ops_performed: Private-key operations that the engine performed.
        ops_cancelled: Operations given up because their connection ended.
        batches: How often the engine performed several operations at once.
        ops_batched: Operations in these batches; ``ops_batched / batches`` is how full they were, of 8.
        ops_recomputed: Of these, operations whose result was wrong, so that OpenSSL performed them instead.
        turn_seconds_max: The longest that an engine without threads has held up the loop, in seconds.
        bytes_received: Application bytes after decryption.
        bytes_sent: Application bytes before encryption.
        questions_asked: Handshakes that ``on_client_hello`` was asked about.
        questions_answered: Those that were let go on.
        questions_rejected: Those that were rejected; the rest has ended without an answer, or still waits.
        park_seconds: How long connections were parked, one value a park.
        handshake_seconds: From accept to the end of each completed handshake.
        certificate_expires: When the first of the certificates that are served now expires, the chain's among them:
            seconds since 1970 (time.time()); None: unknown.
        ocsp_expires: When the OCSP response that goes with the certificate is too old to be sent: the same; None: there
            is none, or it does not say.
        signers: Those who answer requests of the engines, where these are signers: `SignerNumbers` of each.
    """

    connections_accepted: int
    connections_open: int
    handshakes_completed: int
    handshakes_failed: int
    handshakes_refused: int
    handshakes_in_progress: int
    handshakes_parked: int
    parked_now: int
    parked_max: int
    queued_now: int
    draining_now: int
    draining_max: int
    drained: int
    draining_by_engine: dict[str, int]
    ops_performed: int
    ops_cancelled: int
    batches: int
    ops_batched: int
    ops_recomputed: int
    turn_seconds_max: float
    bytes_received: int
    bytes_sent: int
    questions_asked: int
    questions_answered: int
    questions_rejected: int
    park_seconds: HistogramSnapshot
    handshake_seconds: HistogramSnapshot
    certificate_expires: float | None
    ocsp_expires: float | None
    signers: tuple[SignerNumbers, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON-able types, under the attributes' names."""
        return {**_as_dict(self), "signers": [one.as_dict() for one in self.signers]}


def _as_dict(numbers: SignerNumbers | Statistics) -> dict[str, Any]:
    values = {field.name: getattr(numbers, field.name) for field in fields(numbers)}
    return {name: getattr(value, "as_dict", lambda value=value: value)() for name, value in values.items()}
