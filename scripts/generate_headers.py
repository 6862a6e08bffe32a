#!/usr/bin/env python3
"""Write what BPF programs in C include: linux/bpf.h (names, numbers, layouts) and bpf_helper_defs.h (the helpers).

    generate_headers.py [--btf /sys/kernel/btf/vmlinux] [--header /usr/include/linux/bpf.h] [--check]

Enumerations and structures come from a kernel's BTF; plain macros, and the prototypes of helpers that tables/helpers.py has
no row for, from its UAPI header. `--check` writes nothing and says whether the files on disk are what would be written.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from oracle import absent, not_compared  # noqa: E402
from tcbpf.obj.btf import Btf, Kind, Type  # noqa: E402
from tcbpf.obj.btf_parse import parse  # noqa: E402
from tcbpf.tables.helpers import HELPERS  # noqa: E402

INCLUDE = ROOT / "src/tcbpf/lang/include"
ENUMS = (
    "bpf_map_type",
    "bpf_prog_type",
    "bpf_attach_type",
    "bpf_func_id",
    "bpf_adj_room_mode",
    "bpf_hdr_start_off",
    "bpf_lwt_encap_mode",
    "bpf_ret_code",
    "xdp_action",
    "sk_action",
    "tcx_action_base",
    "bpf_check_mtu_flags",
    "bpf_check_mtu_ret",
    "bpf_stats_type",
    "bpf_task_fd_type",
    "bpf_cgroup_iter_order",
    "bpf_core_relo_kind",
)
"""Named enumerations."""

ANONYMOUS = (
    "BPF_REG_0",
    "BPF_ANY",
    "BPF_F_NO_PREALLOC",
    "BPF_F_RECOMPUTE_CSUM",
    "BPF_F_HDR_FIELD_MASK",
    "BPF_F_PSEUDO_HDR",
    "BPF_F_INGRESS",
    "BPF_F_TUNINFO_IPV6",
    "BPF_F_SKIP_FIELD_MASK",
    "BPF_F_ZERO_CSUM_TX",
    "BPF_F_TUNINFO_FLAGS",
    "BPF_F_INDEX_MASK",
    "BPF_F_CURRENT_NETNS",
    "BPF_CSUM_LEVEL_QUERY",
    "BPF_F_ADJ_ROOM_FIXED_GSO",
    "BPF_ADJ_ROOM_ENCAP_L2_MASK",
    "BPF_LOCAL_STORAGE_GET_F_CREATE",
    "BPF_RB_NO_WAKEUP",
    "BPF_RB_AVAIL_DATA",
    "BPF_RINGBUF_BUSY_BIT",
    "BPF_SK_LOOKUP_F_REPLACE",
    "BPF_SKB_TSTAMP_UNSPEC",
    "BPF_FIB_LOOKUP_DIRECT",
    "BPF_FIB_LKUP_RET_SUCCESS",
    "BPF_FLOW_DISSECTOR_F_PARSE_1ST_FRAG",
    "BPF_F_TIMER_ABS",
    "BTF_F_COMPACT",
    "BPF_TCP_ESTABLISHED",
)
"""Enumerations without a name, by their first enumerator."""

STRUCTS = (
    "bpf_insn",
    "bpf_lpm_trie_key_hdr",
    "bpf_cgroup_storage_key",
    "bpf_flow_keys",
    "bpf_sock",
    "__sk_buff",
    "bpf_tunnel_key",
    "bpf_xfrm_state",
    "bpf_tcp_sock",
    "bpf_sock_tuple",
    "xdp_md",
    "bpf_devmap_val",
    "bpf_cpumap_val",
    "sk_msg_md",
    "sk_reuseport_md",
    "bpf_sock_addr",
    "bpf_sock_ops",
    "bpf_perf_event_value",
    "bpf_cgroup_dev_ctx",
    "bpf_fib_lookup",
    "bpf_redir_neigh",
    "bpf_spin_lock",
    "bpf_timer",
    "bpf_wq",
    "bpf_dynptr",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_refcount",
    "bpf_sysctl",
    "bpf_sockopt",
    "bpf_pidns_info",
    "bpf_sk_lookup",
    "btf_ptr",
    "bpf_iter_num",
)

HAND = """\
struct bpf_lpm_trie_key {
	__u32 prefixlen;
	__u8 data[0];
};

struct bpf_lpm_trie_key_u8 {
	union {
		struct bpf_lpm_trie_key_hdr hdr;
		__u32 prefixlen;
	};
	__u8 data[];
};

#define __bpf_md_ptr(type, name) union { type name; __u64 :64; } __attribute__((aligned(8)))
"""
"""What BTF cannot say: arrays without a length, and a macro with arguments."""

WORDS = {
    "unsigned char": "__u8",
    "unsigned short": "__u16",
    "unsigned int": "__u32",
    "unsigned long long": "__u64",
    "u8": "__u8",
    "u16": "__u16",
    "u32": "__u32",
    "u64": "__u64",
}


def enum(row: Type) -> Iterator[str]:
    """Yield the C text of an enumeration."""
    yield f"enum {row.name} {{".replace("  ", " ")
    for m in row.members:
        yield f"\t{m.name} = {m.value if -(1 << 31) <= m.value < 1 << 31 else hex(m.value) + 'ULL'},"
    yield "};\n"


def declare(btf: Btf, id: int, name: str, depth: int) -> list[str]:
    """Return the C text that declares `name` of a type; anonymous structures are written out in place."""
    row = btf[id]
    if row.kind == Kind.ARRAY:
        return declare(btf, row.type, f"{name}[{row.nelems}]", depth)
    if row.kind in (Kind.STRUCT, Kind.UNION) and not row.name:
        word = row.kind.name.lower()
        body = ["\t" + line for line in members(btf, row, depth + 1)]
        return [f"{word} {{", *body, "}" + (f" {name}" if name else "") + ";"]
    if row.kind == Kind.PTR:
        return [f"{btf.name(row.type)} *{name};"]
    text = btf.name(id)
    return [f"{WORDS.get(text, text)} {name};"]


def members(btf: Btf, row: Type, depth: int = 0) -> Iterator[str]:
    """Yield the members of a structure, with unnamed bit-fields where it has holes."""
    at = 0
    for m in row.members:
        unit = align(btf, m.type) * 8
        if row.kind == Kind.STRUCT and m.offset > at and m.offset != -(-at // unit) * unit:
            yield from (f"__u{width} :{width};" for width in (8, 16, 32) if (m.offset - at) & width)
        if m.bits:
            text = btf.name(m.type)
            yield f"{WORDS.get(text, text)} {m.name}:{m.bits};"
            at = m.offset + m.bits
            continue
        yield from declare(btf, m.type, m.name, depth)
        at = m.offset + btf.sizeof(m.type) * 8


def align(btf: Btf, id: int) -> int:
    """Return the natural alignment of a type in bytes."""
    row = btf.resolve(id)
    if row.kind == Kind.ARRAY:
        return align(btf, row.type)
    if row.kind in (Kind.STRUCT, Kind.UNION):
        return max((align(btf, m.type) for m in row.members), default=1)
    return btf.sizeof(row.id)


def structure(btf: Btf, name: str) -> Iterator[str]:
    """Yield the C text of a structure, held to its size and alignment."""
    row = btf.find(name, Kind.STRUCT)
    if row is None:
        raise SystemExit(f"this BTF has no struct {name}")
    yield f"struct {name} {{"
    if name.startswith(("bpf_timer", "bpf_wq", "bpf_dynptr", "bpf_list_", "bpf_rb_", "bpf_iter_")):
        words = row.size // 8
        yield f"\t__u64 __opaque[{words}];"
        yield "} __attribute__((aligned(8)));\n"
        return
    for line in members(btf, row):
        yield "\t" + line
    yield "};\n"


def macros(header: str, known: set[str]) -> Iterator[str]:
    """Yield the plain macros of the UAPI header: a name and a number, or an expression of numbers and names."""
    for name, value in re.findall(r"^#define[ \t]+([A-Z_0-9]+)[ \t]+(.+?)(?:[ \t]*/\*.*)?$", header, re.M):
        if name not in known and not name.startswith("__") and re.fullmatch(r"[\w()<|~+\- ]+", value):
            yield f"#define {name} {value}"


def text(btf: Btf, header: str, origin: str) -> str:
    """Return the whole file."""
    lines = [
        f"/* GENERATED by scripts/generate_headers.py from {origin}. */",
        "#ifndef TCBPF_LINUX_BPF_H",
        "#define TCBPF_LINUX_BPF_H",
        "#define __LINUX_BPF_H__",
        "#define _UAPI__LINUX_BPF_H__\n",
        "#include <linux/types.h>",
        "#include <linux/bpf_common.h>\n",
    ]
    known: set[str] = set()
    unnamed = [row for row in btf.types if row.kind in (Kind.ENUM, Kind.ENUM64) and not row.name and row.members]
    first = {row.members[0].name: row for row in unnamed}
    for row in [*(btf.find(name, Kind.ENUM, Kind.ENUM64) for name in ENUMS), *(first.get(name) for name in ANONYMOUS)]:
        if row is None:
            raise SystemExit("this BTF lacks an enumeration")
        known |= {m.name for m in row.members}
        lines.extend(enum(row))
    lines.extend(macros(header, known))
    lines.append("")
    for name in STRUCTS:
        lines.extend(structure(btf, name))
        if name == "bpf_lpm_trie_key_hdr":
            lines.append(HAND)
    lines.append("#endif\n")
    return "\n".join(lines)


C_TYPES = {
    "struct sk_buff": "struct __sk_buff",
    "struct xdp_buff": "struct xdp_md",
    "struct sk_msg_buff": "struct sk_msg_md",
    "struct bpf_map *": "void *",
    "u8": "__u8",
    "u16": "__u16",
    "u32": "__u32",
    "u64": "__u64",
    "s32": "__s32",
    "s64": "__s64",
    "size_t": "__u64",
}
MANY = {"get_socket_cookie": "u64 (void *ctx)"}
"""Helpers with one prototype for each context."""


def prototypes(header: str) -> dict[str, str]:
    """Return each helper's prototype by its name without bpf_: the row's, or the one in the UAPI header."""
    said = re.findall(r"^ \* ([a-z].*?)bpf_(\w+)\((.*)\)$", header, re.M)
    found = {name: f"{result}({args})" for result, name, args in said}
    return found | {row.name: row.proto for row in HELPERS if row.proto} | MANY


def helpers(btf: Btf, header: str, origin: str) -> str:
    """Return the whole text of bpf_helper_defs.h."""
    numbers = btf.find("bpf_func_id", Kind.ENUM, Kind.ENUM64)
    assert numbers is not None
    lines, structs = [], set()
    known = prototypes(header)
    for m in numbers.members:
        name = m.name.removeprefix("BPF_FUNC_")
        if name not in known:
            continue
        result, args = known[name].split("(", 1)
        args = re.sub(r"struct bpf_map \*", "void *", args)
        for old, new in C_TYPES.items():
            result, args = (re.sub(rf"\b{re.escape(old)}(?!\w)", new, part) for part in (result, args))
        structs |= set(re.findall(r"struct \w+", result + args))
        result = result if result.endswith("*") else result.rstrip() + " "
        lines.append(f"static {result}(* const bpf_{name})({args} = (void *){m.value};")
    return "\n".join(
        [
            f"/* GENERATED by scripts/generate_headers.py from tcbpf/tables/helpers.py, {origin}. */",
            "#pragma once\n",
            "#include <linux/types.h>\n",
            *(f"{name};" for name in sorted(structs)),
            "",
            *lines,
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--btf", default="/sys/kernel/btf/vmlinux")
    parser.add_argument("--header", default="/usr/include/linux/bpf.h")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check and (why := absent(headers=True)):
        return not_compared("headers", why)
    btf = parse(Path(args.btf).read_bytes())
    origin = f"the BTF of Linux {platform.release().split('-')[0]} and {args.header}"
    header = Path(args.header).read_text()
    made = {"linux/bpf.h": text(btf, header, origin), "bpf_helper_defs.h": helpers(btf, header, origin)}
    status = 0
    for name, wanted in made.items():
        path = INCLUDE / name
        if not args.check:
            path.write_text(wanted)
        elif not path.exists() or path.read_text().splitlines()[1:] != wanted.splitlines()[1:]:
            print(f"{path.relative_to(ROOT)} differs")
            status = 1
    if args.check and not status:
        print("headers agree with the running kernel and its user-space headers")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
