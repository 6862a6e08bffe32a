#!/usr/bin/env python3
"""Write src/tcbpf/uapi/kfuncs.py: the kernel functions that BPF programs may call, from the running kernel itself.

    generate_kfuncs.py            write the file
    generate_kfuncs.py --check    compare the committed file with the running kernel; status 1 on drift

Names and prototypes come from BTF (functions tagged bpf_kfunc), flags from the sets of ids in the kernel's read-only data
(struct btf_id_set8, include/linux/btf_ids.h), and who may call one from asking the verifier.
"""

from __future__ import annotations

import argparse
import platform
import struct
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from kernel_memory import data_symbols, read  # noqa: E402
from kernel_oracle import missing, verdict  # noqa: E402
from oracle import absent, not_compared  # noqa: E402
from tcbpf.isa.insn import Insn  # noqa: E402
from tcbpf.obj.btf import Btf, Kind, Type  # noqa: E402
from tcbpf.obj.btf_index import kernel_btf  # noqa: E402

OUT = ROOT / "src/tcbpf/uapi/kfuncs.py"
TYPES = ("sched_cls", "sched_act", "socket_filter", "xdp", "cgroup_skb")
FLAGS = (
    "ACQUIRE",
    "RELEASE",
    "RET_NULL",
    "",
    "TRUSTED_ARGS",
    "SLEEPABLE",
    "DESTRUCTIVE",
    "RCU",
    "ITER_NEW",
    "ITER_NEXT",
    "ITER_DESTROY",
    "RCU_PROTECTED",
    "FASTCALL",
    "ARENA_RET",
    "ARENA_ARG1",
    "ARENA_ARG2",
)
"""The bits KF_*, include/linux/btf.h."""
RECORDS = (Kind.STRUCT, Kind.UNION)
MOST = 200  # ids of one set


def tagged(btf: Btf) -> dict[int, str]:
    """Return id and name of every function that BTF marks as a kfunc."""
    found = {}
    for row in btf.types[1:]:
        if row.kind is Kind.DECL_TAG and row.name == "bpf_kfunc":
            found[row.type] = btf[row.type].name
    return found


def sets(ids: dict[int, str]) -> Iterator[tuple[int, int]]:
    """Yield (id, flags) of every member of every kfunc set, found by shape: a count, the flag of such a set, pairs by id."""
    address = next(place for place, name in data_symbols() if name == "__start_rodata")
    chunks = []
    while (chunk := read(address)) is not None:
        chunks.append(chunk)
        address += len(chunk)
    data = b"".join(chunks)
    words = struct.unpack(f"<{len(data) // 4}I", data)
    for at, (count, kind) in enumerate(pairwise(words)):
        if not 0 < count < MOST or kind != 1 or words[at + 2] not in ids:
            continue
        pairs = words[at + 2 : at + 2 + 2 * count]
        if list(pairs[::2]) == sorted(pairs[::2]) and all(id in ids for id in pairs[::2]):
            yield from zip(pairs[::2], pairs[1::2], strict=True)


def spelled(btf: Btf, id: int) -> str:
    """Return how a prototype spells a type, without qualifiers."""
    stars = ""
    while True:
        row = btf[id]
        if row.kind is Kind.PTR:
            stars, id = "*" + stars, row.type
            if btf.resolve(id).kind is Kind.FUNC_PROTO:
                return "callback *"
        elif row.kind in (Kind.CONST, Kind.VOLATILE, Kind.RESTRICT, Kind.TYPE_TAG):
            id = row.type
        elif row.kind is Kind.TYPEDEF and row.name.endswith("callback_t"):
            return "callback *"
        else:
            word = {Kind.STRUCT: "struct ", Kind.FWD: "struct ", Kind.UNION: "union ", Kind.ENUM: "enum "}.get(row.kind, "")
            return f"{word}{row.name} {stars}"


def prototype(btf: Btf, id: int) -> str:
    """Return "int (struct bpf_iter_num *it, int start, int end)"."""
    proto = btf[btf[id].type]
    params = ", ".join(spelled(btf, member.type) + member.name for member in proto.members)
    return f"{spelled(btf, proto.type).strip() if proto.type else 'void'} ({params or 'void'})"


def sizes(btf: Btf, ids: dict[int, str]) -> dict[str, int]:
    """Return the size of every structure of numbers only that a parameter points to: memory that a program may hand over."""
    found = {}
    for id in ids:
        proto = btf[btf[id].type]
        for pointer in (btf.resolve(member.type) for member in proto.members):
            target = btf.resolve(pointer.type)
            if pointer.kind is Kind.PTR and target.kind in RECORDS and plain(btf, target):
                found[target.name] = target.size
    return dict(sorted(found.items()))


def plain(btf: Btf, row: Type) -> bool:
    """Tell whether a type is a number, or an array or structure of numbers."""
    if row.kind is Kind.ARRAY:
        return plain(btf, btf.resolve(row.type))
    if row.kind in RECORDS:
        return all(plain(btf, btf.resolve(member.type)) for member in row.members)
    return row.kind in (Kind.INT, Kind.ENUM, Kind.ENUM64)


def callers(id: int) -> str:
    """Return the program types that may call the function, as the verifier says."""
    call = [Insn(0x85, 0, 2, 0, id), Insn(0xB7), Insn(0x95)]
    return " ".join(kind for kind in TYPES if "is not allowed" not in verdict(call, kind)[1])


def render() -> str:
    """Return the text of the module."""
    btf = kernel_btf()
    ids = tagged(btf)
    flags: dict[int, int] = {}
    for id, bits in sets(ids):
        flags[id] = flags.get(id, 0) | bits
    lines = [
        '"""GENERATED by scripts/generate_kfuncs.py. The kernel\'s functions for programs: prototype, KF_ flags, callers.',
        "",
        f"Source:  BTF, kfunc sets and verifier of Linux {'.'.join(platform.release().split('.')[:2])}, x86_64.",
        '"""',
        "",
        "# ruff: noqa: E501",
        "",
        "KFUNCS: dict[str, tuple[str, str, str]] = {",
    ]
    for id, name in sorted(ids.items(), key=lambda pair: pair[1]):
        words = " ".join(word for bit, word in enumerate(FLAGS) if flags.get(id, 0) >> bit & 1)
        lines.append(f'    "{name}": ("{prototype(btf, id)}", "{words}", "{callers(id) if id in flags else ""}"),')
    lines += ["}", "", "SIZES: dict[str, int] = {", *(f'    "{name}": {size},' for name, size in sizes(btf, ids).items()), "}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if not parser.parse_args().check:
        OUT.write_text(render())
        return 0
    if why := absent(root=True) or missing():
        return not_compared("kfuncs", why)
    held, live = OUT.read_text().splitlines(), render().splitlines()
    drift = sorted(set(held) ^ set(live))
    print("\n".join(drift) or "kfuncs agree with the running kernel")
    return 1 if drift else 0


if __name__ == "__main__":
    sys.exit(main())
