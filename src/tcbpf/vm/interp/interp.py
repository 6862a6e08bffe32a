"""The interpreter engine: a verified program on the stepping machine, over the runtime's own packets, maps and helpers.

Every access is checked although the verifier proved it, which is how a wrong proof is noticed. The context is reached by
field, the packet between data_meta and data_end, a map where a value lies; a helper's memory is checked before it is called.

Differs: atomics on map values are not atomic towards other processes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from tcbpf.errors import InternalError, NotSupported
from tcbpf.isa.concrete import concrete
from tcbpf.isa.insn import Insn
from tcbpf.native.library import constant, function, helper, kfunc, struct
from tcbpf.tables.helpers import ArgType, Helper, Mod, helper_at
from tcbpf.tables.insns import Kind, Op
from tcbpf.tables.maps import MAP_TYPES, OF_MAPS
from tcbpf.tables.opcodes import PSEUDO_FUNC, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.tables.skb import SKB, SKB_SIZE, XDP, XDP_SIZE, field_at
from tcbpf.verifier.verified import Verified
from tcbpf.vm.cfg import slots_of
from tcbpf.vm.context import place
from tcbpf.vm.engine import COMPILED
from tcbpf.vm.interp.machine import FRAMES, MASK, Machine, Stopped
from tcbpf.vm.interp.memory import AccessError, Memory, Region, Touch
from tcbpf.vm.jit.pages import ENTRY

if TYPE_CHECKING:
    from tcbpf.native.runtime import Env, MapFile, Skb
    from tcbpf.vm.engine import Options

_HELPER = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint64] * 5)
_E2BIG, _EINVAL = -7 & MASK, -22 & MASK
_KEY_OFF = 8  # of a hash element's key in its slot


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
        if not stride:  # records of a ring buffer
            return Region(self.name, first, raw.size - shape.slots)
        index, inside = divmod(address - first, stride)
        number, _ = divmod(inside - shape.value_off, shape.value_stride)
        if number < 0:
            return Region(f"{self.name}[{index}].key", first + index * stride + _KEY_OFF, shape.key_size, writable=False)
        start = first + index * stride + shape.value_off + number * shape.value_stride
        return Region(f"{self.name}[{index}]", start, shape.value_size)


class ProgramMachine(Machine):
    """One run of a verified program."""

    def __init__(self, engine: Interp, ctx: int, env: int) -> None:
        self.ctx, self.env = ctx, env
        self.skb = struct("tcbpf_skb").from_address(ctx)
        self.is_xdp = PROG_TYPES[engine.verified.program.type].context == "xdp"
        self.ctx_size = XDP_SIZE if self.is_xdp else SKB_SIZE
        self._indices = (ctypes.c_uint32 * FRAMES)()  # keys of the arrays that callbacks walk over, by depth
        super().__init__(engine.verified.program.insns, engine.ops, Memory(self._packet, self._value, self._index))
        self.begin(engine)

    def begin(self, engine: Interp) -> None:
        """Stand at the first instruction of a program."""
        self.engine, self.verified, self.maps = engine, engine.verified, list(engine.values)
        self.insns, self.ops = engine.verified.program.insns, engine.ops
        self.pc, self.may = 0, constant("MAX_LOOPS")
        self.regs[:] = [0, self.ctx, *[0] * 8, self.regs[10]]

    def run(self) -> int:
        """Run to the end and return r0.

        Raises:  Halted when env.stop is set; Stopped.
        """
        env = struct("tcbpf_env").from_address(self.env)
        while not self.done:
            if env.stop:
                raise Halted
            for _ in range(POLL):
                self.one()
                if self.done:
                    break
        return self.regs[0]

    def _packet(self, address: int) -> Region:
        skb = self.skb
        start = min(skb.data_meta or skb.data, skb.data)
        return Region("packet", start, skb.data_end - start, not skb.readonly, start - skb.data)

    def _index(self, address: int) -> Region:
        return Region("index", ctypes.addressof(self._indices), ctypes.sizeof(self._indices), writable=False)

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
        self.give(value.value if there else 0)
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
            return self.pc + insn.imm  # pc is already the next slot
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
            self.give(result)

    def call_kfunc(self, pc: int) -> None:
        name = self.verified.aux[pc].kfunc
        self.give(_HELPER(kfunc(name))(self.env, *self.regs[1:6]))

    def _adopt(self, outer: int, found: int) -> None:
        """Make an inner map's values reachable."""
        row = MAP_TYPES.at(struct("tcbpf_map").from_address(outer).s.type)
        if row is not None and row.name in OF_MAPS and all(values.address != found for values in self.maps):
            self.maps.append(Values(f"inner@{found:x}", found))

    def _check(self, row: Helper) -> None:
        """Reject memory arguments outside of the program's memory, and map arguments that do not point to a map."""
        shape: Any = None
        for number, argument in enumerate(row.args, 1):
            value = self.regs[number]
            if argument.type is ArgType.CONST_MAP_PTR:
                if all(values.address != value for values in self.maps):
                    raise AccessError(f"R{number} of {row.name} does not point to a map")
                shape = struct("tcbpf_map").from_address(value).s
            elif argument.type is ArgType.CTX and value != self.ctx and (value or not argument.mod & Mod.MAYBE_NULL):
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
        """Go on in the other program: on this machine when it is an interpreter's and nobody waits for this one."""
        table, index = self.regs[2], self.regs[3]
        shape = table + type(struct("tcbpf_map").from_address(table)).s.offset
        found = _tail_target()(self.env, table, shape, index)
        self.give(0)
        if not found:
            return
        other = _interps.get(found)
        if other is not None and not self.frames:
            self.begin(other)
            return
        prog = struct("tcbpf_prog").from_address(found)
        self.regs[0] = _run_native(prog.fn, self.ctx, self.env, prog.maps)
        self.leave()

    def _loop(self) -> None:
        number, callback, context, flags = self.regs[1:5]
        inlined = self.verified.aux[self.pc - 1].inlined
        number = number if inlined else number & 0xFFFFFFFF

        def turn(ran: int) -> None:
            if ran == number:
                self.give(ran)
            else:
                self.callback(callback, (ran, context), lambda said: self.give(ran + 1) if said else turn(ran + 1))

        if flags or number > constant("MAX_LOOPS"):
            self.give(_EINVAL if flags else _E2BIG & 0xFFFFFFFF if inlined else _E2BIG)
        else:
            turn(0)

    def _for_each(self) -> None:
        map, callback, context, flags = self.regs[1:5]

        def turn(at: int, ran: int) -> None:
            place, key, value = ctypes.c_uint32(at), ctypes.c_void_p(), ctypes.c_void_p()
            index = ctypes.addressof(self._indices) + 4 * len(self.frames)
            out = [ctypes.addressof(one) for one in (key, value)]
            if not _each()(self.env, map, ctypes.addressof(place), index, *out):
                self.give(ran)
                return
            arguments = (map, key.value or 0, value.value or 0, context)
            self.callback(callback, arguments, lambda said: self.give(ran + 1) if said else turn(place.value, ran + 1))

        if flags:
            self.give(_EINVAL)
        else:
            turn(0, 0)

    def callback(self, where: int, arguments: Sequence[int], then: Callable[[int], None]) -> None:
        """Enter the function at `where`; `then` takes its r0."""
        self.enter(where, then)
        self.regs[1:6] = [*arguments, *[0] * (5 - len(arguments))]

    def give(self, result: int) -> None:
        """Leave what a call leaves: r0, and nothing in r1 to r5."""
        self.regs[:6] = [result & MASK, 0, 0, 0, 0, 0]


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


_interps: WeakValueDictionary[int, Interp] = WeakValueDictionary()  # by the address of their tcbpf_prog
_failures: list[BaseException] = []  # what a program that C called could not raise
POLL = 256  # instructions between looks at env.stop


class Halted(Exception):
    """env.stop was set; who set it raises."""


def _run_native(fn: int, ctx: int, env: int, maps: int) -> int:
    """Call a tcbpf_fn. If it is interpreted and raised, re-raise its exception here."""
    result = int(ENTRY(fn)(ctx, env, maps))
    raise_failure()
    return result


def raise_failure() -> None:
    """Raise what ended a program that C called."""
    if _failures:
        raise _failures.pop()


class Interp:
    """A program that the interpreter runs, over one set of maps. To C it is a program like any other."""

    jited = False
    loop = 0

    def __init__(self, verified: Verified, maps: Sequence[MapFile], options: Options) -> None:
        self.verified, self.options = verified, options
        self.ops = slots_of(verified.program.insns)
        self.maps = tuple(maps)
        self.values = [Values(m.spec.name, m.address) for m in maps]
        self._table = (ctypes.c_void_p * max(len(maps), 1))(*(m.address for m in maps))
        self._entry = ENTRY(self._called)
        self.prog = struct("tcbpf_prog")()
        self.prog.fn = ctypes.cast(self._entry, ctypes.c_void_p).value
        self.prog.maps, self.prog.n_maps = self.maps_address, len(maps)
        self.prog.type = PROG_TYPES[verified.program.type].number
        self.prog.flags = constant("PROG_WRITES") if verified.writes_packet else 0
        _interps[self.address] = self
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
        return ProgramMachine(self, ctx, env)

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
        except Halted:
            return 0
        except Stopped as stop:
            raise InternalError(f"a verified program faulted: {stop}") from stop
        finally:
            if self.options.count:
                struct("tcbpf_env").from_address(env).insns += machine.executed

    def _called(self, ctx: int, env: int, maps: int) -> int:
        try:
            return self._run(ctx, env)
        except BaseException as error:  # must not cross C; kept for who called
            _failures[:] = [error]
            struct("tcbpf_env").from_address(env).stop = 1
            return MASK

    def close(self) -> None:
        """Nothing is held."""


def _exists(number: int) -> None:
    row = helper_at(number)
    if row is None:
        raise NotSupported(f"no helper {number}")
    if row.name not in COMPILED:
        helper(row.name)
