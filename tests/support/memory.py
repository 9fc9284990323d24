"""How much memory this process holds, and which objects.

Facts
- glibc gives every thread an arena and a cache of its own. What is freed in one is of no use to the others, a page goes
  back to the kernel only when all of it is free, and what lies in a cache counts as handed out. Python's own allocator
  does the same once more, in pieces of a megabyte. Resident memory therefore swings by megabytes without any leak.
- Without these, what malloc has handed out is exact.

Decision
- Who compares memory runs with `TUNABLES`: one arena for all threads, no caches, Python's objects from malloc as well.
  Then resident memory is steady to some 100 KB, and a leak of a few bytes a cycle shows in the exact number.
"""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path
from typing import NamedTuple

# Of the environment, because both are read as the process starts (glibc's manual, "Tunables").
TUNABLES = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0", "PYTHONMALLOC": "malloc"}

_LIBC = ctypes.CDLL(None)


class _MallInfo(ctypes.Structure):
    """mallinfo(3): struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


class Usage(NamedTuple):
    """What is in use.

    Attributes:
        resident: Bytes of physical memory (proc(5), smaps_rollup).
        allocated: Bytes that malloc has handed out, all arenas and mappings together; 0: this libc does not tell.
    """

    resident: float
    allocated: float


def usage() -> Usage:
    """Look, after a garbage collection, and without what malloc only keeps for later."""
    gc.collect()
    _LIBC.malloc_trim(0)
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Rss:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert found, rollup
    return Usage(int(found[1]) * 1024, _allocated())


def _allocated() -> int:
    mallinfo = getattr(_LIBC, "mallinfo2", None)  # glibc 2.33
    if mallinfo is None:
        return 0
    mallinfo.restype = _MallInfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def alive(*kinds: type) -> list[object]:
    """List the objects of these classes that somebody still holds."""
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, kinds)]
