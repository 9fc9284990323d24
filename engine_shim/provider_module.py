"""The shared object of somebody else's provider: looked at before it is loaded, so that no second OpenSSL comes along.

A provider that calls libcrypto is linked to it. With the linkage ``shared`` that is the libcrypto of pyOpenSSL if it
has the same soname: the loader takes the one that is there. With any other name, or the linkage ``static``, the loader
would bring another OpenSSL into the process. A provider that uses nothing but what OpenSSL hands to it works with both.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine_shim.errors import EngineUnavailableError
from engine_shim.linkage import Refused, plugin
from engine_shim.linkage.elf import Elf, ElfError
from engine_shim.linkage.refusal import USE_SHARED_OPENSSL
from engine_shim.native import ffi, lib

__all__ = ["find_module", "load_module"]

INIT = "OSSL_provider_init"  # provider(7)


def find_module(name: str) -> Path | None:
    """Look for a provider's module where the user said that modules are.

    Args:
        name: The provider's.

    Returns:
        The file in the folder OPENSSL_MODULES; None where there is none.
    """
    folder = os.environ.get("OPENSSL_MODULES")
    path = Path(folder, f"{name}.so") if folder else None
    return path if path is not None and path.is_file() else None


def load_module(path: Path) -> int:
    """Load a provider's module into this process, for good.

    Args:
        path: Of the shared object.

    Returns:
        The address of its ``OSSL_provider_init``.

    Raises:
        EngineUnavailableError: It is no such module, it cannot be loaded, or it would bring a second OpenSSL.
    """
    check_module(path)
    before = plugin.loaded_openssl()
    handle = lib.dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)
    if handle == ffi.NULL:
        raise EngineUnavailableError(f"{path} cannot be loaded ({_loader_error()}): install what it needs")
    address = int(ffi.cast("uintptr_t", lib.dlsym(handle, INIT.encode())))
    brought = sorted(plugin.loaded_openssl() - before)
    if address and not brought:
        return address
    lib.dlclose(handle)
    if brought:
        raise EngineUnavailableError(f"{path} brings a second OpenSSL ({brought[0]}): use a build for this one")
    raise EngineUnavailableError(f"{path} is no OpenSSL provider (it has no {INIT}): give the path of one")


def check_module(path: Path) -> None:
    """Look at a module that is not loaded yet.

    Args:
        path: Of the shared object.

    Raises:
        EngineUnavailableError: It cannot be read, is no shared object, or needs another OpenSSL than pyOpenSSL's.
    """
    try:
        needed = plugin.openssl_of(Elf(path.read_bytes()))
    except OSError as error:
        raise EngineUnavailableError(f"{path} cannot be read ({error.strerror}): give the path of a module") from error
    except ElfError as error:
        raise EngineUnavailableError(f"{path} is no shared object ({error}): give the path of a module") from error
    ours = _pyopenssls()
    for name in needed:
        if name not in ours:
            raise EngineUnavailableError(_another(path, name, ours))


def _another(path: Path, name: str, ours: list[str]) -> str:
    if ours:
        return f"{path} needs {name}, and pyOpenSSL uses {ours[-1]}: use a build of the provider for that one"
    return f"{path} needs {name}, and pyOpenSSL has its OpenSSL inside: {USE_SHARED_OPENSSL}"


def _pyopenssls() -> list[str]:
    try:
        return plugin.pyopenssls()
    except Refused as refused:
        raise EngineUnavailableError(f"{refused.reason}: {refused.advice}") from refused


def _loader_error() -> str:
    text = lib.dlerror()
    return "the loader gives no reason" if text == ffi.NULL else str(ffi.string(text).decode(errors="replace"))
