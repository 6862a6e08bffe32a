"""The verifier's scalar modules at another width, and on request with a fault: the same source, one line changed.

`BITS` in tnum.py is all that a width changes. A fault replaces one text of one module by another; it must occur.
"""

from __future__ import annotations

import ast
import itertools
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import tcbpf.verifier.values

ROOM = Path(tcbpf.verifier.values.__path__[0])
MODULES = ("tnum", "scalar", "transfer", "branch")
_counter = itertools.count()


class Variant:
    """Four modules of one width: `tnum`, `scalar`, `transfer`, `branch`, and the syntax of every function in them."""

    tnum: ModuleType
    scalar: ModuleType
    transfer: ModuleType
    branch: ModuleType

    def __init__(self, bits: int, fault: tuple[str, str, str] | None = None) -> None:
        self.bits = bits
        self.functions: dict[tuple[str, str], ast.FunctionDef] = {}
        package = f"verifier_at_{bits}_{next(_counter)}"
        for name in MODULES:
            text = (ROOM / f"{name}.py").read_text()
            if name == "tnum":
                text = _replace(text, "BITS = 64\n", f"BITS = {bits}\n")
            if fault is not None and fault[0] == name:
                text = _replace(text, fault[1], fault[2])
            for other in MODULES:
                text = text.replace(f"from tcbpf.verifier.values.{other} import", f"from {package}.{other} import")
            text = text.replace("from tcbpf.verifier.values import tnum", f"import {package}.tnum as tnum")
            module = ModuleType(f"{package}.{name}")
            sys.modules[module.__name__] = module
            setattr(sys.modules.setdefault(package, ModuleType(package)), name, module)
            tree = ast.parse(text, f"{name}.py at {bits} bits")
            exec(compile(tree, f"{name}.py at {bits} bits", "exec"), module.__dict__)
            setattr(self, name, module)
            self._index(module.__name__, tree)

    def _index(self, module: str, tree: ast.Module) -> None:
        for node in tree.body:
            members = node.body if isinstance(node, ast.ClassDef) else [node]
            prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
            for member in members:
                if isinstance(member, ast.FunctionDef):
                    self.functions[module, prefix + member.name] = member
                    for inner in member.body:
                        if isinstance(inner, ast.FunctionDef):
                            self.functions[module, f"{prefix}{member.name}.<locals>.{inner.name}"] = inner


def _replace(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise ValueError(f"{old!r} occurs {text.count(old)} times")
    return text.replace(old, new)


@cache
def at(bits: int) -> Variant:
    """Return the modules as they are, at that width."""
    return Variant(bits)
