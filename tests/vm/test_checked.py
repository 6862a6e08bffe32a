"""Checked mode: what no verifier has seen cannot harm the process."""

import pytest

from tcbpf.errors import InputError
from tcbpf.isa.insn import Insn
from tcbpf.vm import unverified as checked

EXIT = Insn(0x95)
both = pytest.mark.parametrize("run", [checked.run_jit, checked.run_interp], ids=["jit", "interp"])


def stopped(run, *insns, mem=b"", budget=100_000):
    with pytest.raises(InputError) as caught:
        run(checked.check(insns), mem, budget)
    return caught.value


@both
@pytest.mark.parametrize("off", [-1, 1, 8, -4096])
def test_loads_stay_in_the_memory(run, off):
    error = stopped(run, Insn(0x79, 0, 1, off), EXIT, mem=bytes(8))
    assert "outside" in error.what and error.where == "pc 0"


@both
def test_a_null_pointer_and_a_wild_one(run):
    assert "outside" in stopped(run, Insn(0xB7, 1), Insn(0x72, 1, 0, 0, 7), EXIT).what
    assert "outside" in stopped(run, Insn(0xB7, 1, 0, 0, -1), Insn(0x7B, 1, 0), EXIT).what


@both
def test_the_stack_has_two_ends(run):
    assert run(checked.check([Insn(0x7A, 10, 0, -512, 5), Insn(0x79, 0, 10, -512), EXIT]), b"") == 5
    assert "outside" in stopped(run, Insn(0x79, 0, 10, -520), EXIT).what


@both
def test_an_endless_loop_ends(run):
    assert "more than" in stopped(run, Insn(0x05, 0, 0, -1), EXIT).what


@both
def test_endless_recursion_ends(run):
    assert "nest deeper" in stopped(run, Insn(0x85, 0, 1, 0, -1), EXIT).what


@both
def test_a_fault_in_a_callee_ends_the_caller(run):
    program = Insn(0x85, 0, 1, 0, 2), Insn(0xB7, 0, 0, 0, 1), EXIT, Insn(0x79, 0, 0, 0), EXIT
    assert stopped(run, *program).where == "pc 3"


@both
def test_helpers_with_arguments_are_refused(run):
    assert "helper" in stopped(run, Insn(0x85, 0, 0, 0, 1), EXIT).what


@both
def test_an_atomic_must_be_aligned(run):
    assert "aligned" in stopped(run, Insn(0xDB, 1, 2, 1, 0), EXIT, mem=bytes(16)).what


@pytest.mark.parametrize(
    "insns, says",
    [
        ((Insn(0xBF, 11, 0), EXIT), "R11 is invalid"),
        ((Insn(0xB7, 10, 0), EXIT), "frame pointer is read only"),
        ((Insn(0x18, 1, 0), EXIT), "inside LD_IMM64"),
        ((Insn(0x18, 1, 0),), "without its second slot"),
        ((Insn(0x18, 1, 5), Insn(0), EXIT), "needs a context"),
        ((Insn(0x20, 0, 0), EXIT), "needs a context"),
        ((Insn(0x85, 0, 1, 0, 9), EXIT), "outside the program"),
    ],
)
def test_what_is_refused_before_it_runs(insns, says):
    with pytest.raises(InputError, match=says):
        checked.check(insns)


def test_a_path_into_the_middle_of_ld_imm64():
    with pytest.raises(InputError, match="a path enters LD_IMM64"):
        checked.check([Insn(0x05, 0, 0, 1), Insn(0x18, 1), Insn(0), EXIT])
