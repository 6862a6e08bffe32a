"""scripts/house.py sees each kind of fault that it is there for, planted in a small checkout and in a copy of this one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/house.py"


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # where dataclasses look for its annotations
    spec.loader.exec_module(module)
    return module


def plant(root: Path, files: dict[str, str]) -> Path:
    """Write modules by path, each folder with an `__init__`."""
    for name, text in {"__init__": "", **files}.items():
        path = root / "src/tcbpf" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in {path.parent for path in (root / "src/tcbpf").rglob("*.py")}:
        (folder / "__init__.py").touch()
    return root


CIRCLES = {
    "at the top": {"vm/a": "from tcbpf.vm import b", "vm/b": "from tcbpf.vm.a import x"},
    "in a function": {"vm/a": "import tcbpf.vm.b", "vm/b": "def f():\n    from tcbpf.vm.a import x"},
    "for types only": {
        "vm/a": "from tcbpf.vm.b import x",
        "vm/b": "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from tcbpf.vm.a import y",
    },
    "of three": {"vm/a": "from tcbpf.vm import b", "vm/b": "from tcbpf.vm import c", "vm/c": "from tcbpf.vm import a"},
    "relative": {"vm/a": "from . import b", "vm/b": "from .a import x"},
    "with the package it lies in": {"vm/d/e": "from tcbpf.vm.d import x", "vm/d/__init__": "from tcbpf.vm.d.e import y"},
    "between folders": {
        "vm/d/e": "from tcbpf.vm.g.i import x",
        "vm/g/h": "from tcbpf.vm.d.f import x",
        "vm/d/f": "",
        "vm/g/i": "",
    },
    "by a name in a text": {
        "vm/a": "import importlib\nimportlib.import_module('tcbpf.vm.b')",
        "vm/b": "from tcbpf.vm import a",
    },
}


@pytest.mark.parametrize("files", CIRCLES.values(), ids=CIRCLES)
def test_a_circle_is_seen(house: ModuleType, tmp_path: Path, files: dict[str, str]) -> None:
    assert [fault.rule for fault in house.faults(plant(tmp_path, files))] == ["circle"]


def test_modules_of_a_package_that_names_them_are_no_circle(house: ModuleType, tmp_path: Path) -> None:
    plant(tmp_path, {"vm/d/__init__": "from tcbpf.vm.d.e import y", "vm/d/e": "from tcbpf.vm.d import f", "vm/d/f": ""})
    assert house.faults(tmp_path) == []


OPCODES = [
    "insn.code == 0x95",
    "insn.code in (JMP, 0x85)",
    "ins.code & 7 == JMP",
    "cls | 0x80",
    "JMP | 0x80",
    "insn.code & ~0x18",
    "op.row.code == 0xB",
    "Insn(0xB7, 1)",
    "insn._replace(code=0x05)",
    "(kind := insn.code & MODE) == 0xC0",
]


@pytest.mark.parametrize("text", OPCODES)
def test_an_opcode_as_a_number_is_seen(house: ModuleType, tmp_path: Path, text: str) -> None:
    assert [
        fault.rule for fault in house.faults(plant(tmp_path, {"vm/a": f"def f(insn, ins, op, cls):\n    return {text}\n"}))
    ] == ["opcode"]


def test_a_part_of_an_opcode_is_followed_through_a_local_name(house: ModuleType, tmp_path: Path) -> None:
    text = "def f(insn):\n    op, wide = insn.code & OPERATION, 1\n    if op == 0xD0:\n        return wide == 64\n"
    found = house.faults(plant(tmp_path, {"vm/a": text}))
    assert [(fault.rule, fault.where) for fault in found] == [("opcode", "src/tcbpf/vm/a.py:3")]


@pytest.mark.parametrize(
    "text", ["insn.code == CALL", "insn.code & CLASS", "insn.code >> 4", "insn.off == 8", "insn.code == 0", "Insn(0)"]
)
def test_names_and_other_numbers_are_no_opcodes(house: ModuleType, tmp_path: Path, text: str) -> None:
    assert house.faults(plant(tmp_path, {"vm/a": f"def f(insn):\n    return {text}\n"})) == []


CONSTANTS = {
    "the number of a table": ("tables/opcodes", "MAX_INSNS = 1_000_000", "MAX_INSNS = 1_000_000"),
    "the name of a table, with another number": ("tables/opcodes", "MAX_INSNS = 1_000_000", "MAX_INSNS = 4096"),
    "one that a table computes": ("tables/opcodes", "PSEUDO_CALL, PSEUDO_FUNC = range(2)", "_PSEUDO_FUNC = 4"),
    "one of the UAPI, without its prefix": ("uapi/bpf", "BPF_F_RDONLY_PROG = 128", "F_RDONLY_PROG = 1 << 7"),
    "one of a sibling": ("vm/b", "MAX_LOOPS = 8 * 1024 * 1024", "_MAX_LOOPS = 8 << 20"),
    "a function that one module alone has": ("maps/map", "def possible_cpus(): ...", "def possible_cpus(): ..."),
}


@pytest.mark.parametrize(("home", "first", "second"), CONSTANTS.values(), ids=CONSTANTS)
def test_a_constant_defined_twice_is_seen(house: ModuleType, tmp_path: Path, home: str, first: str, second: str) -> None:
    assert [fault.rule for fault in house.faults(plant(tmp_path, {home: first, "vm/a": second}))] == ["constant"]


def test_one_name_for_two_small_numbers_is_no_constant(house: ModuleType, tmp_path: Path) -> None:
    assert (
        house.faults(plant(tmp_path, {"vm/a": "DEPTH = 8", "vm/b": "DEPTH = 16", "cli/a": "ROUNDS = 3", "cli/b": "ROUNDS = 3"}))
        == []
    )


def test_a_folder_and_a_module_that_are_too_large_are_seen(house: ModuleType, tmp_path: Path) -> None:
    many = {f"vm/m{i}": "" for i in range(house.MODULES_OF_A_FOLDER)}
    plant(tmp_path, many | {"vm/m0": "x = 1\n" * (house.LINES_OF_A_MODULE + 1)})
    assert [fault.rule for fault in house.faults(tmp_path)] == ["size", "size"]


@pytest.mark.parametrize("text", ["dp.name == 'kernel'", "isinstance(dp, User)", "isinstance(dp, (Kernel, str))"])
def test_a_command_that_asks_which_datapath_it_has_is_seen(house: ModuleType, tmp_path: Path, text: str) -> None:
    assert [fault.rule for fault in house.faults(plant(tmp_path, {"cli/run": f"def f(dp):\n    return {text}\n"}))] == [
        "datapath"
    ]


@pytest.mark.parametrize("text", ["/" + "root/tcbpf", "TO" + "DO: later", "FIX" + "ME", "https://pypi" + ".example/simple/"])
def test_an_unwanted_word_is_seen(house: ModuleType, tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(f"one line\n{text}\n")
    found = house.faults(plant(tmp_path, {}))
    assert [(fault.rule, fault.where) for fault in found] == [("word", "README.md:2")]


def test_the_check_fails_on_a_copy_of_this_checkout_with_faults(tmp_path: Path) -> None:
    """What is planted is told, and told as the only new thing."""

    def told() -> tuple[int, set[str]]:
        done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)
        return done.returncode, set(done.stdout.splitlines())

    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "_build"))
    status, before = told()
    assert status == 0, before
    (tmp_path / "src/tcbpf/tables/row.py").open("a").write("\n\ndef late():\n    import tcbpf.tables.planted\n")
    (tmp_path / "src/tcbpf/tables/planted.py").write_text("import tcbpf.tables.row\n")
    (tmp_path / "src/tcbpf/vm/planted.py").write_text("MAX_INSNS = 1_000_000\n\n\ndef f(insn):\n    return insn.code == 0x95\n")
    (tmp_path / "README.md").write_text("FIX" + "ME\n")
    status, after = told()
    assert status == 1
    assert {line.split(": ")[1] for line in after - before} == {"circle", "constant", "opcode", "word"}
