"""Where the State is kept: nothing half-done, seen by every process, whatever dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tcbpf.control.objects import Action, Bpf, Filter, Link, Qdisc, Stats, TcClass
from tcbpf.control.request import Op, Request
from tcbpf.datapath.user import record
from tcbpf.datapath.user.store import FileStore, MemoryStore, Store
from tcbpf.errors import SysError, TcError
from tcbpf.tc import link
from tcbpf.tc.apply import apply
from tcbpf.uapi.tc import TC_H_CLSACT

VALUES = [
    Link("em1", 3, "veth", "02:00:00:00:00:01", 1500, True, "em2", 2, "noqueue", {"name": "x"}),
    Qdisc("em1", "prio", 0x10000, options={"priomap": (1, 2, 2), "bands": 3}, stats=Stats(1, 2, 3)),
    TcClass("em1", "htb", 0x10001, options={"rate": 1000}),
    Filter(
        "em1",
        0xFFFFFFF2,
        "bpf",
        options=Bpf(bytecode=((6, 0, 0, 1),), tag=b"\1\2", direct_action=True),
        actions=(Action("gact", 1, "drop"),),
    ),
    (Filter("em1", 0xFFFFFFF2, "matchall"),),
    (1, 2),
    ("gact", 7),
    5,
    "text",
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_survives_its_record(value: object) -> None:
    assert record.decode(record.encode(value)) == value


def do(store: Store, op: Op, thing: Link | Qdisc | Filter) -> None:
    with store.change() as change:
        change.state, _ = apply(change.state, Request(op, thing))


def fill(store: Store) -> None:
    do(store, Op.ADD, Link("em1", kind="veth", peer="em2"))
    do(store, Op.ADD, Qdisc("em1", "clsact", parent=TC_H_CLSACT))
    for chain, pref in (0, 1), (7, 5), (0, 2), (0, 1), (3, 1), (7, 4), (0, 1):
        do(store, Op.ADD, Filter("em1", 0xFFFFFFF2, "bpf", pref=pref, chain=chain, options=Bpf(bytecode=((6, 0, 0, pref),))))
    do(store, Op.REPLACE, Filter("em1", 0xFFFFFFF2, "bpf", pref=1, handle=2, options=Bpf(bytecode=((6, 0, 0, 9),))))
    do(store, Op.DELETE, Filter("em1", 0xFFFFFFF2, "bpf", pref=1, handle=1))


def test_a_file_says_what_memory_does(tmp_path: Path) -> None:
    memory, file = MemoryStore(), FileStore(tmp_path / "state.db")
    assert memory.read() == file.read() == link.initial()
    for store in memory, file:
        fill(store)

    def bare(store: Store) -> object:
        state = store.read()
        return [list(state.links), list(state.qdiscs), state.filters, state.counters, state.once_ingress]

    assert bare(file) == bare(memory) == bare(FileStore(tmp_path / "state.db"))


def test_another_connection_sees_a_change_and_its_order(tmp_path: Path) -> None:
    one, two = FileStore(tmp_path / "state.db"), FileStore(tmp_path / "state.db")
    assert two.read() == one.read()
    fill(one)
    assert two.read() == one.read()
    do(two, Op.DELETE, Link("em1"))
    for name in "b", "a", "c":
        do(two, Op.ADD, Link(name))
    assert one.read() == two.read() and [x.name for x in one.read().links.values()] == ["lo", "b", "a", "c"]


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    one, two = FileStore(tmp_path / "state.db"), FileStore(tmp_path / "state.db")
    seen = []
    for store in one, two, one, two:
        seen.append(store.number("map"))
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_refused_request_changes_nothing(tmp_path: Path, kind: str) -> None:
    store: Store = MemoryStore() if kind == "memory" else FileStore(tmp_path / "state.db")
    fill(store)
    before = store.read()
    with pytest.raises(TcError), store.change() as change:
        change.state, _ = apply(change.state, Request(Op.ADD, Link("new")))
        change.state, _ = apply(change.state, Request(Op.ADD, Link("em1")))
    assert store.read() == before
    if kind == "file":
        assert FileStore(tmp_path / "state.db").read() == before


def test_a_file_that_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database" * 100)
    with pytest.raises(SysError, match="state file"):
        FileStore(tmp_path / "state.db")


def test_rows_of_another_release(tmp_path: Path) -> None:
    FileStore(tmp_path / "state.db").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as db:
        db.execute("insert into row values ('links', '9', '{\"\":\"Unheard\"}')")
        db.commit()
    with pytest.raises(SysError, match="not of this release"):
        FileStore(tmp_path / "state.db").read()


def work_until_killed(path: Path, started: object) -> None:
    """Add and remove devices, each change of two steps, for ever."""
    store = FileStore(path)
    number = 0
    while True:
        with store.change() as change:
            for name in f"a{number}", f"b{number}":
                change.state, _ = apply(change.state, Request(Op.ADD, Link(name)))
        started.set()  # type: ignore[attr-defined]
        number += 1
        if number > 3:
            with store.change() as change:
                for name in f"a{number - 3}", f"b{number - 3}":
                    change.state, _ = apply(change.state, Request(Op.DELETE, Link(name)))


def test_killed_at_any_moment_nothing_is_half_done(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for round in range(8):
        path = tmp_path / f"{round}.db"
        started = context.Event()
        child = context.Process(target=work_until_killed, args=(path, started))
        child.start()
        started.wait(10)
        time.sleep(0.003 * round)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        store = FileStore(path)
        names = {x.name for x in store.read().links.values()}
        assert {n[1:] for n in names if n[0] == "a"} == {n[1:] for n in names if n[0] == "b"}
        do(store, Op.ADD, Link("after"))
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)


def add_many(path: Path, name: str) -> None:
    store = FileStore(path)
    for number in range(20):
        do(store, Op.ADD, Link(f"{name}{number}"))


def test_two_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    FileStore(path).close()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=add_many, args=(path, name)) for name in "xy"]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    links = FileStore(path).read().links
    assert len(links) == 41 and sorted(links) == list(range(1, 42))


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as db:
        db.execute("create table theirs (x)")
    with pytest.raises(SysError, match=r"state\.db: Invalid argument \(is another program's database\)"):
        FileStore(tmp_path / "state.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as db:
        assert db.execute("select name from sqlite_master").fetchall() == [("theirs",)]
