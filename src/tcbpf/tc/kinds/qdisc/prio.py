"""prio: a class for each band; pfifo_fast: its bands without classes.

Options: bands; priomap, the bands of the 16 priorities.

Source:  net/sched/sch_prio.c, sch_generic.c (v6.18); tc/q_prio.c of iproute2 6.1.
"""

from __future__ import annotations

import struct
from typing import Any

from tcbpf.control.args import LOCAL, Options, Quit, Words, c_number
from tcbpf.control.attributes import TCA_OPTIONS, attr
from tcbpf.control.objects import Link, Qdisc
from tcbpf.control.sheet import Sheet
from tcbpf.tc.kinds.qdisc.kind import ClassKind, QdiscKind, Values, integer

USAGE = "Usage: ... prio [ bands NUMBER ] [ priomap P1 P2 ... P16 ]"
BANDS, PRIOMAP = 3, (1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
_QOPT = struct.Struct("=i16B")  # struct tc_prio_qopt: bands, priomap


def parse(words: Words) -> Values:
    """Take `bands N` and `priomap P1 ...`."""
    values: Values = {}
    while words:
        word = words.take()
        if word == "bands":
            values["bands"] = words.number('Illegal "bands"', status=LOCAL)
        elif word == "priomap":
            values["priomap"] = _priomap(words, int(values.get("bands", BANDS)))
        else:
            raise Quit(LOCAL, *([] if word == "help" else [f'What is "{word}"?']), USAGE)
    return values


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


def show(sheet: Sheet, row: Qdisc, options: Options) -> None:
    """Put bands and map."""
    values: Values = row.options
    if "bands" in values:
        sheet.put("bands", values["bands"], "bands {} ")
        sheet.put("priomap", list(values["priomap"]), "priomap {}", shown=" ".join(str(band) for band in values["priomap"]))


def pack(qdisc: Qdisc) -> bytes:
    """Return struct tc_prio_qopt."""
    if not qdisc.options:
        return b""
    priomap: Any = qdisc.options.get("priomap", PRIOMAP)
    return attr(TCA_OPTIONS, _QOPT.pack(integer(qdisc.options, "bands", BANDS), *priomap))


def read(raw: bytes) -> Values:
    """Return the options of struct tc_prio_qopt."""
    bands, *priomap = _QOPT.unpack_from(raw)
    return {"bands": bands, "priomap": tuple(priomap)}


def defaults(link: Link) -> Values:
    """Return three bands, and the usual map."""
    return {"bands": BANDS, "priomap": PRIOMAP}


def default_class(qdisc: Qdisc) -> int:
    """Return the class of priority 0's band."""
    priomap = qdisc.options["priomap"]
    return qdisc.handle | 1 + int(priomap[0]) if isinstance(priomap, tuple) else 0


def bands(qdisc: Qdisc) -> range:
    """Return one minor number a band."""
    return range(1, integer(qdisc.options, "bands") + 1)


PRIO = QdiscKind(
    "prio",
    parse=parse,
    show=show,
    pack=pack,
    read=read,
    defaults=defaults,
    default_class=default_class,
    bands=bands,
    classes=ClassKind(),
    changes=True,
)
PFIFO_FAST = QdiscKind("pfifo_fast", show=show, read=read, defaults=defaults)
