"""What a front end may expect of any datapath: the same answers, errnos and words from both."""

from __future__ import annotations

import errno
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tcbpf.control.handles import HOOKS
from tcbpf.control.objects import Bpf, Filter, Link, Qdisc, TcClass
from tcbpf.control.request import Op, Request
from tcbpf.datapath.base import Datapath, Prog
from tcbpf.errors import InputError, MapError, NotSupported, SysError, TcError, VerifierError
from tcbpf.isa import assemble, encode
from tcbpf.lang import compile_c
from tcbpf.maps.map import BPF_EXIST, BPF_NOEXIST, Map
from tcbpf.net.pcap import Writer
from tcbpf.obj import load
from tcbpf.obj.program import MapSpec, Program
from tcbpf.uapi.tc import TC_H_CLSACT, TC_H_ROOT

FRAME = bytes.fromhex("020000000002020000000001 0800") + bytes(range(86))
CLSACT = Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT)


def spec(type: str = "hash", key: int = 4, value: int = 8, entries: int = 4, **more: Any) -> MapSpec:
    return MapSpec("m", type, key, value, entries, **more)


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def code(text: str, **more: Any) -> Program:
    return Program.from_bytes(encode(assemble(text)), license="GPL", **more)


def refused(call: Any, code: int) -> SysError:
    with pytest.raises(SysError) as caught:
        call()
    assert caught.value.errno == code, caught.value
    return caught.value


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("type", ["hash", "lru_hash"])
def test_hash_elements(datapath: Datapath, type: str) -> None:
    m = datapath.map_create(spec(type, entries=64))
    assert m.lookup(key(1)) is None and not m.delete(key(1)) and m.raw.next_key(None) is None
    m.update(key(1), b"12345678")
    assert m.lookup(key(1)) == b"12345678"
    assert refused(lambda: m.update(key(1), bytes(8), BPF_NOEXIST), errno.EEXIST)
    assert refused(lambda: m.update(key(2), bytes(8), BPF_EXIST), errno.ENOENT)
    m.update(key(1), b"abcdefgh", BPF_EXIST)
    m.update(key(2), bytes(8), BPF_NOEXIST)
    assert {k: m.lookup(k) for k in list(m.raw_keys())} == {key(1): b"abcdefgh", key(2): bytes(8)}
    assert m.delete(key(1)) and list(m.raw_keys()) == [key(2)]
    assert m.raw.next_key(key(77)) == key(2)  # an unknown key starts over


def test_a_full_hash_takes_no_more_but_changes(datapath: Datapath) -> None:
    m = datapath.map_create(spec(entries=2))
    m.update(key(1), bytes(8))
    m.update(key(2), bytes(8))
    error = refused(lambda: m.update(key(3), bytes(8)), errno.E2BIG)
    assert isinstance(error, MapError) and error.map == "m"
    m.update(key(2), b"abcdefgh")


def test_array_elements(datapath: Datapath) -> None:
    m = datapath.map_create(spec("array"))
    assert m.lookup(key(3)) == bytes(8) and m.lookup(key(4)) is None
    m.update(key(3), b"12345678")
    assert m.lookup(key(3)) == b"12345678"
    assert refused(lambda: m.update(key(4), bytes(8)), errno.E2BIG)
    assert refused(lambda: m.update(key(0), bytes(8), BPF_NOEXIST), errno.EEXIST)
    assert refused(lambda: m.update(key(0), bytes(8), 9), errno.EINVAL)
    assert refused(lambda: m.delete(key(0)), errno.EINVAL)
    assert list(m.raw_keys()) == [key(i) for i in range(4)]


@pytest.mark.parametrize("type", ["percpu_array", "percpu_hash"])
def test_a_per_cpu_value_has_a_slot_for_each_cpu(datapath: Datapath, type: str) -> None:
    m = datapath.map_create(spec(type, value=4))
    size = len(m.lookup(key(0)) or b"") if type == "percpu_array" else 8 * _possible_cpus()
    assert size == 8 * _possible_cpus()
    value = b"".join(i.to_bytes(4, "little") + bytes(4) for i in range(size // 8))
    m.update(key(0), value)
    assert m.lookup(key(0)) == value
    assert refused(lambda: m.update(key(0), bytes(4)), errno.EINVAL)


def test_lpm_trie_finds_the_longest_prefix(datapath: Datapath) -> None:
    m = datapath.map_create(spec("lpm_trie", key=8, value=4, flags=1))

    def prefix(bits: int, *octets: int) -> bytes:
        return bits.to_bytes(4, "little") + bytes(octets)

    m.update(prefix(8, 10, 0, 0, 0), b"ten.")
    m.update(prefix(24, 10, 1, 2, 0), b"net.")
    assert m.lookup(prefix(32, 10, 1, 2, 3)) == b"net." and m.lookup(prefix(32, 10, 9, 9, 9)) == b"ten."
    assert m.lookup(prefix(32, 11, 0, 0, 1)) is None
    assert m.delete(prefix(24, 10, 1, 2, 0)) and m.lookup(prefix(32, 10, 1, 2, 3)) == b"ten."


@pytest.mark.parametrize(
    "wrong",
    [
        spec(entries=0),
        spec("array", key=8),
        spec(key=0),
        spec(value=0),
        spec("array", entries=0),
        spec("lpm_trie", key=8),
        spec(flags=1 << 30),
    ],
    ids=lambda s: f"{s.type}-{s.key_size}-{s.value_size}-{s.max_entries}-{s.flags:x}",
)
def test_maps_that_cannot_be(datapath: Datapath, wrong: MapSpec) -> None:
    assert isinstance(refused(lambda: datapath.map_create(wrong), errno.EINVAL), MapError)


def test_a_frozen_map_is_read_only(datapath: Datapath) -> None:
    m = datapath.map_create(spec("array"))
    m.update(key(0), b"12345678")
    m.raw.freeze()
    refused(lambda: m.update(key(0), bytes(8)), errno.EPERM)
    assert m.lookup(key(0)) == b"12345678"


@pytest.mark.parametrize("type", ["prog_array", "array_of_maps", "hash_of_maps"])
def test_a_frozen_map_of_objects_looks_at_no_descriptor(datapath: Datapath, type: str) -> None:
    inner = None if type == "prog_array" else spec("array")
    m = datapath.map_create(spec(type, value=4, inner=inner))
    refused(lambda: m.update(key(0), (54321).to_bytes(4, "little")), errno.EBADF)
    m.raw.freeze()
    refused(lambda: m.update(key(0), (54321).to_bytes(4, "little")), errno.EPERM)


def test_keys_and_values_of_another_size_are_refused(datapath: Datapath) -> None:
    m = datapath.map_create(spec())
    for call in (lambda: m.lookup(bytes(3)), lambda: m.update(bytes(5), bytes(8)), lambda: m.update(key(1), bytes(7))):
        refused(call, errno.EINVAL)


def test_a_new_map_is_listed_by_id(datapath: Datapath) -> None:
    m = datapath.map_create(spec())
    found = next(other for other in datapath.all_maps() if other.raw.id == m.raw.id)
    m.update(key(5), b"12345678")
    assert found.spec.type == "hash" and found.lookup(key(5)) == b"12345678"


def test_a_map_by_its_id(datapath: Datapath) -> None:
    m = datapath.map_create(spec())
    m.update(key(5), b"12345678")
    assert datapath.map_by_id(m.raw.id).lookup(key(5)) == b"12345678"
    refused(lambda: datapath.map_by_id(1 << 30), errno.ENOENT)


def test_a_map_is_made_with_its_contents(datapath: Datapath) -> None:
    m = datapath.map_create(spec("array", entries=1, contents=b"abc", frozen=True))
    assert m.lookup(key(0)) == b"abc".ljust(8, b"\0")
    refused(lambda: m.update(key(0), bytes(8)), errno.EPERM)


def test_a_closed_map_says_so(datapath: Datapath) -> None:
    m = datapath.map_create(spec())
    m.raw.close()
    for call in (
        lambda: m.raw.lookup(key(1)),
        lambda: m.raw.update(key(1), bytes(8)),
        lambda: m.raw.delete(key(1)),
        lambda: m.raw.next_key(None),
        lambda: m.raw.freeze(),
        lambda: m[0],
        lambda: list(m.items()),
    ):
        refused(call, errno.EBADF)
    assert m.spec.type == "hash" and m.raw.fileno() == -1
    m.raw.close()


# ---------------------------------------------------------------- the protocol


def test_a_closed_datapath_says_so(datapath: Datapath, tmp_path: Path) -> None:
    obj = load(compile_c("int f(void) { return 0; }\n"))
    m, prog = datapath.map_create(spec()), datapath.prog_load(code("r0 = 0\nexit"))
    datapath.close()
    for call in (
        lambda: datapath.load(obj, program="f"),
        lambda: datapath.map_create(spec()),
        lambda: datapath.prog_load(code("r0 = 0\nexit")),
        lambda: datapath.map_by_id(1),
        lambda: datapath.prog_by_id(1),
        lambda: datapath.obj_get("/sys/fs/bpf/x"),
        lambda: datapath.obj_pin("/sys/fs/bpf/x", m),
        lambda: datapath.obj_unpin("/sys/fs/bpf/x"),
        lambda: datapath.apply(Request(Op.SHOW, Link(""))),
        lambda: datapath.progs(),
        lambda: datapath.all_maps(),
        lambda: datapath.trace_pipe(),
    ):
        refused(call, errno.EBADF)
    prog.close()
    datapath.close()


MEMBERS = [name for name in {**vars(Datapath), **Datapath.__annotations__} if not name.startswith("_")]


def test_each_datapath_has_every_member_of_the_protocol(datapath: Datapath) -> None:
    assert {"name", "warnings", "load", "replay"} <= set(MEMBERS)
    for name in MEMBERS:
        assert getattr(datapath, name) is not None


# ---------------------------------------------------------------- programs


@pytest.mark.parametrize(
    ("text", "message", "pc"),
    [
        ("exit", "R0 !read_ok", 0),
        ("r0 = 0\nr1 = *(u32 *)(r1 + 4000)\nexit", "invalid bpf_context access off=4000 size=4", 1),
        ("r0 = *(u64 *)(r10 - 8)\nexit", None, None),
        ("r0 = *(u64 *)(r10 + 8)\nexit", "invalid read from stack R10 off=8 size=8", 0),
        ("r2 = *(u32 *)(r1 + 76)\nr0 = *(u8 *)(r2 + 0)\nexit", "invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)", 1),
    ],
)
def test_verdicts(datapath: Datapath, text: str, message: str | None, pc: int | None) -> None:
    if message is None:
        datapath.prog_load(code(text)).close()
        return
    with pytest.raises(VerifierError) as caught:
        datapath.prog_load(code(text))
    assert caught.value.message == message and caught.value.pc == pc
    assert caught.value.errno == errno.EACCES and message in caught.value.log


def test_programs_that_are_none(datapath: Datapath) -> None:
    with pytest.raises(VerifierError) as caught:
        datapath.prog_load(Program.from_bytes(b"", license="GPL"))
    assert caught.value.errno == errno.E2BIG
    insns = [*assemble("r1 = 7 ll\nr0 = 0\nexit")]
    insns[0] = insns[0]._replace(src=5)
    with pytest.raises(VerifierError, match="fd 7 is not pointing to valid bpf_map") as caught:
        datapath.prog_load(Program.from_bytes(encode(insns), maps=[spec()], license="GPL"))
    assert caught.value.errno == errno.EBADF


def test_a_loaded_program_tells_of_itself(datapath: Datapath) -> None:
    with datapath.prog_load(code("r0 = 2\nexit", name="two")) as prog:
        assert (prog.name, prog.type, len(prog.tag), prog.insns_processed) == ("two", "sched_cls", 8, 2)
        assert prog.id in [other.id for other in datapath.progs()]


def test_a_closed_program_says_so(datapath: Datapath, tmp_path: Path) -> None:
    with Writer(tmp_path / "x.pcap") as out:
        out.write(FRAME)
    prog = datapath.prog_load(code("r0 = 3\nexit"))
    prog.close()
    refused(lambda: prog.run(FRAME), errno.EBADF)
    refused(lambda: prog.run_pcap(str(tmp_path / "x.pcap")), errno.EBADF)
    assert prog.fileno() == -1
    prog.close()


def test_loading_again_and_again_keeps_no_descriptors(datapath: Datapath) -> None:
    """Each program of its own object with a map; only the last one's maps are in `maps`."""
    source = "int n; int f(void) { return n++; }\n"
    raw, used = compile_c(source), []
    for _ in range(8):
        with datapath.load(load(raw), program="f") as prog:
            prog.run(FRAME)
        used.append(len(os.listdir("/proc/self/fd")))
    assert used[-1] <= used[2], used
    assert datapath.maps[".bss"].lookup(key(0)) == (1).to_bytes(4, "little")


def test_a_program_by_its_id(datapath: Datapath) -> None:
    prog = datapath.prog_load(code("r0 = 3\nexit", name="three"))
    found = datapath.prog_by_id(prog.id)
    assert (found.name, found.tag) == ("three", prog.tag) and found.run(FRAME).verdict == 3
    assert prog.id in [other.id for other in datapath.progs()]
    refused(lambda: datapath.prog_by_id(1 << 30), errno.ENOENT)


def test_assembly_is_text_or_refused(datapath: Datapath) -> None:
    prog = datapath.prog_load(code("r0 = 3\nexit"))
    if prog.jited and datapath.name == "user":
        assert "ret" in prog.assembly()
    else:
        with pytest.raises(NotSupported):
            prog.assembly()


def test_the_tag_is_the_programs(datapath: Datapath) -> None:
    one, same, other = (datapath.prog_load(code(f"r0 = {n}\nexit")) for n in (1, 1, 2))
    assert one.tag == same.tag != other.tag


def test_log_on_request(datapath: Datapath) -> None:
    assert datapath.prog_load(code("r0 = 2\nexit")).log == ""
    assert "r0 = 2" in datapath.prog_load(code("r0 = 2\nexit"), log_level=2).log


def test_run_gives_verdict_packet_and_context(datapath: Datapath) -> None:
    prog = datapath.prog_load(
        code(
            "r0 = *(u32 *)(r1 + 8)\nr2 = *(u32 *)(r1 + 48)\nr0 += r2\n*(u32 *)(r1 + 8) = r0\nr3 = *(u32 *)(r1 + 0)\n"
            "*(u32 *)(r1 + 52) = r3\nr0 = -1\nexit"
        )
    )
    run = prog.run(FRAME, {"mark": 7, "cb": [30, 0, 3, 4, 5]})
    assert run.verdict == -1 and run.packet == FRAME
    assert run.ctx["mark"] == 37 and list(run.ctx["cb"]) == [30, len(FRAME), 3, 4, 5]


def test_run_changes_the_packet(datapath: Datapath) -> None:
    prog = datapath.prog_load(
        code(
            "r2 = *(u32 *)(r1 + 76)\nr3 = *(u32 *)(r1 + 80)\nr4 = r2\nr4 += 14\nr0 = 2\nif r4 > r3 goto pc+2\n"
            "*(u8 *)(r2 + 0) = 0xaa\nr0 = 0\nexit"
        )
    )
    run = datapath.prog_run(prog, FRAME)
    assert run.verdict == 0 and run.packet == b"\xaa" + FRAME[1:]


def test_a_program_names_maps_by_index(datapath: Datapath) -> None:
    insns = [
        *assemble(
            "r1 = 0 ll\nr2 = r10\nr2 += -4\n*(u32 *)(r10 - 4) = 1\ncall 1\nif r0 == 0 goto pc+2\nr1 = 1\n"
            "lock *(u64 *)(r0 + 0) += r1\nr0 = 0\nexit"
        )
    ]
    insns[0] = insns[0]._replace(src=5)  # BPF_PSEUDO_MAP_IDX
    by_spec = datapath.prog_load(Program.from_bytes(encode(insns), maps=[spec("array")], license="GPL"))
    for _ in range(3):
        by_spec.run(FRAME)
    assert by_spec.maps[0].lookup(key(1)) == (3).to_bytes(8, "little")
    live = datapath.map_create(spec("array"))
    datapath.prog_load(Program.from_bytes(encode(insns), maps=[live], license="GPL")).run(FRAME)
    assert live.lookup(key(1)) == (1).to_bytes(8, "little")


def test_global_data_is_filled_and_frozen(datapath: Datapath) -> None:
    insns = [*assemble("r1 = 0x400000000 ll\nr0 = *(u32 *)(r1 + 0)\nexit")]
    insns[0] = insns[0]._replace(src=6, imm=0)  # BPF_PSEUDO_MAP_IDX_VALUE, offset 4
    data = MapSpec(".rodata", "array", 4, 8, 1, flags=0x80, contents=bytes(4) + key(1234), frozen=True)
    prog = datapath.prog_load(Program.from_bytes(encode(insns), maps=[data], license="GPL"))
    assert prog.run(FRAME).verdict == 1234
    refused(lambda: prog.maps[0].update(key(0), bytes(8)), errno.EPERM)


def test_run_over_a_capture(datapath: Datapath, tmp_path: Path) -> None:
    from tcbpf.net.pcap import Writer, read

    with Writer(tmp_path / "in.pcapng") as out:
        for size in (60, 100, 200):
            out.write(FRAME[:14] + bytes(size - 14), ts_ns=size * 1000)
    prog = datapath.prog_load(code("r0 = *(u32 *)(r1 + 0)\nif r0 < 150 goto pc+2\nr0 = 2\nexit\nr0 = 0\nexit"))
    stats = prog.run_pcap(str(tmp_path / "in.pcapng"), out=str(tmp_path / "out.pcapng"))
    assert (stats.packets, stats.bytes, dict(stats.verdicts), stats.kept) == (3, 360, {0: 2, 2: 1}, 2)
    assert [len(packet.data) for packet in read(tmp_path / "out.pcapng")] == [60, 100]


def test_a_tail_call_leaves_for_good(datapath: Datapath) -> None:
    table = datapath.map_create(spec("prog_array", value=4))
    with datapath.prog_load(code("r0 = 77\nexit")) as target:
        table.update(key(2), target.fileno().to_bytes(4, "little"))
    insns = [*assemble("r2 = 0 ll\nr3 = 2\ncall 12\nr0 = 5\nexit")]
    insns[0] = insns[0]._replace(src=5)
    caller = datapath.prog_load(Program.from_bytes(encode(insns), maps=[table], license="GPL"))
    assert caller.run(FRAME).verdict == 77
    assert table.delete(key(2)) and caller.run(FRAME).verdict == 5


def test_a_map_named_by_its_descriptor(datapath: Datapath) -> None:
    """BPF_LD_MAP_FD as it is written by hand."""
    m, other = datapath.map_create(spec("array")), datapath.prog_load(code("r0 = 0\nexit"))
    m.update(key(0), b"\x2a" + bytes(7))
    text = "*(u32 *)(r10 - 4) = 0\nr2 = r10\nr2 += -4\nr1 = 0 ll\ncall 1\nif r0 == 0 goto pc+1\nr0 = *(u64 *)(r0 + 0)\nexit"

    def naming(fd: int) -> Program:
        insns = [insn._replace(src=1, imm=fd) if insn.code == 0x18 else insn for insn in assemble(text)]
        return Program.from_bytes(encode(insns), license="GPL")

    assert datapath.prog_load(naming(m.raw.fileno())).run(FRAME).verdict == 42
    for fd in (54321, other.fileno()):
        with pytest.raises(VerifierError, match=f"fd {fd} is not pointing to valid bpf_map"):
            datapath.prog_load(naming(fd))


@pytest.mark.parametrize("machine", [0, 247], ids=["EM_NONE", "EM_BPF"])
@pytest.mark.parametrize("mcpu", ["v1", "v2", "v3", "v4"])
def test_objects_of_every_instruction_set_and_of_before_bpf_had_a_number(
    datapath: Datapath, mcpu: str, machine: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tcbpf.lang import compile_c
    from tcbpf.obj import load

    monkeypatch.setenv("TCBPF_CC", "ziglang")  # not every clang knows v4
    signed = "skb->cb[0] = (signed char)skb->mark / (int)(3 + (skb->len & 1)); " if mcpu == "v4" else ""
    source = (
        "#include <bpf_api.h>\n__section_cls_entry int f(struct __sk_buff *skb) { "
        + signed
        + "return (int)(__builtin_bswap32(skb->mark) ^ (skb->mark < 77 ? 1 : skb->len)); }\n"
    )
    raw = compile_c(source, mcpu=mcpu)
    prog = datapath.load(load(raw[:18] + machine.to_bytes(2, "little") + raw[20:]))
    run = prog.run(FRAME, {"mark": 0x12345680})
    assert run.verdict == (0x80563412 ^ 100) - (1 << 32)
    assert run.ctx["cb"][0] == ((1 << 32) - 42 if mcpu == "v4" else 0)


def calling(table: Map, **more: Any) -> Program:
    """A program that calls slot 2, and returns 5 when that is empty."""
    insns = [*assemble("r2 = 0 ll\nr3 = 2\ncall 12\nr0 = 5\nexit")]
    insns[0] = insns[0]._replace(src=5)
    return replace(Program.from_bytes(encode(insns), maps=[table], license="GPL"), **more)


def put(table: Map, slot: int, prog: Prog) -> None:
    table.update(key(slot), prog.fileno().to_bytes(4, "little"))


KINDS: tuple[dict[str, Any], ...] = ({}, {"type": "sched_act"}, {"attach_type": 46}, {"type": "xdp"})  # 46: BPF_TCX_INGRESS


@pytest.mark.parametrize("first", KINDS, ids=str)
def test_a_program_array_serves_the_kind_that_came_first(datapath: Datapath, first: dict[str, Any]) -> None:
    """CVE-2025-40123: the expected attach type is part of the kind."""
    targets = [datapath.prog_load(replace(code("r0 = 1\nexit"), **kind)) for kind in KINDS]
    by_filling, by_calling = datapath.map_create(spec("prog_array", value=4)), datapath.map_create(spec("prog_array", value=4))
    assert by_filling.raw.owner_type == 0
    put(by_filling, 0, targets[KINDS.index(first)])
    by_filling.delete(key(0))  # it stays what it has become
    datapath.prog_load(calling(by_calling, **first))
    for table in (by_filling, by_calling):
        assert table.raw.owner_type == {"sched_act": 4, "xdp": 6}.get(first.get("type", ""), 3)
        for kind, target in zip(KINDS, targets, strict=True):
            if kind == first:
                put(table, 1, target)
                datapath.prog_load(calling(table, **kind))
            else:
                refused(lambda: put(table, 1, target), errno.EINVAL)  # noqa: B023
                said = refused(lambda: datapath.prog_load(calling(table, **kind)), errno.EINVAL)  # noqa: B023
                assert "program array m is for programs of " in said.detail


def test_a_refused_program_leaves_a_program_array_to_others(datapath: Datapath) -> None:
    table = datapath.map_create(spec("prog_array", value=4))
    bad = calling(table, type="sched_act")
    with pytest.raises(VerifierError):
        datapath.prog_load(replace(bad, insns=(*bad.insns[:-1], *assemble("r0 = *(u32 *)(r1 + 9999)\nexit"))))
    datapath.prog_load(calling(table))


def test_elements_of_a_program_array(datapath: Datapath) -> None:
    table, prog = datapath.map_create(spec("prog_array", value=4)), datapath.prog_load(code("r0 = 1\nexit"))
    put(table, 3, prog)
    assert table.lookup(key(3)) == prog.id.to_bytes(4, "little")  # written as a descriptor, read as an id
    assert table.lookup(key(2)) is None and table.lookup(key(4)) is None and not table.delete(key(2))
    assert list(table.raw_keys()) == [key(slot) for slot in range(4)]
    other = datapath.prog_load(code("r0 = 1\nexit", type="sched_act"))
    refused(lambda: put(table, 4, other), errno.E2BIG)  # the place is looked at first
    refused(lambda: table.delete(key(4)), errno.E2BIG)
    for fd, wanted in ((table.raw.fileno(), errno.EINVAL), (54321, errno.EBADF)):
        refused(lambda: table.update(key(0), fd.to_bytes(4, "little")), wanted)  # noqa: B023
    for flags in (BPF_NOEXIST, BPF_EXIST, 4):
        refused(lambda: table.update(key(3), prog.fileno().to_bytes(4, "little"), flags), errno.EINVAL)  # noqa: B023


TAILS = """
#include <bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4); __uint(value_size, 4); } jmp
    SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3); __type(key, int); __type(value, __u32); } ran SEC(".maps");
static __always_inline void note(int k) { __u32 *v = bpf_map_lookup_elem(&ran, &k); if (v) ++*v; }
SEC("tc") int self(struct __sk_buff *skb) { note(0); bpf_tail_call(skb, &jmp, 0); return 3; }
SEC("tc") int misses(struct __sk_buff *skb) {
    note(0);
    _Pragma("unroll") for (int i = 0; i < 40; i++) { bpf_tail_call(skb, &jmp, 3); bpf_tail_call(skb, &jmp, 77 + i); }
    bpf_tail_call(skb, &jmp, 1);
    return 3;
}
__attribute__((noinline)) int below(struct __sk_buff *skb) { volatile int x = 1; bpf_tail_call(skb, &jmp, 1); return x; }
SEC("tc") int twice(struct __sk_buff *skb) { note(0); int r = below(skb); return r + below(skb); }
SEC("tc") int both(struct __sk_buff *skb) { note(0); int r = below(skb); bpf_tail_call(skb, &jmp, 0); return 100 + r; }
SEC("tc") int a(struct __sk_buff *skb) { note(1); return 42; }
SEC("tc") int b(struct __sk_buff *skb) { note(2); return 43; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def tails(datapath: Datapath) -> dict[str, Prog]:
    """The programs of TAILS, over one array and one map of how often each ran."""
    from tcbpf.lang import compile_c
    from tcbpf.obj import load

    obj = load(compile_c(TAILS))
    return {name: datapath.load(obj, program=name) for name in obj.entries}


@pytest.mark.parametrize(
    ("slots", "run", "verdict", "times"),
    [
        ({0: "self"}, "self", 3, 34),  # 33 calls are 34 programs
        ({1: "a"}, "misses", 42, 1),  # an empty slot and one out of range cost nothing
        ({1: "twice"}, "twice", 35, 34),  # one count for all subprograms
        ({1: "a"}, "twice", 84, 1),
        ({0: "both", 1: "both"}, "both", 3401, 34),
        ({0: "twice", 1: "both"}, "both", 3401, 34),
    ],
)
def test_thirty_three_tail_calls(
    datapath: Datapath, tails: dict[str, Prog], slots: dict[int, str], run: str, verdict: int, times: int
) -> None:
    for slot, name in slots.items():
        put(datapath.maps["jmp"], slot, tails[name])
    for packet in range(1, 3):  # each packet counts from nothing
        assert tails[run].run(FRAME).verdict == verdict
        assert datapath.maps["ran"].lookup(key(0)) == (packet * times).to_bytes(4, "little")


def test_a_slot_is_replaced_under_a_running_program(datapath: Datapath, tails: dict[str, Prog]) -> None:
    """Every packet meets the old program or the new one, and none an empty slot."""
    jmp, ran, done, rounds = datapath.maps["jmp"], datapath.maps["ran"], threading.Event(), 0
    put(jmp, 1, tails["a"])

    def counts() -> list[int]:
        return [int.from_bytes(ran.lookup(key(slot)) or b"", "little") for slot in range(3)]

    def swap() -> None:
        while not done.is_set():
            for name in ("b", "a"):
                put(jmp, 1, tails[name])

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        while rounds < 20_000_000 and (rounds < 200_000 or not all(counts())):
            assert tails["misses"].run(FRAME, repeat=50_000).verdict in (42, 43)
            rounds += 50_000
    finally:
        done.set()
        swapper.join()
    first, a, b = counts()
    assert (first, a + b) == (rounds, rounds) and a and b


def test_a_program_array_is_emptied_when_its_last_user_goes(datapath: Datapath, pins: str) -> None:
    """A program that calls through it is no user; a descriptor and a pin are."""
    target = datapath.prog_load(code("r0 = 77\nexit"))

    def emptied() -> bool:
        """The kernel takes the programs out a moment later."""
        end = time.monotonic() + 5
        while (verdict := caller.run(FRAME).verdict) == 77 and time.monotonic() < end:
            time.sleep(0.01)
        return verdict == 5

    for pinned in (False, True):
        table = datapath.map_create(spec("prog_array", value=4))
        put(table, 2, target)
        caller = datapath.prog_load(calling(table))
        if pinned:
            datapath.obj_pin(f"{pins}/m", table)
        table.raw.close()
        if pinned:
            time.sleep(0.05)
            assert caller.run(FRAME).verdict == 77
            datapath.obj_unpin(f"{pins}/m")
        assert emptied()


def test_tail_call_sections_share_their_callers_attach_type(datapath: Datapath) -> None:
    from tcbpf.lang import compile_c
    from tcbpf.obj import load

    source = """
#include "bpf_api.h"
struct bpf_elf_map __section("maps") jmp = {
    .type = BPF_MAP_TYPE_PROG_ARRAY, .id = 42, .size_key = 4, .size_value = 4, .max_elem = 4 };
__section("42/0x2") int slot(struct __sk_buff *skb) { return 9; }
__section("tc/ingress") int entry(struct __sk_buff *skb) { tail_call(skb, &jmp, 2); return 3; }
BPF_LICENSE("GPL");
"""
    obj = load(compile_c(source))
    assert datapath.load(obj).run(FRAME).verdict == 9
    assert datapath.maps["jmp"].spec.type == "prog_array"
    assert datapath.load(obj, program="slot").run(FRAME).verdict == 9


# ---------------------------------------------------------------- pins


@pytest.fixture
def pins(datapath: Datapath) -> Iterator[str]:
    """A directory of the bpf fs that is the test's own."""
    path = f"/sys/fs/bpf/tcbpf-test-{uuid.uuid4().hex[:12]}"
    yield path
    if datapath.name == "kernel":
        for place, _, names in os.walk(path, topdown=False):
            for name in names:
                os.unlink(f"{place}/{name}")
            os.rmdir(place)


def test_a_pinned_map_outlives_its_maker(datapath: Datapath, pins: str) -> None:
    m = datapath.map_create(spec())
    m.update(key(1), b"12345678")
    datapath.obj_pin(f"{pins}/deep/m", m)
    refused(lambda: datapath.obj_pin(f"{pins}/deep/m", m), errno.EEXIST)
    m.raw.close()
    found = datapath.obj_get(f"{pins}/deep/m")
    assert isinstance(found, Map) and found.lookup(key(1)) == b"12345678"
    assert (found.spec.type, found.spec.key_size, found.spec.value_size, found.spec.max_entries) == ("hash", 4, 8, 4)


def test_a_pinned_program_runs(datapath: Datapath, pins: str) -> None:
    with datapath.prog_load(code("r0 = 9\nexit", name="nine")) as prog:
        datapath.obj_pin(f"{pins}/p", prog)
    found = datapath.obj_get(f"{pins}/p")
    assert not isinstance(found, Map) and found.name == "nine" and found.run(FRAME).verdict == 9


def test_a_pins_name_has_no_dot(datapath: Datapath, pins: str) -> None:
    refused(lambda: datapath.obj_pin(f"{pins}/a.b", datapath.map_create(spec())), errno.EPERM)


def test_a_pin_that_is_not_there(datapath: Datapath, pins: str) -> None:
    refused(lambda: datapath.obj_get(f"{pins}/nothing"), errno.ENOENT)
    refused(lambda: datapath.obj_unpin(f"{pins}/nothing"), errno.ENOENT)


def test_only_pins_are_unpinned(datapath: Datapath, tmp_path: Path) -> None:
    plain, json = tmp_path / "plain", tmp_path / "x.json"
    plain.write_text("mine")
    json.write_text("{}")
    for path in (plain, json):
        refused(lambda path=path: datapath.obj_unpin(str(path)), errno.EACCES)
        assert path.exists()
    refused(lambda: datapath.obj_unpin(str(tmp_path / "nothing")), errno.ENOENT)


def test_unpinning_leaves_what_else_holds_a_map(datapath: Datapath, pins: str) -> None:
    m = datapath.map_create(spec())
    datapath.obj_pin(f"{pins}/m", m)
    datapath.obj_unpin(f"{pins}/m")
    refused(lambda: datapath.obj_get(f"{pins}/m"), errno.ENOENT)
    assert m.lookup(key(1)) is None


# ---------------------------------------------------------------- traffic control


class Tc:
    """Requests on a pair of devices."""

    def __init__(self, dp: Datapath) -> None:
        self.dp = dp
        self(Op.ADD, Link("em1", kind="veth", peer="em2"))
        self(Op.CHANGE, Link("em1", up=True))
        self.prog: Prog = dp.prog_load(code("r0 = 2\nexit", name="two"))

    def __call__(self, op: Op, what: Any) -> tuple[Any, ...]:
        return self.dp.apply(Request(op, what))

    def refused(self, op: Op, what: Any, code: int, words: str) -> None:
        with pytest.raises(TcError) as caught:
            self(op, what)
        assert (caught.value.errno, caught.value.extack.rstrip(".")) == (code, words)

    def filter(self, **more: Any) -> Filter:
        bpf = Bpf(prog=self.prog, name="x.o:[tc]", direct_action=True)
        return Filter("em1", HOOKS[more.pop("hook", "ingress")], "bpf", **{"options": bpf, **more})

    def shown(self, hook: str = "ingress") -> list[Filter]:
        return list(self(Op.SHOW, Filter("em1", HOOKS[hook], protocol=0)))


@pytest.fixture
def tc(datapath: Datapath) -> Tc:
    return Tc(datapath)


def test_devices(tc: Tc) -> None:
    rows = {row.name: row for row in tc(Op.SHOW, Link(""))}
    assert {"lo", "em1", "em2"} <= set(rows)
    assert rows["em1"].peer == "em2" and rows["em1"].up and not rows["em2"].up and rows["em1"].mtu == 1500
    tc.refused(Op.ADD, Link("em1", kind="veth", peer="em3"), errno.EEXIST, "")
    tc(Op.DELETE, Link("em1"))
    assert not {"em1", "em2"} & {row.name for row in tc(Op.SHOW, Link(""))}


def test_a_success_leaves_no_warnings(tc: Tc) -> None:
    tc(Op.ADD, CLSACT)
    assert tc.dp.warnings == []


def test_a_capture_is_replayed_or_refused(tc: Tc, tmp_path: Path) -> None:
    with Writer(tmp_path / "x.pcap") as out:
        out.write(FRAME)
    if tc.dp.name == "user":
        assert tc.dp.replay(str(tmp_path / "x.pcap"), "em1", ingress=True).packets == 1
        refused(lambda: tc.dp.replay(str(tmp_path / "x.pcap"), "nosuch", ingress=True), errno.ENODEV)
    else:
        with pytest.raises(InputError, match="devices of the user datapath"):
            tc.dp.replay(str(tmp_path / "x.pcap"), "em1", ingress=True)


def test_a_device_that_is_not_there(tc: Tc) -> None:
    with pytest.raises(TcError) as caught:
        tc(Op.ADD, Qdisc("nosuch", "clsact", 0xFFFF0000, TC_H_CLSACT))
    assert caught.value.errno == errno.ENODEV


def test_clsact_comes_once_and_goes(tc: Tc) -> None:
    tc(Op.ADD, CLSACT)
    tc.refused(Op.ADD, CLSACT, errno.EEXIST, "Exclusivity flag on, cannot modify")
    kinds = [(row.kind, row.handle, row.parent) for row in tc(Op.SHOW, Qdisc("em1", "", parent=0))]
    assert kinds == [("noqueue", 0, TC_H_ROOT), ("clsact", 0xFFFF0000, TC_H_CLSACT)]
    tc(Op.DELETE, CLSACT)
    tc.refused(Op.DELETE, CLSACT, errno.EINVAL, "Invalid handle")


def test_prefs_start_at_49152_and_fall(tc: Tc) -> None:
    tc(Op.ADD, CLSACT)
    tc(Op.ADD, tc.filter())
    tc(Op.ADD, tc.filter())
    tc(Op.ADD, tc.filter(pref=7, protocol=0x800))
    assert [(f.pref, f.handle, f.protocol) for f in tc.shown()] == [
        (7, 0, 0x800),
        (7, 1, 0x800),
        (49151, 0, 3),
        (49151, 1, 3),
        (49152, 0, 3),
        (49152, 1, 3),
    ]
    assert tc.shown("egress") == []


def test_a_filter_is_shown_as_it_was_made(tc: Tc) -> None:
    tc(Op.ADD, CLSACT)
    tc(Op.ADD, tc.filter(pref=5, options=Bpf(prog=tc.prog, name="x.o:[tc]", classid=0x10002)))
    _, row = tc.shown()
    bpf = row.options
    assert (bpf.name, bpf.classid, bpf.direct_action, bpf.gen_flags) == ("x.o:[tc]", 0x10002, False, 8)
    assert (bpf.id, bpf.tag, bpf.prog_name) == (tc.prog.id, tc.prog.tag, "two") and bpf.load_time > 0
    tc(Op.ADD, tc.filter(pref=6, options=Bpf(bytecode=((6, 0, 0, 0xFFFFFFFF),), classid=0x10003)))
    assert tc.shown()[-1].options.bytecode == ((6, 0, 0, 0xFFFFFFFF),)


def test_replace_swaps_the_program_in_place(tc: Tc) -> None:
    tc(Op.ADD, CLSACT)
    tc(Op.ADD, tc.filter())
    other = tc.dp.prog_load(code("r0 = 0\nexit", name="other"))
    tc(Op.REPLACE, tc.filter(pref=49152, handle=1, options=Bpf(prog=other, name="y.o:[tc]", direct_action=True)))
    rows = tc.shown()
    assert [(f.pref, f.handle) for f in rows] == [(49152, 0), (49152, 1)]
    assert rows[1].options.id == other.id and rows[1].options.name == "y.o:[tc]"


def test_filters_that_cannot_be(tc: Tc) -> None:
    tc.refused(Op.ADD, tc.filter(), errno.EINVAL, "Parent Qdisc doesn't exists")
    tc(Op.ADD, CLSACT)
    tc(Op.ADD, tc.filter(pref=5, handle=1))
    tc.refused(Op.ADD, tc.filter(pref=5, handle=1), errno.EEXIST, "Filter already exists")
    tc.refused(Op.ADD, tc.filter(pref=5, protocol=0x800), errno.EINVAL, "Protocol mismatch for filter with specified priority")
    tc.refused(
        Op.CHANGE, tc.filter(pref=5, handle=2), errno.ENOENT, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter"
    )
    tc.refused(Op.ADD, tc.filter(pref=9, options=Bpf()), errno.EINVAL, "")


def test_deleting_filters(tc: Tc) -> None:
    tc(Op.ADD, CLSACT)
    for pref in (5, 6, 7):
        tc(Op.ADD, tc.filter(pref=pref))
    tc.refused(
        Op.DELETE,
        Filter("em1", HOOKS["ingress"], pref=49, protocol=0),
        errno.ENOENT,
        "Filter with specified priority/protocol not found",
    )
    tc.refused(
        Op.DELETE,
        Filter("em1", HOOKS["ingress"], "bpf", pref=5, handle=9, protocol=0),
        errno.ENOENT,
        "Specified filter handle not found",
    )
    tc(Op.DELETE, Filter("em1", HOOKS["ingress"], "bpf", pref=5, handle=1, protocol=0))
    tc(Op.DELETE, Filter("em1", HOOKS["ingress"], pref=6, protocol=0))
    assert {f.pref for f in tc.shown()} == {7}
    tc(Op.DELETE, Filter("em1", HOOKS["ingress"], protocol=0))
    assert tc.shown() == []


def test_a_device_takes_another_name(tc: Tc) -> None:
    tc(Op.ADD, CLSACT)
    tc(Op.CHANGE, Link("em1", options={"name": "eth7"}))
    assert [row.kind for row in tc(Op.SHOW, Qdisc("eth7", "", parent=0)) if row.kind == "clsact"] == ["clsact"]
    assert tc(Op.GET, Link("em2"))[0].peer == "eth7"
    refused(lambda: tc(Op.CHANGE, Link("eth7", options={"name": "em2"})), errno.EEXIST)
    refused(lambda: tc(Op.GET, Link("em1")), errno.ENODEV)


def test_htb_classes(tc: Tc) -> None:
    tc(Op.ADD, Qdisc("em1", "htb", 0x10000, TC_H_ROOT, {"default": 0x10}))
    tc(Op.ADD, TcClass("em1", "htb", 0x10001, 0x10000, options={"rate": 125000}))
    tc(Op.ADD, TcClass("em1", "htb", 0x10010, 0x10001, options={"rate": 64000, "ceil": 125000, "prio": 2}))
    rows = {row.classid: row for row in tc(Op.SHOW, TcClass("em1", "", 0, parent=0))}
    assert set(rows) == {0x10001, 0x10010}
    assert rows[0x10001].parent == TC_H_ROOT and rows[0x10010].parent == 0x10001
    options = rows[0x10010].options
    assert (options["rate"], options["ceil"], options["prio"], options["burst"]) == (64000, 125000, 2, 1600)
    root = next(row for row in tc(Op.SHOW, Qdisc("em1", "", parent=0)) if row.kind == "htb")
    assert root.options["default"] == 0x10 and root.options["r2q"] == 10


def _possible_cpus() -> int:
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        return int(file.read().strip().split(",")[-1].split("-")[-1]) + 1
