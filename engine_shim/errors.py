"""What can go wrong in the shim, as exceptions.

Everything derives from :class:`ShimError`, and every message is one line: what, why, what to do.
"""

from __future__ import annotations


class ShimError(Exception):
    """Base of every error that engine_shim raises."""


class LinkageError(ShimError, ImportError):
    """The OpenSSL that pyOpenSSL uses cannot be reached, or is not proved to be the right one."""


class KeyLoadError(ShimError, ValueError):
    """No private key could be read, or it is of a kind that cannot be wrapped."""


class KeyPasswordError(KeyLoadError):
    """The private key is encrypted, and the password is missing or wrong."""


class KeyMismatchError(ShimError, ValueError):
    """The private key does not belong to the certificate."""


class EngineUnavailableError(ShimError):
    """An ENGINE or a provider cannot be had: not with this OpenSSL, not found, or it refused."""


class EngineError(ShimError):
    """Base of what an engine answers instead of a result."""


class EngineClosedError(EngineError):
    """The engine was closed before the op was performed."""


class NoJobError(EngineError):
    """There is no job to pause, and the engine's answer may depend on the thread that would wait for it."""


class OperationCancelledError(EngineError):
    """The connection was cancelled, and every op of it with it."""


class OperationFailedError(EngineError):
    """The engine performed the op, and it failed."""


class OperationExpiredError(OperationFailedError, TimeoutError):
    """Nobody has answered the op in time."""


class AnswerError(EngineError):
    """Base of what is wrong with an answer to a `SignRequest`."""


class LateAnswerError(AnswerError):
    """Nobody waits for it any more: the handshake has ended, the deadline has passed, or the engine is closed."""


class DoubleAnswerError(AnswerError):
    """The request was answered before; the first answer holds."""


class ForeignAnswerError(AnswerError, LookupError):
    """The engine has given no request with this number."""


class WrongAnswerError(AnswerError):
    """The answer is not right for the request's key and message."""


class KeyUseError(ShimError, ValueError):
    """The key cannot do what was asked of it, or not with these arguments."""


class OperationNotFinishedError(ShimError):
    """The operation has not finished, so it has no result yet."""


class BusyError(ShimError):
    """A job is paused: only the call that paused may be repeated, with the same buffer."""


class WrongThreadError(ShimError):
    """A job resumes only on the thread that started it (ASYNC_start_job(3))."""


class ForkedError(ShimError):
    """Made before a fork and used in the child: it is the parent's."""


class WaitContextError(ShimError):
    """A wait context cannot do what was asked of it; nothing was changed."""


class WaitContextFreedError(WaitContextError):
    """The wait context is freed, or is that of a connection that is closed, or whose calls run in no job."""


class UnknownWaitKeyError(WaitContextError, LookupError):
    """No fd is set under this key."""


class BadDescriptorError(WaitContextError, ValueError):
    """The number is not that of an open file descriptor."""


class JobNotFinishedError(ShimError):
    """The job has not come to its end, so it has no result."""
