"""On what it was measured."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def about() -> dict[str, str]:
    """Describe the machine: processor, cores, memory, kernel, system, C library."""
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    memory = Path("/proc/meminfo").read_text(encoding="utf-8")
    numbers = [_field(rf"{name}\s*: (.*)", processor) for name in ("cpu family", "model", "stepping")]
    kilobytes = int(_field(r"MemTotal:\s+(\d+)", memory))
    flags = _field(r"flags\s*: (.*)", processor).split()
    return {
        "processor": _field(r"model name\s*: (.*)", processor),
        "family, model, stepping": ", ".join(numbers),
        "instructions": " ".join(
            name for name in ("aes", "adx", "avx2", "avx512ifma", "vaes", "sha_ni") if name in flags
        ),
        "cores": f"{len(os.sched_getaffinity(0))}{', virtual' if 'hypervisor' in flags else ''}",
        "memory": f"{kilobytes / 2**20:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        "C library": " ".join(platform.libc_ver()),
    }


def busy() -> float:
    """Seconds that all cores have worked since the machine was started; what the host gave to others counts too.

    From /proc/stat (proc(5)), in clock ticks: good to some 10 ms.
    """
    first = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)
    user, nice, system, _, _, irq, softirq, steal = map(int, first[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _field(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1].strip() if found else "?"
