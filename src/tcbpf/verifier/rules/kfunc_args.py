"""The arguments of a kernel function: what each register must hold, by the parameter's type and the ending of its name.

Source:  check_kfunc_args(), get_kfunc_ptr_arg_type(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tcbpf.tables.helpers import Mod
from tcbpf.tables.kfuncs import Kfunc, Param
from tcbpf.uapi.kfuncs import SIZES
from tcbpf.verifier.memory import graph
from tcbpf.verifier.memory.structs import same_struct
from tcbpf.verifier.paths.precision import mark_precise
from tcbpf.verifier.rules.args import check_dynptr, check_memory, check_offset, check_size, check_string
from tcbpf.verifier.rules.irq import check_irq_flag
from tcbpf.verifier.rules.iterator import Place, check_iterator
from tcbpf.verifier.rules.locks import check_deferred
from tcbpf.verifier.state.env import Env, Refused
from tcbpf.verifier.state.map_info import MapInfo
from tcbpf.verifier.state.state import Reg
from tcbpf.verifier.values.types import (
    ALLOC,
    BASE,
    BTF_ID,
    CTX,
    FUNC,
    MAP_PTR,
    MAP_VALUE,
    MAYBE_NULL,
    NON_OWN_REF,
    PERCPU,
    RCU,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    TCP_SOCK,
    TRUSTED,
    type_name,
)
from tcbpf.verifier.words.reasons import kernel_words

CONTEXTS: Final = {"skb": "struct __sk_buff", "xdp": "struct xdp_md"}
KERNEL_NAMES: Final = {SOCKET: "sock", SOCK_COMMON: "sock_common", TCP_SOCK: "tcp_sock", MAP_PTR: "bpf_map"}
"""The kernel's structure behind a pointer that has a type of its own."""

_SCALAR_SIZES: Final = {
    "char": 1,
    "u8": 1,
    "bool": 1,
    "u16": 2,
    "__be16": 2,
    "int": 4,
    "u32": 4,
    "s32": 4,
    "u64": 8,
    "s64": 8,
    "long unsigned int": 8,
}
_WARY: Final = frozenset(("TRUSTED_ARGS", "RELEASE", "RCU"))  # take only pointers that are surely good
_DYNPTR_KINDS: Final = {"bpf_dynptr_from_skb": "skb", "bpf_dynptr_from_xdp": "xdp", "bpf_dynptr_from_skb_meta": "skb_meta"}


Check = Callable[[Env, int, Reg, Param, "Meta"], bool | None]


class Meta:
    """What the arguments of one call tell about the call."""

    __slots__ = (
        "allocated",
        "constant",
        "dynptr",
        "field",
        "func",
        "iterator",
        "kfunc",
        "map",
        "owning",
        "ref",
        "release",
        "uid",
    )

    def __init__(self, kfunc: Kfunc) -> None:
        self.kfunc = kfunc
        self.ref = 0
        self.release = 0  # register whose reference ends
        self.constant: int | None = None
        self.func = -1
        self.map: MapInfo | None = None
        self.uid = 0
        self.dynptr: Reg | None = None
        self.iterator: Place | None = None
        self.field: Any = None  # the list head or tree root
        self.allocated: Any = None  # the type of the allocated object
        self.owning = False


def check_arguments(env: Env, kfunc: Kfunc) -> Meta:
    """Check the argument registers against the function's prototype, and return what they tell.

    Raises:  Refused.
    """
    meta = Meta(kfunc)
    regs = env.frame.regs
    size_checked = False
    for index, param in enumerate(kfunc.params):
        regno = index + 1
        if size_checked:
            size_checked = False
        elif param.ends("__ign") or param.ends("__prog"):
            continue
        elif not param.pointer:
            _check_number(env, regno, param, meta)
        else:
            size_checked = _check_pointer(env, regno, regs[regno], param, meta)
    if kfunc.has("RELEASE") and not meta.release:
        env.refuse("kfunc_release", name=kfunc.name)
    return meta


def _check_number(env: Env, regno: int, param: Param, meta: Meta) -> None:
    reg = env.frame.regs[regno]
    if reg.type != SCALAR:
        env.refuse("global_scalar", reg=regno)
    if param.ends("__k"):
        _take_constant(env, regno, reg, meta)
        mark_precise(env, regno)


def _take_constant(env: Env, regno: int, reg: Reg, meta: Meta) -> None:
    if reg.val.mask:
        env.refuse("kfunc_constant", reg=regno)
    meta.constant = reg.val.value


def _check_pointer(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> bool:
    """Check a pointer; return whether the size that follows was checked with it.

    Raises:  Refused.
    """
    kfunc, arg = meta.kfunc, regno - 1
    null = reg.is_null()
    wary = bool(kfunc.flags & _WARY)
    if wary and (null or reg.type & MAYBE_NULL) and not param.ends("__nullable"):
        env.refuse("kfunc_null", arg=arg)
    if reg.ref:
        meta.ref = reg.ref
        if kfunc.has("RELEASE"):
            meta.release = regno
    kind = _kind(env, regno, reg, param, kfunc)
    if kind == "null":
        return False
    if kind == "map":
        _take_map(env, regno, reg, meta)
    if kind in ("map", "alloc", "btf") and wary and not is_trusted(reg):
        if not kfunc.has("RCU"):
            env.refuse("kfunc_untrusted", reg=regno)
        if not reg.type & RCU:
            env.refuse("kfunc_rcu", reg=regno)
    check_offset(env, regno, reg, Mod.RELEASE if kfunc.has("RELEASE") and reg.ref else Mod.NONE)
    return bool(_CHECKS[kind](env, regno, reg, param, meta))


def is_trusted(reg: Reg) -> bool:
    """Tell whether a pointer surely points to a living object: referenced, or the kernel's word for it."""
    return (
        bool(reg.ref)
        or reg.type & BASE in KERNEL_NAMES
        or (bool(reg.type & (TRUSTED | ALLOC)) and not reg.type & ~(BASE | TRUSTED | ALLOC | NON_OWN_REF))
    )


_BY_TARGET: Final = {
    "struct bpf_dynptr": "dynptr",
    "struct bpf_list_head": "list_head",
    "struct bpf_list_node": "list_node",
    "struct bpf_rb_root": "rb_root",
    "struct bpf_rb_node": "rb_node",
}
_BY_TARGET_LATE: Final = {
    "struct bpf_wq": "workqueue",
    "struct bpf_task_work": "task_work",
    "struct bpf_res_spin_lock": "res_lock",
}


def _kind(env: Env, regno: int, reg: Reg, param: Param, kfunc: Kfunc) -> str:
    """Return how a pointer is checked; the order is the kernel's, since several would fit.

    Raises:  Refused.
    """
    target, arg = param.target, regno - 1
    if kfunc.name == "bpf_cast_to_kern_ctx" or target == CONTEXTS[env.type.context]:
        return "ctx"
    if param.ends("__nullable") and reg.is_null():
        return "null"
    if param.ends("__alloc"):
        return "alloc"
    if param.ends("__refcounted_kptr"):
        return "refcounted"
    if target in _BY_TARGET:
        return _BY_TARGET[target]
    if (arg == 0 and kfunc.flags & {"ITER_NEW", "ITER_NEXT", "ITER_DESTROY"}) or param.ends("__iter"):
        return "iterator"
    if param.ends("__str"):
        return "string"
    if param.ends("__map"):
        return "map"
    if target in _BY_TARGET_LATE:
        return _BY_TARGET_LATE[target]
    if param.ends("__irq_flag"):
        return "irq_flag"
    if reg.type & BASE == BTF_ID or reg.type & BASE in KERNEL_NAMES:
        if not target.startswith("struct "):
            env.refuse("kfunc_pointer_type", name=kfunc.name, arg=arg, type=_spelled(target))
        return "btf"
    if target == "callback":
        return "callback"
    following = kfunc.params[regno] if regno < len(kfunc.params) else None
    sized = (
        following is not None
        and not following.pointer
        and env.frame.regs[regno + 1].type == SCALAR
        and (following.ends("__sz") or following.ends("__szk"))
    )
    if not (memory_size(target) or (sized and target == "void")):
        env.refuse("kfunc_memory_type", arg=arg, type=_spelled(target), void="void, " if sized else "")
    return "memory_size" if sized else "memory"


def _spelled(target: str) -> str:
    """Return a type as the kernel's messages name it: "STRUCT sock", "INT int"."""
    word, _, name = target.partition(" ")
    if word in ("struct", "union", "enum"):
        return f"{word.upper()} {name}"
    return "UNKNOWN " if target == "void" else f"INT {target}"


def memory_size(target: str) -> int:
    """Return the size of what a pointer to numbers points to, 0 when that is something else."""
    word, _, name = target.partition(" ")
    if word == "enum":
        return 4
    return SIZES.get(name, 0) if word in ("struct", "union") else _SCALAR_SIZES.get(target, 0)


# --- one check for each kind of pointer ----------------------------------------------------------------------------------


def _check_ctx(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    if reg.type != CTX:
        env.refuse("kfunc_ctx", arg=regno - 1, type=type_name(reg.type))


def _check_dynptr(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    name = meta.kfunc.name
    kind, parent_ref = _DYNPTR_KINDS.get(name, ""), 0
    mod = Mod.UNINIT if param.ends("__uninit") else Mod.NONE
    if name == "bpf_dynptr_clone" and mod & Mod.UNINIT:
        assert meta.dynptr is not None
        kind, parent_ref = meta.dynptr.dynptr.kind, meta.dynptr.ref
    held = check_dynptr(env, regno, reg, mod, kind if mod & Mod.UNINIT else "", parent_ref)
    if held is not None:
        meta.dynptr = held


def _check_iterator(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    if meta.kfunc.name == "bpf_iter_css_task_new":
        env.refuse("iter_css_task")
    meta.iterator = check_iterator(env, regno, reg, meta.kfunc)
    if not meta.kfunc.flags & {"ITER_NEW", "ITER_DESTROY"}:
        held = env.cur.frames[meta.iterator.frame].stack[meta.iterator.spi].reg
        if held is not None:
            meta.ref = held.ref


def _check_string(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    if reg.type != MAP_VALUE:
        env.refuse("kfunc_string", arg=regno - 1)
    check_string(env, regno, reg)


def _take_map(env: Env, regno: int, reg: Reg, meta: Meta) -> None:
    if reg.type & BASE not in (MAP_PTR, MAP_VALUE):
        env.refuse("kfunc_map", reg=regno)
    if meta.map is not None and (meta.map is not reg.map or meta.uid != reg.uid):
        env.refuse("workqueue_map", uid=meta.uid, other=reg.uid)
    meta.map, meta.uid = reg.map, reg.uid


def _check_btf(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    wanted = "bpf_map" if param.ends("__map") else param.target.removeprefix("struct ")
    base, arg = reg.type & BASE, regno - 1
    unsafe = reg.type & ~(BASE | TRUSTED | ALLOC | NON_OWN_REF)
    if (base != BTF_ID or (unsafe and not reg.type & RCU)) and base not in KERNEL_NAMES:
        expected = type_name(base | reg.type & (TRUSTED | ALLOC | NON_OWN_REF))
        env.refuse("kfunc_btf", arg=arg, type=type_name(reg.type), expected=expected)
    held = KERNEL_NAMES.get(base) or str(reg.btf_type)
    strict = (meta.kfunc.has("RELEASE") and bool(reg.ref)) or _not_for_each_other(held, wanted)
    if not same_struct(held, reg.off, wanted, strict=strict or bool(reg.type & ALLOC)):
        env.refuse("kfunc_struct", name=meta.kfunc.name, arg=arg, expected=wanted, reg=regno, held=held)


def _not_for_each_other(held: str, wanted: str) -> bool:
    """Tell whether one name is the other with ___init: the same layout, but not to be exchanged."""
    return held != wanted and held.partition("___")[0] == wanted.partition("___")[0] and "___init" in held + wanted


def _check_memory(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    if reg.is_null():
        return
    size, regs = memory_size(param.target), env.frame.regs
    if reg.type & MAYBE_NULL:
        regs[regno] = reg.with_type(reg.type & ~MAYBE_NULL)
    check_memory(env, regno, size, write=False, zero_ok=True)
    check_memory(env, regno, size, write=True, zero_ok=True)
    regs[regno] = reg


def _check_memory_size(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> bool:
    size = env.frame.regs[regno + 1]
    if not (reg.is_null() and param.ends("__opt")):
        try:
            for write in (False, True):
                check_size(env, regno + 1, size, write=write, zero_ok=True, meta=None)
        except Refused as refused:
            refused.more += kernel_words("kfunc_memory_pair", arg=regno - 1, size=regno)
            raise
    if meta.kfunc.params[regno].ends("__szk"):
        _take_constant(env, regno + 1, size, meta)
    return True


def _check_callback(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    if reg.type != FUNC:
        env.refuse("kfunc_callback", arg=regno - 1)
    meta.func = reg.subprog


def _check_allocated(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    name, arg = meta.kfunc.name, regno - 1
    wanted = {BTF_ID | ALLOC: "bpf_obj_drop_impl", BTF_ID | ALLOC | PERCPU: "bpf_percpu_obj_drop_impl"}.get(reg.type)
    if wanted is None:
        env.refuse("kfunc_allocated", arg=arg)
    if name != wanted:
        env.refuse("kfunc_allocated_for", arg=arg, name=wanted)
    if not reg.ref:
        env.refuse("kfunc_allocated_reference")
    meta.allocated = reg.btf_type


def _check_irq_flag(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    check_irq_flag(env, regno, reg, meta.kfunc.name)


def _check_root(kind: str) -> Check:
    def check(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
        meta.field = graph.check_root(env, regno, reg, kind)

    return check


def _check_node(kind: str) -> Check:
    def check(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
        meta.allocated = graph.check_node(env, regno, reg, kind, meta.field, meta.kfunc.name)

    return check


def _check_refcounted(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    if reg.type & BASE != BTF_ID or not reg.type & ALLOC:
        env.refuse("refcount_pointer", arg=regno - 1)
    meta.owning = bool(reg.ref) and not reg.type & NON_OWN_REF
    record = graph.record_at(reg)
    if record is None or not record.has("bpf_refcount"):
        env.refuse("refcount_field", arg=regno - 1)
    meta.allocated = reg.btf_type


def _check_workqueue(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    if reg.type != MAP_VALUE:
        env.refuse("kfunc_map_value", arg=regno - 1)
    check_deferred(env, regno, reg, "bpf_wq")
    meta.map, meta.uid = reg.map, reg.uid


def _refuse_kind(env: Env, regno: int, reg: Reg, param: Param, meta: Meta) -> None:
    env.refuse("not_supported", what=f"kernel function {meta.kfunc.name}")


_CHECKS: Final[dict[str, Check]] = {
    "ctx": _check_ctx,
    "dynptr": _check_dynptr,
    "iterator": _check_iterator,
    "string": _check_string,
    "map": _check_btf,
    "btf": _check_btf,
    "memory": _check_memory,
    "memory_size": _check_memory_size,
    "callback": _check_callback,
    "alloc": _check_allocated,
    "irq_flag": _check_irq_flag,
    "refcounted": _check_refcounted,
    "list_head": _check_root("bpf_list_head"),
    "rb_root": _check_root("bpf_rb_root"),
    "list_node": _check_node("bpf_list_node"),
    "rb_node": _check_node("bpf_rb_node"),
    "workqueue": _check_workqueue,
    **dict.fromkeys(("task_work", "res_lock"), _refuse_kind),
}
