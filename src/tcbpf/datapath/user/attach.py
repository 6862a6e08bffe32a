"""Requests of traffic control on the user datapath: programs become numbers, the State becomes the next one."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tcbpf.control.objects import Action, Actions, Bpf, Filter, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.errors import SysError
from tcbpf.tc import apply as tc

if TYPE_CHECKING:
    from tcbpf.datapath.user import User


def apply(dp: User, request: Request) -> tuple[TcObject, ...]:
    """Do one request, all of it or nothing.

    Raises:  TcError with the kernel's errno and words.
    """
    if request.op in (Op.SHOW, Op.GET):
        return tc.apply(dp.store.read(), request)[1]
    with dp.store.change() as change:
        change.state, answer = tc.apply(change.state, Request(request.op, resolved(dp, request.object)))
    return answer


def resolved(dp: User, thing: TcObject) -> TcObject:
    """Return filters and actions with their programs named by number, as they are kept."""
    if isinstance(thing, Filter):
        actions = tuple(resolved_action(dp, one) for one in thing.actions)
        if isinstance(thing.options, Bpf) and thing.options.prog is not None:
            return replace(thing, options=described(dp, thing.options, "sched_cls"), actions=actions)
        return replace(thing, actions=actions)
    if isinstance(thing, Actions):
        return Actions(tuple(resolved_action(dp, one) for one in thing.rows))
    return resolved_action(dp, thing) if isinstance(thing, Action) else thing


def resolved_action(dp: User, one: Action) -> Action:
    """Return an action with its program named by number."""
    if (prog := one.options.get("prog")) is None:
        return one
    of = described(dp, Bpf(prog=prog, name=str(one.options.get("name", ""))), "sched_act")
    rest = {name: value for name, value in one.options.items() if name != "prog"}
    known = {"id": of.id, "tag": of.tag, "name": of.name, "prog_name": of.prog_name, "jited": of.jited}
    return replace(one, options=rest | known)


def described(dp: User, options: Bpf, type: str) -> Bpf:
    """Return a filter's options with what its program's file says.

    Raises:  SysError with EINVAL for a program of another type.
    """
    prog: Any = options.prog
    head = dp.objects.head(prog.fileno())
    if head["type"] != type:
        raise SysError(errno.EINVAL, f"attach {head['name']}", f"a {head['type']} program where {type} is needed")
    return replace(
        options,
        prog=None,
        id=head["id"],
        tag=bytes.fromhex(head["tag"]),
        jited=dp.options.engine == "jit",
        prog_name=head["name"][:15],
        load_time=head["load_time"],
        uid=head["uid"],
    )
