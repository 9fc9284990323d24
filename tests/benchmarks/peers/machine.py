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


def _field(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1].strip() if found else "?"
