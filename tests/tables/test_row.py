"""A table finds rows by name and number, and refuses duplicates of either before anything can use it."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tcbpf.tables import actions, helpers, insns, maps, progs, skb
from tcbpf.tables.row import Table


@dataclass(frozen=True)
class Thing:
    name: str
    number: int


def table(*rows: Thing) -> Table[Thing]:
    return Table(*rows, name=lambda row: row.name, number=lambda row: row.number)


def test_lookup() -> None:
    two = table(Thing("a", 1), Thing("b", 2))
    assert two["a"] is two.at(1) and two.get("c") is None and two.at(3) is None
    assert two.names() == ("a", "b") and len(two) == 2 and "b" in two and list(two) == list(two.rows)
    with pytest.raises(KeyError):
        two["c"]


@pytest.mark.parametrize("second", [Thing("a", 2), Thing("b", 1)])
def test_a_duplicate_is_refused(second: Thing) -> None:
    with pytest.raises(ValueError, match="duplicate row"):
        table(Thing("a", 1), second)


TABLES = {
    "actions": actions.ACTIONS,
    "alu": insns.ALU,
    "end": insns.END,
    "jump": insns.JUMP,
    "atomics": insns.ATOMICS,
    "helpers": helpers.HELPERS,
    "maps": maps.MAP_TYPES,
    "progs": progs.PROG_TYPES,
    "skb": skb.SKB,
    "xdp": skb.XDP,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_refuses_a_copy_under_another_name(name: str) -> None:
    rows = list(TABLES[name])
    another = copy.copy(rows[0])
    object.__setattr__(another, "name", "another")
    old = TABLES[name]
    keys = [key for key, row in old._by_number.items() if row is rows[0]]
    assert keys
    with pytest.raises(ValueError, match="duplicate row"):
        Table(
            *rows,
            another,
            name=lambda row: row.name,
            number=lambda row: next((k for k, r in old._by_number.items() if r is row), keys[0]),
        )


def test_a_duplicate_stops_the_import() -> None:
    """Import the helper table with one id changed to another's: the process ends with the row in its last words."""
    program = (
        "import importlib.util, pathlib, sys\n"
        "spec = importlib.util.find_spec('tcbpf.tables.helpers')\n"
        "text = pathlib.Path(spec.origin).read_text().replace('\"map_update_elem\", 2,', '\"map_update_elem\", 1,')\n"
        "module = importlib.util.module_from_spec(spec); sys.modules['tcbpf.tables.helpers'] = module\n"
        "exec(compile(text, spec.origin, 'exec'), module.__dict__)\n"
    )
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=path)
    assert done.returncode == 1 and "duplicate row 1" in done.stderr and "map_update_elem" in done.stderr
