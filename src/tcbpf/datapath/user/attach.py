"""Requests of traffic control on the user datapath: programs become numbers, the State becomes the next one."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tcbpf.control.objects import Action, Actions, Bpf, Filter, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.errors import SysError
from tcbpf.tc import apply as tc

if TYPE_CHECKING:
    from tcbpf.datapath.user.objects import Objects
    from tcbpf.datapath.user.store import Store

Describe = Callable[[Bpf, str], Bpf]
"""A filter's options, and the program type they need → the options with the program named by number; see `described`."""


def apply(store: Store, describe: Describe, request: Request) -> tuple[TcObject, ...]:
    """Do one request, all of it or nothing.

    Raises:  TcError with the kernel's errno and words.
    """
    if request.op in (Op.SHOW, Op.GET):
        return tc.apply(store.read(), request)[1]
    with store.change() as change:
        change.state, answer = tc.apply(change.state, Request(request.op, resolved(describe, request.object)))
    return answer


def resolved(describe: Describe, thing: TcObject) -> TcObject:
    """Return filters and actions with their programs named by number, as they are kept."""
    if isinstance(thing, Filter):
        actions = tuple(resolved_action(describe, one) for one in thing.actions)
        if isinstance(thing.options, Bpf) and thing.options.prog is not None:
            return replace(thing, options=describe(thing.options, "sched_cls"), actions=actions)
        return replace(thing, actions=actions)
    if isinstance(thing, Actions):
        return Actions(tuple(resolved_action(describe, one) for one in thing.rows))
    return resolved_action(describe, thing) if isinstance(thing, Action) else thing


def resolved_action(describe: Describe, one: Action) -> Action:
    """Return an action with its program named by number."""
    if (prog := one.options.get("prog")) is None:
        return one
    of = describe(Bpf(prog=prog, name=str(one.options.get("name", ""))), "sched_act")
    rest = {name: value for name, value in one.options.items() if name != "prog"}
    known = {"id": of.id, "tag": of.tag, "name": of.name, "prog_name": of.prog_name, "jited": of.jited}
    return replace(one, options=rest | known)


def described(objects: Objects, options: Bpf, type: str, *, jited: bool) -> Bpf:
    """Return a filter's options with its program's number, name, tag and times, as its file has them.

    Raises:  SysError with EINVAL for a program of another type.
    """
    prog: Any = options.prog
    head = objects.head(prog.fileno())
    if head["type"] != type:
        raise SysError(errno.EINVAL, f"attach {head['name']}", f"a {head['type']} program where {type} is needed")
    return replace(
        options,
        prog=None,
        id=head["id"],
        tag=bytes.fromhex(head["tag"]),
        jited=jited,
        prog_name=head["name"][:15],
        load_time=head["load_time"],
        uid=head["uid"],
    )
