"""The functions of a PKCS #11 module, and what python-pkcs11 has to know of them.

Facts
- A module has one list of functions, and whoever asks for it gets the same: what one part of a process has initialized
  is so for all of it. p11-kit's modules give everybody a list of his own instead, with an initialization, sessions
  and a login of its own.
- python-pkcs11 asks for the list itself, initializes as if one thread used it, and logs a whole token out when a
  session is closed that it has logged in.

Decision
- Where there is one list, we initialize and log in by it: `SharedFunctions`. Where there is not, python-pkcs11 does
  both with its own, one call at a time: `OwnFunctions`.
"""

from __future__ import annotations

import contextlib
from typing import Any

import cffi

from tlsserver.errors import ConfigurationError
from tlsserver.signers.pkcs11_paths import hint

try:
    import pkcs11
    from pkcs11 import _pkcs11
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        "keys in a PKCS #11 token need python-pkcs11, which is not installed: pip install 'tlsserver[pkcs11]'"
    ) from missing

__all__ = [
    "ALREADY_INITIALIZED",
    "CANT_LOCK",
    "OK",
    "OS_LOCKING_OK",
    "OwnFunctions",
    "RefusedError",
    "SharedFunctions",
    "load_functions",
    "pkcs11",
]

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
OS_LOCKING_OK = 2
_USER = 1  # CKU_USER
_LOGGED_IN = (1, 3)  # CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS
OK, CANT_LOCK, ALREADY_INITIALIZED, _ALREADY_LOGGED_IN = 0, 0x0A, 0x191, 0x100

# CKR_ values of C_Login that another attempt would only make worse: most tokens lock themselves.
_PIN_REFUSED = {
    0xA0: "the PIN is wrong",
    0xA1: "the PIN has characters that it does not take",
    0xA2: "the PIN is too short or too long",
    0xA3: "the PIN has expired",
    0xA4: "its PIN is locked: unlock it with the tools of its maker",
    0x102: "its user's PIN was never set",
}

# The same as python-pkcs11 tells them.
_PIN_EXCEPTIONS = {
    "PinIncorrect": 0xA0,
    "PinInvalid": 0xA1,
    "PinLenRange": 0xA2,
    "PinExpired": 0xA3,
    "PinLocked": 0xA4,
    "UserPinNotInitialized": 0x102,
}


class RefusedError(ConfigurationError):
    """The token has refused its PIN: nobody may try it again."""


class _Library(_pkcs11.lib):
    """python-pkcs11's view of a module that somebody else initializes."""

    def initialize(self) -> None:
        """Leave it to `SharedFunctions`."""


class SharedFunctions:
    """The one list of a module.

    Args:
        path: Of the module.
        functions: The addresses, as CK_FUNCTION_LIST has them.
    """

    def __init__(self, path: str, functions: Any) -> None:  # noqa: ANN401 - cffi's pointers have no types
        self._path = path
        self._functions = functions
        self._library: _pkcs11.lib | None = None

    @property
    def library(self) -> _pkcs11.lib:
        """python-pkcs11's object for the module, which is initialized."""
        if self._library is None:
            self._library = _Library(self._path)
        return self._library

    def initialize(self, flags: int | None) -> int:
        """Call C_Initialize.

        Args:
            flags: `OS_LOCKING_OK`; None: for one thread.

        Returns:
            Its CKR_ value.
        """
        arguments = _ffi.NULL if flags is None else _ffi.new("CK_C_INITIALIZE_ARGS *", {"flags": flags})
        return int(_ffi.cast("CK_RV (*)(void *)", self._functions[_INITIALIZE])(arguments))

    def finalize(self) -> None:
        """Call C_Finalize, whatever it says."""
        _ffi.cast("CK_RV (*)(void *)", self._functions[_FINALIZE])(_ffi.NULL)

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
        if result not in (OK, _ALREADY_LOGGED_IN):
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
        if function(session.handle, info) != OK:
            raise pkcs11.SessionHandleInvalid
        if logged_in and info.state not in _LOGGED_IN:
            raise pkcs11.UserNotLoggedIn


class OwnFunctions:
    """A list of python-pkcs11's own.

    Args:
        path: Of the module.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._library: _pkcs11.lib | None = None
        self._logins: dict[int, Any] = {}  # by slot: the session that logged in; closing it would log out

    @property
    def library(self) -> _pkcs11.lib:
        """python-pkcs11's object for the module, which is initialized."""
        assert self._library is not None  # noqa: S101 - `Module` initializes first
        return self._library

    def initialize(self, flags: int | None) -> int:
        """Let python-pkcs11 initialize; see `SharedFunctions.initialize`. It knows no locks."""
        if flags is not None:
            return CANT_LOCK
        self._logins.clear()
        if self._library is None:
            self._library = _pkcs11.lib(self._path)  # initializes
        else:
            self.finalize()
            self._library.initialize()
        return OK

    def finalize(self) -> None:
        """Let python-pkcs11 finalize, whatever the module says."""
        self._logins.clear()
        if self._library is not None:
            with contextlib.suppress(pkcs11.PKCS11Error):  # a forked child has nothing to finalize
                self._library.finalize()

    def login(self, session: Any, pin: bytes | bytearray | None) -> None:  # noqa: ANN401 - python-pkcs11's
        """Log in by a session that is kept; see `SharedFunctions.login`. python-pkcs11 takes PINs as text alone."""
        token = session.token
        before = self._logins.pop(token.slot.slot_id, None)
        if before is not None:
            with contextlib.suppress(pkcs11.PKCS11Error):
                before.close()
        try:
            secret: Any = pkcs11.PROTECTED_AUTH if pin is None else pin.decode()
        except UnicodeDecodeError:
            raise RefusedError(_PIN_REFUSED[0xA1]) from None
        try:
            self._logins[token.slot.slot_id] = token.open(user_pin=secret)
        except pkcs11.UserAlreadyLoggedIn:
            return
        except pkcs11.PKCS11Error as error:
            refused = _PIN_EXCEPTIONS.get(type(error).__name__)
            if refused is None:
                raise
            raise RefusedError(_PIN_REFUSED[refused]) from error

    def check_session(self, session: Any, *, logged_in: bool) -> None:  # noqa: ANN401 - as above
        """Nothing: python-pkcs11 does not ask for the state of a session."""


def load_functions(path: str) -> SharedFunctions | OwnFunctions:
    """Load a module. It stays loaded.

    Args:
        path: A path, or a name that dlopen(3) finds.

    Raises:
        ConfigurationError: It cannot be loaded, or is no PKCS #11 module.
    """
    try:
        library: Any = _ffi.dlopen(path)
        lists = [_list(path, library) for _ in range(2)]
    except OSError as error:
        raise ConfigurationError(f"PKCS #11 module {path} cannot be loaded: {error}{hint()}") from error
    except AttributeError:
        raise ConfigurationError(f"{path} is no PKCS #11 module: it has no C_GetFunctionList{hint()}") from None
    _loaded.append(library)
    return SharedFunctions(path, lists[0].functions) if lists[0] == lists[1] else OwnFunctions(path)


def _list(path: str, library: Any) -> Any:  # noqa: ANN401 - as above
    out = _ffi.new("CK_FUNCTION_LIST **")
    result = library.C_GetFunctionList(out)
    if result != OK or out[0] == _ffi.NULL:
        raise ConfigurationError(f"PKCS #11 module {path} does not start (CKR 0x{result:x})")
    return out[0]


_loaded: list[Any] = []  # cffi would unload what nobody has
