#!/usr/bin/env python3
"""The rules of the house that no other tool holds: `scripts/house.py [ROOT]` prints each fault; status 1 when there is one.

ROOT is a checkout, by default this one. Everything is read as text or as a syntax tree; nothing is imported, so a tree
that cannot start can still be checked. CONTRIBUTING.md says why the rules are there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "tcbpf"
MODULES_OF_A_FOLDER = 18
LINES_OF_A_MODULE = 500
TABLES = ("tables/", "uapi/")
"""Where numbers are written down."""

LONG = {
    "verifier/words/reasons.py": "rows: one for each reason to refuse",
    "verifier/values/scalar.py": "one algebra, whose operations are proved together",
    "obj/btf.py": "one format",
    "datapath/kernel/syscall.py": "every call of bpf(2), in one file",
}
"""Modules that may be longer, and why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One breach of one rule."""

    rule: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}: {self.text}"


class Module:
    """One module of the package: its dotted name and its syntax tree."""

    def __init__(self, path: Path, src: Path) -> None:
        self.path = path
        self.place = path.relative_to(src / PACKAGE).as_posix()
        parts = path.relative_to(src).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree that the rules look at one by one."""
        return [node for node in ast.walk(self.tree) if isinstance(node, (ast.Import, ast.ImportFrom, ast.Call, ast.Attribute))]

    def at(self, node: ast.AST) -> str:
        """Return where a node stands, as an editor opens it."""
        return f"src/{PACKAGE}/{self.place}:{getattr(node, 'lineno', 1)}"

    def source(self, node: ast.AST) -> str:
        """Return the text of a node on one line."""
        return " ".join((ast.get_source_segment(self.text, node) or "").split())


# --- circles --------------------------------------------------------------------------------------------------------------


def imports(module: Module, known: Mapping[str, Module]) -> Iterator[str]:
    """Yield the modules that one names in import statements, wherever they stand: at the top, in a function, for types only."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.name.split(".")[: len(module.name.split(".")) - node.level + module.is_package]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                yield from (name for name in (f"{base}.{alias.name}", base) if name in known)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value in known:
                yield first.value


def called(node: ast.Call) -> str:
    """Return the last word of what a call calls."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def components(edges: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Yield the strongly connected components of more than one node.

    Source:  R. Tarjan, Depth-first search and linear graph algorithms (1972).
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                yield from visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            found = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(found) > 1:
                yield sorted(found)

    for node in sorted(edges):
        if node not in index:
            yield from visit(node)


def circles(modules: list[Module]) -> Iterator[Fault]:
    """Modules that import each other in a circle, and siblings of one folder that do so through what lies in them.

    A package stands for its `__init__` among modules and for all that is in it among siblings: import-linter holds the
    latter too, but sees neither a module that imports from the package it lies in nor an import_module("...").
    """
    known = {module.name: module for module in modules}
    edges: dict[str, set[str]] = {}
    for module in modules:
        found = set(imports(module, known)) - {module.name}
        finer = {name for name in found if any(other.startswith(f"{name}.") for other in found) and known[name].is_package}
        edges[module.name] = {name for name in found if name not in finer or binds(module, known[name], known)}
    for circle in components(edges):
        yield Fault("circle", known[circle[0]].at(known[circle[0]].tree), " ↔ ".join(circle))
    siblings: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for source, targets in edges.items():
        for target in targets:
            one, other = source.split("."), target.split(".")
            depth = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
            if depth:
                parent = ".".join(one[:depth])
                siblings[parent][".".join(one[: depth + 1])].add(".".join(other[: depth + 1]))
    for parent, graph in sorted(siblings.items()):
        for circle in components(graph):
            if not all(name in known and not known[name].is_package for name in circle):  # else it was told above
                yield Fault("circle", f"src/{parent.replace('.', '/')}", f"siblings {' ↔ '.join(circle)}")


def binds(module: Module, package: Module, known: Mapping[str, Module]) -> bool:
    """Tell whether a module takes from a package's own `__init__` and not only modules that lie in it."""
    for node in module.nodes:
        if isinstance(node, ast.ImportFrom) and node.module == package.name:
            if any(f"{package.name}.{alias.name}" not in known for alias in node.names):
                return True
        elif isinstance(node, ast.Import) and any(alias.name == package.name for alias in node.names):
            return True
    return False


# --- numbers --------------------------------------------------------------------------------------------------------------

CODES = frozenset({"code", "opcode"})
CLASSES = frozenset({"cls", "LD", "LDX", "ST", "STX", "ALU", "ALU32", "ALU64", "JMP", "JMP32"})


def literal(node: ast.AST) -> bool:
    """Tell whether a node is a number other than 0, or holds one: `0x80`, `~0x18`, `(0x80, 0xD0)`."""
    if isinstance(node, (ast.Tuple, ast.Set, ast.List)):
        return any(literal(part) for part in node.elts)
    if isinstance(node, ast.UnaryOp):
        return literal(node.operand)
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value != 0


class Opcodes(ast.NodeVisitor):
    """Finds opcodes written as numbers: what is compared, masked or joined with an instruction's code, or given to Insn()."""

    def __init__(self, numbers: set[str]) -> None:
        self.numbers = numbers  # names that the module binds to numbers
        self.found: list[ast.AST] = []
        self.names: set[str] = set()  # local names that hold a code or a part of one

    def is_code(self, node: ast.AST) -> bool:
        """Tell whether an expression is an instruction's code or a part of it."""
        if isinstance(node, ast.Attribute):
            return node.attr in CODES
        if isinstance(node, ast.Name):
            return node.id in self.names or node.id == "opcode"
        if isinstance(node, ast.BinOp):
            return not isinstance(node.op, (ast.LShift, ast.RShift)) and (self.is_code(node.left) or self.is_code(node.right))
        return isinstance(node, ast.NamedExpr) and self.is_code(node.value)

    def is_number(self, node: ast.AST) -> bool:
        """Tell whether an expression is a number, or a name of this module for one."""
        return literal(node) or (isinstance(node, ast.Name) and node.id in self.numbers)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self.names = self.names, set(self.names)
        for part in ast.walk(node):
            pairs: list[tuple[ast.AST, ast.AST]] = []
            if isinstance(part, ast.Assign):
                for target in part.targets:
                    both = isinstance(target, ast.Tuple) and isinstance(part.value, ast.Tuple)
                    pairs += zip(target.elts, part.value.elts, strict=False) if both else [(target, part.value)]  # type: ignore[attr-defined]
            elif isinstance(part, ast.NamedExpr):
                pairs.append((part.target, part.value))
            self.names |= {target.id for target, value in pairs if isinstance(target, ast.Name) and self.is_code(value)}
        self.generic_visit(node)
        self.names = outer

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        if any(map(self.is_code, sides)) and any(map(self.is_number, sides)):
            self.found.append(node)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        pair = (node.left, node.right)
        if isinstance(node.op, (ast.BitAnd, ast.BitOr, ast.BitXor)) and any(map(literal, pair)):
            classed = isinstance(node.op, ast.BitOr) and any(isinstance(side, ast.Name) and side.id in CLASSES for side in pair)
            if classed or any(map(self.is_code, pair)):
                self.found.append(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = called(node)
        given = node.args[:1] if name == "Insn" else []
        if name in ("Insn", "_replace"):
            given = [*given, *(word.value for word in node.keywords if word.arg == "code")]
        self.found += [node for value in given if self.is_number(value)]
        self.generic_visit(node)


def opcodes(modules: list[Module]) -> Iterator[Fault]:
    """Opcodes written as numbers outside tables/: tables.opcodes has a name for each part, tables.insns a row for each."""
    for module in modules:
        if not module.place.startswith(TABLES):
            bound = (pair for node in module.tree.body for pair in bindings(node))
            finder = Opcodes({name for name, value in bound if type(value) is int and value})
            finder.visit(module.tree)
            lines = {node.lineno: node for node in reversed(finder.found)}  # type: ignore[attr-defined]
            for _, node in sorted(lines.items()):
                yield Fault("opcode", module.at(node), f"a bare number in `{module.source(node)}`; tables/opcodes.py names it")


def constants(modules: list[Module]) -> Iterator[Fault]:
    """Constants that a second module defines again, and functions that one module alone may have."""
    homes: dict[str, list[tuple[Module, ast.stmt, object]]] = defaultdict(list)
    for module in modules:
        for node in module.tree.body:
            for name, value in bindings(node):
                homes[name.lstrip("_").removeprefix("BPF_")].append((module, node, value))
    for name, found in sorted(homes.items()):
        found.sort(key=lambda row: (not row[0].place.startswith(TABLES), row[0].place != "tables/opcodes.py", row[0].place))
        for index, (module, node, value) in enumerate(found):
            if module.place.startswith(TABLES) or (module.place, name) in STARTUP:
                continue
            for home, at, known in found[:index]:
                one_name = home.place == "tables/opcodes.py" and len(name) > 5  # whatever the number: one name, one meaning
                if one_name or (known == value and type(known) is type(value) and telling(home, value)):
                    yield Fault("constant", module.at(node), f"{name} is defined in {home.place}:{at.lineno}")
                    break


def telling(home: Module, value: object) -> bool:
    """Tell whether a value is so much one's own that two of one name and value are one constant."""
    return home.place.startswith(TABLES) or (value > 256 if isinstance(value, int) else bool(value))


STARTUP = {("native/mapmemory.py", "F_ZERO_SEED"): "a warm start would import all of uapi.bpf for it"}
"""Copies that stay, and why."""

ALONE = frozenset({"possible_cpus"})


def bindings(node: ast.stmt) -> Iterator[tuple[str, object]]:
    """Yield the upper-case names that a statement binds, with their values where literal, and functions of ALONE."""
    if isinstance(node, ast.FunctionDef) and node.name.lstrip("_") in ALONE:
        yield node.name, node.name
    pairs: list[tuple[ast.expr, ast.expr]] = []
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        pairs = [(node.target, node.value)]
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple):
                pairs += zip(target.elts, parts(node.value, len(target.elts)), strict=False)
            else:
                pairs.append((target, node.value))
    for target, value in pairs:
        name = target.id if isinstance(target, ast.Name) else ""
        if name.lstrip("_").isupper() and len(name) > 2 and name != "TYPE_CHECKING":
            try:
                yield name, number(value)
            except ValueError:
                yield name, object()  # equal to nothing else


def parts(node: ast.expr, count: int) -> list[ast.expr]:
    """Return the expressions that a tuple or a range of literals gives to `count` names."""
    if isinstance(node, ast.Tuple):
        return node.elts
    if isinstance(node, ast.Call) and called(node) == "range":
        try:
            return [ast.Constant(value) for value in range(*(int(str(number(bound))) for bound in node.args))]
        except ValueError:
            pass
    return [node] * count


def number(node: ast.expr) -> object:
    """Return the value of a literal, or of sums, products, shifts and unions of literals.

    Raises:  ValueError for any other expression.
    """
    if isinstance(node, ast.BinOp):
        one, other = number(node.left), number(node.right)
        if isinstance(one, int) and isinstance(other, int):
            kinds: dict[type, Callable[[int, int], int]] = {
                ast.Add: int.__add__,
                ast.Sub: int.__sub__,
                ast.Mult: int.__mul__,
                ast.BitOr: int.__or__,
                ast.LShift: int.__lshift__,
            }
            if type(node.op) in kinds:
                return kinds[type(node.op)](one, other)
        raise ValueError
    return ast.literal_eval(node)


# --- rooms ----------------------------------------------------------------------------------------------------------------


def sizes(modules: list[Module]) -> Iterator[Fault]:
    """Folders and modules that have grown beyond what one reads at a sitting."""
    folders: dict[Path, int] = defaultdict(int)
    for module in modules:
        folders[module.path.parent] += 1
        lines = module.text.count("\n")
        if lines > LINES_OF_A_MODULE and not module.place.startswith(TABLES) and module.place not in LONG:
            yield Fault("size", module.at(module.tree), f"{lines} lines; {LINES_OF_A_MODULE} are a module's")
    for folder, count in sorted(folders.items()):
        if count > MODULES_OF_A_FOLDER:
            yield Fault("size", folder.name, f"{count} modules; {MODULES_OF_A_FOLDER} are a folder's")


def datapaths(modules: list[Module]) -> Iterator[Fault]:
    """Questions of the command line which datapath it speaks to: what differs is a member of the protocol."""
    for module in modules:
        if not module.place.startswith("cli/"):
            continue
        for node in module.nodes:
            named = isinstance(node, ast.Attribute) and node.attr == "name" and ast.unparse(node.value) in ("dp", "datapath")
            asks = (
                isinstance(node, ast.Call)
                and called(node) == "isinstance"
                and len(node.args) == 2
                and {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)} & {"User", "Kernel"}
            )
            if named or asks:
                yield Fault("datapath", module.at(node), f"`{module.source(node)}` asks which datapath this is")


# --- words ----------------------------------------------------------------------------------------------------------------

TEXT = {".py", ".c", ".h", ".md", ".toml", ".txt", ".json", ".yaml", ".yml", ".cfg", "", ".s", ".in"}
UNWANTED = {
    r"(?<![\w.])/(?:root|home/\w+)/": "a path of one machine",
    r"https?://[\w.:-]*(?:pypi|simple|artifact|nexus|proxy|mirror)[\w.:-]*/": "the host of a package registry",
    r"\b(?:TODO|FIXME|XXX|HACK)\b(?!-)": "work left undone",
}
NO_TEXT = ("tests/vectors/", "scripts/house.py", "tests/house/")


def words(root: Path) -> Iterator[Fault]:
    """Words that must not stand in a file that is handed on."""
    for path in tracked(root):
        place = path.relative_to(root).as_posix()
        if path.suffix not in TEXT or place.startswith(NO_TEXT):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for pattern, meaning in UNWANTED.items():
            for match in re.finditer(pattern, text):
                line = text.count("\n", 0, match.start()) + 1
                yield Fault("word", f"{place}:{line}", f"`{match[0]}` is {meaning}")


def tracked(root: Path) -> Iterator[Path]:
    """Yield the files of a checkout that are not made by tools."""
    for name in ("src", "tests", "scripts", "docs", "examples", "benchmarks", "bin", ".ci"):
        yield from (
            path
            for path in sorted((root / name).rglob("*"))
            if path.is_file() and not {"__pycache__", "_build", "out"} & set(path.parts)
        )
    yield from (path for path in sorted(root.iterdir()) if path.is_file() and path.suffix in TEXT and path.name != ".git")


RULES: tuple[Callable[[list[Module]], Iterable[Fault]], ...] = (circles, opcodes, constants, sizes, datapaths)


def faults(root: Path) -> list[Fault]:
    """Return every breach in a checkout."""
    src = root / "src"
    modules = [Module(path, src) for path in sorted((src / PACKAGE).rglob("*.py")) if "_build" not in path.parts]
    return [*(fault for rule in RULES for fault in rule(modules)), *words(root)]


def main() -> int:
    root = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).resolve().parent.parent
    found = faults(root)
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
