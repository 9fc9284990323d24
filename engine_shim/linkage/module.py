"""A shared object that is loaded in this process, and the file that it came from.

The file at the module's path need not be the one that was loaded: an upgrade replaces it under a running process.
``stat`` cannot tell on overlayfs and btrfs, whose device numbers differ from those in ``/proc/self/maps``. So the file
is mapped once more, and what the kernel says about the new mapping is compared with what it says about the module's.
"""

from __future__ import annotations

import mmap
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine_shim.linkage import maps
from engine_shim.linkage.elf import PT_LOAD, Elf, ElfError
from engine_shim.linkage.refusal import REPORT, RESTART, USE_SHARED_OPENSSL, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

PF_X = 1  # the flag of an executable segment


@dataclass(frozen=True)
class Module:
    """A loaded shared object.

    Attributes:
        path: Of its file.
        anchor: An address within its code.
        mappings: The parts of its file that are mapped.
        ffi: Any FFI object of cffi; it casts addresses.
    """

    path: str
    anchor: int
    mappings: tuple[maps.Mapping, ...]
    ffi: Any

    @classmethod
    def at(cls, address: int, ffi: Any) -> Module:  # noqa: ANN401 - cffi's FFI objects have no common public type
        """Find the module that holds an address.

        Args:
            address: Of one of its functions.
            ffi: Any FFI object of cffi.

        Raises:
            Refused: No file is mapped there, or it was deleted meanwhile.
        """
        mappings = maps.read()
        home = maps.find(mappings, address)
        if home is None or not home.inode:
            raise Refused("pyOpenSSL's bindings are not in a file that is mapped into this process", USE_SHARED_OPENSSL)
        if home.deleted:
            raise Refused(f"{home.path} was deleted or replaced after this process loaded it", RESTART)
        return cls(home.path, address, tuple(mapping for mapping in mappings if mapping.file == home.file), ffi)

    @contextmanager
    def file(self) -> Iterator[Elf]:
        """Open the file that this module came from.

        Raises:
            Refused: It cannot be read, is not the one that was loaded, or is garbled.
        """
        with self._mapped_again() as data:
            self._check_same_file(data)
            try:
                elf = Elf(data)
                self._check_build_id(elf)
                yield elf
            except ElfError as error:
                raise Refused(f"{self.path} cannot be understood: {error}", USE_SHARED_OPENSSL) from error

    @contextmanager
    def _mapped_again(self) -> Iterator[mmap.mmap]:
        try:
            descriptor = os.open(os.fsencode(self.path), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(f"{self.path} cannot be read ({error.strerror})", RESTART) from error
        try:
            data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise Refused(f"{self.path} cannot be mapped ({error})", RESTART) from error
        finally:
            os.close(descriptor)
        with data:
            yield data

    def _check_same_file(self, data: mmap.mmap) -> None:
        with self.ffi.from_buffer(data) as view:
            again = maps.find(maps.read(), int(self.ffi.cast("uintptr_t", view)))
        if again is None or again.file != self.mappings[0].file:
            raise Refused(f"{self.path} was replaced after this process loaded it", RESTART)

    def _check_build_id(self, elf: Elf) -> None:
        place = elf.build_id_place()
        if place is None:
            return
        loaded = self.read(self.load_address(elf) + place[0], place[1])
        if loaded != elf.loaded_bytes(*place):
            raise Refused(f"the build id of {self.path} is not that of the loaded module", RESTART)

    def load_address(self, elf: Elf) -> int:
        """Say what has to be added to the addresses in the file.

        Args:
            elf: This module's file.

        Raises:
            Refused: The file has no code where the module has.
        """
        home = maps.find(self.mappings, self.anchor)
        offset = home.offset + self.anchor - home.start if home else -1
        for segment in elf.segments:
            inside = offset - segment.offset
            if segment.kind == PT_LOAD and segment.flags & PF_X and 0 <= inside < segment.file_size:
                address = self.anchor - segment.address - inside
                if address % mmap.PAGESIZE == 0:
                    return address
        raise Refused(f"the code of {self.path} is not loaded where its file says", REPORT)

    def read(self, address: int, size: int, permissions: str = "r") -> bytes:
        """Copy bytes of the loaded module.

        Args:
            address: In this process.
            size: How many.
            permissions: What the memory must allow.

        Raises:
            Refused: They do not lie within one mapping of the module that allows this.
        """
        home = maps.find(self.mappings, address)
        if home is None or not home.holds(address, size) or any(flag not in home.permissions for flag in permissions):
            raise Refused(f"{address:#x} is not in the {permissions} memory of {self.path}", REPORT)
        return bytes(self.ffi.buffer(self.ffi.cast("char *", address), size))
