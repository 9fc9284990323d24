"""What pyproject.toml cannot say: cffi builds the extension, and one wheel serves every Python from 3.10 on.

The licence stands here because pyproject.toml's key for it has one form before setuptools 77 and another one after.
"""

import sysconfig

from setuptools import setup

ABI3 = {"bdist_wheel": {"py_limited_api": "cp310"}}

setup(
    cffi_modules=["engine_shim/_build.py:ffibuilder"],
    options={} if sysconfig.get_config_var("Py_GIL_DISABLED") else ABI3,  # free-threaded Python has no stable ABI
    license="Apache-2.0",
)
