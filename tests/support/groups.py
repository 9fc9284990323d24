"""Which groups a Context takes part in: pyOpenSSL has no call for it, so OpenSSL's is found by its name."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import engine_shim
from engine_shim.native import address_of, ffi, lib

if TYPE_CHECKING:
    from OpenSSL import SSL

_SET_GROUPS_LIST = 92  # SSL_CTRL_SET_GROUPS_LIST, SSL_CTX_ctrl(3)


@cache
def openssl_function(name: str, result: Any, *arguments: Any) -> Any:
    """Find one of the shim's OpenSSL functions, for ctypes: ``name`` as in ossl.def, the types as ctypes has them."""
    engine_shim.attach()
    names = [ffi.string(lib.ossl_name(index)).decode() for index in range(lib.ossl_count())]
    address = int(ffi.cast("uintptr_t", lib.ossl_address(names.index(name))))
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def set_groups(context: SSL.Context, *groups: str) -> bool:
    """Let a Context take part in these groups only, in this order; whether this OpenSSL has them all."""
    control = openssl_function(
        "SSL_CTX_ctrl", ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p
    )
    address = int(ffi.cast("uintptr_t", address_of(context._context)))
    done = control(address, _SET_GROUPS_LIST, 0, ":".join(groups).encode()) == 1
    if not done:
        openssl_function("ERR_clear_error", None)()
    return bool(done)
