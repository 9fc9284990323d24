"""Where PKCS #11 modules are: shared libraries, one for each maker of tokens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from tlsserver.signers.pkcs11_uri import Pkcs11Uri

__all__ = ["hint", "module_path"]

# Where distributions install modules.
_FOLDERS = tuple(
    f"/usr/{lib}{folder}"
    for lib in ("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "lib", "local/lib")
    for folder in ("", "/pkcs11", "/softhsm")
)
_USUAL = {
    "SoftHSM2": "libsofthsm2.so",
    "OpenSC": "opensc-pkcs11.so",
    "YubiHSM": "yubihsm_pkcs11.so",
    "YubiKey": "libykcs11.so",
    "p11-kit": "p11-kit-proxy.so",
}


def module_path(given: str | None, uri: Pkcs11Uri) -> str:
    """Choose the module: the one that was given, the URI's, or that of ``PKCS11_MODULE_PATH``.

    Raises:
        ConfigurationError: There is none.
    """
    named = given or uri.module_path or (uri.module_name and _by_name(uri.module_name))
    named = named or os.environ.get("PKCS11_MODULE_PATH")  # libp11's name for it
    if named:
        return named
    raise ConfigurationError(
        f"no PKCS #11 module is named: add module-path=... to the URI, or set PKCS11_MODULE_PATH{hint()}"
    )


def _by_name(name: str) -> str:
    """Find a module by its name without prefix and suffix (RFC 7512, 2.3)."""
    files = [f"{folder}/{start}{name.lower()}.so" for folder in _FOLDERS for start in ("lib", "")]
    for file in files:
        if os.path.exists(file):  # noqa: PTH110 - strings, as all module paths
            return file
    raise ConfigurationError(
        f"no PKCS #11 module called {name} is installed where modules usually are: give module-path{hint()}"
    )


def hint() -> str:
    """Name the usual modules that are on this machine."""
    found = {os.path.realpath(path): kind for kind, file in _USUAL.items() for path in _places(file)}
    told = ", ".join(f"{kind} {path}" for path, kind in found.items())
    return f"; here there is {told}" if told else "; none of the usual ones is installed"


def _places(file: str) -> list[str]:
    return [path for folder in _FOLDERS if os.path.exists(path := f"{folder}/{file}")]  # noqa: PTH110 - as above
