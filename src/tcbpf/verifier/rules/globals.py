"""Global functions: checked once, on their own, for any arguments that fit their BTF signature; trusted at every call.

Source:  btf_prepare_func_args(), kernel/bpf/btf.c; btf_check_func_arg_match(), do_check_common(), kernel/bpf/verifier.c
         (v6.18).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tcbpf.errors import ObjectError
from tcbpf.obj.btf import Btf, Kind
from tcbpf.verifier.memory.dynptr import dynptr_at
from tcbpf.verifier.memory.memory import check_unmoved
from tcbpf.verifier.rules.args import check_memory
from tcbpf.verifier.state.env import Env, Refused, SubInfo
from tcbpf.verifier.state.state import UNKNOWN_REG, ZERO, Dynptr, Frame, Reg
from tcbpf.verifier.values.types import BASE, CTX, DYNPTR, MAYBE_NULL, MEM, NOT_INIT, SCALAR, STACK
from tcbpf.verifier.words.reasons import kernel_words

_CONTEXTS: Final = {"skb": "__sk_buff", "xdp": "xdp_md"}
_NUMBERS: Final = (Kind.INT, Kind.ENUM, Kind.ENUM64)


class Param(NamedTuple):
    """One parameter: "scalar", "ctx", "mem", "dynptr"; memory has a size and may be NULL."""

    kind: str
    size: int = 0
    nullable: bool = True


def parameters(env: Env, sub: SubInfo) -> list[Param]:
    """Return a global function's parameters by its BTF.

    Raises:  Refused when the signature is not one that a global function may have.
    """
    if sub.args is not None:
        return sub.args
    btf = env.program.btf
    assert btf is not None
    func = btf[sub.type_id]
    proto = btf[func.type]
    if len(proto.members) > 5:
        env.refuse("global_too_many_args", name=func.name, count=len(proto.members))
    result = btf.resolve(proto.type) if proto.type else None
    if result is None or result.kind not in _NUMBERS:
        env.refuse("global_return", name=func.name)
    tags = _tags(btf, sub.type_id)
    sub.args = [_parameter(env, btf, i, p.type, func.name, tags.get(i, set())) for i, p in enumerate(proto.members)]
    return sub.args


def _tags(btf: Btf, func: int) -> dict[int, set[str]]:
    """Return the "arg:..." declaration tags of a function, by parameter."""
    found: dict[int, set[str]] = {}
    for component, tag in btf.decl_tags(func):
        if tag.startswith("arg:"):
            found.setdefault(component, set()).add(tag[4:])
    return found


def _parameter(env: Env, btf: Btf, index: int, id: int, name: str, tags: set[str]) -> Param:
    row = btf.resolve(id)
    if "ctx" in tags:
        return Param("ctx")
    if row.kind is Kind.PTR:
        target = btf.resolve(row.type)
        if target.name == _CONTEXTS[env.type.context] and target.kind is Kind.STRUCT:
            return Param("ctx")
        if target.name == "bpf_dynptr":
            return Param("dynptr")
        if tags & {"trusted", "arena", "untrusted"}:
            env.refuse("not_supported", what=f"an argument tagged {sorted(tags)[0]}")
        try:
            size = btf.sizeof(row.type)
        except ObjectError:
            env.refuse("global_arg_size", arg=index, type=f"{_word(target.kind)} {target.name if target.id else ''}")
        return Param("mem", size, "nonnull" not in tags)
    if row.kind in _NUMBERS:
        return Param("scalar")
    env.refuse("global_arg_type", arg=index, type=_word(row.kind), name=name)


def _word(kind: Kind) -> str:
    return {Kind.STRUCT: "STRUCT", Kind.UNION: "UNION", Kind.VOID: "UNKNOWN"}.get(kind, kind.name)


def set_arguments(env: Env, sub: SubInfo, frame: Frame) -> None:
    """Give a global function that is checked on its own the widest arguments that its signature allows."""
    params = parameters(env, sub)
    if sub.is_exception and [param.kind for param in params] != ["scalar"]:
        env.refuse("exception_argument")
    for i, param in enumerate(params):
        frame.regs[i + 1] = _widest(env, param)


def say_of_main(env: Env) -> None:
    """Write what the main function's signature lacks of a global function's, which refuses nothing."""
    main = env.subprogs[0]
    if not main.is_global or env.program.btf is None:
        return
    try:
        parameters(env, main)
    except Refused as refused:
        if refused.reason != "not_supported":
            env.log.line(kernel_words(refused.reason, **refused.facts)[0])


def _widest(env: Env, param: Param) -> Reg:
    if param.kind == "ctx":
        return Reg(CTX)
    if param.kind == "dynptr":
        return Reg(DYNPTR, ZERO, id=env.new_id(), extra=Dynptr("local", True))
    if param.kind == "mem":
        if param.nullable:
            return Reg(MEM | MAYBE_NULL, ZERO, id=env.new_id(), extra=param.size)
        return Reg(MEM, ZERO, extra=param.size)
    return UNKNOWN_REG


def check_call(env: Env, sub: SubInfo, number: int) -> None:
    """Check that a call's arguments fit a global function's signature.

    Raises:  Refused.
    """
    if env.cur.locks:
        env.refuse("global_locked")
    if sub.might_sleep and not env.cur.sleepable:
        env.refuse("global_might_sleep")
    try:
        for i, param in enumerate(parameters(env, sub)):
            _check_argument(env, i, env.frame.regs[i + 1], param)
    except Refused as refused:
        refused.more += (f"Caller passes invalid args into func#{number} ('{sub.name}')",)
        raise


def _check_argument(env: Env, index: int, reg: Reg, param: Param) -> None:
    regno = index + 1
    if reg.type == NOT_INIT and param.kind != "scalar":
        env.refuse("argument_type", reg=regno, type="?", expected="fp")
    if param.kind == "scalar":
        if reg.type != SCALAR:
            env.refuse("global_scalar", reg=regno)
    elif param.kind == "ctx":
        if reg.type == CTX:
            check_unmoved(env, regno, reg)
        else:
            env.refuse("global_ctx", arg=index)
    elif param.kind == "dynptr":
        if reg.type not in (STACK, DYNPTR):
            env.refuse("dynptr_type_arg", arg=index)
        if dynptr_at(env, reg) is None:
            env.refuse("dynptr_uninitialized", arg=index)
    else:
        _check_memory(env, index, reg, param)


def _check_memory(env: Env, index: int, reg: Reg, param: Param) -> None:
    regno = index + 1
    if not reg.is_null():
        regs = env.frame.regs
        if reg.type & MAYBE_NULL:
            regs[regno] = reg.with_type(reg.type & ~MAYBE_NULL)
        check_memory(env, regno, param.size, write=False, zero_ok=True)
        check_memory(env, regno, param.size, write=True, zero_ok=True)
        regs[regno] = reg
    if not param.nullable and reg.type & MAYBE_NULL and reg.type & BASE:
        env.refuse("global_nonnull", arg=index)
