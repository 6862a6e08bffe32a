"""All that loading one program of an object takes, decided before anything is made: programs, maps, pins and slots.

A plan is a function of the object and the request alone; it holds no descriptor, and can be carried out again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcbpf.cpus import possible_cpus
from tcbpf.datapath.pins import pin_path
from tcbpf.obj.link import link, tail_programs, tail_section
from tcbpf.tables.maps import MAP_TYPES, OF_MAPS

if TYPE_CHECKING:
    from tcbpf.obj.program import MapSpec, Object, Program


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot of a map, and the name of the map or function that goes in it."""

    map: str
    index: int
    holds: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Maps and programs to load, by name; the pin paths of maps; the contents of slots.

    `maps` and `pins` leave nothing out; a map that is given is in `maps` alone. Programs name maps by their specifications.
    """

    program: Program
    maps: Mapping[str, MapSpec]
    pins: Mapping[str, str]
    inner: tuple[Slot, ...]
    tails: tuple[Slot, ...]
    called: Mapping[str, Program]


def plan(
    obj: Object,
    *,
    section: str = "",
    program: str = "",
    type: str = "",
    pin_root: str = "",
    scopes: Mapping[int, str] | None = None,
    given: Collection[str] = (),
) -> Plan:
    """Return the plan for one program of `obj`; whoever made the maps that are `given` has filled and pinned them.

    Raises:  InputError for a program, slot or pinning scope that is not there; what linking raises.
    """
    linked = link(obj, section=section, program=program, type=type)
    tails = tuple(Slot(*row) for row in tail_programs(obj) if row[0] not in given)
    made = {name: spec for name, spec in obj.maps.items() if name not in given}
    return Plan(
        program=linked,
        maps={name: sized(spec) for name, spec in obj.maps.items()},
        pins={name: path for name, spec in made.items() if (path := pin_path(spec, obj, pin_root, scopes))},
        inner=tuple(Slot(name, *row) for name, spec in made.items() if spec.type in OF_MAPS for row in spec.values),
        tails=tails,
        called={slot.holds: _called(obj, slot.holds, type, linked.attach_type) for slot in tails},
    )


def _called(obj: Object, function: str, type: str, attach_type: int) -> Program:
    """Return a program that is tail-called; a section "ID/KEY" has no attach type, and an array's programs share one."""
    linked = link(obj, program=function, type=type)
    return replace(linked, attach_type=attach_type) if tail_section(linked.section) else linked


def sized(spec: MapSpec) -> MapSpec:
    """Return a specification with the size that libbpf reads in it: a slot for each CPU, whole pages of a ring."""
    row = MAP_TYPES.get(spec.type)
    records = row.records if row else ""
    if records == "perf" and not spec.max_entries:
        return replace(spec, max_entries=possible_cpus())
    if records == "ring" and spec.max_entries:
        return replace(spec, max_entries=max(os.sysconf("SC_PAGE_SIZE"), 1 << (spec.max_entries - 1).bit_length()))
    return spec
