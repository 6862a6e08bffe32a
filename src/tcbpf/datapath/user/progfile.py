"""A program as a file: its bytecode, what it is called, and the maps it names by id.

What is in the file is proved again by whoever runs it: no verdict is read from a file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

from tcbpf.errors import InputError
from tcbpf.isa.insn import Insn, decode, encode
from tcbpf.obj.program import Func, HasSpec, Line, Program
from tcbpf.tables.opcodes import LD_IMM64, PSEUDO_MAP_FD, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE, PSEUDO_MAP_VALUE

FORMAT = "tcbpf program 1"


@dataclass(frozen=True)
class ProgRecord:
    """What the file of a loaded program holds.

    Units:   load_time nanoseconds of CLOCK_BOOTTIME; maps are ids, in the order of Program.maps.
    """

    id: int
    program: Program
    maps: tuple[int, ...]
    tag: bytes
    load_time: int
    uid: int
    insns_processed: int


def tag_of(program: Program) -> bytes:
    """Return the program's tag: SHA-256 of its instructions, what a map's descriptor would fill taken for zero.

    Source:  bpf_prog_calc_tag(), kernel/bpf/core.c (v6.18; SHA-1 before).
    """
    code, wide = list[Insn](), False
    for insn in program.insns:
        if wide:
            insn = insn._replace(imm=0)
            wide = False
        elif insn.code == LD_IMM64 and insn.src in (PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE):
            source = PSEUDO_MAP_FD if insn.src == PSEUDO_MAP_IDX else PSEUDO_MAP_VALUE
            insn, wide = insn._replace(src=source, imm=0), True
        code.append(insn)
    return hashlib.sha256(encode(code)).digest()[:8]


def write(fd: int, record: ProgRecord) -> None:
    """Write a program's file."""
    program = record.program
    text = json.dumps(
        {
            "format": FORMAT,
            "id": record.id,
            "maps": record.maps,
            "tag": record.tag.hex(),
            "load_time": record.load_time,
            "uid": record.uid,
            "insns_processed": record.insns_processed,
            "name": program.name,
            "type": program.type,
            "kfuncs": program.kfuncs,
            "license": program.license,
            "section": program.section,
            "attach_type": program.attach_type,
            "kernel_version": program.kernel_version,
            "classic": program.classic,
            "path": program.path,
            "insns": encode(program.insns).hex(),
            "btf": program.btf.raw.hex() if program.btf else "",
            "func_info": program.raw_func_info.hex(),
            "line_info": program.raw_line_info.hex(),
            "funcs": [[f.pc, f.name, f.type_id, f.is_global] for f in program.funcs],
            "lines": [[line.pc, line.file, line.line, line.column, line.text] for line in program.lines],
        }
    ).encode()
    at = 0
    while at < len(text):
        at += os.pwrite(fd, text[at:], at)


def read_head(fd: int) -> dict[str, Any]:
    """Return the fields of a program's file as they are written.

    Raises:  InputError when the file is none.
    """
    raw = os.pread(fd, os.fstat(fd).st_size, 0)
    try:
        found = json.loads(raw) if raw[:1] == b"{" else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError("is no program of the user datapath")
    return found


def read(fd: int, maps: tuple[HasSpec, ...], head: dict[str, Any]) -> ProgRecord:
    """Return what a program's file says, over live maps."""
    btf = None
    if head["btf"]:
        from tcbpf.obj.btf import parse

        btf = parse(bytes.fromhex(head["btf"]))
    program = Program(
        name=head["name"],
        type=head["type"],
        insns=decode(bytes.fromhex(head["insns"])),
        maps=maps,
        kfuncs=tuple(head["kfuncs"]),
        license=head["license"],
        section=head["section"],
        attach_type=head["attach_type"],
        btf=btf,
        kernel_version=head["kernel_version"],
        classic=head["classic"],
        path=head["path"],
        raw_func_info=bytes.fromhex(head["func_info"]),
        raw_line_info=bytes.fromhex(head["line_info"]),
        funcs=tuple(Func(*row) for row in head["funcs"]),
        lines=tuple(Line(*row) for row in head["lines"]),
    )
    return ProgRecord(
        head["id"],
        program,
        tuple(head["maps"]),
        bytes.fromhex(head["tag"]),
        head["load_time"],
        head["uid"],
        head["insns_processed"],
    )
