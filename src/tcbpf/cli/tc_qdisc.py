"""`tc qdisc` and `tc class`: the grammar, and what each kind takes."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tcbpf.cli import tc_show
from tcbpf.cli.tc_sheet import Sheet
from tcbpf.cli.tc_words import (
    LOCAL,
    REFUSED,
    USAGE,
    Options,
    Quit,
    Words,
    duplicate,
    matches,
    parsed,
    read_rate,
    read_size,
)
from tcbpf.control.objects import PRIOMAP, TC_H_CLSACT, TC_H_INGRESS, TC_H_ROOT, Link, Qdisc, TcClass, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.control.words import parse_classid, parse_qdisc_handle
from tcbpf.errors import NotSupported, SysError, TcError

if TYPE_CHECKING:
    from tcbpf.cli.tc import Opener
    from tcbpf.datapath.base import Datapath

COMMANDS = {"add": Op.ADD, "change": Op.CHANGE, "replace": Op.REPLACE, "delete": Op.DELETE, "get": Op.GET, "show": Op.SHOW,
            "list": Op.SHOW, "lst": Op.SHOW}

QDISC_USAGE = """\
Usage: tc qdisc { add | del | replace | change | show } [ dev STRING ]
          [ handle QHANDLE ] [ root | ingress | clsact | parent CLASSID ]
          [ QDISC_KIND [ its options ] ]
QDISC_KIND := clsact | ingress | htb | pfifo | bfifo | ...
"""
CLASS_USAGE = """\
Usage: tc class { add | del | change | replace | show } dev STRING
          [ classid CLASSID ] [ root | parent CLASSID ] [ htb rate RATE [ its options ] ]
"""
KIND_USAGE = {
    "clsact": "Usage: ... clsact",
    "ingress": "Usage: ... ingress",
    "htb": "Usage: ... qdisc add ... htb [ default MINOR ] [ r2q N ] [ direct_qlen PACKETS ]\n"
           "       ... class add ... htb rate RATE [ ceil RATE ] [ burst SIZE ] [ cburst SIZE ] [ prio N ]\n"
           "                             [ quantum SIZE ] [ mpu SIZE ] [ overhead SIZE ]",
    "prio": "Usage: ... prio [ bands NUMBER ] [ priomap P1 P2 ... P16 ]",
    "pfifo": "Usage: ... pfifo [ limit NUMBER ]",
    "bfifo": "Usage: ... bfifo [ limit NUMBER ]",
    "pfifo_head_drop": "Usage: ... pfifo_head_drop [ limit NUMBER ]",
}


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
    if found is None or (found is Op.GET and name != "filter"):
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
        hint = ["It takes root or CAP_NET_ADMIN; --datapath user takes neither."] if error.errno == errno.EPERM else []
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


def show(rows: Iterable[Any], put: Callable[[Sheet, Any, Options, tc_show.Selection], None], options: Options,
         selected: tc_show.Selection, *, json: bool = True) -> int:
    """Print a listing."""
    sheet = Sheet()
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
                raise Quit(USAGE, f'Error: "{word}" is a duplicate parent ID' if word != "root"
                           else 'Error: "root" is duplicate parent ID')
            if word == "root":
                parent = TC_H_ROOT
                continue
            kind, parent, handle = word, TC_H_CLSACT if word == "clsact" else TC_H_INGRESS, TC_H_INGRESS & 0xFFFF0000
            values = qdisc_options(kind, words)
        elif word == "parent":
            if parent:
                duplicate("parent", words.next)
            parent = parsed(parse_classid, words.take(), "invalid parent ID")
        elif matches(word, "help"):
            sys.stderr.write(QDISC_USAGE)
            return USAGE
        else:
            kind = word
            values = qdisc_options(kind, words)
    require_device(dp := opener(), dev)
    apply(dp, op, Qdisc(dev, kind, handle=handle, parent=parent, options=values))
    return 0


def qdisc_options(kind: str, words: Words) -> dict[str, Any]:
    """Take what a qdisc kind takes.

    Raises:  Quit for anything else, with what would be right.
    """
    values: dict[str, Any] = {}
    if kind not in KIND_USAGE and words:
        raise Quit(LOCAL, f'Unknown qdisc "{kind}", hence option "{words.next}" is unparsable')
    while words:
        word = words.take()
        if word == "help":
            raise Quit(LOCAL, KIND_USAGE[kind])
        if kind in ("clsact", "ingress") and word == "handle":
            words.take()
        elif kind == "htb" and matches(word, "default"):
            values["default"] = _hex(words, "default")
        elif kind == "htb" and matches(word, "r2q"):
            values["r2q"] = words.number('Illegal "r2q"', status=LOCAL)
        elif kind == "htb" and word == "direct_qlen":
            values["direct_qlen"] = words.number('Illegal "direct_qlen"', status=LOCAL)
        elif kind == "prio" and word == "bands":
            values["bands"] = words.number('Illegal "bands"', status=LOCAL)
        elif kind == "prio" and word == "priomap":
            values["priomap"] = _priomap(words)
        elif kind in ("pfifo", "bfifo", "pfifo_head_drop") and word == "limit":
            values["limit"] = _size(words, "limit")
        else:
            raise Quit(LOCAL, f'What is "{word}"?', KIND_USAGE[kind])
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
            return USAGE
        else:
            raise Quit(USAGE, f'What is "{word}"? Try "tc qdisc help".')
    require_device(dp := opener(), dev)
    rows = [row for row in apply(dp, Op.SHOW, Qdisc(dev, "", parent=0)) if isinstance(row, Qdisc)]
    rows = [row for row in rows if parent in (0, row.parent) and handle in (0, row.handle)]
    return show(rows, tc_show.qdisc, options, tc_show.Selection(dev=dev))


# ---------------------------------------------------------------- class


def klass(opener: Opener, words: Words, options: Options) -> int:
    """Run one `tc class` command."""
    op = choose(words, "class", CLASS_USAGE)
    if op is None:
        return 0
    dev, kind, classid, parent, values = "", "", 0, 0, {}
    while words:
        word = words.take()
        if word == "dev":
            dev = words.take()
        elif word == "classid" or (op is Op.SHOW and word == "handle"):
            classid = parsed(parse_classid, words.take(), "invalid class ID")
        elif word == "root":
            parent = TC_H_ROOT
        elif word == "parent":
            parent = parsed(parse_classid, words.take(), "invalid parent ID")
        elif matches(word, "help"):
            sys.stderr.write(CLASS_USAGE)
            return USAGE
        elif op is Op.SHOW:
            raise Quit(USAGE, f'What is "{word}"? Try "tc class help".')
        else:
            kind = word
            values = class_options(kind, words)
    require_device(dp := opener(), dev)
    if op is Op.SHOW:
        if not dev or parent == TC_H_ROOT:             # the kernel dumps the classes of a qdisc, and root names none
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
        if words:
            raise Quit(LOCAL, f'Unknown qdisc "{kind}", hence option "{words.next}" is unparsable')
        return {}
    values: dict[str, Any] = {}
    while words:
        word = words.take()
        if word in ("rate", "ceil"):
            values[word] = _rate(words, word)
        elif word in ("burst", "cburst", "mpu", "overhead") or matches(word, "quantum") or word in ("buffer", "maxburst"):
            name = {"buffer": "burst", "maxburst": "burst"}.get(word, "quantum" if matches(word, "quantum") else word)
            values[name] = _size(words, word)
        elif matches(word, "prio"):
            values["prio"] = words.number('Illegal "prio"', status=LOCAL)
        elif word == "help":
            raise Quit(LOCAL, KIND_USAGE[kind])
        else:
            raise Quit(LOCAL, f'What is "{word}"?', KIND_USAGE[kind])
    if values and "rate" not in values:
        raise Quit(LOCAL, '"rate" is required.')
    return values


def _priomap(words: Words) -> tuple[int, ...]:
    """Take the bands of the 16 priorities; those that are not said keep their defaults."""
    bands = list(PRIOMAP)
    for place in range(len(bands)):
        if not words.next.isdigit():
            break
        bands[place] = words.number('Illegal "priomap" element', limit=15, status=LOCAL)
    return tuple(bands)


def _hex(words: Words, name: str) -> int:
    word = words.take()
    try:
        return int(word, 16)
    except ValueError:
        raise Quit(LOCAL, f'Illegal "{name}"') from None


def _size(words: Words, name: str) -> int:
    word = words.take()
    value = read_size(word)
    if value is None:
        raise Quit(LOCAL, f'Illegal "{name}": "{word}" is not a size such as 1600 or 15k')
    return value


def _rate(words: Words, name: str) -> int:
    word = words.take()
    value = read_rate(word)
    if not value:
        raise Quit(LOCAL, f'Illegal "{name}": "{word}" is not a rate such as 512kbit or 1mbit')
    return value


