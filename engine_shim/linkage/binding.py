"""The module that holds pyOpenSSL's bindings, wherever this release of cryptography keeps them.

In cryptography 38 it is ``hazmat/bindings/_openssl*.so``, later ``_rust*.so``. It is found from an address of one of
its functions, so that no name of a file matters. Whatever OpenSSL it uses is the one that we have to use.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from engine_shim.linkage.module import Module
from engine_shim.linkage.refusal import NEWER_OPENSSL, REPORT, Refused

# OpenSSL 3.0.0: providers came with it. LibreSSL, BoringSSL and AWS-LC give lower numbers, or names of their own.
OLDEST = 0x30000000
PLACES = ("cryptography.hazmat.bindings._rust._openssl", "cryptography.hazmat.bindings._openssl")
ANCHOR = "_cffi_d_SSL_new"  # cffi's C function for SSL_new, within the module


@dataclass(frozen=True)
class Binding:
    """pyOpenSSL's bindings to OpenSSL.

    Attributes:
        module: The shared object that holds them.
        version_number: As ``OpenSSL_version_num`` gives it through pyOpenSSL (not the one it was compiled with).
        version_text: As ``OpenSSL_version(0)`` gives it.
    """

    module: Module
    version_number: int
    version_text: str


def find() -> Binding:
    """Find pyOpenSSL's bindings in this process.

    Raises:
        Refused: There are none, they are of a form that we do not know, or their OpenSSL is too old.
    """
    lib, ffi = _import()
    binding = Binding(
        module=Module.at(int(ffi.cast("uintptr_t", ffi.addressof(lib, "SSL_new"))), ffi),
        version_number=lib.OpenSSL_version_num(),
        version_text=ffi.string(lib.OpenSSL_version(0)).decode(),
    )
    if binding.version_number < OLDEST or not binding.version_text.startswith("OpenSSL "):
        raise Refused(f"pyOpenSSL uses {binding.version_text}", NEWER_OPENSSL)
    return binding


def _import() -> tuple[Any, Any]:
    """Get cffi's Lib and FFI objects: the ones that pyOpenSSL calls, and not merely others of the same name."""
    try:
        from OpenSSL._util import lib as used  # noqa: PLC0415 - a broken installation is refused, not a traceback
    except Exception as error:
        raise Refused(
            f"pyOpenSSL cannot be imported ({error})", "pip install --upgrade pyOpenSSL cryptography"
        ) from error
    compiled = _compiled_bindings()
    if compiled is None or getattr(used.SSL_new, "__self__", None) is not compiled.lib:
        raise Refused("this pyOpenSSL does not use cryptography's compiled bindings", REPORT)
    return compiled.lib, compiled.ffi


def _compiled_bindings() -> Any:  # noqa: ANN401 - a module made by cffi
    for name in PLACES:
        parent, _, child = name.rpartition(".")
        with suppress(ImportError):
            bindings = getattr(import_module(parent), child, None) or import_module(name)
            if hasattr(bindings, "lib"):
                return bindings
    return None
