"""The same requests to both datapaths, at random: the same answers, errnos and words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import open_for_test
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netns import netns

from tcbpf.control.objects import TC_H_CLSACT, TC_H_ROOT, Action, Bpf, Filter, Link, Qdisc, TcClass, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.datapath.base import Datapath
from tcbpf.errors import SysError, TcError
from tcbpf.obj.program import MapSpec

pytestmark = pytest.mark.kernel
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Datapath, Datapath]]:
    """The user datapath and the kernel's, each with devices em1 and em2."""
    from tcbpf.datapath.kernel import probe
    if why := probe.missing():
        pytest.skip(why)
    home: Path = tmp_path_factory.mktemp("home")
    with netns() as path, open_for_test("user", "", home) as user, open_for_test("kernel", path, home) as kernel:
        for dp in (user, kernel):
            dp.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
            for name in ("em1", "em2"):
                dp.apply(Request(Op.CHANGE, Link(name, up=True)))
        yield user, kernel


# ---------------------------------------------------------------- maps

SPECS = (
    MapSpec("m", "hash", 4, 8, 3), MapSpec("m", "array", 4, 8, 3), MapSpec("m", "percpu_hash", 4, 8, 3),
    MapSpec("m", "percpu_array", 4, 8, 3), MapSpec("m", "lpm_trie", 8, 4, 4, flags=1), MapSpec("m", "hash", 4, 8, 3, flags=1),
    MapSpec("m", "queue", 0, 4, 3), MapSpec("m", "stack", 0, 4, 3),
)
MAP_OPS = st.lists(st.tuples(st.sampled_from(["lookup", "update", "delete", "keys", "freeze"]), st.integers(0, 5),
                             st.integers(0, 255), st.sampled_from([0, 0, 0, 1, 2, 3, 4, 8])), max_size=12)


def key_of(spec: MapSpec, number: int) -> bytes:
    if spec.type == "lpm_trie":
        return (8 * number).to_bytes(4, "little") + bytes([10, number, 0, 0])
    return number.to_bytes(4, "little")[:spec.key_size]


@SETTINGS
@given(spec=st.sampled_from(SPECS), ops=MAP_OPS)
def test_maps(both: tuple[Datapath, Datapath], spec: MapSpec, ops: list[tuple[str, int, int, int]]) -> None:
    first, second = (dp.map_create(spec) for dp in both)
    for word, number, byte, flags in ops:
        said = []
        for m in (first, second):
            size = len(m.lookup(key_of(spec, 0)) or b"") or spec.value_size
            size = size if not spec.type.startswith("percpu") else 8 * _cpus()
            try:
                match word:
                    case "lookup":
                        said.append(m.lookup(key_of(spec, number)))
                    case "update":
                        said.append(m.update(key_of(spec, number), bytes([byte]) * size, flags))
                    case "delete":
                        said.append(m.delete(key_of(spec, number)))
                    case "keys":
                        said.append(sorted(m.keys()) if spec.key_size else None)
                    case "freeze":
                        said.append(m.raw.freeze())
            except SysError as error:
                said.append(("errno", error.errno))
        assert said[0] == said[1], (word, number, byte, flags)


def _cpus() -> int:
    from tcbpf.datapath.kernel.maps import possible_cpus
    return possible_cpus()


# ---------------------------------------------------------------- traffic control

BYTECODE = ((6, 0, 0, 0xFFFFFFFF),)
HANDLES = st.sampled_from([0, 0, 0x10000, 0x20000, 0xFFFF0000])
PARENTS = st.sampled_from([0, TC_H_ROOT, TC_H_CLSACT, 0xFFFFFFF2, 0xFFFFFFF3, 0xFFFF0000, 0x10000, 0x10001, 0x20000])
QDISCS = st.builds(Qdisc, st.just("em1"), st.sampled_from(["clsact", "ingress", "htb", "pfifo", "bfifo", "nosuch"]), handle=HANDLES,
                   parent=PARENTS, options=st.just({}))
USUAL = st.sampled_from([Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT), Qdisc("em1", "htb", 0x10000, TC_H_ROOT, {"default": 1}),
                         Qdisc("em1", "ingress", 0xFFFF0000, TC_H_CLSACT), Qdisc("em1", "pfifo", 0x20000, 0x10001)])
CLASSES = st.builds(TcClass, st.just("em1"), st.just("htb"), st.sampled_from([0x10001, 0x10002, 0x10010, 0x20001]),
                    parent=st.sampled_from([TC_H_ROOT, 0x10000, 0x10001, 0x10002]), options=st.just({"rate": 125000}))
FILTERS = st.builds(
    Filter, st.just("em1"), st.sampled_from([0xFFFFFFF2, 0xFFFFFFF2, 0xFFFFFFF3, 0x10000, 0, 0xFFFF0000]),
    st.just("bpf"), protocol=st.sampled_from([3, 3, 0x800, 0]), pref=st.sampled_from([0, 0, 5, 6, 49152, 49151]),
    chain=st.sampled_from([0, 0, 0, 2]), handle=st.sampled_from([0, 0, 1, 2, 0xFFFFFFFF]),
    options=st.builds(Bpf, bytecode=st.sampled_from([BYTECODE, BYTECODE, ()]), classid=st.sampled_from([0, 0x10001]),
                      direct_action=st.booleans(), gen_flags=st.sampled_from([0, 0, 1, 2, 3])),
    actions=st.sampled_from([(), (), (Action("mirred", control="stolen", options={"dev": "em2"}),)]))
REQUESTS = st.lists(st.tuples(st.sampled_from([Op.ADD, Op.ADD, Op.REPLACE, Op.CHANGE, Op.DELETE, Op.GET]),
                              QDISCS | USUAL | CLASSES | FILTERS), min_size=1, max_size=10)
SHOWN: tuple[TcObject, ...] = (
    Qdisc("em1", "", parent=0), TcClass("em1", "", 0, parent=0), *(Filter("em1", parent, protocol=0) for parent in (
        0, 0xFFFFFFF2, 0xFFFFFFF3, 0x10000)))


def plain(row: Any) -> Any:
    """Return a row without what differs between machines and moments."""
    if isinstance(row, Qdisc):
        return replace(row, stats=type(row.stats)(), handle=0 if row.handle >> 16 >= 0x8000 and row.parent != TC_H_CLSACT else row.handle)
    if isinstance(row, TcClass):
        return replace(row, stats=type(row.stats)(), options={k: v for k, v in row.options.items() if "token" not in k})
    if isinstance(row, Filter):
        actions = tuple(replace(a, index=0, stats=type(a.stats)(), installed=0, used=0, first_used=0) for a in row.actions)
        return replace(row, actions=actions, options=row.options or Bpf())
    return row


def ask(dp: Datapath, op: Op, what: TcObject) -> Any:
    try:
        return [plain(row) for row in dp.apply(Request(op, what))]
    except TcError as error:
        return error.errno, error.extack.rstrip(".")


@SETTINGS
@given(requests=REQUESTS)
def test_traffic_control(both: tuple[Datapath, Datapath], requests: list[tuple[Op, Any]]) -> None:
    for dp in both:
        for parent in (TC_H_CLSACT, TC_H_ROOT):
            ask(dp, Op.DELETE, Qdisc("em1", "", parent=parent))
    for op, what in requests:
        if op is Op.GET and not isinstance(what, Filter):
            continue
        user, kernel = (ask(dp, op, what) for dp in both)
        assert user == kernel, (op, what)
        for shown in SHOWN:
            user, kernel = (ask(dp, Op.SHOW, shown) for dp in both)
            assert user == kernel, (op, what, shown)
