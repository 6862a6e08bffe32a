"""Actions, of a filter or alone (`tc actions`), in tc(8)'s grammar: gact's control words, mirred, bpf, vlan, skbedit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tcbpf.cli.tc_load import prepare, read_source
from tcbpf.cli.tc_sheet import Sheet
from tcbpf.cli.tc_show_action import PACKET_TYPES, listing
from tcbpf.cli.tc_words import LOCAL, USAGE, Options, Quit, Words, c_number, matches, parsed
from tcbpf.control.objects import Action
from tcbpf.control.request import Op
from tcbpf.control.words import parse_classid, parse_protocol
from tcbpf.tables.actions import ACTIONS

if TYPE_CHECKING:
    from tcbpf.cli.tc import Opener
    from tcbpf.datapath.base import Datapath

CONTROLS = {row.tc: row.tc for row in ACTIONS if row.tc not in ("", "queued", "redirect")} | {"ok": "pass", "shot": "drop"}
ENDS = ("flowid", "classid", "police", "direct-action", "da", "skip_hw", "skip_sw")
MAX_ACTIONS = 32


ACTIONS_USAGE = """\
Usage: tc actions { add | change | replace } action KIND [ its options ] [ index INDEX ]
       tc actions { get | del } action KIND index INDEX
       tc actions { ls | flush } action KIND
KIND := gact | mirred | bpf | vlan | skbedit
"""
COMMANDS = {"add": Op.ADD, "change": Op.CHANGE, "replace": Op.REPLACE, "get": Op.GET, "delete": Op.DELETE, "list": Op.SHOW,
            "ls": Op.SHOW, "show": Op.SHOW}
FAILED = "We have an error talking to the kernel"


def actions(opener: Opener, words: Words, options: Options) -> int:
    """Run one `tc actions` command: on actions that stand alone, for filters to share by index."""
    from tcbpf.cli.tc_qdisc import apply
    if not words or matches(words.next, "help"):
        sys.stderr.write(ACTIONS_USAGE)
        return 0 if words else USAGE
    command = words.take()
    op = next((op for word, op in COMMANDS.items() if matches(command, word)), None)
    if op is None and command != "flush":
        raise Quit(USAGE, f'Command "{command}" is unknown, try "tc actions help".')
    if not words or words.next != "action":
        raise Quit(USAGE, ACTIONS_USAGE.rstrip())
    try:
        if op in (Op.ADD, Op.CHANGE, Op.REPLACE):
            for row in read_actions(dp := opener(), words):
                apply(dp, op, row, after=FAILED)
            return 0
        asked = _named(words, needs_index=op in (Op.GET, Op.DELETE))
        dp = opener()
        if op is Op.DELETE:
            apply(dp, op, asked, after=FAILED)
            return 0
        found = tuple(row for row in apply(dp, op or Op.SHOW, asked, after=FAILED) if isinstance(row, Action))
        if op is None:
            for row in found:
                if not row.bind:
                    apply(dp, Op.DELETE, row, after=FAILED)
            return 0
    except Quit as quit:
        raise Quit(USAGE, *quit.lines) from None
    sheet = Sheet(oneline=options.oneline)
    if found:
        listing(sheet, found, options, total=0 if op is Op.GET else len(found), first=1 if op is Op.GET else 0)
    sys.stdout.write(sheet.json(pretty=options.pretty) if options.json else sheet.text())
    return 0


def _named(words: Words, *, needs_index: bool) -> Action:
    """Take `action KIND [ index INDEX ]`."""
    words.take()
    kind = words.take()
    index = words.number("index is invalid") if words.accept("index") else 0
    if words or (needs_index and not index):
        raise Quit(USAGE, ACTIONS_USAGE.rstrip())
    return Action(kind, index=index)


def read_actions(dp: Datapath, words: Words) -> tuple[Action, ...]:
    """Take the actions after the word `action`, up to the end or a word of the filter's own.

    Raises:  Quit.
    """
    rows: list[Action] = []
    while words and words.next not in ENDS:
        if words.accept("action"):
            if not words or words.next in ENDS:
                raise Quit(LOCAL, f"bad action empty {len(rows) + 1}", 'Illegal "action"')
            continue
        if len(rows) == MAX_ACTIONS:
            raise Quit(LOCAL, f"more than {MAX_ACTIONS} actions", 'Illegal "action"')
        rows.append(_action(dp, words))
    if not rows:
        raise Quit(LOCAL, "bad action empty 1", 'Illegal "action"')
    return tuple(rows)


def _action(dp: Datapath, words: Words) -> Action:
    left, kind = len(words), words.take()
    if kind == "mirred":
        return _mirred(dp, words, left)
    if kind == "bpf":
        return _bpf(dp, words)
    if kind in ("vlan", "skbedit"):
        return _edit(kind, words)
    if kind == "gact":
        words.accept("action")
        kind = words.take()
    control = read_control(kind, words)
    if control is None:
        raise Quit(USAGE, f"Bad action type {kind}",
                   "It is one of: " + ", ".join(CONTROLS) + ", goto chain N, jump N, mirred, bpf, vlan, skbedit")
    return Action("gact", index=_index(words), control=control)


def read_control(word: str, words: Words) -> str | None:
    """Return the control that `word` begins, its number taken from `words`; None when it begins none."""
    if word == "goto":
        if not words.accept("chain"):
            raise Quit(LOCAL, f'"goto {words.next}": it is goto chain N', 'Illegal "action"')
        return f"goto chain {words.number('chain index')}"
    if word == "jump":
        return f"jump {words.number('jump count')}"
    return next((control for name, control in CONTROLS.items() if matches(word, name)), None) if word else None


def _mirred(dp: Datapath, words: Words, left: int) -> Action:
    options: dict[str, object] = {"direction": "egress", "action": "redirect", "dev": ""}
    index, deed = 0, ""
    while words and words.next not in ENDS:
        word = words.next
        if word in ("egress", "ingress"):
            options["direction"] = words.take()
        elif word in ("redirect", "mirror"):
            deed = str(words.take())
        elif word == "dev":
            words.take()
            options["dev"] = _device(dp, words.take(), left)
        elif word == "index":
            words.take()
            index = words.number('Illegal "index"', status=LOCAL)
        else:
            break
    if index and not deed and not options["dev"]:
        return Action("mirred", index=index)
    if not deed or not options["dev"]:
        raise Quit(LOCAL, "bad action parsing", f"parse_action: bad value ({left}:mirred)!", 'Illegal "action"',
                   "It is: mirred egress|ingress redirect|mirror dev DEVICE [ CONTROL ]")
    options["action"] = deed
    control = _control(words, "stolen" if deed == "redirect" else "pipe")
    return Action("mirred", control=control, index=index or _index(words), options=options)


def _device(dp: Datapath, name: str, left: int) -> str:
    """Return the name of a device that is there.

    Raises:  Quit.
    """
    from tcbpf.cli.tc_qdisc import require_device
    try:
        require_device(dp, name)
    except Quit as quit:
        after = ("bad action parsing", f"parse_action: bad value ({left}:mirred)!", 'Illegal "action"')
        raise Quit(LOCAL, *quit.lines, *after) from None
    return name


def _bpf(dp: Datapath, words: Words) -> Action:
    ready = prepare(dp, read_source(words, "sched_act"))
    options: dict[str, object] = {"name": ready.name}
    if ready.prog is not None:
        options["prog"] = ready.prog
    else:
        options["bytecode"] = ready.bytecode
    return Action("bpf", control=_control(words), index=_index(words), options=options)


def _edit(kind: str, words: Words) -> Action:
    """Take what vlan and skbedit take."""
    options: dict[str, object] = {}
    while words:
        word = words.next
        if kind == "vlan" and word in ("push", "pop", "modify"):
            options["action"] = words.take()
        elif kind == "vlan" and word == "id":
            words.take()
            options["id"] = words.number("id is invalid", limit=0xFFF)
        elif kind == "vlan" and word == "protocol":
            words.take()
            options["protocol"] = parsed(parse_protocol, words.take(), "protocol is invalid")
        elif kind == "vlan" and matches(word, "priority"):
            words.take()
            options["priority"] = words.number("prio is invalid", limit=7)
        elif kind == "skbedit" and matches(word, "queue_mapping"):
            words.take()
            options["queue_mapping"] = words.number("Illegal queue_mapping", limit=0xFFFF, status=LOCAL)
        elif kind == "skbedit" and matches(word, "priority"):
            words.take()
            options["priority"] = parsed(parse_classid, words.take(), "Illegal priority")
        elif kind == "skbedit" and matches(word, "mark"):
            words.take()
            options |= _mark(words.take())
        elif kind == "skbedit" and matches(word, "ptype"):
            words.take()
            options["ptype"] = _packet_type(words.take())
        else:
            break
    if kind == "vlan" and options.get("action") != "pop":
        if "action" not in options or "id" not in options:
            raise Quit(LOCAL, "id needs to be set for " + str(options.get("action", "vlan")), 'Illegal "action"',
                       "It is: vlan pop | vlan push|modify id ID [ protocol 802.1Q|802.1ad ] [ priority PRIO ]")
        options.setdefault("protocol", 0x8100)
    if not options:
        raise Quit(LOCAL, "bad action parsing", 'Illegal "action"',
                   "It is: skbedit [ queue_mapping N ] [ priority CLASSID ] [ mark MARK[/MASK] ] [ ptype TYPE ]")
    return Action(kind, control=_control(words), index=_index(words), options=options)


def _mark(word: str) -> dict[str, object]:
    mark, slash, mask = word.partition("/")
    numbers = [c_number(mark), c_number(mask) if slash else 0]
    if None in numbers:
        raise Quit(LOCAL, "Illegal mark", 'Illegal "action"')
    return {"mark": numbers[0], "mask": numbers[1]} if slash else {"mark": numbers[0]}


def _packet_type(word: str) -> int:
    if word not in PACKET_TYPES:
        raise Quit(LOCAL, f"Illegal ptype ({word})", "It is one of: " + ", ".join(PACKET_TYPES), 'Illegal "action"')
    return PACKET_TYPES.index(word)


def _control(words: Words, default: str = "pipe") -> str:
    """Take the control word that may end an action."""
    if not words or words.next in ("action", "index", *ENDS):
        return default
    word = words.take()
    found = read_control(word, words)
    if found is None:
        raise Quit(LOCAL, f'"{word}" is no control', 'Illegal "action"', "It is one of: " + ", ".join(CONTROLS))
    return found


def _index(words: Words) -> int:
    """Take `index N`, or return 0."""
    if not words.accept("index"):
        return 0
    value = c_number(words.take())
    if value is None:
        raise Quit(LOCAL, 'Illegal "index"', 'Illegal "action"')
    return value
