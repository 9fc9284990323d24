"""engine_shim: private-key operations of pyOpenSSL's OpenSSL, performed by engines, off the loop.

It knows nothing of tlsserver. Load a key into an engine, give it to a Context, drive the handshake with
:class:`AsyncSSL`: where the handshake needs the key it pauses, says which fds to wait for, and resumes.
"""

from __future__ import annotations

import atexit

from engine_shim.alpn import set_alpn
from engine_shim.async_ssl import Acceptor, AsyncSSL, Connector, OpenSSLError, Status
from engine_shim.base import BaseEngine, EngineStatistics
from engine_shim.batches import BatchCosts
from engine_shim.choice import EngineChoice, batch_threads, choose_engine
from engine_shim.client_context import believe_certificates, read_ahead, set_groups
from engine_shim.counters import Counters, counters
from engine_shim.engine import BatchEngine, Engine, LatencyEngine, ManualEngine, ThreadEngine
from engine_shim.errors import (
    AnswerError,
    BadDescriptorError,
    BusyError,
    DoubleAnswerError,
    EngineClosedError,
    EngineError,
    EngineUnavailableError,
    ForeignAnswerError,
    ForkedError,
    JobNotFinishedError,
    KeyLoadError,
    KeyMismatchError,
    KeyPasswordError,
    KeyUseError,
    LateAnswerError,
    LinkageError,
    NoJobError,
    OperationCancelledError,
    OperationExpiredError,
    OperationFailedError,
    OperationNotFinishedError,
    ShimError,
    UnknownWaitKeyError,
    WaitContextError,
    WaitContextFreedError,
    WrongAnswerError,
    WrongThreadError,
)
from engine_shim.job import Job, JobStatus, cleanup_thread, init_thread, is_capable
from engine_shim.key import Key, use_plain_key, wrap_context
from engine_shim.linkage import Linkage, attach
from engine_shim.loops import Loop
from engine_shim.native import job_is_current
from engine_shim.native import lib as _lib
from engine_shim.openssl_engine import OpenSSLEngine
from engine_shim.openssl_provider import OpenSSLProvider, Preference
from engine_shim.operations import Operation, Operations
from engine_shim.paused import drain_paused
from engine_shim.read_buffer import ReadBuffer
from engine_shim.requests import SignRequest
from engine_shim.settled import Settled
from engine_shim.signer import SignerEngine, SignerTimes
from engine_shim.ticket_keys import TicketKeys
from engine_shim.wait import ChangedFds, WaitContext, WaitContextView, WaitFd, WaitStatus
from engine_shim.wait import free_all as _free_all

__all__ = [
    "Acceptor",
    "AnswerError",
    "AsyncSSL",
    "BadDescriptorError",
    "BaseEngine",
    "BatchCosts",
    "BatchEngine",
    "BusyError",
    "ChangedFds",
    "Connector",
    "Counters",
    "DoubleAnswerError",
    "Engine",
    "EngineChoice",
    "EngineClosedError",
    "EngineError",
    "EngineStatistics",
    "EngineUnavailableError",
    "ForeignAnswerError",
    "ForkedError",
    "Job",
    "JobNotFinishedError",
    "JobStatus",
    "Key",
    "KeyLoadError",
    "KeyMismatchError",
    "KeyPasswordError",
    "KeyUseError",
    "LateAnswerError",
    "LatencyEngine",
    "Linkage",
    "LinkageError",
    "Loop",
    "ManualEngine",
    "NoJobError",
    "OpenSSLEngine",
    "OpenSSLError",
    "OpenSSLProvider",
    "Operation",
    "OperationCancelledError",
    "OperationExpiredError",
    "OperationFailedError",
    "OperationNotFinishedError",
    "Operations",
    "Preference",
    "ReadBuffer",
    "Settled",
    "ShimError",
    "SignRequest",
    "SignerEngine",
    "SignerTimes",
    "Status",
    "ThreadEngine",
    "TicketKeys",
    "UnknownWaitKeyError",
    "WaitContext",
    "WaitContextError",
    "WaitContextFreedError",
    "WaitContextView",
    "WaitFd",
    "WaitStatus",
    "WrongAnswerError",
    "WrongThreadError",
    "attach",
    "batch_threads",
    "believe_certificates",
    "choose_engine",
    "cleanup_thread",
    "counters",
    "init_thread",
    "is_capable",
    "job_is_current",
    "read_ahead",
    "set_alpn",
    "set_groups",
    "use_plain_key",
    "wrap_context",
]

# A worker that is still performing holds the exit up for no longer than the longest honest op (RSA-4096: 4 ms).
_EXIT_TIMEOUT = 2.0


def _at_exit() -> None:
    """Drain, then end the workers: both must be gone before OpenSSL's own clean-up."""
    try:
        drain_paused()
        _free_all()
    finally:
        _lib.engine_close_all(_EXIT_TIMEOUT)


atexit.register(_at_exit)
