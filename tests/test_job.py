"""Jobs outside TLS: ASYNC_start_job(3)."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

import engine_shim
from engine_shim import (
    Job,
    JobNotFinishedError,
    JobStatus,
    LatencyEngine,
    ManualEngine,
    NoJobError,
    OperationCancelledError,
    OperationFailedError,
    ThreadEngine,
    WaitContext,
    WrongThreadError,
)
from support.pair import Pair, client_context, server_context
from support.waiting import PATIENCE, readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_shim import Engine, Key
    from support.certificates import Certificates, Identity

DOCUMENTS = 200


@pytest.fixture
def key(manual: ManualEngine, identity: Identity) -> Key:
    return manual.load_key(identity.key)


@pytest.fixture
def context() -> Iterator[WaitContext]:
    with WaitContext() as context:
        yield context


def run(job: Job) -> bytes:
    """As a user would who has one job only."""
    while job.start() is JobStatus.PAUSED:
        assert readable(job.wait_context.get_all_fds(), PATIENCE)
    return job.result()


def verify(identity: Identity, signature: bytes, data: bytes, digest: Any = None) -> None:
    public = x509.load_pem_x509_certificate(identity.cert.read_bytes()).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, data, ec.ECDSA(digest or SHA256()))


def unfinished() -> int:
    counters = engine_shim.counters()
    return counters.jobs_started - counters.jobs_finished - counters.jobs_abandoned


# One job


def test_a_job_pauses_and_finishes(manual: ManualEngine, key: Key, context: WaitContext, identity: Identity) -> None:
    job = Job(key.sign, b"document", context)
    assert (job.paused, job.finished, context.busy) == (False, False, False)
    assert job.start() is JobStatus.PAUSED
    assert (job.paused, job.finished, context.busy) == (True, False, True)
    (fd,) = context.get_all_fds()
    assert not readable([fd])
    manual.perform()
    assert readable([fd], PATIENCE)
    assert job.start() is JobStatus.FINISHED
    assert (job.paused, job.finished, context.busy) == (False, True, False)
    verify(identity, job.result(), b"document")
    assert context.get_all_fds() == ()
    assert job.start() is JobStatus.FINISHED  # nothing left to do


def test_resumed_for_nothing_it_pauses_again(manual: ManualEngine, key: Key, context: WaitContext) -> None:
    job = Job(key.sign, b"document", context)
    for _ in range(5):
        assert job.start() is JobStatus.PAUSED
    manual.perform()
    assert job.start() is JobStatus.FINISHED


@pytest.mark.parametrize("make", [lambda: ThreadEngine(1), lambda: LatencyEngine(0.001)])
def test_with_every_engine(make: Any, identity: Identity) -> None:
    with make() as engine, WaitContext() as context:
        for number in range(20):
            document = b"%d" % number
            verify(identity, run(Job(engine.load_key(identity.key).sign, document, context)), document)


def test_it_makes_a_wait_context_of_its_own(manual: ManualEngine, key: Key) -> None:
    job = Job(key.sign, b"document")
    assert job.start() is JobStatus.PAUSED
    manual.perform()
    assert job.start() is JobStatus.FINISHED
    assert job.result()
    assert job.close()


def test_the_operations_arguments(manual: ManualEngine, key: Key, identity: Identity) -> None:
    job = Job(key.sign, b"document", digest="SHA384")
    assert job.start() is JobStatus.PAUSED
    manual.perform()
    assert job.start() is JobStatus.FINISHED
    verify(identity, job.result(), b"document", SHA384())


def test_a_decryption(certificates: Certificates, manual: ManualEngine) -> None:
    from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: PLC0415 - this test alone

    identity = certificates["rsa2048"]
    public = x509.load_pem_x509_certificate(identity.cert.read_bytes()).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    secret = b"\x03\x03" + os.urandom(46)
    job = Job(manual.load_key(identity.key).decrypt_premaster, public.encrypt(secret, padding.PKCS1v15()))
    assert job.start() is JobStatus.PAUSED
    manual.perform()
    assert job.start() is JobStatus.FINISHED
    assert job.result() == secret


def test_jobs_finish_in_any_order(manual: ManualEngine, key: Key, identity: Identity) -> None:
    jobs = [Job(key.sign, b"%d" % number) for number in range(5)]
    assert {job.start() for job in jobs} == {JobStatus.PAUSED}
    for _ in jobs:
        manual.perform(manual.pending - 1)
    for number, job in reversed(list(enumerate(jobs))):
        assert job.start() is JobStatus.FINISHED
        verify(identity, job.result(), b"%d" % number)


def test_a_job_between_the_steps_of_a_handshake(manual: ManualEngine, key: Key, identity: Identity) -> None:
    with Pair(server_context(identity, key), client_context(identity)) as pair:
        pair.until_parked()
        job = Job(key.sign, b"document")
        assert job.start() is JobStatus.PAUSED
        assert manual.pending == 2
        manual.perform(1)
        assert job.start() is JobStatus.FINISHED
        manual.perform()
        assert pair.finish() is engine_shim.Status.DONE
    verify(identity, job.result(), b"document")


# What goes wrong


def test_a_failed_operation(manual: ManualEngine, key: Key, context: WaitContext) -> None:
    job = Job(key.sign, b"document", context)
    assert job.start() is JobStatus.PAUSED
    manual.fail()
    assert job.start() is JobStatus.FINISHED
    with pytest.raises(OperationFailedError, match="failed"):
        job.result()
    assert not context.busy


def test_openssl_refuses(identity: Identity) -> None:
    with ThreadEngine(1) as engine, pytest.raises(engine_shim.ShimError, match="the job: "):
        run(Job(engine.load_key(identity.key).sign, b"document", digest="no such digest"))


def test_cancelled(manual: ManualEngine, key: Key, context: WaitContext) -> None:
    job = Job(key.sign, b"document", context)
    assert job.start() is JobStatus.PAUSED
    job.cancel()
    assert manual.pending == 0
    assert job.start() is JobStatus.FINISHED
    with pytest.raises(OperationCancelledError):
        job.result()


def test_leaving_the_block_cancels(manual: ManualEngine, key: Key, context: WaitContext) -> None:
    with Job(key.sign, b"document", context) as job:
        assert job.start() is JobStatus.PAUSED
    assert manual.pending == 0
    assert job.finished
    assert not context.busy


def test_no_result_before_the_end(key: Key) -> None:
    with Job(key.sign, b"document") as job:
        with pytest.raises(JobNotFinishedError):
            job.result()
        assert job.start() is JobStatus.PAUSED
        with pytest.raises(JobNotFinishedError, match="start it again"):
            job.result()


@pytest.mark.parametrize("operation", [print, "sign", None, lambda data: data])
def test_only_a_keys_operations(operation: Any) -> None:
    with pytest.raises(TypeError, match=r"engine_shim\.Key"):
        Job(operation, b"document")


def test_wrong_arguments(key: Key) -> None:
    with pytest.raises(ValueError, match="padding is 'none'"):
        Job(key.sign, b"document", padding="none")
    with pytest.raises(TypeError, match="version"):
        Job(key.sign, b"document", version=3)


def test_a_job_resumes_on_its_thread_only(manual: ManualEngine, key: Key, context: WaitContext) -> None:
    job = Job(key.sign, b"document", context)
    assert job.start() is JobStatus.PAUSED
    refused: list[str] = []

    def elsewhere() -> None:
        for call in (job.start, job.close):
            with pytest.raises(WrongThreadError):
                call()
            refused.append(call.__name__)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert refused == ["start", "close"]
    assert job.paused
    assert context.busy
    manual.perform()
    assert job.start() is JobStatus.FINISHED


def test_a_paused_job_is_never_collected(manual: ManualEngine, key: Key) -> None:
    from engine_shim.paused import drain_paused  # noqa: PLC0415 - what runs at exit

    before = unfinished()
    Job(key.sign, b"document").start()
    gc.collect()
    assert unfinished() == before + 1
    assert manual.pending == 1
    drain_paused()
    assert unfinished() == before
    assert manual.pending == 0


def test_nothing_leaks(manual: ManualEngine, key: Key, context: WaitContext) -> None:
    gc.collect()  # what other tests left
    before = engine_shim.counters()
    for number in range(200):
        job = Job(key.sign, b"document", context)
        assert job.start() is JobStatus.PAUSED
        if number % 2:
            manual.perform()
        assert job.close()
    del job
    gc.collect()
    after = engine_shim.counters()
    assert after.jobs_started - before.jobs_started == after.jobs_finished - before.jobs_finished == 200
    assert after.ops_alive == before.ops_alive
    assert after.jobs_abandoned == before.jobs_abandoned


def test_paused_at_exit(identity: Identity) -> None:
    program = """
import sys, engine_shim
engine = engine_shim.ManualEngine()
job = engine_shim.Job(engine.load_key(sys.argv[1]).sign, b"document")
print(job.start().name)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, identity.key], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "PAUSED\n", "")


def test_a_forked_child_leaves_its_parents_job_alone(manual: ManualEngine, key: Key, context: WaitContext) -> None:
    job = Job(key.sign, b"document", context)
    assert job.start() is JobStatus.PAUSED
    child = os.fork()
    if child == 0:
        try:
            job.start()
        except engine_shim.ForkedError:
            os._exit(0 if job.close() else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    manual.perform()
    assert job.start() is JobStatus.FINISHED
    assert job.result()


# Pausing blocked


def test_blocked_an_engine_that_can_block_is_waited_for(identity: Identity) -> None:
    with LatencyEngine(0.02) as engine:
        job = Job(engine.load_key(identity.key).sign, b"document", block_pause=True)
        begun = time.monotonic()
        assert job.start() is JobStatus.FINISHED
        assert time.monotonic() - begun >= 0.02
        verify(identity, job.result(), b"document")


def test_blocked_another_engine_fails(key: Key) -> None:
    job = Job(key.sign, b"document", block_pause=True)
    assert job.start() is JobStatus.FINISHED
    with pytest.raises(NoJobError):
        job.result()


def test_the_next_job_is_not_blocked(manual: ManualEngine, key: Key) -> None:
    Job(key.sign, b"document", block_pause=True).start()
    with Job(key.sign, b"document") as job:
        assert job.start() is JobStatus.PAUSED
        manual.perform()
        assert job.start() is JobStatus.FINISHED


def test_hundreds_of_documents_at_the_engines_latency(identity: Identity) -> None:
    """The example has a thousand, in a process of its own: the most wait fds that were ever in use are kept."""

    def signing(engine: Engine) -> Iterator[Job]:
        key = engine.load_key(identity.key)
        for number in range(DOCUMENTS):
            yield Job(key.sign, b"document %d" % number)

    with LatencyEngine(0.2) as engine:
        jobs = list(signing(engine))
        begun = time.monotonic()
        assert {job.start() for job in jobs} == {JobStatus.PAUSED}
        for job in jobs:
            run(job)
        assert time.monotonic() - begun < 0.2 * DOCUMENTS / 20  # twenty times as fast as one after another
    verify(identity, jobs[-1].result(), b"document %d" % (DOCUMENTS - 1))
