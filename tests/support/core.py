"""A process's memory, as gcore(1) writes it down, and what of a private key is in it."""

from __future__ import annotations

import mmap
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from support.leaks import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def dump_at(pid: int, functions: Sequence[str], folder: Path, *, trigger: Callable[[], object]) -> Path:
    """Write the memory of a process to a file when it next calls one of some functions; then it goes on.

    Args:
        pid: The process.
        functions: Names that its libraries export.
        folder: For the file.
        trigger: Makes it call one, and may wait for the outcome.
    """
    path = folder / f"core.{pid}"
    steps = [*(f"break {name}" for name in functions), "continue", f"generate-core-file {path}", "detach"]
    command = ["gdb", "-nx", "-batch", "-p", str(pid), *(word for step in steps for word in ("-ex", step))]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as gdb:
        # From now on it stands still until the breakpoints are set.
        wait_until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text())
        trigger()
        said, _ = gdb.communicate(timeout=60)
    assert path.exists(), said
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
