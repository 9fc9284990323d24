"""An asynchronous OpenSSL provider that does what a test tells it to.

OpenSSL 3 has one asynchronous engine to test with (``dasync``), OpenSSL 4 has none. This one is a provider, for both
linkages and OpenSSL 3.0.8 to 4.x: signatures with RSA and EC keys, and the AEAD ciphers of TLS. Each operation takes
the next entry of its script: how often it pauses, whether it waits for the test, what becomes of its wait fds.
"""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_shim import OpenSSLProvider
from tlsserver.testing.control import ffi, library, module_path

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from engine_shim import Key

__all__ = ["AT_ONCE", "HELD", "SIGNALLED", "Change", "Counts", "Kind", "Script", "ScriptedProvider", "Waiting"]

_MOST_FDS = 3
# Long enough for the slowest machine: what takes longer never comes.
_PATIENCE = 30.0


class Kind(enum.IntEnum):
    """What an operation does; each kind has a script of its own."""

    SIGN = 0
    ENCRYPT = 1
    DECRYPT = 2


class Change(enum.IntEnum):
    """What becomes of the wait fds from one pause to the next."""

    KEEP = 0
    RENEW = 1
    """They are closed, and others with other numbers take their place."""
    REUSE = 2
    """They are closed, and others with the same numbers take their place."""


@dataclass(frozen=True)
class Script:
    """What one operation does. The defaults: it pauses until the test ends that, and shows one wait fd.

    Attributes:
        pauses: How often it pauses; 0: it completes at once, or fails.
        told: Whether a pause lasts until the test ends it (`ScriptedProvider.complete`, `fail`); False: its signal is
            given before it pauses, as OpenSSL's ``dasync`` does.
        fails: Whether its answer is an error.
        false_wakes: How often its first pause is interrupted by a signal for nothing.
        fds: How many wait fds it shows, 0 to 3. With none nobody is told when it may go on: the application polls.
        change: What becomes of them from one pause to the next.
        sticky: Misbehave: the fds are readable from the first pause on, whether something has come or not.
        callback: Use the callback of the wait context, if one is set (ASYNC_WAIT_CTX_set_callback(3)), and no fds.

    Raises:
        ValueError: A number is out of range, or a callback is to come from the operation itself: it might be
            Python's, which must not run on a job's stack.
    """

    pauses: int = 1
    told: bool = True
    fails: bool = False
    false_wakes: int = 0
    fds: int = 1
    change: Change = Change.KEEP
    sticky: bool = False
    callback: bool = False

    def __post_init__(self) -> None:
        if self.pauses < 0 or self.false_wakes < 0 or not 0 <= self.fds <= _MOST_FDS:
            message = f"{self} cannot be: pauses and false_wakes are 0 or more, fds 0 to {_MOST_FDS}"
            raise ValueError(message)
        if self.callback and not self.told:
            message = "an operation does not call a callback by itself: leave told=True, and complete() it"
            raise ValueError(message)


AT_ONCE = Script(pauses=0)
"""It never pauses."""
SIGNALLED = Script(told=False)
"""It pauses once, and may go on at once: how most accelerators look from outside."""
HELD = Script()
"""It pauses until the test completes it, or for ever."""


@dataclass(frozen=True)
class Waiting:
    """An operation that is paused until the test says more.

    Attributes:
        serial: Which one it is, counted from 1.
        kind: What it does.
        pause: Which of its pauses this is, from 1 on.
        fds: Its wait fds.
        has_callback: Whether it calls the wait context's callback instead.
    """

    serial: int
    kind: Kind
    pause: int
    fds: tuple[int, ...]
    has_callback: bool


@dataclass(frozen=True)
class Counts:
    """What the provider has counted since it was opened (or `ScriptedProvider.reset`).

    Attributes:
        started: Operations that were asked for.
        completed: Those that gave their result.
        failed: Those that did not.
        pauses: How often a job was paused and came back.
        for_nothing: How often it came back, and nothing had come.
        orphaned: Operations whose connection was freed while they were paused: each has leaked its job.
        alive: Now: neither ended nor orphaned.
        fds_open: Now: wait fds that the provider holds.
    """

    started: int
    completed: int
    failed: int
    pauses: int
    for_nothing: int
    orphaned: int
    alive: int
    fds_open: int


class ScriptedProvider:
    """The provider, and its scripts; a context manager. A process has one, so only one can be open at a time.

    Any thread may use it while another one serves. Nothing pauses until a script says so.

    Raises:
        EngineUnavailableError: OpenSSL does not take it.
        LinkageError: OpenSSL cannot be reached.
        RuntimeError: Another one is open, or tlsserver was installed without the provider.
    """

    _one = threading.Lock()

    def __init__(self) -> None:
        self._lib = library()
        if not ScriptedProvider._one.acquire(blocking=False):
            message = "another ScriptedProvider is open in this process: close it first"
            raise RuntimeError(message)
        self._is_open = True
        try:
            self._engine = OpenSSLProvider("scripted", module_path())
        except BaseException:
            self.close()
            raise
        self._lib.scripted_reset()

    @property
    def engine(self) -> OpenSSLProvider:
        """The provider of keys."""
        return self._engine

    @property
    def ciphers(self) -> OpenSSLProvider:
        """The provider of ciphers: ``with scripted.ciphers.prefer(): context = TLSContext(..., async_io=True)``."""
        return OpenSSLProvider("scripted-ciphers", module_path())

    def load_key(self, source: str | Path, password: str | bytes | None = None) -> Key:
        """Load an RSA or EC key, by the URI ``scripted:PATH``.

        Args:
            source: The path of a PEM file.
            password: Decrypts it.

        Returns:
            The key, for a `tlsserver.TLSContext`.

        Raises:
            KeyPasswordError: The password is missing or wrong.
            KeyLoadError: There is no key.
        """
        return self._engine.load_key(f"scripted:{Path(source).absolute()}", password)

    # The script

    def script(self, *steps: Script, kind: Kind = Kind.SIGN) -> None:
        """Say what the next operations do, one each; they are added to those that were said before."""
        for step in steps:
            if not self._lib.scripted_push(kind, _as_struct(step)):
                raise MemoryError

    def default(self, step: Script, kind: Kind = Kind.SIGN) -> None:
        """Say what operations do when the script has nothing for them."""
        self._lib.scripted_default(kind, _as_struct(step))

    def reset(self) -> None:
        """Forget the scripts and set the counters to 0; what waits goes on waiting."""
        self._lib.scripted_reset()

    # What waits

    def waiting(self) -> tuple[Waiting, ...]:
        """List the operations that wait for the test, in the order in which they were asked for."""
        room = self._lib.scripted_waiting(ffi.NULL, 0)
        while True:
            out = ffi.new("struct scripted_waiting[]", room)
            count = self._lib.scripted_waiting(out, room)
            if count <= room:
                return tuple(_waiting(out[i]) for i in range(count))
            room = count

    def wait(self, count: int = 1, seconds: float = _PATIENCE) -> None:
        """Wait until so many operations wait for the test.

        Args:
            count: How many at least.
            seconds: How long.

        Raises:
            TimeoutError: They did not come.
        """
        if not self._lib.scripted_wait(count, seconds):
            message = f"{len(self.waiting())} operations wait after {seconds:g} s, not {count}: {self.counts()}"
            raise TimeoutError(message)

    def complete(self, index: int = 0, *, fd: int = 0) -> None:
        """End the pause of an operation that waits.

        Args:
            index: Which one, as `waiting` lists them.
            fd: Which of its wait fds becomes readable.

        Raises:
            IndexError: There is no such operation, or it has no such fd.
        """
        _check(self._lib.scripted_complete(index, fd), index, fd)

    def fail(self, index: int = 0, *, fd: int = 0) -> None:
        """The same, and the operation fails. Raises IndexError as `complete` does."""
        _check(self._lib.scripted_fail(index, fd), index, fd)

    def wake(self, index: int = 0, *, fd: int = 0) -> None:
        """Make a wait fd of an operation readable for nothing. Raises IndexError as `complete` does."""
        _check(self._lib.scripted_wake(index, fd), index, fd)

    def release_all(self) -> None:
        """Complete all operations that are under way, without further pauses."""
        self._lib.scripted_release_all()

    def counts(self) -> Counts:
        """Return what was counted."""
        raw = ffi.new("struct scripted_counters *")
        self._lib.scripted_counters(raw)
        return Counts(**{field.name: int(getattr(raw, field.name)) for field in fields(Counts)})

    # The end

    def close(self) -> None:
        """Forget the scripts and complete what waits: whoever serves it finishes. Idempotent."""
        if self._is_open:
            self._is_open = False
            self._lib.scripted_reset()
            self._lib.scripted_release_all()
            ScriptedProvider._one.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _as_struct(step: Script) -> Any:  # noqa: ANN401 - cffi's pointers have no types
    return ffi.new("struct scripted_step *", {field.name: int(getattr(step, field.name)) for field in fields(Script)})


def _waiting(raw: Any) -> Waiting:  # noqa: ANN401 - cffi's structures have no types
    fds = tuple(fd for fd in raw.fds if fd >= 0)
    return Waiting(int(raw.serial), Kind(raw.kind), int(raw.pause), fds, bool(raw.has_callback))


def _check(done: int, index: int, fd: int) -> None:
    if not done:
        message = f"no operation {index} with a wait fd {fd} waits"
        raise IndexError(message)
