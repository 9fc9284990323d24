"""What becomes of a function's answer: it is used, the request is tried once more, or given up. Nothing waits here."""

from __future__ import annotations

import inspect
import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from engine_shim import DoubleAnswerError, LateAnswerError, WrongAnswerError
from tlsserver.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import SignRequest
    from tlsserver.signers.breaker import Breaker

__all__ = ["Call", "Calls", "RequestRefusedError"]

logger = logging.getLogger(__name__)

# Seconds before the second try, twice as many before the next, and the most. Somebody's restart is over by the last
# ones, and a worker thread, which waits meanwhile, is not lost for long. Each is shortened by up to a half, at random,
# so that those who failed together do not come back together.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5

# Seconds. A function that fails does so for each handshake: the log needs it once.
_QUIET = 60.0

# A function that came too late has failed if it had so much of the deadline; with less, the queue was too long.
_FAIR_SHARE = 0.5


class RequestRefusedError(EngineError):
    """For a function to raise: this request cannot be answered, and it is not the signer that is at fault.

    It is not tried again, and the breaker does not count it. So a client that asks for what the signer does not have
    (a signature scheme, say) keeps nobody else from being served.
    """


class Calls:
    """What the calls of one function have in common: breaker, numbers, log.

    Args:
        name: The signer's, for messages.
        breaker: Whether the function is asked.
        attempts: How often at most for one request.
        give_up: Takes a request that has no answer, and why; with ``is_counted``, whether the engine has counted that.
        has_fallback: Whether somebody performs it then.

    Attributes:
        retries: How often a request was tried once more.
        unseen: Failures that the engine does not count, because their requests were tried once more.
    """

    def __init__(
        self,
        name: str,
        breaker: Breaker,
        attempts: int,
        *,
        give_up: Callable[..., None],
        has_fallback: Callable[[SignRequest], bool],
    ) -> None:
        self.name = name
        self.attempts = attempts
        self.has_fallback = has_fallback
        self.retries = 0
        self.unseen = 0
        self._give_up = give_up
        self._breaker = breaker
        self._lock = threading.Lock()
        self._told: dict[str, tuple[float, int]] = {}

    def breaker_state(self) -> str:
        """Return the breaker's state."""
        with self._lock:
            return self._breaker.state(time.monotonic())

    def begin(self, request: SignRequest) -> Call | None:
        """Begin to answer a request; None: it was given up, because the breaker is open."""
        call = Call(self, request)
        return call if call.begin() else None

    def try_begins(self) -> bool | None:
        """Ask the breaker whether a try may begin, and if so, tell it that it has.

        Returns:
            Whether it is the breaker's trial; None: it may not begin.
        """
        now = time.monotonic()
        with self._lock:
            return self._breaker.begin(now) if self._breaker.allows(now) else None

    def tell_breaker(self, *, is_good: bool | None, is_trial: bool) -> None:
        """A try has ended: well, badly, or (None) in a way that tells nothing."""
        with self._lock:
            if is_good is None:
                self._breaker.given_up(is_trial=is_trial)
            elif is_good:
                self._breaker.succeeded()
            else:
                self._breaker.failed(time.monotonic())

    def count(self, *, retry: bool, unseen: bool) -> None:
        """Count a failure."""
        with self._lock:
            self.retries += retry
            self.unseen += unseen

    def give_up(self, request: SignRequest, reason: str, *, is_counted: bool = False) -> None:
        """Let the fallback perform it, or let it fail."""
        self._give_up(request, f"signer {self.name}: {reason}", is_counted=is_counted)

    def tell(self, kind: str, what: str, error: BaseException | None = None) -> None:
        """Log, once a minute for each kind."""
        now = time.monotonic()
        with self._lock:
            quiet_until, more = self._told.get(kind, (now, 0))
            self._told[kind] = (quiet_until, more + 1) if now < quiet_until else (now + _QUIET, 0)
        if now < quiet_until:
            return
        since = f" (and {more} times more since that was said last)" if more else ""
        level = logging.WARNING if error is None or isinstance(error, Exception) else logging.ERROR
        trace = error if logger.isEnabledFor(logging.DEBUG) else None
        logger.log(level, "signer %s: %s%s", self.name, what, since, exc_info=trace)


class Call:
    """The tries of one request, one after another.

    One thread has it, but for `ended`. `raised` and `returned` tell in how many seconds to try once more, after `begin`
    has allowed it; None: that was all.

    Attributes:
        request: What is asked.
    """

    def __init__(self, calls: Calls, request: SignRequest) -> None:
        self.request = request
        self._calls = calls
        self._failures = 0
        self._begun = 0.0
        self._lock = threading.Lock()
        self._is_trying = self._is_trial = False

    def begin(self) -> bool:
        """Begin a try, if somebody waits and the breaker allows it; else the request is given up."""
        if not self.request.is_open:
            return False
        is_trial = self._calls.try_begins()
        if is_trial is None:
            self._calls.give_up(self.request, "has failed again and again, and is not asked for a while")
            return False
        if self._failures:
            self._calls.count(retry=True, unseen=False)
        with self._lock:
            self._is_trying = True
            self._is_trial = is_trial
            self._begun = time.monotonic()
        return True

    def returned(self, answer: object) -> float | None:
        """The function has returned: a signature, one hopes."""
        if not isinstance(answer, (bytes, bytearray, memoryview)):
            return self._returned_no_bytes(answer)
        is_final = self._is_last() and not self._calls.has_fallback(self.request)
        try:
            self.request.complete(bytes(answer), final=is_final)
        except WrongAnswerError:
            return self._failed("WrongAnswerError", "its answer is not right for this key and message", is_seen=True)
        except LateAnswerError:
            self.ended()
        except DoubleAnswerError:
            self._calls.tell("DoubleAnswerError", "it has answered a request, and returned an answer as well")
            self._end(is_good=True)
        except Exception as error:  # noqa: BLE001 - of another process; a memoryview that was released; its own bytes
            return self.raised(error)
        else:
            self._end(is_good=True)
        return None

    def _returned_no_bytes(self, answer: object) -> float | None:
        kind = type(answer).__name__
        if inspect.iscoroutine(answer):
            answer.close()
            return self._failed(kind, "it returned a coroutine: give the coroutine function itself")
        if not self.request.is_open:  # it has answered on its own, or nobody waits any more
            self.ended()
            return None
        return self._failed(kind, f"it returned {kind}, not bytes: let it return the signature")

    def raised(self, error: BaseException) -> float | None:
        """The function has raised an exception."""
        kind = type(error).__name__
        if isinstance(error, RequestRefusedError):
            self._calls.tell(kind, f"refused a request: {_text_of(error)}")
            self._end(is_good=None)
            self._give_up(_text_of(error))
            return None
        what = f"it raised {kind}: {_text_of(error)}"
        if not isinstance(error, Exception):
            what += " (this ends no process: it was raised in a thread or task of the signer)"
        return self._failed(kind, what, error=error)

    def ended(self) -> None:
        """Nobody waits any more: the client has left, or it is too late. Any thread, at any time."""
        request = self.request
        with self._lock:
            had = request.deadline - self._begun
        is_late = time.monotonic() >= request.deadline and had >= _FAIR_SHARE * (request.deadline - request.submitted)
        self._end(is_good=False if is_late else None)

    def cancelled(self) -> None:
        """Its task was cancelled, because nobody waits, or by somebody else."""
        if self.request.is_open:
            self._give_up("its task was cancelled")
        self.ended()

    def _is_last(self) -> bool:
        return self._failures + 1 >= self._calls.attempts

    def _failed(
        self, kind: str, what: str, *, error: BaseException | None = None, is_seen: bool = False
    ) -> float | None:
        self._calls.tell(kind, what, error)
        pause = None if error is not None and not isinstance(error, Exception) else self._maybe_pause()
        # Connections that were idle too long fail all at once, and once each: that is no reason to open the breaker.
        self._end(is_good=None if pause is not None and self._failures == 1 else False)
        if pause is None:
            self._give_up(what, is_seen=is_seen)
        elif not is_seen:
            self._calls.count(retry=False, unseen=True)
        return pause

    def _maybe_pause(self) -> float | None:
        """Return in how many seconds to try once more; None: not at all."""
        if self._is_last():
            return None
        pause = min(_FIRST_PAUSE * 2**self._failures, _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._failures += 1
        return pause if time.monotonic() + pause < self.request.deadline else None

    def _give_up(self, why: str, *, is_seen: bool = False) -> None:
        self._calls.give_up(self.request, why, is_counted=is_seen)

    def _end(self, *, is_good: bool | None) -> None:
        """Tell the breaker of a try's end, once."""
        with self._lock:
            was_trying, self._is_trying = self._is_trying, False
            is_trial = self._is_trial
        if was_trying:
            self._calls.tell_breaker(is_good=is_good, is_trial=is_trial)


def _text_of(error: BaseException) -> str:
    """Return an exception's text as one line."""
    try:
        return " ".join(str(error).split()) or "(it says no more)"
    except BaseException:  # noqa: BLE001 - it is somebody else's
        return "(it cannot say why)"
