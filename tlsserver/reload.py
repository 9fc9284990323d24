"""A server's context made anew when its files have changed, or on SIGHUP; open connections keep the one they have.

Facts
- A renewed certificate comes as several files that change one after the other, or, in Kubernetes, as a symbolic link
  (``..data``) that is swapped: the names stay, what they lead to is another file.
- Parsing files takes milliseconds, some of them longer than a turn of the loop may be.
- A handler of Python's may interrupt whatever the main thread holds, so it must take no lock.

Decision
- A thread of its own looks at the files (stat(2), through links) and makes the next context; the loop only swaps.
- Files that have changed are loaded when they have stood still for one more look. What cannot be loaded changes
  nothing: the last good context stays, which is said once for each state of the files.
- Whoever asks, asks through a queue whose ``put`` is made for signal handlers.

Trade-off
- A change is seen after one to two intervals. A notification (inotify(7)) would be sooner, at the price of one watch
  for each directory on the way of each link.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from engine_shim import ShimError
from tlsserver.errors import ConfigurationError, TLSServerError
from tlsserver.policy.files import Stamp, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from tlsserver.session import ContextLike

__all__ = ["Dates", "Reloadable", "Reloader"]

logger = logging.getLogger(__name__)

_STOP, _RELOAD = False, True

# Of each file what its content is told by.
_Look = dict["str | Path", Stamp]


class Dates(Protocol):
    """When what is served is over, in seconds since 1970; None: unknown, or there is none."""

    @property
    def certificate_expires(self) -> float | None:
        """Of the first of the certificates."""

    @property
    def ocsp_expires(self) -> float | None:
        """Of the OCSP response."""


class Reloadable(Protocol):
    """What has a context: `tlsserver.Server` is one. Any thread may call."""

    def reload(self, make: Callable[[], ContextLike] | None = None, /) -> None:
        """Use what ``make`` makes for new connections; None: the same, of files that are read anew."""

    def context_files(self) -> tuple[str | Path, ...]:
        """Return the files that the context is made of."""

    def statistics(self) -> Dates:
        """Return what the context says of its time, among other numbers."""


class Reloader:
    """Keeps a server's context as new as its files.

    A context manager around `tlsserver.Server.run`::

        with Reloader(server, files=["cert.pem", "key.pem"]):
            server.run()
    """

    def __init__(
        self,
        server: Reloadable,
        *,
        make: Callable[[], ContextLike] | None = None,
        files: Iterable[str | Path] | None = None,
        interval: float = 5.0,
    ) -> None:
        """Prepare.

        Args:
            server: Whose context it is.
            make: Makes the next context, on another thread than the loop's; None: `tlsserver.TLSContext.replace`.
            files: What to look at; None: the files that the context is made of.
            interval: Seconds between two looks, above 0.

        Raises:
            ConfigurationError: The interval is not above 0, or the context names no files.
        """
        if not interval > 0:
            message = f"a reload interval of {interval:g} s cannot work: give seconds above 0"
            raise ConfigurationError(message)
        self._server = server
        self._make = make
        self._follows_context = files is None
        self._files = tuple(files) if files is not None else server.context_files()
        self._interval = interval
        self._wishes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._previous: Any = None
        self._tried = self._last = self._look()
        self._looked_at_clock = time.time()

    def __enter__(self) -> Self:
        """Begin to look; on the main thread SIGHUP asks for a reload from now on."""
        self._thread = threading.Thread(target=self._run, name="tlsserver-reload", daemon=True)
        self._thread.start()
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGHUP, lambda _number, _frame: self.request())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGHUP, self._previous)
        self._wishes.put(_STOP)
        if self._thread is not None:
            self._thread.join()

    def request(self) -> None:
        """Reload soon, whether or not the files have changed. Any thread, and signal handlers."""
        self._wishes.put(_RELOAD)

    def _run(self) -> None:
        while (wish := self._wish()) is not _STOP:
            look = self._look()
            stands_still = look == self._last
            self._last = look
            if wish is _RELOAD or (stands_still and look != self._tried):
                self._tried = look
                self._reload()
                self._follow_context()
            self._tell_what_is_over()

    def _wish(self) -> bool | None:
        try:
            return self._wishes.get(timeout=self._interval)
        except queue.Empty:
            return None

    def _reload(self) -> None:
        try:
            self._server.reload(self._make)
        except (TLSServerError, ShimError, OSError) as error:
            logger.error("reload failed, the last good certificates stay: %s", error)  # noqa: TRY400 - a user's mistake
        except Exception:
            logger.exception("reload failed, the last good certificates stay")
        else:
            logger.info("certificates and keys are reloaded")

    def _tell_what_is_over(self) -> None:
        """Say it once, when it comes to that: what is over when it is loaded, others have said."""
        before, self._looked_at_clock = self._looked_at_clock, time.time()
        numbers = self._server.statistics()
        if _is_between(before, numbers.certificate_expires, self._looked_at_clock):
            logger.error("a certificate that is served has expired, and has not been renewed: clients refuse it")
        if _is_between(before, numbers.ocsp_expires, self._looked_at_clock):
            logger.warning("the OCSP response is too old now and is not sent any more: fetch another one")

    def _follow_context(self) -> None:
        """The context that was made may be of other files: they are as new as it is."""
        self._last = self._look()
        self._tried = {file: self._tried.get(file, seen) for file, seen in self._last.items()}

    def _look(self) -> _Look:
        """See the files as they are now; a folder may have others than before."""
        if self._follows_context:
            with contextlib.suppress(TLSServerError, OSError):  # it names none any more: those before are all there is
                self._files = self._server.context_files()
        return {file: stamp(file) for file in self._files}


def _is_between(begin: float, moment: float | None, end: float) -> bool:
    return moment is not None and begin < moment <= end
