"""The verifier's cases: programs as text, each with the verdict it must get. One idea a case, one feature a file.

A file begins with what its cases share, in any order: comments, declarations in C (for BTF), maps, fragments, and `type`,
`license` for all.

    map values: array 4 48 1              # NAME: TYPE KEY VALUE ENTRIES [WORD=NUMBER ...]; a size may be a declared type
    fragment found:                       # {found} stands for these lines, up to the next blank one
        ...

    == read the last byte of a value
    {found}
        r0 = *(u8 *)(r0 +47)
        exit

    == read the byte after it
    reject: map_value_bounds              # the reason's name; a case without this line is accepted
    says: invalid access to map value, value_size=48 off=48 size=1
    ...

Further words of a case: `type`, `license`, `attach` and `flags` (numbers), `privilege` (none, or bpf: CAP_BPF
without CAP_PERFMON), `main` (the declared function that the case is, unless `main`), `slow` (a minute or so).
`repeat N: INSTRUCTION / INSTRUCTION` is N times these, {i} in them the round; {bpf_map.ops} is the place of a field in a
structure of the running kernel, {kernel task_struct} that structure's number, {own struct value} a declared type's; `call
kfunc NAME` calls a function of the kernel. A case whose functions are all declared, `main` too,
has BTF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from tcbpf.errors import NotSupported
from tcbpf.isa.asm import assemble_lines
from tcbpf.obj.link import raw_func_info
from tcbpf.obj.program import Func, MapSpec, Program
from tcbpf.verifier.memory.structs import kernel_struct
from verifier.declare import Declarations, declare

HERE = Path(__file__).parent / "cases"
_WORD = re.compile(r"(type|license|attach|flags|privilege|main|reject|says|slow): *(.*)")
_MAP = re.compile(r"map (\S+): (\w+) (.+)")
_KFUNC = re.compile(r"call kfunc (\w+)")
_FUNCTION = re.compile(r"call (\w+)|subprog\[(\w+)\]")
_TYPE = re.compile(r"\{(own|kernel) ([\w ]+)\}")
_FIELD = re.compile(r"\{(\w+)\.(\w+)\}")
_REPEAT = re.compile(r"repeat (\d+): (.*)")


@dataclass(frozen=True)
class Case:
    """One program and its verdict: `reject` the reason's name or "", `says` the kernel's words."""

    feature: str
    name: str
    program: Program
    reject: str = ""
    says: str = ""
    privilege: str = "all"
    slow: bool = False

    def __str__(self) -> str:
        return f"{self.feature}/{self.name}"


@lru_cache(maxsize=1)
def cases() -> tuple[Case, ...]:
    """Return all cases, in order."""
    found = tuple(case for path in sorted(HERE.glob("*.txt")) for case in read(path))
    names = [str(case) for case in found]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"the same name twice: {twice}"
    return found


def read(path: Path) -> Iterator[Case]:
    """Yield the cases of one file."""
    head, *bodies = re.split(r"^== ", path.read_text(), flags=re.M)
    shared = _Shared(head)
    for body in bodies:
        yield shared.case(path.stem, body)


def place(match: re.Match[str]) -> str:
    """Return where a field of a structure of the running kernel lies; 0 where the kernel does not tell."""
    try:
        members = kernel_struct(match[1]).members
    except NotSupported:
        return "0"
    return str(next(m.offset // 8 for m in members if m.name == match[2]))


def repeated(line: str) -> list[str]:
    """Return the lines that a line with `repeat` stands for."""
    match = _REPEAT.fullmatch(line.strip())
    return [part.replace("{i}", str(i)) for i in range(int(match[1])) for part in match[2].split(" / ")] if match else [line]


class _Shared:
    """The first part of a file."""

    def __init__(self, text: str) -> None:
        self.words = {"type": "sched_cls", "license": "GPL", "attach": "0", "flags": "0", "privilege": "all", "main": "main"}
        self.fragments: dict[str, list[str]] = {}
        maps, c, inside = [], [], ""
        for line in (more for part in text.splitlines() for more in repeated(part)):
            bare = line.split("#")[0].rstrip()
            if not line.strip():
                inside = ""
            elif inside:
                self.fragments[inside].append(line)
            elif not bare:
                continue
            elif match := re.fullmatch(r"fragment (\w+):", bare):
                inside = match[1]
                self.fragments[inside] = []
            elif match := _MAP.fullmatch(bare):
                maps.append(match.groups())
            elif match := _WORD.fullmatch(bare):
                self.words[match[1]] = match[2]
            else:
                c.append(bare)
        self.declared: Declarations = declare("\n".join(c))
        sized = [self.map(*row) for row in maps]
        self.btf = self.declared.btf() if c else None
        self.maps = [replace(spec, btf=self.btf if spec.value_type else None) for spec in sized]

    def map(self, name: str, type: str, rest: str) -> MapSpec:
        """Return a map by its line."""
        fields = re.findall(r"struct \w+|\S+", rest)
        numbers, flags = fields[:3], dict(field.split("=") for field in fields[3:])
        sizes, ids = [], []
        for word in numbers[:2]:
            id = 0 if word.isdigit() else self.declared.type(word)
            ids.append(id)
            sizes.append(int(word) if word.isdigit() else self.declared.sizes[id])
        if ids[1] and not ids[0]:
            ids[0] = self.declared.type("int")
        inner = next((spec for spec in getattr(self, "maps_so_far", []) if spec.name == flags.get("inner")), None)
        contents = bytes.fromhex(flags["contents"]) if "contents" in flags else None
        spec = MapSpec(
            name,
            type,
            sizes[0],
            sizes[1],
            int(numbers[2]),
            int(flags.get("flags", "0"), 0),
            inner=inner,
            contents=contents,
            frozen="frozen" in flags,
            key_type=ids[0],
            value_type=ids[1],
        )
        self.maps_so_far = [*getattr(self, "maps_so_far", []), spec]
        return spec

    def case(self, feature: str, text: str) -> Case:
        """Return a case by its part of the file."""
        name, *lines = text.rstrip().splitlines()
        words, code = dict(self.words), []
        for line in lines:
            match = _WORD.fullmatch(line)
            if match and not line[0].isspace():
                words[match[1]] = match[2].strip()
            else:
                code += self.expanded(line)
        try:
            program = self.program(name, "\n".join(code), words)
        except Exception as error:
            raise AssertionError(f"{feature}/{name}: {error}") from error
        return Case(feature, name, program, words.get("reject", ""), words.get("says", ""), words["privilege"], "slow" in words)

    def expanded(self, line: str) -> list[str]:
        """Return what a line stands for."""
        if match := re.fullmatch(r"\s*\{(\w+)\}\s*", line):
            return [more for part in self.fragments[match[1]] for more in self.expanded(part)]
        return [_TYPE.sub(self.type_id, _FIELD.sub(place, part)) for part in repeated(line)]

    def type_id(self, match: re.Match[str]) -> str:
        """Return the number of a declared type, or of one of the running kernel; 0 where the kernel does not tell."""
        if match[1] == "own":
            return str(self.declared.type(match[2]))
        try:
            return str(kernel_struct(match[2]).id)
        except NotSupported:
            return "0"

    def program(self, name: str, text: str, words: dict[str, str]) -> Program:
        """Return the program of a text, with the maps it names."""
        named = set(re.findall(r"map\[(\w+)\]", text))
        used = [spec for spec in self.maps if spec.name in named]
        kfuncs = tuple(dict.fromkeys(_KFUNC.findall(text)))
        text = _KFUNC.sub(lambda match: f"call kfunc#{kfuncs.index(match[1])}", text)
        made = assemble_lines(text, maps=[spec.name for spec in used])
        named = {one or other for one, other in _FUNCTION.findall(text)} & set(made.labels)
        starts = {label: made.labels[label] for label in named | set(self.declared.functions) & set(made.labels)}
        known = words["main"] in self.declared.functions and all(
            label in self.declared.functions for label, pc in starts.items() if pc
        )
        funcs: tuple[Func, ...] = ()
        if known:
            funcs = (
                Func(0, words["main"], *self.declared.functions[words["main"]]),
                *(
                    Func(pc, label, *self.declared.functions[label])
                    for label, pc in sorted(starts.items(), key=lambda row: row[1])
                    if pc
                ),
            )
        return Program(
            "case",
            words["type"],
            made.insns,
            maps=tuple(used),
            kfuncs=kfuncs,
            license=words["license"],
            attach_type=int(words["attach"]),
            flags=int(words["flags"]),
            btf=self.btf if funcs else None,
            funcs=funcs,
            raw_func_info=raw_func_info(funcs) if funcs else b"",
        )
