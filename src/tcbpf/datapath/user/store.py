"""Stores for the State between requests: in this process, or in one SQLite file that processes share.

A request runs inside `change`, which holds the only right to write. The new State and the numbers given out are
committed when the `with` block exits without an exception, all or nothing; otherwise the old State stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tcbpf.errors import SysError

if TYPE_CHECKING:
    import sqlite3

    from tcbpf.control.objects import Filter
    from tcbpf.tc.state import Chains, Hook, State

WAIT_SECONDS = 30


@dataclass
class Change:
    """The value of a `change` block, which sets `state` to the next State."""

    state: State


class Store(Protocol):
    """Keeps one State, and gives out the numbers of maps and programs, which are never used again."""

    def read(self) -> State: ...
    def number(self, name: str) -> int: ...
    def change(self) -> contextlib.AbstractContextManager[Change]: ...
    def close(self) -> None: ...


class MemoryStore:
    """A State that lives and dies with this process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.numbers: dict[str, int] = {}

    @cached_property
    def state(self) -> State:
        """The State now."""
        from tcbpf.tc import link

        return link.initial()

    def read(self) -> State:
        """Return the State."""
        return self.state

    def number(self, name: str) -> int:
        """Give out the next number of that name."""
        with self.lock:
            self.numbers[name] = self.numbers.get(name, 0) + 1
            return self.numbers[name]

    @contextlib.contextmanager
    def change(self) -> Iterator[Change]:
        """Hold the write lock; keep the block's State when it ends."""
        with self.lock:
            change = Change(self.state)
            yield change
            self.state = change.state

    def close(self) -> None:
        """Do nothing: this store holds nothing open."""


class FileStore:
    """A State in an SQLite file. `data_version` tells cheaply whether another process wrote since the last look."""

    def __init__(self, path: Path) -> None:
        import sqlite3

        self.lock = threading.RLock()
        self.path = path
        try:
            self.db = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            self.db.execute("pragma journal_mode = wal")
            self.db.execute("pragma synchronous = normal")
            if not self._begun():
                with self._writing():
                    if not self._begun():  # by another process, meanwhile
                        self._begin()
        except sqlite3.Error as error:
            raise refused(error, path) from None
        self.seen: tuple[int, State] | None = None

    def _begun(self) -> bool:
        """Return whether the file holds a State.

        Raises:  SysError when it is another program's.
        """
        tables = {name for (name,) in self.db.execute("select name from sqlite_master where type = 'table'")}
        if tables - {"row"}:
            raise SysError(errno.EINVAL, f"state file {self.path}", "is another program's database")
        return "row" in tables

    def _begin(self) -> None:
        """Write the first State."""
        from tcbpf.tc import link
        from tcbpf.tc.state import State

        self.db.execute("create table row (name text, key text, value text, primary key (name, key))")
        self._write(State(), link.initial())

    def read(self) -> State:
        """Return the State as the last finished change left it.

        Raises:  SysError when the file cannot be read, or holds what this release does not know.
        """
        import sqlite3

        with self.lock:
            try:
                version = self.db.execute("pragma data_version").fetchone()[0]
                if self.seen is None or self.seen[0] != version:
                    asked = "select name, key, value from row where name <> 'numbers' order by rowid"
                    self.seen = version, state_of(self.db.execute(asked).fetchall())
            except sqlite3.Error as error:
                raise refused(error, self.path) from None
            except (KeyError, TypeError, ValueError) as error:
                raise SysError(errno.EINVAL, f"state file {self.path}", f"is not of this release: {error}") from None
            return self.seen[1]

    def number(self, name: str) -> int:
        """Give out the next number of that name, of all processes."""
        import sqlite3

        with self.lock:
            try:
                with self._writing():
                    self.db.execute(
                        "insert into row values ('numbers', ?, 1) on conflict do update set value = value + 1", (name,)
                    )
                    return int(
                        self.db.execute("select value from row where name = 'numbers' and key = ?", (name,)).fetchone()[0]
                    )
            except sqlite3.Error as error:
                raise refused(error, self.path) from None

    @contextlib.contextmanager
    def change(self) -> Iterator[Change]:
        """Hold the write lock of all processes; commit the block's State when it ends."""
        import sqlite3

        with self.lock:
            try:
                with self._writing():
                    before = self.read()
                    version = self.seen[0] if self.seen else 0  # other connections' writes change it, ours do not
                    change = Change(before)
                    yield change
                    if change.state is not before:
                        self._write(before, change.state)
                if change.state is not before:
                    self.seen = version, change.state
            except sqlite3.Error as error:
                self.seen = None
                raise refused(error, self.path) from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self.db.execute("begin immediate")
        try:
            yield
            self.db.execute("commit")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("rollback")
            raise

    def _write(self, before: State, after: State) -> None:
        from tcbpf.datapath.user import record
        from tcbpf.tc.state import MAPPINGS

        for name in MAPPINGS:
            old, new = table(before, name), table(after, name)
            for key in old.keys() - new.keys():
                self.db.execute("delete from row where name = ? and key = ?", (name, record.encode(key)))
            for key, value in new.items():
                if key not in old or (old[key] is not value and old[key] != value):
                    self.db.execute(
                        "insert into row values (?, ?, ?) on conflict do update set value = excluded.value",
                        (name, record.encode(key), record.encode(value)),
                    )

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()


def table(state: State, name: str) -> Mapping[Any, object]:
    """Return one mapping of a State as rows have it: a filter is a row, and the ingress queues go with the counters."""
    if name == "counters":
        return {**state.counters, **{f"ingress {index}": 1 for index in state.once_ingress}}
    if name == "filters":
        return {(*hook, f.chain, f.pref, f.handle): f for hook, filters in state.filters.items() for f in reversed(filters)}
    found: Mapping[Any, object] = getattr(state, name)
    return found


def state_of(rows: list[tuple[str, str, str]]) -> State:
    """Return the State that rows hold, in the order in which they were first written."""
    from tcbpf.datapath.user import record
    from tcbpf.tc.state import MAPPINGS, State

    tables: dict[str, dict[Any, Any]] = {name: {} for name in MAPPINGS}
    for name, key, value in rows:
        tables[name][record.decode(key)] = record.decode(value)
    marks = {name for name in tables["counters"] if name.startswith("ingress ")}
    queues = frozenset(int(mark.split()[1]) for mark in marks)
    tables["filters"] = blocks(tables["filters"], tables["chains"])
    tables["counters"] = {name: number for name, number in tables["counters"].items() if name not in marks}
    return State(**tables, once_ingress=queues)


def blocks(
    filters: Mapping[tuple[int, int, int, int, int], Filter], chains: Mapping[Hook, Chains]
) -> dict[Hook, tuple[Filter, ...]]:
    """Return filters, given from the oldest on, by block and in the order they are asked: see State."""
    found: dict[Hook, list[Filter]] = {}
    for (index, parent, *_), one in filters.items():
        found.setdefault((index, parent), []).append(one)
    for hook, block in found.items():
        place = {chain: number for number, (chain, _) in enumerate(chains[hook])}
        block.reverse()  # sorting is stable: the newest of equal ones first
        block.sort(key=lambda f, place=place: (place[f.chain], f.pref))  # type: ignore[misc]
    return {hook: tuple(block) for hook, block in found.items()}


def refused(error: sqlite3.Error, path: Path) -> SysError:
    """Return the error for a state file that cannot be used; SQLite does not hand on the errno."""
    words = str(error)
    if "full" in words or ("I/O" in words and os.statvfs(path.parent).f_bavail == 0):
        return SysError(errno.ENOSPC, f"state file {path}")
    if "locked" in words:
        return SysError(errno.EBUSY, f"state file {path}", f"another process has held it for {WAIT_SECONDS} seconds")
    code = errno.EACCES if "readonly" in words or "unable" in words else errno.EIO
    return SysError(code, f"state file {path}", words)
