"""A process's memory, as gcore(1) writes it down, and what of a private key is in it."""

from __future__ import annotations

import base64
import mmap
import subprocess
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


def dump(pid: int, folder: Path) -> Path:
    """Write the memory of a process to a file; the process goes on."""
    prefix = folder / "core"
    done = subprocess.run(
        ["gcore", "-o", str(prefix), str(pid)], capture_output=True, text=True, timeout=60, check=False
    )
    path = Path(f"{prefix}.{pid}")
    assert path.exists(), done.stderr
    return path


def traces(key_file: Path) -> dict[str, bytes]:
    """Return by name what of a private key may stand in memory: its numbers in either order of bytes, DER and PEM."""
    key: Any = load_pem_private_key(key_file.read_bytes(), None)
    found = {}
    for name, number in _numbers(key).items():
        length = (number.bit_length() + 7) // 8
        found[f"{name}, as OpenSSL computes with it"] = number.to_bytes(length, "little")
        found[f"{name}, as files have it"] = number.to_bytes(length, "big")
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        der = key.private_bytes(Encoding.DER, form, NoEncryption())
        # From the middle on it is private: in front of that stands what every key of the kind begins with.
        found[f"{form.name} in PEM"] = base64.b64encode(der[len(der) // 3 * 3 // 2 // 3 * 3 :])[:40]
    return found


def _numbers(key: Any) -> dict[str, int]:
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        return {name: getattr(numbers, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")}
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return {"d": key.private_numbers().private_value}


def found_in(core: Path, wanted: dict[str, bytes]) -> list[str]:
    """Name what of it is in a core."""
    with core.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        return [name for name, needle in wanted.items() if memory.find(needle) >= 0]
