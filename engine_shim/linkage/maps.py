"""The memory map of this process, as the kernel tells it in ``/proc/self/maps`` (``man 5 proc_pid_maps``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine_shim.linkage.refusal import MOUNT_PROC, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

DELETED = " (deleted)"

_LINE = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<permissions>\S{4}) (?P<offset>[0-9a-f]+) "
    r"(?P<device>[0-9a-f]+:[0-9a-f]+) (?P<inode>\d+)(?: +(?P<path>\S.*))?"
)


class Mapping(NamedTuple):
    """A range of addresses that was mapped at once.

    Attributes:
        start: First address.
        end: The address after the last one.
        permissions: As "r-xp".
        offset: In the file, of the first byte.
        device: Of the file, as "fe:00". It need not be what ``stat`` says: overlayfs and btrfs differ.
        inode: Of the file; 0 where there is none.
        path: Of the file; empty where there is none.
        deleted: The file is no longer at its path.
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    path: str
    deleted: bool

    @property
    def file(self) -> tuple[str, int]:
        """What tells one file from another: device and inode."""
        return self.device, self.inode

    def holds(self, address: int, size: int = 1) -> bool:
        """Tell whether a range of addresses lies within."""
        return self.start <= address and address + size <= self.end


def parse(text: str) -> tuple[Mapping, ...]:
    """Read the text of a ``maps`` file; lines of an unknown form are left out.

    Args:
        text: All of it.
    """
    return tuple(_mapping(match) for match in map(_LINE.fullmatch, text.splitlines()) if match)


def _mapping(match: re.Match[str]) -> Mapping:
    path = match["path"] or ""
    deleted = path.endswith(DELETED)
    return Mapping(
        start=int(match["start"], 16),
        end=int(match["end"], 16),
        permissions=match["permissions"],
        offset=int(match["offset"], 16),
        device=match["device"],
        inode=int(match["inode"]),
        path=path.removesuffix(DELETED).replace("\\012", "\n"),
        deleted=deleted,
    )


def read() -> tuple[Mapping, ...]:
    """Read the mappings of this process.

    Raises:
        Refused: The kernel does not show them.
    """
    try:
        text = Path("/proc/self/maps").read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise Refused(f"/proc/self/maps cannot be read ({error.strerror})", MOUNT_PROC) from error
    return parse(text)


def find(mappings: Iterable[Mapping], address: int) -> Mapping | None:
    """Find the mapping that holds an address; None where nothing is mapped.

    Args:
        mappings: Where to look.
        address: In this process.
    """
    return next((mapping for mapping in mappings if mapping.holds(address)), None)
