"""Ops for others to answer: Python code, an HSM, a key server."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from select import POLLIN, poll
from typing import Any

from engine_shim import linkage
from engine_shim.base import NativeEngine
from engine_shim.engine import Engine, check_range
from engine_shim.errors import ForeignAnswerError, KeyLoadError, LateAnswerError
from engine_shim.key import Key
from engine_shim.native import check, ffi, lib
from engine_shim.requests import SignRequest

__all__ = ["SignerEngine", "SignerTimes", "Times"]

_LONGEST_DEADLINE = 3600.0  # as for other latencies: more is a mistake in the caller's units
_FOR_EVER = -1.0
_LONGEST_WAIT = 2e6  # seconds; poll(2) counts milliseconds in an int


@dataclass(frozen=True)
class Times:
    """A histogram of durations.

    Attributes:
        bounds: Upper bounds in seconds, inclusive, ascending.
        counts: How many lie up to each bound and above the one before; the last one: above all of them.
        sum: Their sum in seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class SignerTimes:
    """How long requests take, and what becomes of them.

    Attributes:
        queue: From the handshake's asking to `SignerEngine.take`.
        run: From there to the answer.
        total: Both.
        taken: Requests taken.
        completed: Those answered with a result.
        refused: Those that ended with `SignRequest.fail`.
        wrong: Answers that did not verify; their requests may have got another one.
        expired: Ops that nobody answered in time, taken or not.
    """

    queue: Times
    run: Times
    total: Times
    taken: int
    completed: int
    refused: int
    wrong: int
    expired: int


class SignerEngine(NativeEngine, Engine):
    """An engine whose ops somebody takes, and answers whenever the answer is there.

    Only the public half of a key is in this process. Any number of threads and loops may take, each op is taken once::

        with SignerEngine(can_block=True) as engine:
            key = engine.load_key("server.crt")
            while request := engine.take(timeout=None):
                request.complete(sign_elsewhere(request.scheme, request.message))

    Args:
        queue_size: Ops that may be queued and not yet taken; more wait in their connections, in order.
        deadline: Seconds from an op's submission until it fails, if nobody has answered. A native thread sees to it, so
            it holds even where Python does not come to it.
        can_block: Whether the answers come from other threads than those that wait for them: then an op outside a
            handshake (`Key.sign`) may wait; else it fails at once with `NoJobError`.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        ValueError: A number is out of range.
    """

    def __init__(self, *, queue_size: int = 1024, deadline: float = 5.0, can_block: bool = False) -> None:
        check_range("queue_size", queue_size, 1, 1 << 20)
        check_range("deadline", deadline, 0.001, _LONGEST_DEADLINE)
        linkage.attach()
        super().__init__(lib.engine_new_signer(queue_size, deadline, can_block))
        self.deadline = deadline

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        """Make a key whose private half is the signer's.

        Args:
            source: Its certificate or its public key (SubjectPublicKeyInfo), PEM or DER; a file's path, or the bytes.
            password: None: there is nothing to decrypt.

        Returns:
            The key. It keeps the engine alive.

        Raises:
            KeyLoadError: There is no certificate or public key, or it is of a kind that cannot be used; or there is a
                private key with it, which has no business in this process.
            OSError: The file cannot be read.
        """
        data, what = (source, "the key") if isinstance(source, bytes) else (Path(source).read_bytes(), f"key {source}")
        if b"PRIVATE KEY-----" in data or password is not None:
            message = f"{what} is private, and a signer's engine takes the public half alone: give the certificate"
            raise KeyLoadError(message)
        out = ffi.new("struct key **")
        status = lib.key_load_public(self._handle, ffi.from_buffer(data), len(data), out)
        if status == lib.SHIM_ERR_KEY:
            message = f"{what} holds neither a certificate nor a public key (PEM or DER)"
            raise KeyLoadError(message)
        check(status, what)
        return Key.identified(self, out[0])

    def fileno(self) -> int:
        """Return a descriptor to wait for: readable while a request can be taken, and once the engine is closed.

        It is the engine's to close. After a fork the child has another one.

        Raises:
            OSError: No descriptor is to be had.
        """
        return _descriptor(lib.signer_fd(self._handle))

    def take(self, timeout: float | None = 0.0) -> SignRequest | None:
        """Take the oldest op. Any thread.

        Args:
            timeout: How long to wait for one, in seconds, not at all if it is less than 0; None: until there is one.

        Returns:
            The request; None: none has come.

        Raises:
            EngineClosedError: The engine is closed.
        """
        if timeout is not None:
            timeout = min(max(0.0, timeout), _LONGEST_WAIT)  # 0.0 first: what is no number is no time
        if timeout != 0 and threading.current_thread() is threading.main_thread():
            return self._take_on_main_thread(timeout)
        out = ffi.new("struct op **")
        check(lib.signer_take(self._handle, _FOR_EVER if timeout is None else timeout, out), "taking a request")
        return None if out[0] == ffi.NULL else SignRequest(self, out[0])

    def _take_on_main_thread(self, timeout: float | None) -> SignRequest | None:
        """There signals have to be heeded, which a wait in C does not. Another thread may be quicker: then wait on."""
        until = None if timeout is None else time.monotonic() + timeout
        waiting = poll()
        waiting.register(self.fileno(), POLLIN)
        while True:
            left = None if until is None else max(until - time.monotonic(), 0)
            is_over = not waiting.poll(None if left is None else left * 1000)
            request = self.take()
            if request is not None or is_over:
                return request

    def ended_fileno(self) -> int:
        """Return a descriptor that tells of taken requests for which nobody waits any more; see `take_ended`.

        It is readable while there are such, and once the engine is closed. It is the engine's to close. After a fork
        the child has another one. Only from the first call on is anything remembered.

        Raises:
            OSError: No descriptor is to be had.
        """
        return _descriptor(lib.signer_ended_fd(self._handle))

    def take_ended(self) -> tuple[int, ...] | None:
        """Tell which taken requests have ended since the last call without an answer of their signer's. Any thread.

        The client has left, or the deadline has passed: what is under way for them can be stopped.

        Returns:
            Their numbers, each once; None: there were more than are remembered (256), so look at `SignRequest.is_open`
            of each.

        Raises:
            EngineClosedError: The engine is closed: all of them have ended.
        """
        ids = ffi.new("uint64_t[]", lib.SIGNER_ENDED_MOST)
        count = ffi.new("size_t *")
        check(lib.signer_take_ended(self._handle, ids, count), "taking what has ended")
        return None if count[0] > lib.SIGNER_ENDED_MOST else tuple(ids[0 : count[0]])

    def complete(self, request_id: int, answer: bytes, *, final: bool = True) -> None:
        """Answer a request by its number; see `SignRequest.complete`.

        Raises:
            ForeignAnswerError: This engine has given no request with this number.
            LateAnswerError: It was answered before, or nobody waits any more.
            WrongAnswerError: It is not a signature of this message by this key.
        """
        self._find(request_id).complete(answer, final=final)

    def fail(self, request_id: int, reason: str) -> None:
        """Tell by its number that a request will have no answer; see `SignRequest.fail`.

        Raises:
            ForeignAnswerError: This engine has given no request with this number.
            LateAnswerError: It was answered before, or nobody waits any more.
        """
        self._find(request_id).fail(reason)

    def signer_times(self) -> SignerTimes:
        """Take a snapshot of how long requests take; any thread."""
        raw = ffi.new("struct signer_times *")
        lib.signer_times(self._handle, raw)
        bounds = lib.signer_time_bounds()
        seconds = tuple(bounds[i] / 1e9 for i in range(lib.SIGNER_TIME_BOUNDS))
        times: dict[str, Any] = {
            name: Times(seconds, tuple(getattr(raw, f"{name}_counts")), getattr(raw, f"{name}_ns") / 1e9)
            for name in ("queue", "run", "total")
        }
        times.update({name: getattr(raw, name) for name in ("taken", "completed", "refused", "wrong", "expired")})
        return SignerTimes(**times)

    def _find(self, request_id: int) -> SignRequest:
        last = ffi.new("uint64_t *")
        found = lib.signer_find(self._handle, request_id, last) if 0 < request_id < 1 << 64 else ffi.NULL
        if found != ffi.NULL:
            return SignRequest(self, found)
        if not 0 < request_id <= last[0]:
            message = f"request {request_id} is not of this engine: an answer goes to the engine that gave its request"
            raise ForeignAnswerError(message)
        message = f"request {request_id} was answered before, or nobody waits for it any more"
        raise LateAnswerError(message)


def _descriptor(fd: int) -> int:
    if fd < 0:
        message = "signer: no descriptor is to be had: close some, or raise the limit (ulimit -n)"
        raise OSError(errno.EMFILE, message)
    return fd
