"""`tc qdisc`: its grammar; tc/kinds/qdisc has the options of each kind."""

from __future__ import annotations

import sys
from typing import Any

from tcbpf.cli.tc import show as tc_show
from tcbpf.cli.tc.request import Opener, apply, block_number, choose, require_device, show
from tcbpf.control.args import LOCAL, USAGE, Options, Quit, Words, absent, duplicate, matches, parsed
from tcbpf.control.handles import parse_classid, parse_qdisc_handle
from tcbpf.control.objects import Qdisc
from tcbpf.control.request import Op
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.uapi.tc import TC_H_CLSACT, TC_H_INGRESS, TC_H_ROOT

QDISC_USAGE = """\
Usage: tc qdisc { add | del | replace | change | show } [ dev STRING ]
          [ handle QHANDLE ] [ root | ingress | clsact | parent CLASSID ]
          [ ingress_block INDEX ] [ egress_block INDEX ]
          [ QDISC_KIND [ its options ] ]
QDISC_KIND := clsact | ingress | htb | pfifo | bfifo | ...
"""


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


def qdisc_options(name: str, words: Words) -> dict[str, Any]:
    """Take the options of a kind.

    Raises:  Quit.
    """
    kind = QDISCS.get(name)
    if kind is not None and kind.parse is not None:
        return kind.parse(words)
    if words:
        raise Quit(LOCAL, f'Unknown qdisc "{name}", hence option "{words.next}" is unparsable')
    return {}


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
