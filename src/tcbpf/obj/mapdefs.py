"""The maps that an object file declares: BTF-defined (`.maps`), legacy (`maps`), and its global data.

Source:  iproute2's struct bpf_elf_map (9 words) and libbpf's older struct bpf_map_def (its first 5); BTF-defined
         maps and internal maps as libbpf defines them. Paper, "Front End". SPEC 150 to 159.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tcbpf.errors import ObjectError
from tcbpf.obj import elf as elf_
from tcbpf.obj.btf import MAX_SIZE, Btf, Kind, Member, Type
from tcbpf.obj.elf import Elf, Section, Symbol
from tcbpf.obj.program import PIN_GLOBAL_NS, PIN_NONE, MapSpec
from tcbpf.tables.maps import MAP_TYPES, OF_MAPS, RDONLY_PROG, having

MAX_LEGACY_MAPS = 64
LEGACY_WORDS, LEGACY_MIN_WORDS = 9, 4
SLOTS = having(lambda row: row.values in ("map", "program", "perf_event"))  # libbpf fills in their sizes
WITHOUT_ROW = {0: "unspec", 34: "insn_array"}  # types that the UAPI names and tables.maps has not


@dataclass(frozen=True)
class Declared:
    """The declared maps: specifications by name, map names by place of their symbol, and remarks for the user."""

    maps: Mapping[str, MapSpec]
    places: Mapping[tuple[int, int], str]  # (section, offset) of a declaration -> map name
    data: Mapping[int, str]  # section of global data -> map name
    notes: tuple[str, ...] = ()


def type_name(number: int) -> str:
    """Return the UAPI's name of a map type, or "type N" for one that no table knows."""
    row = MAP_TYPES.at(number)
    if row is not None:
        return row.name
    return WITHOUT_ROW.get(number, f"type {number}")


def declared(elf: Elf, btf: Btf | None) -> Declared:
    """Return every map of an object file.

    Raises:  ObjectError.
    """
    maps: dict[str, MapSpec] = {}
    places: dict[tuple[int, int], str] = {}
    data: dict[int, str] = {}
    notes: list[str] = []
    for section in elf.sections:
        if section.name == "maps" and section.size:
            found = _legacy(elf, section, btf, notes)
        elif section.name == ".maps" and section.size:
            found = _btf_defined(elf, section, btf)
        elif _is_data(section):
            spec = _global_data(section, btf)
            data[section.index], found = spec.name, [(0, spec)]
        else:
            continue
        for offset, spec in found:
            if spec.name in maps:
                raise ObjectError(f"a second map {spec.name!r}", path=elf.path, section=section.label, offset=offset)
            maps[spec.name] = spec
            places[section.index, offset] = spec.name
    return Declared(maps, places, data, tuple(notes))


# --- legacy ----------------------------------------------------------------------------------------------------------


def _legacy(elf: Elf, section: Section, btf: Btf | None, notes: list[str]) -> list[tuple[int, MapSpec]]:
    symbols = _legacy_symbols(elf, section)
    if not symbols:
        raise ObjectError("no symbol names a map in it", path=elf.path, section=section.label)
    if len(symbols) > MAX_LEGACY_MAPS:
        raise ObjectError(f"{len(symbols)} maps, over the limit of {MAX_LEGACY_MAPS}", path=elf.path, section=section.label)
    stride, rest = divmod(len(section.data), len(symbols))
    if rest or stride % 4 or stride < 4 * LEGACY_MIN_WORDS:
        raise ObjectError(
            f"{len(section.data)} bytes are not {len(symbols)} times struct bpf_elf_map",
            path=elf.path,
            section=section.label,
            hint="all entries must be of one type, of at least 4 words",
        )
    if stride > 4 * LEGACY_WORDS:
        raise ObjectError(
            f"struct bpf_elf_map of {stride} bytes, coming from future version?", path=elf.path, section=section.label
        )
    if stride < 4 * LEGACY_WORDS:
        notes.append(f"{4 * LEGACY_WORDS - stride} bytes struct bpf_elf_map fixup performed due to size mismatch!")
    found, inner_ids = [], {}
    for i, symbol in enumerate(symbols):
        offset = i * stride
        if symbol.value != offset:
            raise ObjectError(
                f"map {symbol.name!r} is not at a multiple of {stride} bytes",
                path=elf.path,
                section=section.label,
                offset=symbol.value,
            )
        words = struct.unpack_from(f"<{stride // 4}I", section.data, offset) + (0,) * (LEGACY_WORDS - stride // 4)
        kind, key, value, entries, flags, id, pinning, inner_id, inner_idx = words
        key_type, value_type = _annotated(btf, symbol.name)
        spec = MapSpec(
            symbol.name,
            type_name(kind),
            key,
            value,
            entries,
            flags,
            id=id,
            pinning=pinning,
            inner_idx=inner_idx - (1 << 32) if inner_idx >> 31 else inner_idx,
            btf=btf if value_type else None,
            key_type=key_type,
            value_type=value_type,
        )
        inner_ids[symbol.name] = inner_id
        found.append((offset, spec))
    return _legacy_inner(elf, section, found, inner_ids)


def _legacy_symbols(elf: Elf, section: Section) -> list[Symbol]:
    """Return the symbols that name maps, in order; a second name of the same place is passed over."""
    first: dict[int, Symbol] = {}
    for symbol in elf.symbols:
        if symbol.section == section.index and symbol.name and symbol.type in (elf_.STT_NOTYPE, elf_.STT_OBJECT):
            first.setdefault(symbol.value, symbol)
    return [first[value] for value in sorted(first)]


def _annotated(btf: Btf | None, name: str) -> tuple[int, int]:
    """Return the key and value types that BPF_ANNOTATE_KV_PAIR gives a legacy map, or zeros."""
    row = btf.find(f"____btf_map_{name}", Kind.STRUCT) if btf else None
    if row is None or [m.name for m in row.members] != ["key", "value"]:
        return 0, 0
    return row.members[0].type, row.members[1].type


def _legacy_inner(
    elf: Elf, section: Section, found: list[tuple[int, MapSpec]], inner_ids: Mapping[str, int]
) -> list[tuple[int, MapSpec]]:
    """Give each map in map its template (the map with its inner_id) and the slots that an inner_idx asks for."""
    by_id = {spec.id: spec for _, spec in found if spec.id}
    rows = []
    for offset, spec in found:
        if spec.type in OF_MAPS:
            inner = by_id.get(inner_ids[spec.name])
            if inner is None or inner is spec:
                raise ObjectError(
                    f"Map '{spec.name}' cannot be created since no inner map ID defined!",
                    path=elf.path,
                    section=section.label,
                    offset=offset,
                    hint="set inner_id to the id of another map",
                )
            slots = tuple(
                (s.inner_idx, s.name)
                for _, s in found
                if s.id and s.id == inner.id and s.inner_idx != -1 and not inner_ids[s.name]
            )
            spec = replace(spec, inner=inner, values=slots)
        rows.append((offset, spec))
    return rows


# --- BTF-defined -----------------------------------------------------------------------------------------------------


def _btf_defined(elf: Elf, section: Section, btf: Btf | None) -> list[tuple[int, MapSpec]]:
    row = btf.find(section.name, Kind.DATASEC) if btf else None
    if btf is None or row is None:
        raise ObjectError("no BTF describes its maps", path=elf.path, section=section.label, hint="compile with -g")
    found = []
    offsets = {s.name: s.value for s in elf.symbols if s.section == section.index and s.type == elf_.STT_OBJECT}
    for var in row.members:
        offset = offsets.get(var.name)
        if offset is None or offset + var.value > section.size:
            raise ObjectError(
                f"map {var.name!r} has no place in the section", path=elf.path, section=section.label, offset=var.offset
            )
        shape = btf.resolve(btf[var.type].type) if btf[var.type].kind == Kind.VAR else btf[var.type]
        if shape.kind != Kind.STRUCT:
            raise ObjectError(f"map {var.name!r} is not a struct", path=elf.path, section=section.label, offset=offset)
        found.append((offset, _Definition(elf, section, btf, var.name, offset).read(shape)))
    return found


class _Definition:
    """One BTF-defined map: a struct whose members' types specify it."""

    def __init__(self, elf: Elf, section: Section, btf: Btf, name: str, offset: int, inner: bool = False) -> None:
        self.elf, self.section, self.btf, self.name, self.offset, self.inner = elf, section, btf, name, offset, inner

    def wrong(self, what: str, hint: str = "") -> ObjectError:
        return ObjectError(
            f"map {self.name!r}: {what}", path=self.elf.path, section=self.section.label, offset=self.offset, hint=hint
        )

    def read(self, shape: Type) -> MapSpec:
        """Return the specification that the struct spells."""
        numbers = {
            "type": 0,
            "max_entries": 0,
            "map_flags": 0,
            "key_size": 0,
            "value_size": 0,
            "pinning": 0,
            "map_extra": 0,
            "numa_node": 0,
        }
        types = {"key": 0, "value": 0}
        inner: MapSpec | None = None
        values: tuple[tuple[int, str], ...] = ()
        for m in shape.members:
            if m.name in numbers:
                self.agree(numbers, m.name, self.number(m))
            elif m.name in types:
                types[m.name] = self.pointee(m)
                self.agree(numbers, m.name + "_size", self.btf.sizeof(types[m.name]))
            elif m.name == "values":
                inner, values = self.values(m)
                self.agree(numbers, "value_size", 4)
            else:
                raise self.wrong(
                    f"unknown field {m.name!r}",
                    "type, key, value, key_size, value_size, max_entries, map_flags, map_extra, pinning, values",
                )
        if "type" not in {m.name for m in shape.members}:
            raise self.wrong("no type", "__uint(type, BPF_MAP_TYPE_HASH);")
        if numbers["pinning"] not in (0, 1):
            raise self.wrong(f"pinning {numbers['pinning']}", "LIBBPF_PIN_NONE (0) or LIBBPF_PIN_BY_NAME (1)")
        kind = type_name(numbers["type"])
        if kind in OF_MAPS and inner is None:
            raise self.wrong("a map in map without an inner map", "__array(values, struct {...});")
        if kind in SLOTS:
            numbers["key_size"], numbers["value_size"] = numbers["key_size"] or 4, numbers["value_size"] or 4
        return MapSpec(
            self.name,
            kind,
            numbers["key_size"],
            numbers["value_size"],
            numbers["max_entries"],
            numbers["map_flags"],
            pinning=PIN_GLOBAL_NS if numbers["pinning"] else PIN_NONE,
            inner=inner,
            values=values,
            map_extra=numbers["map_extra"],
            btf=self.btf,
            key_type=types["key"],
            value_type=types["value"],
        )

    def number(self, m: Member) -> int:
        """Return what __uint (a pointer to an array of that many) or __ulong (an enumerator) says."""
        row = self.btf.resolve(m.type)
        if row.kind in (Kind.ENUM, Kind.ENUM64) and len(row.members) == 1:
            return row.members[0].value
        array = self.btf.resolve(row.type) if row.kind == Kind.PTR else row
        if array.kind != Kind.ARRAY:
            raise self.wrong(f"{m.name!r} is not a number", f"__uint({m.name}, N);")
        return array.nelems

    def pointee(self, m: Member) -> int:
        """Return the type id that __type says."""
        row = self.btf.resolve(m.type)
        if row.kind != Kind.PTR:
            raise self.wrong(f"{m.name!r} is not a type", f"__type({m.name}, struct ...);")
        return row.type

    def agree(self, numbers: dict[str, int], name: str, size: int) -> None:
        if numbers[name] not in (0, size):
            raise self.wrong(f"{name} is {numbers[name]} and {size}")
        numbers[name] = size

    def values(self, m: Member) -> tuple[MapSpec | None, tuple[tuple[int, str], ...]]:
        """Return the inner map of __array(values, ...) (None for programs), and the contents of its slots."""
        row = self.btf.resolve(m.type)
        pointer = self.btf.resolve(row.type) if row.kind == Kind.ARRAY else row
        target = self.btf.resolve(pointer.type) if pointer.kind == Kind.PTR else pointer
        if (
            row.kind != Kind.ARRAY
            or pointer.kind != Kind.PTR
            or target.kind not in (Kind.STRUCT, Kind.FUNC_PROTO)
            or self.inner
        ):
            raise self.wrong("values is not an array of maps or programs")
        inner = None
        if target.kind == Kind.STRUCT:
            inner = _Definition(self.elf, self.section, self.btf, f"{self.name}.inner", self.offset, inner=True).read(target)
        return inner, tuple(self.slots(m.offset // 8))

    def slots(self, start: int) -> Iterator[tuple[int, str]]:
        """Yield (slot, name) for each initialised element of the array that begins `start` bytes into the struct."""
        size = next((s.size for s in self.elf.symbols if s.section == self.section.index and s.name == self.name), 0)
        for rel in self.elf.relocations.get(self.section.index, ()):
            at = rel.offset - self.offset
            if not 0 <= at < size:
                continue
            symbol = self.elf.symbols[rel.symbol]
            if at < start or (at - start) % 8 or symbol.type not in (elf_.STT_OBJECT, elf_.STT_FUNC):
                raise self.wrong(f"the relocation against {symbol.name!r} at {rel.offset:#x} is not one of its values")
            yield (at - start) // 8, symbol.name


# --- global data -----------------------------------------------------------------------------------------------------


def _is_data(section: Section) -> bool:
    if not section.flags & elf_.SHF_ALLOC or section.executable or not section.size:
        return False
    stems = {elf_.SHT_PROGBITS: (".data", ".rodata"), elf_.SHT_NOBITS: (".bss",)}.get(section.type, ())
    return any(section.name == stem or section.name.startswith(stem + ".") for stem in stems)


def _global_data(section: Section, btf: Btf | None) -> MapSpec:
    if section.size >= MAX_SIZE:
        raise ObjectError(f"{section.size} bytes of global data", section=section.label)
    constant = section.name.startswith(".rodata")
    row = btf.find(section.name, Kind.DATASEC) if btf else None
    return MapSpec(
        section.name,
        "array",
        4,
        section.size,
        1,
        RDONLY_PROG if constant else 0,
        contents=section.data if section.type == elf_.SHT_PROGBITS else None,
        frozen=constant,
        btf=btf if row else None,
        value_type=row.id if row else 0,
    )
