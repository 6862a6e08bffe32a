"""`tc qdisc`: the grammar, and what each kind takes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tcbpf.cli.tc import show as tc_show
from tcbpf.control.handles import parse_classid, parse_qdisc_handle
from tcbpf.control.objects import PRIOMAP, TC_H_CLSACT, TC_H_INGRESS, TC_H_ROOT, Link, Qdisc, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.control.sheet import Sheet
from tcbpf.control.units import read_size
from tcbpf.control.words import LOCAL, REFUSED, USAGE, Options, Quit, Words, absent, c_number, duplicate, matches, parsed, wrong
from tcbpf.errors import NotSupported, SysError, TcError

if TYPE_CHECKING:
    from tcbpf.cli.tc.command import Opener
    from tcbpf.datapath.base import Datapath

COMMANDS = {
    "add": Op.ADD,
    "change": Op.CHANGE,
    "replace": Op.REPLACE,
    "link": Op.LINK,
    "delete": Op.DELETE,
    "get": Op.GET,
    "show": Op.SHOW,
    "list": Op.SHOW,
    "lst": Op.SHOW,
}

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


def choose(words: Words, name: str, usage: str) -> Op | None:
    """Take the command word of an object; None for help.

    Raises:  Quit for an unknown one.
    """
    if not words:
        return Op.SHOW
    asked = words.take()
    if matches(asked, "help"):
        sys.stderr.write(usage)
        return None
    found = next((op for word, op in COMMANDS.items() if matches(asked, word)), None)
    if found is None or (found is Op.GET and name != "filter") or (found is Op.LINK and name != "qdisc"):
        raise Quit(USAGE, f'Command "{asked}" is unknown, try "tc {name} help".')
    return found


def apply(dp: Datapath, op: Op, what: TcObject, *, after: str = "") -> tuple[TcObject, ...]:
    """Ask the datapath; turn its refusal into tc's lines, `after` the last of them.

    Raises:  Quit.
    """
    try:
        rows = dp.apply(Request(op, what))
        remarks: list[str] = getattr(dp, "warnings", [])
        while remarks:
            print(f"Warning: {remarks.pop(0).rstrip('.')}.", file=sys.stderr)
        return rows
    except TcError as error:
        name = getattr(what, "dev", "")
        if error.errno == errno.ENODEV and error.extack.startswith("Cannot find device"):
            raise Quit(LOCAL, error.extack) from None
        if error.errno == errno.ENODEV and name and not error.extack:
            raise Quit(LOCAL, f'Cannot find device "{name}"') from None
        said = f"Error: {error.extack.rstrip('.')}." if error.extack else f"RTNETLINK answers: {error.strerror}"
        refused = error.errno == errno.EPERM and dp.name == "kernel" and os.geteuid() != 0
        hint = ["It takes root or CAP_NET_ADMIN; --datapath user takes neither."] if refused else []
        raise Quit(REFUSED, said, *([after] if after else []), *hint) from None
    except NotSupported as error:
        raise Quit(REFUSED, f"Error: {error}.", *([after] if after else [])) from None
    except SysError as error:
        raise Quit(REFUSED, f"Error: {error}") from None


def require_device(dp: Datapath, name: str) -> None:
    """Refuse a device that is not there, before anything else is done.

    Raises:  Quit.
    """
    if not name:
        return
    try:
        if dp.apply(Request(Op.GET, Link(name))):
            return
    except TcError as error:
        if error.errno != errno.ENODEV:
            raise Quit(REFUSED, f"RTNETLINK answers: {error.strerror}") from None
    raise Quit(LOCAL, f'Cannot find device "{name}"')


def show(
    rows: Iterable[Any],
    put: Callable[[Sheet, Any, Options, tc_show.Selection], None],
    options: Options,
    selected: tc_show.Selection,
    *,
    json: bool = True,
) -> int:
    """Print a listing."""
    sheet = Sheet(oneline=options.oneline)
    for row in rows:
        put(sheet, row, options, selected)
    sys.stdout.write(sheet.json(pretty=options.pretty) if options.json and json else sheet.text())
    return 0


# ---------------------------------------------------------------- qdisc


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


def block_number(words: Words, what: str) -> int:
    """Take the number of a shared block; 0 is none."""
    word = words.next
    return words.number(what) or wrong(word, what)


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
