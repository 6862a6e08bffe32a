"""The scalar domain is sound: for all numbers and all that may be known of them, at 8 bits here and at 32 and 64
with -m proof.

What is proved is the source: `machine` runs tnum.py, scalar.py, transfer.py and branch.py over z3 terms, and the
rows of tables/insns.py say what an operation is to give. The theorems build on each other: tnum.step, then the
stages of sync, then sync, then every operation and every branch, each using of the ones before only what they claim.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

z3 = pytest.importorskip("z3")

from tcbpf.tables.insns import ALU, END, JUMP  # noqa: E402
from verifier import rfc9669  # noqa: E402
from verifier.proofs import theorem  # noqa: E402
from verifier.proofs.machine import Choice, Machine, Sym  # noqa: E402
from verifier.proofs.smt import Smt  # noqa: E402
from verifier.proofs.variant import Variant, at  # noqa: E402

pytestmark = pytest.mark.proof

WIDE = [pytest.param(bits, marks=pytest.mark.slow) for bits in (32, 64)]
BITS = pytest.mark.parametrize("bits", [8, *WIDE])


def widths(bits: int) -> tuple[int, int]:
    return bits, bits // 2


# --- the parts -------------------------------------------------------------------------------------------------------


@BITS
def test_step(bits):
    theorem.steps(at(bits)).prove()


@BITS
@pytest.mark.parametrize("name", ["learn_bounds", "learn_bits", "deduce", "settle", "raw_sync", "sync"])
def test_sync_keeps_every_number(bits, name):
    theorem.keeps(at(bits), name).prove()


@BITS
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", ["sext", "zext"])
def test_sizes(bits, name, size):
    row = SimpleNamespace(name=f"{name} {size}/8", fn=lambda a, d, s: getattr(a, name)(d, bits * size // 8))
    theorem.operation(at(bits), row, bits).prove()
    if name == "sext" and size < 4:
        theorem.operation(at(bits), row, bits // 2).prove()


@BITS
def test_product(bits):
    for each in theorem.products():
        each.prove()
    theorem.product_step(at(bits)).prove()
    for zeros in range(bits):
        theorem.unknown_product(at(bits), zeros).prove()
    low, half, y = z3.Ints("low half y")
    solver = z3.Solver()
    solver.add((2 * half + low) * y != low * y + half * (2 * y))
    assert solver.check() == z3.unsat


def test_product_at_once():
    """The whole loop of tnum.mul, and its short way for an unknown factor, at six bits."""
    theorem.product(at(6)).prove()


# --- the rows --------------------------------------------------------------------------------------------------------


@BITS
@pytest.mark.parametrize("half", [False, True], ids=["whole", "half"])
@pytest.mark.parametrize("row", [row for row in ALU if not row.name.startswith("MOVSX")], ids=lambda row: row.name)
def test_operation(row, half, bits):
    theorem.operation(at(bits), row, widths(bits)[half]).prove()


@pytest.mark.slow
@pytest.mark.parametrize("row", [*(row for row in ALU if row.name.startswith("MOVSX")), *END], ids=lambda row: row.name)
def test_operation_of_fixed_size(row):
    for width in getattr(row, "widths", (64,)):
        theorem.operation(at(64), row, width).prove()


@BITS
@pytest.mark.parametrize("row", [ALU["AND"], ALU["OR"]], ids=lambda row: row.name)
def test_fork(row, bits):
    theorem.split(at(bits), row).prove()


@BITS
@pytest.mark.parametrize("half", [False, True], ids=["whole", "half"])
@pytest.mark.parametrize("row", JUMP.rows, ids=lambda row: row.name)
def test_branch(row, half, bits):
    width = widths(bits)[half]
    theorem.decision(at(bits), row, width).prove()
    theorem.refinement(at(bits), row, width).prove()


@pytest.mark.parametrize("half", [False, True], ids=["whole", "half"])
@pytest.mark.parametrize("row", JUMP.rows, ids=lambda row: row.name)
def test_branch_of_one_register(row, half):
    theorem.refinement(at(8), row, widths(8)[half], same=True).prove()


# --- a fault is found ------------------------------------------------------------------------------------------------

FAULTS = {
    "a carry forgotten": (
        ("tnum", "((low + am + bm) ^ low | am | bm) & MAX", "((low + am + bm) ^ low | am) & MAX"),
        lambda bad: theorem.operation(bad, ALU["ADD"], 8),
    ),
    "an overflow unseen": (
        ("transfer", "if umin <= MAX < umax:", "if umin <= MAX < umax - 1:"),
        lambda bad: theorem.operation(bad, ALU["ADD"], 8),
    ),
    "a bound one too tight": (
        ("branch", "high = s.umax - apart", "high = s.umax - 1"),
        lambda bad: theorem.refinement(bad, JUMP["JLE"], 8),
    ),
    "a sign crossed": (
        ("scalar", "if low <= high:\n        if low > smin:", "if low <= high + 1:\n        if low > smin:"),
        lambda bad: theorem.keeps(bad, "deduce"),
    ),
    "a way cut off": (
        ("transfer", "True if a.smin >= b.smax else", "True if a.smin >= b.smin else"),
        lambda bad: theorem.decision(bad, JUMP["JSGE"], 8),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found(name):
    fault, claim = FAULTS[name]
    with pytest.raises(AssertionError, match=r"(?s)counterexample\n.*x = .*umin=") as found:
        claim(Variant(8, fault)).prove()
    print(found.value)


# --- that the proofs are of the right thing --------------------------------------------------------------------------


@pytest.mark.parametrize("width", [64, 32])
@pytest.mark.parametrize("row", [*ALU, *END, *JUMP], ids=lambda row: row.name)
def test_rows_are_rfc_9669(row, width):
    """The meaning that the proofs take from a row is the standard's, told a second time."""
    if width not in getattr(row, "widths", (64,) if row in END.rows else (64, 32)):
        return
    rng = random.Random(row.name)
    edges = [0, 1, 0x80, (1 << 31) - 1, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    for x, y in [(x, y) for x in edges for y in edges] + [(rng.getrandbits(64), rng.getrandbits(64)) for _ in range(16)]:
        given = row.fn(Smt(width), z3.BitVecVal(x & (1 << width) - 1, width), z3.BitVecVal(y & (1 << width) - 1, width))
        if row in JUMP.rows:
            assert z3.is_true(z3.simplify(given)) == rfc9669.holds(row, width, x, y)
        else:
            assert z3.simplify(given).as_long() == rfc9669.result(row, width, x, y)


def settled(value):
    """Return what the machine gives for numbers, as numbers: a scalar as its parts."""
    if isinstance(value, Choice):
        (value,) = [way for cond, way in value.ways if cond is True or z3.is_true(z3.simplify(cond))]
    if hasattr(value, "parts"):
        value = value.parts()
    if isinstance(value, tuple):
        return tuple(settled(each) for each in value)
    if z3.is_bool(value):
        return z3.is_true(z3.simplify(value))
    return z3.simplify(value).as_signed_long() if z3.is_expr(value) else value


def somewhere(rng: random.Random, variant: Variant):
    """Return a scalar of the variant, known by a few bounds and bits."""
    tnum, made = variant.tnum, variant.scalar
    low, high = sorted((rng.randrange(tnum.MAX + 1), rng.randrange(tnum.MAX + 1)))
    if rng.random() < 0.3:
        low, high = low >> tnum.HALF_BITS, high >> tnum.HALF_BITS
    known = made.bounded(made.UNKNOWN, umin=low, umax=high) if rng.random() < 0.7 else made.const(low)
    return variant.transfer.alu(ALU["AND"], tnum.BITS, known, made.const(high)) if rng.random() < 0.3 else known


RUN = [*(row for row in ALU if row.off < 16), JUMP["JEQ"], JUMP["JSET"], JUMP["JSLT"]]


@pytest.mark.parametrize("row", RUN, ids=lambda row: row.name)
def test_machine_runs_as_python_does(row):
    """The machine, given numbers for its terms, gives what Python gives."""
    rng, variant = random.Random(row.name), at(16)
    machine = Machine(variant, width=40)
    d, s = somewhere(rng, variant), somewhere(rng, variant)
    terms = [Sym(*(machine.number(part) for part in each.parts())) for each in (d, s)]
    width = rng.choice((16, 8))
    if row in JUMP.rows:
        ours = machine.run(variant.branch.refine, (row, width, *terms, False))
        assert settled(ours) == settled(variant.branch.refine(row, width, d, s))
    else:
        ours = machine.run(variant.transfer.alu, (row, width, *terms))
        assert settled(ours) == settled(variant.transfer.alu(row, width, d, s))
