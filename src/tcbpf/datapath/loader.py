"""Load an Object into a datapath: its maps, made or adopted from pins, its program, and the programs it tail-calls.

Source:  lib/bpf_legacy.c of iproute2 (pinning scopes, tail-call sections); libbpf. Paper, "Front End".
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcbpf.errors import InputError, SysError
from tcbpf.maps.map import Map
from tcbpf.obj.link import link, tail_programs
from tcbpf.obj.program import PIN_GLOBAL_NS, PIN_NONE, PIN_OBJECT_NS, MapSpec, Object

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath, Prog

BPFFS = "/sys/fs/bpf"
"""Where the bpf fs is, in the words of both datapaths: the user datapath has this path below its home."""

WORK_DIR = f"{BPFFS}/tc"


MAP_IN_MAP = frozenset({"array_of_maps", "hash_of_maps"})


@dataclass
class Loaded:
    """What load() made: the program that was asked for, the maps by name, and the tail-called programs by section."""

    prog: Prog
    maps: dict[str, Map]
    tails: dict[str, Prog] = field(default_factory=dict)


def load(
    dp: Datapath, obj: Object, *, section: str = "", program: str = "", type: str = "", pin_root: str = "",
    scopes: Mapping[int, str] | None = None, maps: Mapping[str, Map] | None = None, log_level: int = 0,
) -> Loaded:
    """Load one program of `obj`, chosen by section or function name (the only one when neither is said),
    with all its maps.

    `type` overrides the program type that the section names. `pin_root` is the directory of maps pinned by name (the
    global
    scope), tc's own when empty; `scopes` gives the directory of each custom pinning id. `maps` are taken as they are,
    by name.

    Raises:  InputError when there is no such program; SysError with EINVAL when a pinned map is another than the
    object's.
    """
    live = make_maps(dp, obj, pin_root=pin_root, scopes=scopes or {}, given=maps or {})
    linked = link(obj, section=section, program=program, type=type, maps=live)
    loaded = Loaded(dp.prog_load(linked, log_level=log_level), live)
    for name, slot, function in tail_programs(obj):
        if (tail := loaded.tails.get(function)) is None:
            linked = link(obj, program=function, type=type, maps=live)
            tail = loaded.tails[function] = dp.prog_load(linked, log_level=log_level)
        live[name].raw.update(_number(slot), _number(tail.fileno()))
    return loaded


def make_maps(
    dp: Datapath, obj: Object, *, pin_root: str, scopes: Mapping[int, str], given: Mapping[str, Map]
) -> dict[str, Map]:
    """Return the maps of `obj`, by name: given, adopted from their pins,
    or made (and pinned where the object says so)."""
    live: dict[str, Map] = {}
    for name, spec in obj.maps.items():
        if name in given:
            live[name] = given[name]
            continue
        path = pin_path(spec, obj, pin_root, scopes)
        pinned = _open_pin(dp, path) if path else None
        if pinned is not None:
            difference = mismatch(spec, pinned.spec)
            if difference:
                raise SysError(errno.EINVAL, f"adopt map {name} from {path}", difference)
            live[name] = pinned
            continue
        live[name] = new_map(dp, spec)
        if path:
            dp.obj_pin(path, live[name])
    for name, spec in obj.maps.items():
        if spec.type in MAP_IN_MAP:
            for slot, inner in spec.values:
                live[name].raw.update(_number(slot), _number(live[inner].raw.fileno()))
    return live


def new_map(dp: Datapath, spec: MapSpec) -> Map:
    """Make a map with its initial contents, frozen where the specification says so."""
    made = dp.map_create(spec)
    if spec.contents is not None:
        made.raw.update(bytes(4), spec.contents.ljust(spec.value_size, b"\0"))
    if spec.frozen:
        made.raw.freeze()
    return made


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
    scope = (scopes or {}).get(spec.pinning)
    if scope is None:
        raise InputError(f"map {spec.name} is pinned in scope {spec.pinning}, which nothing names", where=obj.path,
                         hint=f"a line \"{spec.pinning} DIRECTORY\" in /etc/iproute2/bpf_pinning")
    return f"{BPFFS}/{scope.strip('/')}/{spec.name}"


def mismatch(wanted: MapSpec, pinned: MapSpec) -> str:
    """Return how a pinned map differs from the one an object wants, in tc's words, or ""."""
    rows = (("Type", wanted.type, pinned.type), ("Size key", wanted.key_size, pinned.key_size),
            ("Size value", wanted.value_size, pinned.value_size), ("Max elems", wanted.max_entries, pinned.max_entries),
            ("Flags", f"{wanted.flags:#x}", f"{pinned.flags:#x}"))
    return ", ".join(f"{word}: {mine} (obj) != {theirs} (pin)" for word, mine, theirs in rows if mine != theirs)


def _number(value: int) -> bytes:
    """Return a slot or an fd as a map's key or value holds it."""
    return value.to_bytes(4, "little")


def _open_pin(dp: Datapath, path: str) -> Map | None:
    """Return the map pinned at `path`, or None when nothing is.

    Raises:  SysError when something else is pinned there.
    """
    try:
        found = dp.obj_get(path)
    except SysError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    if not isinstance(found, Map):
        raise SysError(errno.EINVAL, f"adopt {path}", "it is a program, not a map")
    return found
