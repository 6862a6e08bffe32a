"""The actions of a command, in tc(8)'s grammar: gact's control words, mirred, bpf, vlan, skbedit.

Source:  tc/m_*.c of iproute2 6.1: which word may follow which, and what is said of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from tcbpf.cli.tc.load import UNLOADED, UNPARSED, prepare, read_source
from tcbpf.cli.tc.request import require_device
from tcbpf.cli.tc.show_action import HW_STATS, PACKET_TYPES
from tcbpf.control.codes import control_code, control_word
from tcbpf.control.handles import parse_classid, parse_protocol
from tcbpf.control.objects import ACT_SKIP_HW, ACT_SKIP_SW, NO_PERCPU, Action
from tcbpf.control.words import LOCAL, USAGE, Quit, Words, absent, c_number, duplicate, matches, parsed, wrong
from tcbpf.tables.actions import VALUE_MASK

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath

CONTROLS = ("continue", "pass", "reclassify", "drop", "pipe", "stolen", "trap", "shot", "ok")
"""The control words that tc(8) takes, in the order in which it matches abbreviations."""

MAX_ACTIONS = 32
MAX_COOKIE = 16  # bytes
NEXT_COMMANDS = ("change", "replace", "delete", "get", "add")
ILLEGAL = 'Illegal "action"'
GACT_USAGE = """\
Usage: ... gact CONTROL [ index INDEX ]
CONTROL := reclassify | drop | continue | pass | pipe | stolen | trap | goto chain CHAIN | jump COUNT
Other kinds of actions: mirred | bpf | vlan | skbedit"""
KIND_USAGE = {
    "mirred": "Usage: ... mirred egress|ingress redirect|mirror dev DEVICE [ CONTROL ] [ index INDEX ]   (CONTROL with mirror)",
    "bpf": "Usage: ... bpf object-file FILE [ section NAME ] | object-pinned FILE | bytecode CODE | bytecode-file FILE\n"
    "           [ CONTROL ] [ index INDEX ]",
    "vlan": "Usage: ... vlan pop | push|modify id ID [ protocol 802.1Q|802.1ad ] [ priority PRIO ] [ CONTROL ] [ index INDEX ]",
    "skbedit": "Usage: ... skbedit [ queue_mapping N ] [ priority CLASSID ] [ mark MARK[/MASK] ] [ ptype TYPE ]\n"
    "           [ CONTROL ] [ index INDEX ]",
}


def read_actions(dp: Datapath, words: Words) -> tuple[Action, ...]:
    """Take actions, up to the end or the word that begins something else.

    Raises:  Quit.
    """
    rows: list[Action] = []
    awaited = False
    while words and words.next not in ("flowid", "classid"):
        if words.accept("action"):
            awaited = True
        elif words.next == "help":
            raise Quit(LOCAL, ILLEGAL)
        elif any(matches(words.next, command) for command in NEXT_COMMANDS):
            break
        else:
            awaited = False
            if len(rows) == MAX_ACTIONS:
                raise Quit(LOCAL, f"more than {MAX_ACTIONS} actions", ILLEGAL)
            rows.append(_action(dp, words))
    if awaited:
        raise Quit(LOCAL, "bad action empty 1", "parse_action: bad value (0:(null))!", ILLEGAL)
    if not rows:
        raise Quit(LOCAL, ILLEGAL)
    return tuple(rows)


def _action(dp: Datapath, words: Words) -> Action:
    """Take one action and what all kinds take after their own words."""
    left, kind = len(words), words.next
    try:
        if kind in _KINDS:
            words.take()
            action = _KINDS[kind](dp, words)
        else:
            words.accept("gact")
            action = _gact(words)
    except Quit as quit:
        if quit.status != LOCAL:
            raise
        said = list(takewhile(lambda line: line not in (UNPARSED, UNLOADED), quit.lines))  # what filters say
        raise Quit(LOCAL, *said, "bad action parsing", f"parse_action: bad value ({left}:{kind})!", ILLEGAL) from None
    if words.accept("cookie"):
        action = replace(action, cookie=_cookie(words.take()))
    if words.accept("hw_stats", prefix=True):
        word = words.take()
        asked = next((name for name in HW_STATS if matches(word, name)), None) or wrong(word, "value is invalid\n")
        action = replace(action, hw_stats_asked=asked)
    flags = NO_PERCPU if words.accept("no_percpu") else 0
    flags |= ACT_SKIP_SW if words.accept("skip_sw") else ACT_SKIP_HW if words.accept("skip_hw") else 0
    return replace(action, flags=flags)


def _cookie(word: str) -> bytes:
    """Return the bytes of a cookie in hexadecimal."""
    if len(word) > 2 * MAX_COOKIE:
        wrong(word, f"{len(word)} Max allowed size {2 * MAX_COOKIE}")
    try:
        return bytes.fromhex(word)
    except ValueError:
        wrong(word, "cookie must be a hex string\n")


def _gact(words: Words) -> Action:
    word = words.take()
    control = read_control(word, words)
    if control is None:
        raise Quit(USAGE, f"Bad action type {word}", GACT_USAGE)
    if words.accept("random", prefix=True):
        absent("random")
    return Action("gact", control=control, index=_index(words))


def _mirred(dp: Datapath, words: Words) -> Action:
    word = words.take()
    if word == "help":
        raise Quit(USAGE, KIND_USAGE["mirred"])
    if matches(word, "index"):  # one that is there already, to be shared
        return Action("mirred", index=_index_value(words, ""))
    direction = next((name for name in ("egress", "ingress") if matches(word, name)), "")
    if not direction:
        raise Quit(LOCAL, f"mirred option not supported {word}")
    word = words.take()
    if word != direction and word in ("egress", "ingress") and words:
        raise Quit(LOCAL, "Can't have both ingress and egress")
    deed = next((name for name in ("redirect", "mirror") if matches(word, name)), "")
    words.require()
    index = _index(words)
    before, device = words.take(), words.take()
    if not deed or before != "dev":
        raise Quit(USAGE, f"mirred option not supported {before if deed else word}", KIND_USAGE["mirred"])
    require_device(dp, device)
    control = _control(words) if deed == "mirror" else "stolen"
    if index and words.next == "index":
        raise Quit(LOCAL, "mirred: Illegal double index")
    return Action(
        "mirred",
        control=control,
        index=index or _index(words, "mirred"),
        options={"direction": direction, "action": deed, "dev": device},
    )


def _bpf(dp: Datapath, words: Words) -> Action:
    source = None
    words.require()
    while words:
        if words.next == "help":
            raise Quit(USAGE, KIND_USAGE["bpf"])
        if words.next == "index":
            break
        run = words.accept("run", prefix=True)
        if run and source is not None:
            duplicate("run", words.next)
        if source is not None:
            break
        source = read_source(words, "sched_act")
    control, index = _control(words), _index(words)
    options: dict[str, object] = {}
    if source is not None:
        ready = prepare(dp, source)
        options = {"name": ready.name, "prog": ready.prog} if ready.prog is not None else {"bytecode": ready.bytecode}
    return Action("bpf", control=control, index=index, options=options)


def _vlan(dp: Datapath, words: Words) -> Action:
    options: dict[str, object] = {}
    words.require()
    while words:
        word = words.next
        if word in ("push", "pop", "modify"):
            words.take()
            if "action" in options:
                raise Quit(USAGE, f'unexpected "{word}" - action already specified', KIND_USAGE["vlan"])
            options["action"] = str(word)
        elif word in ("id", "protocol") or matches(word, "priority"):
            words.take()
            if options.get("action") not in ("push", "modify"):
                wrong(word, "only valid for push/modify")
            if word == "id":
                options["id"] = words.number("id is invalid", limit=0xFFFF)
            elif word == "protocol":
                options["protocol"] = parsed(parse_protocol, words.take(), "protocol is invalid")
            else:
                options["priority"] = words.number("prio is invalid", limit=7)
        elif word == "help":
            raise Quit(USAGE, KIND_USAGE["vlan"])
        else:
            break
    control, index = _control(words), _index(words, "vlan")
    if options.get("action") in ("push", "modify"):
        if "id" not in options:
            raise Quit(LOCAL, f"id needs to be set for {options['action']}", KIND_USAGE["vlan"])
        options.setdefault("protocol", 0x8100)
    elif not options and not index:
        raise Quit(LOCAL, KIND_USAGE["vlan"])
    return Action("vlan", control=control, index=index, options=options)


def _skbedit(dp: Datapath, words: Words) -> Action:
    options: dict[str, object] = {}
    words.require()
    while words:
        word = words.next
        if matches(word, "queue_mapping"):
            words.take()
            options["queue_mapping"] = words.number("Illegal queue_mapping", limit=0xFFFF, status=LOCAL)
        elif matches(word, "priority"):
            words.take()
            options["priority"] = parsed(parse_classid, words.take(), "Illegal priority", status=LOCAL)
        elif matches(word, "mark"):
            words.take()
            options |= _mark(words.take())
        elif matches(word, "ptype"):
            words.take()
            options["ptype"] = _packet_type(words.take())
        else:
            break
    if not options and words.next != "index":
        raise Quit(LOCAL, KIND_USAGE["skbedit"])
    return Action("skbedit", control=_control(words), index=_index(words, "skbedit"), options=options)


_KINDS: dict[str, Callable[[Datapath, Words], Action]] = {"mirred": _mirred, "bpf": _bpf, "vlan": _vlan, "skbedit": _skbedit}


def _mark(word: str) -> dict[str, object]:
    mark, slash, mask = word.partition("/")
    values: dict[str, object] = {}
    for name, digits in (("mark", mark), *((("mask", mask),) if slash else ())):
        value = c_number(digits)
        if value is None or value > 0xFFFFFFFF:
            raise Quit(LOCAL, f"Illegal {name}")
        values[name] = value
    return values


def _packet_type(word: str) -> int:
    if word not in PACKET_TYPES:
        raise Quit(LOCAL, f"Illegal ptype ({word})")
    return PACKET_TYPES.index(word)


def read_control(word: str, words: Words) -> str | None:
    """Return the control that `word` begins, its number taken from `words`; None when it begins none."""
    if matches(word, "goto"):
        if words.take() != "chain":
            raise Quit(USAGE, '"chain index" expected', GACT_USAGE)
        chain = _count(words, 'Illegal "chain index"')
        return f"goto chain {chain}"
    if matches(word, "jump"):
        count = _count(words, f'Invalid "jump count" ({words.next})')
        return f"jump {count}"
    return next((control_word(control_code(name)) for name in CONTROLS if matches(word, name)), None)


def _count(words: Words, refusal: str) -> int:
    value = c_number(words.take())
    if value is None or value > VALUE_MASK:
        raise Quit(USAGE, refusal, GACT_USAGE)
    return value


def _control(words: Words, default: str = "pipe") -> str:
    """Take the control word that may end an action; any other word is not the action's."""
    if not words or words.next in ("action", "index"):
        return default
    word, at = words.next, words.mark()
    words.take()
    found = read_control(word, words)
    if found is None:
        words.back(at)
    return found or default


def _index(words: Words, kind: str = "") -> int:
    """Take `index N`, or return 0."""
    return _index_value(words, kind) if words.accept("index", prefix=True) else 0


def _index_value(words: Words, kind: str) -> int:
    value = c_number(words.take())
    if value is None or value > 0xFFFFFFFF:
        raise Quit(LOCAL, f'{kind}: Illegal "index"' if kind else 'Illegal "index"')
    return value
