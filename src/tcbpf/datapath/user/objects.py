"""The maps and programs of a home: make them, open them, and delete those that nothing holds."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcbpf.datapath.user import progfile
from tcbpf.datapath.user.maps import UserMap
from tcbpf.datapath.user.object_files import ObjectFiles
from tcbpf.datapath.user.progfile import ProgRecord
from tcbpf.errors import InputError, MapError, NotSupported, SysError, TcbpfError
from tcbpf.native.mapfile import MapFile, is_map
from tcbpf.obj.program import MapSpec, Program
from tcbpf.tables.maps import INDEXED, INNER_MAP, MAP_TYPES, OF_MAPS, OF_PROGRAMS
from tcbpf.tables.progs import PROG_TYPES

if TYPE_CHECKING:
    from tcbpf.datapath.user.store import Store
    from tcbpf.maps.map import Map
    from tcbpf.tc.state import State


class Objects:
    """The objects of a home."""

    def __init__(self, home: Path, store: Store) -> None:
        self.store, self.root = store, home / "bpf"
        self.maps, self.progs = ObjectFiles(home / "maps", "map"), ObjectFiles(home / "progs", "program")

    def create_map(self, spec: MapSpec) -> UserMap:
        """Make a map.

        Raises:  MapError with the errno of bpf(BPF_MAP_CREATE); NotSupported for a type that the runtime lacks.
        """
        row = MAP_TYPES.get(spec.type)
        if row is not None and not row.user:
            raise NotSupported(f"map {spec.name}: the user datapath has no {spec.type} maps")
        fd = self.maps.create()
        with unless_wrong(fd, f"keep map {spec.name}"):
            id = self.store.number("map")
            made = MapFile.create(replace(spec, contents=None, frozen=False), fd, id=id)
            self.maps.publish(fd, id)
        return UserMap(made, self)

    def open_map(self, id: int) -> UserMap:
        """Open the map of a number."""
        return self.adopt_map(self.maps.open(id))

    def named_map(self, id: int) -> UserMap:
        """Open a map that a program names, which is no user of it but keeps it."""
        return self.adopt_map(self.maps.open(id, hold=False))

    def adopt_map(self, fd: int) -> UserMap:
        """Take a descriptor of a map's file, which is then this object's."""
        with unless_wrong(fd, "open a map"):
            return UserMap(MapFile.open(fd), self)

    def create_prog(self, program: Program, maps: tuple[UserMap, ...], insns_processed: int) -> tuple[int, ProgRecord]:
        """Keep a proved program, and return the descriptor that holds it and its record."""
        fd = self.progs.create()
        with unless_wrong(fd, f"keep program {program.name}"):
            id = self.store.number("prog")
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            named = tuple(m.id for m in maps)
            record = ProgRecord(id, program, named, progfile.tag_of(program), now, os.getuid(), insns_processed)
            progfile.write(fd, record)
            self.progs.publish(fd, id)
        return fd, record

    def is_object(self, fd: int) -> bool:
        """Tell whether a descriptor is of a map's or a program's file."""
        with contextlib.suppress(OSError):
            return (self.is_program(fd) and bool(self.head(fd))) or is_map(fd)
        return False

    def is_program(self, fd: int) -> bool:
        """Tell whether a descriptor is of a program's file."""
        return os.pread(fd, 1, 0) == b"{"

    def head(self, fd: int) -> dict[str, Any]:
        """Return the fields of a program's file, as they are written.

        Raises:  SysError with EINVAL when it is not a program's file.
        """
        with damaged(fd):
            return progfile.read_head(fd)

    def record(self, fd: int, maps: tuple[Map, ...], head: Mapping[str, Any]) -> ProgRecord:
        """Return the program of a file whose head was read, over live maps.

        Raises:  SysError with EINVAL when the file is damaged.
        """
        with damaged(fd):
            return progfile.read(maps, head)

    def check_tail(self, file: MapFile, fd: int) -> int:
        """Return the id of the program open as `fd`, which a program array of its kind may hold.

        Raises:  OSError: EBADF, EINVAL for a program of another kind than those the array serves.
        """
        head = self.head(fd)
        self.claim(file, "graft", head["type"], head["attach_type"])
        return int(head["id"])

    def claim(self, file: MapFile, asked: str, type: str, attach_type: int) -> None:
        """Make a program array serve programs of this kind for good, which the first decides that calls or fills it.

        Raises:  SysError with EINVAL for a program of another kind.
        Source:  bpf_prog_map_compatible(), kernel/bpf/core.c (v6.18).
        Differs: whether a program is interpreted or machine code is no part of its kind, for it is part of no program: a
                 process runs all of a home's programs with one engine.
        """
        row = PROG_TYPES.get(type)
        kind = (row.number if row else 0, attach_type)
        if file.owner == (0, 0):
            with self.store.change():  # nobody else does the same meanwhile
                if file.owner == (0, 0):
                    file.owner = kind
        if file.owner != kind:
            name = f"program array {file.spec.name}" if file.spec.name else "the program array"
            raise SysError(errno.EINVAL, asked, f"{name} is for programs of type {named(file.owner)}, not {named(kind)}")

    def check_inner(self, file: MapFile, fd: int) -> int:
        """Return the id of the map open as `fd`, which a map of maps with this template may hold.

        Raises:  OSError: EBADF; SysError with EINVAL for a map of another shape.
        Source:  bpf_map_meta_equal(), kernel/bpf/map_in_map.c; array_map_meta_equal(), kernel/bpf/arraymap.c (v6.18).
        """
        copy = os.dup(fd)
        try:
            inner = MapFile.open(copy)
        except InputError:
            os.close(copy)
            raise SysError(errno.EINVAL, "insert a map", "the descriptor is not a map's") from None
        try:
            if file.spec.inner is None or not same_shape(file.spec.inner, inner.spec):
                raise SysError(errno.EINVAL, "insert a map", "it is not of the shape of the template")
            return inner.id
        finally:
            inner.close()

    def sweep(self) -> None:
        """Remove every map and program that no process, pin, filter, program or map holds.

        A program array that only programs hold is emptied first, as the kernel does when its last user goes. A
        damaged file ends the sweep, since the objects that it names are not known.
        """
        with self.store.change() as change, contextlib.suppress(InputError, SysError):
            while True:
                self.empty(*self.maps.ids())
                gone = self.progs.sweep(lambda: self._named_programs(change.state))
                gone += self.maps.sweep(self._named_maps)
                if not gone:
                    return

    def empty(self, *ids: int) -> None:
        """Take the programs out of those of these maps that are program arrays and have no user, neither process nor pin."""
        for id in ids:
            with self.maps.unheld(id) as fd:
                if fd < 0:
                    continue
                file = MapFile.open(os.dup(fd))
                if file.spec.type in OF_PROGRAMS:
                    with contextlib.suppress(MapError):  # its flags keep everyone out, this too
                        for slot in slots(file):
                            file.delete(slot)
                file.close()

    def _named_programs(self, state: State) -> set[int]:
        """Return the programs that filters, actions and program arrays name."""
        from tcbpf.control.objects import Bpf

        named = {f.options.id for filters in state.filters.values() for f in filters if isinstance(f.options, Bpf)} | {
            int(str(a.options["id"])) for a in state.actions.values() if "id" in a.options
        }
        return named | self._in_slots(OF_PROGRAMS)

    def _named_maps(self) -> set[int]:
        """Return the maps that programs and maps of maps name."""
        named = set[int]()
        for id in self.progs.ids():
            fd = os.open(self.progs.directory / str(id), os.O_RDONLY | os.O_CLOEXEC)
            try:
                named.update(self.head(fd)["maps"])
            finally:
                os.close(fd)
        return named | self._in_slots(OF_MAPS)

    def _in_slots(self, types: frozenset[str]) -> set[int]:
        found = set[int]()
        for id in self.maps.ids():
            file = MapFile.open(os.open(self.maps.directory / str(id), os.O_RDWR | os.O_CLOEXEC))
            if file.spec.type in types:
                with contextlib.suppress(MapError):
                    found.update(int.from_bytes(file.lookup(slot) or b"", "little") for slot in slots(file))
            file.close()
        return found


def same_shape(template: MapSpec, inner: MapSpec) -> bool:
    """Tell whether a map may be used where a program expects the template."""
    alike = all(getattr(template, name) == getattr(inner, name) for name in ("type", "key_size", "value_size", "flags"))
    if template.type in INDEXED and not template.flags & INNER_MAP:
        return alike and template.max_entries == inner.max_entries
    return alike


def named(kind: tuple[int, int]) -> str:
    """Return the words for a program's type and attach type."""
    row = PROG_TYPES.at(kind[0])
    return f"{row.name if row else kind[0]}" + (f" and attach type {kind[1]}" if kind[1] else "")


@contextlib.contextmanager
def damaged(fd: int) -> Iterator[None]:
    """Turn the words about a file's contents into EINVAL for that file."""
    try:
        yield
    except InputError as error:
        raise SysError(errno.EINVAL, os.readlink(f"/proc/self/fd/{fd}"), error.what) from None


@contextlib.contextmanager
def unless_wrong(fd: int, asked: str) -> Iterator[None]:
    """Close a descriptor when the block fails; a host error becomes a SysError for `asked`."""
    try:
        yield
    except TcbpfError:
        os.close(fd)
        raise
    except OSError as error:
        os.close(fd)
        raise SysError(error.errno or errno.EIO, asked) from None
    except BaseException:
        os.close(fd)
        raise


def slots(file: MapFile) -> list[bytes]:
    """Return the keys of a map of programs or maps that hold one."""
    found, key = list[bytes](), file.next_key(None)
    while key is not None:
        if file.lookup(key) is not None:
            found.append(key)
        key = file.next_key(key)
    return found
