"""bpf: a program, or classic bytecode, classifies. Options: Bpf.

Source:  net/sched/cls_bpf.c (v6.18); tc/f_bpf.c of iproute2 6.1.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tcbpf.control.args import LOCAL, Options, Quit, Words, absent, duplicate, matches
from tcbpf.control.attributes import attr, number, string, text, u16, u32
from tcbpf.control.handles import format_handle
from tcbpf.control.objects import IN_HW, NOT_IN_HW, SKIP_HW, SKIP_SW, Action, Bpf, Filter
from tcbpf.control.sheet import Sheet
from tcbpf.errors import InputError, TcError
from tcbpf.tc.kinds.command import Command, Ready, Runtime
from tcbpf.tc.kinds.filter.kind import FilterKind, take_actions, take_classid
from tcbpf.tc.kinds.program import check_bytecode, pack_bytecode, read_bytecode, show_bytecode, show_program
from tcbpf.uapi import tc as uapi

USAGE = """\
Usage: ... bpf SOURCE [ direct-action ] [ classid CLASSID ] [ action ACTION ] [ skip_hw | skip_sw ]
SOURCE := object-file FILE [ section NAME ] [ program NAME ] [ export UDS ] [ verbose ] |
          object-pinned FILE | bytecode 's,c t f k,c t f k,...' | bytecode-file FILE"""


def parse(words: Words, command: Command) -> tuple[Bpf, tuple[Action, ...]]:
    """Take the options in any order; the program is loaded last, after the actions' own.

    Raises:  Quit.
    """
    load, classid, direct, flags = None, 0, False, 0
    actions: tuple[Action, ...] = ()
    while words:
        word = words.next
        if matches(word, "run"):
            words.take()
            if load is not None:
                duplicate("run", words.next)
            load = command.program(words)
        elif matches(word, "classid") or matches(word, "flowid"):
            words.take()
            classid = take_classid(words)
        elif matches(word, "direct-action") or matches(word, "da"):
            words.take()
            direct = True
        elif matches(word, "action"):
            words.take()
            actions = take_actions(words, command)
        elif matches(word, "skip_hw") or word == "skip_sw":
            flags |= SKIP_SW if words.take() == "skip_sw" else SKIP_HW
        elif matches(word, "police"):
            absent(word)
        elif matches(word, "help"):
            raise Quit(LOCAL, USAGE)
        elif load is None:
            load = command.program(words)
        else:
            raise Quit(LOCAL, f'What is "{word}"?', USAGE)
    ready = load() if load is not None else Ready()
    options = Bpf(ready.prog, ready.bytecode, ready.name, classid=classid, direct_action=direct, gen_flags=flags)
    return options, actions


def show(sheet: Sheet, row: Filter, options: Options) -> None:
    """Put handle, class, program and flags."""
    bpf = options_of(row)
    sheet.put("handle", f"{row.handle:#x}", "handle {} ")
    if bpf.classid:
        sheet.put("flowid", format_handle(bpf.classid), "flowid {} ")
    if bpf.name:
        sheet.put("bpf_name", bpf.name, "{} ")
    if bpf.direct_action:
        sheet.put("direct-action", True, "direct-action ")
    for flag, word in ((SKIP_HW, "skip_hw"), (SKIP_SW, "skip_sw"), (IN_HW, "in_hw")):
        if bpf.gen_flags & flag:
            sheet.put(word, True, f"{word} ")
    if bpf.gen_flags & (NOT_IN_HW | IN_HW) == NOT_IN_HW:
        sheet.put("not_in_hw", True, "not_in_hw ")
    if bpf.bytecode:
        show_bytecode(sheet, bpf.bytecode)
    if bpf.id:
        show_program(sheet, bpf, options)
    elif bpf.tag:
        sheet.put("tag", bpf.tag.hex(), "tag {} ")


def options_of(filter: Filter) -> Bpf:
    """Return the options of a bpf filter.

    Raises:  InputError for those of another kind.
    """
    if not isinstance(filter.options, Bpf):
        raise InputError("a bpf filter takes Bpf options")
    return filter.options


def pack(request: Filter) -> list[bytes]:
    """Return program or bytecode, class and flags.

    Raises:  InputError.
    """
    options, rows = options_of(request), list[bytes]()
    prog: Any = options.prog
    if prog is not None:
        rows += [u32(uapi.TCA_BPF_FD, prog.fileno()), text(uapi.TCA_BPF_NAME, options.name)]
    elif options.bytecode:
        code = pack_bytecode(options.bytecode)
        rows += [u16(uapi.TCA_BPF_OPS_LEN, len(options.bytecode)), attr(uapi.TCA_BPF_OPS, code)]
    if options.classid:
        rows.append(u32(uapi.TCA_BPF_CLASSID, options.classid))
    if options.direct_action:
        rows.append(u32(uapi.TCA_BPF_FLAGS, uapi.TCA_BPF_FLAG_ACT_DIRECT))
    if options.gen_flags & (SKIP_HW | SKIP_SW):
        rows.append(u32(uapi.TCA_BPF_FLAGS_GEN, options.gen_flags & (SKIP_HW | SKIP_SW)))
    return rows


def read(rows: Mapping[int, bytes]) -> Bpf:
    """Return the options of a dumped filter."""
    return Bpf(
        bytecode=read_bytecode(rows.get(uapi.TCA_BPF_OPS, b"")),
        name=string(rows.get(uapi.TCA_BPF_NAME)),
        classid=number(rows.get(uapi.TCA_BPF_CLASSID)),
        direct_action=bool(number(rows.get(uapi.TCA_BPF_FLAGS)) & uapi.TCA_BPF_FLAG_ACT_DIRECT),
        gen_flags=number(rows.get(uapi.TCA_BPF_FLAGS_GEN)),
        id=number(rows.get(uapi.TCA_BPF_ID)),
        tag=rows.get(uapi.TCA_BPF_TAG, b""),
    )


def check(request: Filter, what: str) -> Bpf:
    """Return the options as they are kept.

    Raises:  TcError for what cls_bpf refuses; InputError for options of another kind.
    """
    options = options_of(request)
    flags = options.gen_flags & (SKIP_HW | SKIP_SW)
    if bool(options.bytecode) == bool(options.id) or flags == SKIP_HW | SKIP_SW:
        raise TcError(errno.EINVAL, what)
    check_bytecode(options.bytecode, what)
    if flags & SKIP_SW:
        raise TcError(errno.EOPNOTSUPP, what)  # no device here offloads
    return replace(options, prog=None, gen_flags=flags | NOT_IN_HW)


def build(made: Any, filter: Filter, runtime: Runtime) -> None:
    """Fill in class, program and flags, which have the UAPI's numbers."""
    options = options_of(filter)
    made.classid, made.prog = options.classid, runtime.program(options)
    made.flags = uapi.TCA_BPF_FLAG_ACT_DIRECT * options.direct_action | options.gen_flags & SKIP_SW


BPF = FilterKind("bpf", parse, show, pack, read, uapi.TCA_BPF_ACT, check, build)
