"""Where the build finds Intel's crypto_mb, and which of the two ``mb_*.c`` it compiles.

PyPI's ``ipp-crypto-static`` and ``ipp-crypto-include`` carry the archive and its headers. They are requirements of the
build, not of the package: what is needed of them is linked into the extension. This file imports nothing but the
standard library and is a script, too: the Makefile runs it for the C units.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

#: Set to anything but nothing, it builds without crypto_mb.
SWITCH = "TLSSERVER_WITHOUT_CRYPTO_MB"

WITH, WITHOUT = "mb_ifma.c", "mb_none.c"


class CryptoMb(NamedTuple):
    """What the compiler and the linker are given.

    Attributes:
        include: The folder that holds ``crypto_mb/rsa.h``.
        archive: ``libcrypto_mb.a``.
    """

    include: Path
    archive: Path


def _installed(distribution: str, ending: str) -> Path:
    """Find a file by what its distribution says it has installed: under which prefix is pip's affair.

    Raises:
        LookupError: Not installed, or without such a file.
    """
    try:
        files = metadata.distribution(distribution).files or ()
    except metadata.PackageNotFoundError:
        raise LookupError(f"{distribution} is not installed") from None
    for file in files:
        path = Path(str(file.locate()))
        if path.as_posix().endswith(ending) and path.is_file():
            return path.resolve()
    raise LookupError(f"{distribution} has no file {ending}")


def find() -> CryptoMb:
    """Find crypto_mb for the extension.

    Raises:
        LookupError: It is not to be built in; the message says why.
    """
    if os.environ.get(SWITCH):
        raise LookupError(f"{SWITCH} is set")
    if platform.machine() != "x86_64":
        raise LookupError(f"crypto_mb is for x86-64, this is {platform.machine()}")
    header = _installed("ipp-crypto-include", "/aggregator/crypto_mb/rsa.h")
    return CryptoMb(header.parent.parent, _installed("ipp-crypto-static", "/libcrypto_mb.a"))


def maybe_find() -> CryptoMb | None:
    """Find crypto_mb, or say in one line on standard error that the extension will do without."""
    try:
        return find()
    except LookupError as why:
        print(f"tlsserver: built without crypto_mb, so BatchEngine batches nothing: {why}", file=sys.stderr)  # noqa: T201
        return None


if __name__ == "__main__" and (found := maybe_find()) is not None:
    print(found.include, found.archive)  # noqa: T201
