"""What the batch engine takes together and what it leaves: by turns, so that each is the test's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

import engine_shim
from engine_shim import BatchEngine, EngineClosedError, Job, JobStatus
from engine_shim.native import lib
from support import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_shim import Key
    from support.certificates import Certificates, Identity

needs_lanes = pytest.mark.skipif(not BatchEngine(0).lanes, reason="this CPU or this build has no batches")


@pytest.fixture
def engine() -> Iterator[BatchEngine]:
    with BatchEngine(threads=0) as engine:
        yield engine


class Crowd:
    """Signatures that have been asked for and wait for the engine."""

    def __init__(self, key: Key, count: int) -> None:
        self.jobs = [Job(key.sign, b"document %d" % index, padding="pss") for index in range(count)]
        assert {job.start() for job in self.jobs} == {JobStatus.PAUSED}

    @property
    def answered(self) -> int:
        """How many of them have an answer."""
        return sum(job.finished or job.start() is JobStatus.FINISHED for job in self.jobs)

    def verify(self, identity: Identity) -> None:
        public = x509.load_pem_x509_certificate(identity.cert.read_bytes()).public_key()
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
        for index, job in enumerate(self.jobs):
            public.verify(job.result(), b"document %d" % index, scheme, hashes.SHA256())  # type: ignore[union-attr,call-arg,arg-type]

    def close(self) -> None:
        for job in self.jobs:
            job.close()


def counted(engine: BatchEngine) -> tuple[int, int, int]:
    numbers = engine.statistics()
    return numbers.batches, numbers.batched, numbers.performed


def pays_from(key: Key) -> int:
    """Give the least number of its signatures that makes a batch, with room left in it."""
    assert key.batch_costs is not None
    least = key.batch_costs.pays_from
    if least is None or least == 8:
        pytest.skip("batches of RSA-2048 hardly pay on this machine")
    return least


@needs_lanes
def test_eight_at_once(engine: BatchEngine, certificates: Certificates) -> None:
    key = engine.load_key(certificates["rsa2048"].key)
    rest = pays_from(key)
    crowd = Crowd(key, 16 + rest)
    assert engine.turn() == 8 + rest
    assert (crowd.answered, counted(engine)) == (8, (1, 8, 8))
    assert engine.turn(1000, patient=True) == rest, "a full batch waits for nobody"
    assert engine.turn(1000, patient=True) == rest, "one with room does"
    assert engine.turn(rest, patient=True) == 0, "but not if all have come"
    assert (crowd.answered, counted(engine)) == (16 + rest, (3, 16 + rest, 16 + rest))
    crowd.verify(certificates["rsa2048"])
    assert engine.statistics().turn_max_ns > 0
    crowd.close()


@needs_lanes
def test_what_does_not_pay_goes_one_by_one(engine: BatchEngine, certificates: Certificates) -> None:
    key = engine.load_key(certificates["rsa2048"].key)
    least = pays_from(key)
    assert least > 1, "one lane costs more than OpenSSL"
    crowd = Crowd(key, least)
    assert engine.turn() == 0
    assert counted(engine) == (1, least, least)
    few = Crowd(key, least - 1)
    assert engine.turn() == least - 2
    assert counted(engine) == (1, least, least + 1)
    for _ in range(least - 2):
        engine.turn()
    assert few.answered == least - 1
    for one in (crowd, few):
        one.close()


@needs_lanes
def test_a_batch_has_one_kind_and_size_of_key_but_several_keys(engine: BatchEngine, certificates: Certificates) -> None:
    small, large = (engine.load_key(certificates[kind].key) for kind in ("rsa2048", "rsa4096"))
    again = engine.load_key(certificates["rsa2048"].key)
    crowds = [Crowd(key, 4) for key in (small, large, again)]
    engine.turn()
    assert [crowd.answered for crowd in crowds] == [4, 0, 4]
    while engine.turn():
        pass
    assert crowds[1].answered == 4
    crowds[1].verify(certificates["rsa4096"])
    for crowd in crowds:
        crowd.close()


def test_a_kind_without_batches_waits_for_nobody(engine: BatchEngine, certificates: Certificates) -> None:
    key = engine.load_key(certificates["p384"].key)
    assert key.batch_costs is None
    jobs = [Job(key.sign, b"x", digest="SHA384") for _ in range(3)]
    for job in jobs:
        job.start()
    assert [engine.turn(1000, patient=True) for _ in range(3)] == [2, 1, 0]
    assert counted(engine) == (0, 0, 3)
    for job in jobs:
        job.start()
        assert job.result()
        job.close()


@needs_lanes
@pytest.mark.parametrize("lanes", [0b1, 0b10000001, 0xFF])
def test_a_wrong_result_does_not_leave_the_engine(engine: BatchEngine, certificates: Certificates, lanes: int) -> None:
    crowd = Crowd(engine.load_key(certificates["rsa2048"].key), 8)
    lib.batch_inject_fault(lanes)
    engine.turn()
    assert crowd.answered == 8
    crowd.verify(certificates["rsa2048"])
    assert engine.statistics().recomputed == lanes.bit_count()
    crowd.close()


@needs_lanes
def test_the_check_can_fail(engine: BatchEngine, certificates: Certificates) -> None:
    """What `verify` says to the signature of something else."""
    crowd = Crowd(engine.load_key(certificates["rsa2048"].key), 2)
    engine.turn()
    while crowd.answered < 2:
        engine.turn()
    crowd.jobs.reverse()
    with pytest.raises(InvalidSignature):
        crowd.verify(certificates["rsa2048"])
    crowd.close()


@needs_lanes
def test_a_cancelled_op_leaves_its_lane(engine: BatchEngine, certificates: Certificates) -> None:
    crowd = Crowd(engine.load_key(certificates["rsa2048"].key), 9)
    crowd.jobs[0].cancel()
    crowd.jobs[0].close()
    assert engine.turn() == 0
    assert counted(engine) == (1, 8, 8)
    assert engine.statistics().cancelled == 1
    crowd.close()


def test_without_a_job_the_caller_performs(engine: BatchEngine, certificates: Certificates) -> None:
    """`Key.sign` outside any job has nobody else who would give the engine its turns."""
    assert engine.needs_turns
    assert engine.can_block
    assert engine.load_key(certificates["rsa2048"].key).sign(b"alone")
    assert engine.statistics().performed == 1


def test_a_caller_performs_its_own_op_only(engine: BatchEngine, certificates: Certificates) -> None:
    key = engine.load_key(certificates["rsa2048"].key)
    crowd = Crowd(key, 3)
    assert key.sign(b"the fourth")
    assert crowd.answered == 0
    assert counted(engine) == (0, 0, 1)
    while engine.turn():
        pass
    assert crowd.answered == 3
    crowd.close()


def test_a_caller_whose_op_waits_for_room(certificates: Certificates) -> None:
    with BatchEngine(0, queue_size=8) as engine:
        key = engine.load_key(certificates["rsa2048"].key)
        crowd = Crowd(key, 9)
        assert engine.statistics().waiting == 1
        assert key.sign(b"the tenth")
        while engine.turn():
            pass
        assert crowd.answered == 9
        crowd.close()


def test_a_queue_holds_at_least_a_batch() -> None:
    with pytest.raises(ValueError, match="queue_size is 7, it must be between 8 and"):
        BatchEngine(0, queue_size=7)


@needs_lanes
def test_with_too_few_for_a_batch_nothing_pauses(engine: BatchEngine, certificates: Certificates) -> None:
    key = engine.load_key(certificates["rsa2048"].key)
    least = pays_from(key)
    assert engine.turn(least - 1) == 0
    for number in range(3):
        job = Job(key.sign, b"alone")
        assert job.start() is JobStatus.FINISHED
        assert job.result()
        job.close()
        assert counted(engine) == (0, 0, number + 1)
    assert engine.turn(least) == 0
    job = Job(key.sign, b"not alone")
    assert job.start() is JobStatus.PAUSED
    assert engine.turn(1) == 0
    assert job.start() is JobStatus.FINISHED
    job.close()


def test_a_batch_that_gathers_is_not_passed_by(engine: BatchEngine, certificates: Certificates) -> None:
    crowd = Crowd(engine.load_key(certificates["rsa2048"].key), 2)
    assert engine.turn(1) == 1
    later = Crowd(engine.load_key(certificates["rsa2048"].key), 1)
    while engine.turn(1):
        pass
    assert crowd.answered + later.answered == 3
    for one in (crowd, later):
        one.close()


def test_what_no_batch_can_have_does_not_pause(engine: BatchEngine, certificates: Certificates) -> None:
    key = engine.load_key(certificates["p384"].key)
    engine.turn(1000)
    job = Job(key.sign, b"x", digest="SHA384")
    assert job.start() is JobStatus.FINISHED
    assert job.result()
    job.close()


@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072", "rsa4096", "p256"])
def test_only_what_a_batch_makes_cheaper_pauses(engine: BatchEngine, certificates: Certificates, kind: str) -> None:
    """Which those are depends on CPU and OpenSSL: RSA-3072 is mostly none of them with OpenSSL 4.0, and is with 3.0."""
    key = engine.load_key(certificates[kind].key)
    engine.turn(1000)
    job = Job(key.sign, b"x")
    pauses = job.start() is JobStatus.PAUSED
    assert pauses == (key.batch_costs is not None and key.batch_costs.pays_from is not None)
    if pauses:
        engine.turn(1)
        assert job.start() is JobStatus.FINISHED
    assert job.result()
    job.close()


def test_at_once_in_a_closed_engine(engine: BatchEngine, certificates: Certificates) -> None:
    key = engine.load_key(certificates["p384"].key)
    engine.turn(1000)
    engine.close()
    with pytest.raises(EngineClosedError):
        key.sign(b"x", digest="SHA384")


def test_closing_fails_what_is_queued(engine: BatchEngine, certificates: Certificates) -> None:
    crowd = Crowd(engine.load_key(certificates["rsa2048"].key), 3)
    engine.close()
    assert engine.turn() == 0
    for job in crowd.jobs:
        job.start()
        with pytest.raises(EngineClosedError):
            job.result()
    crowd.close()


def test_a_turn_costs_nothing_when_there_is_nothing(engine: BatchEngine) -> None:
    assert engine.turn() == 0
    assert engine.statistics().turn_max_ns == 0


def test_engines_with_threads_need_no_turns(certificates: Certificates) -> None:
    with BatchEngine(1) as engine:
        assert not engine.needs_turns
        key = engine.load_key(certificates["rsa4096"].key)
        jobs = [Job(key.sign, b"%d" % index, padding="pss") for index in range(40)]
        for job in jobs:
            job.start()
        leaks.wait_until(lambda: engine.statistics().performed == 40)
        for job in jobs:
            assert job.start() is JobStatus.FINISHED
            assert job.result()
            job.close()
        assert engine.statistics().batches > 0 or not engine.lanes


@needs_lanes
def test_costs_are_measured_once(certificates: Certificates, engine: BatchEngine) -> None:
    first, second = (engine.load_key(certificates["rsa2048"].key).batch_costs for _ in range(2))
    assert first == second
    assert first is not None
    assert 0 < first.one < first.eight < 8 * first.one, "a batch of one is dearer, one of eight is cheaper"


def test_other_engines_prepare_no_keys(certificates: Certificates) -> None:
    with engine_shim.ThreadEngine(1) as engine:
        assert engine.load_key(certificates["rsa2048"].key).batch_costs is None
