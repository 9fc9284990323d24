"""Files that are loaded into this process as an ENGINE or a provider: the libcrypto that they need must be ours.

The loader would load another one beside it without a word, and objects of one are garbage to the other.
"""

from __future__ import annotations

import platform
from pathlib import Path, PurePath

from engine_shim.linkage import binding, maps
from engine_shim.linkage.elf import Elf, ElfError
from engine_shim.linkage.refusal import Refused
from engine_shim.linkage.shared import LIBRARIES

_FOR_THIS_OPENSSL = "give one that is built for the OpenSSL that pyOpenSSL uses, as `tlsserver doctor` shows it"


def check(path: Path) -> None:
    """Make sure that a file can be loaded and needs no other OpenSSL than the one that is loaded.

    Args:
        path: Of the file.

    Raises:
        Refused: It cannot be read, is no shared object for this machine, or depends on no libcrypto or another one.
    """
    try:
        elf = Elf(path.read_bytes())
        needed = openssl_of(elf)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}", "give the path of a file that is there") from error
    except ElfError as error:
        raise Refused(f"{path} is no shared object: {error}", _FOR_THIS_OPENSSL) from error
    if elf.machine != platform.machine():
        raise Refused(f"{path} is for {elf.machine}, this machine is {platform.machine()}", _FOR_THIS_OPENSSL)
    if not needed:
        raise Refused(f"{path} does not depend on libcrypto, so it has nothing to do with OpenSSL", _FOR_THIS_OPENSSL)
    for name in set(needed) - set(pyopenssls()):
        raise Refused(f"{path} would bring a second OpenSSL ({name}) into this process", _FOR_THIS_OPENSSL)


def openssl_of(elf: Elf) -> list[str]:
    """Name the libraries of OpenSSL that a file needs, as its DT_NEEDED has them."""
    return [name for name in elf.needed if name.startswith(LIBRARIES)]


def pyopenssls() -> list[str]:
    """Name those that pyOpenSSL's bindings need; none where they carry their own OpenSSL.

    Raises:
        Refused: There are no bindings.
    """
    with binding.find().module.file() as elf:
        return openssl_of(elf)


def loaded_openssl() -> frozenset[str]:
    """Name the files of OpenSSL that are mapped into this process.

    Raises:
        Refused: The kernel does not show them.
    """
    return frozenset(one.path for one in maps.read() if PurePath(one.path).name.startswith(LIBRARIES))
