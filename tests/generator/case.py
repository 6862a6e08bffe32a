"""A program as the text of a case file of tests/verifier/cases, to be put there once it has shown something."""

from __future__ import annotations

import re

from generator.btf import GLOBALS
from generator.edit import target
from generator.oracle import Verdict
from tcbpf.isa.disasm import listing
from tcbpf.obj.program import MapSpec, Program

_STRUCTS = {
    "locked": "struct locked { int number; struct bpf_spin_lock lock; u64 data; u64 more; u64 last; };",
    "timed": "struct timed { u64 data; struct bpf_timer timer; u64 last; };",
    "kept": "struct kept { u64 data; struct task_struct *task [kptr]; struct task_struct *loose [kptr_untrusted]; };",
    "pair": "struct pair { u64 one; u64 two; };",
}
_TYPED = {"locked_hash": "locked", "sk_storage": "pair", "task_storage": "pair", "cgroup_local": "pair"}
_WORDS = {"ctx": "struct __sk_buff *a{}", "int": "int a{}", "long": "s64 a{}", "char": "char a{}", "int *": "int *a{}"}


def as_case(program: Program, title: str, kernel: Verdict, reason: str = "") -> str:
    """Return a whole case file: the maps and functions that the program names, and the one case with the kernel's verdict."""
    structs = {_TYPED.get(m.spec.name, m.spec.name) for m in program.maps if m.spec.value_type} & _STRUCTS.keys()
    head = [_STRUCTS[name] for name in sorted(structs)]
    if program.funcs:
        head += ["int main(struct __sk_buff *ctx);", *(_declared(f.name) for f in program.funcs[1:])]
    for handle in program.maps:
        inner = handle.spec.inner
        head += [_map(inner)] if inner is not None else []
        head.append(_map(handle.spec))
    words = [f"type: {program.type}"] if program.type != "sched_cls" else []
    if not kernel.accept:
        words += [f"reject: {reason or '?'}", f"says: {kernel.message}"]
    return "\n".join([*head, "", f"== {title}", *words, *_code(program)])


def _declared(name: str) -> str:
    if name not in GLOBALS:
        return f"static int {name}(struct __sk_buff *ctx);"
    arguments = [_WORDS.get(p, f"struct {p}a{{}}").format(i) for i, p in enumerate(GLOBALS[name])]
    return f"int {name}({', '.join(arguments) or 'void'});"


def _map(spec: MapSpec) -> str:
    more = f" flags={spec.flags:#x}" if spec.flags else ""
    more += f" contents={spec.contents.hex()}" if spec.contents is not None else ""
    more += " frozen=1" * spec.frozen + (f" inner={spec.inner.name}" if spec.inner is not None else "")
    if spec.value_type:
        return f"map {spec.name}: {spec.type} int struct {_TYPED.get(spec.name, spec.name)} {spec.max_entries}{more}"
    return f"map {spec.name}: {spec.type} {spec.key_size} {spec.value_size} {spec.max_entries}{more}"


def _code(program: Program) -> list[str]:
    names = {f.pc: f.name for f in program.funcs if f.pc}
    insns = program.insns
    targets = {to for pc, _ in listing(insns) if (to := target(insns, pc)) is not None}
    labels = {to: names.get(to, f"at_{to}") for to in sorted(targets | set(names))}
    lines = []
    for pc, text in listing(insns):
        to = target(insns, pc)
        if to is not None:
            text = re.sub(r"pc[+-]\d+$", labels[to], text)
            text = re.sub(r"subprog\[[+-]\d+\]", f"subprog[{labels[to]}]", text)
        text = re.sub(r"map\[idx:(\d+)\]", lambda m: f"map[{program.maps[int(m[1])].spec.name}]", text)
        text = re.sub(r"kfunc#(\d+)", lambda m: f"kfunc {program.kfuncs[int(m[1])]}", text)
        lines.append(f"    {labels[pc] + ': ' if pc in labels else ''}{text}")
    return lines
