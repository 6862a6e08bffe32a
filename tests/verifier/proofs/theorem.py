"""What is proved: for numbers in the operands, what the row gives is in the result. And the counterexample when it is
not.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import z3

from verifier.proofs.machine import FIELDS, Frame, Kept, Machine, Sym, Synced, _and, _implies, _ways
from verifier.proofs.smt import Smt
from verifier.proofs.variant import Variant, at


@dataclass
class Theorem:
    """Assumptions and claims over named unknowns; each claim is proved by itself."""

    machine: Machine
    unknowns: dict[str, Any]
    assumptions: list[Any]
    claims: list[Any]
    name: str = ""

    def prove(self, timeout: float = 120) -> None:
        """Return when every claim holds for all unknowns.

        Units:   timeout in seconds, of each claim.
        Raises:  AssertionError with the counterexample; TimeoutError when z3 does not know.
        """
        facts = [fact for each in (*self.assumptions, *self.machine.assumptions) for fact in _conjuncts(each)]
        reach = [_names(fact) for fact in facts]
        for claim in (*self.claims, *self.machine.obligations):
            for part in _split(claim):
                names = _names(part)
                near = [fact for fact, of in zip(facts, reach, strict=True) if of <= names]
                if len(near) == len(facts) or not self._holds(part, near, timeout, final=False):
                    self._holds(part, facts, timeout, final=True)

    def _holds(self, claim: Any, facts: list[Any], timeout: float, final: bool) -> bool:
        solver = z3.SolverFor("QF_BV") if self.machine.width else z3.Solver()
        solver.set("timeout", int(timeout * 1000))
        solver.add(*facts, z3.Not(claim))
        answer = solver.check()
        if final and answer == z3.sat:
            raise AssertionError(f"{self.name}: counterexample\n{self.show(solver.model())}")
        if final and answer != z3.unsat:
            raise TimeoutError(f"{self.name}: {solver.reason_unknown()}")
        return bool(answer == z3.unsat)

    def show(self, model: Any) -> str:
        lines = []
        for name, unknown in self.unknowns.items():
            if isinstance(unknown, Sym):
                number = self.machine.variant.scalar.Scalar
                known = number(*(_number(model, part) for part in unknown.parts()))
                lines.append(f"  {name} = " + " ".join(f"{field}={getattr(known, field)}" for field in FIELDS))
            else:
                lines.append(f"  {name} = {_number(model, unknown)}")
        return "\n".join(lines)


def _conjuncts(fact: Any) -> list[Any]:
    if isinstance(fact, bool):
        return [z3.BoolVal(fact)]
    if z3.is_and(fact):
        return [part for child in fact.children() for part in _conjuncts(child)]
    return [fact]


def _split(claim: Any) -> list[Any]:
    """Return the claims that together are the claim: a -> (b and c) as a -> b, a -> c."""
    if isinstance(claim, bool):
        return [] if claim else [z3.BoolVal(False)]
    if z3.is_and(claim):
        return [part for child in claim.children() for part in _split(child)]
    if z3.is_or(claim):
        *conds, last = claim.children()
        if z3.is_and(last) or z3.is_or(last):
            return [z3.Or(*conds, part) for part in _split(last)]
    return [claim]


def _names(term: Any) -> frozenset[str]:
    """Return the unknowns in a term."""
    names, seen, stack = set(), set(), [term]
    while stack:
        node = stack.pop()
        if node.get_id() in seen:
            continue
        seen.add(node.get_id())
        if z3.is_const(node) and node.decl().kind() == z3.Z3_OP_UNINTERPRETED:
            names.add(node.decl().name())
        stack.extend(node.children())
    return frozenset(names)


def _number(model: Any, term: Any) -> int:
    number = model.eval(term, model_completion=True)
    return number.as_signed_long() if z3.is_bv(number) else number.as_long()


def anything(machine: Machine, name: str) -> tuple[Sym, Any]:
    """Return a scalar of which nothing is known but that its parts are in range, and that being so."""
    scalar, tnum = machine.variant.scalar, machine.variant.tnum
    sym = Sym(*(machine.fresh(f"{name}.{field}") for field in FIELDS))
    limits = {
        "value": (0, tnum.MAX),
        "mask": (0, tnum.MAX),
        "umin": (0, tnum.MAX),
        "umax": (0, tnum.MAX),
        "smin": (scalar.SMIN, scalar.SMAX),
        "smax": (scalar.SMIN, scalar.SMAX),
        "umin32": (0, tnum.HALF_MAX),
        "umax32": (0, tnum.HALF_MAX),
        "smin32": (scalar.HALF_SMIN, scalar.HALF_SMAX),
        "smax32": (scalar.HALF_SMIN, scalar.HALF_SMAX),
    }
    formed = [_within(getattr(sym, field), *limits[field]) for field in FIELDS]
    return sym, _and(*formed, (sym.value & sym.mask) == 0 if machine.width else True)


def _within(term: Any, low: int, high: int) -> Any:
    return z3.And(term >= low, term <= high)


def number(machine: Machine, name: str) -> tuple[Any, Any, Any]:
    """Return an unknown register: as its bits, as the machine's number, and no more to assume."""
    bits = z3.BitVec(name, machine.variant.bits)
    return bits, z3.ZeroExt(machine.width - machine.variant.bits, bits), True


def member(machine: Machine, scalar: Any, term: Any) -> Any:
    """Return whether the number is in the scalar, by the source's own `contains`."""
    contains = machine.variant.scalar.Scalar.contains
    return _and(*(_implies(cond, machine.truth(machine.run(contains, (_sym(way), term)))) for cond, way in _ways(scalar)))


def _sym(scalar: Any) -> Any:
    if isinstance(scalar, Synced):
        return scalar.before  # what it keeps is in the result, by the theorem
    return scalar if isinstance(scalar, Sym) else Sym(*scalar.parts())


def assume(machine: Machine, name: str, *numbers: Any, parts: bool = False) -> None:
    """Let a function give any scalar (or parts) that keeps these numbers: what its own theorem says, and no more."""

    def keeps(*args: Any) -> Any:
        made, formed = anything(machine, f"{name}{len(machine.assumptions)}")
        made = Synced(*made.parts())
        made.before = Sym(*args)
        machine.assumptions.append(formed)
        for term in numbers:
            machine.assumptions.append(_implies(member(machine, made.before, term), member(machine, Sym(*made.parts()), term)))
        return Kept(made.parts()) if parts else made

    machine.assumed[name] = keeps


def assume_step(machine: Machine, term: Any) -> None:
    """Let tnum.step give any number that its theorem allows, as far as the member `term` can tell."""

    def step(value: Any, mask: Any, start: Any) -> Any:
        after = machine.fresh(f"after{len(machine.assumptions)}")
        machine.assumptions.append(_and(*next_member(machine, (value, mask), machine.number(start), after, term)))
        return after

    machine.assumed["step"] = step


def next_member(machine: Machine, pair: Any, start: Any, after: Any, term: Any) -> list[Any]:
    """Return what makes `after` the next member of a tnum above `start`, or its last, as far as the number can tell."""
    value, mask = pair
    top = value | mask
    inside = _and(start >= value, start < top)
    is_member = (term & ~mask) == value
    return [
        _implies(start >= top, after == top),
        _implies(start < value, after == value),
        _implies(inside, _and(after > start, after <= top)),
        _implies(_and(inside, is_member), z3.Or(term <= start, term >= after)),
    ]


def assume_sync(machine: Machine, *numbers: Any) -> None:
    """Let sync give what its theorem says."""
    assume(machine, "sync", *numbers)
    assume(machine, "raw_sync", *numbers, parts=True)


# --- the theorems ----------------------------------------------------------------------------------------------------


def assume_product(machine: Machine, exact: Any, whole: bool) -> None:
    """Let the parts of a multiplication give what their theorems say: bounds of all numbers, or such as hold the
    product.

    When the bounds are in range no product wraps, so that the product modulo the width is the product.
    """
    tnum = machine.variant.tnum

    def unsigned(*args: Any) -> Any:
        return _bounds(machine, exact & args[-1], 0, args[-1])

    def signed(*args: Any) -> Any:
        bottom, top = args[-2:]
        sign, keep = (tnum.SIGN, tnum.MAX) if top > tnum.HALF_MAX else (tnum.HALF_SIGN, tnum.HALF_MAX)
        return _bounds(machine, ((exact & keep) ^ sign) - sign, bottom, top)

    def bits(*_: Any) -> Any:
        value, mask = machine.fresh("product.value"), machine.fresh("product.mask")
        keep = tnum.MAX if whole else tnum.HALF_MAX
        machine.assumptions.append(
            _and(
                _within(value, 0, tnum.MAX),
                _within(mask, 0, tnum.MAX),
                (value & mask) == 0,
                (exact & ~mask & keep) == (value & keep),
            )
        )
        return value, mask

    machine.assumed |= {"unsigned_product": unsigned, "signed_product": signed, "mul": bits}


def _bounds(machine: Machine, product: Any, bottom: int, top: int) -> Any:
    low, high = machine.fresh(f"low{len(machine.assumptions)}"), machine.fresh(f"high{len(machine.assumptions)}")
    machine.assumptions.append(
        _and(
            _within(low, bottom, top),
            _within(high, bottom, top),
            z3.Or(z3.And(low == bottom, high == top), z3.And(low <= product, product <= high)),
        )
    )
    return low, high


STAGES = ("learn_bounds", "learn_bits", "deduce")


def keeps(variant: Variant, name: str, given: Callable[[Sym], Any] | None = None) -> Theorem:
    """Return: a function of scalar.py from parts to parts, or to a scalar, drops no number that the parts allow.

    For sync itself the theorems on its stages are used; `given` is what its caller has made sure of.
    """
    machine = Machine(variant)
    before, formed = anything(machine, "parts")
    x, term, _ = number(machine, "x")
    if name in ("raw_sync", "sync"):
        for stage in STAGES:
            assume(machine, stage, term, parts=True)
        assume(machine, "settle", term)
    if name == "learn_bounds":
        assume_step(machine, term)
    if name == "sync":
        assume(machine, "raw_sync", term, parts=True)
    if given is not None:
        formed = _and(formed, given(before))
    after = machine.run(getattr(variant.scalar, name), before.parts())
    after = machine.each(after, lambda way: Sym(*way) if isinstance(way, tuple) else way)
    kept = [_implies(cond, member(machine, way, term)) for cond, way in _ways(after) if way is not None]
    return Theorem(machine, {"x": x, "parts": before}, [formed, member(machine, before, term)], kept, name)


def steps(variant: Variant) -> Theorem:
    """Return: tnum.step gives the next member, or the last."""
    machine = Machine(variant)
    start, start_term, _ = number(machine, "start")
    x, term, _ = number(machine, "x")
    value, mask = machine.fresh("value"), machine.fresh("mask")
    limit = variant.tnum.MAX
    formed = [_within(value, 0, limit), _within(mask, 0, limit), (value & mask) == 0]
    after = machine.run(variant.tnum.step, (value, mask, start_term))
    claims = next_member(machine, (value, mask), start_term, after, term)
    return Theorem(machine, {"x": x, "start": start, "value": value, "mask": mask}, formed, claims, "step")


def operation(variant: Variant, row: Any, width: int) -> Theorem:
    """Return: the row's transfer function is sound, given the theorems on sync and on products."""
    machine = Machine(variant)
    d, d_formed = anything(machine, "d")
    s, s_formed = anything(machine, "s")
    x, x_term, _ = number(machine, "x")
    y, y_term, _ = number(machine, "y")
    exact = concrete(variant.bits, row, width, x, y)
    result_term = z3.ZeroExt(machine.width - variant.bits, exact)
    assume_sync(machine, result_term)
    if row.name == "MUL":
        assume_product(machine, result_term, width == variant.bits)
    result = machine.run(variant.transfer.alu, (row, width, d, s))
    assumptions = [d_formed, s_formed, member(machine, d, x_term), member(machine, s, y_term)]
    return Theorem(
        machine,
        {"x": x, "y": y, "d": d, "s": s, "gives": exact},
        assumptions,
        [member(machine, result, result_term)],
        f"{row.name} at {width} of {variant.bits} bits",
    )


def concrete(bits: int, row: Any, width: int, x: Any, y: Any) -> Any:
    """Return what the row makes of two registers of that many bits, by z3's own arithmetic."""
    if width == bits:
        return row.fn(Smt(bits), x, y)
    low = row.fn(Smt(width), z3.Extract(width - 1, 0, x), z3.Extract(width - 1, 0, y))
    return z3.ZeroExt(bits - width, low)


def products() -> list[Theorem]:
    """Return: the bounds of a product of two ranges hold the product, of whatever width: over the integers."""
    theorems = []
    for name, signed in (("unsigned_product", False), ("signed_product", True)):
        machine = Machine(at(64), width=0)
        names = ("x", "y", "low", "high", "other_low", "other_high", "bottom", "top")
        unknowns = {each: machine.fresh(each) for each in names}
        x, y, low, high, other_low, other_high, bottom, top = unknowns.values()
        ranges = [low <= x, x <= high, other_low <= y, y <= other_high, bottom <= 0, top >= 0]
        limits: tuple[Any, ...] = (bottom, top)
        if not signed:
            ranges += [low >= 0, other_low >= 0, bottom == 0]
            limits = (top,)
        smallest, largest = machine.run(getattr(machine.variant.transfer, name), (low, high, other_low, other_high, *limits))
        everything = z3.And(smallest == bottom, largest == top)
        exact = z3.And(smallest <= x * y, x * y <= largest, bottom <= smallest, largest <= top)
        theorems.append(Theorem(machine, unknowns, ranges, [z3.Or(everything, exact)], name))
    return theorems


def product_step(variant: Variant) -> Theorem:
    """Return: one turn of tnum.mul's loop keeps (what is added up) + x * y, of numbers in acc, a and b.

    With acc at 0, a and b at the operands before the first turn, and nothing left of a or b after the last, acc is
    the product.
    """
    machine = Machine(variant)
    loop = next(node for node in ast.walk(variant.functions[variant.tnum.__name__, "mul"]) if isinstance(node, ast.While))
    env = {name: machine.fresh(name) for name in ("av", "am", "bv", "bm", "value", "mask")}
    pairs = (("value", "mask"), ("av", "am"), ("bv", "bm"))
    limit = variant.tnum.MAX
    formed = [_within(term, 0, limit) for term in env.values()] + [(env[v] & env[m]) == 0 for v, m in pairs]
    (total, total_term, _), (x, x_term, _), (y, y_term, _) = (number(machine, name) for name in ("total", "x", "y"))
    held = [_in(env, pair, term) for pair, term in zip(pairs, (total_term, x_term, y_term), strict=True)]
    after, live = Frame(machine, variant.tnum.__dict__).block(loop.body, env, True)
    assert live is True
    then = (total + z3.If(z3.Extract(0, 0, x) == 1, y, z3.BitVecVal(0, variant.bits)), z3.LShR(x, 1), y << 1)
    wider = [z3.ZeroExt(machine.width - variant.bits, term) for term in then]
    claims = [_in(after, pair, term) for pair, term in zip(pairs, wider, strict=True)]
    claims += [(after[v] & after[m]) == 0 for v, m in pairs]
    return Theorem(machine, env | {"total": total, "x": x, "y": y}, [*formed, *held], claims, "tnum.mul, one turn")


def product(variant: Variant) -> Theorem:
    """Return: tnum.mul holds every product."""
    machine = Machine(variant)
    d, d_formed = anything(machine, "d")
    s, s_formed = anything(machine, "s")
    (x, x_term, _), (y, y_term, _) = number(machine, "x"), number(machine, "y")
    value, mask = machine.run(variant.tnum.mul, (d.value, d.mask, s.value, s.mask))
    exact = z3.ZeroExt(machine.width - variant.bits, x * y)
    held = [(x_term & ~d.mask) == d.value, (y_term & ~s.mask) == s.value]
    claims = [(exact & ~mask) == value, (value & mask) == 0]
    return Theorem(machine, {"x": x, "y": y, "d": d, "s": s}, [d_formed, s_formed, *held], claims, "tnum.mul")


def _in(env: dict[str, Any], pair: tuple[str, str], term: Any) -> Any:
    return (term & ~env[pair[1]]) == env[pair[0]]


def unknown_product(variant: Variant, zeros: int) -> Theorem:
    """Return: a product is a multiple of 2**zeros when the second factor is: why tnum.mul may answer at once."""
    machine = Machine(variant)
    x, y = z3.BitVecs("x y", variant.bits)
    low = (1 << zeros) - 1
    return Theorem(machine, {"x": x, "y": y}, [(y & low) == 0], [(x * y & low) == 0], f"multiple of 2**{zeros}")


def split(variant: Variant, row: Any) -> Theorem:
    """Return: a number is in one of the two that a register is forked into."""
    machine = Machine(variant)
    d, d_formed = anything(machine, "d")
    s, s_formed = anything(machine, "s")
    x, term, _ = number(machine, "x")
    two = machine.run(variant.transfer.fork, (row, d, s))
    claims = [
        _implies(cond, z3.Or(member(machine, way[0], term), member(machine, way[1], term)))
        for cond, way in _ways(two)
        if way is not None
    ]
    return Theorem(machine, {"x": x, "d": d, "s": s}, [d_formed, s_formed, member(machine, d, term)], claims, "fork")


def decision(variant: Variant, row: Any, width: int) -> Theorem:
    """Return: a jump that is said to be always or never taken is so."""
    machine = Machine(variant)
    d, d_formed = anything(machine, "d")
    s, s_formed = anything(machine, "s")
    x, x_term, _ = number(machine, "x")
    y, y_term, _ = number(machine, "y")
    exact = condition(variant.bits, row, width, x, y)
    said = machine.run(variant.branch.taken, (row, width, d, s))
    claims = [_implies(cond, exact if way is True else exact == way) for cond, way in _ways(said) if way is not None]
    assumptions = [d_formed, s_formed, member(machine, d, x_term), member(machine, s, y_term)]
    return Theorem(machine, {"x": x, "y": y, "d": d, "s": s}, assumptions, claims, f"{row.name} taken at {width}")


def refinement(variant: Variant, row: Any, width: int, same: bool = False) -> Theorem:
    """Return: on the way that the numbers go, they are in what the operands become."""
    machine = Machine(variant)
    d, d_formed = anything(machine, "d")
    x, x_term, _ = number(machine, "x")
    if same:
        s, s_formed, y, y_term = d, True, x, x_term
    else:
        s, s_formed = anything(machine, "s")
        y, y_term, _ = number(machine, "y")
    assume_sync(machine, x_term, y_term)
    ways = machine.run(variant.branch.refine, (row, width, d, s, same))
    exact = condition(variant.bits, row, width, x, y)
    claims = []
    for cond, (yes, no) in _ways(ways):
        for way, holds in ((yes, exact), (no, z3.Not(exact))):
            for there, pair in _ways(way):
                kept = pair is not None and _and(member(machine, pair[0], x_term), member(machine, pair[1], y_term))
                claims.append(_implies(_and(cond, there, holds), kept))
    assumptions = [d_formed, s_formed, member(machine, d, x_term), member(machine, s, y_term)]
    return Theorem(machine, {"x": x, "y": y, "d": d, "s": s}, assumptions, claims, f"{row.name} at {width}")


def condition(bits: int, row: Any, width: int, x: Any, y: Any) -> Any:
    """Return whether the comparison of two registers of that many bits holds, by z3's own arithmetic."""
    if width == bits:
        return row.fn(Smt(bits), x, y)
    return row.fn(Smt(width), z3.Extract(width - 1, 0, x), z3.Extract(width - 1, 0, y))
