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

import cffi

from tlsserver.errors import ConfigurationError

try:
    import pkcs11
    from pkcs11 import _pkcs11
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        "keys in a PKCS #11 token need python-pkcs11, which is not installed: pip install 'tlsserver[pkcs11]'"
    ) from missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsserver.signers.pkcs11_uri import Pkcs11Uri

__all__ = ["Module", "RefusedError", "load_module", "module_path", "pkcs11"]

logger = logging.getLogger(__name__)

_ffi = cffi.FFI()
_ffi.cdef("""
    typedef unsigned long CK_RV;
    typedef struct {
        void *create, *destroy, *lock, *unlock;
        unsigned long flags;
        void *reserved;
    } CK_C_INITIALIZE_ARGS;
    typedef struct { unsigned long slot, state, flags, error; } CK_SESSION_INFO;
    typedef struct { unsigned char version[2]; void *functions[68]; } CK_FUNCTION_LIST;
    CK_RV C_GetFunctionList(CK_FUNCTION_LIST **);
""")

# PKCS #11 v2.40: where these are in CK_FUNCTION_LIST, whose order no version changes.
_INITIALIZE, _FINALIZE, _SESSION_INFO, _LOGIN = 0, 1, 15, 18
_OS_LOCKING_OK = 2
_USER = 1  # CKU_USER
_LOGGED_IN = (1, 3)  # CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS
_OK, _CANT_LOCK, _ALREADY_INITIALIZED, _ALREADY_LOGGED_IN = 0, 0x0A, 0x191, 0x100

# CKR_ values of C_Login that another attempt would only make worse: most tokens lock themselves.
_PIN_REFUSED = {
    0xA0: "the PIN is wrong",
    0xA1: "the PIN has characters that it does not take",
    0xA2: "the PIN is too short or too long",
    0xA3: "the PIN has expired",
    0xA4: "its PIN is locked: unlock it with the tools of its maker",
    0x102: "its user's PIN was never set",
}

_FORK_PATIENCE = 2.0  # seconds; as long as the engines of the shim wait

# Where distributions install modules.
_FOLDERS = tuple(
    f"/usr/{lib}{folder}"
    for lib in ("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "lib", "local/lib")
    for folder in ("", "/pkcs11", "/softhsm")
)
_USUAL = {
    "SoftHSM2": "libsofthsm2.so",
    "OpenSC": "opensc-pkcs11.so",
    "YubiHSM": "yubihsm_pkcs11.so",
    "YubiKey": "libykcs11.so",
    "p11-kit": "p11-kit-proxy.so",
}


class RefusedError(ConfigurationError):
    """The token has refused its PIN: nobody may try it again."""


class _Library(_pkcs11.lib):
    """python-pkcs11's view of a module that somebody else initializes."""

    def initialize(self) -> None:
        """Leave it to `Module`."""


class Module:
    """A PKCS #11 module; made by `load_module`.

    Attributes:
        path: As it was given.
        library: python-pkcs11's object for it; every use of it stands in ``with module.call()``.
        generation: How often it was initialized; handles of another one are void.
        users: Whoever has sessions in it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.generation = 0
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self._functions = _functions(path)
        self._one_at_a_time: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._is_ours = True
        self._reset()
        self._start()
        self.library = _Library(path)

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
            `library`.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            if self._is_parents:
                self._start(again=True)
                self._is_parents = False
            self._calls += 1
        try:
            with self._one_at_a_time:
                yield self.library
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def login(self, session: Any, pin: bytes | bytearray | None) -> None:  # noqa: ANN401 - as above
        """Log in, for all sessions of this process with the token; being logged in already is as good.

        Args:
            session: python-pkcs11's.
            pin: None: the token has a keypad.

        Raises:
            RefusedError: It must not be tried again.
            PKCS11Error: Something else has failed.
        """
        data = _ffi.NULL if pin is None else _ffi.from_buffer(pin)
        function = _ffi.cast("CK_RV (*)(unsigned long, unsigned long, char *, unsigned long)", self._functions[_LOGIN])
        result = function(session.handle, _USER, _ffi.cast("char *", data), len(pin or b""))
        if result in _PIN_REFUSED:
            raise RefusedError(_PIN_REFUSED[result])
        if result not in (_OK, _ALREADY_LOGGED_IN):
            raise pkcs11.PKCS11Error(f"the login fails with CKR 0x{result:x}")

    def check_session(self, session: Any, *, logged_in: bool) -> None:  # noqa: ANN401 - python-pkcs11's type has no handle
        """See that a session is good before python-pkcs11 searches in it: a search that fails writes to stderr.

        Args:
            session: python-pkcs11's.
            logged_in: Whether it ought to be logged in.

        Raises:
            SessionHandleInvalid: It is not.
            UserNotLoggedIn: It is not logged in, but ought to be.
        """
        info: Any = _ffi.new("CK_SESSION_INFO *")
        function = _ffi.cast("CK_RV (*)(unsigned long, CK_SESSION_INFO *)", self._functions[_SESSION_INFO])
        if function(session.handle, info) != _OK:
            raise pkcs11.SessionHandleInvalid
        if logged_in and info.state not in _LOGGED_IN:
            raise pkcs11.UserNotLoggedIn

    def _start(self, *, again: bool = False) -> None:
        """Initialize it. Nobody is in a call."""
        result = self._initialize(_OS_LOCKING_OK)
        if result == _ALREADY_INITIALIZED and again and self._is_ours:
            self._finalize()
            result = self._initialize(_OS_LOCKING_OK)
        if result == _CANT_LOCK:
            self._one_at_a_time = threading.Lock()
            result = self._initialize(None)
        if result == _ALREADY_INITIALIZED:
            self._is_ours = False
            self._one_at_a_time = threading.Lock()
            logger.warning("PKCS #11 module %s is used by others in this process: one signature at a time", self.path)
        elif result == _OK:
            self._is_ours = True
        else:
            raise ConfigurationError(
                f"PKCS #11 module {self.path} does not start (CKR 0x{result:x}): see its maker's log"
            )
        self.generation += 1

    def _initialize(self, flags: int | None) -> int:
        arguments = _ffi.NULL if flags is None else _ffi.new("CK_C_INITIALIZE_ARGS *", {"flags": flags})
        return int(_ffi.cast("CK_RV (*)(void *)", self._functions[_INITIALIZE])(arguments))

    def _finalize(self) -> None:
        _ffi.cast("CK_RV (*)(void *)", self._functions[_FINALIZE])(_ffi.NULL)

    def restart(self, generation: int) -> None:
        """Initialize it anew, so that it looks for its tokens: many modules do that at no other time.

        Nothing happens while somebody is in a call, if another one has done it since, or if it has other users.

        Args:
            generation: The one that is not good.
        """
        with self._changed:
            is_free = self._is_ours and not self._calls and not self._is_parents and len(self.users) <= 1
            if self.generation == generation and is_free:
                self._finalize()
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
                self._finalize()
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


def module_path(given: str | None, uri: Pkcs11Uri) -> str:
    """Choose the module: the one that was given, the URI's, or that of ``PKCS11_MODULE_PATH``.

    Raises:
        ConfigurationError: There is none.
    """
    named = given or uri.module_path or (uri.module_name and _by_name(uri.module_name))
    named = named or os.environ.get("PKCS11_MODULE_PATH")  # libp11's name for it
    if named:
        return named
    raise ConfigurationError(
        f"no PKCS #11 module is named: add module-path=... to the URI, or set PKCS11_MODULE_PATH{_hint()}"
    )


def _by_name(name: str) -> str:
    """Find a module by its name without prefix and suffix (RFC 7512, 2.3)."""
    files = [f"{folder}/{start}{name.lower()}.so" for folder in _FOLDERS for start in ("lib", "")]
    for file in files:
        if os.path.exists(file):  # noqa: PTH110 - strings, as all module paths
            return file
    raise ConfigurationError(
        f"no PKCS #11 module called {name} is installed where modules usually are: give module-path{_hint()}"
    )


def _hint() -> str:
    """Name the usual modules that are on this machine."""
    found = {os.path.realpath(path): kind for kind, file in _USUAL.items() for path in _places(file)}
    told = ", ".join(f"{kind} {path}" for path, kind in found.items())
    return f"; here there is {told}" if told else "; none of the usual ones is installed"


def _places(file: str) -> list[str]:
    return [path for folder in _FOLDERS if os.path.exists(path := f"{folder}/{file}")]  # noqa: PTH110 - as above


def _functions(path: str) -> Any:  # noqa: ANN401 - cffi's pointers have no types
    """Load the module and return the addresses of its functions. It stays loaded."""
    out = _ffi.new("CK_FUNCTION_LIST **")
    try:
        library: Any = _ffi.dlopen(path)
        result = library.C_GetFunctionList(out)
    except OSError as error:
        raise ConfigurationError(f"PKCS #11 module {path} cannot be loaded: {error}{_hint()}") from error
    except AttributeError:
        raise ConfigurationError(f"{path} is no PKCS #11 module: it has no C_GetFunctionList{_hint()}") from None
    if result != _OK or out[0] == _ffi.NULL:
        raise ConfigurationError(f"PKCS #11 module {path} does not start (CKR 0x{result:x})")
    _loaded.append(library)
    return out[0].functions


_loaded: list[Any] = []  # cffi would unload what nobody has


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
