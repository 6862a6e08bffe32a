"""The public conformance suite on every engine."""

import io
import json
from pathlib import Path

import pytest

from tcbpf.cli import conformance
from tcbpf.cli import main as tcbpf
from tcbpf.errors import VerifierError
from tcbpf.isa.insn import decode
from tcbpf.vm import unverified as checked

CASES = json.loads((Path(__file__).parent.parent / "vectors" / "bpf_conformance.json").read_text())
SOME = [case for case in CASES if case["mem"]][:3]


def test_the_suite_is_whole():
    assert len(CASES) == 313 and sum(case["live_kernel"] == "PASS" for case in CASES) == 300


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("run", [checked.run_jit, checked.run_interp], ids=["jit", "interp"])
def test_case(case, run):
    program = checked.check(decode(bytes.fromhex(case["bytecode"])))
    assert run(program, bytes.fromhex(case["mem"])) == int(case["expected"], 16)


@pytest.mark.kernel
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case_on_the_live_kernel(case):
    insns, memory = decode(bytes.fromhex(case["bytecode"])), bytes.fromhex(case["mem"])
    if case["live_kernel"] == "PASS":
        assert conformance.run_kernel(insns, memory) == int(case["expected"], 16)
    else:
        with pytest.raises(VerifierError):
            conformance.run_kernel(insns, memory)


@pytest.mark.parametrize("engine", ["jit", "interp"])
@pytest.mark.parametrize("case", SOME, ids=lambda case: case["name"])
def test_protocol(case, engine, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(bytes.fromhex(case["bytecode"]).hex(" ")))
    assert tcbpf(["conformance-plugin", bytes.fromhex(case["mem"]).hex(" "), "--engine", engine]) == 0
    out = capsys.readouterr()
    assert int(out.out, 16) == int(case["expected"], 16) and out.out.endswith("\n") and not out.err


@pytest.mark.parametrize(
    "words, stdin, says",
    [
        (["--engine", "gpu"], "", "no engine 'gpu'"),
        (["zz"], "", "the memory is not hex bytes"),
        ([""], "95", "not whole instructions"),
        ([""], "", "an empty program"),
        (["", "00"], "", "unexpected argument"),
        ([""], "8b 00 00 00 00 00 00 00", "unknown opcode 0x8b"),
        ([""], "bf 01 00 00 00 00 00 00", "a path leaves the program"),
    ],
)
def test_bad_input_is_one_line(words, stdin, says, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    assert tcbpf(["conformance-plugin", *words]) == 2
    out = capsys.readouterr()
    assert says in out.err and out.err.count("\n") == 1 and not out.out
