"""u32: words of the packet under masks. Options: keys, a tuple of (value, mask, offset); classid; as dumped also ht,
gen_flags, terminal, or the divisor of a hash table.

Source:  net/sched/cls_u32.c (v6.18); tc/f_u32.c of iproute2 6.1.
Differs: on the kernel datapath only.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from tcbpf.control.args import LOCAL, Options, Quit, Words, c_number, matches
from tcbpf.control.attributes import attr, number, u32
from tcbpf.control.handles import format_handle
from tcbpf.control.objects import IN_HW, NOT_IN_HW, SKIP_HW, SKIP_SW, Action, Filter
from tcbpf.control.sheet import Sheet
from tcbpf.tc.kinds.command import Command
from tcbpf.tc.kinds.filter.kind import FilterKind, take_actions, take_classid
from tcbpf.uapi import tc as uapi

USAGE = "Usage: ... u32 match u32|u16|u8 VALUE MASK [ at OFFSET ] ... [ classid CLASSID ] [ action ACTION ]"
_SEL = struct.Struct("=BBBxHHhhI")  # tc_u32_sel: flags, offshift, nkeys, offmask, off, offoff, hoff, hmask


def parse(words: Words, command: Command) -> tuple[dict[str, object], tuple[Action, ...]]:
    """Take matches of 32, 16 or 8 bits at an offset of the network header, a class, and actions.

    Raises:  Quit.
    """
    options: dict[str, object] = {}
    keys: list[tuple[int, int, int]] = []
    actions: tuple[Action, ...] = ()
    while words:
        word = words.take()
        if matches(word, "match"):
            keys.append(_take_key(words))
        elif matches(word, "classid") or matches(word, "flowid"):
            options["classid"] = take_classid(words)
        elif matches(word, "action"):
            actions = take_actions(words, command)
        else:
            raise Quit(LOCAL, f'What is "{word}"?', USAGE)
    return {**options, "keys": tuple(keys)}, actions


def _take_key(words: Words) -> tuple[int, int, int]:
    """Take one match; return its value and mask as the word at a multiple of four has them, and that offset."""
    width = {"u32": 4, "u16": 2, "u8": 1}.get(words.next)
    if width is None:
        raise Quit(LOCAL, f'Illegal "match": "{words.next}"', "It is: match u32|u16|u8 VALUE MASK [ at OFFSET ]")
    words.take()
    top = (1 << 8 * width) - 1
    value, mask = (
        int(word, 0) if (c := c_number(word)) is not None and c <= top else _hex_mask(word, top)
        for word in (words.take(), words.take())
    )
    off = words.number('Illegal "at"', status=LOCAL) if words.accept("at") else 0
    if off % width:
        raise Quit(LOCAL, f'Illegal "match": an offset of {off} is no multiple of {width}')
    shift = 8 * (4 - width - off % 4)
    return (value & mask) << shift, mask << shift, off - off % 4


def _hex_mask(word: str, top: int) -> int:
    """Return a number in hexadecimal without its 0x, as masks often are written."""
    try:
        value = int(word, 16)
    except ValueError:
        value = -1
    if not 0 <= value <= top:
        raise Quit(LOCAL, f'Illegal "match": "{word}" is not a number that fits')
    return value


def show(sheet: Sheet, row: Filter, options: Options) -> None:
    """Put a hash table, or a key of one.

    Differs: several matches are one list in JSON, where tc repeats the key; -p does not name the fields of headers.
    """
    values: dict[str, Any] = row.options if isinstance(row.options, dict) else {}
    table, bucket, node = row.handle >> 20, row.handle >> 12 & 0xFF, row.handle & 0xFFF
    sheet.put("fh", f"{table:x}:" + (f"{bucket:x}" if bucket else "") + (f":{node:x}" if node else ""), "fh {} ")
    if node:
        sheet.put("order", node, "order {} ")
    if "divisor" in values:
        sheet.put("ht_divisor", values["divisor"], "ht divisor {} ")
        return
    sheet.put("key_ht", f"{int(values.get('ht', 0)) >> 20:x}", "key ht {} ")
    sheet.put("bkt", f"{bucket:x}", "bkt {} ")
    if values.get("classid"):
        sheet.put("flowid", format_handle(int(values["classid"])), ("*" if values.get("terminal") else "") + "flowid {} ")
    elif values.get("terminal"):
        sheet.say("terminal flowid ")
    for flag, word in ((SKIP_HW, "skip_hw"), (SKIP_SW, "skip_sw"), (IN_HW, "in_hw"), (NOT_IN_HW, "not_in_hw")):
        if int(values.get("gen_flags", 0)) & flag:
            sheet.put(word, True, f"{word} ")
    keys = values.get("keys", ())
    rows = [{"value": f"{value:x}", "mask": f"{mask:x}", "offmask": "", "off": off} for value, mask, off in keys]
    if rows:
        sheet.put("match", rows[0] if len(rows) == 1 else rows)
    for value, mask, off in keys:
        sheet.line()
        sheet.say(f"  match {value:08x}/{mask:08x} at {off}")


def pack(request: Filter) -> list[bytes]:
    """Return the selector with its keys, and the class."""
    options: Any = request.options
    keys = options.get("keys", ())
    ends = "classid" in options or request.actions
    sel = _SEL.pack(uapi.TC_U32_TERMINAL if ends else 0, 0, len(keys), 0, 0, 0, 0, 0)
    sel += b"".join(struct.pack(">II", mask, value) + struct.pack("=ii", off, 0) for value, mask, off in keys)
    rows = [u32(uapi.TCA_U32_CLASSID, int(options["classid"]))] if "classid" in options else []
    return [*rows, *([attr(uapi.TCA_U32_SEL, sel)] if keys else [])]


def read(rows: Mapping[int, bytes]) -> dict[str, object]:
    """Return the options of a dumped filter: a hash table's divisor, or a key's table, class and matches."""
    if not rows:
        return {}
    if uapi.TCA_U32_DIVISOR in rows:
        return {"divisor": number(rows[uapi.TCA_U32_DIVISOR])}
    options: dict[str, object] = {"ht": number(rows.get(uapi.TCA_U32_HASH))}
    if uapi.TCA_U32_CLASSID in rows:
        options["classid"] = number(rows[uapi.TCA_U32_CLASSID])
    if uapi.TCA_U32_FLAGS in rows:
        options["gen_flags"] = number(rows[uapi.TCA_U32_FLAGS])
    sel = rows.get(uapi.TCA_U32_SEL, b"")
    if len(sel) >= _SEL.size:
        flags, _, count, *_ = _SEL.unpack_from(sel)
        options["terminal"] = bool(flags & uapi.TC_U32_TERMINAL)
        places = range(_SEL.size, min(_SEL.size + count * 16, len(sel)), 16)
        options["keys"] = tuple(
            (value, mask, struct.unpack_from("=i", sel, at + 8)[0])
            for at in places
            for mask, value in (struct.unpack_from(">II", sel, at),)
        )
    return options


U32 = FilterKind("u32", parse, show, pack, read, uapi.TCA_U32_ACT)
