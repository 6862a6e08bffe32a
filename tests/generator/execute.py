"""Run one program on our engines and on the live kernel, with maps of its own for each, and tell what came of it."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tcbpf.datapath.base import Datapath, Prog
from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.user import User
from tcbpf.errors import VerifierError
from tcbpf.maps.map import Map
from tcbpf.obj.program import Program
from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.insns import Kind, op_of
from tcbpf.tables.opcodes import JMP
from tcbpf.tables.skb import SKB, field_at
from tcbpf.verifier import verify
from tcbpf.verifier.verified import Region
from tcbpf.vm.executable import Options

SAME_FIELDS = frozenset(
    (
        "len",
        "mark",
        "priority",
        "data",
        "data_end",
        "data_meta",
        "tc_classid",
        "tc_index",
        "queue_mapping",
        *(f"cb[{i}]" for i in range(5)),
    )
)
"""The context fields that hold the same in a run on any datapath."""

SAME_HELPERS = frozenset(
    (
        "map_lookup_elem",
        "map_update_elem",
        "map_delete_elem",
        "map_push_elem",
        "map_pop_elem",
        "map_peek_elem",
        "skb_load_bytes",
        "skb_load_bytes_relative",
        "skb_store_bytes",
        "skb_pull_data",
        "skb_cgroup_classid",
        "csum_diff",
        "l3_csum_replace",
        "l4_csum_replace",
        "csum_update",
        "csum_level",
        "loop",
        "tail_call",
        "strncmp",
        "strtol",
        "strtoul",
        "ringbuf_reserve",
        "ringbuf_submit",
        "ringbuf_discard",
        "ringbuf_output",
        "spin_lock",
        "spin_unlock",
        "set_hash_invalid",
        "get_route_realm",
        "get_cgroup_classid",
    )
)
"""The helpers that give the same on any datapath."""

SAME_MAPS = frozenset(("array", "hash", "queue", "stack", "prog_array", "ringbuf", "percpu_array", "lru_hash"))
COMPARED_MAPS = frozenset(("array", "hash", "lru_hash"))


@dataclass(frozen=True)
class Outcome:
    """What a run left: r0, the packet, some context fields, and the elements of the maps."""

    verdict: int
    packet: bytes
    ctx: tuple[int, ...]
    maps: tuple[tuple[tuple[bytes, bytes], ...], ...]


def is_short(program: Program) -> bool:
    """Tell whether a run takes few steps: without the loops whose number of rounds the verifier need not follow."""
    called = {insn.imm for insn in program.insns if insn.code == 0x85 and not insn.src}
    return not program.kfuncs and HELPERS["loop"].id not in called and not any(insn.code == 0xE5 for insn in program.insns)


def is_reproducible(program: Program) -> bool:
    """Tell whether a program that is accepted must give the same wherever it runs.

    That it neither reads what was never written nor looks at an address is what the rules without CAP_PERFMON guard.
    """
    if program.type not in ("sched_cls", "sched_act") or program.kfuncs:
        return False
    if any(
        handle.spec.type not in SAME_MAPS or (handle.spec.btf is not None and handle.spec.name != "locked")
        for handle in program.maps
    ):
        return False
    for insn in program.insns:
        if insn.code == JMP | 0x80 and not insn.src:
            row = HELPERS.at(insn.imm)
            if row is None or row.name not in SAME_HELPERS:
                return False
        elif insn.code & 7 == 3 and insn.code & 0xE0 == 0xC0 and insn.imm & 0x100:
            return False
    try:
        verified = verify(program, perfmon=False)
    except VerifierError:
        return False
    return all(_same_field(program, pc) for pc, aux in enumerate(verified.aux) if aux.region is Region.CTX and aux.seen)


def _same_field(program: Program, pc: int) -> bool:
    insn = program.insns[pc]
    op = op_of(insn.code, insn.src, insn.off, insn.imm)
    assert op is not None
    if op.kind is not Kind.LOAD:
        return True
    field = field_at(SKB, insn.off)  # through the context as it came: it is never moved
    return field is not None and field.name in SAME_FIELDS


class Engines:
    """The interpreter, the machine code and, where it answers, the live kernel."""

    def __init__(self, home: Path, *, kernel: bool) -> None:
        self._stack = ExitStack()
        self.all: dict[str, Datapath] = {
            name: self._stack.enter_context(User(str(home / name), options=Options(engine=name, cache=False)))
            for name in ("interp", "jit")
        }
        if kernel:
            self.all["kernel"] = self._stack.enter_context(Kernel())

    def run(self, program: Program, packets: list[bytes]) -> dict[str, list[Outcome]]:
        """Return what each engine makes of packets one after the other, over the same maps.

        Raises:  NotSupported where the user datapath lacks something; InternalError when the interpreter sees a fault.
        """
        found: dict[str, list[Outcome]] = {}
        for name, datapath in self.all.items():
            prog = datapath.prog_load(program)
            try:
                found[name] = [self._outcome(prog, packet) for packet in packets]
            finally:
                for used in prog.maps:
                    used.raw.close()
                prog.close()
        return found

    def _outcome(self, prog: Prog, packet: bytes) -> Outcome:
        run = prog.run(packet)
        ctx = (run.ctx["mark"], run.ctx["priority"], *run.ctx["cb"])
        maps = tuple(tuple(sorted(_elements(used))) for used in prog.maps if used.spec.type in COMPARED_MAPS)
        return Outcome(run.verdict, run.packet, ctx, maps)

    def close(self) -> None:
        """Let go."""
        self._stack.close()


def _elements(used: Map) -> Iterator[tuple[bytes, bytes]]:
    raw = used.raw
    key = raw.next_key(None)
    while key is not None:
        yield key, raw.lookup(key) or b""
        key = raw.next_key(key)


def packets(seed: int) -> list[bytes]:
    """Return a few packets of a seed, which the kernel's test run takes: at least as long as Ethernet and IPv6."""
    rng = random.Random(seed)
    found = []
    for size in (54, rng.choice((60, 64, 90)), rng.randrange(64, 300)):
        ether = bytes(range(12)) + struct.pack(">H", rng.choice((0x0800, 0x0800, 0x86DD, 0x1234)))
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 1, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
        found.append((ether + ip + rng.randbytes(300))[:size])
    return found
