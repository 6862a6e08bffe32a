"""A map of the user datapath, behind maps.Map: the runtime's file, with bpf(2)'s element commands."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import replace
from typing import Protocol

from tcbpf.errors import MapError, SysError
from tcbpf.maps.records import RawRecords
from tcbpf.native.runtime import MapFile
from tcbpf.obj.program import MapSpec
from tcbpf.tables.maps import MAP_TYPES, OF_MAPS, OF_PROGRAMS
from tcbpf.uapi.bpf import BPF_F_RDONLY


class Slots(Protocol):
    """The home's answers for maps whose slots name programs or maps."""

    def check_tail(self, file: MapFile, fd: int) -> int: ...  # the id of a program that the array may hold
    def check_inner(self, file: MapFile, fd: int) -> int: ...  # the id of a map that the map of maps may hold
    def empty(self, *ids: int) -> None: ...  # program arrays without a user


class UserRecords:
    """The records of a ring buffer, or of every CPU's slot of a perf event array, which is open until this is closed."""

    def __init__(self, file: MapFile) -> None:
        self._file = file
        self._slots = range(file.rings) if MAP_TYPES[file.spec.type].records == "perf" else range(0)
        for slot in self._slots:
            file.listen(slot, True)

    @property
    def lost(self) -> int:
        """Records that found no room since this was made; a full ring buffer tells its program, and nobody else."""
        return sum(self._file.lost(slot) for slot in self._slots)

    def take(self) -> bytes | None:
        """Return the next record, of the first CPU that has one."""
        if not self._slots:
            return self._file.take()
        return next((record for slot in self._slots if (record := self._file.take(slot)) is not None), None)

    def close(self) -> None:
        """Close the slots."""
        for slot in self._slots if self._file.fileno() >= 0 else ():
            self._file.listen(slot, False)


class UserMap:
    """One map, by its file. A slot that names a program or a map is written as a descriptor and read as an id, as
    bpf(2) does.
    """

    def __init__(self, file: MapFile, slots: Slots) -> None:
        self.file, self._slots = file, slots

    @property
    def spec(self) -> MapSpec:
        """The map's specification."""
        if self.file.fileno() < 0 or not self.file.frozen or self.file.spec.max_entries != 1:
            return self.file.spec
        return replace(self.file.spec, frozen=True, contents=self.file.lookup(bytes(4)))

    @property
    def id(self) -> int:
        """Its number in this home."""
        return self.file.id

    @property
    def owner_type(self) -> int:
        """A program array's: the number of its programs' type, 0 while it has had none."""
        return self.file.owner[0]

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value at `key`, or None."""
        return self.file.lookup(key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Write the value at `key`."""
        if self.file.spec.type in OF_PROGRAMS | OF_MAPS and not self._refuses(key, flags):
            value = self._id_of(value)
        self.file.update(key, value, flags)

    def delete(self, key: bytes) -> bool:
        """Delete an element; return False when there was none."""
        return self.file.delete(key)

    def pop(self, key: bytes) -> bytes | None:
        """Take an element out and return its value, or None."""
        return self.file.pop(key)

    def holds(self, value: bytes) -> bool:
        """Tell whether a bloom filter may hold a value."""
        return self.file.holds(value)

    def next_key(self, key: bytes | None) -> bytes | None:
        """Return the key after `key`, the first for None, None at the end."""
        return self.file.next_key(key)

    def freeze(self) -> None:
        """Refuse further updates from user space."""
        self.file.freeze()

    def records(self) -> RawRecords:
        """Return a reader of the records that programs put out."""
        return UserRecords(self.file)

    def fileno(self) -> int:
        """Return the descriptor of the map's file, which holds it."""
        return self.file.fileno()

    def close(self) -> None:
        """Let go; the map lives while something else holds it, but a program array loses its programs with its last user."""
        left = [self.file.id] if self.file.spec.type in OF_PROGRAMS and self.file.fileno() >= 0 else []
        self.file.close()
        self._slots.empty(*left)

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            self.close()

    def again(self) -> MapFile:
        """Return the map once more, for machine code, which outlives this object's closing and is no user of the map."""
        return self.file.again()

    def _refuses(self, key: bytes, flags: int) -> bool:
        """Tell whether an update fails before its descriptor is looked at: a read-only map, or an index beyond an array."""
        spec = self.file.spec
        misplaced = MAP_TYPES[spec.type].key_size == 4 and (flags != 0 or int.from_bytes(key, "little") >= spec.max_entries)
        return misplaced or self.file.frozen or bool(spec.flags & BPF_F_RDONLY)

    def _id_of(self, value: bytes) -> bytes:
        """Return the id of the program or map open as the descriptor that `value` holds."""
        asked = "update an element of"
        if len(value) != 4:
            raise MapError(errno.EINVAL, asked, self.spec.name, f"a descriptor has 4 bytes, not {len(value)}")
        check = self._slots.check_tail if self.file.spec.type in OF_PROGRAMS else self._slots.check_inner
        try:
            return check(self.file, int.from_bytes(value, "little")).to_bytes(4, "little")
        except OSError as error:
            detail = error.detail if isinstance(error, SysError) else ""
            raise MapError(error.errno or errno.EIO, asked, self.spec.name, detail) from None
