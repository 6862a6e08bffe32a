"""Prepare a program for one-shot runs: verify and compile it. A program that needs a home cannot be prepared."""

from __future__ import annotations

from dataclasses import replace

from tcbpf.datapath.capture.prepared import Prepared
from tcbpf.native.library import helpers
from tcbpf.native.mapmemory import MapTemplate
from tcbpf.native.runtime import MapFile
from tcbpf.obj.program import MapSpec, Program
from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.insns import Kind, op_of
from tcbpf.tables.maps import having
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.verifier import verify
from tcbpf.vm.engine import COMPILED, Options, unbounded
from tcbpf.vm.jit.jit import Code, shape_of

PRINTING = frozenset(row.name for row in HELPERS if row.prints)


def build(program: Program, notes: tuple[str, ...] = ()) -> Prepared | None:
    """Prepare a program over map specifications; None when it needs a home, or a helper that is not here.

    Raises:  VerifierError; MapError.
    """
    specs = [whole(entry.spec) for entry in program.maps]
    if PROG_TYPES[program.type].context != "skb" or not {spec.type for spec in specs} <= having(lambda row: row.alone):
        return None
    if not called(program) <= helpers().keys() - PRINTING | COMPILED:
        return None
    verified = verify(replace(program, maps=tuple(entry.spec for entry in program.maps)))
    maps: list[MapFile] = []
    try:
        maps += map(MapFile.create, specs)
        loop = Code(verified, [shape_of(made) for made in maps], Options()).image("loop")
        templates = tuple(MapTemplate.of(made, made.spec.name) for made in maps)
    finally:
        for made in maps:
            made.close()
    writes, long = verified.writes_packet, unbounded(verified)
    return Prepared(program.name, program.type, program.classic, writes, templates, loop, notes, long)


def whole(spec: MapSpec) -> MapSpec:
    """Return a map's specification with all of its contents."""
    return spec if spec.contents is None else replace(spec, contents=spec.contents.ljust(spec.value_size, b"\0"))


def called(program: Program) -> set[str]:
    """Return the helpers that a program calls, dead code included; "" stands for any other call."""
    ops = [(insn, op_of(insn.code, insn.src, insn.off, insn.imm)) for insn in program.insns]
    ids = {insn.imm for insn, op in ops if op is not None and op.kind is Kind.CALL}
    names = {row.name if (row := HELPERS.at(id)) is not None else "" for id in ids}
    return names | {"" for _, op in ops if op is not None and op.kind is Kind.CALL_KFUNC}
