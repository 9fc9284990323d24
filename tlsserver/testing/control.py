"""The scripted provider's shared object: found, bound to the OpenSSL in use, and called (``tests/provider``)."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import cffi

from engine_shim import linkage

__all__ = ["CDEF", "ffi", "library", "module_path"]

# tests/provider/scripted.h without comments: a test compares the two.
CDEF = """
enum scripted_kind { SCRIPTED_SIGN, SCRIPTED_ENCRYPT, SCRIPTED_DECRYPT, SCRIPTED_KINDS };
enum scripted_change {
    SCRIPTED_KEEP,
    SCRIPTED_RENEW,
    SCRIPTED_REUSE
};
enum scripted_limits { SCRIPTED_FDS = 3 };

struct scripted_step {
    unsigned pauses;
    unsigned false_wakes;
    unsigned fds;
    int told;
    int fails;
    int change;
    int sticky;
    int callback;
};

struct scripted_waiting {
    uint64_t serial;
    int kind;
    unsigned pause;
    int has_callback;
    int fds[3];
};

struct scripted_counters {
    uint64_t started;
    uint64_t completed;
    uint64_t failed;
    uint64_t pauses;
    uint64_t for_nothing;
    uint64_t orphaned;
    uint64_t alive;
    uint64_t fds_open;
};

size_t scripted_function_count(void);
const char *scripted_function_name(size_t index);
void scripted_bind(size_t index, void *address);

void scripted_reset(void);
int scripted_push(int kind, const struct scripted_step *step);
void scripted_default(int kind, const struct scripted_step *step);

size_t scripted_waiting(struct scripted_waiting *out, size_t room);
int scripted_wait(size_t count, double seconds);
int scripted_complete(size_t index, size_t fd);
int scripted_fail(size_t index, size_t fd);
int scripted_wake(size_t index, size_t fd);
void scripted_release_all(void);
void scripted_counters(struct scripted_counters *out);
"""

ffi: Any = cffi.FFI()
ffi.cdef(CDEF)

_lock = threading.Lock()
_libraries: list[Any] = []


def module_path() -> Path:
    """Find the shared object.

    Raises:
        RuntimeError: tlsserver was installed without it.
    """
    found = importlib.util.find_spec("tlsserver.testing._provider")
    if found is None or found.origin is None:
        message = "the scripted provider was not built: install tlsserver with pip, from its wheel or its sources"
        raise RuntimeError(message)
    return Path(found.origin)


def library() -> Any:  # noqa: ANN401 - a library of cffi's has no type
    """Load the shared object and bind it, once; its functions are those of ``CDEF``.

    Raises:
        LinkageError: OpenSSL cannot be reached.
        RuntimeError: tlsserver was installed without it.
    """
    with _lock:
        if not _libraries:
            _libraries.append(_bound(ffi.dlopen(str(module_path()))))
        return _libraries[0]


def _bound(lib: Any) -> Any:  # noqa: ANN401 - a library of cffi's has no type
    names = [ffi.string(lib.scripted_function_name(i)).decode() for i in range(lib.scripted_function_count())]
    addresses = linkage.find(names)
    for index, name in enumerate(names):
        lib.scripted_bind(index, ffi.cast("void *", addresses[name]))
    return lib
