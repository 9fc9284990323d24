"""A process's memory, as gcore(1) writes it down, and what of a private key is in it."""

from __future__ import annotations

import mmap
import subprocess
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

MOST_LINES_OF_EC = 6
BITS = 52


def dump(pid: int, folder: Path) -> Path:
    """Write the memory of a process to a file, also what it wants left out; the process goes on."""
    prefix = folder / "core"
    done = subprocess.run(
        ["gcore", "-a", "-o", str(prefix), str(pid)], capture_output=True, text=True, timeout=60, check=False
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
        found[f"{name}, in the lanes of a batch"] = b"".join(digit.to_bytes(8, "little") for digit in _digits(number))
    return found | {f"the file's line {line[:4].decode()}...": line for line in _private_lines(key_file)}


def _digits(number: int) -> list[int]:
    """Return the first digits, of 52 bits each: the vectors' form (AVX-512 IFMA)."""
    return [number >> (BITS * place) & (1 << BITS) - 1 for place in range(3)]


def _private_lines(key_file: Path) -> list[bytes]:
    """Return lines of PEM that nobody has who has not read the file: RSA's modulus is in the first half."""
    lines = [line for line in key_file.read_bytes().splitlines() if line and not line.startswith(b"-----")]
    return lines[len(lines) // 2 + 1 : -1] if len(lines) > MOST_LINES_OF_EC else lines[:1]


def _numbers(key: Any) -> dict[str, int]:
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        return {name: getattr(numbers, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")}
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return {"d": key.private_numbers().private_value}


def family(pid: int) -> list[int]:
    """Name a process and those that it has started, and so on."""
    children = [one for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
    return [pid, *(one for child in children for one in family(int(child)))]


def found_in(core: Path, wanted: dict[str, bytes]) -> list[str]:
    """Name what of it is in a core."""
    with core.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        return [name for name, needle in wanted.items() if memory.find(needle) >= 0]
