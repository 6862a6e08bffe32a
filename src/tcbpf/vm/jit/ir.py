"""A verified program as an LLVM module: one function a subprogram, over the runtime's bitcode.

Every function takes the context, the env and the map table beside its own arguments, so that a context access never needs the
register it was made through. Maps are loaded from the table; what never changes of them (their shape) is in the text.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tcbpf.errors import InternalError, NotSupported
from tcbpf.isa.insn import Insn
from tcbpf.native.library import constant, offset_of, struct
from tcbpf.tables.helpers import helper_at
from tcbpf.tables.insns import Kind, Op
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.tables.opcodes import PSEUDO_FUNC, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.tables.skb import SKB, Field
from tcbpf.verifier.verified import Aux, Region, Subprog, Verified
from tcbpf.vm.cfg import Block, Slots, slots_of, target
from tcbpf.vm.context import place
from tcbpf.vm.engine import is_next, loop_sites, unbounded
from tcbpf.vm.frames import after, offsets_at
from tcbpf.vm.jit.body import IMPLICIT_ARGS, Body
from tcbpf.vm.jit.llvmtext import INTRINSICS

ENTRY_PARAMS = "ptr noalias %ctx, ptr noalias %env, ptr noalias readonly %maps"
IMPLICIT_PARAMS = "ptr %ctx, ptr noalias %env, ptr noalias readonly %maps"
"""Parameters that follow a function's own. One of those may be the context again, except in the entry function."""


@dataclass(frozen=True)
class Source:
    """What one module is written from: the program and what compilation knows beside it.

    `insns` are the program's own or the blinded ones, `origin` gives for each of their slots the program's; `shapes` are the
    maps' constant headers (struct tcbpf_shape), `runtime` says whether the runtime has a function.
    """

    verified: Verified
    insns: Sequence[Insn]
    origin: Sequence[int]
    subprogs: Sequence[Subprog]
    shapes: Sequence[bytes]
    runtime: Callable[[str], bool]
    insns_offset: int = -1  # of tcbpf_env.insns, when instructions are counted

    def aux(self, pc: int) -> Aux:
        """Return what the verifier learned of a slot."""
        return self.verified.aux[self.origin[pc]]


def own(verified: Verified, shapes: Sequence[bytes], runtime: Callable[[str], bool], insns_offset: int = -1) -> Source:
    """Return the source of a program as it was verified."""
    insns = verified.program.insns
    return Source(verified, insns, range(len(insns)), verified.subprogs, shapes, runtime, insns_offset)


def module(source: Source, loop: bool = False) -> str:
    """Return the module's text: `@prog` is a tcbpf_fn; `@loop`, when asked for, the runtime's packet loop over it.

    Raises:  NotSupported for a helper or an instruction that the runtime has not.
    """
    ops = slots_of(source.insns)
    text = [INTRINSICS, "!0 = !{}"]
    for i, shape in enumerate(source.shapes):
        raw = "".join(f"\\{byte:02X}" for byte in shape)
        text.append(f'@shape.{i} = internal unnamed_addr constant [{len(shape)} x i8] c"{raw}", align 8')
    arguments = ", ".join(f"i64 %a{reg}" for reg in range(1, 6))
    for i, subprog in enumerate(source.subprogs):
        head = (
            f"define i64 @prog({ENTRY_PARAMS})"
            if i == 0
            else f"define internal i64 @f{subprog.start}({arguments}, {IMPLICIT_PARAMS})"
        )
        text.append(ProgramBody(source, ops, subprog).text(head))
    if loop:
        text.append(
            "define i64 @loop(ptr %loop, ptr %env, ptr %maps) {\n"
            "  %r = call i32 @tcbpf_loop_inline(ptr %loop, ptr %env, ptr @prog, ptr %maps)\n"
            "  %w = zext i32 %r to i64\n  ret i64 %w\n}"
        )
    whole = "\n".join(text)
    used = sorted(set(re.findall(r"@(tcbpf_\w+)", whole)))
    return whole + "\n" + "\n".join(_TYPES.get(name, _HELPER).replace("(", f"@{name}(", 1) for name in used)


_HELPER = "declare i64 (ptr, i64, i64, i64, i64, i64)"
_TYPES = {
    "tcbpf_map_lookup": "declare ptr (ptr, ptr, ptr, ptr)",
    "tcbpf_map_update": "declare i64 (ptr, ptr, ptr, ptr, ptr, i64)",
    "tcbpf_map_delete": "declare i64 (ptr, ptr, ptr, ptr)",
    "tcbpf_for_each": "declare i64 (ptr, i64, i64, i64, i64, ptr, ptr)",
    "tcbpf_tail_call": "declare ptr (ptr, ptr, ptr, i64)",
    "tcbpf_ld_abs": "declare i64 (ptr, ptr, i32, i32, ptr)",
    "tcbpf_loop_inline": "declare i32 (ptr, ptr, ptr, ptr)",
}


class ProgramBody(Body):
    """One subprogram, whose accesses the verifier proved."""

    def __init__(self, source: Source, ops: Slots, subprog: Subprog) -> None:
        super().__init__(source.insns, ops, subprog.start, lambda pc: source.aux(pc).seen)
        self.given, self.subprog = source, subprog
        self.is_entry = subprog is source.subprogs[0]
        self.unbounded, self.nested = unbounded(source.verified), loop_sites(source.verified) > 1
        self.depth = -(-subprog.stack_depth // 8) * 8
        self.known = offsets_at(self.insns, ops, self.blocks)
        self.frame: list[int | None] = []  # of each register, at the instruction being written
        self.fields = PROG_TYPES[source.verified.program.type].context

    def shape(self, index: int) -> Any:
        """Return the struct tcbpf_shape of a map."""
        return struct("tcbpf_shape").from_buffer_copy(self.given.shapes[index])

    # --- registers that point into the frame ---

    def prologue(self) -> None:
        if self.depth:
            self.out.emit(f"%stack = alloca [{self.depth} x i8], align 16")
            self.out.emit(f"call void @llvm.memset.p0.i64(ptr align 16 %stack, i8 0, i64 {self.depth}, i1 false)")
        if any(op is not None and op.kind in (Kind.LD_ABS, Kind.LD_IND) for op in self.ops):
            self.out.emit("%abs = alloca i64")
        if any(op is not None and op.kind is Kind.CALL for op in self.ops):
            self.out.emit("%turn = alloca i64")
        seen = {self.given.aux(pc).region for pc, op in enumerate(self.ops) if op is not None}
        if Region.PACKET in seen:
            self.out.emit(f"%packet.at = getelementptr i8, ptr %ctx, i64 {SKB['data'].native[0]}")
            self.out.emit("%packet = load ptr, ptr %packet.at")
        if Region.MAP_VALUE in seen and self.given.shapes:
            self.out.emit("%values = load ptr, ptr %maps, !invariant.load !0")
        self.frame = [None] * 12
        for reg in (*range(10), 11):  # LLVM may assume anything of what was never written
            self.write(reg, "0")
        if self.is_entry:
            self.write(1, self.out.value("ptrtoint ptr %ctx to i64"))
        else:
            for reg in range(1, 6):
                self.write(reg, f"%a{reg}")

    def enter(self, block: Block) -> None:
        self.frame = list(self.known[block.start])
        if self.given.insns_offset >= 0:
            at = self.out.value(f"getelementptr i8, ptr %env, i64 {self.given.insns_offset}")
            count = sum(1 for pc in range(block.start, block.end) if self.ops[pc] is not None)
            total = self.out.value(f"add i64 {self.out.value(f'load i64, ptr {at}')}, {count}")
            self.out.emit(f"store i64 {total}, ptr {at}")

    def in_frame(self, offset: int) -> str:
        """Return a ptr to the frame's byte at `offset` from the frame pointer."""
        if not self.depth:
            return "null"
        return self.out.value(f"getelementptr i8, ptr %stack, i64 {self.depth + offset}")

    def read(self, reg: int) -> str:
        offset = self.frame[reg]
        if self.regs[reg] is None and offset is not None:
            self.regs[reg] = self.out.value(f"ptrtoint ptr {self.in_frame(offset)} to i64")
        return super().read(reg)

    def write(self, reg: int, value: str) -> None:
        self.frame[reg] = None
        super().write(reg, value)

    def flush_for(self, block: Block) -> None:
        """Write back what a successor will read from its place: frame pointers only where one does not know them."""
        for reg in range(11):
            if self.frame[reg] is None:
                continue
            if all(self.known[succ][reg] is not None for succ in block.succ):
                self.dirty.discard(reg)
            else:
                self.dirty.add(reg)

    def _insn(self, pc: int, insn: Insn, op: Op, block: Block) -> bool:
        if pc == block.end - 1:
            ends = op.kind in (Kind.JUMP, Kind.JA, Kind.MAY_GOTO, Kind.EXIT)
            if ends:
                self.flush_for(block)
                return super()._insn(pc, insn, op, block)
        offset = None
        if op.kind is Kind.ALU:
            offsets = list(self.frame)
            after(offsets, insn, op)
            offset = offsets[insn.dst]
        if offset is None:
            ended = super()._insn(pc, insn, op, block)
        else:
            ended = False
            self.regs[insn.dst], self.frame[insn.dst] = None, offset
            self.dirty.add(insn.dst)
        if pc == block.end - 1:
            self.flush_for(block)
        return ended

    def clobber(self, result: str | None) -> None:
        self.frame[0:6] = [None] * 6
        super().clobber(result)

    # --- memory ---

    def address(self, reg: int, off: int = 0, base: str = "") -> str:
        """Return a ptr to what a register points at; written as a distance from `base`, a loop over it can be vectorised."""
        offset = self.frame[reg]
        if offset is not None:
            return self.in_frame(offset + off)
        value = self.read(reg)
        if off:
            value = self.out.value(f"add i64 {value}, {off}")
        if not base:
            return self.out.value(f"inttoptr i64 {value} to ptr")
        distance = self.out.value(f"sub i64 {value}, {self.out.value(f'ptrtoint ptr {base} to i64')}")
        return self.out.value(f"getelementptr i8, ptr {base}, i64 {distance}")

    def base(self, pc: int) -> str:
        """Return the ptr that accesses of this instruction's region are written against, or nothing."""
        region = self.given.aux(pc).region
        if region is Region.PACKET:
            return "%packet"
        return "%values" if region is Region.MAP_VALUE and self.given.shapes else ""

    def pointer(self, pc: int, reg: int, off: int, size: int, *, write: bool, aligned: bool = False) -> str:
        return self.address(reg, off, self.base(pc))

    def load(self, pc: int, insn: Insn, op: Op) -> None:
        aux = self.given.aux(pc)
        if aux.region is Region.CTX:
            self._load_field(insn, op, _field(aux, pc))
            return
        at, kind = self.address(insn.src, insn.off, self.base(pc)), f"i{op.size * 8}"
        value = self.out.value(f"load {kind}, ptr {at}, align 1")
        self.write(insn.dst, self.extend(value, op.size, op.signed))

    def _load_field(self, insn: Insn, op: Op, field: Field) -> None:
        """Read a context field from its native place; a pointer field is whole, others may be read in part or in pairs."""
        where, size = place(field, insn.off, op.size)
        if not size:
            self.write(insn.dst, "0")
            return
        at = self.out.value(f"getelementptr i8, ptr %ctx, i64 {where}")
        value = self.extend(self.out.value(f"load i{size * 8}, ptr {at}, align 1"), size, op.signed and size == op.size)
        self.write(insn.dst, value)

    def store(self, pc: int, insn: Insn, op: Op) -> None:
        aux = self.given.aux(pc)
        if aux.region is not Region.CTX:
            super().store(pc, insn, op)
            return
        field = _field(aux, pc)
        where, size = place(field, insn.off, op.size)
        if not size:
            return
        out, value = self.out, self.source(insn, op, 64)
        at = out.value(f"getelementptr i8, ptr %ctx, i64 {where}")
        kind, cut = f"i{size * 8}", self.cut(value, size)
        if field.ignored_from:
            low = self.cut(value, op.size)
            kept = out.value(f"icmp ult i{op.size * 8} {low}, {field.ignored_from}")
            cut = out.value(f"select i1 {kept}, {kind} {cut}, {kind} {out.value(f'load {kind}, ptr {at}, align 1')}")
        out.emit(f"store {kind} {cut}, ptr {at}, align 1")

    def packet_load(self, pc: int, insn: Insn, op: Op) -> None:
        out = self.out
        offset = str(insn.imm)
        if op.kind is Kind.LD_IND:
            offset = self.cut(out.value(f"add i64 {self.read(insn.src)}, {insn.imm}"), 4)
        self._need("tcbpf_ld_abs", pc)
        there = out.value(f"call i64 @tcbpf_ld_abs(ptr %env, ptr %ctx, i32 {offset}, i32 {op.size}, ptr %abs)")
        good, bad = out.label(), out.label()
        out.emit(f"br i1 {out.value(f'icmp ne i64 {there}, 0')}, label %{good}, label %{bad}")
        out.start(bad)
        out.emit("ret i64 0")
        out.start(good)
        self.clobber(out.value("load i64, ptr %abs"))

    # --- maps and calls ---

    def map_pointer(self, index: int) -> str:
        """Return the ptr to a map's file in memory."""
        at = self.out.value(f"getelementptr i8, ptr %maps, i64 {8 * index}")
        return self.out.value(f"load ptr, ptr {at}, !invariant.load !0")

    def named(self, pc: int, insn: Insn) -> str:
        out = self.out
        if insn.src == PSEUDO_MAP_IDX:
            return out.value(f"ptrtoint ptr {self.map_pointer(insn.imm)} to i64")
        if insn.src == PSEUDO_MAP_IDX_VALUE:
            slots = self.shape(insn.imm).slots
            offset = slots + (self.insns[pc + 1].imm & 0xFFFFFFFF)
            at = out.value(f"getelementptr i8, ptr {self.map_pointer(insn.imm)}, i64 {offset}")
            return out.value(f"ptrtoint ptr {at} to i64")
        if insn.src == PSEUDO_FUNC:
            return f"ptrtoint (ptr @f{pc + 1 + insn.imm} to i64)"
        raise NotSupported(f"pc {self.given.origin[pc]}: the user datapath has no LD_IMM64 with src {insn.src}")

    def _need(self, name: str, pc: int) -> None:
        if not self.given.runtime(name):
            what = name.removeprefix("tcbpf_helper_").removeprefix("tcbpf_kfunc_")
            raise NotSupported(f"pc {self.given.origin[pc]}: the user datapath has no {what}")

    def call(self, pc: int, insn: Insn) -> None:
        helper = helper_at(insn.imm)
        if helper is None:
            raise NotSupported(f"pc {self.given.origin[pc]}: no helper {insn.imm}")
        aux = self.given.aux(pc)
        if helper.name == "tail_call":
            self._tail_call(pc, aux)
        elif helper.name == "loop":
            self._loop(aux.inlined)
        elif helper.name == "for_each_map_elem":
            arguments = ", ".join(f"i64 {self.read(reg)}" for reg in range(1, 5))
            self.clobber(self.out.value(f"call i64 @tcbpf_for_each(ptr %env, {arguments}, ptr %ctx, ptr %maps)"))
            self._leave_when_stopped()
        elif helper.name in _ON_MAPS and aux.map >= 0:
            self._map_call(helper.name, aux.map)
        else:
            name = f"tcbpf_helper_{helper.name}"
            self._need(name, pc)
            used = 5 if "..." in helper.proto else len(helper.args)
            arguments = ", ".join(f"i64 {self.read(reg) if reg <= used else 0}" for reg in range(1, 6))
            self.clobber(self.out.value(f"call i64 @{name}(ptr %env, {arguments})"))

    def call_kfunc(self, pc: int, insn: Insn) -> None:
        from tcbpf.tables.kfuncs import KFUNCS  # read only by programs that call one

        row = KFUNCS[self.given.aux(pc).kfunc]
        name = f"tcbpf_kfunc_{row.name}"
        self._need(name, pc)
        arguments = ", ".join(f"i64 {self.read(reg) if reg <= len(row.params) else 0}" for reg in range(1, 6))
        self.clobber(self.out.value(f"call i64 @{name}(ptr %env, {arguments})"))
        if is_next(row.name):
            self._leave_when_stopped(self.out.value(f"icmp eq i64 {self.read(0)}, 0"))

    def stopped(self) -> str:
        """Return whether env.stop is set: somebody wants the run to end."""
        at = self.out.value(f"getelementptr i8, ptr %env, i64 {offset_of('tcbpf_env', 'stop')}")
        return self.out.value(f"icmp ne i32 {self.out.value(f'load atomic i32, ptr {at} monotonic, align 4')}, 0")

    def _leave_when_stopped(self, only: str = "true") -> None:
        """Return when env.stop is set (asked only when `only` holds), and so does every caller: no more of the program runs.

        Written behind what the verifier lets through without having walked it to its end, and where that is over: one loop
        ends by itself, and goes fast without a look at memory in it. No lock is held there.
        """
        ask, leave, stay = self.out.label(), self.out.label(), self.out.label()
        self.out.emit(f"br i1 {only}, label %{ask}, label %{stay}")
        self.out.start(ask)
        self.out.emit(f"br i1 {self.stopped()}, label %{leave}, label %{stay}")
        self.out.start(leave)
        self.out.emit("ret i64 0")
        self.out.start(stay)

    def _map_call(self, name: str, index: int) -> None:
        """Call a map operation with the map's shape as a constant, so that it inlines to what this map needs."""
        function, pointers, result = _ON_MAPS[name]
        arguments = [f"ptr {self.address(reg)}" for reg in range(2, 2 + pointers)]
        if name == "map_update_elem":
            arguments.append(f"i64 {self.read(4)}")
        kind = self.shape(index).type
        out_of_line = " noinline" if name != "map_lookup_elem" and kind not in _INDEXED else ""  # long, and the rarer path
        value = self.out.value(
            f"call {result} @{function}(ptr %env, ptr {self.map_pointer(index)}, ptr @shape.{index}, "
            + ", ".join(arguments)
            + ")"
            + out_of_line
        )
        self.clobber(self.out.value(f"ptrtoint ptr {value} to i64") if result == "ptr" else value)

    def _tail_call(self, pc: int, aux: Aux) -> None:
        """Jump to another program, or go on when there is none."""
        out = self.out
        self._need("tcbpf_tail_call", pc)
        if aux.map >= 0:
            arguments = f"ptr {self.map_pointer(aux.map)}, ptr @shape.{aux.map}"
        else:
            table = self.address(2)
            arguments = f"ptr {table}, ptr {out.value(f'getelementptr i8, ptr {table}, i64 16')}"
        prog = out.value(f"call ptr @tcbpf_tail_call(ptr %env, {arguments}, i64 {self.read(3)})")
        found, missed = out.label(), out.label()
        out.emit(f"br i1 {out.value(f'icmp ne ptr {prog}, null')}, label %{found}, label %{missed}")
        out.start(found)
        entry = out.value(f"load ptr, ptr {prog}")
        maps = out.value(f"load ptr, ptr {out.value(f'getelementptr i8, ptr {prog}, i64 8')}")
        how = "musttail call" if self.is_entry else "call"  # a subprogram's frame stays: it returns to its caller
        out.emit(f"ret i64 {out.value(f'{how} i64 {entry}(ptr %ctx, ptr %env, ptr {maps})')}")
        out.start(missed)
        self.clobber("0")

    def _loop(self, inlined: bool) -> None:
        """Write bpf_loop(nr, callback, context, flags): call back until it returns other than 0."""
        out = self.out
        number, flags = self.read(1), self.read(4)
        callback, context = self.address(2), self.read(3)
        at = "%turn"
        entry, head, body, done = out.label(), out.label(), out.label(), out.label()
        out.emit(f"store i64 0, ptr {at}")
        nr = number if inlined else self.extend(self.cut(number, 4), 4)
        bad_flags = out.value(f"icmp ne i64 {flags}, 0")
        too_many = out.value(f"icmp ugt i64 {nr}, {constant('MAX_LOOPS')}")
        error = out.value(f"select i1 {bad_flags}, i64 {-errno.EINVAL}, i64 {-errno.E2BIG & (0xFFFFFFFF if inlined else -1)}")
        refused = out.value(f"or i1 {bad_flags}, {too_many}")
        out.emit(f"br label %{entry}")
        out.start(entry)
        out.emit(f"br i1 {refused}, label %{done}, label %{head}")
        out.start(head)
        i = out.value(f"load i64, ptr {at}")
        out.emit(f"br i1 {out.value(f'icmp ult i64 {i}, {nr}')}, label %{body}, label %{done}")
        out.start(body)
        out.emit(f"store i64 {out.value(f'add i64 {i}, 1')}, ptr {at}")
        said = out.value(f"call i64 {callback}(i64 {i}, i64 {context}, i64 0, i64 0, i64 0, {IMPLICIT_ARGS})")
        again = out.value(f"icmp eq i64 {said}, 0")
        if self.nested:
            again = out.value(f"select i1 {self.stopped()}, i1 false, i1 {again}")
        out.emit(f"br i1 {again}, label %{head}, label %{done}")
        out.start(done)
        ran = out.value(f"load i64, ptr {at}")
        self.clobber(out.value(f"select i1 {refused}, i64 {error}, i64 {ran}"))
        self._leave_when_stopped()

    def call_local(self, pc: int, insn: Insn) -> None:
        arguments = ", ".join(f"i64 {self.read(reg)}" for reg in range(1, 6))
        where = target(pc, insn, Op(Kind.CALL_LOCAL))
        self.clobber(self.out.value(f"call i64 @f{where}({arguments}, {IMPLICIT_ARGS})"))
        if self.unbounded:
            self._leave_when_stopped()


_INDEXED = {row.number for row in MAP_TYPES if row.indexed}
_ON_MAPS = {
    "map_lookup_elem": ("tcbpf_map_lookup", 1, "ptr"),
    "map_update_elem": ("tcbpf_map_update", 2, "i64"),
    "map_delete_elem": ("tcbpf_map_delete", 1, "i64"),
}


def _field(aux: Aux, pc: int) -> Field:
    if aux.field is None:
        raise InternalError(f"pc {pc}: a context access without its field")
    return aux.field
