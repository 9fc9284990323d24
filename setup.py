"""What pyproject.toml cannot say: cffi builds the extension, and one wheel serves every Python from 3.10 on.

The licence stands here because pyproject.toml's key for it has one form before setuptools 77 and another one after.
"""

import sysconfig
from pathlib import Path

from setuptools import Extension, setup

ABI3 = {"bdist_wheel": {"py_limited_api": "cp310"}}

# No module of Python's: a shared object that OpenSSL loads as a provider. It is linked to neither of them.
PROVIDER = Extension(
    "tlsserver.testing._provider",
    sources=[str(path) for path in sorted(Path("tests/provider").glob("*.c"))],
    depends=[str(path) for pattern in ("*.h", "*.def") for path in sorted(Path("tests/provider").glob(pattern))],
    include_dirs=["tests/provider", "engine_shim/csrc"],
    define_macros=[("_GNU_SOURCE", "1")],  # dup3
    extra_compile_args=["-std=c11", "-O2", "-g", "-pthread", "-fvisibility=hidden", "-fno-strict-aliasing"],
    extra_link_args=["-pthread", "-Wl,-z,relro,-z,now"],
    py_limited_api=True,
)

setup(
    cffi_modules=["engine_shim/_build.py:ffibuilder"],
    ext_modules=[PROVIDER],
    options={} if sysconfig.get_config_var("Py_GIL_DISABLED") else ABI3,  # free-threaded Python has no stable ABI
    license="Apache-2.0",
)
