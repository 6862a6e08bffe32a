"""Run the verifier's own source over z3 terms: every path at once, its ifs turned into terms.

A function of the four modules is read from its syntax. A number is a Python int where it is known and else a bit-
vector wide enough that nothing these functions compute overflows it (or a z3 integer); a condition is a bool or a z3
one. Where two paths meet, numbers, tuples and scalars are joined part by part; what cannot be joined (None, or a
scalar that the source tells by identity) stays a `Choice`. Only what the four modules use of Python is here;
anything else stops with the node's name.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import z3

from verifier.proofs.variant import Variant

FIELDS = ("value", "mask", "umin", "umax", "smin", "smax", "umin32", "umax32", "smin32", "smax32")


class Sym:
    """A scalar of terms; the fields are those of a Scalar."""

    def __init__(self, *parts: Any) -> None:
        for name, part in zip(FIELDS, parts, strict=True):
            setattr(self, name, part)

    def parts(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in FIELDS)


class Synced(Sym):
    """What a theorem lets a function give: any scalar (its fields) that keeps the numbers `before` has."""

    before: Sym


class Kept(tuple[Any, ...]):
    """Parts that a theorem let a function give; not joined with others, so that each path is followed by itself."""


@dataclass
class Choice:
    """One of several values, each under its condition; exactly one holds."""

    ways: list[tuple[Any, Any]]


class Proxy:
    """A ScalarAlgebra whose methods run on the machine: what a row's own function is called with."""

    def __init__(self, machine: Machine, algebra: Any) -> None:
        self._machine, self._algebra = machine, algebra

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args: self._machine.method(self._algebra, name, args)


class Machine:
    """A run of one variant's source.

    Units:   width of the bit-vectors that stand for Python ints, or 0 for z3's unbounded integers.
    """

    def __init__(self, variant: Variant, width: int | None = None) -> None:
        self.variant = variant
        self.width = variant.bits + 5 if width is None else width
        self.assumed: dict[str, Callable[..., Any]] = {}  # functions replaced by what is proved of them
        self.assumptions: list[Any] = []
        self.obligations: list[Any] = []  # must hold besides: that an unrolled loop has ended

    # --- values ----------------------------------------------------------------------------------------------------

    def fresh(self, name: str) -> Any:
        return z3.BitVec(name, self.width) if self.width else z3.Int(name)

    def number(self, number: Any) -> Any:
        """Return the term of a number."""
        if isinstance(number, Choice):
            numbers = [(cond, way) for cond, way in number.ways if way is not None]
            term = self.number(numbers[-1][1])
            for cond, way in numbers[:-1]:
                term = z3.If(cond, self.number(way), term)
            return term
        if isinstance(number, bool):
            number = int(number)
        if isinstance(number, int):
            return z3.BitVecVal(number, self.width) if self.width else z3.IntVal(number)
        if z3.is_bool(number):
            return z3.If(number, self.number(1), self.number(0))
        return number

    def truth(self, value: Any) -> Any:
        """Return the condition that Python would see in the value."""
        if isinstance(value, (bool, int, tuple)) or value is None:
            return bool(value)
        if isinstance(value, Choice):
            return _or(*(_and(cond, self.truth(way)) for cond, way in value.ways))
        return value if z3.is_bool(value) else value != 0

    def join(self, cond: Any, yes: Any, no: Any) -> Any:
        """Return yes where the condition holds, else no."""
        if cond is True or yes is no:
            return yes
        if cond is False:
            return no
        if isinstance(yes, bool) and isinstance(no, bool):
            return yes if yes == no else cond if yes else z3.Not(cond)
        if _is_condition(yes) and _is_condition(no):
            return z3.If(cond, _bool(yes), _bool(no))
        if _is_number(yes) and _is_number(no):
            return z3.If(cond, self.number(yes), self.number(no))
        if type(yes) is type(no) is Sym:
            return Sym(*(self.join(cond, a, b) for a, b in zip(yes.parts(), no.parts(), strict=True)))
        if type(yes) is type(no) is tuple and len(yes) == len(no):
            return tuple(self.join(cond, a, b) for a, b in zip(yes, no, strict=True))
        ways = [(_and(cond, c), way) for c, way in _ways(yes)] + [(_and(_not(cond), c), way) for c, way in _ways(no)]
        return Choice([(c, way) for c, way in ways if c is not False])

    def each(self, value: Any, act: Callable[[Any], Any]) -> Any:
        """Return what act makes of the value, whichever it is."""
        if not isinstance(value, Choice):
            return act(value)
        ways = [(cond, way) for cond, way in value.ways if way is not None]
        result = act(ways[-1][1])
        for cond, way in reversed(ways[:-1]):
            result = self.join(cond, act(way), result)
        return result

    # --- calls -----------------------------------------------------------------------------------------------------

    def method(self, owner: Any, name: str, args: tuple[Any, ...]) -> Any:
        """Call a method of a real object of the variant."""
        return self.run(getattr(type(owner), name), (owner, *args))

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        """Call a function as the source does: run it here if it is the variant's, natively if a row's, else one of the
        builtins.
        """
        if function in (min, max):
            pick = operator.lt if function is min else operator.gt
            result = args[0]
            for other in args[1:]:
                result = self.join(self.compare(pick, other, result), other, result)
            return result
        if function is self.variant.scalar.Scalar:
            return Sym(*args)
        function = getattr(function, "__wrapped__", function)
        if isinstance(function, FunctionType):
            if function.__name__ in self.assumed:
                return self.assumed[function.__name__](*args)
            if (function.__module__, function.__qualname__) in self.variant.functions:
                return self.run(function, args)
            algebra = self.variant.transfer.ScalarAlgebra
            return function(*(Proxy(self, arg) if isinstance(arg, algebra) else arg for arg in args))
        raise NotImplementedError(f"call of {function!r}")

    def run(self, function: FunctionType, args: tuple[Any, ...]) -> Any:
        """Return what a function of the variant returns."""
        node = self.variant.functions[function.__module__, function.__qualname__]
        cells = (cell.cell_contents for cell in function.__closure__ or ())
        frame = Frame(self, function.__globals__ | dict(zip(function.__code__.co_freevars, cells, strict=True)))
        names = [arg.arg for arg in node.args.args]
        env = dict(zip(names, args, strict=False))
        for name, default in zip(reversed(names), reversed(function.__defaults__ or ()), strict=False):
            env.setdefault(name, default)
        if len(env) != len(names):
            raise TypeError(f"{function.__qualname__} takes {names}, not {len(args)} arguments")
        _, falls = frame.block(node.body, env, True)
        returns = frame.returns
        if falls is not False:
            returns = [*returns, (falls, None)]
        result = returns[-1][1]
        for cond, value in reversed(returns[:-1]):
            result = self.join(cond, value, result)
        return result

    # --- operators ---------------------------------------------------------------------------------------------------

    def compare(self, op: Any, left: Any, right: Any) -> Any:
        """Return left op right of two numbers, conditions or tuples."""
        if isinstance(left, tuple) and isinstance(right, tuple):
            equal = len(left) == len(right) and _and(
                *(self.compare(operator.eq, a, b) for a, b in zip(left, right, strict=True))
            )
            return {operator.eq: equal, operator.ne: _not(equal)}[op]
        if isinstance(left, (int, str)) and isinstance(right, (int, str)):
            return op(left, right)
        if _is_condition(left) and _is_condition(right):
            return op(_bool(left), _bool(right))
        return op(self.number(left), self.number(right))

    def binary(self, op: Any, left: Any, right: Any) -> Any:
        """Return left op right of two numbers."""
        if isinstance(left, int) and isinstance(right, int):
            return op(left, right)
        return op(self.number(left), self.number(right))

    def same(self, left: Any, right: Any) -> Any:
        """Return whether left is right: by identity, as the source tells None and the scalars it keeps."""
        return _or(
            *(
                _and(a, b)
                for a, x in _ways(left)
                for b, y in _ways(right)
                if (x is y or (isinstance(x, bool) and isinstance(y, bool) and x == y))
            ),
            *(
                _and(a, b, x if y else _not(x))
                for a, x in _ways(left)
                for b, y in _ways(right)
                if z3.is_bool(x) and isinstance(y, bool)
            ),
        )

    def bit_length(self, number: Any) -> Any:
        """Return the length of a number that is not negative."""
        if isinstance(number, int):
            return number.bit_length()
        length = self.number(0)
        for bit in range(self.variant.bits + 1):
            length = z3.If(z3.Extract(bit, bit, number) == 1, self.number(bit + 1), length)
        return length


class Frame:
    """One call under way: its globals, and what it has returned so far, in order, each under its condition."""

    def __init__(self, machine: Machine, names: dict[str, Any]) -> None:
        self.machine, self.names = machine, names
        self.returns: list[tuple[Any, Any]] = []

    # --- statements: (environment, condition under which the next one runs) ------------------------------------------

    def block(self, body: list[ast.stmt], env: dict[str, Any], live: Any) -> tuple[dict[str, Any], Any]:
        for statement in body:
            if live is False:
                break
            env, live = getattr(self, type(statement).__name__)(statement, env, live)
        return env, live

    def Expr(self, node: ast.Expr, env: dict[str, Any], live: Any) -> tuple[dict[str, Any], Any]:
        if not isinstance(node.value, ast.Constant):
            raise NotImplementedError(ast.dump(node))
        return env, live  # a docstring

    def Return(self, node: ast.Return, env: dict[str, Any], live: Any) -> tuple[dict[str, Any], Any]:
        self.returns.append((live, None if node.value is None else self.value(node.value, env)))
        return env, False

    def Assign(self, node: ast.Assign, env: dict[str, Any], live: Any) -> tuple[dict[str, Any], Any]:
        value = self.value(node.value, env)
        env = dict(env)
        for target in node.targets:
            self.bind(target, value, env)
        return env, live

    def AnnAssign(self, node: ast.AnnAssign, env: dict[str, Any], live: Any) -> tuple[dict[str, Any], Any]:
        env = dict(env)
        self.bind(node.target, self.value(node.value, env), env)  # type: ignore[arg-type]
        return env, live

    def AugAssign(self, node: ast.AugAssign, env: dict[str, Any], live: Any) -> tuple[dict[str, Any], Any]:
        env = dict(env)
        name = node.target.id  # type: ignore[union-attr]
        env[name] = self.machine.binary(_BINARY[type(node.op)], env[name], self.value(node.value, env))
        return env, live

    def If(self, node: ast.If, env: dict[str, Any], live: Any) -> tuple[dict[str, Any], Any]:
        cond = self.machine.truth(self.value(node.test, env))
        if cond is True or cond is False:
            return self.block(node.body if cond else node.orelse, env, live)
        yes, yes_live = self.block(node.body, env, _and(live, cond))
        no, no_live = self.block(node.orelse, env, _and(live, z3.Not(cond)))
        if yes_live is False:
            return no, no_live
        if no_live is False:
            return yes, yes_live
        joined = {name: self.machine.join(cond, yes[name], no[name]) for name in yes if name in no}
        if _is_true_branch(yes_live, live, cond) and _is_true_branch(no_live, live, z3.Not(cond)):
            return joined, live
        return joined, _or(yes_live, no_live)

    def For(self, node: ast.For, env: dict[str, Any], live: Any) -> tuple[dict[str, Any], Any]:
        for number in self.value(node.iter, env):
            env = dict(env)
            self.bind(node.target, number, env)
            env, live = self.block(node.body, env, live)
        return env, live

    def While(self, node: ast.While, env: dict[str, Any], live: Any) -> tuple[dict[str, Any], Any]:
        once = ast.If(node.test, node.body, [])
        for _ in range(self.machine.variant.bits):
            env, live = self.If(once, env, live)
        self.machine.obligations.append(_implies(live, _not(self.machine.truth(self.value(node.test, env)))))
        return env, live

    def bind(self, target: ast.expr, value: Any, env: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            env[target.id] = value
        elif isinstance(target, ast.Tuple):
            for index, name in enumerate(target.elts):
                self.bind(name, self.machine.each(value, lambda each, at=index: each[at]), env)
        else:
            raise NotImplementedError(ast.dump(target))

    # --- expressions -----------------------------------------------------------------------------------------------

    def value(self, node: ast.expr, env: dict[str, Any]) -> Any:
        machine = self.machine
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                if node.id in env:
                    return env[node.id]
                return self.names[node.id] if node.id in self.names else _BUILTINS[node.id]
            case ast.Attribute():
                return machine.each(self.value(node.value, env), lambda owner: getattr(owner, node.attr))
            case ast.Tuple():
                return tuple(self.spread(node.elts, env))
            case ast.Subscript():
                owner, key = self.value(node.value, env), self.value(node.slice, env)
                return owner[key]
            case ast.UnaryOp(ast.Not()):
                return _not(machine.truth(self.value(node.operand, env)))
            case ast.UnaryOp(ast.USub()):
                return machine.binary(operator.sub, 0, self.value(node.operand, env))
            case ast.UnaryOp(ast.Invert()):
                return machine.binary(operator.sub, -1, self.value(node.operand, env))
            case ast.BinOp():
                left, right = self.value(node.left, env), self.value(node.right, env)
                return machine.binary(_BINARY[type(node.op)], left, right)
            case ast.BoolOp():
                conds = [machine.truth(self.value(each, env)) for each in node.values]
                return _and(*conds) if isinstance(node.op, ast.And) else _or(*conds)
            case ast.IfExp():
                cond = machine.truth(self.value(node.test, env))
                if cond is True or cond is False:
                    return self.value(node.body if cond else node.orelse, env)
                return machine.join(cond, self.value(node.body, env), self.value(node.orelse, env))
            case ast.Compare():
                return self.comparison(node, env)
            case ast.Call():
                return self.call(node, env)
        raise NotImplementedError(ast.dump(node))

    def comparison(self, node: ast.Compare, env: dict[str, Any]) -> Any:
        conds, left = [], self.value(node.left, env)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node, env)
            if isinstance(op, (ast.Is, ast.IsNot)):
                same = self.machine.same(left, right)
                conds.append(same if isinstance(op, ast.Is) else _not(same))
            elif isinstance(op, (ast.In, ast.NotIn)):
                conds.append((left in right) == isinstance(op, ast.In))
            else:
                conds.append(self.machine.compare(_COMPARE[type(op)], left, right))
            left = right
        return _and(*conds)

    def call(self, node: ast.Call, env: dict[str, Any]) -> Any:
        if isinstance(node.args[0] if node.args else None, ast.Starred):
            first = self.value(node.args[0].value, env)  # type: ignore[attr-defined]
            if isinstance(first, Choice):
                (function, rest) = self.value(node.func, env), tuple(self.spread(node.args[1:], env))
                return self.machine.each(first, lambda way: self.machine.call(function, (*way, *rest)))
        args = tuple(self.spread(node.args, env))
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value, env)
            if node.func.attr == "bit_length":
                return self.machine.bit_length(owner)
            if node.func.attr == "parts":
                return self.machine.each(owner, lambda each: each.parts())
            if isinstance(owner, ModuleType) or hasattr(owner, "fn"):
                return self.machine.call(getattr(owner, node.func.attr), args)
            return self.machine.method(owner, node.func.attr, args)
        function = self.value(node.func, env)
        if function is range:
            return range(*args)
        return self.machine.call(function, args)

    def spread(self, nodes: list[ast.expr], env: dict[str, Any]) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self.value(node.value, env)
            else:
                yield self.value(node, env)


_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_BUILTINS = {"min": min, "max": max, "range": range}


def _is_condition(value: Any) -> bool:
    return isinstance(value, bool) or z3.is_bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) or (z3.is_expr(value) and not z3.is_bool(value))


def _bool(value: Any) -> Any:
    return z3.BoolVal(value) if isinstance(value, bool) else value


def _ways(value: Any) -> list[tuple[Any, Any]]:
    return value.ways if isinstance(value, Choice) else [(True, value)]


def _and(*conds: Any) -> Any:
    terms = [cond for cond in conds if cond is not True]
    if any(cond is False for cond in terms):
        return False
    return True if not terms else terms[0] if len(terms) == 1 else z3.And(*terms)


def _or(*conds: Any) -> Any:
    terms = [cond for cond in conds if cond is not False]
    if any(cond is True for cond in terms):
        return True
    return False if not terms else terms[0] if len(terms) == 1 else z3.Or(*terms)


def _not(cond: Any) -> Any:
    return (not cond) if isinstance(cond, bool) else z3.Not(cond)


def _implies(cond: Any, then: Any) -> Any:
    return _or(_not(cond), then)


def _is_true_branch(after: Any, live: Any, cond: Any) -> bool:
    """Say whether nothing inside a branch has returned, so that it goes on where it began."""
    before = _and(live, cond)
    return after is before or (z3.is_expr(after) and z3.is_expr(before) and after.eq(before))
