"""bpf: a program decides. Options: as the fields of Bpf.

Source:  net/sched/act_bpf.c (v6.18); tc/m_bpf.c of iproute2 6.1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tcbpf.control.args import USAGE, Options, Quit, Words, duplicate
from tcbpf.control.attributes import attr, number, string, text, u16, u32
from tcbpf.control.objects import Action, Bpf
from tcbpf.control.sheet import Sheet
from tcbpf.tc.kinds.action.ending import show_control, show_index, take_control, take_index
from tcbpf.tc.kinds.action.kind import ActionKind, Values, integer
from tcbpf.tc.kinds.command import Command, Devices, Runtime
from tcbpf.tc.kinds.program import check_bytecode, pack_bytecode, read_bytecode, show_bytecode, show_program
from tcbpf.uapi import tc as uapi

HELP = """\
Usage: ... bpf object-file FILE [ section NAME ] | object-pinned FILE | bytecode CODE | bytecode-file FILE
           [ CONTROL ] [ index INDEX ]"""


def parse(words: Words, command: Command) -> Action:
    """Take where the program is, and load it when the rest is read.

    Raises:  Quit.
    """
    load = None
    words.require()
    while words:
        if words.next == "help":
            raise Quit(USAGE, HELP)
        if words.next == "index":
            break
        run = words.accept("run", prefix=True)
        if run and load is not None:
            duplicate("run", words.next)
        if load is not None:
            break
        load = command.program(words, "sched_act")
    control, index = take_control(words), take_index(words)
    options: Values = {}
    if load is not None:
        ready = load()
        options = {"name": ready.name, "prog": ready.prog} if ready.prog is not None else {"bytecode": ready.bytecode}
    return Action("bpf", control=control, index=index, options=options)


def show(sheet: Sheet, row: Action, options: Options) -> None:
    """Put the program."""
    values: Values = row.options
    if values.get("name"):
        sheet.put("bpf_name", values["name"], "{} ")
    if values.get("bytecode"):
        show_bytecode(sheet, values["bytecode"])
        sheet.say(" ")
    if values.get("id"):
        known = {key: values[key] for key in ("prog_name", "load_time", "uid", "btf_id", "jited") if key in values}
        show_program(sheet, Bpf(id=values["id"], tag=values.get("tag", b""), **known), options)
    show_control(sheet, row.control, "default-action ")
    show_index(sheet, row.index)


def pack(action: Action, gen: bytes, devices: Devices) -> list[bytes]:
    """Return the parameters, and program or bytecode."""
    prog: Any = action.options.get("prog")
    bytecode, rows = action.options.get("bytecode"), [attr(uapi.TCA_ACT_BPF_PARMS, gen)]
    if prog is not None:
        name = str(action.options.get("name", ""))
        rows += [u32(uapi.TCA_ACT_BPF_FD, prog.fileno()), text(uapi.TCA_ACT_BPF_NAME, name)]
    elif isinstance(bytecode, tuple):
        rows += [u16(uapi.TCA_ACT_BPF_OPS_LEN, len(bytecode)), attr(uapi.TCA_ACT_BPF_OPS, pack_bytecode(bytecode))]
    return rows


def read(rows: Mapping[int, bytes], rest: bytes, devices: Devices) -> Values:
    """Return the program."""
    return {
        "name": string(rows.get(uapi.TCA_ACT_BPF_NAME)),
        "id": number(rows.get(uapi.TCA_ACT_BPF_ID)),
        "tag": rows.get(uapi.TCA_ACT_BPF_TAG, b""),
        "bytecode": read_bytecode(rows.get(uapi.TCA_ACT_BPF_OPS, b"")),
    }


def check(action: Action, devices: Collection[str], what: str) -> Values:
    """Return the options.

    Raises:  TcError for bytecode that the kernel would not load.
    """
    bytecode: Any = action.options.get("bytecode", ())
    check_bytecode(bytecode, what)
    return action.options


def build(made: Any, action: Action, runtime: Runtime) -> None:
    """Fill in the program."""
    bytecode: Any = action.options.get("bytecode", ())
    made.prog = runtime.program(Bpf(id=integer(action.options, "id"), bytecode=tuple(bytecode)))


BPF = ActionKind("bpf", parse, show, pack, read, check, build)
