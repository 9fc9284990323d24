"""Small shared objects, made by the C compiler while the tests run, and loaded into this process."""

from __future__ import annotations

import ctypes
import subprocess
from typing import TYPE_CHECKING, Any

import cffi

from engine_shim.linkage.module import Module

if TYPE_CHECKING:
    from pathlib import Path

FFI: Any = cffi.FFI()


def build(path: Path, source: str, *flags: str) -> Path:
    """Compile and link.

    Args:
        path: Of the shared object to make.
        source: In C.
        flags: More arguments for the compiler, as other objects and libraries.
    """
    file = path.with_suffix(".c")
    file.write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wl,--build-id", "-o", path, file, *flags], check=True)
    return path


def load(path: Path, mode: int = 0) -> ctypes.CDLL:
    """Load a shared object; ``mode`` as of ``dlopen``."""
    return ctypes.CDLL(str(path), mode=mode)


def address(library: ctypes.CDLL, name: str) -> int:
    """Give the address of a function that the library exports."""
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0


def module(library: ctypes.CDLL, anchor: str = "anchor") -> Module:
    """Describe a loaded library as the linkages see it."""
    return Module.at(address(library, anchor), FFI)


def overwrite_memory(at: int, content: bytes) -> None:
    """Change bytes of this process, be they writable or not; the file stays as it is."""
    with open("/proc/self/mem", "r+b", buffering=0) as memory:  # noqa: PTH123 - pathlib cannot open without a buffer
        memory.seek(at)
        memory.write(content)
