"""`tc class`: the grammar, and what an htb class takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tcbpf.cli.tc import show as tc_show
from tcbpf.cli.tc.request import apply, choose, require_device, show
from tcbpf.control.handles import parse_classid
from tcbpf.control.objects import TC_H_ROOT, TcClass
from tcbpf.control.request import Op
from tcbpf.control.units import read_rate, read_size
from tcbpf.control.words import LOCAL, USAGE, Options, Quit, Words, absent, c_number, duplicate, matches, parsed

if TYPE_CHECKING:
    from tcbpf.cli.tc.request import Opener

CLASS_USAGE = """\
Usage: tc class { add | del | change | replace | show } dev STRING
          [ classid CLASSID ] [ root | parent CLASSID ] [ htb rate RATE [ its options ] ]
"""
CLASS_KIND_USAGE = """\
Usage: ... class add ... htb rate RATE [ ceil RATE ] [ burst SIZE ] [ cburst SIZE ] [ mtu BYTES ] [ prio N ]
           [ quantum BYTES ] [ mpu BYTES ] [ overhead BYTES ] [ linklayer ethernet | atm | adsl ]
RATE is such as 512kbit or 1mbit, SIZE such as 1600 or 15k"""

_NUMBERS = ("prio", "mtu", "mpu", "overhead", "quantum")
_BURSTS = dict.fromkeys(("burst", "buffer", "maxburst"), "burst") | dict.fromkeys(("cburst", "cbuffer", "cmaxburst"), "cburst")
_LINK_LAYERS = {"ethernet": "ethernet", "atm": "atm", "adsl": "atm"}


def klass(opener: Opener, words: Words, options: Options) -> int:
    """Run one `tc class` command."""
    op = choose(words, "class", CLASS_USAGE)
    if op is None:
        return 0
    dev, kind, classid, parent, values = "", "", 0, 0, {}
    while words:
        word = words.take()
        if word == "dev":
            dev, given = words.take(), dev
            if given:
                duplicate("dev", dev)
        elif word == "classid":
            if classid and op is not Op.SHOW:
                duplicate("classid", words.next)
            classid = parsed(parse_classid, words.take(), "invalid class ID")
        elif word in ("root", "parent"):
            if parent and word == "root":
                raise Quit(USAGE, 'Error: "root" is duplicate parent ID')
            if parent:
                duplicate("parent", words.next)
            parent = TC_H_ROOT if word == "root" else parsed(parse_classid, words.take(), "invalid parent ID")
        elif op is not Op.SHOW and matches(word, "estimator"):
            absent(word)
        elif matches(word, "help"):
            sys.stderr.write(CLASS_USAGE)
            return 0
        elif op is Op.SHOW:
            raise Quit(USAGE, f'What is "{word}"? Try "tc class help".')
        else:
            kind = word
            values = class_options(kind, words)
    require_device(dp := opener(), dev)
    if op is Op.SHOW:
        if not dev or parent == TC_H_ROOT:  # the kernel dumps the classes of a qdisc, and root names none
            return 0
        rows = [row for row in apply(dp, op, TcClass(dev, "", 0, parent=parent)) if isinstance(row, TcClass)]
        rows = [row for row in rows if classid in (0, row.classid)]
        return show(rows, tc_show.klass, options, tc_show.Selection(dev=dev), json=False)
    apply(dp, op, TcClass(dev, kind, classid, parent=parent, options=values))
    return 0


def class_options(kind: str, words: Words) -> dict[str, Any]:
    """Take what an htb class takes; `rate` is required.

    Raises:  Quit.
    """
    if kind != "htb":
        raise Quit(LOCAL, f'Error: Qdisc "{kind}" is classless.')
    values: dict[str, Any] = {}
    while words:
        word = words.take()
        if word in ("rate", "ceil"):
            if word in values:
                raise Quit(LOCAL, f'Double "{word}" spec')
            values[word] = _taken(read_rate, words, word)
        elif (name := _BURSTS.get(word)) is not None:
            values[name] = _burst(words, word)
        elif word == "linklayer":
            values[word] = _taken(_LINK_LAYERS.get, words, word)
        elif name := next((name for name in _NUMBERS if matches(word, name)), ""):
            values[name] = _taken(c_number, words, name)
        else:
            raise Quit(LOCAL, *([] if word == "help" else [f'What is "{word}"?']), CLASS_KIND_USAGE)
    if not values.get("rate"):
        raise Quit(LOCAL, '"rate" is required.')
    frame = values.pop("mtu", 0)
    return ({"burst": frame, "cburst": frame} if frame else {}) | values


def _taken(read: Callable[[str], int | str | None], words: Words, name: str) -> int | str:
    """Take a value that `read` understands."""
    value = read(words.take())
    if value is None:
        raise Quit(LOCAL, f'Illegal "{name}"', CLASS_KIND_USAGE)
    return value


def _burst(words: Words, name: str) -> int:
    """Take SIZE or SIZE/CELL, the cell a power of two."""
    size, slash, cell = words.take().partition("/")
    value, step = read_size(size), c_number(cell) if slash else 1
    if value is None or not step or step & (step - 1):
        raise Quit(LOCAL, f'Illegal "{name}"', CLASS_KIND_USAGE)
    return value
