"""The extension as the linkages see it: rows of a table, addresses as integers, and the steps of the proof."""

from __future__ import annotations

import os
import platform
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from engine_shim.linkage.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

MACHINES = ("x86_64", "aarch64")

STACKS_REFUSED, STACKS_PLAIN, STACKS_GUARDED = -1, 0, 1  # enum attach_stacks in shim.h


class Row(NamedTuple):
    """A function of OpenSSL that the shim calls.

    Attributes:
        name: As OpenSSL names it.
        required: False: the shim does without it on an OpenSSL that lacks it.
    """

    name: str
    required: bool


class Table:
    """The extension ``engine_shim._native``, with Python's types for arguments and results.

    Args:
        lib: cffi's Lib object.
        ffi: cffi's FFI object.
    """

    def __init__(self, lib: Any, ffi: Any) -> None:  # noqa: ANN401 - the extension has no types
        self._lib = lib
        self._ffi = ffi

    def rows(self) -> tuple[Row, ...]:
        """List the functions that the table has room for, in its order."""
        count = range(self._lib.ossl_count())
        return tuple(Row(self._text(self._lib.ossl_name(i)), bool(self._lib.ossl_is_required(i))) for i in count)

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Fill the table; what has no address is made empty.

        Args:
            addresses: By name.
        """
        for index, row in enumerate(self.rows()):
            self._lib.ossl_bind(index, self._ffi.cast("void *", addresses.get(row.name, 0)))

    def dlopen(self, path: str | None) -> int:
        """Get the handle of a module that is loaded already (``man 3 dlopen``); it stays open.

        Args:
            path: Its file; None for the global scope.

        Returns:
            The handle; 0 where no such module is loaded.
        """
        file = self._ffi.NULL if path is None else os.fsencode(path)
        mode = os.RTLD_LAZY if path is None else os.RTLD_LAZY | os.RTLD_NOLOAD
        return self._address(self._lib.dlopen(file, mode))

    def dlsym(self, handle: int, name: str) -> int:
        """Look a name up in a module and in what it depends on (``man 3 dlsym``).

        Args:
            handle: From ``dlopen``.
            name: Of a function.

        Returns:
            Its address; 0 where there is none.
        """
        return self._address(self._lib.dlsym(self._ffi.cast("void *", handle), name.encode()))

    def version_number(self) -> int:
        """Ask OpenSSL for its version through the table."""
        return int(self._lib.attach_version_number())

    def version_text(self) -> str:
        """Ask OpenSSL for its version in words through the table."""
        return self._text(self._lib.attach_version_text())

    def context_timeout(self, ssl_ctx: int) -> int:
        """Read the session timeout of an ``SSL_CTX``, in seconds, through the table.

        Args:
            ssl_ctx: Its address.
        """
        return int(self._lib.attach_context_timeout(self._ffi.cast("void *", ssl_ctx)))

    def fips_only(self) -> bool:
        """Tell whether the default property query demands FIPS providers."""
        return bool(self._lib.attach_fips_only())

    def stacks(self) -> int:
        """Give jobs guarded stacks, where OpenSSL lets us: one of ``STACKS_*``."""
        return int(self._lib.attach_stacks())

    def selftest(self) -> bool:
        """Let one job pause and resume. False: ``last_error`` says why it did not."""
        return int(self._lib.attach_selftest()) == 0

    def provider(self) -> bool:
        """Load the built-in provider. False: ``last_error`` says why it did not load."""
        return int(self._lib.attach_provider()) == 0

    def last_error(self) -> str:
        """Say what this thread's last failing call complained about."""
        return self._text(self._lib.shim_last_error())

    def _text(self, pointer: Any) -> str:  # noqa: ANN401 - cffi's pointers have no types
        return self._ffi.string(pointer).decode("utf-8", "replace") if pointer else ""

    def _address(self, pointer: Any) -> int:  # noqa: ANN401 - cffi's pointers have no types
        return int(self._ffi.cast("uintptr_t", pointer))


def load() -> Table:
    """Load the extension.

    Raises:
        Refused: It does not exist for this platform, or was not built.
    """
    system, machine = sys.platform, platform.machine()
    if system != "linux" or machine not in MACHINES:
        raise Refused(f"engine_shim does not run on {system} on {machine}", "use Linux on x86-64 or arm64")
    try:
        extension = import_module("engine_shim._native")
    except ImportError as error:
        raise Refused(f"the extension of engine_shim cannot be loaded ({error})", "pip install tlsserver") from error
    return Table(extension.lib, extension.ffi)
