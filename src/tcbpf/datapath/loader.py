"""Carry out a plan on a datapath: maps made or adopted from pins, the program, and the programs that it tail-calls.

Source:  lib/bpf_legacy.c of iproute2 (pinning scopes, tail-call sections); libbpf. Paper, "Front End".
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from tcbpf.datapath.plan import Plan, plan
from tcbpf.errors import SysError
from tcbpf.maps.map import Map
from tcbpf.tables.maps import OF_PROGRAMS
from tcbpf.tables.progs import PROG_TYPES

if TYPE_CHECKING:
    from tcbpf.datapath.base import Prog
    from tcbpf.obj.program import HasSpec, MapSpec, Object, Program

PIN_TRIES = 5
P = TypeVar("P", bound="Prog", covariant=True)


class Target(Protocol[P]):
    """The part of a datapath that loading needs."""

    def map_create(self, spec: MapSpec) -> Map: ...
    def prog_load(self, program: Program, *, log_level: int = 0) -> P: ...
    def obj_pin(self, path: str, obj: Map | Prog) -> None: ...
    def obj_get(self, path: str) -> Map | Prog: ...


@dataclass
class Loaded(Generic[P]):
    """The program that was asked for, the object's maps by name, and the tail-called programs by function."""

    prog: P
    maps: dict[str, Map]
    tails: dict[str, P] = field(default_factory=dict)


def load(
    dp: Target[P],
    obj: Object,
    *,
    section: str = "",
    program: str = "",
    type: str = "",
    pin_root: str = "",
    scopes: Mapping[int, str] | None = None,
    maps: Mapping[str, Map] | None = None,
    log_level: int = 0,
) -> Loaded[P]:
    """Load one program of `obj`, all its maps, and the programs in its tail-call slots.

    The program is chosen by section or function name; it is the only one when neither is said. `type` overrides the
    program type that the section names. `pin_root` is the directory of maps pinned by name (the global scope), tc's own
    when empty; `scopes` gives the directory of each custom pinning id, from /etc/iproute2/bpf_pinning when None. `maps`
    are taken as they are, by name. New maps are pinned last of all, so that a refused program leaves nothing behind.

    Raises:  InputError when there is no such program; PinDiffers when a pinned map is not as the object says.
    """
    given = dict(maps or {})
    todo = plan(obj, section=section, program=program, type=type, pin_root=pin_root, scopes=scopes, given=given)
    for _ in range(PIN_TRIES - 1):
        try:
            return carry_out(dp, todo, given, log_level)
        except SysError as error:
            if error.errno != errno.EEXIST:
                raise  # another loader pinned the same map meanwhile: adopt its
    return carry_out(dp, todo, given, log_level)


def carry_out(dp: Target[P], todo: Plan, given: Mapping[str, Map], log_level: int = 0) -> Loaded[P]:
    """Carry out a plan, once.

    Raises:  SysError with EEXIST when another process pinned a map meanwhile.
    """
    adopted = {name: found for name, path in todo.pins.items() if (found := open_pin(dp, path, todo.maps[name])) is not None}
    there = {**given, **adopted}
    live = {name: there[name] if name in there else dp.map_create(spec) for name, spec in todo.maps.items()}
    for slot in todo.inner:
        live[slot.map].raw.update(_number(slot.index), _number(live[slot.holds].raw.fileno()))
    loaded = Loaded(_loaded(dp, todo.program, live, log_level), live)
    for slot in todo.tails:
        if (tail := loaded.tails.get(slot.holds)) is None:
            tail = loaded.tails[slot.holds] = _loaded(dp, todo.called[slot.holds], live, log_level)
        try:
            live[slot.map].raw.update(_number(slot.index), _number(tail.fileno()))
        except SysError as error:
            raise _reason(error, tail.type, [live[slot.map]], filling=True) from None
    for name, path in todo.pins.items():
        if name not in adopted:
            dp.obj_pin(path, live[name])
    return loaded


def _loaded(dp: Target[P], linked: Program, live: Mapping[str, Map], log_level: int) -> P:
    """Load one program over live maps; a refusal for its program arrays' sake says so."""
    over = replace(linked, maps=tuple(live[entry.spec.name] for entry in linked.maps))
    try:
        return dp.prog_load(over, log_level=log_level)
    except SysError as error:
        raise _reason(error, over.type, over.maps) from None


def _reason(error: SysError, type: str, maps: Iterable[HasSpec], *, filling: bool = False) -> SysError:
    """Return why a program array is not for a program of this type, where that is the reason, else the error."""
    wanted = PROG_TYPES[type].number
    for found in maps:
        if isinstance(found, Map) and found.spec.type in OF_PROGRAMS and found.raw.owner_type not in (0, wanted):
            return OwnerDiffers(error, found.raw.owner_type, wanted, filling)
    return error


class PinDiffers(SysError):
    """A pinned map is not as the object says; `rows` has the differences in tc's words: (word, the object's, the pin's)."""

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
    """Return the differences between the map an object wants and a pinned one."""
    rows = (
        ("Type", wanted.type, pinned.type),
        ("Size key", wanted.key_size, pinned.key_size),
        ("Size value", wanted.value_size, pinned.value_size),
        ("Max elems", wanted.max_entries, pinned.max_entries),
        ("Flags", f"{wanted.flags:#x}", f"{pinned.flags:#x}"),
    )
    return tuple((word, str(mine), str(theirs)) for word, mine, theirs in rows if mine != theirs)


def open_pin(dp: Target[P], path: str, wanted: MapSpec) -> Map | None:
    """Return the map pinned at `path`, or None when nothing is.

    Raises:  SysError when another map, or no map, is pinned there.
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


def _number(value: int) -> bytes:
    """Return a slot or an fd as a map's key or value holds it."""
    return value.to_bytes(4, "little")
