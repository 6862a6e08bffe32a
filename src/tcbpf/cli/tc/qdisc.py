"""`tc qdisc`: the grammar, and what each kind takes."""

from __future__ import annotations

import sys
from typing import Any

from tcbpf.cli.tc import show as tc_show
from tcbpf.cli.tc.request import Opener, apply, block_number, choose, require_device, show
from tcbpf.control.handles import parse_classid, parse_qdisc_handle
from tcbpf.control.objects import PRIOMAP, TC_H_CLSACT, TC_H_INGRESS, TC_H_ROOT, Qdisc
from tcbpf.control.request import Op
from tcbpf.control.units import read_size
from tcbpf.control.words import LOCAL, USAGE, Options, Quit, Words, absent, c_number, duplicate, matches, parsed

QDISC_USAGE = """\
Usage: tc qdisc { add | del | replace | change | show } [ dev STRING ]
          [ handle QHANDLE ] [ root | ingress | clsact | parent CLASSID ]
          [ ingress_block INDEX ] [ egress_block INDEX ]
          [ QDISC_KIND [ its options ] ]
QDISC_KIND := clsact | ingress | htb | pfifo | bfifo | ...
"""
KIND_USAGE = {
    "clsact": "Usage: ... clsact",
    "ingress": "Usage: ... ingress",
    "htb": "Usage: ... qdisc add ... htb [ default MINOR ] [ r2q N ] [ direct_qlen PACKETS ]",
    "prio": "Usage: ... prio [ bands NUMBER ] [ priomap P1 P2 ... P16 ]",
    "pfifo": "Usage: ... pfifo [ limit NUMBER ]",
    "bfifo": "Usage: ... bfifo [ limit NUMBER ]",
    "pfifo_head_drop": "Usage: ... pfifo_head_drop [ limit NUMBER ]",
}

FIFOS = ("pfifo", "bfifo", "pfifo_head_drop")


def qdisc(opener: Opener, words: Words, options: Options) -> int:
    """Run one `tc qdisc` command."""
    op = choose(words, "qdisc", QDISC_USAGE)
    if op is None:
        return 0
    if op is Op.SHOW:
        return qdisc_show(opener, words, options)
    dev, kind, handle, parent, values = "", "", 0, 0, {}
    blocks = {"ingress": 0, "egress": 0}
    while words:
        word = words.take()
        if word == "dev":
            dev, given = words.take(), dev
            if given:
                duplicate("dev", dev)
        elif word == "handle":
            if handle:
                duplicate("handle", words.next)
            handle = parsed(parse_qdisc_handle, words.take(), "invalid qdisc ID")
        elif word in ("root", "clsact", "ingress"):
            if parent:
                raise Quit(
                    USAGE,
                    f'Error: "{word}" is a duplicate parent ID' if word != "root" else 'Error: "root" is duplicate parent ID',
                )
            if word == "root":
                parent = TC_H_ROOT
                continue
            kind, parent, handle = word, TC_H_CLSACT if word == "clsact" else TC_H_INGRESS, TC_H_INGRESS & 0xFFFF0000
            values = qdisc_options(kind, words)
        elif word == "parent":
            if parent:
                duplicate("parent", words.next)
            parent = parsed(parse_classid, words.take(), "invalid parent ID")
        elif matches(word, "estimator") or matches(word, "stab"):
            absent(word)
        elif hook := next((hook for hook in blocks if matches(word, f"{hook}_block")), ""):
            blocks[hook] = block_number(words, f"invalid {hook} block index value")
        elif matches(word, "help"):
            sys.stderr.write(QDISC_USAGE)
            return 0
        else:
            kind = word
            values = qdisc_options(kind, words)
    require_device(dp := opener(), dev)
    apply(
        dp,
        op,
        Qdisc(
            dev,
            kind,
            handle=handle,
            parent=parent,
            options=values,
            ingress_block=blocks["ingress"],
            egress_block=blocks["egress"],
        ),
    )
    return 0


def qdisc_options(kind: str, words: Words) -> dict[str, Any]:
    """Take what a qdisc kind takes.

    Raises:  Quit for anything else, with what would be right.
    """
    values: dict[str, Any] = {}
    if kind not in KIND_USAGE and words:
        raise Quit(LOCAL, f'Unknown qdisc "{kind}", hence option "{words.next}" is unparsable')
    usage = KIND_USAGE.get(kind, "")
    while words:
        word = words.take()
        if kind == "htb" and matches(word, "default"):
            values["default"] = _hex(words, "default", usage)
        elif kind == "htb" and matches(word, "r2q"):
            values["r2q"] = _number(words, "r2q", usage)
        elif kind == "htb" and word == "direct_qlen":
            values["direct_qlen"] = _number(words, "direct_qlen", usage)
        elif kind == "prio" and word == "bands":
            values["bands"] = words.number('Illegal "bands"', status=LOCAL)
        elif kind == "prio" and word == "priomap":
            values["priomap"] = _priomap(words, int(values.get("bands", 3)))
        elif kind in FIFOS and word == "limit":
            word = words.take()
            values["limit"] = read_size(word)
            if values["limit"] is None:
                raise Quit(LOCAL, f'{kind}: Illegal value for "limit": "{word}"')
        elif kind in (*FIFOS, "prio") and word == "help":
            raise Quit(LOCAL, usage)
        else:
            raise Quit(LOCAL, f'{kind}: unknown parameter "{word}"' if kind in FIFOS else f'What is "{word}"?', usage)
    return values


def qdisc_show(opener: Opener, words: Words, options: Options) -> int:
    """Run `tc qdisc show`."""
    dev, parent, handle = "", 0, 0
    while words:
        word = words.take()
        if word == "dev":
            dev = words.take()
        elif word in ("root", "ingress", "clsact"):
            parent = TC_H_ROOT if word == "root" else TC_H_INGRESS
        elif matches(word, "parent"):
            parent = parsed(parse_classid, words.take(), "invalid parent ID")
        elif matches(word, "handle"):
            handle = parsed(parse_qdisc_handle, words.take(), "invalid handle ID")
        elif matches(word, "invisible"):
            continue
        elif matches(word, "help"):
            sys.stderr.write(QDISC_USAGE)
            return 0
        else:
            raise Quit(USAGE, f'What is "{word}"? Try "tc qdisc help".')
    require_device(dp := opener(), dev)
    rows = [row for row in apply(dp, Op.SHOW, Qdisc(dev, "", parent=0)) if isinstance(row, Qdisc)]
    rows = [row for row in rows if parent in (0, row.parent) and handle in (0, row.handle)]
    return show(rows, tc_show.qdisc, options, tc_show.Selection(dev=dev))


def _priomap(words: Words, bands: int) -> tuple[int, ...]:
    """Take the bands of the 16 priorities; those that are not said keep their defaults."""
    taken = list(PRIOMAP)
    for place in range(len(taken)):
        if not words:
            break
        band = c_number(words.next)
        if band is None or band > 0xFF:
            raise Quit(LOCAL, 'Illegal "priomap" element')
        if band >= bands:
            raise Quit(LOCAL, '"priomap" element is out of bands')
        words.take()
        taken[place] = band
    return tuple(taken)


def _hex(words: Words, name: str, usage: str) -> int:
    """Take a number in hexadecimal."""
    word = words.take()
    try:
        return int(word, 16)
    except ValueError:
        raise Quit(LOCAL, f'Illegal "{name}"', usage) from None


def _number(words: Words, name: str, usage: str) -> int:
    """Take a number, or refuse it with the usage."""
    value = c_number(words.take())
    if value is None or value > 0xFFFFFFFF:
        raise Quit(LOCAL, f'Illegal "{name}"', usage)
    return value
