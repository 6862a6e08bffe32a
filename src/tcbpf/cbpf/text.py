"""The text forms of a compiled classic filter, read and written.

decimal    4,40 0 0 12,21 0 1 2048,6 0 0 65535,6 0 0 0,      bpf_asm, tc; newlines for commas: tcpdump -ddd
c          { 0x28,  0,  0, 0x0000000c },                     bpf_asm -c; tcpdump -dd
"""

from __future__ import annotations

import re

from tcbpf.cbpf import carray
from tcbpf.cbpf.insn import Classic, Filter
from tcbpf.errors import InputError
from tcbpf.tables.cbpf import MAX_INSNS, U32

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|#[^\n]*", re.DOTALL)


def to_decimal(program: Filter) -> str:
    """Return bpf_asm's default output, without the newline."""
    return f"{len(program)}," + "".join(f"{i.code} {i.jt} {i.jf} {i.k}," for i in program)


def to_lines(program: Filter) -> str:
    """Return what tcpdump -ddd prints."""
    return "".join([f"{len(program)}\n", *(f"{i.code} {i.jt} {i.jf} {i.k}\n" for i in program)])


def to_c(program: Filter) -> str:
    """Return what bpf_asm -c prints."""
    return "".join(f"{{ {alternate(i.code, 4)}, {i.jt:2}, {i.jf:2}, {alternate(i.k, 10)} }},\n" for i in program)


def alternate(value: int, width: int) -> str:
    """Return `value` as printf's %#0{width}x prints it: a zero has no 0x."""
    return f"{value:#0{width}x}" if value else "0" * width


def to_dd(program: Filter) -> str:
    """Return what tcpdump -dd prints."""
    return "".join(f"{{ {i.code:#x}, {i.jt}, {i.jf}, {i.k:#010x} }},\n" for i in program)


def parse(text: str, *, path: str = "<bytecode>") -> Filter:
    """Return the program of any of the forms above, or of C (see carray.py); C comments and # comments are skipped.

    Raises:  InputError, in tc's words when the count does not match; it names an instruction that is not four numbers.
    """
    text = _COMMENT.sub(" ", text)
    if not carray.is_array(text):
        return _counted([part.strip() for part in text.replace("\n", ",").split(",")], path)
    program = tuple(_insn(n, row, path) for n, row in enumerate(carray.rows(text, path)))
    if not program:
        raise InputError("no { code, jt, jf, k } in it", where=path)
    return program


def is_bytecode(text: str) -> bool:
    """Tell whether `text` is one of the forms that parse() reads, rather than a program's source."""
    text = re.sub(r";[^\n]*", "", _COMMENT.sub(" ", text)).lstrip()  # bpf_asm's comments may hold anything
    return text[:1].isdigit() or carray.is_array(text)


def _counted(parts: list[str], path: str) -> Filter:
    """Return the program of an instruction count and that many instructions.

    Source:  bpf_ops_parse(), iproute2 lib/bpf_legacy.c, for what is refused.
    """
    parts = [part for part in parts if part]
    if not parts or not parts[0].isdigit():
        raise InputError("the first number is no count of instructions", where=path, hint="as bpf_asm prints: 3,40 0 0 12,...")
    count, rows = int(parts[0]), parts[1:]
    if not 0 < count <= MAX_INSNS:
        raise InputError(f"{count} instructions", where=path, hint=f"1 to {MAX_INSNS}")
    if len(rows) > count:
        raise InputError(
            "Real program length exceeds encoded length parameter!", where=path, hint=f"{count} said, {len(rows)} there"
        )
    if len(rows) < count:
        raise InputError(
            "Parsed program length is less than encoded length parameter!", where=path, hint=f"{count} said, {len(rows)} there"
        )
    return tuple(_insn(n, _numbers(n, row, path), path) for n, row in enumerate(rows))


def _numbers(n: int, row: str, path: str) -> tuple[int, int, int, int]:
    """Return the four numbers of a line; a leading zero does not mean octal, as in sscanf("%d")."""
    try:
        code, jt, jf, k = (int(word, 0 if word[:2].lower() == "0x" else 10) for word in row.split())
    except ValueError:
        raise InputError(f"Error at instruction {n}!", where=path, hint="four numbers: code jt jf k") from None
    return code, jt, jf, k


def _insn(n: int, fields: tuple[int, int, int, int], path: str) -> Classic:
    """Return the instruction with these fields."""
    code, jt, jf, k = fields
    if not (0 <= code <= 0xFFFF and 0 <= jt <= 255 and 0 <= jf <= 255 and -0x80000000 <= k <= U32):
        raise InputError(f"Error at instruction {n}!", where=path, hint="code has 16 bits, jt and jf have 8, k has 32")
    return Classic(code, jt, jf, k & U32)
