"""`tc class`: its grammar; tc/kinds/qdisc has the options of each kind's classes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tcbpf.cli.tc import show as tc_show
from tcbpf.cli.tc.request import apply, choose, require_device, show
from tcbpf.control.args import LOCAL, USAGE, Options, Quit, Words, absent, duplicate, matches, parsed
from tcbpf.control.handles import parse_classid
from tcbpf.control.objects import TcClass
from tcbpf.control.request import Op
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.uapi.tc import TC_H_ROOT

if TYPE_CHECKING:
    from tcbpf.cli.tc.request import Opener

CLASS_USAGE = """\
Usage: tc class { add | del | change | replace | show } dev STRING
          [ classid CLASSID ] [ root | parent CLASSID ] [ htb rate RATE [ its options ] ]
"""


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


def class_options(name: str, words: Words) -> dict[str, Any]:
    """Take the options of a class.

    Raises:  Quit.
    """
    kind = QDISCS.get(name)
    if kind is None or kind.classes is None or kind.classes.parse is None:
        raise Quit(LOCAL, f'Error: Qdisc "{name}" is classless.')
    return kind.classes.parse(words)
