"""A program as a file: its bytecode, its name and licence, and the maps it names by id.

Whoever runs the program verifies it again: no verdict is read from a file. The file may be another process's, or damaged, so
each field is checked when it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from tcbpf.errors import InputError
from tcbpf.isa.insn import Insn, decode, encode
from tcbpf.obj.program import Func, HasSpec, Line, Program
from tcbpf.tables.opcodes import LD_IMM64, PSEUDO_MAP_FD, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE, PSEUDO_MAP_VALUE
from tcbpf.tables.progs import PROG_TYPES

if TYPE_CHECKING:
    from tcbpf.obj.btf import Btf

FORMAT = "tcbpf program 2"


@dataclass(frozen=True)
class ProgRecord:
    """A loaded program as its file has it.

    Units:   load_time nanoseconds of CLOCK_BOOTTIME; maps are ids, in the order of Program.maps.
    """

    id: int
    program: Program
    maps: tuple[int, ...]
    tag: bytes
    load_time: int
    uid: int
    insns_processed: int


class Form(NamedTuple):
    """A field's form in JSON. `read` raises ValueError or TypeError for anything else, as InputError does for damage."""

    write: Callable[[Any], object]
    read: Callable[[Any], Any]


def _exactly(type: type) -> Form:
    """Return the form of a JSON scalar; True is no int."""

    def read(value: Any) -> Any:
        if value.__class__ is not type:
            raise TypeError(value)
        return value

    return Form(lambda value: value, read)


_INT, _STR, _BOOL = map(_exactly, (int, str, bool))
_BYTES = Form(bytes.hex, bytes.fromhex)


def _each(form: Form) -> Form:
    """Return the form of a tuple of values of one form."""
    return Form(lambda values: [form.write(value) for value in values], lambda values: tuple(map(form.read, values)))


def _row(row: type) -> Form:
    """Return the form of a dataclass as a list of its fields."""
    forms = [FORMS[str(field.type)] for field in fields(row)]
    names = [field.name for field in fields(row)]
    return Form(
        lambda value: [form.write(getattr(value, name)) for form, name in zip(forms, names, strict=True)],
        lambda values: row(*(form.read(value) for form, value in zip(forms, values, strict=True))),
    )


def _read_btf(text: str) -> Btf | None:
    from tcbpf.obj.btf_parse import parse

    return parse(bytes.fromhex(text)) if text else None


FORMS: dict[str, Form] = {"int": _INT, "str": _STR, "bool": _BOOL, "bytes": _BYTES}
"""The form of each type that a field has, as the dataclasses spell it."""

FORMS |= {
    "tuple[int, ...]": _each(_INT),
    "tuple[str, ...]": _each(_STR),
    "tuple[Insn, ...]": Form(lambda insns: encode(insns).hex(), lambda text: decode(bytes.fromhex(text))),
    "tuple[Line, ...]": _each(_row(Line)),
    "tuple[Func, ...]": _each(_row(Func)),
    "Btf | None": Form(lambda btf: btf.raw.hex() if btf else "", _read_btf),
}
_OF_RECORD = {field.name: FORMS[str(field.type)] for field in fields(ProgRecord) if field.name != "program"}
_OF_PROGRAM = {field.name: FORMS[str(field.type)] for field in fields(Program) if field.name != "maps"}
_SCALARS = {name: form for name, form in (_OF_RECORD | _OF_PROGRAM).items() if form in (_INT, _STR, _BOOL)}


def tag_of(program: Program) -> bytes:
    """Return the program's tag: SHA-256 of its instructions, with zeros for map descriptors.

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
    of_record = {name: form.write(getattr(record, name)) for name, form in _OF_RECORD.items()}
    of_program = {name: form.write(getattr(record.program, name)) for name, form in _OF_PROGRAM.items()}
    text = json.dumps({"format": FORMAT, **of_record, **of_program}).encode()
    at = 0
    while at < len(text):
        at += os.pwrite(fd, text[at:], at)


def read_head(fd: int) -> dict[str, Any]:
    """Return the fields of a program's file: numbers, strings and `maps` checked, the rest as they are written.

    Raises:  InputError when it is not a program's file.
    """
    raw = os.pread(fd, os.fstat(fd).st_size, 0)
    try:
        found = json.loads(raw) if raw[:1] == b"{" else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError("not a user-datapath program file")
    _read({**_SCALARS, "maps": _OF_RECORD["maps"], "tag": _OF_RECORD["tag"]}, found)
    if found["type"] not in PROG_TYPES:
        raise InputError("a damaged program file: type")
    return found


def read(maps: tuple[HasSpec, ...], head: Mapping[str, Any]) -> ProgRecord:
    """Return the program of a file, over live maps.

    Raises:  InputError for a damaged file.
    """
    program = Program(maps=maps, **_read(_OF_PROGRAM, head))
    return ProgRecord(program=program, **_read(_OF_RECORD, head))


def _read(forms: Mapping[str, Form], head: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of these forms.

    Raises:  InputError for one that is missing, or of another form.
    """
    found = {}
    for name, form in forms.items():
        try:
            found[name] = form.read(head[name])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"a damaged program file: {name}") from None
    return found
