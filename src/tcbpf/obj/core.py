"""CO-RE: make an instruction's number fit the types of the kernel that will run it.

A compiler writes down *what* a number means ("the offset of field mark of struct sk_buff"); here the same path is walked
through another BTF, and the number found there goes into the instruction. Where the path does not exist the instruction
becomes a call that the verifier refuses if it can be reached: a program may ask with bpf_core_field_exists() and go round it.

Source:  the rules of libbpf's relo_core.c; struct bpf_core_relo, include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tcbpf.errors import NotSupported, ObjectError
from tcbpf.isa.insn import Insn
from tcbpf.obj.btf import MAX_DEPTH, Btf, Kind, Member, Type
from tcbpf.obj.btf_ext import SECTION, CoreRelo
from tcbpf.tables.opcodes import ALU32, ALU64, CALL, CLASS, JMP, LD_IMM64, LDX, SIZE, SIZE_CODE, ST, STX, X

COMPOSITE = frozenset({Kind.STRUCT, Kind.UNION})
ENUMS = frozenset({Kind.ENUM, Kind.ENUM64})
BAD_CALL = 0xBAD2310
"""The helper number of the call that stands where a path does not exist, as libbpf writes it."""

STABLE = frozenset(
    {
        "__sk_buff",
        "xdp_md",
        "bpf_sock",
        "bpf_tcp_sock",
        "bpf_sock_tuple",
        "bpf_tunnel_key",
        "bpf_xfrm_state",
        "bpf_fib_lookup",
        "bpf_redir_neigh",
        "bpf_flow_keys",
        "bpf_sock_addr",
        "bpf_sock_ops",
        "sk_msg_md",
        "sk_reuseport_md",
        "bpf_sk_lookup",
        "bpf_sysctl",
        "bpf_sockopt",
        "bpf_cgroup_dev_ctx",
        "bpf_insn",
        "bpf_lpm_trie_key",
        "bpf_lpm_trie_key_u8",
        "bpf_spin_lock",
        "bpf_timer",
        "bpf_dynptr",
        "bpf_devmap_val",
        "bpf_cpumap_val",
        "bpf_pidns_info",
        "btf_ptr",
        "ethhdr",
        "vlan_hdr",
        "vlan_ethhdr",
        "arphdr",
        "iphdr",
        "ipv6hdr",
        "in_addr",
        "in6_addr",
        "ipv6_opt_hdr",
        "frag_hdr",
        "tcphdr",
        "udphdr",
        "icmphdr",
        "icmp6hdr",
        "sctphdr",
    }
)
"""Types of the UAPI and of wires: the same on every kernel, so that the object's own description serves."""

_FLAVOR = re.compile(r"___.+$")


@dataclass(slots=True)
class Path:
    """A way into a type: the root, the accesses on it (type id, index, member), and where they lead.

    Units:   offset in bits from the start of the root.
    """

    btf: Btf
    root: Type
    steps: list[tuple[int, int, Member | None]] = field(default_factory=list)
    offset: int = 0


def essential(name: str) -> str:
    """Return a name without its flavor: "sk_buff" of "sk_buff___old"."""
    return _FLAVOR.sub("", name)


def relocate(insns: list[Insn], pc: int, relo: CoreRelo, local: Btf, target: Btf) -> None:
    """Patch the instruction at `pc` for `target`.

    Raises:  ObjectError when the relocation or the instruction breaks the rules; NotSupported for the kinds that
             are not known.
    """
    mine = parse_path(local, relo)
    found = list(candidates(mine, relo, target))
    before = value(mine, relo, relo.type_id)
    after = {value(path, relo, relo.type_id) for path in found}
    if len(after) > 1:
        raise wrong(f"{describe(relo, local)} has several meanings here: {sorted(after, key=str)}")
    if not found and not relo.kind.endswith("_exists"):
        insns[pc] = Insn(JMP | CALL, imm=BAD_CALL)
        if insns[pc + 1 : pc + 2] and insns[pc + 1].code == 0:  # the second half of a 16-byte instruction
            insns[pc + 1] = Insn(JMP | CALL, imm=BAD_CALL)
        return
    new = after.pop() if after else 0
    checked = relo.kind not in ("field_signed", "local_type_id")
    patch(insns, pc, before if checked else None, new, resize(mine, found, relo))


def describe(relo: CoreRelo, local: Btf) -> str:
    """Return how messages call a relocation: "field_byte_offset struct sk_buff:0:1"."""
    return f"{relo.kind} {local.name(relo.type_id)}:{relo.access}"


def wrong(what: str) -> ObjectError:
    return ObjectError(what, section=SECTION)


# --- paths ---------------------------------------------------------------------------------------------------------------


def parse_path(btf: Btf, relo: CoreRelo) -> Path:
    """Return the path that a relocation's text spells in the types of its own object."""
    if not re.fullmatch(r"\d{1,9}(:\d{1,9}){0,63}", relo.access):
        raise wrong(f"path {relo.access!r}")
    indices = [int(part) for part in relo.access.split(":")]
    root = btf.resolve(relo.type_id)
    path = Path(btf, root)
    if relo.kind.startswith(("type_", "local_type", "target_type")):
        path.root = btf[relo.type_id]
        return path
    if relo.kind.startswith("enumval_"):
        if root.kind not in ENUMS or len(indices) != 1 or indices[0] >= len(root.members):
            raise wrong(f"{describe(relo, btf)} is no enumerator")
        path.steps.append((root.id, indices[0], root.members[indices[0]]))
        return path
    path.offset = indices[0] * btf.sizeof(root.id) * 8
    path.steps.append((root.id, indices[0], None))
    at = root
    for index in indices[1:]:
        if at.kind in COMPOSITE:
            if index >= len(at.members):
                raise wrong(f"{describe(relo, btf)}: no member {index}")
            m = at.members[index]
            path.offset += m.offset
            if m.name:
                path.steps.append((at.id, index, m))
            at = btf.resolve(m.type)
        elif at.kind == Kind.ARRAY:
            at = btf.resolve(at.type)
            path.offset += index * btf.sizeof(at.id) * 8
            path.steps.append((at.id, index, None))
        else:
            raise wrong(f"{describe(relo, btf)}: {btf.name(at.id)} has no parts")
    return path


def candidates(mine: Path, relo: CoreRelo, target: Btf) -> Iterator[Path]:
    """Yield the same path in each type of `target` that may be meant; a local type id needs none."""
    if relo.kind == "local_type_id":
        yield mine
        return
    name = essential(mine.root.name)
    for root in target.named(name) if name else ():
        if root.kind != mine.root.kind and not {root.kind, mine.root.kind} <= ENUMS:
            continue
        if relo.kind.startswith(("type_", "target_type")):
            if relo.kind == "type_matches":
                raise NotSupported("CO-RE relocation type_matches is not supported")
            if types_agree(mine.btf, mine.root.id, target, root.id):
                yield Path(target, root)
        elif relo.kind.startswith("enumval_"):
            wanted = essential(mine.steps[0][2].name) if mine.steps[0][2] else ""
            for index, m in enumerate(root.members):
                if essential(m.name) == wanted:
                    yield Path(target, root, [(root.id, index, m)])
                    break
        elif (path := follow(mine, target, root)) is not None:
            yield path


def follow(mine: Path, target: Btf, root: Type) -> Path | None:
    """Return the way through `root` that has the same names and array places, or None."""
    path = Path(target, root)
    at = root
    for number, (_, index, member) in enumerate(mine.steps):
        if member is not None:
            found = match_member(mine.btf, member, target, at)
            if found is None:
                return None
            for owner, place, m in found:
                path.offset += m.offset
                if m.name:
                    path.steps.append((owner.id, place, m))
            at = target.resolve(found[-1][2].type)
            continue
        if number:
            if at.kind != Kind.ARRAY or (index >= at.nelems and at.nelems):
                return None
            at = target.resolve(at.type)
        path.offset += index * target.sizeof(at.id) * 8
        path.steps.append((at.id, index, None))
    return path


def match_member(local: Btf, wanted: Member, target: Btf, owner: Type, depth: int = 0) -> list[tuple[Type, int, Member]] | None:
    """Return the members, anonymous ones first, that lead to the one of that name and a type like it, or None."""
    if owner.kind not in COMPOSITE or depth > MAX_DEPTH:
        return None
    for index, m in enumerate(owner.members):
        if m.name == wanted.name:
            return [(owner, index, m)] if fields_agree(local, wanted.type, target, m.type) else None
        if not m.name:
            below = match_member(local, wanted, target, target.resolve(m.type), depth + 1)
            if below is not None:
                return [(owner, index, m), *below]
    return None


def fields_agree(local: Btf, mine: int, target: Btf, theirs: int) -> bool:
    """Return whether two fields may be the same one: of one kind, whatever their size."""
    for _ in range(MAX_DEPTH):
        a, b = local.resolve(mine), target.resolve(theirs)
        if a.kind in COMPOSITE and b.kind in COMPOSITE:
            return True
        if a.kind != b.kind and not {a.kind, b.kind} <= ENUMS:
            return False
        if a.kind in ENUMS or a.kind == Kind.FWD:
            return not a.name or not b.name or essential(a.name) == essential(b.name)
        if a.kind != Kind.ARRAY:
            return True
        mine, theirs = a.type, b.type
    return False


def types_agree(local: Btf, mine: int, target: Btf, theirs: int, depth: int = 0) -> bool:
    """Return whether two types may be the same one, their parts' kinds compared as far as pointers reach."""
    if depth > MAX_DEPTH:
        return False
    a, b = local.resolve(mine), target.resolve(theirs)
    if a.kind != b.kind and not {a.kind, b.kind} <= ENUMS:
        return False
    if a.kind in (Kind.PTR, Kind.ARRAY):
        return types_agree(local, a.type, target, b.type, depth + 1)
    if a.kind == Kind.FUNC_PROTO:
        return (
            len(a.members) == len(b.members)
            and all(types_agree(local, x.type, target, y.type, depth + 1) for x, y in zip(a.members, b.members, strict=True))
            and types_agree(local, a.type, target, b.type, depth + 1)
        )
    return True


# --- values --------------------------------------------------------------------------------------------------------------


def value(path: Path, relo: CoreRelo, local_id: int) -> int:
    """Return the number that a relocation asks for, on a path."""
    kind = relo.kind
    if kind == "local_type_id":
        return local_id
    if kind == "target_type_id":
        return path.root.id
    if kind.endswith("_exists"):
        return 1
    if kind == "type_size":
        return path.btf.sizeof(path.root.id)
    if kind == "enumval_value":
        m = path.steps[0][2]
        return m.value if m else 0
    if not kind.startswith("field_"):
        raise NotSupported(f"CO-RE relocation {kind} is not supported")
    return field_value(path, kind)


def field_value(path: Path, kind: str) -> int:
    """Return a property of the field at the end of a path. A bit-field counts as the aligned word that holds all of it."""
    type_id, _, member = path.steps[-1]
    if member is None:
        if kind not in ("field_byte_offset", "field_byte_size"):
            raise wrong(f"{kind} of an array's element")
        return path.offset // 8 if kind == "field_byte_offset" else path.btf.sizeof(type_id)
    row = path.btf.resolve(member.type)
    size = path.btf.sizeof(member.type)
    bits = member.bits or size * 8
    start = path.offset // 8
    if member.bits:
        start = path.offset // 8 // size * size
        while path.offset + bits - start * 8 > size * 8:
            if size >= 8:
                raise wrong(f"bit-field {member.name} lies across 64-bit words")
            size *= 2
            start = path.offset // 8 // size * size
    if kind == "field_byte_offset":
        return start
    if kind == "field_byte_size":
        return size
    if kind == "field_signed":
        return int(row.encoding & 1 or (row.kind in ENUMS and row.flag))
    if kind == "field_lshift_u64":
        return 64 - (path.offset + bits - start * 8)
    return 64 - bits  # field_rshift_u64


def resize(mine: Path, found: list[Path], relo: CoreRelo) -> tuple[int, int] | None:
    """Return (size there, size here) of a field that a load or store reads whole, when they differ and may."""
    if relo.kind != "field_byte_offset" or not found:
        return None
    sizes = []
    for path in (mine, found[0]):
        type_id, _, member = path.steps[-1]
        if member is not None and member.bits:
            return None
        row = path.btf.resolve(member.type if member else type_id)
        sizes.append((path.btf.sizeof(row.id), row))
    (before, a), (after, b) = sizes
    if before == after:
        return None
    whole = (a.kind == b.kind == Kind.PTR) or (a.kind == b.kind == Kind.INT and not (a.signed or b.signed))
    return (before, after) if whole else (before, -1)


def patch(insns: list[Insn], pc: int, before: int | None, new: int, sizes: tuple[int, int] | None) -> None:
    """Put `new` where the instruction holds `before` (None: whatever it holds)."""
    insn = insns[pc]
    kind = insn.code & CLASS
    if kind in (ALU32, ALU64) and not insn.code & X:
        check(insn.imm & 0xFFFFFFFF, before, 0xFFFFFFFF)
        insns[pc] = insn._replace(imm=signed(new, 32))
    elif kind in (LDX, ST, STX):
        check(insn.off, before, 0xFFFF)
        if not 0 <= new <= 0x7FFF:
            raise wrong(f"offset {new} does not fit into an instruction")
        insn = insn._replace(off=new)
        if sizes is not None and SIZE_CODE.get(sizes[0]) == insn.code & SIZE:
            if sizes[1] not in SIZE_CODE:
                raise wrong(f"a field of {sizes[0]} bytes has another size or sign here, and is read as a whole")
            insn = insn._replace(code=insn.code & ~SIZE | SIZE_CODE[sizes[1]])
        insns[pc] = insn
    elif insn.code == LD_IMM64 and pc + 1 < len(insns):
        check(insn.imm & 0xFFFFFFFF | (insns[pc + 1].imm & 0xFFFFFFFF) << 32, before, (1 << 64) - 1)
        insns[pc] = insn._replace(imm=signed(new, 32))
        insns[pc + 1] = insns[pc + 1]._replace(imm=signed(new >> 32, 32))
    else:
        raise wrong(f"instruction {insn.code:#04x} holds no number to relocate")


def check(held: int, before: int | None, mask: int) -> None:
    if before is not None and held & mask != before & mask:
        raise wrong(f"the instruction holds {held}, its relocation says {before}")


def signed(number: int, bits: int) -> int:
    """Return the low bits of a number as a signed one."""
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> bits - 1 else number
