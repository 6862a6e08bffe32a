#!/usr/bin/env python3
"""Write src/tcbpf/uapi/*.py: the kernel's numbers, from its BTF and its user-space headers.

    generate_uapi.py            write the files
    generate_uapi.py --check    compare the committed files with the running kernel's BTF; status 1 on drift

Enumerations come from BTF where it has them, since the running kernel is newer than most installed headers; what the
preprocessor defines comes from the headers.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from oracle import BTF, INCLUDE, absent, header_release, not_compared

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "src/tcbpf/uapi"

MODULES = {
    # module: (headers, what its names begin with)
    "bpf": (["bpf.h"], r"BPF_|XDP_|SK_|TCP_BPF_|BTF_"),
    "filter": (["bpf_common.h", "filter.h"], r"BPF_|SKF_"),
    "tc": (
        ["pkt_sched.h", "pkt_cls.h", "gen_stats.h", "tc_act/tc_bpf.h", "tc_act/tc_gact.h", "tc_act/tc_mirred.h"],
        r"TC|TCA_",
    ),
    "netlink": (
        ["netlink.h", "rtnetlink.h", "if_link.h", "if.h", "if_tunnel.h", "veth.h"],
        r"NL|RT|IFLA_|IFF_|IFNAMSIZ|VETH_|SO_|XDP_",
    ),
    "packet": (["if_ether.h", "if_packet.h", "if_arp.h", "if_vlan.h"], r"ETH_|PACKET_|ARPHRD_|PACKET_FANOUT|VLAN_"),
}
NAMED = ("bpf_func_id", "bpf_map_type", "bpf_prog_type", "bpf_attach_type", "bpf_cmd", "bpf_link_type")
"""The enumerations that are also wanted from number to name."""


def btf_enums(raw: bytes) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield (name, enumerators) of every enumeration in a BTF blob; anonymous ones have the name "".

    Source:  Documentation/bpf/btf.rst.
    """
    magic, _, _, header, type_off, type_len, str_off, str_len = struct.unpack_from("<HBBIIIII", raw)
    if magic != 0xEB9F:
        raise SystemExit("not BTF of a little-endian kernel")
    strings = raw[header + str_off : header + str_off + str_len]

    def text(off: int) -> str:
        return strings[off : strings.index(b"\0", off)].decode()

    at, end = header + type_off, header + type_off + type_len
    tail = {1: 4, 2: 0, 3: 12, 7: 0, 8: 0, 9: 0, 10: 0, 11: 0, 12: 0, 14: 4, 16: 0, 17: 4, 18: 0}
    each = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
    while at < end:
        name, info, _ = struct.unpack_from("<III", raw, at)
        kind, count, signed = info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31)
        at += 12
        if kind in (6, 19):
            form = ("<Ii" if signed else "<II") if kind == 6 else "<III"
            members = {}
            for i in range(count):
                member, low, *high = struct.unpack_from(form, raw, at + i * each[kind])
                value = low | high[0] << 32 if high else low
                members[text(member)] = value - (1 << 64) if high and signed and value >> 63 else value
            yield text(name), members
        at += tail[kind] if kind in tail else each[kind] * count


def c_value(expression: str, known: dict[str, int]) -> int | None:
    """Return the value of a C constant expression, or None when it is not one."""
    expression = re.sub(r"/\*.*?\*/|//.*", " ", expression, flags=re.S).strip()
    expression = re.sub(r"\b(0[xX][0-9a-fA-F]+|\d+)(?:[uUlL]+)\b", r"\1", expression)
    expression = re.sub(r"\(\s*(?:__u\d+|unsigned|int|__be\d+)\s*\)", "", expression)
    if not expression or not re.fullmatch(r"[\w\s()|&~+*<>/-]+", expression):
        return None
    expression = re.sub(r"\b0+(\d+)\b", r"0o\1", expression) if re.search(r"\b0\d", expression) else expression
    try:
        value = eval(expression, {"__builtins__": {}}, dict(known))
    except (NameError, SyntaxError, TypeError, ZeroDivisionError):
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def header_numbers(text: str, known: dict[str, int]) -> dict[str, int]:
    """Return the enumerators and object-like macros of a header, in file order."""
    text = re.sub(r"/\*.*?\*/", " ", text.replace("\\\n", " "), flags=re.S)
    found: dict[str, int] = {}
    pattern = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(.+)$|\benum\b[^{};()]*\{([^}]*)\}", re.M)
    for match in pattern.finditer(text):
        name, expression, body = match.groups()
        if name:
            value = c_value(expression, known | found)
            if value is not None and name not in found:
                found[name] = value
            continue
        following: int | None = 0
        for member in re.sub(r"^[ \t]*#.*$|//.*$", "", body, flags=re.M).split(","):
            word, _, expression = (part.strip() for part in member.partition("="))
            if word and not word.isidentifier():  # a macro that makes enumerators: BTF has them
                break
            if word:
                following = c_value(expression, known | found) if expression else following
                if following is None:
                    break
                found[word] = following
                following += 1
    return found


def numbers() -> dict[str, dict[str, int]]:
    """Return what each module is to hold."""
    enums = list(btf_enums(BTF.read_bytes()))
    live = {name: value for _, members in enums for name, value in members.items()}
    known: dict[str, int] = {}
    modules: dict[str, dict[str, int]] = {}
    for module, (headers, prefix) in MODULES.items():
        found: dict[str, int] = {}
        for header in headers:
            found |= header_numbers((INCLUDE / header).read_text(), known | found)
        known |= found
        wanted = re.compile(rf"(?:__)?(?:{prefix})")
        for name, members in enums:  # the running kernel's additions to an enumeration that is ours
            if (module == "bpf" and name in NAMED) or (members.keys() & found.keys() and all(map(wanted.match, members))):
                found |= members
        values = {name: live.get(name, value) for name, value in found.items() if wanted.match(name)}
        modules[module] = {
            name: values.get(f"__{name}", value + 1) - 1 if name.endswith("_MAX") else value for name, value in values.items()
        }
    return modules


def render(module: str, values: dict[str, int]) -> str:
    """Return the text of one generated module."""
    headers = ", ".join(f"linux/{header}" for header in MODULES[module][0])
    release = header_release() or "?"
    lines = [
        f'"""GENERATED by scripts/generate_uapi.py. Numbers of {headers}.',
        "",
        f"Source:  enumerations from the BTF of Linux {'.'.join(platform.release().split('.')[:2])}; "
        f"definitions from the user-space headers of Linux {release}.",
        '"""',
        "",
        "# ruff: noqa: E501",
        "",
    ]
    lines += [f"{name} = {value:#x}" if value > 4096 else f"{name} = {value}" for name, value in values.items()]
    if module == "bpf":
        for enum in NAMED:
            members = next(m for name, m in btf_enums(BTF.read_bytes()) if name == enum)
            names: dict[int, str] = {}
            for name, value in members.items():
                if not name.startswith("__"):
                    names.setdefault(value, name)
            lines += ["", f"{enum.upper()}: dict[int, str] = {{", *(f'    {v}: "{n}",' for v, n in names.items()), "}"]
    return "\n".join(lines) + "\n"


def drift() -> list[str]:
    """Return how the committed modules differ from the running kernel's enumerations."""
    sys.path.insert(0, str(ROOT / "src"))
    live: dict[str, set[int]] = {}
    for _, members in btf_enums(BTF.read_bytes()):
        for name, value in members.items():
            live.setdefault(name, set()).add(value)
    problems = []
    moving = re.compile(r"__.*MAX|.*_MAX(_ID)?$|__.*LAST")  # grow with each release
    for module in MODULES:
        held = vars(importlib.import_module(f"tcbpf.uapi.{module}"))
        problems += [
            f"{module}.{name}: {value} here, {sorted(live[name])} in the kernel"
            for name, value in held.items()
            if isinstance(value, int) and name in live and value not in live[name] and not moving.match(name)
        ]
    bpf = vars(importlib.import_module("tcbpf.uapi.bpf"))
    for name, members in btf_enums(BTF.read_bytes()):
        if name in NAMED:
            problems += [
                f"{name}: the kernel's {member} is not here"
                for member in members
                if member not in bpf and not member.startswith("__")
            ]
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if parser.parse_args().check:
        if why := absent():
            return not_compared("uapi", why)
        problems = drift()
        print("\n".join(problems) or "uapi agrees with the running kernel")
        return 1 if problems else 0
    for module, values in numbers().items():
        (OUT / f"{module}.py").write_text(render(module, values))
        print(f"{module}.py: {len(values)} numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
