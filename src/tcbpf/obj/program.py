"""The values a program passes through before it is verified: Object (pure data), then Program (linked)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tcbpf.isa.insn import Insn, decode

if TYPE_CHECKING:
    from tcbpf.obj.btf import Btf
    from tcbpf.obj.btf_ext import CoreRelo

PIN_NONE, PIN_OBJECT_NS, PIN_GLOBAL_NS = 0, 1, 2  # bpf_elf_map.pinning; libbpf's PIN_BY_NAME is PIN_GLOBAL_NS


@dataclass(frozen=True)
class MapSpec:
    """The specification of a map: machine-independent.

    Units:   key_size, value_size in bytes; type is a name of tables.maps; flags are BPF_F_*.
    Source:  struct bpf_elf_map (iproute2), BTF-defined maps (libbpf). Paper, "Front End".
    """

    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    id: int = 0  # bpf_elf_map.id, which tail-call sections "ID/KEY" name
    pinning: int = PIN_NONE
    inner: MapSpec | None = None  # map in map
    inner_idx: int = -1
    values: tuple[tuple[int, str], ...] = ()  # (slot, program or map name) of a declared array
    contents: bytes | None = None  # initial value of a global data map's one element
    frozen: bool = False  # .rodata: contents are known for good
    map_extra: int = 0
    btf: Btf | None = field(default=None, compare=False, repr=False)
    key_type: int = 0  # BTF type ids, 0 for none
    value_type: int = 0

    @property
    def spec(self) -> MapSpec:
        """Itself, so that `.spec` can be asked of a specification and of a live map alike."""
        return self


class HasSpec(Protocol):
    """A MapSpec, or a live map of either datapath."""

    @property
    def spec(self) -> MapSpec: ...


@dataclass(frozen=True, slots=True)
class Line:
    """A source line, from the instruction `pc` on."""

    pc: int
    file: str
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class Func:
    """A subprogram: its first slot, its name, its BTF function type (0: none); `is_global` is verified on its own."""

    pc: int
    name: str
    type_id: int = 0
    is_global: bool = False


@dataclass(frozen=True)
class Program:
    """A linked program: instructions and the maps they name.

    A map is named by its index in `maps`: LD_IMM64 with src BPF_PSEUDO_MAP_IDX (imm the index) or MAP_IDX_VALUE (the
    second slot's imm the offset into its value). BPF_PSEUDO_MAP_FD occurs only in programs written by
    hand, in the process that has the descriptor. A `maps` entry is a MapSpec, which the datapath creates at load, or a live
    map of that datapath. A kernel function is named the same way: the imm of a call
    with src BPF_PSEUDO_KFUNC_CALL is an index in `kfuncs`, whose BTF id only the machine knows.

    Units:   pc counts 8-byte slots.
    """

    name: str
    type: str  # a name of tables.progs
    insns: tuple[Insn, ...]
    maps: tuple[HasSpec, ...] = ()
    kfuncs: tuple[str, ...] = ()
    license: str = ""
    section: str = ""
    attach_type: int = 0
    flags: int = 0  # prog_flags of the load
    btf: Btf | None = field(default=None, compare=False, repr=False)
    lines: tuple[Line, ...] = field(default=(), compare=False, repr=False)
    funcs: tuple[Func, ...] = ()
    raw_func_info: bytes = field(default=b"", compare=False, repr=False)  # records for bpf(2), of 8 bytes each
    raw_line_info: bytes = field(default=b"", compare=False, repr=False)  # of 16 bytes each
    kernel_version: int = 0
    classic: bool = False  # converted from classic BPF: may call tables.helpers.CONVERTED
    path: str = ""  # the object file, for messages and `filter show`

    @classmethod
    def from_bytes(
        cls,
        raw: bytes,
        *,
        type: str = "sched_cls",
        maps: Sequence[HasSpec] = (),
        license: str = "",
        name: str = "prog",
        kfuncs: Sequence[str] = (),
    ) -> Program:
        """Return a program of bare bytecode.

        Raises:  InputError when `raw` is not whole instructions.
        """
        return cls(name=name, type=type, insns=decode(raw), maps=tuple(maps), kfuncs=tuple(kfuncs), license=license)


@dataclass(frozen=True, slots=True)
class Reloc:
    """One relocation of a program: the slot `pc` names `symbol`.

    kind: "map" (LD_IMM64 of a map), "data" (LD_IMM64 into global data: map name and byte offset), "call" (subprogram,
    or kfunc when `symbol` is not defined), "func" (LD_IMM64 of a subprogram's address), "extern" (LD_IMM64 of a symbol
    that the file does not define), "core" (CO-RE: `core` says what).
    """

    pc: int
    kind: str
    symbol: str
    offset: int = 0
    core: CoreRelo | None = None


@dataclass(frozen=True)
class Code:
    """One function of an object: an entry program or a subprogram. Offsets inside are relative to its first slot."""

    name: str
    section: str
    insns: tuple[Insn, ...]
    relocs: tuple[Reloc, ...] = ()
    lines: tuple[Line, ...] = ()
    type_id: int = 0
    is_global: bool = True


@dataclass(frozen=True)
class Object:
    """An object file's contents, machine-independent: made by `obj.load`, `lang` or by hand; given to `obj.link`.

    `functions` is by function name and holds entry programs and subprograms; `entries` names the entry programs in file
    order. `maps` is by map name, global data (".rodata", ".data", ".bss" under libbpf's short names) included.
    """

    path: str
    functions: Mapping[str, Code]
    entries: tuple[str, ...]
    maps: Mapping[str, MapSpec]
    license: str = ""
    kernel_version: int = 0
    btf: Btf | None = field(default=None, repr=False)
    sha1: str = ""  # of the whole file: the object scope's directory (SPEC 157)
    notes: tuple[str, ...] = ()  # the loader's repairs, for the user to know
