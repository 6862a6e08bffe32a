"""Programs of bpf filters and actions: their netlink attributes, and their listing.

Source:  tc/f_bpf.c, tc/m_bpf.c and lib/bpf_legacy.c of iproute2 6.1.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

from tcbpf.cbpf.insn import Classic
from tcbpf.cbpf.rules import check as check_classic
from tcbpf.control.args import Options
from tcbpf.control.objects import Bpf
from tcbpf.control.sheet import Sheet
from tcbpf.errors import FilterError, TcError

Bytecode = tuple[tuple[int, int, int, int], ...]
_INSN = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k


def check_bytecode(rows: Sequence[Sequence[int]], what: str) -> None:
    """Check that the kernel would load a classic program, if there is one.

    Raises:  TcError with EINVAL.
    """
    try:
        if rows:
            check_classic([Classic(*row) for row in rows])
    except FilterError:
        raise TcError(errno.EINVAL, what) from None


def pack_bytecode(code: Bytecode) -> bytes:
    """Return classic bytecode as an array of struct sock_filter."""
    return b"".join(_INSN.pack(*row) for row in code)


def read_bytecode(raw: bytes) -> Bytecode:
    """Return the classic bytecode of an array of struct sock_filter."""
    return tuple(_INSN.iter_unpack(raw))


def show_bytecode(sheet: Sheet, code: Bytecode) -> None:
    """Put classic bytecode as the command line takes it."""
    with sheet.object("bytecode"):
        sheet.put("length", len(code), "bytecode '{},")
        with sheet.list("insns"):
            for i, insn in enumerate(code):
                with sheet.object():
                    for key, value in zip(("code", "jt", "jf", "k"), insn, strict=True):
                        sheet.put(key, value)
                sheet.say("{} {} {} {}".format(*insn) + ("'" if i == len(code) - 1 else ","))


def show_program(sheet: Sheet, bpf: Bpf, options: Options) -> None:
    """Put what is known of a loaded program."""
    with sheet.object("prog"):
        sheet.put("id", bpf.id, "id {} ")
        if bpf.prog_name:
            sheet.put("name", bpf.prog_name, "name {} ")
        sheet.put("tag", bpf.tag.hex(), "tag {} ")
        sheet.put("jited", int(bpf.jited), "jited " if bpf.jited else "")
        if options.details:
            if bpf.load_time:
                sheet.put("load_time", bpf.load_time, "load_time {} ")
                sheet.put("created_by_uid", bpf.uid, "created_by_uid {} ")
            if bpf.btf_id:
                sheet.put("btf_id", bpf.btf_id, "btf_id {} ")
