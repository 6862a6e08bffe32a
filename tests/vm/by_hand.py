"""Verified programs and maps made by hand, for tests of engines that should not need the verifier to be right."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from tcbpf.isa.insn import Insn
from tcbpf.native.library import constant, function, struct
from tcbpf.obj.program import MapSpec, Program
from tcbpf.tables.insns import Kind, op_of
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.tables.opcodes import PSEUDO_MAP_IDX
from tcbpf.tables.skb import SKB, field_at
from tcbpf.verifier.verified import Aux, Region, Subprog, Verified


def verified(
    *insns: Insn,
    maps: tuple[MapSpec, ...] = (),
    subprogs: tuple[Subprog, ...] = (),
    type: str = "sched_cls",
    regions: dict[int, Region] | None = None,
    dead: tuple[int, ...] = (),
) -> Verified:
    """Return what the verifier would hand on: context accesses go through r1 or r6, `regions` says what others reach."""
    aux = []
    for pc, insn in enumerate(insns):
        op = op_of(insn.code, insn.src, insn.off, insn.imm)
        one = Aux(seen=pc not in dead, region=(regions or {}).get(pc, Region.NONE))
        base = {Kind.LOAD: insn.src, Kind.STORE: insn.dst}.get(op.kind) if op else None
        if one.region is Region.CTX or (base in (1, 6) and pc not in (regions or {})):
            one.region, one.field = Region.CTX, field_at(SKB, insn.off)
        elif base == 10:
            one.region = Region.STACK
        if op is not None and op.kind is Kind.CALL:
            one.map = next((back.imm for back in reversed(insns[:pc]) if back.code == 0x18 and back.src == PSEUDO_MAP_IDX), -1)
        aux.append(one)
    whole = subprogs or (Subprog(0, len(insns), "main", 512),)
    return Verified(Program("test", type, tuple(insns), maps), tuple(aux), whole, len(insns))


@dataclass
class Place:
    """Something at an address: a stand-in for the runtime's own Python classes."""

    address: int
    spec: MapSpec | None = None
    keep: object = None


def zeroed(size: int) -> Place:
    """Return `size` zero bytes, aligned to 64."""
    buffer = ctypes.create_string_buffer(size + 64)
    return Place(-(-ctypes.addressof(buffer) // 64) * 64, keep=buffer)


def a_map(spec: MapSpec) -> Place:
    """Return a map in ordinary memory."""
    header = struct("tcbpf_map")
    shape = struct("tcbpf_shape")(
        type=MAP_TYPES[spec.type].number,
        key_size=spec.key_size,
        value_size=spec.value_size,
        max_entries=spec.max_entries,
        flags=spec.flags,
        cpus=1,
    )
    plan = function("tcbpf_map_plan", ctypes.c_int64, ctypes.c_void_p)
    size = plan(ctypes.addressof(shape))
    assert size > 0, size
    place = zeroed(size)
    place.spec = spec
    made = header.from_address(place.address)
    made.magic, made.version = constant("MAP_MAGIC"), constant("MAP_VERSION")
    made.header_size, made.size = ctypes.sizeof(header), size
    made.s = shape
    return place


@dataclass
class Packet:
    """An skb over a buffer with head and tail room."""

    def __init__(self, data: bytes) -> None:
        self.skb = zeroed(ctypes.sizeof(struct("tcbpf_skb")))
        self.buffer = zeroed(4096)
        self.address = self.skb.address
        self.raw = struct("tcbpf_skb").from_address(self.address)
        start = self.buffer.address + 256
        ctypes.memmove(start, data, len(data))
        self.raw.u.len, self.raw.data, self.raw.data_end, self.raw.data_meta = len(data), start, start + len(data), start
        self.raw.head, self.raw.end = self.buffer.address, self.buffer.address + 4096
        self.raw.network = self.raw.transport = 0xFFFF

    @property
    def bytes(self) -> bytes:
        """The packet as it is now."""
        return ctypes.string_at(self.raw.data, self.raw.data_end - self.raw.data)


def an_env() -> Place:
    """Return an env without programs or devices, its clock stopped at 1000."""
    place = zeroed(ctypes.sizeof(struct("tcbpf_env")))
    struct("tcbpf_env").from_address(place.address).clock = 1000
    return place
