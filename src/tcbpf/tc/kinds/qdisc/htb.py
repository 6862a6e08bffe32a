"""htb: a tree of classes with rates.

Options: default (minor), r2q, direct_qlen, direct_packets_stat, ver ("3.17", dumped only).
Options of a class: rate, ceil, burst, cburst, prio, quantum, mpu, overhead, linklayer ("ethernet", "atm"); dumped only:
level, lended, borrowed, giants, tokens, ctokens.

Units:   rate and ceil in bytes per second; burst, cburst, quantum and mpu in bytes; tokens in psched ticks.
Source:  net/sched/sch_htb.c (v6.18); tc/q_htb.c of iproute2 6.1.
Differs: on the user datapath rates shape nothing; classes classify and count.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tcbpf.control.args import LOCAL, Options, Quit, Words, c_number, matches
from tcbpf.control.attributes import TCA_OPTIONS, attr, attrs, nest, number, u32
from tcbpf.control.objects import TX_QUEUE_LEN, Link, Qdisc, TcClass
from tcbpf.control.psched import ticks_per_us, xmit_size, xmit_time
from tcbpf.control.sheet import Sheet
from tcbpf.control.units import format_rate, format_size, read_rate, read_size
from tcbpf.errors import InputError
from tcbpf.tc.kinds.qdisc.kind import ClassKind, QdiscKind, Values, integer, take_number
from tcbpf.uapi import tc as uapi

USAGE = "Usage: ... qdisc add ... htb [ default MINOR ] [ r2q N ] [ direct_qlen PACKETS ]"
CLASS_USAGE = """\
Usage: ... class add ... htb rate RATE [ ceil RATE ] [ burst SIZE ] [ cburst SIZE ] [ mtu BYTES ] [ prio N ]
           [ quantum BYTES ] [ mpu BYTES ] [ overhead BYTES ] [ linklayer ethernet | atm | adsl ]
RATE is such as 512kbit or 1mbit, SIZE such as 1600 or 15k"""
VERSION, R2Q = 3, 10
MAX_DEPTH = 8  # TC_HTB_MAXDEPTH
MAX_PRIO = 7  # TC_HTB_MAXPRIO - 1
DEFAULT_BURST = 1600  # bytes: one frame, as tc computes with a high-resolution clock
_GLOB = struct.Struct("=5I")  # tc_htb_glob: version, rate2quantum, defcls, debug, direct_pkts
_RATE = struct.Struct("=BBHhHI")  # tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate
_OPT = struct.Struct("=5I")  # rest of struct tc_htb_opt: buffer, cbuffer, quantum, level, prio
_XSTATS = struct.Struct("=IIIii")  # lends, borrows, giants, tokens, ctokens
_NUMBERS = ("prio", "mtu", "mpu", "overhead", "quantum")
_BURSTS = dict.fromkeys(("burst", "buffer", "maxburst"), "burst") | dict.fromkeys(("cburst", "cbuffer", "cmaxburst"), "cburst")
_LINK_LAYERS = {"ethernet": "ethernet", "atm": "atm", "adsl": "atm"}


# ---------------------------------------------------------------- the qdisc


def parse(words: Words) -> Values:
    """Take the options of a qdisc."""
    values: Values = {}
    while words:
        word = words.take()
        if matches(word, "default"):
            values["default"] = _take_minor(words)
        elif matches(word, "r2q"):
            values["r2q"] = take_number(words, "r2q", USAGE)
        elif word == "direct_qlen":
            values["direct_qlen"] = take_number(words, "direct_qlen", USAGE)
        else:
            raise Quit(LOCAL, f'What is "{word}"?', USAGE)
    return values


def _take_minor(words: Words) -> int:
    """Take the minor number of the default class, in hexadecimal."""
    word = words.take()
    try:
        return int(word, 16)
    except ValueError:
        raise Quit(LOCAL, 'Illegal "default"', USAGE) from None


def show(sheet: Sheet, row: Qdisc, options: Options) -> None:
    """Put the options of a qdisc."""
    values: Values = row.options
    if "r2q" not in values:
        return
    sheet.put("r2q", values["r2q"], "r2q {}")
    sheet.put("default", f"{values['default']:#x}" if values.get("default") else "0", " default {}")
    sheet.put("direct_packets_stat", values.get("direct_packets_stat", 0), " direct_packets_stat {}")
    if options.details:
        sheet.put("ver", values.get("ver", "3.17"), " ver {}")
    if "direct_qlen" in values:
        sheet.put("direct_qlen", values["direct_qlen"], " direct_qlen {}")


def pack(qdisc: Qdisc) -> bytes:
    """Return TCA_HTB_INIT and, when it is said, the length of the direct queue."""
    glob = _GLOB.pack(VERSION, integer(qdisc.options, "r2q", R2Q), integer(qdisc.options, "default"), 0, 0)
    rows = [attr(uapi.TCA_HTB_INIT, glob)]
    if "direct_qlen" in qdisc.options:
        rows.append(u32(uapi.TCA_HTB_DIRECT_QLEN, integer(qdisc.options, "direct_qlen")))
    return nest(TCA_OPTIONS, *rows)


def read(raw: bytes) -> Values:
    """Return the options of a dumped qdisc."""
    rows, values = attrs(raw), Values()
    if uapi.TCA_HTB_INIT in rows:
        version, r2q, default, _, direct = _GLOB.unpack_from(rows[uapi.TCA_HTB_INIT])
        values = {"r2q": r2q, "default": default, "direct_packets_stat": direct}
        values["ver"] = f"{version >> 16}.{version & 0xFFFF}"
    if uapi.TCA_HTB_DIRECT_QLEN in rows:
        values["direct_qlen"] = number(rows[uapi.TCA_HTB_DIRECT_QLEN])
    return values


def defaults(link: Link) -> Values:
    """Return the options of a new qdisc."""
    return {"r2q": R2Q, "default": 0, "direct_qlen": TX_QUEUE_LEN, "direct_packets_stat": 0, "ver": "3.17"}


def default_class(qdisc: Qdisc) -> int:
    """Return the class that `default` names; minor 0 is none."""
    minor = integer(qdisc.options, "default")
    return qdisc.handle | minor if minor else 0


# ---------------------------------------------------------------- its classes


def parse_class(words: Words) -> Values:
    """Take the options of a class; `rate` is required."""
    values: Values = {}
    while words:
        word = words.take()
        if word in ("rate", "ceil"):
            if word in values:
                raise Quit(LOCAL, f'Double "{word}" spec')
            values[word] = _take(read_rate, words, word)
        elif (name := _BURSTS.get(word)) is not None:
            values[name] = _take_burst(words, word)
        elif word == "linklayer":
            values[word] = _take(_LINK_LAYERS.get, words, word)
        elif name := next((name for name in _NUMBERS if matches(word, name)), ""):
            values[name] = _take(c_number, words, name)
        else:
            raise Quit(LOCAL, *([] if word == "help" else [f'What is "{word}"?']), CLASS_USAGE)
    if not values.get("rate"):
        raise Quit(LOCAL, '"rate" is required.')
    frame = values.pop("mtu", 0)
    return ({"burst": frame, "cburst": frame} if frame else {}) | values


def _take(read: Callable[[str], int | str | None], words: Words, name: str) -> int | str:
    """Take a value that `read` understands."""
    value = read(words.take())
    if value is None:
        raise Quit(LOCAL, f'Illegal "{name}"', CLASS_USAGE)
    return value


def _take_burst(words: Words, name: str) -> int:
    """Take SIZE or SIZE/CELL, the cell a power of two."""
    size, slash, cell = words.take().partition("/")
    value, step = read_size(size), c_number(cell) if slash else 1
    if value is None or not step or step & (step - 1):
        raise Quit(LOCAL, f'Illegal "{name}"', CLASS_USAGE)
    return value


def show_class(sheet: Sheet, row: TcClass, options: Options) -> None:
    """Put the options of a class."""
    values: Values = row.options
    if "rate" not in values:
        return
    rate, ceil = (format_rate(values[name], iec=options.iec) for name in ("rate", "ceil"))
    burst, cburst = (format_size(values[name]) for name in ("burst", "cburst"))
    if not values.get("level"):
        sheet.say(f"prio {values.get('prio', 0)} ")
        if options.details:
            sheet.say(f"quantum {values.get('quantum', 0)} ")
    layer = values.get("linklayer", "ethernet")
    sheet.say(f"rate {rate} " + (f"overhead {values['overhead']} " if values.get("overhead") else "") + f"ceil {ceil} ")
    if layer != "ethernet" or options.details:
        sheet.say(f"linklayer {layer} ")
    if options.details:
        mpu = format_size(int(values.get("mpu", 0)))
        sheet.say(f"burst {burst}/1 mpu {mpu} cburst {cburst}/1 mpu {mpu} level {values.get('level', 0)} ")
    else:
        sheet.say(f"burst {burst} cburst {cburst} ")


def show_class_stats(sheet: Sheet, row: TcClass) -> None:
    """Put what a class lent and borrowed, and the tokens it has left."""
    if "lended" in row.options:
        words = " lended: {lended} borrowed: {borrowed} giants: {giants}\n tokens: {tokens} ctokens: {ctokens}\n"
        sheet.say(words.format(**row.options))


def pack_class(made: TcClass) -> bytes:
    """Return TCA_HTB_PARMS and, when they take more than 32 bits, the rates.

    Raises:  InputError for a class without a rate.
    """
    options = made.options
    rate = integer(options, "rate")
    if not rate:
        raise InputError('"rate" is required.', where="class htb")
    ceil = integer(options, "ceil") or rate
    burst, cburst = (integer(options, name) or DEFAULT_BURST for name in ("burst", "cburst"))
    clock = ticks_per_us()
    buffers = xmit_time(rate, burst, clock), xmit_time(ceil, cburst, clock)
    rest = _OPT.pack(*buffers, integer(options, "quantum"), 0, integer(options, "prio"))
    rows = [attr(uapi.TCA_HTB_PARMS, _ratespec(rate, options) + _ratespec(ceil, options) + rest)]
    for kind, value in ((uapi.TCA_HTB_RATE64, rate), (uapi.TCA_HTB_CEIL64, ceil)):
        if value >> 32:
            rows.append(attr(kind, struct.pack("=Q", value)))
    return nest(TCA_OPTIONS, *rows)


def _ratespec(rate: int, options: Mapping[str, object]) -> bytes:
    layer = uapi.TC_LINKLAYER_ATM if options.get("linklayer") == "atm" else uapi.TC_LINKLAYER_ETHERNET
    return _RATE.pack(0, layer, integer(options, "overhead"), 0, integer(options, "mpu"), min(rate, 0xFFFFFFFF))


def read_class(rows: Mapping[int, bytes], xstats: bytes | None) -> Values:
    """Return the options of a dumped class."""
    if uapi.TCA_HTB_PARMS not in rows:
        return {}
    raw = rows[uapi.TCA_HTB_PARMS]
    first, second = (_RATE.unpack_from(raw, at) for at in (0, _RATE.size))
    buffer, cbuffer, quantum, level, prio = _OPT.unpack_from(raw, 2 * _RATE.size)
    rate, ceil = number(rows.get(uapi.TCA_HTB_RATE64), first[5]), number(rows.get(uapi.TCA_HTB_CEIL64), second[5])
    values: Values = {
        "rate": rate,
        "ceil": ceil,
        "burst": xmit_size(rate, buffer, ticks_per_us()),
        "cburst": xmit_size(ceil, cbuffer, ticks_per_us()),
        "prio": prio,
        "quantum": quantum,
        "level": level,
        "mpu": first[4],
        "overhead": first[2],
        "linklayer": "atm" if first[1] & uapi.TC_LINKLAYER_MASK == uapi.TC_LINKLAYER_ATM else "ethernet",
    }
    names = ("lended", "borrowed", "giants", "tokens", "ctokens")
    return values | (dict(zip(names, _XSTATS.unpack_from(xstats), strict=True)) if xstats else {})


def class_options(made: TcClass, qdisc: Qdisc) -> Values:
    """Return a class's options with the kernel's defaults: the quantum is a share of the rate, 1000 to 200000 bytes.

    Source:  htb_change_class().
    """
    options: Values = {name: value for name, value in made.options.items() if value}
    rate = integer(options, "rate")
    ceil = int(str(options.setdefault("ceil", rate)))
    for speed, burst, tokens in (rate, "burst", "tokens"), (ceil, "cburst", "ctokens"):
        ticks = xmit_time(speed, integer(options, burst, DEFAULT_BURST))
        options[burst], options[tokens] = xmit_size(speed, ticks), ticks
    options["prio"] = min(integer(options, "prio"), MAX_PRIO)
    quantum = min(max(rate // max(integer(qdisc.options, "r2q", R2Q), 1), 1000), 200_000)
    return {"quantum": quantum, "level": 0, "mpu": 0, "lended": 0, "borrowed": 0, "giants": 0} | options


def level(classes: Sequence[TcClass], row: TcClass) -> TcClass:
    """Return a class with its level: 0 for a leaf, 7 for one under the root that has children."""
    if not any(other.parent == row.classid for other in classes):
        return row
    number, at = MAX_DEPTH - 1, row
    by_id = {other.classid: other for other in classes}
    while at.parent in by_id:
        number, at = number - 1, by_id[at.parent]
    return replace(row, options={**row.options, "level": number})


HTB = QdiscKind(
    "htb",
    parse=parse,
    show=show,
    pack=pack,
    read=read,
    defaults=defaults,
    default_class=default_class,
    classes=ClassKind(
        parse=parse_class,
        show=show_class,
        show_stats=show_class_stats,
        pack=pack_class,
        read=read_class,
        options=class_options,
        leaf_only=("quantum", "prio"),
        max_depth=MAX_DEPTH,
        level=level,
        in_use="HTB class in use",
    ),
)
