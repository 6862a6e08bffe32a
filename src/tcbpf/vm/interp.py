"""The interpreter engine: a verified program on the stepping machine, over the runtime's own packets, maps and helpers.

Every access is checked although the verifier proved it, which is how a wrong proof is noticed. The context is reached by
field, the packet between data_meta and data_end, a map where a value lies; a helper's memory is checked before it is called.

Differs: atomics on map values are not atomic towards other processes; the callback of bpf_loop runs within one step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tcbpf.errors import InternalError, NotSupported
from tcbpf.isa.concrete import concrete
from tcbpf.isa.insn import Insn
from tcbpf.native.library import function, helper, kfunc, struct
from tcbpf.tables.helpers import ArgType, Helper, helper_at
from tcbpf.tables.insns import PSEUDO_FUNC, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE, Kind, Op
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.tables.skb import SKB, SKB_SIZE, XDP, XDP_SIZE, field_at
from tcbpf.verifier.verified import Verified
from tcbpf.vm.cfg import Slots, slots_of
from tcbpf.vm.context import place
from tcbpf.vm.executable import COMPILED
from tcbpf.vm.machine import MASK, MAX_LOOPS, Machine, Stopped
from tcbpf.vm.memory import AccessError, Memory, Region, Touch
from tcbpf.vm.pages import ENTRY

if TYPE_CHECKING:
    from tcbpf.native.runtime import Env, MapFile, Skb
    from tcbpf.vm.executable import Options

_HELPER = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint64] * 5)
_E2BIG, _EINVAL = -7 & MASK, -22 & MASK
_KEY_OFF = 8                                       # of a hash element's key in its slot


@dataclass(frozen=True, slots=True)
class Values:
    """Where the values of one map lie."""

    name: str
    address: int

    def region(self, address: int) -> Region | None:
        """Return the value that holds `address`, or None."""
        raw = struct("tcbpf_map").from_address(self.address)
        shape = raw.s
        first = self.address + shape.slots
        if not first <= address < self.address + raw.size:
            return None
        stride = shape.slot_stride or shape.value_stride
        if not stride:                                                 # records of a ring buffer
            return Region(self.name, first, raw.size - shape.slots)
        index, inside = divmod(address - first, stride)
        number, _ = divmod(inside - shape.value_off, shape.value_stride)
        if number < 0:
            return Region(f"{self.name}[{index}].key", first + index * stride + _KEY_OFF, shape.key_size, writable=False)
        start = first + index * stride + shape.value_off + number * shape.value_stride
        return Region(f"{self.name}[{index}]", start, shape.value_size)


class ProgramMachine(Machine):
    """One run of a verified program."""

    def __init__(self, verified: Verified, ops: Slots, maps: Sequence[Values], ctx: int, env: int, table: int) -> None:
        self.verified, self.ctx, self.env, self.table = verified, ctx, env, table
        self.maps = list(maps)
        self.skb = struct("tcbpf_skb").from_address(ctx)
        self.is_xdp = PROG_TYPES[verified.program.type].context == "xdp"
        self.ctx_size = XDP_SIZE if self.is_xdp else SKB_SIZE
        super().__init__(verified.program.insns, ops, Memory(self._packet, self._value))
        self.regs[1] = ctx

    def _packet(self, address: int) -> Region:
        skb = self.skb
        start = min(skb.data_meta or skb.data, skb.data)
        return Region("packet", start, skb.data_end - start, not skb.readonly, start - skb.data)

    def _value(self, address: int) -> Region | None:
        return next(filter(None, (values.region(address) for values in self.maps)), None)

    # --- the context, by field ---

    def _field(self, register: int, insn: Insn, op: Op) -> tuple[int, int, int] | None:
        """Return (address, bytes there, ignored_from) of a context access, or None when it is none."""
        off = self.regs[register] + insn.off - self.ctx
        if not 0 <= off < self.ctx_size:
            return None
        field = field_at(XDP if self.is_xdp else SKB, off)
        if field is None:
            raise AccessError(f"no context field at {off}")
        where, size = place(field, off, op.size)
        return self.ctx + where, size, field.ignored_from

    def load(self, insn: Insn, op: Op) -> int:
        there = self._field(insn.src, insn, op)
        if there is None:
            return super().load(insn, op)
        value = int.from_bytes(ctypes.string_at(there[0], there[1]), "little")
        self._touched(self.regs[insn.src] + insn.off, op.size, False, value)
        return value

    def store(self, insn: Insn, op: Op, value: int) -> None:
        there = self._field(insn.dst, insn, op)
        if there is None:
            super().store(insn, op, value)
            return
        address, size, ignored_from = there
        value &= (1 << 8 * op.size) - 1
        if not ignored_from or value < ignored_from:
            ctypes.memmove(address, value.to_bytes(8, "little"), size)
        self._touched(self.regs[insn.dst] + insn.off, op.size, True, value)

    def _touched(self, address: int, size: int, write: bool, value: int) -> None:
        if self.memory.trace:
            self.memory.touches.append(Touch("ctx", address - self.ctx, size, write, value))

    def packet_load(self, insn: Insn, op: Op) -> None:
        index = insn.imm + (self.regs[insn.src] if op.kind is Kind.LD_IND else 0)
        value = ctypes.c_uint64()
        offset = concrete(32).signed(index & 0xFFFFFFFF)
        there = _ld_abs()(self.env, self.ctx, offset, op.size, ctypes.addressof(value))
        self.regs[:6] = [value.value if there else 0, 0, 0, 0, 0, 0]
        if not there:
            self.leave()

    # --- maps and calls ---

    def named(self, insn: Insn, second: Insn) -> int:
        if insn.src == PSEUDO_MAP_IDX:
            return self.maps[insn.imm].address
        if insn.src == PSEUDO_MAP_IDX_VALUE:
            base = self.maps[insn.imm].address
            return int(base + struct("tcbpf_map").from_address(base).s.slots + (second.imm & 0xFFFFFFFF))
        if insn.src == PSEUDO_FUNC:
            return self.pc + insn.imm                                  # pc is already the next slot
        raise Stopped(self.pc - 1, f"LD_IMM64 with src {insn.src} names nothing in the user datapath")

    def call(self, insn: Insn, op: Op) -> None:
        row = helper_at(insn.imm)
        if row is None:
            raise Stopped(self.pc - 1, f"no helper {insn.imm}")
        self._check(row)
        if row.name == "tail_call":
            self._tail_call()
        elif row.name == "loop":
            self._loop()
        elif row.name == "for_each_map_elem":
            self._for_each()
        else:
            result = _HELPER(helper(row.name))(self.env, *self.regs[1:6])
            if row.name == "map_lookup_elem" and result:
                self._adopt(self.regs[1], result)
            self.regs[:6] = [result, 0, 0, 0, 0, 0]

    def call_kfunc(self, pc: int) -> None:
        name = self.verified.aux[pc].kfunc
        self.regs[:6] = [_HELPER(kfunc(name))(self.env, *self.regs[1:6]), 0, 0, 0, 0, 0]

    def _adopt(self, outer: int, found: int) -> None:
        """Make an inner map's values reachable."""
        row = MAP_TYPES.at(struct("tcbpf_map").from_address(outer).s.type)
        if row is not None and row.values == "map" and all(values.address != found for values in self.maps):
            self.maps.append(Values(f"inner@{found:x}", found))

    def _check(self, row: Helper) -> None:
        """Refuse memory arguments that are not the program's, maps that are no maps."""
        shape: Any = None
        for number, argument in enumerate(row.args, 1):
            value = self.regs[number]
            if argument.type is ArgType.CONST_MAP_PTR:
                if all(values.address != value for values in self.maps):
                    raise AccessError(f"R{number} of {row.name} is no map")
                shape = struct("tcbpf_map").from_address(value).s
            elif argument.type is ArgType.CTX and value != self.ctx:
                raise AccessError(f"R{number} of {row.name} is not the context")
            elif argument.type is ArgType.MAP_KEY and shape is not None and value:
                self.memory.find(value, shape.key_size)
            elif argument.type is ArgType.MAP_VALUE and shape is not None and value:
                self.memory.find(value, shape.value_size)
            elif argument.type is ArgType.MEM and number < len(row.args) and value:
                size = self.regs[number + 1] if "SIZE" in row.args[number].type.name else argument.size
                if size:
                    self.memory.find(value, size)

    def _tail_call(self) -> None:
        table, index = self.regs[2], self.regs[3]
        shape = table + type(struct("tcbpf_map").from_address(table)).s.offset
        found = _tail_target()(self.env, table, shape, index)
        self.regs[:6] = [0] * 6
        if found:
            prog = struct("tcbpf_prog").from_address(found)
            self.regs[0] = _run_native(prog.fn, self.ctx, self.env, prog.maps)
            self.leave()

    def _loop(self) -> None:
        number, callback, context, flags = self.regs[1] & 0xFFFFFFFF, self.regs[2], self.regs[3], self.regs[4]
        if flags or number > MAX_LOOPS:
            self.regs[:6] = [_EINVAL if flags else _E2BIG, 0, 0, 0, 0, 0]
            return
        ran = 0
        while ran < number:
            ran += 1
            if self.callback(callback, ran - 1, context):
                break
        self.regs[:6] = [ran, 0, 0, 0, 0, 0]

    def _for_each(self) -> None:
        map, callback, context, flags = self.regs[1:5]
        place, index, key, value = ctypes.c_uint32(), ctypes.c_uint32(), ctypes.c_void_p(), ctypes.c_void_p()
        self.memory.providers += (lambda _: Region("index", ctypes.addressof(index), 4, writable=False),)
        ran = 0
        places = [ctypes.byref(one) for one in (place, index, key, value)]
        while not flags and _each()(self.env, map, *places):
            ran += 1
            if self.callback(callback, map, key.value or 0, value.value or 0, context):
                break
        self.memory.providers = self.memory.providers[:-1]
        self.regs[:6] = [_EINVAL if flags else ran, 0, 0, 0, 0, 0]

    def callback(self, where: int, *arguments: int) -> int:
        """Run the function at `where` to its end and return its r0."""
        depth = len(self.frames)
        self.enter(where)
        self.regs[1:6] = [*arguments, *[0] * (5 - len(arguments))]
        while len(self.frames) > depth:
            self.one()
        return self.regs[0]


@lru_cache(maxsize=1)
def _ld_abs() -> Callable[..., Any]:
    void = ctypes.c_void_p
    return function("tcbpf_ld_abs", ctypes.c_uint64, void, void, ctypes.c_int32, ctypes.c_uint32, void)


@lru_cache(maxsize=1)
def _each() -> Callable[..., Any]:
    return function("tcbpf_each", ctypes.c_uint32, *[ctypes.c_void_p] * 6)


@lru_cache(maxsize=1)
def _tail_target() -> Callable[..., Any]:
    void = ctypes.c_void_p
    return function("tcbpf_tail_call", void, void, void, void, ctypes.c_uint64)


_failures: list[Exception] = []        # what a program that C called could not raise


def _run_native(fn: int, ctx: int, env: int, maps: int) -> int:
    """Call a tcbpf_fn, which may be an interpreter's: what stopped that one stops this one."""
    result = int(ENTRY(fn)(ctx, env, maps))
    if _failures:
        raise _failures.pop()
    return result


class Interp:
    """A program that the interpreter runs, over one set of maps. To C it is a program like any other."""

    jited = False
    loop = 0

    def __init__(self, verified: Verified, maps: Sequence[MapFile], options: Options) -> None:
        self.verified, self.options = verified, options
        self.ops = slots_of(verified.program.insns)
        self.maps = tuple(maps)
        self._values = [Values(m.spec.name, m.address) for m in maps]
        self._table = (ctypes.c_void_p * max(len(maps), 1))(*(m.address for m in maps))
        self._entry = ENTRY(self._called)
        self.failure: Exception | None = None
        self.prog = struct("tcbpf_prog")()
        self.prog.fn = ctypes.cast(self._entry, ctypes.c_void_p).value
        self.prog.maps, self.prog.n_maps = self.maps_address, len(maps)
        self.prog.type = PROG_TYPES[verified.program.type].number
        self.prog.flags = 1 if verified.writes_packet else 0
        for insn, op in zip(verified.program.insns, self.ops, strict=True):
            if op is not None and op.kind is Kind.CALL:
                _exists(insn.imm)
        for aux in verified.aux:
            if aux.kfunc:
                kfunc(aux.kfunc)

    @property
    def address(self) -> int:
        """Address of its struct tcbpf_prog, whose code calls back into the interpreter."""
        return ctypes.addressof(self.prog)

    @property
    def maps_address(self) -> int:
        """Address of the table of maps that the code takes."""
        return ctypes.addressof(self._table)

    def machine(self, skb: Skb, env: Env) -> ProgramMachine:
        """Return a machine at the program's first instruction, to be stepped."""
        return self._machine(skb.address, env.address)

    def _machine(self, ctx: int, env: int) -> ProgramMachine:
        return ProgramMachine(self.verified, self.ops, self._values, ctx, env, self.maps_address)

    def run(self, skb: Skb, env: Env) -> int:
        """Run once and return r0.

        Raises:  InternalError when the program does what the verifier should have refused.
        """
        struct("tcbpf_env").from_address(env.address).tail_calls = 0
        return self._run(skb.address, env.address)

    def _run(self, ctx: int, env: int) -> int:
        machine = self._machine(ctx, env)
        try:
            return machine.run()
        except Stopped as stop:
            raise InternalError(f"a verified program faulted: {stop}") from stop
        finally:
            if self.options.count:
                struct("tcbpf_env").from_address(env).insns += machine.executed

    def _called(self, ctx: int, env: int, maps: int) -> int:
        try:
            return self._run(ctx, env)
        except Exception as error:                                     # must not cross C; kept for who called
            self.failure = error
            _failures[:] = [error]
            return MASK

    def close(self) -> None:
        """Nothing is held."""


def _exists(number: int) -> None:
    row = helper_at(number)
    if row is None:
        raise NotSupported(f"no helper {number}")
    if row.name not in COMPILED:
        helper(row.name)
