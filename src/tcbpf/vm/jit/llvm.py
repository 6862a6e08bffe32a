"""IR text to an object file: the one file that knows llvmlite."""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Sequence
from functools import lru_cache

import llvmlite.binding as llvm

from tcbpf.errors import InternalError, NotSupported
from tcbpf.vm.jit import memfuncs

MACHINES = ("x86_64",)


@lru_cache(maxsize=1)
def _machine() -> llvm.TargetMachine:
    if platform.machine() not in MACHINES:
        raise NotSupported(f"no JIT for {platform.machine()}: use --engine interp")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, reloc="pic", codemodel="small"
    )


@lru_cache(maxsize=8)
def _runtime(bitcode: bytes, roots: frozenset[str]) -> llvm.ModuleRef:
    """Return the part of the runtime that the functions `roots` reach."""
    module = llvm.parse_bitcode(bitcode)
    _keep(module, roots)
    return module


def _keep(module: llvm.ModuleRef, names: Collection[str]) -> None:
    """Make everything but `names` internal and drop what they do not reach."""
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in names and not value.name.startswith("llvm."):
            value.linkage = "internal"
    shake = llvm.create_new_module_pass_manager()
    shake.add_global_dead_code_eliminate_pass()
    shake.run(module, llvm.create_pass_builder(_machine(), llvm.create_pipeline_tuning_options()))


def compile_object(text: str, exported: Sequence[str], bitcode: bytes = b"", speed: int = 2) -> bytes:
    """Return the ELF relocatable of a module with the runtime's `bitcode`; only `exported` functions stay visible.

    Raises:  InternalError when LLVM refuses the text; NotSupported on a machine without JIT.
    """
    try:
        return bytes(_machine().emit_object(_optimized(text, exported, bitcode, speed)))
    except RuntimeError as error:
        raise InternalError(f"LLVM: {error}") from error


def compile_text(text: str, exported: Sequence[str], bitcode: bytes = b"") -> tuple[str, str]:
    """Return the text of what compile_object() makes: the optimised IR and the machine code, in assembly."""
    module = _optimized(text, exported, bitcode, 2)
    return str(module), str(_machine().emit_assembly(module))


def _optimized(text: str, exported: Sequence[str], bitcode: bytes, speed: int) -> llvm.ModuleRef:
    machine = _machine()
    module = llvm.parse_assembly(text)
    module.triple = llvm.get_process_triple()
    module.data_layout = str(machine.target_data)
    roots = frozenset(re.findall(r"^declare .*@(tcbpf_\w+)", text, re.MULTILINE))
    if roots:
        module.link_in(_runtime(bitcode, roots), preserve=True)
    _keep(module, exported)
    _optimize(module, machine, speed)
    if any(f.is_declaration and f.name.removeprefix("llvm.").startswith(memfuncs.NAMES) for f in module.functions):
        module.link_in(llvm.parse_assembly(memfuncs.TEXT))
    return module


def _optimize(module: llvm.ModuleRef, machine: llvm.TargetMachine, speed: int) -> None:
    tuning = llvm.create_pipeline_tuning_options(speed_level=speed)
    tuning.loop_vectorization = tuning.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
