"""The one build script: ``csrc/*.c`` and cffi's glue become the abi3 extension ``engine_shim._native``.

setuptools runs this file through ``cffi_modules`` in ``setup.py``. The extension calls OpenSSL through a table that is
bound by name at run time, so building it needs a C compiler and nothing of OpenSSL.
"""

from __future__ import annotations

import platform
import re
import runpy
import sys
from pathlib import Path

from cffi import FFI

MACHINES = ("x86_64", "aarch64")

# Relative to setup.py where setuptools runs this file: it takes no absolute source path.
CSRC = Path(__file__).parent / "csrc"

# cffi's generated functions are not warning clean under -Wextra; csrc/*.c is compiled with -Werror by `make check`.
PREAMBLE = """\
#include <stddef.h>
#include <stdint.h>
#include <dlfcn.h>
#include "shim.h"
"""

# The one function of Python's that C calls, through a pointer that it is given: never on a job's stack.
CALLED_BACK = 'extern "Python" void wait_cleanup_in_python(uintptr_t id, int fd);'

COMPILE_ARGS = (
    "-std=c11",
    "-O2",
    "-g",
    "-pthread",
    "-fvisibility=hidden",  # the extension exports its init function and nothing else
    "-fno-strict-aliasing",  # the table of OpenSSL's functions is filled through void pointers
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
)

LINK_ARGS = (
    "-pthread",
    "-Wl,-z,relro,-z,now",
    "-Wl,--exclude-libs,ALL",  # the names in crypto_mb's archive stay inside
)


def refuse_other_platforms(system: str, machine: str) -> None:
    """Stop the build with one line where the shim cannot work.

    Args:
        system: What ``sys.platform`` says.
        machine: What ``platform.machine()`` says.

    Raises:
        SystemExit: Not Linux on x86-64 or arm64.
    """
    if system != "linux" or machine not in MACHINES:
        sys.exit(
            f"tlsserver: engine_shim runs on Linux on x86-64 or arm64, this is {system} on {machine}: "
            "build it on such a machine (or in a container or virtual machine that is one)"
        )


def cdef_of(header: str) -> str:
    """Turn the plain C header into what ``FFI.cdef`` takes.

    Args:
        header: Text of ``shim.h``: declarations, comments and preprocessor lines, but no macro that they depend on.

    Returns:
        The declarations alone.
    """
    without_comments = re.sub(r"/\*.*?\*/|//[^\n]*", "", header, flags=re.DOTALL)
    return re.sub(r"^[ \t]*#[^\n]*$", "", without_comments, flags=re.MULTILINE)


def make_builder() -> FFI:
    """Describe the extension to cffi, with crypto_mb where it is to be had.

    Returns:
        The builder that ``cffi_modules`` names.
    """
    # By path: setuptools runs this file outside its package.
    crypto_mb = runpy.run_path(str(Path(__file__).parent / "_crypto_mb.py"))
    found = crypto_mb["maybe_find"]()
    left_out = crypto_mb["WITHOUT" if found else "WITH"]
    headers = ["-isystem", str(found.include)] if found else []
    builder = FFI()
    builder.cdef(cdef_of((CSRC / "shim.h").read_text(encoding="utf-8")))
    builder.cdef(CALLED_BACK)
    builder.set_source(
        "engine_shim._native",
        PREAMBLE,
        sources=[str(path) for path in sorted(CSRC.glob("*.c")) if path.name != left_out],
        depends=[str(path) for pattern in ("*.h", "*.def") for path in sorted(CSRC.glob(pattern))],
        include_dirs=[str(CSRC)],
        define_macros=[("_GNU_SOURCE", "1")],  # eventfd, mmap's flags, RTLD_NOLOAD
        extra_compile_args=[*COMPILE_ARGS, *headers],
        extra_objects=[str(found.archive)] if found else [],
        extra_link_args=list(LINK_ARGS),
        libraries=["dl"],
        py_limited_api=True,
    )
    return builder


refuse_other_platforms(sys.platform, platform.machine())
ffibuilder = make_builder()
