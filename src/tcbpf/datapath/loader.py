"""Load an Object into a datapath: its maps, made or adopted from pins, its program, and the programs it tail-calls.

Source:  lib/bpf_legacy.c of iproute2 (pinning scopes, tail-call sections); libbpf. Paper, "Front End".
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tcbpf.errors import InputError, SysError
from tcbpf.maps.map import Map, possible_cpus
from tcbpf.obj.link import link, tail_programs, tail_section
from tcbpf.obj.program import PIN_GLOBAL_NS, PIN_NONE, PIN_OBJECT_NS, HasSpec, MapSpec, Object, Program
from tcbpf.tables.maps import MAP_TYPES, OF_MAPS, OF_PROGRAMS
from tcbpf.tables.progs import PROG_TYPES

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath, Prog

BPFFS = "/sys/fs/bpf"
"""Where the bpf fs is, in the words of both datapaths: the user datapath has this path below its home."""

WORK_DIR = f"{BPFFS}/tc"


PINNING = ("/etc/iproute2/bpf_pinning", "/usr/share/iproute2/bpf_pinning")
"""Where custom pinning scopes are named."""

PIN_TRIES = 5


@dataclass
class Loaded:
    """What load() made: the program that was asked for, the maps by name, and the tail-called programs by section."""

    prog: Prog
    maps: dict[str, Map]
    tails: dict[str, Prog] = field(default_factory=dict)


def load(
    dp: Datapath,
    obj: Object,
    *,
    section: str = "",
    program: str = "",
    type: str = "",
    pin_root: str = "",
    scopes: Mapping[int, str] | None = None,
    maps: Mapping[str, Map] | None = None,
    log_level: int = 0,
) -> Loaded:
    """Load one program of `obj`, all its maps, and the programs in its tail-call slots.

    The program is chosen by section or function name; it is the only one when neither is said. `type` overrides the
    program type that the section names. `pin_root` is the directory of maps pinned by name (the global scope), tc's own
    when empty; `scopes` gives the directory of each custom pinning id, from /etc/iproute2/bpf_pinning when None. `maps`
    are taken as they are, by name. New maps are pinned last of all, so that a refused program leaves nothing behind.

    Raises:  InputError when there is no such program; PinDiffers when a pinned map is not as the object says.
    """
    for _ in range(PIN_TRIES - 1):
        try:
            return _load(dp, obj, section, program, type, pin_root, scopes, maps, log_level)
        except SysError as error:
            if error.errno != errno.EEXIST:
                raise  # another loader pinned the same map meanwhile: adopt its
    return _load(dp, obj, section, program, type, pin_root, scopes, maps, log_level)


def _load(
    dp: Datapath,
    obj: Object,
    section: str,
    program: str,
    type: str,
    pin_root: str,
    scopes: Mapping[int, str] | None,
    maps: Mapping[str, Map] | None,
    log_level: int,
) -> Loaded:
    """Do what `load` says, once."""
    given = dict(maps or {})
    places = {
        name: path for name, spec in obj.maps.items() if name not in given and (path := pin_path(spec, obj, pin_root, scopes))
    }
    adopted = {name: found for name, path in places.items() if (found := _open_pin(dp, path, obj.maps[name])) is not None}
    there = given | adopted
    live = {name: there[name] if name in there else new_map(dp, spec) for name, spec in obj.maps.items()}
    _fill(obj, live, given)
    linked = link(obj, section=section, program=program, type=type, maps=live)
    loaded = Loaded(_loaded(dp, linked, log_level), live)
    for name, slot, function in tail_programs(obj):
        if name in given:  # whoever made it has filled it
            continue
        if (tail := loaded.tails.get(function)) is None:
            called = link(obj, program=function, type=type, maps=live)
            if tail_section(called.section):  # such a section has no attach type; an array's programs share one
                called = replace(called, attach_type=linked.attach_type)
            tail = loaded.tails[function] = _loaded(dp, called, log_level)
        try:
            live[name].raw.update(_number(slot), _number(tail.fileno()))
        except SysError as error:
            raise _reason(error, tail.type, [live[name]], filling=True) from None
    for name, path in places.items():
        if name not in adopted:
            dp.obj_pin(path, live[name])
    return loaded


def _loaded(dp: Datapath, linked: Program, log_level: int) -> Prog:
    """Load one program; a refusal for its program arrays' sake says so."""
    try:
        return dp.prog_load(linked, log_level=log_level)
    except SysError as error:
        raise _reason(error, linked.type, linked.maps) from None


def _reason(error: SysError, type: str, maps: Iterable[HasSpec], *, filling: bool = False) -> SysError:
    """Return why a program array is not for a program of this type, where that is the reason, else the error."""
    wanted = PROG_TYPES[type].number
    for found in maps:
        if isinstance(found, Map) and found.spec.type in OF_PROGRAMS and found.raw.owner_type not in (0, wanted):
            return OwnerDiffers(error, found.raw.owner_type, wanted, filling)
    return error


def _fill(obj: Object, live: Mapping[str, Map], given: Mapping[str, Map]) -> None:
    """Put inner maps into the slots of maps of maps, but of those that are given full."""
    for name, spec in obj.maps.items():
        if spec.type in OF_MAPS and name not in given:
            for slot, inner in spec.values:
                live[name].raw.update(_number(slot), _number(live[inner].raw.fileno()))


def new_map(dp: Datapath, spec: MapSpec) -> Map:
    """Make a map with its initial contents, frozen where the specification says so."""
    made = dp.map_create(sized(spec))
    if spec.contents is not None:
        made.raw.update(bytes(4), spec.contents.ljust(spec.value_size, b"\0"))
    if spec.frozen:
        made.raw.freeze()
    return made


def sized(spec: MapSpec) -> MapSpec:
    """Return a specification with the size that libbpf reads in it: a slot for each CPU, whole pages of a ring."""
    row = MAP_TYPES.get(spec.type)
    records = row.records if row else ""
    if records == "perf" and not spec.max_entries:
        return replace(spec, max_entries=possible_cpus())
    if records == "ring" and spec.max_entries:
        return replace(spec, max_entries=max(os.sysconf("SC_PAGE_SIZE"), 1 << (spec.max_entries - 1).bit_length()))
    return spec


def pin_path(spec: MapSpec, obj: Object, pin_root: str = "", scopes: Mapping[int, str] | None = None) -> str:
    """Return where a map of `obj` is pinned, or "" for nowhere.

    Raises:  InputError for a custom scope that no configuration names.
    """
    if spec.pinning == PIN_NONE:
        return ""
    if spec.pinning == PIN_GLOBAL_NS:
        return f"{pin_root or WORK_DIR + '/globals'}/{spec.name}"
    if spec.pinning == PIN_OBJECT_NS:
        return f"{WORK_DIR}/{obj.sha1}/{spec.name}"
    scope = (read_scopes()[0] if scopes is None else scopes).get(spec.pinning)
    if scope is None:
        raise InputError(
            f"map {spec.name} is pinned in scope {spec.pinning}, which nothing names",
            where=obj.path,
            hint=f'a line "{spec.pinning} DIRECTORY" in /etc/iproute2/bpf_pinning',
        )
    return f"{BPFFS}/{scope.strip('/')}/{spec.name}"


def read_scopes(paths: tuple[str, ...] = PINNING) -> tuple[dict[int, str], list[str]]:
    """Return the directory of each custom pinning scope, from the first file that is there, and what is wrong with it.

    Lines are "ID DIRECTORY"; ids 0, 1 and 2 are reserved.
    """
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = [line.split("#", 1)[0].split() for line in file]
        except OSError:
            continue
        scopes: dict[int, str] = {}
        remarks: list[str] = []
        for fields in filter(None, lines):
            if len(fields) != 2 or not fields[0].isdigit():
                remarks.append(f"Database {path} is corrupted at: {' '.join(fields)}")
            elif int(fields[0]) in (PIN_NONE, PIN_OBJECT_NS, PIN_GLOBAL_NS):
                remarks.append(f"Database {path}, id {fields[0]} is reserved - ignoring!")
            else:
                scopes[int(fields[0])] = fields[1]
        return scopes, remarks
    return {}, []


class PinDiffers(SysError):
    """A pinned map is not as the object says; `rows` has what differs, in tc's words: (word, the object's, the pin's)."""

    def __init__(self, name: str, path: str, rows: tuple[Differs, ...]) -> None:
        self.name, self.rows = name, rows
        said = ", ".join(f"{word}: {mine} (obj) != {theirs} (pin)" for word, mine, theirs in rows)
        super().__init__(errno.EINVAL, f"adopt map {name} from {path}", said)


class OwnerDiffers(SysError):
    """A program array serves programs of type `owner`, not `wanted`; `filling` tells that it was a slot that was refused."""

    def __init__(self, error: SysError, owner: int, wanted: int, filling: bool) -> None:
        self.owner, self.wanted, self.filling = owner, wanted, filling
        super().__init__(error.errno or errno.EINVAL, error.asked, error.detail)


Differs = tuple[str, str, str]


def differences(wanted: MapSpec, pinned: MapSpec) -> tuple[Differs, ...]:
    """Return what differs between the map an object wants and a pinned one."""
    rows = (
        ("Type", wanted.type, pinned.type),
        ("Size key", wanted.key_size, pinned.key_size),
        ("Size value", wanted.value_size, pinned.value_size),
        ("Max elems", wanted.max_entries, pinned.max_entries),
        ("Flags", f"{wanted.flags:#x}", f"{pinned.flags:#x}"),
    )
    return tuple((word, str(mine), str(theirs)) for word, mine, theirs in rows if mine != theirs)


def _number(value: int) -> bytes:
    """Return a slot or an fd as a map's key or value holds it."""
    return value.to_bytes(4, "little")


def _open_pin(dp: Datapath, path: str, wanted: MapSpec) -> Map | None:
    """Return the map pinned at `path`, or None when nothing is.

    Raises:  SysError when what is pinned there is another map, or no map.
    """
    try:
        found = dp.obj_get(path)
    except SysError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    if not isinstance(found, Map):
        raise SysError(errno.EINVAL, f"adopt {path}", "it is a program, not a map")
    if rows := differences(wanted, found.spec):
        raise PinDiffers(wanted.name, path, rows)
    return found
