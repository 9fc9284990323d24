"""PKCS #11 modules: loaded once in a process, and made ready for several threads and for forks.

PKCS #11 v3.0, 5.4 (C_Initialize): a module that is initialized without arguments may take it that one thread alone
calls it. python-pkcs11 does that, and lets go of the GIL in each call: threads that sign at once with SoftHSM2 crash
the process (measured). So C_Initialize is called here, with CKF_OS_LOCKING_OK, before python-pkcs11 has the module. A
module that somebody else has initialized, or that cannot lock, is called by one thread at a time.

After a fork the child must initialize the module anew, and none of the parent's handles is its own. A fork waits until
no call is in the module, two seconds at most: else the child would have its locks as they were.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from tlsserver.errors import ConfigurationError
from tlsserver.signers.pkcs11_functions import (
    ALREADY_INITIALIZED,
    CANT_LOCK,
    OK,
    OS_LOCKING_OK,
    RefusedError,
    load_functions,
    pkcs11,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Module", "RefusedError", "load_module", "pkcs11"]

logger = logging.getLogger(__name__)

_FORK_PATIENCE = 2.0  # seconds; as long as the engines of the shim wait


class Module:
    """A PKCS #11 module; made by `load_module`.

    Attributes:
        path: As it was given.
        generation: How often it was initialized; handles of another one are void.
        users: Whoever has sessions in it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.generation = 0
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self._functions = load_functions(path)
        self._one_at_a_time: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._is_ours = True
        self._reset()
        self._start()

    def _reset(self) -> None:
        """Begin with locks of our own; here and in a forked child."""
        self._changed = threading.Condition()
        self._calls = 0
        self._forking = False
        self._is_parents = False

    @contextlib.contextmanager
    def call(self) -> Iterator[Any]:
        """Stand around calls: no fork comes between, and after one the module is initialized first.

        Yields:
            python-pkcs11's object for it.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            if self._is_parents:
                self._start(again=True)
                self._is_parents = False
            self._calls += 1
        try:
            with self._one_at_a_time:
                yield self._functions.library
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def login(self, session: Any, pin: bytes | bytearray | None) -> None:  # noqa: ANN401 - python-pkcs11's
        """Log in; see `SharedFunctions.login`. In a call."""
        self._functions.login(session, pin)

    def check_session(self, session: Any, *, logged_in: bool) -> None:  # noqa: ANN401 - as above
        """See that a session is good; see `SharedFunctions.check_session`. In a call."""
        self._functions.check_session(session, logged_in=logged_in)

    def _start(self, *, again: bool = False) -> None:
        """Initialize it. Nobody is in a call."""
        result = self._functions.initialize(OS_LOCKING_OK)
        if result == ALREADY_INITIALIZED and again and self._is_ours:
            self._functions.finalize()
            result = self._functions.initialize(OS_LOCKING_OK)
        if result == CANT_LOCK:
            self._one_at_a_time = threading.Lock()
            result = self._functions.initialize(None)
        if result == ALREADY_INITIALIZED:
            self._is_ours = False
            self._one_at_a_time = threading.Lock()
            logger.warning("PKCS #11 module %s is used by others in this process: one signature at a time", self.path)
        elif result == OK:
            self._is_ours = True
        else:
            raise ConfigurationError(
                f"PKCS #11 module {self.path} does not start (CKR 0x{result:x}): see its maker's log"
            )
        self.generation += 1

    def restart(self, generation: int) -> None:
        """Initialize it anew, so that it looks for its tokens: many modules do that at no other time.

        Nothing happens while somebody is in a call, if another one has done it since, or if it has other users.

        Args:
            generation: The one that is not good.
        """
        with self._changed:
            is_free = self._is_ours and not self._calls and not self._is_parents and len(self.users) <= 1
            if self.generation == generation and is_free:
                self._functions.finalize()
                self._start()

    def before_fork(self) -> None:
        """Wait until nobody is in a call, and let nobody begin one."""
        with self._changed:
            self._forking = True
            self._changed.wait_for(lambda: not self._calls, _FORK_PATIENCE)

    def after_fork(self, *, in_child: bool) -> None:
        """Go on; in the child with nothing of the parent's."""
        if in_child:
            self._reset()
            if not isinstance(self._one_at_a_time, contextlib.nullcontext):
                self._one_at_a_time = threading.Lock()
            self._is_parents = True
            return
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def end(self) -> None:
        """Finalize it, at the process's end, unless somebody is in a call for good."""
        with self._changed:
            if self._is_ours and not self._calls and not self._is_parents:
                self._functions.finalize()
            self._forking = True  # nobody begins another one


_modules: dict[str, Module] = {}
_lock = threading.Lock()


def load_module(path: str) -> Module:
    """Load a module, or return the one that was loaded before: a process has each of them once.

    Args:
        path: A path, or a name that dlopen(3) finds.

    Raises:
        ConfigurationError: It cannot be loaded, or does not start.
    """
    name = os.path.realpath(path) if os.path.exists(path) else path  # noqa: PTH110 - a name is as good as a path
    with _lock:
        if name not in _modules:
            _modules[name] = Module(name)
        return _modules[name]


def _before_fork() -> None:
    for module in tuple(_modules.values()):
        module.before_fork()


def _after_fork(*, in_child: bool) -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have had it
    if in_child:
        _lock = threading.Lock()
    for module in tuple(_modules.values()):
        module.after_fork(in_child=in_child)


def _end() -> None:
    for module in _modules.values():
        module.end()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)
atexit.register(_end)
