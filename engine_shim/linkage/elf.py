"""A small reader of ELF64 files: what the linkages have to know of a loaded module, and nothing more.

It reads little-endian 64-bit files of x86-64 and arm64 (``man 5 elf``), from any buffer. Every number in the file is
taken for a lie until it was checked: whatever is truncated or garbled raises ``ElfError`` and nothing else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import mmap
    from collections.abc import Collection, Iterator

MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
MACHINES = {62: "x86_64", 183: "aarch64"}
SHARED_OBJECT = 3

PT_LOAD, PT_DYNAMIC, PT_NOTE = 1, 2, 4
SHT_SYMTAB, SHT_DYNSYM = 2, 11
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH = 0, 1, 5, 10, 15, 29
NT_GNU_BUILD_ID = 3
STT_FUNC = 2
SHN_UNDEF = 0

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")
_NOTE = struct.Struct("<III")


class ElfError(ValueError):
    """The file is no ELF file that we read: truncated, garbled, or of another kind."""


class Segment(NamedTuple):
    """A program header: what the loader maps (or where it finds things)."""

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


class Section(NamedTuple):
    """A section header, as far as tables of symbols need it."""

    kind: int
    offset: int
    size: int
    link: int
    entry_size: int


class Symbol(NamedTuple):
    """An entry of a symbol table.

    Attributes:
        name: As in the string table.
        kind: ``STT_FUNC`` for a function.
        binding: 0 local, 1 global, 2 weak.
        visibility: 0 default, 2 hidden.
        defined: False: the file wants this symbol from another one.
        value: Address, relative to where the file is loaded.
        size: In bytes.
    """

    name: str
    kind: int
    binding: int
    visibility: int
    defined: bool
    value: int
    size: int


@dataclass(frozen=True)
class _Table:
    """A symbol table and its strings, both copied out of the file: fast to walk, and safe when the file shrinks."""

    entries: bytes
    strings: bytes

    def symbol(self, name: bytes, entry: tuple[int, int, int, int, int, int]) -> Symbol:
        _, info, other, index, value, size = entry
        return Symbol(name.decode("utf-8", "replace"), info & 15, info >> 4, other & 3, index != SHN_UNDEF, value, size)

    def name(self, offset: int) -> bytes:
        end = self.strings.find(b"\0", offset)
        if end < 0 or offset >= len(self.strings):
            raise ElfError("the name of a symbol lies outside the string table")
        return self.strings[offset:end]

    def all(self) -> Iterator[Symbol]:
        for entry in _SYMBOL.iter_unpack(self.entries):
            yield self.symbol(self.name(entry[0]), entry)

    def named(self, wanted: Collection[str]) -> dict[str, list[Symbol]]:
        """Find all symbols of the wanted names; one pass, with as little work per symbol as Python allows."""
        found: dict[str, list[Symbol]] = {name: [] for name in wanted}
        names = {name.encode() for name in wanted}
        strings = self.strings
        end_of = strings.find
        for entry in _SYMBOL.iter_unpack(self.entries):
            offset = entry[0]
            name = strings[offset : end_of(b"\0", offset)]
            if name in names:
                found[name.decode()].append(self.symbol(self.name(offset), entry))
        return found


class Elf:
    """A shared object on disk.

    Args:
        data: The whole file: bytes, or a map of it.

    Raises:
        ElfError: It is no ELF64 shared object for x86-64 or arm64, or its headers are garbled.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        header = self._unpack(_HEADER, 0)
        ident, kind, machine = header[:3]
        if ident[: len(MAGIC)] != MAGIC:
            raise ElfError("not a 64-bit little-endian ELF file")
        if machine not in MACHINES:
            raise ElfError(f"made for machine number {machine}, not for x86-64 or arm64")
        if kind != SHARED_OBJECT:
            raise ElfError("not a shared object")
        self.machine = MACHINES[machine]
        self._program_headers = (header[5], header[9], header[10])
        self._section_headers = (header[6], header[11], header[12])

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Copy bytes out of the file.

        Args:
            offset: From the start of the file.
            size: How many, all of which must be there.

        Raises:
            ElfError: They lie outside the file.
        """
        if offset < 0 or size < 0 or offset + size > len(self._data):
            raise ElfError(f"{size} bytes at offset {offset} lie outside the file")
        return self._data[offset : offset + size]

    def _unpack(self, form: struct.Struct, offset: int) -> tuple[Any, ...]:
        return form.unpack(self.bytes_at(offset, form.size))

    def _headers(self, form: struct.Struct, place: tuple[int, int, int]) -> Iterator[tuple[int, ...]]:
        offset, size, count = place
        if count and size != form.size:
            raise ElfError(f"headers of {size} bytes instead of {form.size}")
        return form.iter_unpack(self.bytes_at(offset, size * count))

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """All program headers.

        Raises:
            ElfError: They lie outside the file.
        """
        rows = self._headers(_PROGRAM, self._program_headers)
        return tuple(Segment(row[0], row[1], row[2], row[3], row[5], row[6]) for row in rows)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All section headers; empty where they were cut off.

        Raises:
            ElfError: They lie outside the file.
        """
        rows = self._headers(_SECTION, self._section_headers)
        return tuple(Section(row[1], row[4], row[5], row[6], row[9]) for row in rows)

    def file_offset(self, address: int, size: int) -> int:
        """Say where in the file an address of the loaded module comes from.

        Args:
            address: Relative to where the file is loaded.
            size: Length in bytes of the wanted range.

        Raises:
            ElfError: No loaded segment holds the range.
        """
        for segment in self.segments:
            inside = address - segment.address
            if segment.kind == PT_LOAD and inside >= 0 and inside + size <= segment.file_size:
                return segment.offset + inside
        raise ElfError(f"no loaded segment holds address {address:#x}")

    def loaded_bytes(self, address: int, size: int) -> bytes:
        """Copy the bytes that the loader puts at an address (before it relocates anything).

        Args:
            address: Relative to where the file is loaded.
            size: How many.

        Raises:
            ElfError: No loaded segment holds them.
        """
        return self.bytes_at(self.file_offset(address, size), size)

    def build_id_place(self) -> tuple[int, int] | None:
        """Find the GNU build id.

        Returns:
            Its address, relative to where the file is loaded, and its size in bytes; None where there is none.

        Raises:
            ElfError: A note is garbled.
        """
        for segment in self.segments:
            if segment.kind == PT_NOTE:
                place = self._build_id_among_notes(segment)
                if place:
                    return place
        return None

    def _build_id_among_notes(self, segment: Segment) -> tuple[int, int] | None:
        at, end = segment.offset, segment.offset + segment.file_size
        while at + _NOTE.size <= end:
            name_size, size, kind = self._unpack(_NOTE, at)
            name = at + _NOTE.size
            content = name + _padded(name_size)
            if kind == NT_GNU_BUILD_ID and size and self.bytes_at(name, name_size) == b"GNU\0":
                self.bytes_at(content, size)
                return segment.address + (content - segment.offset), size
            at = content + _padded(size)
        return None

    def dynamic(self) -> tuple[tuple[int, int], ...]:
        """Read the dynamic section.

        Returns:
            Its entries (tag, value); none for a file that is not dynamic.

        Raises:
            ElfError: It lies outside the file.
        """
        for segment in self.segments:
            if segment.kind == PT_DYNAMIC:
                size = segment.file_size - segment.file_size % _DYNAMIC.size
                entries = list(_DYNAMIC.iter_unpack(self.bytes_at(segment.offset, size)))
                tags = [tag for tag, _ in entries]
                return tuple(entries[: tags.index(DT_NULL)] if DT_NULL in tags else entries)
        return ()

    def dynamic_strings(self, *tags: int) -> tuple[str, ...]:
        """Read those entries of the dynamic section whose value is a string, as ``DT_NEEDED`` and ``DT_RUNPATH``.

        Args:
            tags: Which entries.

        Raises:
            ElfError: A string lies outside the string table.
        """
        entries = self.dynamic()
        values = dict(entries)
        offsets = [value for tag, value in entries if tag in tags]
        if not offsets:
            return ()
        if DT_STRTAB not in values or DT_STRSZ not in values:
            raise ElfError("the dynamic section has no string table")
        table = _Table(b"", self.loaded_bytes(values[DT_STRTAB], values[DT_STRSZ]))
        return tuple(table.name(offset).decode("utf-8", "replace") for offset in offsets)

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the libraries that this one depends on (``DT_NEEDED``).

        Raises:
            ElfError: The dynamic section is garbled.
        """
        return self.dynamic_strings(DT_NEEDED)

    def _table(self, kind: int) -> _Table | None:
        found = [section for section in self.sections if section.kind == kind]
        if not found:
            return None
        section = found[0]
        if section.entry_size != _SYMBOL.size or section.size % _SYMBOL.size or section.link >= len(self.sections):
            raise ElfError("the symbol table is garbled")
        strings = self.sections[section.link]
        return _Table(self.bytes_at(section.offset, section.size), self.bytes_at(strings.offset, strings.size))

    def has_symbols(self) -> bool:
        """Tell whether the file still has ``.symtab`` (``strip`` removes it).

        Raises:
            ElfError: The section headers are garbled.
        """
        return any(section.kind == SHT_SYMTAB for section in self.sections)

    def symbols(self, wanted: Collection[str]) -> dict[str, list[Symbol]]:
        """Look names up in ``.symtab``.

        Args:
            wanted: The names.

        Returns:
            For each name all symbols of that name: none where there is no such symbol, or no ``.symtab``.

        Raises:
            ElfError: The table is garbled.
        """
        table = self._table(SHT_SYMTAB)
        return table.named(wanted) if table else {name: [] for name in wanted}

    def dynamic_symbols(self) -> tuple[Symbol, ...]:
        """Read ``.dynsym``: what the file exports, and what it wants from others.

        Raises:
            ElfError: The table is garbled.
        """
        table = self._table(SHT_DYNSYM)
        return tuple(table.all()) if table else ()


def _padded(size: int) -> int:
    """Round up to the alignment of notes, four bytes."""
    return size + 3 & ~3
